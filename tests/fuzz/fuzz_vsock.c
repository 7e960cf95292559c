/* The socket device under a hostile driver, with callers on the host and a listener for what the guest connects to. */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PEERS = 4 };
static int peers[PEERS] = {-1, -1, -1, -1};
static int streams = -1, messages = -1;

static int listen_at(const char *name, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", fuzz_path(name));
    unlink(address.sun_path);
    fuzz_require(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, PEERS) == 0);
    return fd;
}

static struct virtio_device *make(struct event_loop *loop)
{
    char path[96];
    struct vsock_config config = {.guest_cid = 3, .uds_path = path};
    const struct vsock_seqpacket_config none = {0};
    struct virtio_device *device;

    snprintf(path, sizeof(path), "%s", fuzz_path("vsock"));
    fuzz_no_error(virtio_vsock_new(&config, &none, loop, &device));
    /* The guest's connections to ports 1 and 2 are taken. */
    streams = listen_at("vsock_1", SOCK_STREAM);
    messages = listen_at("vsock_2", SOCK_SEQPACKET);
    return device;
}

/* A packet between ports that somebody has: callers' connections are numbered from 1 << 30 on. */
static void packet(struct fuzz_input *input, unsigned queue, uint8_t bytes[FUZZ_REQUEST_SIZE])
{
    static const uint32_t host_ports[] = {1, 2, 1u << 30, (1u << 30) + 1};
    struct virtio_vsock_hdr header = {.src_cid = 3, .dst_cid = 2};
    uint8_t what, more;

    if (queue != 1)
        return;
    what = fuzz_u8(input);
    more = fuzz_u8(input);
    header.op = what & 7;
    header.type = (what & 8) ? VIRTIO_VSOCK_TYPE_SEQPACKET : VIRTIO_VSOCK_TYPE_STREAM;
    header.src_port = 7 + (what >> 4 & 3);
    header.dst_port = host_ports[what >> 6];
    header.flags = more & 3;
    header.len = header.op == VIRTIO_VSOCK_OP_RW ? (uint32_t)(more >> 2) << 5 : 0;
    header.buf_alloc = (more & 4) ? 4096 : (uint32_t)more << 8;
    header.fwd_cnt = fuzz_u8(input);
    memcpy(bytes, &header, sizeof(header));
}

static void talk(int *peer, uint8_t what, const uint8_t *bytes, size_t length)
{
    uint8_t heard[256];

    if (what == 0)
        fd_close(peer);
    else if (what == 1)
        shutdown(*peer, SHUT_WR);
    else if (what == 2)
        fuzz_require(recv(*peer, heard, sizeof(heard), MSG_DONTWAIT) <= (ssize_t)sizeof(heard));
    else if (send(*peer, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        fd_close(peer);
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input), bytes[64];
    int *peer = &peers[what % PEERS];

    if (*peer >= 0) {
        size_t length = fuzz_bytes(input, bytes, (size_t)(what >> 4) << 2);

        talk(peer, what >> 2 & 3, bytes, length);
    } else if (what & 4) {
        *peer = accept4(what & 8 ? messages : streams, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } else {
        *peer = fuzz_dial(fuzz_path("vsock"));
        if (*peer >= 0 && send(*peer, "CONNECT 7\n", (what & 8) ? 10 : 5, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            fd_close(peer);
    }
}

static void end(void)
{
    for (size_t i = 0; i < PEERS; i++)
        fd_close(&peers[i]);
    fd_close(&streams);
    fd_close(&messages);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .request = packet, .host_event = host_event, .end = end};

    return fuzz_device(&ops, data, size);
}
