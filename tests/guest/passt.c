/*
 * Talks to passt as a guest without an IP stack can: asks who has the gateway's address, sends a datagram of "bytes"
 * bytes (on the command line) to the host and waits for it to come back, then serves one that comes to its port 53.
 * With "resolver" it asks the name server.
 * With "last" it then waits until its link is down, and sends into nowhere.
 */
#include "tests/guest/lib/virtio.h"

enum { HEADER = 12, FRAME_MAX = 66000, RX = 0, TX = 1, RX_BUFFERS = 4, ETHERNET = 14, IP = 20, UDP = 8 };
enum { OWN_PORT = 4000, HOST_PORT = 5000, SERVED_PORT = 53, NAME_PORT = 53, STATUS_OFFSET = 6 };

#define NET_F_MTU (1ull << 3)
#define NET_F_STATUS (1ull << 16)

static const uint8_t mac[6] = {6, 0, 0xac, 0x10, 0, 2};
static const uint8_t own[4] = {10, 0, 2, 15}, gateway[4] = {10, 0, 2, 2}, host[4] = {198, 51, 100, 1},
                     resolver[4] = {10, 0, 2, 3};

static struct virtio net;
static uint8_t received[RX_BUFFERS][FRAME_MAX], sent[FRAME_MAX], gateway_mac[6];
static unsigned next_received;

static void put16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static uint32_t get16(const uint8_t *from)
{
    return (uint32_t)from[0] << 8 | from[1];
}

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

/* The next frame of an ethertype; it stays until the next call. */
static const uint8_t *receive(uint32_t ethertype, uint32_t *length)
{
    static unsigned held = RX_BUFFERS;

    for (;;) {
        const uint8_t *frame;

        if (held < RX_BUFFERS)
            post(held);
        *length = queue_wait(&net.queues[RX]).length;
        held = next_received++ % RX_BUFFERS;
        frame = received[held] + HEADER;
        if (*length >= HEADER + ETHERNET + IP + UDP && get16(frame + 12) == ethertype)
            return frame;
    }
}

static void find_gateway(void)
{
    static const uint8_t fixed[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    uint8_t *frame = sent + HEADER;
    const uint8_t *answer;
    uint32_t length;

    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 12, fixed, sizeof(fixed));
    memcpy(frame + 22, mac, 6);
    memcpy(frame + 28, own, 4);
    memcpy(frame + 38, gateway, 4);
    send(42);
    do
        answer = receive(0x0806, &length);
    while (answer[21] != 2 || memcmp(answer + 28, gateway, 4) != 0);
    memcpy(gateway_mac, answer + 22, 6);
    serial_puts("found the gateway\n");
}

/* A datagram without a checksum of its own; its payload is in place. */
static void send_datagram(const uint8_t to[4], uint32_t from_port, uint32_t to_port, uint32_t payload)
{
    uint8_t *frame = sent + HEADER, *ip = frame + ETHERNET;
    uint32_t sum = 0;

    memcpy(frame, gateway_mac, 6);
    memcpy(frame + 6, mac, 6);
    put16(frame + 12, 0x0800);
    memset(ip, 0, IP + UDP);
    ip[0] = 0x45;
    put16(ip + 2, IP + UDP + payload);
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, own, 4);
    memcpy(ip + 16, to, 4);
    for (unsigned i = 0; i < IP; i += 2)
        sum += get16(ip + i);
    sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, ~(sum + (sum >> 16)));
    put16(ip + 20, from_port);
    put16(ip + 22, to_port);
    put16(ip + 24, UDP + payload);
    send(ETHERNET + IP + UDP + payload);
}

static const uint8_t *receive_datagram(uint32_t port, uint32_t *payload)
{
    for (;;) {
        uint32_t length;
        const uint8_t *frame = receive(0x0800, &length), *ip = frame + ETHERNET;

        if (ip[0] == 0x45 && ip[9] == 17 && memcmp(ip + 16, own, 4) == 0 && get16(ip + 22) == port) {
            *payload = get16(ip + 24) - UDP;
            guest_expect(memcmp(frame, mac, sizeof(mac)) == 0, "a frame is for another");
            guest_expect(length == HEADER + ETHERNET + IP + UDP + *payload, "a frame is longer than its datagram");
            return frame;
        }
    }
}

/* The host turns the first and the last byte into 'b' and sends the rest as it was. */
static void ask_the_host(uint32_t bytes)
{
    uint8_t *payload = sent + HEADER + ETHERNET + IP + UDP;
    const uint8_t *answer;
    uint32_t length;

    memset(payload, 'a', bytes);
    if (cmdline_has("resolver"))
        send_datagram(resolver, OWN_PORT, NAME_PORT, bytes);
    else
        send_datagram(host, OWN_PORT, HOST_PORT, bytes);
    answer = receive_datagram(OWN_PORT, &length) + ETHERNET + IP + UDP;
    guest_expect(length == bytes, "an answer of another length");
    guest_expect(answer[0] == 'b' && answer[bytes / 2] == 'a' && answer[bytes - 1] == 'b', "another answer");
    serial_puts("the host answered\n");
}

static void serve_the_host(void)
{
    uint32_t length;
    const uint8_t *frame;

    serial_puts("serving\n");
    frame = receive_datagram(SERVED_PORT, &length);
    memcpy(sent + HEADER + ETHERNET + IP + UDP, frame + ETHERNET + IP + UDP, length);
    guest_expect(memcmp(frame + ETHERNET + 12, host, 4) == 0, "it comes from somebody else");
    send_datagram(frame + ETHERNET + 12, SERVED_PORT, get16(frame + ETHERNET + IP), length);
    serial_puts("served\n");
}

void guest_main(void)
{
    guest_expect(virtio_open(&net, VIRTIO_NET, NET_F_MTU | NET_F_STATUS, 2), "no network device");
    guest_expect((net.features & NET_F_STATUS) != 0, "no link status");
    for (unsigned index = 0; index < RX_BUFFERS; index++)
        post(index);
    find_gateway();
    ask_the_host((uint32_t)cmdline_number("bytes", 32));
    serve_the_host();
    if (cmdline_has("last")) {
        while ((virtio_read(&net, REG_CONFIG + STATUS_OFFSET / 4 * 4) >> 16 & 1) != 0)
            ;
        serial_puts("the link is down\n");
        for (unsigned i = 0; i < 10; i++)
            send_datagram(host, OWN_PORT, HOST_PORT, 32);
    }
    serial_puts("done\n");
}
