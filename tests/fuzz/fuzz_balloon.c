/* The balloon under a hostile driver, while the host asks for memory, statistics and hints. */
#include "tests/fuzz/fuzz.h"

#include "vmm/virtio/devices.h"

static struct virtio_device *balloon;

static struct virtio_device *make(struct event_loop *loop)
{
    struct balloon_config config = {.present = true,
                                    .deflate_on_oom = true,
                                    .stats_polling_interval_s = 3600,
                                    .free_page_hinting = true,
                                    .free_page_reporting = true};

    fuzz_no_error(virtio_balloon_new(&config, loop, &balloon));
    return balloon;
}

static void host_event(struct fuzz_input *input)
{
    struct balloon_statistics statistics;
    struct balloon_hinting_status status;
    uint8_t what = fuzz_u8(input);

    switch (what % 5) {
    case 0:
        virtio_balloon_resize(balloon, fuzz_u16(input));
        break;
    case 1:
        virtio_balloon_poll(balloon, 3600);
        break;
    case 2:
        virtio_balloon_hinting_start(balloon, what & 0x80);
        break;
    case 3:
        virtio_balloon_hinting_stop(balloon);
        break;
    default:
        virtio_balloon_statistics(balloon, &statistics);
        virtio_balloon_hinting_status(balloon, &status);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .host_event = host_event};

    return fuzz_device(&ops, data, size);
}
