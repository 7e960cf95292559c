/* Files that the guest has as memory. */
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void put_pmem(struct vm *vm, const char *id, const char *path, const char *more)
{
    char at[80];

    snprintf(at, sizeof(at), "/pmem/%s", id);
    vm_put(vm, at, "{\"id\":\"%s\",\"path_on_host\":\"%s\"%s}", id, path, more);
}

static void assert_second_word(const char *path, const char *expected)
{
    char word[8];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, word, sizeof(word), 8), sizeof(word));
    close(fd);
    assert_memory_equal(word, expected, sizeof(word));
}

static void test_guest_writes_the_file_itself(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_file(vm, "memory", 2 << 20, 'a');

    (void)state;
    put_pmem(vm, "p", path, "");
    vm_boot(vm, "pmem", NULL);
    vm_expect(vm, "start 4000000000\nsize 200000\nfirst 6161616161616161\nwritten\nflush 0\nother 1\ndone\n");
    vm_expect_exit(vm, 0);
    assert_second_word(path, "\0my pmem");
}

/* A write to a read-only file harms neither the file nor the VMM, and the guest goes on. */
static void test_read_only_file_takes_no_write(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_file(vm, "memory", 2 << 20, 'a');

    (void)state;
    put_pmem(vm, "p", path, ",\"read_only\":true");
    vm_boot(vm, "pmem", NULL);
    vm_expect(vm, "first 6161616161616161\nread-only\nflush 0\nother 1\ndone\n");
    vm_expect_exit(vm, 0);
    assert_second_word(path, "aaaaaaaa");
}

/* The rest of the last 2 MiB is memory, but no part of the file. */
static void test_size_is_rounded_up_to_2_mib(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_file(vm, "memory", 5000, 'a');

    (void)state;
    put_pmem(vm, "p", path, "");
    vm_boot(vm, "pmem", "far=1048576");
    vm_expect(vm, "size 200000\nfirst 6161616161616161\nwritten\nflush 0\nother 1\nfar 0\nfar 1\ndone\n");
    vm_expect_exit(vm, 0);
    assert_int_equal(lseek(open(path, O_RDONLY | O_CLOEXEC), 0, SEEK_END), 5000);
}

static void test_several_files_lie_one_after_the_other_the_root_first(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    put_pmem(vm, "a", vm_file(vm, "one", 3 << 20, 'a'), "");
    put_pmem(vm, "b", vm_file(vm, "two", 2 << 20, 'b'), ",\"read_only\":true,\"root_device\":true");
    vm_boot(vm, "pmem", "nth=1");
    vm_expect(vm, "start 4000200000\nsize 400000\nfirst 6161616161616161\nwritten\n");
    vm_expect_exit(vm, 0);
}

/* Whatever was prepared before: the file's memslot is there. */
static void test_file_put_last_of_all_is_there_as_well(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64}");
    vm_boot_source(vm, "pmem", NULL);
    vm_put(vm, "/entropy", "{}");
    put_pmem(vm, "p", vm_file(vm, "one", 2 << 20, 'a'), "");
    put_pmem(vm, "p", vm_file(vm, "two", 2 << 20, 'b'), "");
    vm_action(vm, "InstanceStart");
    vm_expect(vm, "first 6262626262626262\nwritten\nflush 0\n");
    vm_expect_exit(vm, 0);
}

static void test_truncated_file_ends_the_vm_and_is_told(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_file(vm, "memory", 4 << 20, 'a');

    (void)state;
    put_pmem(vm, "p", path, "");
    vm_boot(vm, "pmem", "wait far=3145728");
    vm_expect(vm, "other 1\n");
    assert_int_equal(truncate(path, 2 << 20), 0);
    vm_say(vm, "g");
    vm_expect_exit(vm, 149);
    vm_expect_log(vm, "memory' was truncated while mapped into guest memory");
}

static void test_rate_limited_flush_comes_in_the_end(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    put_pmem(vm, "p", vm_file(vm, "memory", 2 << 20, 'a'), "");
    vm_boot(vm, "pmem", "wait");
    vm_expect(vm, "flush 0\n");
    vm_patch(vm, "/pmem/p", "{\"id\":\"p\",\"rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":20}}}");
    vm_say(vm, "g");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_wrong_files_and_second_roots_are_refused(void **state)
{
    struct vm *vm = vm_start();
    const char *path = vm_file(vm, "memory", 4096, 'a');
    const char *empty = vm_file(vm, "empty", 0, 'a');
    char json[256];

    (void)state;
    vm_refuses(vm, "PUT", "/pmem/p", "{\"id\":\"p\",\"path_on_host\":\"/nowhere\"}", "path_on_host: cannot open");
    vm_refuses(vm, "PUT", "/pmem/p", "{\"id\":\"p\",\"path_on_host\":\"/dev/urandom\"}", "is a character device");
    snprintf(json, sizeof(json), "{\"id\":\"p\",\"path_on_host\":\"%s\"}", empty);
    vm_refuses(vm, "PUT", "/pmem/p", json, "is empty, expected a file of at least one byte");
    put_pmem(vm, "a", path, ",\"root_device\":true");
    put_pmem(vm, "a", path, ",\"root_device\":true");
    snprintf(json, sizeof(json), "{\"id\":\"p\",\"path_on_host\":\"%s\",\"root_device\":true}", path);
    vm_refuses(vm, "PUT", "/pmem/p", json, "pmem 'a' is the root device already");
    snprintf(json, sizeof(json), "{\"drive_id\":\"d\",\"path_on_host\":\"%s\",\"is_root_device\":true}", path);
    vm_refuses(vm, "PUT", "/drives/d", json, "pmem 'a' is the root device already");
    vm_refuses(vm, "PATCH", "/pmem/a", "{\"id\":\"a\",\"rate_limiter\":{}}", "");
    vm_boot(vm, "pmem", "wait");
    vm_refuses(vm, "PATCH", "/pmem/b", "{\"id\":\"b\",\"rate_limiter\":{}}", "id: 'b', expected the id of");
    vm_refuses(vm, "PUT", "/pmem/p", "{\"id\":\"p\",\"path_on_host\":\"/p\"}", "");
}

TEST_MAIN(machine_test(test_guest_writes_the_file_itself), machine_test(test_read_only_file_takes_no_write),
          machine_test(test_size_is_rounded_up_to_2_mib),
          machine_test(test_several_files_lie_one_after_the_other_the_root_first),
          machine_test(test_file_put_last_of_all_is_there_as_well),
          machine_test(test_truncated_file_ends_the_vm_and_is_told),
          machine_test(test_rate_limited_flush_comes_in_the_end),
          machine_test(test_wrong_files_and_second_roots_are_refused))
