#include "vmm/arch/x86_64/image.h"

#include <string.h>

static struct error *unknown_format(const struct image *image, const uint8_t *start)
{
    bool gzip = start[0] == 0x1f && start[1] == 0x8b;
    bool zstd = memcmp(start, "\x28\xb5\x2f\xfd", 4) == 0;
    bool xz = memcmp(start,
                     "\xfd"
                     "7zX",
                     4) == 0;

    return error_new(ERROR_INPUT,
                     "\"%s\" starts with bytes %02x %02x %02x %02x%s, expected an ELF vmlinux or a bzImage",
                     image->path, start[0], start[1], start[2], start[3],
                     gzip || zstd || xz ? " (compressed: unpack it first)" : "");
}

struct error *arch_kernel_load(const struct guest_memory *memory, int fd, const char *path, bool map,
                               struct arch_kernel *kernel)
{
    struct image image;
    struct image_plan plan = {.count = 0};
    uint8_t start[0x206] = {0};

    struct error *error = image_open(&image, fd, path);
    if (error != NULL)
        return error;
    size_t length = image.size < sizeof(start) ? (size_t)image.size : sizeof(start);
    error = image_read(&image, 0, start, length);
    if (error != NULL)
        return error;

    memset(kernel, 0, sizeof(*kernel));
    if (elf_recognise(start, length))
        error = elf_parse(&image, memory, kernel, &plan);
    else if (bzimage_recognise(start, length))
        error = bzimage_parse(&image, memory, kernel, &plan);
    else
        error = unknown_format(&image, start);

    /* All is checked: from here on guest memory changes. */
    for (size_t i = 0; error == NULL && i < plan.count; i++)
        error = image_load(&image, memory, &plan.pieces[i], map && !plan.pieces[i].read, &kernel->mapped_bytes);
    return error;
}
