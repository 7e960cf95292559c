/* A vsock device, driven as Linux does. */
#pragma once

#include "tests/unit/harness.h"

#include <string.h>
#include <sys/socket.h>

#include "tests/unit/vsock_driver.h"

static struct vsock_driver vsock;
static uint8_t bytes[1 << 20];

#define SAY_SHUTDOWN(guest_port, host_port, flags)                                                                     \
    vsock_driver_say(&vsock, guest_port, host_port, VIRTIO_VSOCK_OP_SHUTDOWN, flags, NULL, 0)
#define SAY_TEXT(guest_port, host_port, text)                                                                          \
    vsock_driver_say(&vsock, guest_port, host_port, VIRTIO_VSOCK_OP_RW, 0, text, (uint32_t)strlen(text))

static inline int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256 + i / 65536);
    vsock_driver_setup(&vsock);
    vsock_driver_start(&vsock, SEQPACKET_FEATURE);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    vsock_driver_teardown(&vsock);
    return 0;
}

static inline void give(void)
{
    vsock_driver_give(&vsock, BUFFERS, BUFFER_SIZE);
}

/* Reads all there is. */
static inline size_t drain(int fd, size_t done)
{
    static uint8_t part[65536];
    ssize_t length;

    while ((length = recv(fd, part, sizeof(part), 0)) > 0) {
        assert_memory_equal(part, bytes + done, (size_t)length);
        done += (size_t)length;
    }
    return done;
}

#define vsock_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
