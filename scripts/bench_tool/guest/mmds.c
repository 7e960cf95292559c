/*
 * Asks the metadata service at 169.254.169.254 again and again, over the first network device, by the smallest TCP that
 * does: requests=<n> [fresh], each on the one connection or on one of its own. Nothing gets lost between the two.
 */
#include "scripts/bench_tool/guest/driver.h"

enum { RX, TX, QUEUES };
enum { HEADER = 12, ETHERNET = 14, IP = 20, TCP = 20, FRAME = 2048, BUFFERS = 64, SENT = 4 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static const char question[] =
    "GET /latest/meta-data/greeting HTTP/1.1\r\nHost: 169.254.169.254\r\nAccept: */*\r\n\r\n";

static struct virtio net;
static struct ring rings[QUEUES];
static uint8_t received[BUFFERS][FRAME] __attribute__((aligned(4096)));
static uint8_t sent[SENT][HEADER + ETHERNET + IP + TCP + sizeof(question)] __attribute__((aligned(64)));

static struct {
    uint16_t port;
    uint32_t next_out;
    uint32_t next_in;
} connection;

static void put16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static void put32(uint8_t *to, uint32_t value)
{
    put16(to, value >> 16);
    put16(to + 2, value);
}

static uint32_t get16(const uint8_t *from)
{
    return (uint32_t)(from[0] << 8 | from[1]);
}

static void make_frames(void)
{
    static const uint8_t ethernet[ETHERNET] = {6, 1, 0x23, 0x45, 0x67, 1, 2, 0, 0, 0, 0, 0x66, 8, 0};
    static const uint8_t ip[IP] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 169, 254, 0, 5, 169, 254, 169, 254};

    for (unsigned i = 0; i < SENT; i++) {
        sent[i][0] = 1; /* NEEDS_CSUM: the checksum is nobody's before the frame leaves the host */
        sent[i][6] = ETHERNET + IP, sent[i][8] = 16;
        memcpy(sent[i] + HEADER, ethernet, ETHERNET);
        memcpy(sent[i] + HEADER + ETHERNET, ip, IP);
    }
}

static void finish_ip(uint8_t *ip, uint32_t length)
{
    uint32_t sum = 0;

    put16(ip + 2, length);
    put16(ip + 10, 0);
    for (unsigned i = 0; i < IP; i += 2)
        sum += get16(ip + i);
    put16(ip + 10, ~((sum & 0xffff) + (sum >> 16)));
}

static void send(uint8_t flags, const char *data, uint32_t length)
{
    static uint16_t next;
    uint16_t place = next++ % SENT;
    uint8_t *frame = sent[place], *ip = frame + HEADER + ETHERNET, *tcp = ip + IP;
    struct used_element element;

    while (ring_take(&rings[TX], &element))
        ;
    finish_ip(ip, IP + TCP + length);
    put16(tcp, connection.port);
    put16(tcp + 2, 80);
    put32(tcp + 4, connection.next_out);
    put32(tcp + 8, connection.next_in);
    tcp[12] = 0x50, tcp[13] = flags;
    put16(tcp + 14, 60000);
    memcpy(tcp + TCP, data, length);
    connection.next_out += length + ((flags & (SYN | FIN)) != 0);
    rings[TX].descriptors[place].gpa = (uint64_t)frame;
    rings[TX].descriptors[place].length = HEADER + ETHERNET + IP + TCP + length;
    ring_add(&rings[TX], place);
    ring_kick(&rings[TX]);
}

/*
 * Whether a segment is the next of this connection: then it counts. A guest that is slow (others have its processor) is
 * sent some twice, and an end may be told once more to a connection that is over.
 */
static bool is_next(const uint8_t *ip)
{
    const uint8_t *tcp = ip + IP;
    uint32_t length = get16(ip + 2) - IP - (uint32_t)(tcp[12] >> 4) * 4;
    uint32_t sequence = get16(tcp + 4) << 16 | get16(tcp + 6);

    if (get16(tcp + 2) != connection.port)
        return false;
    guest_expect((tcp[13] & RST) == 0, "the connection was reset");
    if ((tcp[13] & SYN) != 0 && connection.next_in == 0)
        connection.next_in = sequence;
    if (sequence != connection.next_in)
        return false;
    connection.next_in += length + ((tcp[13] & (SYN | FIN)) != 0);
    return true;
}

/* Takes frames until one has come with one of these flags; what is sent next acknowledges them. */
static void hear(uint8_t flags)
{
    struct used_element element;
    bool heard = false;

    while (!heard) {
        ring_wait(&rings[RX], 1);
        while (ring_take(&rings[RX], &element)) {
            const uint8_t *ip = received[element.id] + HEADER + ETHERNET;

            heard = (is_next(ip) && (ip[IP + 13] & flags) != 0) || heard;
            ring_add(&rings[RX], (uint16_t)element.id);
        }
        ring_kick(&rings[RX]);
        ring_arm(&rings[RX], 1);
    }
}

static void open_connection(void)
{
    connection.port = (uint16_t)(connection.port + 1);
    connection.next_in = 0;
    send(SYN, NULL, 0);
    hear(SYN);
}

static void ask(void)
{
    send(ACK | PSH, question, sizeof(question) - 1);
    hear(PSH);
}

static void close_connection(void)
{
    send(FIN | ACK, NULL, 0);
    hear(FIN);
    send(ACK, NULL, 0);
}

void guest_main(void)
{
    uint64_t requests = cmdline_number("requests", 0);
    bool fresh = cmdline_has("fresh");

    driver_open(&net, VIRTIO_NET, 1 /* CSUM */, rings, QUEUES);
    make_frames();
    for (uint16_t i = 0; i < BUFFERS; i++) {
        rings[RX].descriptors[i].gpa = (uint64_t)received[i];
        rings[RX].descriptors[i].length = FRAME;
        rings[RX].descriptors[i].flags = DESC_WRITE;
        ring_add(&rings[RX], i);
    }
    ring_kick(&rings[RX]);
    connection.port = 40000;
    if (!fresh)
        open_connection();
    for (uint64_t asked = 0; asked < requests; asked++) {
        if (fresh)
            open_connection();
        ask();
        if (fresh)
            close_connection();
    }
    say_and_spin("done");
}
