#include "tests/unit/harness.h"

#include "tests/unit/vsock_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RX_GPA 0x200000ULL
#define TX_GPA 0x800000ULL
#define RX_STRIDE 0x2000ULL

void vsock_driver_setup(struct vsock_driver *vsock)
{
    signal(SIGPIPE, SIG_IGN);
    memset(vsock, 0, sizeof(*vsock));
    memset(&metrics.vsock, 0, sizeof(metrics.vsock));
    strcpy(vsock->folder, "/tmp/mayfly-vsock-XXXXXX");
    assert_non_null(mkdtemp(vsock->folder));
    snprintf(vsock->path, sizeof(vsock->path), "%s/v", vsock->folder);
    snprintf(vsock->seqpacket, sizeof(vsock->seqpacket), "%s/w", vsock->folder);
    vsock->header =
        (struct virtio_vsock_hdr){.src_cid = GUEST_CID, .dst_cid = HOST_CID, .type = STREAM, .buf_alloc = GUEST_BUFFER};
    guest_driver_setup(&vsock->driver);
}

void vsock_driver_start(struct vsock_driver *vsock, uint64_t features)
{
    const struct vsock_config config = {.present = true, .guest_cid = GUEST_CID, .uds_path = vsock->path};
    const struct vsock_seqpacket_config seqpacket = {.present = true, .uds_path = vsock->seqpacket};
    struct virtio_device *device;

    assert_no_error(virtio_vsock_new(&config, &seqpacket, vsock->driver.loop, &device));
    guest_driver_start(&vsock->driver, device, features);
    vsock_driver_settle(vsock);
}

void vsock_driver_teardown(struct vsock_driver *vsock)
{
    guest_driver_teardown(&vsock->driver);
    assert_int_equal(rmdir(vsock->folder), 0);
}

void vsock_driver_settle(struct vsock_driver *vsock)
{
    guest_driver_settle(&vsock->driver);
}

void vsock_driver_give(struct vsock_driver *vsock, unsigned count, uint32_t length)
{
    struct guest_ring *ring = &vsock->driver.rings[RX];

    assert_true(length <= RX_STRIDE);
    for (unsigned i = 0; i < count; i++) {
        const struct guest_buffer buffer = {RX_GPA + vsock->given++ % ring->size * RX_STRIDE, length, true};

        guest_ring_add(ring, &buffer, 1);
    }
    guest_driver_notify(&vsock->driver, RX);
    vsock_driver_settle(vsock);
}

void vsock_driver_say(struct vsock_driver *vsock, uint32_t guest_port, uint32_t host_port, uint16_t op, uint32_t flags,
                      const void *data, uint32_t length)
{
    struct guest_ring *ring = &vsock->driver.rings[TX];
    const struct guest_buffer buffers[] = {{TX_GPA, HEADER, false}, {TX_GPA + HEADER, length, false}};
    uint16_t head;
    uint32_t used;

    vsock->header.src_port = guest_port;
    vsock->header.dst_port = host_port;
    vsock->header.op = op;
    vsock->header.flags = flags;
    vsock->header.len = length;
    memcpy(guest_at(&vsock->driver.memory, TX_GPA, HEADER), &vsock->header, HEADER);
    if (length > 0)
        memcpy(guest_at(&vsock->driver.memory, TX_GPA + HEADER, length), data, length);
    guest_ring_add(ring, buffers, length > 0 ? 2 : 1);
    guest_driver_notify(&vsock->driver, TX);
    vsock_driver_settle(vsock);
    while (guest_ring_take_used(ring, &head, &used))
        assert_int_equal(used, 0);
}

bool vsock_driver_hear(struct vsock_driver *vsock, struct virtio_vsock_hdr *header)
{
    struct guest_ring *ring = &vsock->driver.rings[RX];
    uint32_t used;
    uint16_t head;

    if (!guest_ring_take_used(ring, &head, &used))
        return false;
    assert_in_range(used, HEADER, HEADER + sizeof(vsock->data));

    const uint8_t *packet = guest_at(&vsock->driver.memory, ring->descriptors[head].addr, used);
    memcpy(header, packet, HEADER);
    assert_int_equal(used, HEADER + header->len);
    assert_int_equal(header->src_cid, HOST_CID);
    assert_int_equal(header->dst_cid, GUEST_CID);
    memcpy(vsock->data, packet + HEADER, header->len);
    return true;
}

struct virtio_vsock_hdr vsock_driver_expect(struct vsock_driver *vsock, uint16_t op, uint32_t guest_port)
{
    struct virtio_vsock_hdr header;

    if (!vsock_driver_hear(vsock, &header))
        fail_msg("the guest was told nothing, expected op %u to port %u", op, guest_port);
    if (header.op != op || header.dst_port != guest_port)
        fail_msg("the guest was told op %u to port %u, expected op %u to port %u", header.op, header.dst_port, op,
                 guest_port);
    return header;
}

void vsock_driver_expect_silence(struct vsock_driver *vsock)
{
    struct virtio_vsock_hdr header;

    if (vsock_driver_hear(vsock, &header))
        fail_msg("the guest was told op %u to port %u, expected nothing", header.op, header.dst_port);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_true(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    return address;
}

int host_listen(struct vsock_driver *vsock, uint32_t port, int type)
{
    char path[100];
    int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(path, sizeof(path), "%s_%u", vsock->path, port);
    const struct sockaddr_un address = address_of(path);
    unlink(path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

int host_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

int host_connect(const char *path, int type)
{
    const struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        fail_msg("cannot connect to %s: %s", path, strerror(errno));
    return fd;
}

void host_say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

void host_expect(int fd, const char *text)
{
    char bytes[256];
    ssize_t length = recv(fd, bytes, sizeof(bytes), 0);

    if (length < 0 && errno == ECONNRESET)
        length = 0;
    if (length != (ssize_t)strlen(text) || memcmp(bytes, text, (size_t)length) != 0)
        fail_msg("the host peer heard \"%.*s\" (%zd), expected \"%s\"", length > 0 ? (int)length : 0, bytes, length,
                 text);
}

void host_expect_nothing(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, MSG_PEEK), -1);
    assert_int_equal(errno, EAGAIN);
}

int host_come(struct vsock_driver *vsock, uint32_t guest_port, uint32_t *host_port)
{
    int fd = host_connect(vsock->path, SOCK_STREAM);
    char line[64];

    snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
    host_say(fd, line);
    vsock_driver_settle(vsock);
    *host_port = vsock_driver_expect(vsock, VIRTIO_VSOCK_OP_REQUEST, guest_port).src_port;
    vsock_driver_say(vsock, guest_port, *host_port, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
    snprintf(line, sizeof(line), "OK %u\n", *host_port);
    host_expect(fd, line);
    return fd;
}

void host_forget(struct vsock_driver *vsock, uint32_t port)
{
    char path[100];

    snprintf(path, sizeof(path), "%s_%u", vsock->path, port);
    assert_int_equal(unlink(path), 0);
}

int vsock_driver_guest_calls(struct vsock_driver *vsock, int type)
{
    cleanup_fd int listener = host_listen(vsock, PORT, type);
    int fd;

    vsock_driver_say(vsock, 1000, PORT, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
    vsock_driver_expect(vsock, VIRTIO_VSOCK_OP_RESPONSE, 1000);
    fd = host_accept(listener);
    host_forget(vsock, PORT);
    return fd;
}
