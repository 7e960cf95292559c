/*
 * The network device, driven as a guest would, on a SOCK_SEQPACKET socket in place of a tap: it keeps frames apart as
 * a tap does, and its other end can be slow. test_tap.c has the real one.
 */
#pragma once

#include "tests/unit/harness.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/unit/settle.h"
#include "vmm/virtio/net.h"

enum { HEADER = 12, HOUR_MS = 3600 * 1000 };

#define FEATURE(bit) (1ULL << (bit))
#define MERGEABLE FEATURE(VIRTIO_NET_F_MRG_RXBUF)
#define SEGMENTS (FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4))
#define RX_GPA 0x200000ULL
#define TX_GPA 0x800000ULL
#define SLOT 0x4000ULL

static struct guest_driver driver;
static struct network_interface_config config;
static int tap;  /* the device's end, which it owns */
static int host; /* the other end */
static uint8_t frame[FRAME_MAX + 100], answer[FRAME_MAX + 100];

static inline int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    config = (struct network_interface_config){.iface_id = (char *)"eth0"};
    memset(&metrics.net, 0, sizeof(metrics.net));
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + i / 256);
    memset(frame, 0, HEADER);
    guest_driver_setup(&driver);
    host = -1;
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(&driver);
    fd_close(&host);
    return 0;
}

/* A device with `features`, of which those that the tap would have to know are left out by all but test_tap.c. */
static inline void start(uint64_t features)
{
    struct virtio_device *device = NULL;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    tap = pair[0];
    host = pair[1];
    assert_no_error(virtio_net_new_on(&config, net_tap_new(pair[0]), driver.loop, &device));
    assert_int_equal(device->ops->type, VIRTIO_ID_NET);
    guest_driver_start(&driver, device, features);
    guest_driver_settle(&driver);
}

static inline void give_buffer(uint64_t gpa, uint32_t length)
{
    const struct guest_buffer buffer = {gpa, length, true};

    guest_ring_add(&driver.rings[RX], &buffer, 1);
}

/* `count` buffers of `length` bytes, SLOT apart, told to the device. */
static inline void give_buffers(unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++)
        give_buffer(RX_GPA + i * SLOT, length);
    guest_driver_notify(&driver, RX);
}

static inline void host_send(size_t length)
{
    assert_int_equal(send(host, frame, length, 0), (ssize_t)length);
}

static inline void assert_guest_has(uint64_t gpa, size_t offset, size_t length)
{
    assert_memory_equal(guest_at(&driver.memory, gpa, length), frame + offset, length);
}

/* The frame in the buffer at `gpa`: num_buffers, then the bytes that the host sent. */
static inline void assert_received(uint64_t gpa, size_t length, uint8_t num_buffers)
{
    const uint8_t *header = guest_at(&driver.memory, gpa, HEADER);

    assert_int_equal(header[10], num_buffers);
    assert_int_equal(header[11], 0);
    assert_guest_has(gpa + HEADER, HEADER, length - HEADER);
}

static inline void guest_send(uint64_t gpa, uint32_t length)
{
    const struct guest_buffer buffer = {gpa, length, false};

    memcpy(guest_at(&driver.memory, gpa, length), frame, length);
    guest_ring_add(&driver.rings[TX], &buffer, 1);
}

static inline void assert_host_gets(size_t length)
{
    assert_int_equal(recv(host, answer, sizeof(answer), 0), (ssize_t)length);
    assert_memory_equal(answer, frame, length);
}

static inline void assert_host_gets_nothing(void)
{
    assert_int_equal(recv(host, answer, sizeof(answer), 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static inline void limit_ops(struct rate_limiter_config *limiter, uint64_t size, uint64_t refill_time)
{
    *limiter = (struct rate_limiter_config){
        .present = true,
        .ops = {.present = true, .size = size, .refill_time = refill_time},
    };
}

#define net_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
