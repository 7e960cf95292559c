/* The entropy device under a hostile driver; the last byte says whether it has a limit. */
#include "tests/fuzz/fuzz.h"

#include "vmm/virtio/devices.h"

static bool limited;

static struct virtio_device *make(struct event_loop *loop)
{
    struct entropy_config config = {.present = true};
    const struct token_bucket_config bucket = {
        .present = true, .size = 1000, .refill_time = 1, .has_one_time_burst = true, .one_time_burst = 5000};
    struct virtio_device *device;

    if (limited)
        config.rate_limiter = (struct rate_limiter_config){.present = true, .bandwidth = bucket, .ops = bucket};
    fuzz_no_error(virtio_entropy_new(&config, loop, &device));
    return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make};

    limited = size > 0 && (data[size - 1] & 1) != 0;
    return fuzz_device(&ops, data, size);
}
