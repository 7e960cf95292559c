/* The balloon: memory that the guest gives up is the host's again. */
#include "tests/machine/fake_backend.h"
#include "tests/machine/huge_pages.h"

#include "vmm/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES = 8192, MIB = PAGES / 256 };

static void assert_answer(struct vm *vm, const char *path, const char *expected)
{
    cleanup_free char *body = vm_get(vm, path);

    if (strstr(body, expected) == NULL)
        vm_fail(vm, "GET %s: %s, expected %s", path, body, expected);
}

static void wait_for_answer(struct vm *vm, const char *path, const char *expected)
{
    uint64_t deadline = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;

    for (;;) {
        cleanup_free char *body = vm_get(vm, path);

        if (strstr(body, expected) != NULL)
            return;
        if (clock_monotonic_us() > deadline)
            vm_fail(vm, "GET %s: %s, expected %s", path, body, expected);
    }
}

/* From "filled" to the end: the memory falls by what was given up, give or take what a sanitizer keeps beside it. */
static void watch_memory(struct vm *vm, const char *given_up)
{
    vm_expect(vm, "filled 2000\n");
    unsigned long before = vm_pss_mib(vm);
    assert_true(before >= MIB);
    vm_say(vm, "g");
    vm_expect(vm, given_up);
    assert_true(vm_pss_mib(vm) <= before - MIB + MIB / 4);
}

static void test_inflated_pages_are_the_hosts_again(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon", "{\"amount_mib\":0,\"deflate_on_oom\":false}");
    vm_boot(vm, "balloon", "pages=8192");
    vm_patch(vm, "/balloon", "{\"amount_mib\":%d}", MIB);
    watch_memory(vm, "inflated 2000\n");
    assert_answer(vm, "/balloon", "{\"amount_mib\":32,\"deflate_on_oom\":false,\"stats_polling_interval_s\":0,");
    vm_patch(vm, "/balloon", "{\"amount_mib\":1}");
    unsigned long small = vm_pss_mib(vm);
    vm_say(vm, "g");
    vm_expect(vm, "left 0\ndeflated 100\n");
    assert_true(vm_pss_mib(vm) + 1 >= small + MIB);
    vm_say(vm, "g");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

/* Memory that a back end maps, too, goes back by a hole in its file. */
static void test_inflated_pages_of_shared_memory_are_the_hosts_again(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_file(vm, "disk", 1 << 20, 0);
    pid_t backend = backend_start(vm_path(vm, "b.sock"), vm_path(vm, "disk"), BACKEND_WORKS);
    vm_put(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"is_root_device\":false,\"socket\":\"%s\"}",
           vm_path(vm, "b.sock"));
    vm_put(vm, "/balloon", "{\"amount_mib\":%d,\"deflate_on_oom\":false}", MIB);
    vm_boot(vm, "balloon", "pages=8192");
    watch_memory(vm, "inflated 2000\n");
    backend_end(backend);
}

static void expect_note_of_huge_pages(struct vm *vm, bool expected)
{
    cleanup_free char *log = vm_log(vm);

    assert_int_equal(strstr(log, "balloon: what the guest gives up in pages of 4 KiB does not go back to the host with "
                                 "huge_pages 2M: use /hotplug/memory") != NULL,
                     expected);
}

/* Nothing for pages of 4 KiB, as Linux names them; a whole one named in one request is free, but may stay reserved. */
static void test_huge_pages_go_back_only_as_a_whole_and_the_log_says_so(void **state)
{
    static const char *const cmdlines[] = {"pages=8192 by=256", "pages=8192 by=512"};

    (void)state;
    for (size_t i = 0; i < array_length(cmdlines); i++) {
        struct vm *vm = vm_start();

        huge_pages_reserve(64);
        vm_put(vm, "/balloon", "{\"amount_mib\":0,\"deflate_on_oom\":false}");
        vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128,\"huge_pages\":\"2M\"}");
        expect_note_of_huge_pages(vm, false);
        vm_boot(vm, "balloon", cmdlines[i]);
        expect_note_of_huge_pages(vm, true);
        vm_expect(vm, "filled 2000\n");
        unsigned long before = huge_pages_free();
        vm_say(vm, "g");
        vm_expect(vm, "inflated 0\n");
        assert_int_equal(huge_pages_free() - before, i == 0 ? 0 : MIB / 2);
        machine_teardown(state);
    }
}

/* MADV_DONTNEED would bring the file's bytes back. */
static void test_inflated_page_of_the_mapped_kernel_is_empty(void **state)
{
    static const char *const huge_pages[] = {"None", "Transparent"};

    for (size_t i = 0; i < array_length(huge_pages); i++) {
        struct vm *vm = vm_start();

        vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128,\"huge_pages\":\"%s\"}", huge_pages[i]);
        vm_put(vm, "/balloon", "{\"amount_mib\":1,\"deflate_on_oom\":false}");
        vm_boot(vm, "balloon", "own");
        vm_expect(vm, "own 0\nnext 77\n");
        machine_teardown(state);
    }
}

static void test_reported_pages_are_the_hosts_again(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon", "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_reporting\":true}");
    vm_boot(vm, "balloon", "pages=8192 reporting queues=3");
    watch_memory(vm, "inflated 0\n");
    vm_say(vm, "g");
    vm_expect(vm, "left 0\n");
}

/* Only while the guest answers the run that the host wants. */
static void test_hinted_pages_are_the_hosts_again(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon", "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_hinting\":true}");
    vm_boot(vm, "balloon", "pages=8192 hinting queues=3 own");
    vm_expect(vm, "filled 2000\n");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":0,\"guest_cmd\":null}");
    vm_patch(vm, "/balloon/hinting/start", "{}");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":2,\"guest_cmd\":null}");
    unsigned long before = vm_pss_mib(vm);
    vm_say(vm, "g");
    /* Linux may use a page again as soon as it has notified; the page of a file stays, it is the page cache's. */
    vm_expect(vm, "prompt 1\nearly 2000\nown 77\nnext 0\nhinted 2\n");
    assert_true(vm_pss_mib(vm) <= before - MIB + MIB / 4);
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":2,\"guest_cmd\":2}");
    vm_say(vm, "g");
    vm_expect(vm, "run 1\n");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":1,\"guest_cmd\":0}");
    vm_say(vm, "g");
    vm_expect(vm, "inflated 0\n");
}

static void test_hinted_pages_of_shared_memory_are_the_hosts_again(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_file(vm, "disk", 1 << 20, 0);
    pid_t backend = backend_start(vm_path(vm, "b.sock"), vm_path(vm, "disk"), BACKEND_WORKS);
    vm_put(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"is_root_device\":false,\"socket\":\"%s\"}",
           vm_path(vm, "b.sock"));
    vm_put(vm, "/balloon",
           "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_hinting\":true,\"stats_polling_interval_s\":600}");
    vm_boot(vm, "balloon", "pages=8192 hinting queues=4 hinting_queue=3");
    vm_expect(vm, "filled 2000\n");
    vm_patch(vm, "/balloon/hinting/start", "{}");
    unsigned long before = vm_pss_mib(vm);
    vm_say(vm, "g");
    vm_expect(vm, "prompt 1\nearly 2000\nhinted 2\n");
    assert_true(vm_pss_mib(vm) <= before - MIB + MIB / 4);
    backend_end(backend);
}

static void test_hinting_without_acknowledgement_waits_for_stop(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon", "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_hinting\":true}");
    vm_boot(vm, "balloon", "hinting queues=3");
    vm_expect(vm, "filled 40\n");
    vm_patch(vm, "/balloon/hinting/start", "{\"acknowledge_on_stop\":false}");
    vm_say(vm, "g");
    vm_expect(vm, "hinted 2\n");
    vm_say(vm, "g");
    vm_expect(vm, "run 2\n");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":2,\"guest_cmd\":0}");
    vm_patch(vm, "/balloon/hinting/stop", "{}");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":1,\"guest_cmd\":0}");
    vm_patch(vm, "/balloon/hinting/start", "{}");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":3,\"guest_cmd\":0}");
}

static void test_guest_tells_statistics_when_asked(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon", "{\"amount_mib\":2,\"deflate_on_oom\":false,\"stats_polling_interval_s\":60000}");
    vm_boot(vm, "balloon", "statistics queues=3");
    vm_expect(vm, "told\n");
    wait_for_answer(vm, "/balloon/statistics",
                    "{\"target_pages\":512,\"actual_pages\":0,\"target_mib\":2,\"actual_mib\":0,"
                    "\"free_memory\":78187493530,\"oom_kill\":3}");
    /* The first of a new interval come at once. */
    vm_patch(vm, "/balloon/statistics", "{\"stats_polling_interval_s\":40000}");
    vm_expect(vm, "asked\n");
    vm_expect(vm, "told again 0\n");
    wait_for_answer(vm, "/balloon/statistics", "\"free_memory\":78187493531,\"total_memory\":77,\"oom_kill\":3}");
    assert_answer(vm, "/balloon", "\"stats_polling_interval_s\":40000");
    vm_patch(vm, "/balloon/statistics", "{\"stats_polling_interval_s\":1}");
    vm_say(vm, "g");
    vm_expect(vm, "filled 40\n");
}

static void test_statistics_are_asked_for_by_the_clock(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon", "{\"amount_mib\":2,\"deflate_on_oom\":false,\"stats_polling_interval_s\":1}");
    vm_boot(vm, "balloon", "statistics queues=3");
    vm_expect(vm, "told\nasked\ntold again 0\n");
}

/* Numbers beyond memory, halves of numbers, more pages than a request may name: nothing happens to anybody. */
static void test_hostile_guest_harms_nobody(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon",
           "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_reporting\":true,\"free_page_hinting\":true,"
           "\"stats_polling_interval_s\":1}");
    vm_boot(vm, "balloon", "hostile queues=5 by=2048");
    vm_patch(vm, "/balloon", "{\"amount_mib\":128}");
    vm_expect(vm, "filled 40\n");
    vm_say(vm, "ggg");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

/* A guest without a driver: whatever is asked, the API answers. */
static void test_guest_that_never_answers_does_not_stall_the_api(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon",
           "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_hinting\":true,\"stats_polling_interval_s\":1}");
    vm_put(vm, "/hotplug/memory", "{\"total_size_mib\":1024}");
    vm_boot(vm, "spin", NULL);
    for (unsigned i = 0; i < 20; i++) {
        vm_patch(vm, "/balloon", "{\"amount_mib\":%u}", i);
        vm_patch(vm, "/balloon/statistics", "{\"stats_polling_interval_s\":%u}", i + 1);
        vm_patch(vm, "/balloon/hinting/start", "{}");
        vm_patch(vm, "/hotplug/memory", "{\"requested_size_mib\":%u}", 2 * i);
    }
    assert_answer(vm, "/balloon/statistics",
                  "{\"target_pages\":4864,\"actual_pages\":0,\"target_mib\":19,\"actual_mib\":0}");
    assert_answer(vm, "/balloon/hinting/status", "{\"host_cmd\":21,\"guest_cmd\":null}");
    assert_answer(vm, "/hotplug/memory", "\"plugged_size_mib\":0,\"requested_size_mib\":38}");
}

static void test_wrong_balloons_are_refused(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "GET", "/balloon", NULL, "balloon: there is none");
    vm_refuses(vm, "GET", "/balloon/statistics", NULL, "balloon: there is none");
    vm_refuses(vm, "PATCH", "/balloon", "{\"amount_mib\":1}", "balloon: there is none");
    vm_refuses(vm, "PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\":1}", "balloon: there is none");
    vm_refuses(vm, "PUT", "/balloon", "{\"amount_mib\":1}", "deflate_on_oom: missing");
    vm_refuses(vm, "PUT", "/balloon", "{\"amount_mib\":129,\"deflate_on_oom\":true}",
               "amount_mib: 129, expected at most the 128 MiB that the guest has");
    vm_refuses(vm, "PUT", "/balloon", "{\"amount_mib\":4294967297,\"deflate_on_oom\":true}", "amount_mib: 4294967297");
    vm_put(vm, "/balloon", "{\"amount_mib\":100,\"deflate_on_oom\":true}");
    vm_refuses(vm, "PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64}",
               "amount_mib: 100, expected at most the 64");
    vm_refuses(vm, "PATCH", "/balloon", "{\"amount_mib\":129}", "amount_mib: 129");
    vm_refuses(vm, "PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\":1}",
               "stats_polling_interval_s: 1, expected 0");
    vm_refuses(vm, "GET", "/balloon/statistics", NULL, "balloon: no statistics");
    vm_refuses(vm, "PATCH", "/balloon/hinting/start", "{}", "has not started");
    vm_put(vm, "/balloon", "{\"amount_mib\":64,\"deflate_on_oom\":true,\"stats_polling_interval_s\":5}");
    vm_refuses(vm, "PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\":0}",
               "stats_polling_interval_s: 0, expected more than 0");
    vm_boot(vm, "spin", NULL);
    vm_refuses(vm, "PUT", "/balloon", "{\"amount_mib\":1,\"deflate_on_oom\":true}", "is running");
    vm_refuses(vm, "PATCH", "/balloon/hinting/start", "{}", "no free page hinting");
    vm_refuses(vm, "PATCH", "/balloon/hinting/stop", "{}", "no free page hinting");
    vm_refuses(vm, "GET", "/balloon/hinting/status", NULL, "no free page hinting");
}

TEST_MAIN(machine_test(test_inflated_pages_are_the_hosts_again),
          machine_test(test_inflated_pages_of_shared_memory_are_the_hosts_again),
          huge_pages_test(test_huge_pages_go_back_only_as_a_whole_and_the_log_says_so),
          machine_test(test_inflated_page_of_the_mapped_kernel_is_empty),
          machine_test(test_reported_pages_are_the_hosts_again), machine_test(test_hinted_pages_are_the_hosts_again),
          machine_test(test_hinted_pages_of_shared_memory_are_the_hosts_again),
          machine_test(test_hinting_without_acknowledgement_waits_for_stop),
          machine_test(test_guest_tells_statistics_when_asked),
          machine_test(test_statistics_are_asked_for_by_the_clock), machine_test(test_hostile_guest_harms_nobody),
          machine_test(test_guest_that_never_answers_does_not_stall_the_api),
          machine_test(test_wrong_balloons_are_refused))
