/* A network interface under a hostile driver, with a peer on a stream socket that sends frames and nonsense. */
#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listener = -1, peer = -1;

static struct virtio_device *make(struct event_loop *loop)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct network_interface_config config = {
        .iface_id = (char *)"eth0",
        .backend = {.present = true, .type = NETWORK_BACKEND_STREAM, .socket_path = address.sun_path},
        .guest_mac = (char *)"06:00:ac:10:00:02",
        .mtu = 1500};
    struct virtio_device *device;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", fuzz_path("net"));
    unlink(address.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    fuzz_require(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                 listen(listener, 1) == 0);
    fuzz_no_error(virtio_net_new(&config, loop, &device));
    peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return device;
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input), bytes[4096];
    uint32_t length = what >> 2;

    if (peer < 0)
        peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0)
        return;
    if (what == 0xff) {
        fd_close(&peer);
        return;
    }
    if ((what & 3) == 0) {
        fuzz_require(recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT) <= (ssize_t)sizeof(bytes));
        return;
    }
    /* A frame of the right length, one that the length does not fit, or bytes without one. */
    uint32_t prefix = htonl((what & 3) == 1 ? length : fuzz_u32(input));
    if ((what & 3) != 3 && send(peer, &prefix, sizeof(prefix), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return;
    fuzz_bytes(input, bytes, length);
    if (send(peer, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        fd_close(&peer);
}

static void end(void)
{
    fd_close(&peer);
    fd_close(&listener);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .host_event = host_event, .end = end};

    return fuzz_device(&ops, data, size);
}
