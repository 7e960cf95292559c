/* What a VMM costs the host beside its guest's memory: private pages and size, held to the project's goals. */
#include "tests/machine/every_device.h"
#include "tests/machine/machine.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SERVED_KIB = 64, /* after one GET */
    BUSY_KIB = 200,  /* disk, net, entropy and console at work */
    IDLE_KIB = 400,  /* every device, none used */
    SIZE_KIB = 512,  /* text and data of the program */
    MEMORY_MIB = 64,
    MAPPINGS_MAX = 512,
};

/* The other builds carry a sanitizer's or glibc's memory with them. */
static void need_release(void)
{
    const char *vmm = getenv("MAYFLY_VMM");

    if (vmm != NULL && strstr(vmm, "/release/") == NULL) {
        print_message("skipped: only the release build is held to its size\n");
        skip();
    }
}

struct mapping {
    unsigned long start, end;
    unsigned long own_kib; /* anonymous pages: "private dirty" would count text whose file is not on a disk yet */
};

static size_t read_mappings(const struct vm *vm, struct mapping *mappings)
{
    char line[512];
    size_t count = 0;

    FILE *file = fopen(vm_proc(vm, "smaps"), "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        struct mapping next = {0};

        if (sscanf(line, "%lx-%lx ", &next.start, &next.end) == 2) {
            assert_true(count < MAPPINGS_MAX);
            mappings[count++] = next;
        } else if (count > 0) {
            sscanf(line, "Anonymous: %lu kB", &mappings[count - 1].own_kib);
        }
    }
    fclose(file);
    return count;
}

/* Whether the mappings from `first` on, adjacent, are `size` bytes together; *last is then the last of them. */
static bool is_run(const struct mapping *mappings, size_t count, size_t first, unsigned long size, size_t *last)
{
    size_t i = first;

    while (i + 1 < count && mappings[i].end - mappings[first].start < size && mappings[i + 1].start == mappings[i].end)
        i++;
    *last = i;
    return mappings[i].end - mappings[first].start == size;
}

/* KiB of the process's own pages that are not in its guest's memory (0: there is none yet). */
static unsigned long own_kib(const struct vm *vm, unsigned long guest_size)
{
    static struct mapping mappings[MAPPINGS_MAX];
    size_t count = read_mappings(vm, mappings);
    unsigned long kib = 0;
    bool found = guest_size == 0;

    for (size_t i = 0; i < count; i++) {
        size_t last;

        if (!found && is_run(mappings, count, i, guest_size, &last)) {
            found = true;
            i = last;
        } else {
            kib += mappings[i].own_kib;
        }
    }
    assert_true(found);
    return kib;
}

/* What the caller has in its environment is on the stack of its children. */
static void forget_environment(void)
{
    if (clearenv() != 0)
        _exit(126);
}

static struct vm *start(void)
{
    return vm_start_with(&(struct machine_options){.before_exec = forget_environment});
}

static void boot(struct vm *vm, const char *guest, const char *cmdline, const char *text)
{
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":%d}", MEMORY_MIB);
    vm_boot(vm, guest, cmdline);
    vm_expect(vm, text);
}

static void test_vmm_that_has_served_a_get_is_small(void **state)
{
    (void)state;
    need_release();
    struct vm *vm = start();

    free(vm_get(vm, "/"));
    assert_in_range(own_kib(vm, 0), 1, SERVED_KIB);
}

static void test_idle_vm_with_every_device_is_small(void **state)
{
    (void)state;
    need_release();
    bool with_tap = every_device_tap();
    struct vm *vm = start();

    every_device_put(vm, with_tap);
    boot(vm, "spin", NULL, "spinning");
    assert_in_range(own_kib(vm, (unsigned long)MEMORY_MIB << 20), 1, IDLE_KIB);
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_vm_whose_devices_work_is_small(void **state)
{
    (void)state;
    need_release();
    bool with_tap = every_device_tap();
    struct vm *vm = start();

    vm_drive(vm, "disk", vm_file(vm, "disk", 1 << 20, 0), "");
    vm_put(vm, "/entropy", "{}");
    vm_put(vm, "/mayfly/console", "{\"ports\":[{\"name\":\"log\",\"output_path\":\"%s\"}]}", vm_path(vm, "console"));
    if (with_tap)
        vm_put(vm, "/network-interfaces/n", "{\"iface_id\":\"n\",\"host_dev_name\":\"tap0\"}");
    boot(vm, "busy", with_tap ? "net" : "", "busy");
    assert_in_range(own_kib(vm, (unsigned long)MEMORY_MIB << 20), 1, BUSY_KIB);
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

/* As size(1) counts: all that is loaded but what is zero at first. */
static void test_text_and_data_of_the_vmm_are_small(void **state)
{
    (void)state;
    need_release();
    const char *path = getenv("MAYFLY_VMM");
    cleanup_fd int fd = open(path != NULL ? path : "build/release/mayfly-vmm", O_RDONLY | O_CLOEXEC);
    struct stat status;
    size_t size = 0;

    assert_int_equal(fstat(fd, &status), 0);
    const char *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_ptr_not_equal(file, MAP_FAILED);
    const Elf64_Ehdr *header = (const void *)file;
    const Elf64_Shdr *sections = (const void *)(file + header->e_shoff);

    for (size_t i = 0; i < header->e_shnum; i++)
        if ((sections[i].sh_flags & SHF_ALLOC) && sections[i].sh_type != SHT_NOBITS)
            size += sections[i].sh_size;
    munmap((void *)(uintptr_t)file, (size_t)status.st_size);
    assert_in_range(size, 1, SIZE_KIB << 10);
}

TEST_MAIN(machine_test(test_vmm_that_has_served_a_get_is_small), machine_test(test_idle_vm_with_every_device_is_small),
          machine_test(test_vm_whose_devices_work_is_small), machine_test(test_text_and_data_of_the_vmm_are_small))
