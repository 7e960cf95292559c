/*
 * Prints its MAC address, sends one broadcast frame, then sends every frame that comes back with the addresses swapped,
 * until one has 'q' as the first byte of its payload. Ethertype 0x88b5 is for local experiments; others are dropped.
 * With "checksums" it takes frames whose checksum is not computed yet. With "blind" it then waits for a byte on the
 * serial port and sends ten more frames. With "held" it waits for a byte before it
 * ends. With "pairs" it asks for two pairs of queues, announces itself on both, says
 * on which one a frame came and sends it back on the other.
 */
#include "tests/guest/lib/virtio.h"

enum { HEADER = 12, FRAME_MAX = 2048, RX = 0, TX = 1, CONTROL = 4, PAIRS = 2, RX_BUFFERS = 4, ETHERNET = 14 };

#define NET_F_GUEST_CSUM (1ull << 1)
#define NET_F_MTU (1ull << 3)
#define NET_F_MAC (1ull << 5)
#define NET_F_CTRL_VQ (1ull << 17)
#define NET_F_MQ (1ull << 22)

static struct virtio net;
static unsigned pairs = 1;
static uint8_t received[PAIRS][RX_BUFFERS][FRAME_MAX], sent[FRAME_MAX];
static unsigned next_received[PAIRS];

static void post(unsigned pair, unsigned index)
{
    queue_add(&net.queues[2 * pair + RX], &(struct buffer){received[pair][index], FRAME_MAX, true}, 1);
    virtio_notify(&net, 2 * pair + RX);
}

static void send(unsigned pair, uint32_t length)
{
    memset(sent, 0, HEADER);
    virtio_request(&net, 2 * pair + TX, &(struct buffer){sent, HEADER + length, false}, 1);
}

/* The pair that has a frame. */
static unsigned await_frame(void)
{
    for (unsigned pair = 0;; pair = (pair + 1) % pairs)
        if (queue_has_used(&net.queues[2 * pair + RX]))
            return pair;
}

/* Echoes one frame; false when it asks to quit. */
static bool serve(void)
{
    unsigned pair = await_frame();
    uint32_t length = queue_wait(&net.queues[2 * pair + RX]).length;
    unsigned index = next_received[pair]++ % RX_BUFFERS;
    const uint8_t *frame = received[pair][index] + HEADER;
    bool mine = length > HEADER + ETHERNET && frame[12] == 0x88 && frame[13] == 0xb5;
    bool quit = mine && frame[ETHERNET] == 'q';

    if (mine) {
        if (pairs > 1)
            serial_result("pair", pair);
        serial_result("frame", length - HEADER);
        memcpy(sent + HEADER, frame, length - HEADER);
        memcpy(sent + HEADER, frame + 6, 6);
        memcpy(sent + HEADER + 6, frame, 6);
        send(pairs - 1 - pair, length - HEADER);
    }
    post(pair, index);
    return !quit;
}

static void use_pairs(void)
{
    static const uint8_t command[] = {4, 0, PAIRS, 0}; /* MQ, VQ_PAIRS_SET */
    static volatile uint8_t answer = 0xee;

    virtio_request(&net, CONTROL, (struct buffer[]){{command, sizeof(command), false}, {&answer, 1, true}}, 2);
    serial_result("pairs", answer);
}

static void print_config(void)
{
    serial_puts("mac ");
    for (unsigned i = 0; i < 6; i++) {
        uint8_t byte = mmio_read8(net.base + REG_CONFIG + i);

        serial_put("0123456789abcdef"[byte >> 4]);
        serial_put("0123456789abcdef"[byte & 15]);
    }
    serial_put('\n');
    if ((net.features & NET_F_MTU) != 0)
        serial_result("mtu", virtio_read(&net, REG_CONFIG + 8) >> 16);
}

void guest_main(void)
{
    static const uint8_t announcement[64] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,   0,
                                             0,    0,    0,    1,    0x88, 0xb5, 'h', 'i'};
    uint64_t wanted = NET_F_MAC | NET_F_MTU | (cmdline_has("checksums") ? NET_F_GUEST_CSUM : 0);

    if (cmdline_has("pairs")) {
        wanted |= NET_F_CTRL_VQ | NET_F_MQ;
        pairs = PAIRS;
    }
    guest_expect(virtio_open(&net, VIRTIO_NET, wanted, pairs > 1 ? 2 * PAIRS + 1 : 2), "no network device");
    print_config();
    for (unsigned pair = 0; pair < pairs; pair++)
        for (unsigned index = 0; index < RX_BUFFERS; index++)
            post(pair, index);
    if (pairs > 1)
        use_pairs();
    memcpy(sent + HEADER, announcement, sizeof(announcement));
    for (unsigned pair = 0; pair < pairs; pair++)
        send(pair, sizeof(announcement));
    serial_puts("sent\n");
    while (serve())
        ;
    if (cmdline_has("blind")) {
        serial_puts("waiting\n");
        serial_get();
        for (unsigned i = 0; i < 10; i++)
            send(0, sizeof(announcement));
    }
    if (cmdline_has("held"))
        serial_get();
    if (pairs > 1)
        virtio_write(&net, REG_STATUS, 0);
    serial_puts("done\n");
}
