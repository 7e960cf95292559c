/*
 * A compressed Linux kernel: Documentation/arch/x86/boot.rst. Its real-mode part is only read for the setup header;
 * what follows goes to pref_address, where a kernel would move itself anyway, and is entered at offset 0x200.
 */
#include "vmm/arch/x86_64/image.h"

#include "vmm/arch/x86_64/layout.h"
#include "vmm/base/checked.h"

#include <asm/bootparam.h>
#include <string.h>

enum {
    SETUP_HEADER = 0x1f1, /* offset in the file and in the zero page */
    SETUP_MAGIC = 0x202,
    SECTOR = 512,
    SETUP_SECTORS_DEFAULT = 4, /* what 0 stands for */
    BOOT_FLAG = 0xaa55,
    MAGIC = 0x53726448, /* "HdrS" */
    VERSION_MIN = 0x20c,
    ENTRY64 = 0x200,
    PARAGRAPH = 16, /* unit of syssize */
};

bool bzimage_recognise(const uint8_t *start, size_t length)
{
    return length >= SETUP_MAGIC + 4 && memcmp(start + SETUP_MAGIC, "HdrS", 4) == 0;
}

static struct error *wrong(const struct image *image, const char *field, uint64_t value, const char *expected)
{
    return error_new(ERROR_INPUT, "\"%s\": bzImage %s is 0x%llx, expected %s", image->path, field,
                     (unsigned long long)value, expected);
}

static struct error *check_header(const struct image *image, const struct setup_header *header)
{
    if (header->boot_flag != BOOT_FLAG)
        return wrong(image, "boot_flag", header->boot_flag, "0xaa55");
    if (header->version < VERSION_MIN)
        return wrong(image, "protocol version", header->version, "at least 0x20c (Linux 3.8)");
    if ((header->loadflags & LOADED_HIGH) == 0)
        return wrong(image, "loadflags", header->loadflags, "LOADED_HIGH (a bzImage, no zImage)");
    if ((header->xloadflags & XLF_KERNEL_64) == 0)
        return wrong(image, "xloadflags", header->xloadflags, "XLF_KERNEL_64 (a 64-bit kernel)");
    if (header->pref_address < LAYOUT_KERNEL_MIN)
        return wrong(image, "pref_address", header->pref_address, "at least 0x100000 (boot tables are below)");
    if (header->init_size == 0)
        return wrong(image, "init_size", 0, "what the kernel needs to start");
    return NULL;
}

/* The protected-mode part's place in the file. What comes after it (signatures) is not loaded. */
static struct error *find_payload(const struct image *image, const struct setup_header *header,
                                  struct image_piece *piece)
{
    uint64_t sectors = header->setup_sects == 0 ? SETUP_SECTORS_DEFAULT : header->setup_sects;
    uint64_t start = (sectors + 1) * SECTOR;
    uint64_t size = (uint64_t)header->syssize * PARAGRAPH;

    if (start >= image->size)
        return wrong(image, "setup_sects", sectors, "the setup code within the file (is it cut off?)");
    /* syssize is rounded up: up to 15 bytes of the last paragraph may not be there. */
    if (size <= ENTRY64 || size - (PARAGRAPH - 1) > image->size - start)
        return wrong(image, "syssize", header->syssize, "the kernel within the file (is it cut off?)");
    *piece = (struct image_piece){.offset = start, .gpa = header->pref_address};
    piece->size = size < image->size - start ? size : image->size - start;
    return NULL;
}

struct error *bzimage_parse(const struct image *image, const struct guest_memory *memory, struct arch_kernel *kernel,
                            struct image_plan *plan)
{
    struct setup_header header;
    struct image_piece *piece = &plan->pieces[0];

    _Static_assert(sizeof(header) <= sizeof(kernel->setup_header), "the header has its room");
    if (image->size < SETUP_HEADER + sizeof(header))
        return error_new(ERROR_INPUT, "\"%s\": %llu bytes, expected a bzImage's setup header of 0x%zx", image->path,
                         (unsigned long long)image->size, SETUP_HEADER + sizeof(header));

    struct error *error = image_read(image, SETUP_HEADER, &header, sizeof(header));
    if (error == NULL)
        error = check_header(image, &header);
    if (error == NULL)
        error = find_payload(image, &header, piece);
    if (error != NULL)
        return error;

    uint64_t needed = header.init_size > piece->size ? header.init_size : piece->size;
    if (guest_memory_at(memory, piece->gpa, needed) == NULL)
        return error_new(ERROR_INPUT,
                         "\"%s\": bzImage needs 0x%llx bytes at pref_address 0x%llx, expected guest memory there "
                         "(mem_size_mib is %llu)",
                         image->path, (unsigned long long)needed, (unsigned long long)piece->gpa,
                         (unsigned long long)guest_memory_size(memory) >> 20);
    if (piece->gpa + needed > LAYOUT_IDENTITY_MAPPED)
        return wrong(image, "pref_address", piece->gpa,
                     "the kernel's end below 0x40000000, what its entry finds mapped");

    plan->count = 1;
    kernel->protocol = ARCH_BOOT_LINUX64;
    kernel->entry = piece->gpa + ENTRY64;
    kernel->end = piece->gpa + needed;
    kernel->has_setup_header = true;
    memcpy(kernel->setup_header, &header, sizeof(header));
    return NULL;
}
