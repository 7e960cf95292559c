/*
 * A disk under load while the machine is paused and resumed, the drive patched, the host out of space. The guest keeps
 * five writes in flight and checks that each is answered once; what they wrote is checked here.
 */
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DISK_SIZE = 1 << 20, SECTOR = 512, STREAM_SECTORS = 64, WRITES = 300 };

/* How the device is driven, and by which engine it is served. */
static const struct {
    const char *engine;
    const char *open; /* an op before the stream */
} ways[] = {{"Sync", ""}, {"Async", ""}, {"Sync", "E,"}, {"Async", "E,"}};

static struct vm *start_stream(size_t way, const char *more)
{
    struct vm *vm = vm_start();
    char members[256], ops[64];

    snprintf(members, sizeof(members), ",\"io_engine\":\"%s\"%s", ways[way].engine, more);
    vm_drive(vm, "disk", vm_file(vm, "disk", DISK_SIZE, 0), members);
    snprintf(ops, sizeof(ops), "ops=%sp,S%d,f,r0", ways[way].open, WRITES);
    vm_boot(vm, "block", ops);
    vm_expect(vm, "waiting\n");
    vm_say(vm, "\n");
    vm_expect(vm, "streaming\n");
    return vm;
}

/* The last write of each sector is there, in `name` or in `other` when that is not NULL. */
static void assert_written(struct vm *vm, const char *name, const char *other)
{
    cleanup_fd int fd = open(vm_path(vm, name), O_RDONLY | O_CLOEXEC);
    cleanup_fd int other_fd = other == NULL ? -1 : open(vm_path(vm, other), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    for (uint32_t sector = 0; sector < STREAM_SECTORS; sector++) {
        uint32_t last = (WRITES - 1 - sector) / STREAM_SECTORS * STREAM_SECTORS + sector;
        uint32_t words[SECTOR / 4];

        assert_int_equal(pread(fd, words, SECTOR, sector * SECTOR), SECTOR);
        if (other_fd >= 0 && words[0] != last)
            assert_int_equal(pread(other_fd, words, SECTOR, sector * SECTOR), SECTOR);
        if (words[0] != last || words[SECTOR / 4 - 1] != last)
            vm_fail(vm, "sector %u has write %u and %u, expected %u", sector, words[0], words[SECTOR / 4 - 1], last);
    }
}

static void finish_stream(struct vm *vm)
{
    vm_expect(vm, "streamed ");
    vm_expect(vm, "flush 0\nread 0 ");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_stream_of_writes_arrives_whole(void **state)
{
    (void)state;
    for (size_t way = 0; way < array_length(ways); way++) {
        struct vm *vm = start_stream(way, "");

        finish_stream(vm);
        assert_written(vm, "disk", NULL);
        machine_teardown(NULL);
    }
}

static void test_no_write_is_lost_or_repeated_by_pauses(void **state)
{
    static const char *const limits[] = {"", ",\"rate_limiter\":{\"ops\":{\"size\":50,\"refill_time\":10}}"};

    (void)state;
    for (size_t i = 0; i < array_length(ways) * array_length(limits); i++) {
        struct vm *vm = start_stream(i / array_length(limits), limits[i % array_length(limits)]);

        for (unsigned round = 0; round < 30; round++) {
            vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
            vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
        }
        finish_stream(vm);
        assert_written(vm, "disk", NULL);
        machine_teardown(NULL);
    }
}

/* Each write is in the file that was the drive's at that moment. */
static void test_no_write_is_lost_while_the_drive_is_patched(void **state)
{
    (void)state;
    for (size_t way = 0; way < array_length(ways); way++) {
        struct vm *vm = start_stream(way, "");
        const char *const paths[] = {vm_path(vm, "disk"), vm_file(vm, "other", DISK_SIZE, 0)};

        for (unsigned round = 1; round < 30; round++)
            vm_patch(vm, "/drives/disk", "{\"drive_id\":\"disk\",\"path_on_host\":\"%s\"}", paths[round % 2]);
        finish_stream(vm);
        assert_written(vm, "disk", "other");
        machine_teardown(NULL);
    }
}

static void test_rate_limit_can_be_changed_under_load(void **state)
{
    (void)state;
    for (size_t way = 0; way < array_length(ways); way++) {
        /* An hour for what the stream wants: only the patches let it end. */
        struct vm *vm = start_stream(way, ",\"rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":6000}}");

        vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
        vm_patch(vm, "/drives/disk",
                 "{\"drive_id\":\"disk\",\"rate_limiter\":{\"ops\":{\"size\":100,\"refill_time\":10}}}");
        vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
        vm_patch(vm, "/drives/disk",
                 "{\"drive_id\":\"disk\",\"rate_limiter\":{\"ops\":{\"size\":0,\"refill_time\":0}}}");
        finish_stream(vm);
        assert_written(vm, "disk", NULL);
        machine_teardown(NULL);
    }
}

static void test_api_answers_under_load(void **state)
{
    (void)state;
    for (size_t way = 0; way < array_length(ways); way++) {
        struct vm *vm = start_stream(way, "");

        for (unsigned request = 0; request < 20; request++)
            free(vm_get(vm, "/vm/config"));
        kill(vm->pid, SIGTERM);
        vm_expect_killed(vm, SIGTERM);
        machine_teardown(NULL);
    }
}

TEST_MAIN(machine_test(test_stream_of_writes_arrives_whole), machine_test(test_no_write_is_lost_or_repeated_by_pauses),
          machine_test(test_no_write_is_lost_while_the_drive_is_patched),
          machine_test(test_rate_limit_can_be_changed_under_load), machine_test(test_api_answers_under_load))
