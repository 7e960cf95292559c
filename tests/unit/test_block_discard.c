#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Requests of the block device that forget what was on the disk: discard and write zeroes. */

static uint64_t allocated_bytes(void)
{
    struct stat status;

    assert_int_equal(stat(block.path, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void test_discard_gives_blocks_back(void **state)
{
    cleanup_fd int fd = open(block.path, O_RDONLY | O_CLOEXEC);

    (void)state;
    block_start();
    assert_int_equal(fsync(fd), 0); /* not sync(2): all that others write would be waited for */
    uint64_t before = allocated_bytes();
    assert_int_equal(block_forget(VIRTIO_BLK_T_DISCARD, 1024, 512, 0), VIRTIO_BLK_S_OK);
    assert_true(allocated_bytes() + 512 * SECTOR <= before + 4096);
    assert_block_file_has(1024 * SECTOR, 4096, 0);
    assert_block_file_has((1024 + 512) * SECTOR - 4096, 4096, 0);
    assert_block_file_kept(1023 * SECTOR, SECTOR);
    assert_block_file_kept((1024 + 512) * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.discard_count), 1);
}

static void test_write_zeroes_zeroes_with_and_without_unmap(void **state)
{
    (void)state;
    block_start();
    assert_int_equal(block_forget(VIRTIO_BLK_T_WRITE_ZEROES, 9, 5, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(block_forget(VIRTIO_BLK_T_WRITE_ZEROES, 21, 3, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
                     VIRTIO_BLK_S_OK);
    assert_block_file_kept(8 * SECTOR, SECTOR);
    assert_block_file_has(9 * SECTOR, 5 * SECTOR, 0);
    assert_block_file_kept(14 * SECTOR, 7 * SECTOR);
    assert_block_file_has(21 * SECTOR, 3 * SECTOR, 0);
    assert_block_file_kept(24 * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.write_zeroes_count), 2);
}

/* tmpfs can punch holes but not zero a range: the zeros are written. */
static void test_write_zeroes_writes_where_nothing_else_works(void **state)
{
    (void)state;
    block_use_memory();
    block_start();
    assert_int_equal(block_forget(VIRTIO_BLK_T_WRITE_ZEROES, 5, 1001, 0), VIRTIO_BLK_S_OK);
    assert_block_file_kept(0, 5 * SECTOR);
    for (uint64_t sector = 5; sector < 1006; sector++)
        assert_block_file_has(sector * SECTOR, SECTOR, 0);
    assert_block_file_kept(1006 * SECTOR, SECTOR);
    assert_block_alive();
}

static void test_wrong_segments_are_refused(void **state)
{
    static const struct virtio_blk_discard_write_zeroes ranges[] = {
        {FILE_SECTORS, 1, 0}, {FILE_SECTORS - 1, 2, 0}, {UINT64_MAX, 1, 0}, {0, UINT32_MAX, 0}, {1, FILE_SECTORS, 0}};

    (void)state;
    block_start();
    for (size_t i = 0; i < array_length(ranges); i++) {
        assert_int_equal(block_forget(VIRTIO_BLK_T_DISCARD, ranges[i].sector, ranges[i].num_sectors, 0),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(block_forget(VIRTIO_BLK_T_WRITE_ZEROES, ranges[i].sector, ranges[i].num_sectors, 0),
                         VIRTIO_BLK_S_IOERR);
    }
    /* Flags that mean nothing here (5.2.6.2), no segment, half a segment, two. */
    assert_int_equal(block_forget(VIRTIO_BLK_T_DISCARD, 0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(block_forget(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
    block_fill(DATA_GPA, 32, 0);
    assert_int_equal(block_request(VIRTIO_BLK_T_DISCARD, 0, 0, 0, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_request(VIRTIO_BLK_T_DISCARD, 0, DATA_GPA, 8, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA_GPA, 32, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(block_forget(VIRTIO_BLK_T_DISCARD, 5, 0, 0), VIRTIO_BLK_S_OK);
    assert_block_file_kept(0, 4096);
    assert_block_file_kept(FILE_SIZE - 4096, 4096);
    assert_block_alive();
}

TEST_MAIN(BLOCK_TEST(test_discard_gives_blocks_back), BLOCK_TEST(test_write_zeroes_zeroes_with_and_without_unmap),
          BLOCK_TEST(test_write_zeroes_writes_where_nothing_else_works), BLOCK_TEST(test_wrong_segments_are_refused))
