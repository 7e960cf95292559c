#include "tests/unit/harness.h"

#include "tests/unit/block_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct block_driver block;

uint8_t block_pattern(uint64_t offset)
{
    return (uint8_t)(offset / SECTOR * 7 + offset % 251);
}

void block_make_file(char *path, const char *directory, uint64_t size)
{
    uint8_t chunk[4096];

    snprintf(path, sizeof(block.path), "%s/mayfly-block-XXXXXX", directory);
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (uint64_t offset = 0; offset < size; offset += sizeof(chunk)) {
        size_t part = size - offset < sizeof(chunk) ? (size_t)(size - offset) : sizeof(chunk);

        for (size_t i = 0; i < part; i++)
            chunk[i] = block_pattern(offset + i);
        assert_int_equal(write(fd, chunk, part), part);
    }
}

void block_use_memory(void)
{
    unlink(block.path);
    block_make_file(block.path, "/dev/shm", FILE_SIZE);
}

static int setup(enum io_engine engine)
{
    memset(&block, 0, sizeof(block));
    memset(&metrics.block, 0, sizeof(metrics.block));
    signal(SIGXFSZ, SIG_IGN);
    block_make_file(block.path, "/tmp", FILE_SIZE);
    block.config = (struct drive_config){
        .drive_id = (char *)(uintptr_t) "disk",
        .path_on_host = block.path,
        .cache_type = CACHE_TYPE_WRITEBACK,
        .io_engine = engine,
    };
    guest_driver_setup(&block.driver);
    return 0;
}

int block_setup_sync(void **state)
{
    (void)state;
    return setup(IO_ENGINE_SYNC);
}

int block_setup_async(void **state)
{
    (void)state;
    return setup(IO_ENGINE_ASYNC);
}

int block_teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&block.driver);
    unlink(block.path);
    return 0;
}

struct virtio_device *block_make_device(void)
{
    struct virtio_device *device = NULL;
    struct error *error = virtio_block_new(&block.config, block.driver.loop, &device);

    if (error != NULL && block.config.io_engine == IO_ENGINE_ASYNC && (error->code == ENOSYS || error->code == EPERM)) {
        print_message("skipped: %s\n", error->message);
        error_free(error);
        skip();
    }
    assert_no_error(error);
    return device;
}

void block_start_with(uint64_t features)
{
    guest_driver_start(&block.driver, block_make_device(), features);
}

void block_start(void)
{
    block_start_with(FEATURE(FLUSH) | FEATURE(DISCARD) | FEATURE(WRITE_ZEROES));
}

void block_read_config(struct virtio_blk_config *config)
{
    struct virtio_device *device = block.driver.device;

    for (uint32_t i = 0; i < sizeof(*config); i++)
        device->ops->config_read(device, i, (uint8_t *)config + i, 1);
}

void *block_at(uint64_t gpa, size_t length)
{
    return guest_at(&block.driver.memory, gpa, length);
}

uint64_t block_header_gpa(unsigned number)
{
    return HEADER_GPA + number % 512 * 64;
}

uint8_t *block_status_of(unsigned number)
{
    return block_at(STATUS_GPA + number % 512, 1);
}

unsigned block_new_request(uint32_t type, uint64_t sector)
{
    const struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    unsigned number = block.requests++;

    memcpy(block_at(block_header_gpa(number), sizeof(header)), &header, sizeof(header));
    *block_status_of(number) = UNTOUCHED;
    return number;
}

unsigned block_add(uint32_t type, uint64_t sector, uint64_t data_gpa, uint32_t length)
{
    unsigned number = block_new_request(type, sector);
    bool to_guest = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    const struct guest_buffer buffers[] = {
        {block_header_gpa(number), sizeof(struct virtio_blk_outhdr), false},
        {data_gpa, length, to_guest},
        {STATUS_GPA + number % 512, 1, true},
    };
    const struct guest_buffer bare[] = {buffers[0], buffers[2]};

    if (length > 0)
        guest_ring_add(&block.driver.rings[0], buffers, 3);
    else
        guest_ring_add(&block.driver.rings[0], bare, 2);
    return number;
}

uint8_t block_request(uint32_t type, uint64_t sector, uint64_t data_gpa, uint32_t length, uint32_t *written)
{
    unsigned number = block_add(type, sector, data_gpa, length);

    guest_driver_notify(&block.driver, 0);
    uint32_t used = guest_driver_wait_used(&block.driver, 0, NULL);
    if (written != NULL)
        *written = used;
    return *block_status_of(number);
}

uint8_t block_read_sectors(uint64_t sector, uint32_t sectors)
{
    return block_request(VIRTIO_BLK_T_IN, sector, DATA_GPA, sectors * SECTOR, NULL);
}

uint8_t block_write_sectors(uint64_t sector, uint32_t sectors)
{
    return block_request(VIRTIO_BLK_T_OUT, sector, DATA_GPA, sectors * SECTOR, NULL);
}

uint8_t block_forget(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    const struct virtio_blk_discard_write_zeroes segment = {.sector = sector, .num_sectors = sectors, .flags = flags};

    memcpy(block_at(DATA_GPA, sizeof(segment)), &segment, sizeof(segment));
    return block_request(type, 0, DATA_GPA, sizeof(segment), NULL);
}

void block_fill(uint64_t gpa, size_t length, uint8_t value)
{
    memset(block_at(gpa, length), value, length);
}

void assert_block_pattern(uint64_t gpa, uint64_t offset, size_t length)
{
    const uint8_t *data = block_at(gpa, length);

    for (size_t i = 0; i < length; i++)
        if (data[i] != block_pattern(offset + i))
            fail_msg("byte %zu is %u instead of %u", i, data[i], block_pattern(offset + i));
}

void assert_block_file_has(uint64_t offset, size_t length, uint8_t value)
{
    cleanup_fd int fd = open(block.path, O_RDONLY);
    uint8_t data[4096];

    assert_true(length <= sizeof(data));
    assert_int_equal(pread(fd, data, length, (off_t)offset), length);
    for (size_t i = 0; i < length; i++)
        if (data[i] != value)
            fail_msg("byte %zu of the file is %u instead of %u", (size_t)offset + i, data[i], value);
}

void assert_block_file_kept(uint64_t offset, size_t length)
{
    cleanup_fd int fd = open(block.path, O_RDONLY);
    uint8_t data[4096];

    assert_true(length <= sizeof(data));
    assert_int_equal(pread(fd, data, length, (off_t)offset), length);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(data[i], block_pattern(offset + i));
}

void assert_block_alive(void)
{
    assert_false(block.driver.failed);
    block_fill(DATA_GPA, SECTOR, UNTOUCHED);
    assert_int_equal(block_read_sectors(3, 1), VIRTIO_BLK_S_OK);
    assert_block_pattern(DATA_GPA, 3 * SECTOR, SECTOR);
}
