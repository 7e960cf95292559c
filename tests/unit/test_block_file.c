#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/backend/file.h"
#include "vmm/backend/file_ring.h"
#include "vmm/virtio/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What disk operations make of the results of system calls that cannot be provoked at will. */

static uint8_t memory[4096];
static struct iovec iov[3];

static struct disk_request transfer(enum disk_operation operation)
{
    iov[0] = (struct iovec){memory, 100};
    iov[1] = (struct iovec){memory + 1000, 200};
    iov[2] = (struct iovec){memory + 2000, 300};
    return (struct disk_request){.operation = operation, .length = 600, .iov = iov, .iov_count = 3};
}

static void test_short_transfer_goes_on_where_it_stopped(void **state)
{
    struct disk_request request = transfer(DISK_WRITE);
    int code = -1;

    (void)state;
    assert_false(disk_request_advance(&request, 60, &code));
    assert_int_equal(request.done, 60);
    assert_int_equal(request.iov_count, 3);
    assert_ptr_equal(request.iov[0].iov_base, memory + 60);
    assert_int_equal(request.iov[0].iov_len, 40);

    assert_false(disk_request_advance(&request, 240, &code));
    assert_int_equal(request.done, 300);
    assert_int_equal(request.iov_count, 1);
    assert_ptr_equal(request.iov[0].iov_base, memory + 2000);
    assert_int_equal(request.iov[0].iov_len, 300);

    assert_true(disk_request_advance(&request, 300, &code));
    assert_int_equal(code, 0);
    assert_int_equal(request.done, 600);
    assert_int_equal(request.iov_count, 0);
}

static void test_interrupted_call_is_issued_again(void **state)
{
    struct disk_request request = transfer(DISK_READ);
    int code = -1;

    (void)state;
    assert_false(disk_request_advance(&request, -EINTR, &code));
    assert_int_equal(request.done, 0);
    assert_int_equal(request.iov[0].iov_len, 100);
}

static void test_failure_after_a_part_keeps_the_count_of_the_part(void **state)
{
    struct disk_request request = transfer(DISK_WRITE);
    int code = -1;

    (void)state;
    assert_false(disk_request_advance(&request, 150, &code));
    assert_true(disk_request_advance(&request, -ENOSPC, &code));
    assert_int_equal(code, ENOSPC);
    assert_int_equal(request.done, 150);
}

static void test_end_of_file_within_the_range_is_an_error(void **state)
{
    struct disk_request request = transfer(DISK_READ);
    int code = -1;

    (void)state;
    assert_false(disk_request_advance(&request, 512, &code));
    assert_true(disk_request_advance(&request, 0, &code));
    assert_int_equal(code, EIO);
}

static void test_ways_to_zero_are_tried_in_turn(void **state)
{
    struct disk_request request = {.operation = DISK_WRITE_ZEROES, .deallocate = true, .length = 512};
    const struct disk_file file = {.fd = -1};
    int code = -1;

    (void)state;
    assert_int_equal(disk_request_fallocate_mode(&request), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    assert_false(disk_request_advance(&request, -EOPNOTSUPP, &code));
    assert_int_equal(disk_request_fallocate_mode(&request), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
    assert_false(disk_request_blocks(&file, &request));
    assert_false(disk_request_advance(&request, -EOPNOTSUPP, &code));
    /* Zeros are written then; if that is not supported either, it is over. */
    assert_true(disk_request_fallocate_mode(&request) < 0);
    assert_true(disk_request_blocks(&file, &request));
    assert_true(disk_request_advance(&request, -EOPNOTSUPP, &code));
    assert_int_equal(code, EOPNOTSUPP);
}

static void test_zeroing_without_deallocation_never_punches_holes(void **state)
{
    struct disk_request request = {.operation = DISK_WRITE_ZEROES, .length = 512};
    int code = -1;

    (void)state;
    assert_int_equal(disk_request_fallocate_mode(&request), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
    assert_false(disk_request_advance(&request, -EOPNOTSUPP, &code));
    assert_true(disk_request_fallocate_mode(&request) < 0);
}

static void test_discard_that_is_not_supported_is_done(void **state)
{
    struct disk_request request = {.operation = DISK_DISCARD, .length = 512};
    int code = -1;

    (void)state;
    assert_true(disk_request_advance(&request, -EOPNOTSUPP, &code));
    assert_int_equal(code, 0);
    request.attempt = 0;
    assert_true(disk_request_advance(&request, -EIO, &code));
    assert_int_equal(code, EIO);
}

static void test_device_that_is_full_says_so(void **state)
{
    struct disk_file file = {.fd = open("/dev/full", O_RDWR | O_CLOEXEC)};
    struct disk_request request = transfer(DISK_WRITE);

    (void)state;
    assert_true(file.fd >= 0);
    assert_int_equal(disk_request_run(&file, &request), ENOSPC);
    disk_file_close(&file);
    assert_int_equal(file.fd, -1);
}

static void test_same_file_has_the_same_identity(void **state)
{
    char first[] = "/tmp/mayfly-file-XXXXXX", second[] = "/tmp/mayfly-file-XXXXXX";
    struct disk_file files[3];

    (void)state;
    close(mkstemp(first));
    close(mkstemp(second));
    assert_no_error(disk_file_open(first, false, false, &files[0]));
    assert_no_error(disk_file_open(first, true, false, &files[1]));
    assert_no_error(disk_file_open(second, true, false, &files[2]));
    assert_memory_equal(files[0].identity, files[1].identity, DISK_IDENTITY_SIZE);
    assert_memory_not_equal(files[0].identity, files[2].identity, DISK_IDENTITY_SIZE);
    for (size_t i = 0; i < array_length(files); i++)
        disk_file_close(&files[i]);
    unlink(first);
    unlink(second);
}

static int completed_with;

static void note_completion(struct disk_request *request, int code)
{
    (void)request;
    completed_with = code;
}

static void nothing_settles(void *owner)
{
    (void)owner;
}

/* Whoever hears of a failure tries again by calls that a vCPU's thread, which resets a device, may not make. */
static void test_failure_of_an_abandoned_request_is_no_failure_of_the_disk(void **state)
{
    char path[] = "/tmp/mayfly-file-XXXXXX";
    struct disk_request request = transfer(DISK_READ);
    struct disk_file file = {.fd = mkstemp(path)};
    struct event_loop *loop;
    struct file_ring *ring;

    (void)state;
    request.complete = note_completion;
    assert_no_error(event_loop_new(&loop));
    struct error *error = file_ring_new(loop, &file, nothing_settles, NULL, &ring);
    if (error != NULL) {
        error_free(error);
        event_loop_free(loop);
        disk_file_close(&file);
        unlink(path);
        skip();
    }
    file_ring_queue(ring, &request);
    file_ring_drain(ring, UINT64_MAX);
    assert_int_equal(completed_with, EIO);

    request = transfer(DISK_READ);
    request.complete = note_completion;
    file_ring_queue(ring, &request);
    file_ring_abandon(ring);
    assert_int_equal(completed_with, ECANCELED);
    file_ring_free(ring);
    event_loop_free(loop);
    disk_file_close(&file);
    unlink(path);
}

/* Who cannot flush relies on each write (5.2.6.2); unless the caller said that nothing need be safe. */
static void test_write_of_a_driver_that_cannot_flush_is_durable(void **state)
{
    static const struct {
        enum cache_type cache;
        uint64_t features;
        bool durable;
    } cases[] = {
        {CACHE_TYPE_WRITEBACK, 0, true},
        {CACHE_TYPE_WRITEBACK, FEATURE(FLUSH), false},
        {CACHE_TYPE_UNSAFE, 0, false},
    };

    for (size_t i = 0; i < array_length(cases); i++) {
        struct virtqueue_chain chain;
        struct block_request request;

        assert_int_equal(block_setup_sync(state), 0);
        block.config.cache_type = cases[i].cache;
        block_start_with(cases[i].features);
        struct block *inside = container_of(block.driver.device, struct block, device);
        block_add(VIRTIO_BLK_T_OUT, 0, DATA_GPA, SECTOR);
        assert_int_equal(virtqueue_pop(&inside->queues[0], &chain), VIRTQUEUE_CHAIN);
        assert_int_equal(block_request_prepare(inside, &inside->queues[0], &chain, &request), BLOCK_RUN);
        assert_int_equal(request.disk.operation, DISK_WRITE);
        assert_int_equal(request.disk.durable, cases[i].durable);
        assert_int_equal(block_teardown(state), 0);
    }
}

TEST_MAIN(cmocka_unit_test(test_write_of_a_driver_that_cannot_flush_is_durable),
          cmocka_unit_test(test_failure_of_an_abandoned_request_is_no_failure_of_the_disk),
          cmocka_unit_test(test_short_transfer_goes_on_where_it_stopped),
          cmocka_unit_test(test_interrupted_call_is_issued_again),
          cmocka_unit_test(test_failure_after_a_part_keeps_the_count_of_the_part),
          cmocka_unit_test(test_end_of_file_within_the_range_is_an_error),
          cmocka_unit_test(test_ways_to_zero_are_tried_in_turn),
          cmocka_unit_test(test_zeroing_without_deallocation_never_punches_holes),
          cmocka_unit_test(test_discard_that_is_not_supported_is_done),
          cmocka_unit_test(test_device_that_is_full_says_so), cmocka_unit_test(test_same_file_has_the_same_identity))
