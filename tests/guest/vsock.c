/*
 * Prints its CID, then connects to the host ports that "connect=<port>" names ("seqpacket": with messages), says
 * "hello" and prints what it hears. Without that word it takes connections to any port: sends everything back, closes
 * on 'x', stops reading on 'r', and ends when a connection has said 'q'.
 */
#include "tests/guest/lib/virtio.h"

enum { RX, TX, EVENT, QUEUES };
enum { RX_BUFFERS = 8, RX_SIZE = 1024, BUFFER = 1 << 20, GUEST_PORT = 5000, HOST_CID = 2 };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { STREAM = 1, SEQPACKET = 2, NO_MORE_RECEIVED = 1, NO_MORE_SENT = 2, END_OF_MESSAGE = 1 };

#define VSOCK_F_SEQPACKET (1ull << 1)

struct header {
    uint64_t source_cid;
    uint64_t destination_cid;
    uint32_t source_port;
    uint32_t destination_port;
    uint32_t length;
    uint16_t type;
    uint16_t op;
    uint32_t flags;
    uint32_t buffer_size;
    uint32_t forwarded;
} __attribute__((packed));

static struct virtio vsock;
static struct received {
    struct header header;
    uint8_t data[RX_SIZE - sizeof(struct header)];
} received[RX_BUFFERS];
static struct header sent;
static uint64_t cid;
static unsigned next_received;

static void post(unsigned index)
{
    queue_add(&vsock.queues[RX], &(struct buffer){&received[index], RX_SIZE, true}, 1);
    virtio_notify(&vsock, RX);
}

/* The oldest packet; it stays where it is until it is posted again. */
static struct received *receive(void)
{
    queue_wait(&vsock.queues[RX]);
    return &received[next_received % RX_BUFFERS];
}

static void give_back(void)
{
    post(next_received++ % RX_BUFFERS);
}

static void send(const struct header *like, uint16_t op, uint32_t flags, const void *data, uint32_t length)
{
    sent = *like;
    sent.op = op;
    sent.flags = flags;
    sent.length = length;
    sent.buffer_size = BUFFER;
    sent.forwarded = 0; /* no connection gets as much as the buffer has */
    virtio_request(&vsock, TX, (struct buffer[]){{&sent, sizeof(sent), false}, {data, length, false}},
                   length > 0 ? 2 : 1);
}

/* Who sent a packet, as the one to send to. */
static struct header answer_to(const struct header *header)
{
    return (struct header){
        .source_cid = cid,
        .destination_cid = HOST_CID,
        .source_port = header->destination_port,
        .destination_port = header->source_port,
        .type = header->type,
    };
}

/* False when it was the last packet. */
static bool serve(void)
{
    struct received *packet = receive();
    struct header to = answer_to(&packet->header);
    const struct header *header = &packet->header;
    char first = (char)packet->data[0];
    bool go_on = true;

    if (header->op == REQUEST) {
        send(&to, RESPONSE, 0, NULL, 0);
    } else if (header->op == RW) {
        send(&to, RW, header->flags, packet->data, header->length);
        if (first == 'x')
            send(&to, SHUTDOWN, NO_MORE_RECEIVED | NO_MORE_SENT, NULL, 0);
        if (first == 'r')
            send(&to, SHUTDOWN, NO_MORE_RECEIVED, NULL, 0);
        go_on = first != 'q';
    } else if (header->op == SHUTDOWN && header->flags == (NO_MORE_RECEIVED | NO_MORE_SENT)) {
        send(&to, RST, 0, NULL, 0);
    } else if (header->op == SHUTDOWN) {
        send(&to, SHUTDOWN, NO_MORE_SENT, NULL, 0);
    } else if (header->op == CREDIT_REQUEST) {
        send(&to, CREDIT_UPDATE, 0, NULL, 0);
    }
    give_back();
    return go_on;
}

static void call(uint32_t port, bool messages)
{
    const struct header to = {cid, HOST_CID, GUEST_PORT, port, 0, messages ? SEQPACKET : STREAM, 0, 0, 0, 0};
    struct received *packet;

    send(&to, REQUEST, 0, NULL, 0);
    packet = receive();
    if (packet->header.op == RST) {
        serial_puts("refused\n");
        give_back();
        return;
    }
    guest_expect(packet->header.op == RESPONSE, "an answer to the request");
    serial_puts("connected\n");
    give_back();
    send(&to, RW, 0, "hel", 3);
    send(&to, RW, END_OF_MESSAGE, "lo", 2);
    packet = receive();
    guest_expect(packet->header.op == RW, "data");
    packet->data[packet->header.length] = '\0';
    serial_puts((const char *)packet->data);
    serial_puts("\n");
    give_back();
    send(&to, SHUTDOWN, NO_MORE_RECEIVED | NO_MORE_SENT, NULL, 0);
    packet = receive();
    serial_puts(packet->header.op == RST ? "closed\n" : "not closed\n");
    give_back();
}

void guest_main(void)
{
    uint64_t port = cmdline_number("connect", 0);

    guest_expect(virtio_open(&vsock, VIRTIO_VSOCK, VSOCK_F_SEQPACKET, QUEUES), "no vsock device");
    cid = virtio_config64(&vsock, 0);
    serial_result("cid", cid);
    for (unsigned index = 0; index < RX_BUFFERS; index++)
        post(index);
    if (port != 0)
        call((uint32_t)port, cmdline_has("seqpacket"));
    else
        while (serve())
            ;
    if (cmdline_has("reset")) {
        virtio_write(&vsock, REG_STATUS, 0);
        serial_puts("reset\n");
        serial_get();
    }
    serial_puts("done\n");
}
