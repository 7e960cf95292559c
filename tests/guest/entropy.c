/* Asks the entropy device twice for len= bytes (default 64); prints how many came and whether they look random. */
#include "tests/guest/lib/virtio.h"

static uint8_t first[4096], second[4096];

void guest_main(void)
{
    struct virtio entropy;
    uint32_t length = (uint32_t)cmdline_number("len", 64);

    guest_expect(length <= sizeof(first), "len= is too large");
    guest_expect(virtio_open(&entropy, VIRTIO_ENTROPY, 0, 1), "no entropy device");
    serial_result("got", virtio_request(&entropy, 0, &(struct buffer){first, length, true}, 1));
    serial_result("got", virtio_request(&entropy, 0, &(struct buffer){second, length, true}, 1));
    guest_expect(memcmp(first, second, 16) != 0, "the same bytes twice");
    if (cmdline_has("huge")) {
        /* One MiB in one chain, all of it over the same page: the device caps what it gives. */
        struct buffer page = {first, sizeof(first), true};
        struct buffer pages[QUEUE_SIZE];

        for (unsigned i = 0; i < QUEUE_SIZE; i++)
            pages[i] = page;
        serial_result("capped", virtio_request(&entropy, 0, pages, QUEUE_SIZE));
    }
    serial_puts("done\n");
}
