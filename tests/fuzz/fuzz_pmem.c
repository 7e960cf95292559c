/* Memory backed by a file, under a hostile driver. */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static struct virtio_device *make(struct event_loop *loop)
{
    char path[96];
    struct pmem_config config = {.id = (char *)"pmem0", .path_on_host = path};
    struct virtio_device *device;

    snprintf(path, sizeof(path), "%s", fuzz_path("pmem"));
    cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    fuzz_require(fd >= 0 && ftruncate(fd, 4096) == 0);
    fuzz_no_error(virtio_pmem_new(&config, loop, &device));
    return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make};

    return fuzz_device(&ops, data, size);
}
