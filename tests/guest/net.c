/*
 * Prints its MAC address, sends one broadcast frame, then sends every frame that comes back with the addresses swapped,
 * until one has 'q' as the first byte of its payload. Ethertype 0x88b5 is for local experiments; others are dropped.
 * With "checksums" it takes frames whose checksum is not computed yet. With "blind" it then waits for a byte on the
 * serial port and sends ten more frames.
 */
#include "tests/guest/lib/virtio.h"

enum { HEADER = 12, FRAME_MAX = 2048, RX = 0, TX = 1, RX_BUFFERS = 8, ETHERNET = 14 };

#define NET_F_GUEST_CSUM (1ull << 1)
#define NET_F_MTU (1ull << 3)
#define NET_F_MAC (1ull << 5)

static struct virtio net;
static uint8_t received[RX_BUFFERS][FRAME_MAX], sent[FRAME_MAX];
static unsigned next_received;

static void post(unsigned index)
{
    queue_add(&net.queues[RX], &(struct buffer){received[index], FRAME_MAX, true}, 1);
    virtio_notify(&net, RX);
}

static void send(uint32_t length)
{
    memset(sent, 0, HEADER);
    virtio_request(&net, TX, &(struct buffer){sent, HEADER + length, false}, 1);
}

/* Echoes one frame; false when it asks to quit. */
static bool serve(void)
{
    uint32_t length = queue_wait(&net.queues[RX]).length;
    unsigned index = next_received++ % RX_BUFFERS;
    const uint8_t *frame = received[index] + HEADER;
    bool mine = length > HEADER + ETHERNET && frame[12] == 0x88 && frame[13] == 0xb5;
    bool quit = mine && frame[ETHERNET] == 'q';

    if (mine) {
        serial_result("frame", length - HEADER);
        memcpy(sent + HEADER, frame, length - HEADER);
        memcpy(sent + HEADER, frame + 6, 6);
        memcpy(sent + HEADER + 6, frame, 6);
        send(length - HEADER);
    }
    post(index);
    return !quit;
}

void guest_main(void)
{
    static const uint8_t announcement[64] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,   0,
                                             0,    0,    0,    1,    0x88, 0xb5, 'h', 'i'};
    uint64_t wanted = NET_F_MAC | NET_F_MTU | (cmdline_has("checksums") ? NET_F_GUEST_CSUM : 0);

    guest_expect(virtio_open(&net, VIRTIO_NET, wanted, 2), "no network device");
    serial_puts("mac ");
    for (unsigned i = 0; i < 6; i++) {
        uint8_t byte = mmio_read8(net.base + REG_CONFIG + i);

        serial_put("0123456789abcdef"[byte >> 4]);
        serial_put("0123456789abcdef"[byte & 15]);
    }
    serial_put('\n');
    if ((net.features & NET_F_MTU) != 0)
        serial_result("mtu", virtio_read(&net, REG_CONFIG + 8) >> 16);
    for (unsigned index = 0; index < RX_BUFFERS; index++)
        post(index);
    memcpy(sent + HEADER, announcement, sizeof(announcement));
    send(sizeof(announcement));
    serial_puts("sent\n");
    while (serve())
        ;
    if (cmdline_has("blind")) {
        serial_puts("waiting\n");
        serial_get();
        for (unsigned i = 0; i < 10; i++)
            send(sizeof(announcement));
    }
    serial_puts("done\n");
}
