#include "vmm/arch/x86_64/image.h"

#include "vmm/arch/x86_64/layout.h"
#include "vmm/base/checked.h"

#include <asm/bootparam.h>
#include <string.h>

/* Where the initrd must end: at the end of the memory below the hole, or before if a bzImage says so. */
static uint64_t limit(const struct guest_memory *memory, const struct arch_kernel *kernel)
{
    uint64_t end = memory->regions[0].gpa + memory->regions[0].size;

    if (kernel->has_setup_header) {
        struct setup_header header;

        memcpy(&header, kernel->setup_header, sizeof(header));
        if (header.initrd_addr_max < end - 1)
            end = (uint64_t)header.initrd_addr_max + 1;
    }
    return end;
}

struct error *arch_initrd_load(const struct guest_memory *memory, int fd, const char *path, bool map,
                               const struct arch_kernel *kernel, uint64_t *gpa, uint64_t *size)
{
    const uint64_t page = 4096;
    struct image image;
    size_t mapped = 0;

    struct error *error = image_open(&image, fd, path);
    if (error != NULL)
        return error;

    uint64_t first = align_up(kernel->end, page);
    uint64_t end = limit(memory, kernel);
    if (first > end || image.size > end - first || align_down(end - image.size, page) < first)
        return error_new(ERROR_INPUT,
                         "\"%s\": %llu bytes do not fit, expected at most %llu between the kernel's end 0x%llx and "
                         "0x%llx (mem_size_mib is %llu)",
                         path, (unsigned long long)image.size, (unsigned long long)(first > end ? 0 : end - first),
                         (unsigned long long)kernel->end, (unsigned long long)end,
                         (unsigned long long)guest_memory_size(memory) >> 20);

    const struct image_piece piece = {.gpa = align_down(end - image.size, page), .size = image.size};
    error = image_load(&image, memory, &piece, map, &mapped);
    if (error != NULL)
        return error;
    *gpa = piece.gpa;
    *size = piece.size;
    return NULL;
}
