/*
 * A disk under a hostile driver, while the host gives it another file or limiter, and cuts the file: the first byte
 * says which kind of disk.
 */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { DISK_SIZE = 0x8000, READ_ONLY = 1, WRITEBACK = 2, LIMITED = 4, SEVERAL_QUEUES = 8, ASYNC = 16 };

static uint8_t kind;
static struct virtio_device *disk;

/* The file of that name, of `size` bytes, in a static buffer. */
static const char *make_file(const char *name, off_t size)
{
    const char *path = fuzz_path(name);
    cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    fuzz_require(fd >= 0 && ftruncate(fd, size) == 0);
    return path;
}

static struct virtio_device *make(struct event_loop *loop)
{
    struct drive_config config = {
        .drive_id = (char *)"disk",
        .is_read_only = kind & READ_ONLY,
        .cache_type = (kind & WRITEBACK) ? CACHE_TYPE_WRITEBACK : CACHE_TYPE_UNSAFE,
        .io_engine = (kind & ASYNC) ? IO_ENGINE_ASYNC : IO_ENGINE_SYNC,
        .queue_count = (kind & SEVERAL_QUEUES) ? 3 : 1,
    };
    char path[96];

    snprintf(path, sizeof(path), "%s", make_file("disk", DISK_SIZE));
    config.path_on_host = path;
    if (kind & LIMITED)
        config.rate_limiter =
            (struct rate_limiter_config){.present = true, .ops = {.present = true, .size = 3, .refill_time = 3600000}};
    fuzz_no_error(virtio_block_new(&config, loop, &disk));
    return disk;
}

/* Another file, by whichever name; what is refused changes nothing. */
static void give_file(const char *name, off_t size)
{
    char path[96];
    const struct drive_update update = {.path_on_host = path};

    snprintf(path, sizeof(path), "%s", make_file(name, size));
    error_free(virtio_block_update(disk, &update));
}

static void limit(uint64_t size, uint64_t refill_time)
{
    const struct drive_update update = {
        .rate_limiter = {.present = true,
                         .ops = {.present = true, .size = size, .refill_time = refill_time},
                         .bandwidth = {.present = true, .size = size << 9, .refill_time = refill_time}}};

    error_free(virtio_block_update(disk, &update));
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input);
    uint32_t size = (uint32_t)(what >> 2) * 0x200;

    switch (what & 3) {
    case 0:
        give_file(what & 4 ? "disk" : "other", size * 4);
        break;
    case 1:
        limit(what >> 2, what & 4 ? 3600000 : 1);
        break;
    case 2:
        make_file("disk", size); /* whatever the device believes */
        break;
    default:
        limit(0, 0);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .host_event = host_event};

    if (size == 0)
        return 0;
    kind = data[0];
    return fuzz_device(&ops, data + 1, size - 1);
}
