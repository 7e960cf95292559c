/* A vsock driver for tests: sends packets just as it is told, on top of a guest_driver, and a host with real sockets.
 */
#pragma once

#include <linux/virtio_vsock.h>

#include "tests/unit/guest_ring.h"
#include "tests/unit/settle.h"

#include "vmm/config.h"

enum { RX, TX, EVENT };
enum { STREAM = VIRTIO_VSOCK_TYPE_STREAM, SEQPACKET = VIRTIO_VSOCK_TYPE_SEQPACKET };
enum { GUEST_CID = 9, HOST_CID = 2, HEADER = sizeof(struct virtio_vsock_hdr), GUEST_BUFFER = 256 << 10 };
enum { SHUT_BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND };

#define SEQPACKET_FEATURE (1ULL << VIRTIO_VSOCK_F_SEQPACKET)

struct vsock_driver {
    struct guest_driver driver;
    char folder[40];
    char path[80];                  /* of the device's socket */
    char seqpacket[80];             /* of the one for messages */
    unsigned given;                 /* receive buffers so far */
    struct virtio_vsock_hdr header; /* what the next packet begins with; `say` fills in the rest */
    uint8_t data[65536];
};

/* A device with both sockets in a folder of its own, not yet started. */
void vsock_driver_setup(struct vsock_driver *vsock);
void vsock_driver_start(struct vsock_driver *vsock, uint64_t features);
/* Also sees that nothing is left in the folder. */
void vsock_driver_teardown(struct vsock_driver *vsock);

/* Makes `count` receive buffers of `length` bytes available, and lets the device run until nothing is left to do. */
void vsock_driver_give(struct vsock_driver *vsock, unsigned count, uint32_t length);
void vsock_driver_settle(struct vsock_driver *vsock);

/* Sends a packet from a guest port to a host port, of the type and credit that vsock->header says; and settles. */
void vsock_driver_say(struct vsock_driver *vsock, uint32_t guest_port, uint32_t host_port, uint16_t op, uint32_t flags,
                      const void *data, uint32_t length);
/* The next packet, whose payload goes to vsock->data; false when there is none. */
bool vsock_driver_hear(struct vsock_driver *vsock, struct virtio_vsock_hdr *header);
/* The next packet must be this one, to that guest port. Returns it. */
struct virtio_vsock_hdr vsock_driver_expect(struct vsock_driver *vsock, uint16_t op, uint32_t guest_port);
void vsock_driver_expect_silence(struct vsock_driver *vsock);

/* For tests whose driver is `vsock`: packets without more to say, and what must come. */
#define SAY(guest_port, host_port, op) vsock_driver_say(&vsock, guest_port, host_port, VIRTIO_VSOCK_OP_##op, 0, NULL, 0)
#define EXPECT(op, guest_port) vsock_driver_expect(&vsock, VIRTIO_VSOCK_OP_##op, guest_port)

/* The host port at which tests listen, and what a driver gives to begin with. */
enum { PORT = 52, BUFFERS = 64, BUFFER_SIZE = 4096 };

/* The guest connects from port 1000 to a listener at host port PORT, which is then gone. Returns the host's end. */
int vsock_driver_guest_calls(struct vsock_driver *vsock, int type);

/* The host's side. Descriptors are non-blocking. */
int host_listen(struct vsock_driver *vsock, uint32_t port, int type);
int host_accept(int listener);
/* Removes the listener's socket. */
void host_forget(struct vsock_driver *vsock, uint32_t port);
int host_connect(const char *path, int type);
void host_say(int fd, const char *text);
/* What is there must be just `text`; "": the end. */
void host_expect(int fd, const char *text);
void host_expect_nothing(int fd);
/* Comes through the device's socket to a guest port, and is let in. Stores the host's port. */
int host_come(struct vsock_driver *vsock, uint32_t guest_port, uint32_t *host_port);
