/* Memory that a guest gets and loses while it runs. */
#include "tests/machine/huge_pages.h"
#include "tests/machine/one_backend.h"

#include "vmm/backend/unix_socket.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char beginning[] = "block 200000\nstart 100000000\nsize 40000000\nplugged 0\nearly 1\nready\n";

/* A processor lets the guest fall where memory is forbidden; a KVM that emulates it lets the access come to nothing. */
static bool guest_code_is_emulated(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    cleanup_free char *line = NULL;
    size_t size = 0;
    bool found = false;

    assert_non_null(file);
    while (getline(&line, &size, file) > 0)
        found |= strncmp(line, "flags", 5) == 0 && (strstr(line, " svm") != NULL || strstr(line, " vmx") != NULL);
    fclose(file);
    return !found;
}

static void assert_sizes(struct vm *vm, unsigned plugged, unsigned requested)
{
    cleanup_free char *body = vm_get(vm, "/hotplug/memory");
    char expected[160];

    snprintf(expected, sizeof(expected),
             "{\"total_size_mib\":1024,\"slot_size_mib\":128,\"block_size_mib\":2,\"plugged_size_mib\":%u,"
             "\"requested_size_mib\":%u}",
             plugged, requested);
    assert_string_equal(body, expected);
}

/* A VM that may have 1024 MiB more, which is asked to have `mib`. */
static struct vm *start_with(struct vm *vm, const char *cmdline, unsigned mib)
{
    vm_put(vm, "/entropy", "{}");
    vm_put(vm, "/hotplug/memory", "{\"total_size_mib\":1024}");
    vm_boot(vm, "memory_hotplug", cmdline);
    vm_expect(vm, beginning);
    vm_patch(vm, "/hotplug/memory", "{\"requested_size_mib\":%u}", mib);
    assert_sizes(vm, 0, mib);
    return vm;
}

static struct vm *start(const char *cmdline, unsigned mib)
{
    return start_with(vm_start(), cmdline, mib);
}

static void test_plugged_memory_is_used_and_goes_back_to_the_host(void **state)
{
    struct vm *vm = start(NULL, 32);
    unsigned long before = vm_pss_mib(vm);

    (void)state;
    vm_say(vm, "g");
    vm_expect(vm, "wanted 2000000\nplug 0\nstate 0\nbeyond 20000\nplugged 2000000\n");
    assert_sizes(vm, 32, 32);
    assert_true(vm_pss_mib(vm) + 1 >= before + 32);
    vm_patch(vm, "/hotplug/memory", "{\"requested_size_mib\":4}");
    vm_say(vm, "g");
    vm_expect(vm, "unplug 0\nrest fffffffffeffffff\nhalf\n");
    assert_sizes(vm, 16, 4);
    assert_true(vm_pss_mib(vm) <= before + 17);
    vm_say(vm, "g");
    /* Nothing is where memory was, and nothing of it is in memory that comes again. */
    vm_expect(vm, "all 0\nstate 10000\nnothing ffffffffffffffff\nplugged 0\nplug 0\nempty 0\ndone\n");
    vm_expect_exit(vm, 0);
}

/* Where the host has not enough of them the guest is told so, and goes on. */
static void test_huge_pages_are_plugged_and_go_back_to_the_host(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    huge_pages_reserve(32 + 16);
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"huge_pages\":\"2M\"}");
    start_with(vm, "short", 34);
    assert_int_equal(huge_pages_left(), 16);
    vm_say(vm, "g");
    vm_expect(vm, "wanted 2200000\ntoo many 2\nplug 0\nstate 0\nbeyond 20000\nplugged 2000000\n");
    assert_int_equal(huge_pages_left(), 0);
    assert_sizes(vm, 32, 34);
    vm_say(vm, "g");
    vm_expect(vm, "unplug 0\nrest fffffffffeffffff\nhalf\n");
    assert_int_equal(huge_pages_left(), 8);
    vm_say(vm, "g");
    vm_expect(vm, "all 0\n");
    vm_expect(vm, "empty 0\ndone\n");
    vm_expect_exit(vm, 0);
}

/* The rest of a memslot that is plugged in part. */
static void test_unplugged_memory_is_out_of_the_guests_reach(void **state)
{
    struct vm *vm = start("touch", 32);

    (void)state;
    vm_say(vm, "gg");
    vm_expect(vm, "half\n");
    vm_say(vm, "g");
    if (!guest_code_is_emulated()) {
        vm_expect_exit(vm, 1);
        vm_expect_log(vm, "the guest touched memory that is not plugged");
        return;
    }
    vm_expect(vm, "reached 0\n");
}

static void test_wrong_requests_change_nothing(void **state)
{
    struct vm *vm = start("hostile", 16);

    (void)state;
    vm_say(vm, "g");
    vm_expect(vm,
              "beyond 1\nbelow 3\nabove 3\nacross 3\nwraps 3\nuneven 3\nnone 3\nnot plugged 3\nodd 3\nplug 0\nagain 3\n"
              "mixed 20000\nmixed plug 3\nmixed unplug 3\nhalf 3\ngone 10000\nplug 0\n");
    vm_say(vm, "gg");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_memory_in_many_pieces_comes_and_goes(void **state)
{
    struct vm *vm = start("pieces", 64);

    (void)state;
    vm_say(vm, "g");
    vm_expect(vm, "failures 0\nplug 0\n");
    vm_say(vm, "gg");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

/* The VMM has its hands on the ring: taken away, it would fall with it. */
static void test_ring_of_a_device_keeps_its_memory(void **state)
{
    struct vm *vm = start("rings", 16);

    (void)state;
    vm_say(vm, "g");
    vm_expect(vm, "status 4\nring 2\nring all 2\nplugged 1000000\n");
}

/* A network always has some, for frames that may never come: only memory that they are in must wait. */
static void test_receive_buffers_keep_no_memory_but_their_own(void **state)
{
    struct vm *vm = vm_start();
    struct unix_socket_file file;
    cleanup_fd int peer = -1;

    (void)state;
    assert_no_error(unix_socket_listen(vm_path(vm, "peer.sock"), SOCK_STREAM, 1, &peer, &file));
    vm_put(vm, "/network-interfaces/eth0",
           "{\"iface_id\":\"eth0\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"%s\"}}",
           vm_path(vm, "peer.sock"));
    start_with(vm, "net", 16);
    vm_say(vm, "g");
    vm_expect(vm, "beyond 20000\nbeside 0\nagain 0\nwithin 2\nwithout 0\nagain 0\n");
}

static void test_wrong_configurations_are_refused(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "GET", "/hotplug/memory", NULL, "has not started");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{}", "total_size_mib: missing");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":100}",
               "total_size_mib: 100, expected a multiple of slot");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":0}", "total_size_mib: 0");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024,\"block_size_mib\":3}",
               "block_size_mib: 3, expected a power");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024,\"block_size_mib\":1}", "block_size_mib: 1");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024,\"slot_size_mib\":129}",
               "slot_size_mib: 129, expected");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024,\"slot_size_mib\":64}", "slot_size_mib: 64");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":1099511627776}", "total_size_mib: 1099511627776");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":4294967168}", "total_size_mib: 4294967168");
    vm_put(vm, "/hotplug/memory", "{\"total_size_mib\":2048,\"slot_size_mib\":256,\"block_size_mib\":4}");
    vm_boot(vm, "spin", NULL);
    vm_refuses(vm, "PATCH", "/hotplug/memory", "{\"requested_size_mib\":2049}", "requested_size_mib: 2049");
    vm_refuses(vm, "PATCH", "/hotplug/memory", "{\"requested_size_mib\":2}",
               "expected a multiple of block_size_mib, 4");
    vm_refuses(vm, "PATCH", "/hotplug/memory", "{\"requested_size_mib\":3000}", "at most total_size_mib, 2048");
    vm_refuses(vm, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024}", "is running");
    struct vm *other = vm_start();
    vm_boot(other, "spin", NULL);
    vm_refuses(other, "GET", "/hotplug/memory", NULL, "hotplug/memory: there is none");
    vm_refuses(other, "PATCH", "/hotplug/memory", "{\"requested_size_mib\":2}", "hotplug/memory: there is none");
}

/* Of what the disk reads, nothing is in memory that was not plugged then; its ring keeps its memory. */
static const char disk_is_used[] = "plug 0\nstate 0\nbeyond 20000\nwrite 0\nread 0\nword 1234567\nread beyond 0\nring "
                                   "2\nall 0\nplug 0\nplugged 2000000\n";

static void put_shared_disk(struct vm *vm)
{
    vm_file(vm, "disk", 1 << 20, 0);
    one_backend_start(vm, BACKEND_DISK, BACKEND_WORKS);
    vm_put(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"is_root_device\":false,\"socket\":\"%s\"}",
           vm_path(vm, "b.sock"));
}

static void test_back_end_uses_memory_that_comes_and_goes(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    put_shared_disk(vm);
    start_with(vm, "disk", 32);
    vm_say(vm, "g");
    vm_expect(vm, "wanted 2000000\n");
    vm_expect(vm, disk_is_used);
    assert_sizes(vm, 32, 32);
    vm_say(vm, "g");
    vm_expect(vm, "unplug 0\nrest fffffffffeffffff\nhalf\n");
    vm_say(vm, "g");
    vm_expect(vm, "all 0\nstate 10000\nnothing ffffffffffffffff\nplugged 0\nplug 0\nempty 0\ndone\n");
    vm_expect_exit(vm, 0);
}

/* How much of the host's memory the file has that is shared for memory that comes and goes. */
static unsigned long taken_mib(const struct vm *vm, unsigned total_mib)
{
    DIR *directory = opendir(vm_proc(vm, "fd"));
    struct dirent *entry;
    struct stat status;

    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        char target[64] = "";

        if (readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1) > 0 &&
            strncmp(target, "/memfd:guest memory", 19) == 0 &&
            fstatat(dirfd(directory), entry->d_name, &status, 0) == 0 && status.st_size == (off_t)total_mib << 20) {
            closedir(directory);
            return (unsigned long)status.st_blocks >> 11;
        }
    }
    closedir(directory);
    fail_msg("no file of %u MiB is shared", total_mib);
    return 0;
}

/* What a back end can be led to take is bounded by what was put, and none of it is kept. */
static void test_back_end_that_goes_beyond_what_is_plugged_takes_no_more_than_the_total(void **state)
{
    enum { TOTAL = 256, PLUGGED = 32 };
    struct vm *vm = vm_start();

    (void)state;
    put_shared_disk(vm);
    vm_put(vm, "/hotplug/memory", "{\"total_size_mib\":%d}", TOTAL);
    vm_boot(vm, "memory_hotplug", "reach");
    vm_expect(vm, "block 200000\nstart 100000000\nsize 10000000\nplugged 0\nearly 1\nready\n");
    vm_patch(vm, "/hotplug/memory", "{\"requested_size_mib\":%d}", PLUGGED);
    assert_int_equal(taken_mib(vm, TOTAL), 0);
    vm_say(vm, "g");
    vm_expect(vm, "wanted 2000000\nplug 0\nstate 0\nbeyond 20000\nreached 0\n");
    assert_int_equal(taken_mib(vm, TOTAL), TOTAL - PLUGGED);
    vm_patch(vm, "/hotplug/memory", "{\"requested_size_mib\":%d}", TOTAL);
    vm_say(vm, "g");
    vm_expect(vm, "plug 0\nfilled\n");
    assert_int_equal(taken_mib(vm, TOTAL), 0);
    vm_patch(vm, "/hotplug/memory", "{\"requested_size_mib\":%d}", PLUGGED);
    vm_say(vm, "g");
    vm_expect(vm, "all 0\nplug 0\nplugged 2000000\n");
}

static void test_memory_may_come_and_go_before_it_is_shared(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/hotplug/memory", "{\"total_size_mib\":1024}");
    put_shared_disk(vm);
    start_with(vm, "disk", 32);
    vm_say(vm, "g");
    vm_expect(vm, disk_is_used);
}

static void test_shared_huge_pages_are_plugged_and_go_back_to_the_host(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    huge_pages_reserve(32 + 16);
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"huge_pages\":\"2M\"}");
    put_shared_disk(vm);
    start_with(vm, "short", 34);
    assert_int_equal(huge_pages_left(), 16);
    vm_say(vm, "g");
    vm_expect(vm, "wanted 2200000\ntoo many 2\nplug 0\n");
    vm_expect(vm, "plugged 2000000\n");
    assert_int_equal(huge_pages_left(), 0);
    vm_say(vm, "g");
    vm_expect(vm, "half\n");
    assert_int_equal(huge_pages_left(), 8);
    vm_say(vm, "g");
    vm_expect(vm, "empty 0\ndone\n");
    vm_expect_exit(vm, 0);
}

/* A back end that writes there itself gets SIGBUS when the pool is empty; the VMM goes on, and waits for the next one.
 */
static void test_back_end_that_goes_beyond_what_is_plugged_ends_for_want_of_huge_pages(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    huge_pages_reserve(32 + 16);
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"huge_pages\":\"2M\"}");
    put_shared_disk(vm);
    start_with(vm, "reach answer", 32);
    assert_int_equal(huge_pages_left(), 16);
    vm_say(vm, "g");
    vm_expect(vm, "wanted 2000000\nplug 0\nstate 0\nbeyond 20000\n");
    one_backend_await_death(vm);
    vm_await_log(vm, "is lost: it closed the connection");
    assert_sizes(vm, 32, 32);
}

static int teardown_with_huge_pages(void **state)
{
    one_backend_end();
    return huge_pages_teardown(state);
}

TEST_MAIN(machine_test(test_plugged_memory_is_used_and_goes_back_to_the_host),
          huge_pages_test(test_huge_pages_are_plugged_and_go_back_to_the_host),
          one_backend_test(test_back_end_uses_memory_that_comes_and_goes),
          one_backend_test(test_back_end_that_goes_beyond_what_is_plugged_takes_no_more_than_the_total),
          one_backend_test(test_memory_may_come_and_go_before_it_is_shared),
          cmocka_unit_test_setup_teardown(test_shared_huge_pages_are_plugged_and_go_back_to_the_host, huge_pages_setup,
                                          teardown_with_huge_pages),
          cmocka_unit_test_setup_teardown(test_back_end_that_goes_beyond_what_is_plugged_ends_for_want_of_huge_pages,
                                          huge_pages_setup, teardown_with_huge_pages),
          machine_test(test_unplugged_memory_is_out_of_the_guests_reach),
          machine_test(test_wrong_requests_change_nothing),
          machine_test(test_receive_buffers_keep_no_memory_but_their_own),
          machine_test(test_memory_in_many_pieces_comes_and_goes), machine_test(test_ring_of_a_device_keeps_its_memory),
          machine_test(test_wrong_configurations_are_refused))
