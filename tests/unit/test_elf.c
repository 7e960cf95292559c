#include "tests/unit/boot_fixture.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The kernel of these tests: text (a page and a half), data with bss behind it, a segment whose offset and address are
 * not congruent, and notes. Between them the file has 0xee, which must not reach the guest.
 */
enum { FILE_SIZE = 0x8000, TEXT = 0, DATA = 1, ODD = 2, NOTE = 3, SEGMENTS = 4 };

static struct kernel_file {
    Elf64_Ehdr header;
    Elf64_Phdr segments[SEGMENTS];
    uint8_t rest[FILE_SIZE - sizeof(Elf64_Ehdr) - SEGMENTS * sizeof(Elf64_Phdr)];
} file;

static uint8_t *at(uint64_t offset)
{
    return (uint8_t *)&file + offset;
}

static void fill_segment(size_t index, uint64_t offset, uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
    file.segments[index] = (Elf64_Phdr){.p_type = PT_LOAD,
                                        .p_offset = offset,
                                        .p_vaddr = paddr + 0xffffffff80000000,
                                        .p_paddr = paddr,
                                        .p_filesz = filesz,
                                        .p_memsz = memsz,
                                        .p_align = 0x1000};
    boot_pattern(at(offset), filesz);
}

static void build_kernel(void)
{
    memset(&file, 0xee, sizeof(file));
    file.header = (Elf64_Ehdr){
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = 0x1000010,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = SEGMENTS,
    };
    fill_segment(TEXT, 0x1000, 0x1000000, 0x1800, 0x1800);
    fill_segment(DATA, 0x3000, 0x1003000, 0x1234, 0x9000);
    fill_segment(ODD, 0x5010, 0x1010000, 0x1100, 0x1100);
    file.segments[NOTE] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = 0x7000, .p_filesz = 0, .p_align = 4};
}

/* Appends a note to the NOTE segment. */
static void add_note(const char *name, uint32_t type, const void *description, uint32_t size)
{
    Elf64_Phdr *notes = &file.segments[NOTE];
    Elf64_Nhdr header = {.n_namesz = (uint32_t)strlen(name) + 1, .n_descsz = size, .n_type = type};
    uint64_t padding = notes->p_align - 1;
    uint64_t begin = notes->p_filesz;

    memcpy(at(notes->p_offset + begin), &header, sizeof(header));
    memcpy(at(notes->p_offset + begin + sizeof(header)), name, header.n_namesz);
    uint64_t described = (begin + sizeof(header) + header.n_namesz + padding) & ~padding;
    memcpy(at(notes->p_offset + described), description, size);
    notes->p_filesz = (described + size + padding) & ~padding;
    notes->p_memsz = notes->p_filesz;
}

static struct error *load(const struct guest_memory *memory, bool map, struct arch_kernel *kernel)
{
    return arch_kernel_load(memory, boot_file(&file, sizeof(file)), "/k/vmlinux", map, kernel);
}

static void expect_segments(const struct guest_memory *memory)
{
    for (size_t i = TEXT; i <= ODD; i++) {
        const Elf64_Phdr *segment = &file.segments[i];
        const uint8_t *there = guest_memory_at(memory, segment->p_paddr, segment->p_memsz);

        assert_memory_equal(there, at(segment->p_offset), segment->p_filesz);
        assert_true(
            boot_memory_is(memory, segment->p_paddr + segment->p_filesz, segment->p_memsz - segment->p_filesz, 0));
    }
}

static void test_kernel_is_read_to_its_place(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    assert_no_error(load(memory, false, &kernel));
    assert_int_equal(kernel.protocol, ARCH_BOOT_LINUX64);
    assert_int_equal(kernel.entry, 0x1000010);
    assert_int_equal(kernel.end, 0x1011100);
    assert_false(kernel.has_setup_header);
    assert_int_equal(kernel.mapped_bytes, 0);
    expect_segments(memory);
}

static void test_whole_pages_are_mapped_and_nothing_around_them(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    assert_no_error(load(memory, true, &kernel));
    /* A page of text, one of data; the rest of both and all of the odd one are read. */
    assert_int_equal(kernel.mapped_bytes, 0x2000);
    expect_segments(memory);
    assert_true(boot_memory_is(memory, 0x1001800, 0x1800, 0));
    assert_true(boot_memory_is(memory, 0x1011100, 0xf00, 0));
}

static void test_what_the_kernel_will_write_is_read(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    file.segments[DATA].p_flags = PF_R | PF_W;
    assert_no_error(load(memory, true, &kernel));
    assert_int_equal(kernel.mapped_bytes, 0x1000);
    expect_segments(memory);
}

static void test_segments_that_share_a_page_both_arrive(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    fill_segment(TEXT, 0x1000, 0x1000000, 0x1800, 0x1800);
    fill_segment(DATA, 0x2900, 0x1001900, 0x1700, 0x1800);
    assert_no_error(load(memory, true, &kernel));
    expect_segments(memory);
    assert_true(boot_memory_is(memory, 0x1001800, 0x100, 0));
}

static void test_guest_that_writes_leaves_the_file_alone(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;
    uint8_t before[0x1800];
    uint8_t after[0x1800];

    (void)state;
    build_kernel();
    int fd = boot_file(&file, sizeof(file));
    assert_int_equal(pread(fd, before, sizeof(before), 0x1000), sizeof(before));
    assert_no_error(arch_kernel_load(memory, fd, "/k/vmlinux", true, &kernel));
    memset(guest_memory_at(memory, 0x1000000, 0x1800), 0x11, 0x1800);
    assert_int_equal(pread(fd, after, sizeof(after), 0x1000), sizeof(after));
    assert_memory_equal(before, after, sizeof(before));
}

/* The flags that smaps shows for the mapping at `address`, as " rd wr mr ...". */
static void mapping_flags(const void *address, char flags[256])
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    unsigned long begin, end;
    bool found = false;
    char line[512];

    assert_non_null(smaps);
    flags[0] = '\0';
    while (fgets(line, sizeof(line), smaps) != NULL) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2 && strstr(line, "-") != NULL && line[0] != 'V')
            found = (unsigned long)address >= begin && (unsigned long)address < end;
        if (found && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, 256, "%.255s", line + 8);
    }
    fclose(smaps);
}

static void test_mapped_pages_are_neither_executable_nor_dumped(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;
    char flags[256];

    (void)state;
    build_kernel();
    assert_no_error(load(memory, true, &kernel));
    mapping_flags(guest_memory_at(memory, 0x1000000, 1), flags);
    assert_non_null(strstr(flags, " wr "));
    assert_null(strstr(flags, " ex "));
    assert_non_null(strstr(flags, " dd "));
    assert_null(strstr(flags, " sh ")); /* private */
}

static void test_pvh_note_decides_the_entry(void **state)
{
    static const struct {
        uint64_t align;
        uint32_t size;
    } shapes[] = {{4, 4}, {4, 8}, {8, 8}, {0, 4}};
    struct guest_memory *memory = boot_memory(32);
    const uint64_t entry = 0x1000020;

    (void)state;
    for (size_t i = 0; i < array_length(shapes); i++) {
        struct arch_kernel kernel;

        build_kernel();
        file.segments[NOTE].p_align = shapes[i].align == 0 ? 4 : shapes[i].align;
        add_note("Linux", 18, "not this", 8);
        add_note("Xen", 17, "nor this", 8);
        add_note("Xen", 18, &entry, shapes[i].size);
        add_note("GNU", 3, "0123456789", 10);
        file.segments[NOTE].p_align = shapes[i].align;
        assert_no_error(load(memory, false, &kernel));
        assert_int_equal(kernel.protocol, ARCH_BOOT_PVH);
        assert_int_equal(kernel.entry, entry);
    }
}

static void test_broken_notes_are_refused(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    const uint64_t outside = 0x2000000;
    const uint32_t huge = 0xffffffff;
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    add_note("Xen", 18, &outside, 8);
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "PVH entry is 0x2000000");

    build_kernel();
    add_note("Xen", 18, &outside, 3);
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "PVH note's size 0x3, expected 4 or 8");

    for (size_t field = 0; field < 2; field++) { /* n_namesz, n_descsz */
        build_kernel();
        add_note("Xen", 18, &outside, 8);
        memcpy(at(0x7000 + 4 * field), &huge, sizeof(huge));
        assert_error(load(memory, true, &kernel), ERROR_INPUT, "program header 3: note at 0x0");
    }
    build_kernel();
    file.segments[NOTE].p_filesz = 0x10001;
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "PT_NOTE's p_filesz 0x10001");
    build_kernel();
    file.segments[NOTE].p_offset = FILE_SIZE - 8;
    file.segments[NOTE].p_filesz = 16;
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "expected the notes within the file");
    assert_true(boot_memory_untouched(memory));
}

#define HEADER(field) offsetof(struct kernel_file, header.field), sizeof(file.header.field)
#define SEGMENT(index, field) offsetof(struct kernel_file, segments[index].field), sizeof(file.segments[0].field)

static void test_broken_headers_are_refused_with_field_value_and_expectation(void **state)
{
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *text;
    } broken[] = {
        {offsetof(struct kernel_file, header.e_ident[EI_CLASS]), 1, ELFCLASS32, "ELF class is 0x1, expected 2"},
        {offsetof(struct kernel_file, header.e_ident[EI_DATA]), 1, ELFDATA2MSB, "data encoding is 0x2, expected 1"},
        {HEADER(e_machine), EM_AARCH64, "e_machine is 0xb7, expected 0x3e"},
        {HEADER(e_type), ET_REL, "e_type is 0x1"},
        {HEADER(e_phentsize), 32, "e_phentsize is 0x20, expected 0x38"},
        {HEADER(e_phnum), 0, "e_phnum is 0x0"},
        {HEADER(e_phnum), 0xffff, "e_phnum is 0xffff"},
        {HEADER(e_phoff), FILE_SIZE, "e_phoff is 0x8000"},
        {HEADER(e_phoff), UINT64_MAX, "e_phoff is 0xffffffffffffffff"},
        {HEADER(e_phoff), UINT64_MAX - SEGMENTS * sizeof(Elf64_Phdr) + 1, "expected the program headers within"},
        {HEADER(e_entry), 0, "e_entry is 0x0"},
        {HEADER(e_entry), 0x1001800, "e_entry is 0x1001800"}, /* just behind the text */
        {HEADER(e_entry), 0x1005000, "e_entry is 0x1005000"}, /* in bss */
        {HEADER(e_entry), 0xffffffff81000010, "e_entry is 0xffffffff81000010, expected a physical address"},
        {SEGMENT(TEXT, p_filesz), 0x1801, "program header 0: p_filesz 0x1801, expected at most p_memsz"},
        {SEGMENT(DATA, p_offset), FILE_SIZE - 0x1233, "program header 1: p_offset 0x6dcd, expected the segment within"},
        {SEGMENT(DATA, p_offset), UINT64_MAX, "program header 1: p_offset 0xffffffffffffffff"},
        {SEGMENT(DATA, p_offset), UINT64_MAX - 0x1233, "program header 1: p_offset 0xffffffffffffedcc"},
        {SEGMENT(TEXT, p_paddr), 0, "program header 0: p_paddr 0x0, expected at least 0x100000"},
        {SEGMENT(TEXT, p_paddr), 0xfffff, "program header 0: p_paddr 0xfffff"},
        {SEGMENT(TEXT, p_paddr), 32 << 20, "0x1800 bytes at p_paddr 0x2000000, expected guest memory there"},
        {SEGMENT(TEXT, p_paddr), (32 << 20) - 0x17ff, "mem_size_mib is 32"},
        {SEGMENT(TEXT, p_paddr), 0xc0000000, "p_paddr 0xc0000000, expected guest memory"},
        {SEGMENT(TEXT, p_paddr), UINT64_MAX - 0x17ff, "p_paddr 0xffffffffffffe800, expected guest memory"},
        {SEGMENT(TEXT, p_paddr), UINT64_MAX, "p_paddr 0xffffffffffffffff, expected guest memory"},
        {SEGMENT(DATA, p_memsz), UINT64_MAX, "0xffffffffffffffff bytes at p_paddr 0x1003000"},
        {SEGMENT(DATA, p_paddr), 0x10017ff, "program header 1: p_paddr 0x10017ff, expected no overlap"},
        {SEGMENT(ODD, p_paddr), 0x1000000, "program header 2: p_paddr 0x1000000, expected no overlap"},
    };
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    for (size_t i = 0; i < array_length(broken); i++) {
        build_kernel();
        memcpy(at(broken[i].offset), &broken[i].value, broken[i].size);
        struct error *error = load(memory, true, &kernel);

        if (error == NULL)
            fail_msg("loaded, where \"%s\" was expected", broken[i].text);
        assert_int_equal(strncmp(error->message, "\"/k/vmlinux\": ELF", 17), 0);
        assert_error(error, ERROR_INPUT, broken[i].text);
        assert_true(boot_memory_untouched(memory));
    }
}

static void test_kernel_in_the_mmio_hole_or_above_the_entrys_page_tables_is_refused(void **state)
{
    struct guest_memory *memory = boot_memory(4096);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    file.segments[TEXT].p_paddr = 0xbffff000; /* into the hole */
    file.header.e_entry = 0xbffff000;
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "p_paddr 0xbffff000, expected guest memory");
    file.segments[TEXT].p_paddr = 0x40000000;
    file.header.e_entry = 0x40000000;
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "expected at most 0x40000000");
    assert_true(boot_memory_untouched(memory));
}

static void test_kernel_without_anything_to_load_is_refused(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    for (size_t i = 0; i < SEGMENTS; i++)
        file.segments[i].p_type = PT_NULL;
    assert_error(load(memory, true, &kernel), ERROR_INPUT, "without a PT_LOAD segment");
}

static void test_kernel_cut_off_anywhere_is_refused(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    build_kernel();
    size_t needed = file.segments[ODD].p_offset + file.segments[ODD].p_filesz;
    for (size_t size = 0; size < needed; size = size < 0x300 ? size + 1 : size + 0x1ff) {
        struct error *error = arch_kernel_load(memory, boot_file(&file, size), "/k/vmlinux", true, &kernel);

        assert_error(error, ERROR_INPUT, "\"/k/vmlinux\"");
        assert_true(boot_memory_untouched(memory));
    }
}

static void test_what_is_no_kernel_is_refused(void **state)
{
    static const struct {
        const char *bytes, *text;
    } files[] = {
        {"", "\"/k/vmlinux\" is empty"},
        {"\x7f", "starts with bytes 7f 00 00 00"},
        {"\x1f\x8b\x08", "(compressed: unpack it first), expected an ELF vmlinux or a bzImage"},
        {"#!/bin/sh\n", "starts with bytes 23 21 2f 62, expected"},
    };
    struct guest_memory *memory = boot_memory(32);
    struct arch_kernel kernel;

    (void)state;
    for (size_t i = 0; i < array_length(files); i++) {
        int fd = boot_file(files[i].bytes, strlen(files[i].bytes));
        assert_error(arch_kernel_load(memory, fd, "/k/vmlinux", true, &kernel), ERROR_INPUT, files[i].text);
    }

    cleanup_fd int directory = open("/", O_RDONLY | O_CLOEXEC);
    assert_error(arch_kernel_load(memory, directory, "/", true, &kernel), ERROR_INPUT, "\"/\" is a directory");
    cleanup_fd int device = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_error(arch_kernel_load(memory, device, "/dev/zero", true, &kernel), ERROR_INPUT, "is a device");
}

/* Any bytes changed in the headers: an error that leaves memory alone, or a kernel within it. */
static void test_mutated_headers_never_reach_outside(void **state)
{
    struct guest_memory *memory = boot_memory(32);
    const uint64_t entry = 0x1000020;
    uint64_t random = 88172645463325252;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct arch_kernel kernel;

        build_kernel();
        add_note("Xen", 18, &entry, 8);
        for (int change = 0; change < 3; change++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            size_t where = random % (sizeof(file.header) + sizeof(file.segments) + 32);
            if (where >= sizeof(file.header) + sizeof(file.segments))
                where = 0x7000 + where % 32;
            *at(where) = (uint8_t)(random >> 32);
        }
        struct error *error = load(memory, true, &kernel);
        if (error == NULL) {
            assert_non_null(guest_memory_at(memory, kernel.entry, 1));
            assert_true(kernel.end <= 32 << 20 && kernel.entry >= 1 << 20);
            assert_no_error(guest_memory_clear(memory, HUGE_PAGES_NONE));
        }
        error_free(error);
    }
    assert_true(boot_memory_untouched(memory));
}

#define TEST(name) cmocka_unit_test_teardown(name, boot_teardown)

TEST_MAIN(TEST(test_what_the_kernel_will_write_is_read), TEST(test_kernel_is_read_to_its_place),
          TEST(test_whole_pages_are_mapped_and_nothing_around_them), TEST(test_segments_that_share_a_page_both_arrive),
          TEST(test_guest_that_writes_leaves_the_file_alone), TEST(test_mapped_pages_are_neither_executable_nor_dumped),
          TEST(test_pvh_note_decides_the_entry), TEST(test_broken_notes_are_refused),
          TEST(test_broken_headers_are_refused_with_field_value_and_expectation),
          TEST(test_kernel_in_the_mmio_hole_or_above_the_entrys_page_tables_is_refused),
          TEST(test_kernel_without_anything_to_load_is_refused), TEST(test_kernel_cut_off_anywhere_is_refused),
          TEST(test_what_is_no_kernel_is_refused), TEST(test_mutated_headers_never_reach_outside))
