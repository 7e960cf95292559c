/*
 * Looks at the memory of a pmem device: where it is, what its first bytes are, whether a write stays, what a flush
 * says. far=: also touches the byte at this offset.
 */
#include "tests/guest/lib/virtio.h"

enum { FLUSH = 0, WORD = 8 };

static volatile uint64_t *map(uint64_t gpa)
{
    guest_expect(guest_map(gpa), "out of page tables");
    return (volatile uint64_t *)gpa;
}

static uint32_t flush(struct virtio *pmem, uint32_t type)
{
    static volatile uint32_t request, result;

    request = type;
    result = 99;
    virtio_request(pmem, 0, (struct buffer[]){{&request, 4, false}, {&result, 4, true}}, 2);
    return result;
}

void guest_main(void)
{
    struct virtio pmem;
    unsigned nth = (unsigned)cmdline_number("nth", 0);
    uint64_t far = cmdline_number("far", 0);

    guest_expect(virtio_find(&pmem, VIRTIO_PMEM, nth), "no pmem device");
    guest_expect(virtio_negotiate(&pmem, FEATURE_VERSION_1), "no features");
    virtio_queue(&pmem, 0);
    virtio_driver_ok(&pmem);

    uint64_t start = virtio_config64(&pmem, 0);
    uint64_t size = virtio_config64(&pmem, 8);
    volatile uint64_t *memory = map(start);

    serial_result("start", start);
    serial_result("size", size);
    serial_result("first", memory[0]);
    memory[1] = 0x6d656d7020796d00;
    serial_puts(memory[1] == 0x6d656d7020796d00 ? "written\n" : "read-only\n");
    serial_result("flush", flush(&pmem, FLUSH));
    serial_result("other", flush(&pmem, FLUSH + 1));
    if (cmdline_has("wait"))
        while (serial_get() != 'g')
            ;
    if (far != 0) {
        volatile uint64_t *at = map(start + far);

        serial_result("far", *at);
        *at = 1;
        serial_result("far", *at);
    }
    serial_puts("done\n");
}
