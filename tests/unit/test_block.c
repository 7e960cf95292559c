#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The block device, driven as a guest would, against temporary files; each test runs with both engines. */

enum { SECTOR = 512, FILE_SECTORS = 2048, FILE_SIZE = FILE_SECTORS * SECTOR };

#define HEADER_GPA 0x100000ULL /* one every 64 bytes */
#define STATUS_GPA 0x180000ULL /* one byte a request */
#define DATA_GPA 0x200000ULL
#define TABLE_GPA 0x800000ULL
#define UNTOUCHED 0xee

#define FEATURE(name) (1ULL << VIRTIO_BLK_F_##name)
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)

struct fixture {
    struct guest_driver driver;
    struct drive_config config;
    char path[64];
    unsigned requests; /* made so far: where the next header and status go */
};

static struct fixture fixture;
static struct guest_driver *const driver = &fixture.driver;
static struct guest_ring *const ring = &fixture.driver.rings[0];

static uint8_t pattern(uint64_t offset)
{
    return (uint8_t)(offset / SECTOR * 7 + offset % 251);
}

static void make_file(char *path, const char *directory, uint64_t size)
{
    uint8_t block[4096];

    snprintf(path, sizeof(fixture.path), "%s/mayfly-block-XXXXXX", directory);
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (uint64_t offset = 0; offset < size; offset += sizeof(block)) {
        size_t part = size - offset < sizeof(block) ? (size_t)(size - offset) : sizeof(block);

        for (size_t i = 0; i < part; i++)
            block[i] = pattern(offset + i);
        assert_int_equal(write(fd, block, part), part);
    }
}

static int setup(enum io_engine engine)
{
    memset(&fixture, 0, sizeof(fixture));
    memset(&metrics.block, 0, sizeof(metrics.block));
    signal(SIGXFSZ, SIG_IGN);
    make_file(fixture.path, "/tmp", FILE_SIZE);
    fixture.config = (struct drive_config){
        .drive_id = (char *)(uintptr_t) "disk",
        .path_on_host = fixture.path,
        .cache_type = CACHE_TYPE_WRITEBACK,
        .io_engine = engine,
    };
    guest_driver_setup(driver);
    return 0;
}

static int setup_sync(void **state)
{
    (void)state;
    return setup(IO_ENGINE_SYNC);
}

static int setup_async(void **state)
{
    (void)state;
    return setup(IO_ENGINE_ASYNC);
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(driver);
    unlink(fixture.path);
    return 0;
}

static struct virtio_device *make_device(void)
{
    struct virtio_device *device = NULL;
    struct error *error = virtio_block_new(&fixture.config, driver->loop, &device);

    if (error != NULL && fixture.config.io_engine == IO_ENGINE_ASYNC &&
        (error->code == ENOSYS || error->code == EPERM)) {
        print_message("skipped: %s\n", error->message);
        error_free(error);
        skip();
    }
    assert_no_error(error);
    return device;
}

static void start_with(uint64_t features)
{
    guest_driver_start(driver, make_device(), features);
}

static void start(void)
{
    start_with(FEATURE(FLUSH) | FEATURE(DISCARD) | FEATURE(WRITE_ZEROES));
}

static void *at(uint64_t gpa, size_t length)
{
    return guest_at(&driver->memory, gpa, length);
}

static uint64_t header_gpa(unsigned number)
{
    return HEADER_GPA + number % 512 * 64;
}

static uint8_t *status_of(unsigned number)
{
    return at(STATUS_GPA + number % 512, 1);
}

/* Writes the header of the next request and clears its status; returns its number. */
static unsigned new_request(uint32_t type, uint64_t sector)
{
    const struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    unsigned number = fixture.requests++;

    memcpy(at(header_gpa(number), sizeof(header)), &header, sizeof(header));
    *status_of(number) = UNTOUCHED;
    return number;
}

/* The usual layout: header, data if any, status. */
static unsigned add(uint32_t type, uint64_t sector, uint64_t data_gpa, uint32_t length)
{
    unsigned number = new_request(type, sector);
    bool to_guest = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    const struct guest_buffer buffers[] = {
        {header_gpa(number), sizeof(struct virtio_blk_outhdr), false},
        {data_gpa, length, to_guest},
        {STATUS_GPA + number % 512, 1, true},
    };
    const struct guest_buffer bare[] = {buffers[0], buffers[2]};

    if (length > 0)
        guest_ring_add(ring, buffers, 3);
    else
        guest_ring_add(ring, bare, 2);
    return number;
}

/* Does one request; returns its status and, in *written, what the used element said. */
static uint8_t request(uint32_t type, uint64_t sector, uint64_t data_gpa, uint32_t length, uint32_t *written)
{
    unsigned number = add(type, sector, data_gpa, length);

    guest_driver_notify(driver, 0);
    uint32_t used = guest_driver_wait_used(driver, 0, NULL);
    if (written != NULL)
        *written = used;
    return *status_of(number);
}

static uint8_t read_sectors(uint64_t sector, uint32_t sectors)
{
    return request(VIRTIO_BLK_T_IN, sector, DATA_GPA, sectors * SECTOR, NULL);
}

static uint8_t write_sectors(uint64_t sector, uint32_t sectors)
{
    return request(VIRTIO_BLK_T_OUT, sector, DATA_GPA, sectors * SECTOR, NULL);
}

static uint8_t forget(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    const struct virtio_blk_discard_write_zeroes segment = {.sector = sector, .num_sectors = sectors, .flags = flags};

    memcpy(at(DATA_GPA, sizeof(segment)), &segment, sizeof(segment));
    return request(type, 0, DATA_GPA, sizeof(segment), NULL);
}

static void fill(uint64_t gpa, size_t length, uint8_t value)
{
    memset(at(gpa, length), value, length);
}

static void assert_pattern(uint64_t gpa, uint64_t offset, size_t length)
{
    const uint8_t *data = at(gpa, length);

    for (size_t i = 0; i < length; i++)
        if (data[i] != pattern(offset + i))
            fail_msg("byte %zu is %u instead of %u", i, data[i], pattern(offset + i));
}

static void assert_file_has(uint64_t offset, size_t length, uint8_t value)
{
    cleanup_fd int fd = open(fixture.path, O_RDONLY);
    uint8_t data[4096];

    assert_true(length <= sizeof(data));
    assert_int_equal(pread(fd, data, length, (off_t)offset), length);
    for (size_t i = 0; i < length; i++)
        if (data[i] != value)
            fail_msg("byte %zu of the file is %u instead of %u", (size_t)offset + i, data[i], value);
}

static void assert_file_kept(uint64_t offset, size_t length)
{
    cleanup_fd int fd = open(fixture.path, O_RDONLY);
    uint8_t data[4096];

    assert_true(length <= sizeof(data));
    assert_int_equal(pread(fd, data, length, (off_t)offset), length);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(data[i], pattern(offset + i));
}

/* A request that the device must survive: an ordinary read works afterwards. */
static void assert_alive(void)
{
    assert_false(driver->failed);
    fill(DATA_GPA, SECTOR, UNTOUCHED);
    assert_int_equal(read_sectors(3, 1), VIRTIO_BLK_S_OK);
    assert_pattern(DATA_GPA, 3 * SECTOR, SECTOR);
}

/* What the device offers */

static void read_config(struct virtio_blk_config *config)
{
    struct virtio_device *device = driver->device;

    for (uint32_t i = 0; i < sizeof(*config); i++)
        device->ops->config_read(device, i, (uint8_t *)config + i, 1);
}

static void test_config_tells_capacity_and_limits(void **state)
{
    struct virtio_blk_config config;

    (void)state;
    start();
    read_config(&config);
    assert_int_equal(config.capacity, FILE_SECTORS);
    assert_int_equal(config.blk_size, SECTOR);
    assert_int_equal(config.seg_max, VIRTQUEUE_IOV_MAX - 2);
    assert_int_equal(config.max_discard_seg, 1);
    assert_int_equal(config.max_write_zeroes_seg, 1);
}

static void test_features_follow_the_configuration(void **state)
{
    const uint64_t always = FEATURE(SEG_MAX) | FEATURE(BLK_SIZE);

    (void)state;
    for (int i = 0; i < 4; i++) {
        bool read_only = (i & 1) != 0, writeback = (i & 2) != 0;

        fixture.config.is_read_only = read_only;
        fixture.config.cache_type = writeback ? CACHE_TYPE_WRITEBACK : CACHE_TYPE_UNSAFE;
        struct virtio_device *device = make_device();
        assert_int_equal(device->features, always |
                                               (read_only ? FEATURE(RO) : FEATURE(DISCARD) | FEATURE(WRITE_ZEROES)) |
                                               (writeback ? FEATURE(FLUSH) : 0));
        device->ops->destroy(device);
    }
}

static void test_capacity_is_rounded_down_to_whole_sectors(void **state)
{
    struct virtio_blk_config config;

    (void)state;
    assert_int_equal(truncate(fixture.path, 10 * SECTOR + 511), 0);
    start();
    read_config(&config);
    assert_int_equal(config.capacity, 10);
    assert_int_equal(read_sectors(9, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(read_sectors(10, 1), VIRTIO_BLK_S_IOERR);
}

static void test_empty_file_is_a_drive_without_sectors(void **state)
{
    (void)state;
    assert_int_equal(truncate(fixture.path, 0), 0);
    start();
    assert_int_equal(read_sectors(0, 1), VIRTIO_BLK_S_IOERR);
    assert_int_equal(write_sectors(0, 1), VIRTIO_BLK_S_IOERR);
}

/* Reading and writing */

static void test_reads_what_the_file_holds(void **state)
{
    uint32_t written;

    (void)state;
    start();
    assert_int_equal(request(VIRTIO_BLK_T_IN, 5, DATA_GPA, 8 * SECTOR, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, 8 * SECTOR + 1);
    assert_pattern(DATA_GPA, 5 * SECTOR, 8 * SECTOR);
    assert_int_equal(read_sectors(FILE_SECTORS - 1, 1), VIRTIO_BLK_S_OK);
    assert_pattern(DATA_GPA, FILE_SIZE - SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.read_count), 2);
    assert_int_equal(METRIC_TOTAL(block.read_bytes), 9 * SECTOR);
}

static void test_writes_reach_the_file_and_nothing_else(void **state)
{
    uint32_t written;

    (void)state;
    start();
    fill(DATA_GPA, 4 * SECTOR, 0x5a);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 100, DATA_GPA, 4 * SECTOR, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, 1);
    assert_file_kept(99 * SECTOR, SECTOR);
    assert_file_has(100 * SECTOR, 4 * SECTOR, 0x5a);
    assert_file_kept(104 * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.write_bytes), 4 * SECTOR);
}

static void test_any_layout_of_buffers_will_do(void **state)
{
    (void)state;
    start();
    /* The header in two parts; the status at the end of the data's last buffer. */
    unsigned number = new_request(VIRTIO_BLK_T_IN, 7);
    const struct guest_buffer read_buffers[] = {
        {header_gpa(number), 5, false},
        {header_gpa(number) + 5, 11, false},
        {DATA_GPA, 100, true},
        {DATA_GPA + 0x1000, 412 + SECTOR + 1, true},
    };
    guest_ring_add(ring, read_buffers, 4);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 2 * SECTOR + 1);
    assert_pattern(DATA_GPA, 7 * SECTOR, 100);
    assert_pattern(DATA_GPA + 0x1000, 7 * SECTOR + 100, 412 + SECTOR);
    assert_int_equal(*(uint8_t *)at(DATA_GPA + 0x1000 + 412 + SECTOR, 1), VIRTIO_BLK_S_OK);

    /* Header and data in one buffer. */
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 9};
    const struct guest_buffer write_buffers[] = {{DATA_GPA, sizeof(header) + SECTOR, false}, {STATUS_GPA, 1, true}};
    fill(DATA_GPA, sizeof(header) + SECTOR, 0x77);
    memcpy(at(DATA_GPA, sizeof(header)), &header, sizeof(header));
    guest_ring_add(ring, write_buffers, 2);
    guest_driver_notify(driver, 0);
    guest_driver_wait_used(driver, 0, NULL);
    assert_int_equal(*(uint8_t *)at(STATUS_GPA, 1), VIRTIO_BLK_S_OK);
    assert_file_has(9 * SECTOR, SECTOR, 0x77);
}

static void test_as_many_segments_as_offered_are_served(void **state)
{
    enum { SEGMENTS = VIRTQUEUE_IOV_MAX - 2 };
    struct guest_buffer buffers[VIRTQUEUE_IOV_MAX];

    (void)state;
    start_with(INDIRECT);
    unsigned number = new_request(VIRTIO_BLK_T_IN, 0);
    buffers[0] = (struct guest_buffer){header_gpa(number), 16, false};
    for (unsigned i = 0; i < SEGMENTS; i++)
        buffers[i + 1] = (struct guest_buffer){DATA_GPA + i * 0x1000, SECTOR, true};
    buffers[SEGMENTS + 1] = (struct guest_buffer){STATUS_GPA + number, 1, true};
    guest_ring_add_indirect(ring, TABLE_GPA, buffers, VIRTQUEUE_IOV_MAX);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), SEGMENTS * SECTOR + 1);
    assert_int_equal(*status_of(number), VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < SEGMENTS; i++)
        assert_pattern(DATA_GPA + i * 0x1000, i * SECTOR, SECTOR);
}

static void test_ranges_beyond_the_disk_are_refused(void **state)
{
    static const uint64_t sectors[] = {FILE_SECTORS,       FILE_SECTORS - 1, UINT64_MAX,      UINT64_MAX / SECTOR,
                                       UINT64_MAX / 2 + 1, 1ULL << 55,       (1ULL << 55) - 1};

    (void)state;
    start();
    fill(DATA_GPA, 2 * SECTOR, UNTOUCHED);
    for (size_t i = 0; i < array_length(sectors); i++) {
        uint32_t written;

        assert_int_equal(request(VIRTIO_BLK_T_IN, sectors[i], DATA_GPA, 2 * SECTOR, &written), VIRTIO_BLK_S_IOERR);
        assert_int_equal(written, 1);
        assert_int_equal(write_sectors(sectors[i], 2), VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(*(uint8_t *)at(DATA_GPA, 1), UNTOUCHED);
    assert_file_kept(FILE_SIZE - SECTOR, SECTOR);

    struct stat status;
    assert_int_equal(stat(fixture.path, &status), 0);
    assert_int_equal(status.st_size, FILE_SIZE);
    assert_alive();
}

static void test_lengths_that_are_not_whole_sectors_are_refused(void **state)
{
    (void)state;
    start();
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, DATA_GPA, 511, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, DATA_GPA, SECTOR + 1, NULL), VIRTIO_BLK_S_IOERR);
    assert_file_kept(0, SECTOR);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_alive();
}

static void test_read_only_drive_refuses_every_change(void **state)
{
    (void)state;
    fixture.config.is_read_only = true;
    assert_int_equal(chmod(fixture.path, 0444), 0);
    start_with(FEATURE(RO));
    assert_int_equal(write_sectors(0, 1), VIRTIO_BLK_S_IOERR);
    assert_int_equal(forget(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(forget(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_file_kept(0, 8 * SECTOR);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 0); /* not even tried */
    assert_alive();
}

/* Flush, identity, unknown */

static void test_flush_succeeds_with_either_cache_type(void **state)
{
    (void)state;
    start();
    assert_int_equal(write_sectors(0, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(METRIC_TOTAL(block.flush_count), 1);
    driver->device->ops->destroy(driver->device);

    fixture.config.cache_type = CACHE_TYPE_UNSAFE;
    start_with(0);
    assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
}

static void test_driver_that_cannot_flush_gets_durable_writes(void **state)
{
    (void)state;
    start_with(0);
    fill(DATA_GPA, SECTOR, 0x42);
    assert_int_equal(write_sectors(1, 1), VIRTIO_BLK_S_OK);
    assert_file_has(SECTOR, SECTOR, 0x42);
}

static void test_identity_is_made_of_device_and_inode(void **state)
{
    struct stat status;
    char expected[64] = {0};
    uint32_t written;

    (void)state;
    start();
    assert_int_equal(stat(fixture.path, &status), 0);
    snprintf(expected, sizeof(expected), "%llu%llu%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_rdev, (unsigned long long)status.st_ino);
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, DATA_GPA, VIRTIO_BLK_ID_BYTES, &written), VIRTIO_BLK_S_OK);
    assert_int_equal(written, VIRTIO_BLK_ID_BYTES + 1);
    assert_memory_equal(at(DATA_GPA, VIRTIO_BLK_ID_BYTES), expected, VIRTIO_BLK_ID_BYTES);
    assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, DATA_GPA, VIRTIO_BLK_ID_BYTES - 1, NULL), VIRTIO_BLK_S_IOERR);
}

static void test_unknown_requests_are_unsupported(void **state)
{
    static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 16, 0x80000000, 0xffffffff};

    (void)state;
    start();
    for (size_t i = 0; i < array_length(types); i++)
        assert_int_equal(request(types[i], 0, DATA_GPA, SECTOR, NULL), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(METRIC_TOTAL(block.invalid_reqs_count), array_length(types));
    assert_alive();
}

static void test_malformed_requests_are_answered_as_far_as_possible(void **state)
{
    (void)state;
    start();

    /* Nowhere to put a status. */
    unsigned number = new_request(VIRTIO_BLK_T_IN, 0);
    const struct guest_buffer no_status[] = {{header_gpa(number), 16, false}};
    guest_ring_add(ring, no_status, 1);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 0);

    /* No header, or not all of it. */
    const struct guest_buffer no_header[] = {{STATUS_GPA, 1, true}};
    *(uint8_t *)at(STATUS_GPA, 1) = UNTOUCHED;
    guest_ring_add(ring, no_header, 1);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 1);
    assert_int_equal(*(uint8_t *)at(STATUS_GPA, 1), VIRTIO_BLK_S_IOERR);

    const struct guest_buffer short_header[] = {{header_gpa(number), 15, false}, {DATA_GPA, SECTOR + 1, true}};
    guest_ring_add(ring, short_header, 2);
    guest_driver_notify(driver, 0);
    guest_driver_wait_used(driver, 0, NULL);
    assert_int_equal(*(uint8_t *)at(DATA_GPA + SECTOR, 1), VIRTIO_BLK_S_IOERR);
    assert_alive();
}

/* Discard and write zeroes */

static uint64_t allocated_bytes(void)
{
    struct stat status;

    assert_int_equal(stat(fixture.path, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void test_discard_gives_blocks_back(void **state)
{
    (void)state;
    start();
    sync();
    uint64_t before = allocated_bytes();
    assert_int_equal(forget(VIRTIO_BLK_T_DISCARD, 1024, 512, 0), VIRTIO_BLK_S_OK);
    assert_true(allocated_bytes() + 512 * SECTOR <= before + 4096);
    assert_file_has(1024 * SECTOR, 4096, 0);
    assert_file_has((1024 + 512) * SECTOR - 4096, 4096, 0);
    assert_file_kept(1023 * SECTOR, SECTOR);
    assert_file_kept((1024 + 512) * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.discard_count), 1);
}

static void test_write_zeroes_zeroes_with_and_without_unmap(void **state)
{
    (void)state;
    start();
    assert_int_equal(forget(VIRTIO_BLK_T_WRITE_ZEROES, 9, 5, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(forget(VIRTIO_BLK_T_WRITE_ZEROES, 21, 3, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), VIRTIO_BLK_S_OK);
    assert_file_kept(8 * SECTOR, SECTOR);
    assert_file_has(9 * SECTOR, 5 * SECTOR, 0);
    assert_file_kept(14 * SECTOR, 7 * SECTOR);
    assert_file_has(21 * SECTOR, 3 * SECTOR, 0);
    assert_file_kept(24 * SECTOR, SECTOR);
    assert_int_equal(METRIC_TOTAL(block.write_zeroes_count), 2);
}

/* tmpfs can punch holes but not zero a range: the zeros are written. */
static void test_write_zeroes_writes_where_nothing_else_works(void **state)
{
    (void)state;
    unlink(fixture.path);
    make_file(fixture.path, "/dev/shm", FILE_SIZE);
    start();
    assert_int_equal(forget(VIRTIO_BLK_T_WRITE_ZEROES, 5, 1001, 0), VIRTIO_BLK_S_OK);
    assert_file_kept(0, 5 * SECTOR);
    for (uint64_t sector = 5; sector < 1006; sector++)
        assert_file_has(sector * SECTOR, SECTOR, 0);
    assert_file_kept(1006 * SECTOR, SECTOR);
    assert_alive();
}

static void test_wrong_segments_are_refused(void **state)
{
    static const struct virtio_blk_discard_write_zeroes ranges[] = {
        {FILE_SECTORS, 1, 0}, {FILE_SECTORS - 1, 2, 0}, {UINT64_MAX, 1, 0}, {0, UINT32_MAX, 0}, {1, FILE_SECTORS, 0}};

    (void)state;
    start();
    for (size_t i = 0; i < array_length(ranges); i++) {
        assert_int_equal(forget(VIRTIO_BLK_T_DISCARD, ranges[i].sector, ranges[i].num_sectors, 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(forget(VIRTIO_BLK_T_WRITE_ZEROES, ranges[i].sector, ranges[i].num_sectors, 0),
                         VIRTIO_BLK_S_IOERR);
    }
    /* Flags that mean nothing here (5.2.6.2), no segment, half a segment, two. */
    assert_int_equal(forget(VIRTIO_BLK_T_DISCARD, 0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(forget(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
    fill(DATA_GPA, 32, 0);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 0, 0, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, DATA_GPA, 8, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA_GPA, 32, NULL), VIRTIO_BLK_S_IOERR);
    assert_int_equal(forget(VIRTIO_BLK_T_DISCARD, 5, 0, 0), VIRTIO_BLK_S_OK);
    assert_file_kept(0, 4096);
    assert_file_kept(FILE_SIZE - 4096, 4096);
    assert_alive();
}

/* Failures of the host */

static void test_file_truncated_under_the_guest_is_an_io_error(void **state)
{
    uint32_t written;

    (void)state;
    start();
    assert_int_equal(truncate(fixture.path, 10 * SECTOR + 100), 0);
    fill(DATA_GPA, 4 * SECTOR, UNTOUCHED);
    assert_int_equal(request(VIRTIO_BLK_T_IN, 8, DATA_GPA, 4 * SECTOR, &written), VIRTIO_BLK_S_IOERR);
    assert_int_equal(written, 2 * SECTOR + 100 + 1);
    assert_pattern(DATA_GPA, 8 * SECTOR, 2 * SECTOR + 100);
    assert_int_equal(read_sectors(100, 1), VIRTIO_BLK_S_IOERR);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 2);
    assert_alive();
}

/* A write that stops half-way goes on where it stopped, and its error is the guest's. */
static void test_write_that_fails_half_way_is_not_repeated(void **state)
{
    const struct rlimit limit = {10 * SECTOR, RLIM_INFINITY}, unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    struct guest_buffer buffers[] = {{0, 16, false}, {0, 700, false}, {0, 4 * SECTOR - 700, false}, {0, 1, true}};

    (void)state;
    start();
    unsigned number = new_request(VIRTIO_BLK_T_OUT, 8);
    buffers[0].gpa = header_gpa(number);
    buffers[1].gpa = DATA_GPA;
    buffers[2].gpa = DATA_GPA + 0x1000;
    buffers[3].gpa = STATUS_GPA + number;
    fill(DATA_GPA, 0x2000, 0x33);
    guest_ring_add(ring, buffers, 4);

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_int_equal(*status_of(number), VIRTIO_BLK_S_IOERR);
    assert_file_has(8 * SECTOR, 2 * SECTOR, 0x33);
    assert_file_kept(10 * SECTOR, 2 * SECTOR);
    assert_int_equal(METRIC_TOTAL(block.execute_fails), 1);
    assert_int_equal(METRIC_TOTAL(block.write_count), 0);
    assert_alive();
}

static void test_wrong_files_are_refused_by_name(void **state)
{
    struct virtio_device *device = NULL;
    char fifo[80];

    (void)state;
    snprintf(fifo, sizeof(fifo), "%s.fifo", fixture.path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const struct {
        const char *path;
        enum error_kind kind;
        const char *text;
    } wrong[] = {
        {"/nowhere/at/all", ERROR_HOST, "path_on_host: cannot open \"/nowhere/at/all\": No such file or directory"},
        {"/dev/null", ERROR_INPUT, "path_on_host: \"/dev/null\" is a character device"},
        {fifo, ERROR_INPUT, "is a FIFO, expected a regular file or a block device"},
        {"", ERROR_HOST, "path_on_host: cannot open \"\""},
        {NULL, ERROR_INPUT, "path_on_host: missing"},
    };
    for (size_t i = 0; i < array_length(wrong); i++) {
        fixture.config.path_on_host = (char *)(uintptr_t)wrong[i].path;
        assert_error(virtio_block_new(&fixture.config, driver->loop, &device), wrong[i].kind, wrong[i].text);
        assert_null(device);
        /* Opening a FIFO to read it alone would wait for a writer. */
        fixture.config.is_read_only = true;
        assert_error(virtio_block_new(&fixture.config, driver->loop, &device), wrong[i].kind, "path_on_host: ");
        fixture.config.is_read_only = false;
    }
    unlink(fifo);
}

/* Many at a time */

static unsigned add_reads(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned number = new_request(VIRTIO_BLK_T_IN, i);
        const struct guest_buffer buffers[] = {
            {header_gpa(number), 16, false}, {DATA_GPA + i * 0x1000, SECTOR, true}, {STATUS_GPA + number, 1, true}};

        guest_ring_add_indirect(ring, TABLE_GPA + i * 64, buffers, 3);
    }
    return count;
}

static void assert_reads_done(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(guest_driver_wait_used(driver, 0, NULL), SECTOR + 1);
        assert_int_equal(*status_of(fixture.requests - count + i), VIRTIO_BLK_S_OK);
    }
    for (unsigned i = 0; i < count; i++)
        assert_pattern(DATA_GPA + i * 0x1000, i * SECTOR, SECTOR);
}

static void test_full_queue_is_served_by_one_notification(void **state)
{
    (void)state;
    start_with(INDIRECT | EVENT_IDX);
    for (int round = 0; round < 3; round++) {
        /* More than the ring of the engine holds, and more than one turn. */
        unsigned count = add_reads(VIRTQUEUE_SIZE_MAX);

        guest_driver_notify(driver, 0);
        assert_reads_done(count);
        fill(DATA_GPA, VIRTQUEUE_SIZE_MAX * 0x1000, 0);
        fixture.requests = 0;
    }
    assert_int_equal(METRIC_TOTAL(block.read_count), 3 * VIRTQUEUE_SIZE_MAX);
}

/* Flushes are never done at once. */
static void add_flushes(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned number = new_request(VIRTIO_BLK_T_FLUSH, 0);
        const struct guest_buffer buffers[] = {{header_gpa(number), 16, false}, {STATUS_GPA + number, 1, true}};

        guest_ring_add_indirect(ring, TABLE_GPA + i * 64, buffers, 2);
    }
}

/* An update serves the queue without waiting for its turn: completions have none meanwhile, but the host's workers do.
 */
static void test_full_engine_holds_the_rest_until_there_is_room(void **state)
{
    const struct drive_update nothing = {0};
    bool async = fixture.config.io_engine == IO_ENGINE_ASYNC;

    (void)state;
    start_with(FEATURE(FLUSH) | INDIRECT | EVENT_IDX);
    for (int attempt = 0; attempt < 1000 && (attempt == 0 || async); attempt++) {
        fixture.requests = 0;
        add_flushes(VIRTQUEUE_SIZE_MAX);
        guest_driver_notify(driver, 0);
        for (int round = 0; round < 3; round++)
            assert_no_error(virtio_block_update(driver->device, &nothing));
        for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++)
            assert_int_equal(guest_driver_wait_used(driver, 0, NULL), 1);
        for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++)
            assert_int_equal(*status_of(i), VIRTIO_BLK_S_OK);
        if (METRIC_TOTAL(block.io_engine_throttled_events) > 0)
            break;
    }
    assert_int_equal(METRIC_TOTAL(block.io_engine_throttled_events) > 0, async);
}

/* What the kernel does at once is done when the notification has been served. Not every file system can. */
static void test_reads_from_the_page_cache_need_no_further_event(void **state)
{
    cleanup_fd int fd = open(fixture.path, O_RDONLY | O_CLOEXEC);
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};

    (void)state;
    if (preadv2(fd, &iov, 1, 0, RWF_NOWAIT) != 1)
        skip();
    start_with(INDIRECT);
    unsigned count = add_reads(20);
    guest_driver_notify(driver, 0);
    assert_int_equal(METRIC_TOTAL(block.read_count), count);
    assert_reads_done(count);
}

static void test_batch_ends_in_one_interrupt(void **state)
{
    (void)state;
    start_with(INDIRECT);
    add_reads(20);
    guest_driver_notify(driver, 0);
    assert_reads_done(20);
    assert_in_range(driver->queue_signals[0], 1, fixture.config.io_engine == IO_ENGINE_SYNC ? 1 : 20);
}

static bool throttled(void *argument)
{
    (void)argument;
    return METRIC_TOTAL(block.rate_limiter_throttled_events) > 0;
}

static void test_idle_drive_asks_for_the_next_notification(void **state)
{
    (void)state;
    start_with(EVENT_IDX);
    for (uint16_t i = 1; i < 5; i++) {
        assert_int_equal(read_sectors(0, 1), VIRTIO_BLK_S_OK);
        assert_int_equal(guest_ring_avail_event(ring), i);
    }
    guest_driver_reset(driver);
    guest_driver_restart(driver, 0);
    assert_int_equal(read_sectors(0, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(ring->used->flags, 0);
}

static void test_rate_limiter_delays_and_drops_nothing(void **state)
{
    (void)state;
    fixture.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .bandwidth = {.present = true, .size = 8 * SECTOR, .refill_time = 20},
        .ops = {.present = true, .size = 4, .refill_time = 20},
    };
    start_with(INDIRECT);
    add_reads(20);
    guest_driver_notify(driver, 0);
    guest_driver_run_until(driver, throttled, NULL);
    assert_reads_done(20);
    assert_int_equal(METRIC_TOTAL(block.read_count), 20);
    assert_true(METRIC_TOTAL(block.rate_limiter_throttled_events) >= 4);

    /* Larger than the bucket: it passes when the bucket is full. */
    assert_int_equal(read_sectors(0, 64), VIRTIO_BLK_S_OK);
}

static bool nothing_to_wait_for(void *argument)
{
    return (*(unsigned *)argument)++ > 20;
}

static void test_pause_holds_requests_until_resume(void **state)
{
    unsigned polls = 0;

    (void)state;
    start_with(INDIRECT);
    add_reads(10);
    guest_driver_notify(driver, 0);
    driver->device->paused = true;
    driver->device->ops->pause(driver->device);
    /* What was taken is finished when pause returns. */
    uint16_t taken = driver->device->queues[0].next_available;
    assert_int_equal(driver->device->queues[0].next_used, taken);

    add_reads(10);
    guest_driver_notify(driver, 0);
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    assert_int_equal(driver->device->queues[0].next_available, taken);
    driver->device->paused = false;
    driver->device->ops->resume(driver->device);
    for (int i = 0; i < 10; i++)
        guest_driver_wait_used(driver, 0, NULL);
    assert_reads_done(10);
}

static void test_paused_rate_limiter_sleeps_until_resume(void **state)
{
    unsigned polls = 0;

    (void)state;
    fixture.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 1, .refill_time = 5},
    };
    start_with(INDIRECT);
    add_reads(3);
    guest_driver_notify(driver, 0);
    driver->device->paused = true;
    driver->device->ops->pause(driver->device);
    uint16_t used = driver->device->queues[0].next_used;
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    assert_int_equal(driver->device->queues[0].next_used, used);
    driver->device->paused = false;
    driver->device->ops->resume(driver->device);
    assert_reads_done(3);
}

/* One request of 22 MiB, whose buffers are the same memory again and again. */
enum { LARGE_PAIRS = 15, LARGE_LONG = 3 << 19, LARGE_SIZE = LARGE_PAIRS * (LARGE_LONG + SECTOR) };
#define LARGE_SHORT_GPA DATA_GPA
#define LARGE_LONG_GPA (DATA_GPA + 0x100000ULL)

static void start_with_large_file(void)
{
    unlink(fixture.path);
    make_file(fixture.path, "/tmp", LARGE_SIZE);
    start_with(INDIRECT);
}

static unsigned add_large_read(void)
{
    unsigned number = new_request(VIRTIO_BLK_T_IN, 0);
    struct guest_buffer buffers[2 * LARGE_PAIRS + 2] = {
        {header_gpa(number), sizeof(struct virtio_blk_outhdr), false},
        [2 * LARGE_PAIRS + 1] = {STATUS_GPA + number % 512, 1, true},
    };

    for (size_t i = 0; i < LARGE_PAIRS; i++) {
        buffers[1 + 2 * i] = (struct guest_buffer){LARGE_SHORT_GPA, SECTOR, true};
        buffers[2 + 2 * i] = (struct guest_buffer){LARGE_LONG_GPA, LARGE_LONG, true};
    }
    guest_ring_add_indirect(ring, TABLE_GPA, buffers, array_length(buffers));
    return number;
}

static void assert_large_read_done(unsigned number)
{
    assert_int_equal(*status_of(number), VIRTIO_BLK_S_OK);
    assert_pattern(LARGE_SHORT_GPA, LARGE_SIZE - LARGE_LONG - SECTOR, SECTOR);
    assert_pattern(LARGE_LONG_GPA, LARGE_SIZE - LARGE_LONG, LARGE_LONG);
}

static unsigned turns_of_others;

static void count_turn(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    turns_of_others++;
}

static void test_large_request_leaves_others_their_turns(void **state)
{
    struct event_source other = {.fd = eventfd(1, EFD_CLOEXEC), .ready = count_turn};

    (void)state;
    start_with_large_file();
    assert_no_error(event_source_add(driver->loop, &other, EPOLLIN));
    turns_of_others = 0;
    unsigned number = add_large_read();
    guest_driver_notify(driver, 0);
    assert_int_equal(guest_driver_wait_used(driver, 0, NULL), LARGE_SIZE + 1);
    event_source_remove(&other);
    close(other.fd);
    assert_large_read_done(number);
    assert_int_equal(METRIC_TOTAL(block.read_bytes), LARGE_SIZE);
    if (turns_of_others < 5)
        fail_msg("others had %u turns", turns_of_others);
}

static void test_pause_and_update_finish_a_large_request(void **state)
{
    const struct drive_update update = {.path_on_host = fixture.path};

    (void)state;
    start_with_large_file();
    for (int round = 0; round < 2; round++) {
        unsigned number = add_large_read();

        guest_driver_notify(driver, 0);
        if (round == 0) {
            driver->device->paused = true;
            driver->device->ops->pause(driver->device);
            driver->device->paused = false;
            driver->device->ops->resume(driver->device);
        } else {
            assert_no_error(virtio_block_update(driver->device, &update));
        }
        assert_true(guest_ring_has_used(ring));
        guest_driver_wait_used(driver, 0, NULL);
        assert_large_read_done(number);
    }
}

static void test_reset_abandons_a_large_request(void **state)
{
    unsigned polls = 0;

    (void)state;
    start_with_large_file();
    add_large_read();
    guest_driver_notify(driver, 0);
    guest_driver_reset(driver);
    fill(LARGE_LONG_GPA, LARGE_LONG, UNTOUCHED);
    guest_driver_run_until(driver, nothing_to_wait_for, &polls);
    for (unsigned i = 0; i < LARGE_LONG; i++)
        assert_int_equal(*(uint8_t *)at(LARGE_LONG_GPA + i, 1), UNTOUCHED);
    guest_driver_restart(driver, INDIRECT);
    assert_alive();
}

static void test_reset_ends_what_is_in_flight(void **state)
{
    (void)state;
    start_with(INDIRECT);
    for (int round = 0; round < 5; round++) {
        add_reads(100);
        guest_driver_notify(driver, 0);
        guest_driver_reset(driver);
        /* Nothing may touch this from now on. */
        fill(DATA_GPA, 100 * 0x1000, UNTOUCHED);
        unsigned polls = 0;
        guest_driver_run_until(driver, nothing_to_wait_for, &polls);
        for (unsigned i = 0; i < 100; i++)
            assert_int_equal(*(uint8_t *)at(DATA_GPA + i * 0x1000, 1), UNTOUCHED);
        guest_driver_restart(driver, INDIRECT);
        fixture.requests = 0;
        assert_alive();
    }
}

static void test_broken_queue_stops_the_drive_until_reset(void **state)
{
    (void)state;
    start();
    add(VIRTIO_BLK_T_IN, 0, DATA_GPA, SECTOR);
    guest_ring_publish(ring, 0xffff);
    guest_driver_notify(driver, 0);
    assert_true(driver->failed);
    guest_driver_reset(driver);
    guest_driver_restart(driver, 0);
    assert_alive();
}

/* Several queues, and direct I/O */

static void wait_for_reads(unsigned queue, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(guest_driver_wait_used(driver, queue, NULL), SECTOR + 1);
}

static unsigned add_read_to(unsigned queue, uint64_t sector)
{
    unsigned number = fixture.requests++;
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN, .sector = sector};
    const struct guest_buffer buffers[] = {{HEADER_GPA + number * 64, sizeof(header), false},
                                           {DATA_GPA + number * 0x1000, SECTOR, true},
                                           {STATUS_GPA + number, 1, true}};

    memcpy(at(buffers[0].gpa, sizeof(header)), &header, sizeof(header));
    *status_of(number) = UNTOUCHED;
    guest_ring_add(&driver->rings[queue], buffers, array_length(buffers));
    return number;
}

static void test_each_of_several_queues_is_served_and_signalled(void **state)
{
    struct virtio_blk_config config;

    (void)state;
    fixture.config.queue_count = 4;
    start_with(FEATURE(MQ) | EVENT_IDX);
    read_config(&config);
    assert_int_equal(config.num_queues, 4);
    for (unsigned queue = 0; queue < 4; queue++) {
        unsigned number = add_read_to(queue, queue + 5);

        guest_driver_notify(driver, queue);
        wait_for_reads(queue, 1);
        assert_int_equal(*status_of(number), VIRTIO_BLK_S_OK);
        assert_pattern(DATA_GPA + number * 0x1000, (queue + 5) * SECTOR, SECTOR);
        assert_int_equal(driver->queue_signals[queue], 1);
    }
}

/* More than one turn takes, on each: nobody is left out. */
static void test_queues_have_their_turns_one_after_the_other(void **state)
{
    (void)state;
    fixture.config.queue_count = 3;
    start_with(FEATURE(MQ));
    for (unsigned queue = 0; queue < 3; queue++)
        for (unsigned i = 0; i < 80; i++)
            add_read_to(queue, i);
    for (unsigned queue = 0; queue < 3; queue++)
        guest_driver_notify(driver, queue);
    wait_for_reads(2, 80);
    wait_for_reads(1, 80);
    wait_for_reads(0, 80);
    assert_int_equal(METRIC_TOTAL(block.read_count), 240);
}

static void test_limited_queues_wait_for_the_same_tokens(void **state)
{
    (void)state;
    fixture.config.queue_count = 2;
    fixture.config.rate_limiter =
        (struct rate_limiter_config){.present = true, .ops = {.present = true, .size = 1, .refill_time = 2}};
    start_with(FEATURE(MQ));
    for (unsigned i = 0; i < 4; i++) {
        add_read_to(0, i);
        add_read_to(1, i);
    }
    guest_driver_notify(driver, 0);
    guest_driver_notify(driver, 1);
    wait_for_reads(1, 4);
    wait_for_reads(0, 4);
}

static void test_broken_queue_stops_the_others_too(void **state)
{
    (void)state;
    fixture.config.queue_count = 2;
    start_with(FEATURE(MQ));
    guest_ring_available_index(&driver->rings[1], 1000);
    guest_driver_notify(driver, 1);
    assert_true(driver->failed);
    guest_driver_reset(driver);
    guest_driver_restart(driver, FEATURE(MQ));
    add_read_to(1, 3);
    guest_driver_notify(driver, 1);
    wait_for_reads(1, 1);
}

static void test_direct_drive_reads_and_writes_the_file(void **state)
{
    struct virtio_blk_config config;
    struct virtio_device *device = NULL;
    const struct drive_update update = {.path_on_host = fixture.path};

    (void)state;
    fixture.config.direct = true;
    struct error *error = virtio_block_new(&fixture.config, driver->loop, &device);
    if (error != NULL) {
        print_message("skipped: %s\n", error->message);
        error_free(error);
        skip();
    }
    guest_driver_start(driver, device, 0);
    read_config(&config);
    assert_true(config.blk_size == SECTOR || config.blk_size == 4096);
    assert_int_equal(read_sectors(8, 8), VIRTIO_BLK_S_OK);
    assert_pattern(DATA_GPA, 8 * SECTOR, 8 * SECTOR);

    /* A file that grows under the same name: PATCH with its path looks again. */
    assert_int_equal(truncate(fixture.path, FILE_SIZE + 8 * SECTOR), 0);
    assert_no_error(virtio_block_update(device, &update));
    read_config(&config);
    assert_int_equal(config.capacity, FILE_SECTORS + 8);
    assert_int_equal(driver->config_signals, 1);
    assert_int_equal(read_sectors(FILE_SECTORS, 8), VIRTIO_BLK_S_OK);
}

/* PATCH */

static void test_update_changes_file_capacity_and_identity(void **state)
{
    struct virtio_blk_config config;
    char path[64];
    struct drive_update update = {.path_on_host = path};

    (void)state;
    start();
    make_file(path, "/tmp", 4 * SECTOR);
    assert_int_equal(truncate(path, 100 * SECTOR), 0);
    assert_no_error(virtio_block_update(driver->device, &update));
    assert_int_equal(driver->config_signals, 1);
    read_config(&config);
    assert_int_equal(config.capacity, 100);
    fill(DATA_GPA, SECTOR, UNTOUCHED);
    assert_int_equal(read_sectors(50, 1), VIRTIO_BLK_S_OK);
    assert_int_equal(*(uint8_t *)at(DATA_GPA, 1), 0);
    assert_int_equal(read_sectors(100, 1), VIRTIO_BLK_S_IOERR);
    fill(DATA_GPA, SECTOR, 1);
    assert_int_equal(write_sectors(0, 1), VIRTIO_BLK_S_OK);
    assert_file_kept(0, SECTOR);
    unlink(path);
}

static void test_update_to_a_wrong_file_changes_nothing(void **state)
{
    const struct drive_update update = {.path_on_host = (char *)(uintptr_t) "/nowhere"};
    struct virtio_blk_config config;

    (void)state;
    start();
    assert_error(virtio_block_update(driver->device, &update), ERROR_HOST, "path_on_host: cannot open \"/nowhere\"");
    assert_int_equal(driver->config_signals, 0);
    read_config(&config);
    assert_int_equal(config.capacity, FILE_SECTORS);
    assert_int_equal(METRIC_TOTAL(block.update_fails), 1);
    assert_alive();
}

static void test_update_of_the_rate_limiter_lets_waiting_requests_go(void **state)
{
    const struct drive_update update = {
        .rate_limiter = {.present = true, .ops = {.present = true, .size = 0, .refill_time = 0}}};

    (void)state;
    fixture.config.rate_limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = 1, .refill_time = 3600000},
    };
    start_with(INDIRECT);
    add_reads(5);
    guest_driver_notify(driver, 0);
    guest_driver_run_until(driver, throttled, NULL);
    assert_no_error(virtio_block_update(driver->device, &update));
    assert_reads_done(5);
}

/* A vCPU thread that notifies while the loop completes: what TSan is to see. */
static void *run_loop(void *loop)
{
    return event_loop_run(loop);
}

static void test_notifications_from_another_thread(void **state)
{
    pthread_t thread;
    void *error = NULL;

    (void)state;
    start_with(EVENT_IDX);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, driver->loop), 0);
    for (int i = 0; i < 200; i++) {
        unsigned number = add(VIRTIO_BLK_T_IN, 3, DATA_GPA, SECTOR);
        uint16_t head;
        uint32_t written;

        event_loop_lock(driver->loop);
        guest_driver_notify(driver, 0);
        event_loop_unlock(driver->loop);
        while (!guest_ring_take_used(ring, &head, &written))
            sched_yield();
        assert_int_equal(*status_of(number), VIRTIO_BLK_S_OK);
    }
    event_loop_lock(driver->loop);
    event_loop_stop(driver->loop);
    event_loop_unlock(driver->loop);
    pthread_join(thread, &error);
    assert_no_error(error);
}

#define BLOCK_TEST(test)                                                                                               \
    {#test "_sync", test, setup_sync, teardown, NULL},                                                                 \
    {                                                                                                                  \
#test "_async", test, setup_async, teardown, NULL                                                              \
    }

TEST_MAIN(BLOCK_TEST(test_config_tells_capacity_and_limits), BLOCK_TEST(test_features_follow_the_configuration),
          BLOCK_TEST(test_capacity_is_rounded_down_to_whole_sectors),
          BLOCK_TEST(test_empty_file_is_a_drive_without_sectors), BLOCK_TEST(test_reads_what_the_file_holds),
          BLOCK_TEST(test_writes_reach_the_file_and_nothing_else), BLOCK_TEST(test_any_layout_of_buffers_will_do),
          BLOCK_TEST(test_as_many_segments_as_offered_are_served), BLOCK_TEST(test_ranges_beyond_the_disk_are_refused),
          BLOCK_TEST(test_lengths_that_are_not_whole_sectors_are_refused),
          BLOCK_TEST(test_read_only_drive_refuses_every_change), BLOCK_TEST(test_flush_succeeds_with_either_cache_type),
          BLOCK_TEST(test_driver_that_cannot_flush_gets_durable_writes),
          BLOCK_TEST(test_identity_is_made_of_device_and_inode), BLOCK_TEST(test_unknown_requests_are_unsupported),
          BLOCK_TEST(test_malformed_requests_are_answered_as_far_as_possible),
          BLOCK_TEST(test_discard_gives_blocks_back), BLOCK_TEST(test_write_zeroes_zeroes_with_and_without_unmap),
          BLOCK_TEST(test_write_zeroes_writes_where_nothing_else_works), BLOCK_TEST(test_wrong_segments_are_refused),
          BLOCK_TEST(test_file_truncated_under_the_guest_is_an_io_error),
          BLOCK_TEST(test_write_that_fails_half_way_is_not_repeated), BLOCK_TEST(test_wrong_files_are_refused_by_name),
          BLOCK_TEST(test_full_queue_is_served_by_one_notification),
          BLOCK_TEST(test_full_engine_holds_the_rest_until_there_is_room),
          BLOCK_TEST(test_reads_from_the_page_cache_need_no_further_event),
          BLOCK_TEST(test_idle_drive_asks_for_the_next_notification), BLOCK_TEST(test_batch_ends_in_one_interrupt),
          BLOCK_TEST(test_rate_limiter_delays_and_drops_nothing), BLOCK_TEST(test_pause_holds_requests_until_resume),
          BLOCK_TEST(test_paused_rate_limiter_sleeps_until_resume), BLOCK_TEST(test_reset_ends_what_is_in_flight),
          BLOCK_TEST(test_large_request_leaves_others_their_turns),
          BLOCK_TEST(test_pause_and_update_finish_a_large_request), BLOCK_TEST(test_reset_abandons_a_large_request),
          BLOCK_TEST(test_broken_queue_stops_the_drive_until_reset),
          BLOCK_TEST(test_each_of_several_queues_is_served_and_signalled),
          BLOCK_TEST(test_queues_have_their_turns_one_after_the_other),
          BLOCK_TEST(test_limited_queues_wait_for_the_same_tokens), BLOCK_TEST(test_broken_queue_stops_the_others_too),
          BLOCK_TEST(test_direct_drive_reads_and_writes_the_file),
          BLOCK_TEST(test_update_changes_file_capacity_and_identity),
          BLOCK_TEST(test_update_to_a_wrong_file_changes_nothing),
          BLOCK_TEST(test_update_of_the_rate_limiter_lets_waiting_requests_go),
          BLOCK_TEST(test_notifications_from_another_thread))
