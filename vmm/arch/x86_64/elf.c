/*
 * An uncompressed kernel: ELF64 (System V gABI, chapters 4 and 5). Its PT_LOAD segments go to their physical addresses.
 *
 * A PVH note decides the entry, as Xen, QEMU and Firecracker have it: FreeBSD and unikernels come with an e_entry that
 * is not for us. Linux takes either, in the same number of instructions within what can be measured; by PVH the VMM
 * has three pages less to write. Freestanding guests without the note are entered in long mode.
 */
#include "vmm/arch/x86_64/image.h"

#include "vmm/arch/x86_64/layout.h"
#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

enum { NOTES_SIZE_MAX = 1 << 16, XEN_ELFNOTE_PHYS32_ENTRY = 18 };

struct elf {
    const struct image *image;
    Elf64_Ehdr header;
    Elf64_Phdr segments[IMAGE_PIECES_MAX];
};

bool elf_recognise(const uint8_t *start, size_t length)
{
    return length >= SELFMAG && memcmp(start, ELFMAG, SELFMAG) == 0;
}

static struct error *wrong(const struct elf *elf, const char *field, uint64_t value, const char *expected)
{
    return error_new(ERROR_INPUT, "\"%s\": ELF %s is 0x%llx, expected %s", elf->image->path, field,
                     (unsigned long long)value, expected);
}

static struct error *read_header(struct elf *elf)
{
    const Elf64_Ehdr *header = &elf->header;

    if (elf->image->size < sizeof(*header))
        return error_new(ERROR_INPUT, "\"%s\": %llu bytes, expected an ELF header of %zu", elf->image->path,
                         (unsigned long long)elf->image->size, sizeof(*header));

    struct error *error = image_read(elf->image, 0, &elf->header, sizeof(elf->header));
    if (error != NULL)
        return error;
    if (header->e_ident[EI_CLASS] != ELFCLASS64)
        return wrong(elf, "class", header->e_ident[EI_CLASS], "2 (64-bit)");
    if (header->e_ident[EI_DATA] != ELFDATA2LSB)
        return wrong(elf, "data encoding", header->e_ident[EI_DATA], "1 (little-endian)");
    if (header->e_machine != EM_X86_64)
        return wrong(elf, "e_machine", header->e_machine, "0x3e (x86-64)");
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return wrong(elf, "e_type", header->e_type, "2 (executable) or 3 (shared)");
    if (header->e_phentsize != sizeof(Elf64_Phdr))
        return wrong(elf, "e_phentsize", header->e_phentsize, "0x38");
    if (header->e_phnum == 0 || header->e_phnum > IMAGE_PIECES_MAX)
        return wrong(elf, "e_phnum", header->e_phnum, "1 to 0x40 program headers");
    if (!range_within(header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr), elf->image->size))
        return wrong(elf, "e_phoff", header->e_phoff, "the program headers within the file");
    return image_read(elf->image, header->e_phoff, elf->segments, header->e_phnum * sizeof(Elf64_Phdr));
}

static struct error *wrong_segment(const struct elf *elf, size_t index, const char *what, uint64_t value,
                                   const char *expected)
{
    return error_new(ERROR_INPUT, "\"%s\": ELF program header %zu: %s 0x%llx, expected %s", elf->image->path, index,
                     what, (unsigned long long)value, expected);
}

static bool is_loaded(const Elf64_Phdr *segment)
{
    return segment->p_type == PT_LOAD && segment->p_memsz > 0;
}

static struct error *check_segment(const struct elf *elf, const struct guest_memory *memory, size_t index)
{
    const Elf64_Phdr *segment = &elf->segments[index];

    if (segment->p_filesz > segment->p_memsz)
        return wrong_segment(elf, index, "p_filesz", segment->p_filesz, "at most p_memsz");
    if (!range_within(segment->p_offset, segment->p_filesz, elf->image->size))
        return wrong_segment(elf, index, "p_offset", segment->p_offset, "the segment within the file (is it cut off?)");
    if (segment->p_paddr < LAYOUT_KERNEL_MIN)
        return wrong_segment(elf, index, "p_paddr", segment->p_paddr, "at least 0x100000 (boot tables are below)");
    if (guest_memory_at(memory, segment->p_paddr, segment->p_memsz) == NULL)
        return error_new(ERROR_INPUT,
                         "\"%s\": ELF program header %zu: 0x%llx bytes at p_paddr 0x%llx, expected guest memory there "
                         "(mem_size_mib is %llu)",
                         elf->image->path, index, (unsigned long long)segment->p_memsz,
                         (unsigned long long)segment->p_paddr, (unsigned long long)guest_memory_size(memory) >> 20);

    for (size_t i = 0; i < index; i++) {
        const Elf64_Phdr *other = &elf->segments[i];

        if (is_loaded(other) && segment->p_paddr < other->p_paddr + other->p_memsz &&
            other->p_paddr < segment->p_paddr + segment->p_memsz)
            return wrong_segment(elf, index, "p_paddr", segment->p_paddr, "no overlap with another segment");
    }
    return NULL;
}

/*
 * Linux writes nearly every page of its data and init segments while it boots: mapped, each costs a fault to read and
 * one to write, and is private in the end all the same. Larger ones than any kernel of today has are mapped.
 */
enum { WRITABLE_READ_MAX = 1 << 20 };

static struct error *plan_segments(const struct elf *elf, const struct guest_memory *memory, struct arch_kernel *kernel,
                                   struct image_plan *plan)
{
    for (size_t i = 0; i < elf->header.e_phnum; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        if (!is_loaded(segment))
            continue;
        struct error *error = check_segment(elf, memory, i);
        if (error != NULL)
            return error;
        plan->pieces[plan->count++] = (struct image_piece){
            .offset = segment->p_offset,
            .gpa = segment->p_paddr,
            .size = segment->p_filesz,
            .read = (segment->p_flags & PF_W) != 0 && segment->p_filesz <= WRITABLE_READ_MAX,
        };
        if (segment->p_paddr + segment->p_memsz > kernel->end)
            kernel->end = segment->p_paddr + segment->p_memsz;
    }
    if (plan->count == 0)
        return error_new(ERROR_INPUT, "\"%s\": ELF file without a PT_LOAD segment, expected a kernel",
                         elf->image->path);
    return NULL;
}

/* Looks for the PVH entry in one PT_NOTE segment's bytes. Notes that run over the end are an error. */
static struct error *find_pvh_entry(const struct elf *elf, size_t index, const uint8_t *notes, size_t size,
                                    struct arch_kernel *kernel)
{
    const uint64_t alignment = elf->segments[index].p_align == 8 ? 8 : 4;
    uint64_t at = 0;

    while (range_within(at, sizeof(Elf64_Nhdr), size)) {
        Elf64_Nhdr note;

        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note);
        uint64_t description = align_up(name + note.n_namesz, alignment);
        if (!range_within(description, note.n_descsz, size))
            return wrong_segment(elf, index, "note at", at, "it to end within PT_NOTE");

        bool is_entry = note.n_namesz == sizeof("Xen") && memcmp(notes + name, "Xen", sizeof("Xen")) == 0 &&
                        note.n_type == XEN_ELFNOTE_PHYS32_ENTRY;
        if (is_entry && note.n_descsz != sizeof(uint32_t) && note.n_descsz != sizeof(uint64_t))
            return wrong_segment(elf, index, "PVH note's size", note.n_descsz, "4 or 8");
        if (is_entry) {
            kernel->protocol = ARCH_BOOT_PVH;
            kernel->entry = 0;
            memcpy(&kernel->entry, notes + description, note.n_descsz);
        }
        at = align_up(description + note.n_descsz, alignment);
    }
    return NULL;
}

static struct error *read_notes(const struct elf *elf, struct arch_kernel *kernel)
{
    for (size_t i = 0; i < elf->header.e_phnum; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        if (segment->p_type != PT_NOTE || segment->p_filesz == 0)
            continue;
        if (segment->p_filesz > NOTES_SIZE_MAX)
            return wrong_segment(elf, i, "PT_NOTE's p_filesz", segment->p_filesz, "at most 0x10000");
        if (!range_within(segment->p_offset, segment->p_filesz, elf->image->size))
            return wrong_segment(elf, i, "p_offset", segment->p_offset, "the notes within the file");

        cleanup_free uint8_t *notes = malloc(segment->p_filesz);
        if (notes == NULL)
            return error_errno(ENOMEM, "\"%s\": notes", elf->image->path);
        struct error *error = image_read(elf->image, segment->p_offset, notes, segment->p_filesz);
        if (error == NULL)
            error = find_pvh_entry(elf, i, notes, segment->p_filesz, kernel);
        if (error != NULL)
            return error;
    }
    return NULL;
}

static struct error *check_entry(const struct elf *elf, const struct arch_kernel *kernel)
{
    bool loaded = false;

    for (size_t i = 0; i < elf->header.e_phnum; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        if (is_loaded(segment) && kernel->entry >= segment->p_paddr &&
            kernel->entry - segment->p_paddr < segment->p_filesz)
            loaded = true;
    }
    if (kernel->protocol == ARCH_BOOT_PVH) {
        if (!loaded || kernel->entry > UINT32_MAX)
            return wrong(elf, "PVH entry", kernel->entry, "an address below 4 GiB in a loaded segment");
        return NULL;
    }
    if (!loaded)
        return wrong(elf, "e_entry", kernel->entry, "a physical address in a loaded segment");
    if (kernel->end > LAYOUT_IDENTITY_MAPPED)
        return wrong(elf, "end in memory", kernel->end, "at most 0x40000000, what a 64-bit entry finds mapped");
    return NULL;
}

struct error *elf_parse(const struct image *image, const struct guest_memory *memory, struct arch_kernel *kernel,
                        struct image_plan *plan)
{
    struct elf elf = {.image = image};
    struct error *error = read_header(&elf);

    if (error != NULL)
        return error;
    kernel->protocol = ARCH_BOOT_LINUX64;
    kernel->entry = elf.header.e_entry;
    error = plan_segments(&elf, memory, kernel, plan);
    if (error == NULL)
        error = read_notes(&elf, kernel);
    if (error == NULL)
        error = check_entry(&elf, kernel);
    return error;
}
