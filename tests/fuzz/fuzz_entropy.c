/* The entropy device under a hostile driver. */
#include "tests/fuzz/fuzz.h"

#include "vmm/virtio/devices.h"

static struct virtio_device *make(struct event_loop *loop)
{
    struct entropy_config config = {.present = true};
    struct virtio_device *device;

    fuzz_no_error(virtio_entropy_new(&config, loop, &device));
    return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make};

    return fuzz_device(&ops, data, size);
}
