/*
 * A network of several pairs of queues with the metadata service on it, under a hostile driver, while frames come from
 * the host, limits change and the tap goes: the first byte says which kind of network. Sockets that keep frames apart
 * stand for the tap's queues; fuzz_net.c has a stream.
 */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/mmds/frame.h"
#include "vmm/mmds/mmds.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS = 3, SEVERAL = 1, METADATA = 2, LIMITED = 4, ADDRESS = 0x0a000001 };

static uint8_t kind;
static struct virtio_device *net;
static struct mmds mmds;
static int peers[PAIRS] = {-1, -1, -1};
static bool attached[PAIRS];

/* --- A tap's queue --- */

struct queue {
    struct net_backend backend;
    unsigned index;
};

static int queue_send(struct net_backend *backend, const struct iovec *iov, size_t count, size_t size)
{
    (void)size;
    return writev(backend->fd, iov, (int)count) < 0 ? -errno : 0;
}

static ssize_t queue_receive(struct net_backend *backend, const struct iovec *iov, size_t count)
{
    ssize_t size = readv(backend->fd, iov, (int)count);

    return size == 0 ? -ENOTCONN : size < 0 ? -errno : size;
}

static bool queue_set_offloads(struct net_backend *backend, unsigned offloads)
{
    (void)backend;
    (void)offloads;
    return true;
}

static bool queue_attach(struct net_backend *backend, bool on)
{
    unsigned index = container_of(backend, struct queue, backend)->index;

    fuzz_require(attached[index] != on);
    attached[index] = on;
    return true;
}

static void queue_close(struct net_backend *backend)
{
    fd_close(&backend->fd);
    free(container_of(backend, struct queue, backend));
}

static const struct net_backend_ops queue_ops = {
    .offloads = true,
    .send = queue_send,
    .receive = queue_receive,
    .set_offloads = queue_set_offloads,
    .attach = queue_attach,
    .close = queue_close,
};

static struct net_backend *queue_new(unsigned index)
{
    struct queue *queue = calloc(1, sizeof(*queue));
    int pair[2];

    fuzz_require(queue != NULL && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    *queue = (struct queue){.backend = {.ops = &queue_ops, .fd = pair[0]}, .index = index};
    peers[index] = pair[1];
    attached[index] = index == 0;
    return &queue->backend;
}

/* --- The network --- */

static struct rate_limiter_config limit(uint64_t size)
{
    return (struct rate_limiter_config){.present = true,
                                        .ops = {.present = true, .size = size, .refill_time = 3600000},
                                        .bandwidth = {.present = true, .size = size * 1000, .refill_time = 3600000}};
}

static void put_metadata(const char *text, size_t length)
{
    struct mmds_value *contents = mmds_value_new(MMDS_OBJECT, NULL, 0);

    fuzz_require(contents != NULL && mmds_object_set(contents, "latest", 6, mmds_value_new(MMDS_STRING, text, length)));
    struct error *error = mmds_put(&mmds, contents);
    if (error != NULL)
        mmds_value_free(contents);
    error_free(error);
}

static struct virtio_device *make(struct event_loop *loop)
{
    struct network_interface_config config = {
        .iface_id = (char *)"eth0", .guest_mac = (char *)"06:00:ac:10:00:02", .mtu = 1500};
    struct net_backend *backends[PAIRS];
    unsigned count = (kind & SEVERAL) ? PAIRS : 1;

    if (kind & LIMITED)
        config.rx_rate_limiter = config.tx_rate_limiter = limit(5);
    for (unsigned i = 0; i < count; i++)
        backends[i] = queue_new(i);
    fuzz_no_error(virtio_net_new_on_queues(&config, backends, count, loop, &net));
    if (kind & METADATA) {
        mmds = (struct mmds){.limit = 51200};
        put_metadata("hello", 5);
        fuzz_require(virtio_net_set_mmds(net, &mmds, ADDRESS));
    }
    return net;
}

/* A frame for the metadata service: a segment, or a question for its address. Its headers are right. */
static void frame(struct fuzz_input *input, unsigned queue, uint8_t bytes[FUZZ_REQUEST_SIZE])
{
    static const uint8_t guest_mac[6] = {6, 0, 0xac, 0x10, 0, 2}, question[] = {0, 1, 8, 0, 6, 4, 0, 1};
    const struct frame_peer peer = {.mac = {6, 1, 0x23, 0x45, 0x67, 1}, .port = 80, .address = ADDRESS};
    uint8_t *at = bytes + HEADER_SIZE;
    uint8_t what;

    if ((kind & METADATA) == 0 || queue % 2 != TX)
        return;
    what = fuzz_u8(input);
    memset(bytes, 0, FUZZ_REQUEST_SIZE);
    if ((what & 0x80) != 0) {
        frame_write_arp(at, guest_mac, ADDRESS + 1, &peer);
        memcpy(at + ETH_HLEN, question, sizeof(question));
        return;
    }
    const struct segment segment = {.peer = peer,
                                    .port = (uint16_t)(40000 + (what >> 5)),
                                    .flags = what & 0x1f,
                                    .window = fuzz_u8(input),
                                    .mss = (what & SEGMENT_SYN) != 0 ? 536 : 0,
                                    .sequence = fuzz_u8(input),
                                    .acknowledged = fuzz_u32(input),
                                    .data = (const uint8_t *)"GET /latest HTTP/1.1\r\n\r\n",
                                    .length = fuzz_u8(input) % 25};
    frame_write_segment(at, guest_mac, ADDRESS + 1, &segment);
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input), bytes[2048] = {0};
    int *peer = &peers[what % PAIRS];
    const struct network_interface_update update = {.rx_rate_limiter = limit(what >> 5), .tx_rate_limiter = limit(7)};

    switch (what >> 2 & 7) {
    case 0:
        error_free(virtio_net_update(net, &update));
        break;
    case 1:
        fd_close(peer);
        break;
    case 2:
        fuzz_require(*peer < 0 || recv(*peer, bytes, sizeof(bytes), 0) <= (ssize_t)sizeof(bytes));
        break;
    case 3:
        if (kind & METADATA)
            put_metadata((const char *)bytes, fuzz_bytes(input, bytes, what));
        break;
    default: {
        size_t length = fuzz_u16(input) % sizeof(bytes);

        fuzz_bytes(input, bytes, what);
        fuzz_require(*peer < 0 || send(*peer, bytes, length, MSG_NOSIGNAL) <= (ssize_t)length);
        break;
    }
    }
}

static void end(void)
{
    for (size_t i = 0; i < PAIRS; i++)
        fd_close(&peers[i]);
    mmds_free(&mmds);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .request = frame, .host_event = host_event, .end = end};

    if (size == 0)
        return 0;
    kind = data[0];
    return fuzz_device(&ops, data + 1, size - 1);
}
