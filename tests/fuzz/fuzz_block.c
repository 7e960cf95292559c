/* A disk under a hostile driver: the first byte says which kind of disk. */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { DISK_SIZE = 0x8000, READ_ONLY = 1, WRITEBACK = 2, LIMITED = 4, SEVERAL_QUEUES = 8 };

static uint8_t kind;

static struct virtio_device *make(struct event_loop *loop)
{
    struct drive_config config = {
        .drive_id = (char *)"disk",
        .is_read_only = kind & READ_ONLY,
        .cache_type = (kind & WRITEBACK) ? CACHE_TYPE_WRITEBACK : CACHE_TYPE_UNSAFE,
        .io_engine = IO_ENGINE_SYNC,
        .queue_count = (kind & SEVERAL_QUEUES) ? 3 : 1,
    };
    struct virtio_device *device;
    char path[96];

    snprintf(path, sizeof(path), "%s", fuzz_path("disk"));
    cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    fuzz_require(fd >= 0 && ftruncate(fd, DISK_SIZE) == 0);
    config.path_on_host = path;
    if (kind & LIMITED)
        config.rate_limiter =
            (struct rate_limiter_config){.present = true, .ops = {.present = true, .size = 3, .refill_time = 3600000}};
    fuzz_no_error(virtio_block_new(&config, loop, &device));
    return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make};

    if (size == 0)
        return 0;
    kind = data[0];
    return fuzz_device(&ops, data + 1, size - 1);
}
