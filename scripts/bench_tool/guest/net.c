/*
 * Drives the first network device, as its command line says, by frames:
 *   op=send frames=<n>      sends segmentation-offloaded TCP frames as large as they get, eight at a time
 *   op=receive frames=<n>   takes them, with mergeable buffers of a page
 *   op=answer frames=<n>    answers each small frame with one
 * It says "ready" once frames may come.
 */
#include "scripts/bench_tool/guest/driver.h"

enum { RX, TX, QUEUES };
enum {
    HEADER = 12,
    HEADERS = 14 + 20 + 20, /* Ethernet, IPv4, TCP */
    PAGE = 4096,
    FRAGMENTS = 15,
    SEGMENT = 1448,
    BATCH = 8,
    SMALL = 64,
    NUM_BUFFERS = 10, /* its place in the header */
};

/* CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, MRG_RXBUF */
#define NET_FEATURES (1ull << 0 | 1ull << 1 | 1ull << 7 | 1ull << 8 | 1ull << 11 | 1ull << 15)

static struct virtio net;
static struct ring rings[QUEUES];
static uint8_t received[RING_SIZE][PAGE] __attribute__((aligned(PAGE)));
static uint8_t payload[FRAGMENTS][PAGE] __attribute__((aligned(PAGE)));
static uint8_t linear[HEADER + HEADERS]; /* the same of every large frame */
static uint8_t answer[HEADER + SMALL];
static struct descriptor large[1 + FRAGMENTS];

static void put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

/* To a station that is not there: the host's stack drops it where it arrives. */
static void make_large(void)
{
    uint8_t *frame = linear + HEADER, *ip = frame + 14, *tcp = ip + 20;
    uint32_t sum = 0;

    linear[0] = 1; /* NEEDS_CSUM */
    linear[1] = 1; /* TCPV4 */
    linear[2] = HEADERS;
    linear[4] = (uint8_t)(SEGMENT & 255), linear[5] = SEGMENT >> 8;
    linear[6] = 14 + 20, linear[8] = 16;
    memcpy(frame, "\x02\0\0\0\0\x77\x02\0\0\0\0\x66\x08\0", 14);
    ip[0] = 0x45, ip[8] = 64, ip[9] = 6;
    put16(ip + 2, 20 + 20 + FRAGMENTS * PAGE);
    memcpy(ip + 12, "\x0a\x09\0\x02\x0a\x09\0\x03", 8);
    for (unsigned i = 0; i < 20; i += 2)
        sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    put16(ip + 10, (uint16_t) ~((sum & 0xffff) + (sum >> 16)));
    put16(tcp, 1000), put16(tcp + 2, 2000);
    tcp[12] = 0x50, tcp[13] = 0x10;
    large[0] = (struct descriptor){(uint64_t)linear, sizeof(linear), DESC_NEXT, 1};
    for (uint16_t i = 0; i < FRAGMENTS; i++)
        large[1 + i] =
            (struct descriptor){(uint64_t)payload[i], PAGE, i + 1 < FRAGMENTS ? DESC_NEXT : 0, (uint16_t)(i + 2)};
}

static void set_descriptor(struct ring *ring, uint16_t at, const void *data, uint32_t length, uint16_t flags)
{
    ring->descriptors[at].gpa = (uint64_t)data;
    ring->descriptors[at].length = length;
    ring->descriptors[at].flags = flags;
}

/* Each of a batch has a place of its own in the ring: a table, or, for a device without, a chain. */
static void place_large(uint16_t number)
{
    struct ring *ring = &rings[TX];
    uint16_t head = (uint16_t)(number * (1 + FRAGMENTS));

    if ((net.features & FEATURE_INDIRECT_DESC) != 0) {
        set_descriptor(ring, head, large, sizeof(large), DESC_INDIRECT);
        return;
    }
    for (uint16_t part = 0; part < 1 + FRAGMENTS; part++) {
        set_descriptor(ring, (uint16_t)(head + part), (const void *)large[part].gpa, large[part].length,
                       large[part].flags);
        ring->descriptors[head + part].next = (uint16_t)(head + large[part].next);
    }
}

static void send_frames(uint64_t frames)
{
    struct used_element element;

    make_large();
    for (uint16_t number = 0; number < BATCH; number++)
        place_large(number);
    for (uint64_t sent = 0; sent < frames; sent += BATCH) {
        for (uint16_t number = 0; number < BATCH; number++)
            ring_add(&rings[TX], (uint16_t)(number * (1 + FRAGMENTS)));
        ring_arm(&rings[TX], BATCH);
        ring_kick(&rings[TX]);
        ring_wait(&rings[TX], BATCH);
        while (ring_take(&rings[TX], &element))
            ;
    }
}

/* Takes all that has come; returns how many frames that is, and gives their buffers back. */
static uint64_t take_frames(void)
{
    static unsigned more; /* buffers of a frame that has begun */
    struct used_element element;
    uint64_t frames = 0;

    ring_wait(&rings[RX], 1);
    while (ring_take(&rings[RX], &element)) {
        if (more == 0)
            more = (unsigned)(received[element.id][NUM_BUFFERS] | received[element.id][NUM_BUFFERS + 1] << 8);
        frames += --more == 0;
        ring_add(&rings[RX], (uint16_t)element.id);
    }
    ring_kick(&rings[RX]);
    ring_arm(&rings[RX], 1);
    return frames;
}

static void receive_frames(uint64_t frames)
{
    for (uint64_t taken = 0; taken < frames;)
        taken += take_frames();
}

static void answer_frames(uint64_t frames)
{
    struct used_element element;

    memcpy(answer + HEADER, "\x02\0\0\0\0\x77\x02\0\0\0\0\x66\x88\xb5", 14);
    set_descriptor(&rings[TX], 0, answer, sizeof(answer), 0);
    for (uint64_t taken = 0; taken < frames; taken++) {
        guest_expect(take_frames() == 1, "one frame at a time");
        while (ring_take(&rings[TX], &element))
            ;
        ring_add(&rings[TX], 0);
        ring_kick(&rings[TX]);
    }
}

void guest_main(void)
{
    uint64_t frames = cmdline_number("frames", 0);
    char op[8];

    guest_expect(cmdline_value("op", op, sizeof(op)), "op= is missing");
    driver_open(&net, VIRTIO_NET, NET_FEATURES, rings, QUEUES);
    for (uint16_t i = 0; i < rings[RX].size; i++) {
        set_descriptor(&rings[RX], i, received[i], PAGE, DESC_WRITE);
        ring_add(&rings[RX], i);
    }
    ring_kick(&rings[RX]);
    serial_puts("ready\n");
    if (text_equal(op, "send"))
        send_frames(frames);
    else if (text_equal(op, "receive"))
        receive_frames(frames);
    else
        answer_frames(frames);
    say_and_spin("done");
}
