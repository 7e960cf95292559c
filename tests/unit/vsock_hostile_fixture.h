/* A vsock device whose guest and whose host peers break the rules, or stretch them. */
#pragma once

#include "tests/unit/harness.h"

#include "tests/unit/vsock_driver.h"

#include "vmm/metrics.h"
#include "vmm/virtio/vsock.h"

#include <sys/resource.h>

static struct vsock_driver vsock;
static uint8_t bytes[65536];

static inline struct vsock *inside(void)
{
    return container_of(vsock.driver.device, struct vsock, device);
}

static inline int setup(void **state)
{
    struct rlimit files;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    vsock_driver_setup(&vsock);
    vsock_driver_start(&vsock, SEQPACKET_FEATURE);
    return 0;
}

/* Nothing is left of any connection, whatever happened. */
static inline int teardown(void **state)
{
    (void)state;
    guest_driver_reset(&vsock.driver);
    assert_int_equal(inside()->connection_count, 0);
    assert_int_equal(inside()->buffers_given, 0);
    assert_int_equal(inside()->kept, 0);
    assert_true(list_is_empty(&inside()->connections) && list_is_empty(&inside()->pending) &&
                list_is_empty(&inside()->expiring) && list_is_empty(&inside()->connecting) &&
                list_is_empty(&inside()->greeting));
    for (size_t i = 0; i < VSOCK_BUCKETS; i++)
        assert_null(inside()->buckets[i]);
    assert_int_equal(metrics.vsock.conns_added, metrics.vsock.conns_removed);
    vsock_driver_teardown(&vsock);
    return 0;
}

static inline void give(void)
{
    vsock_driver_give(&vsock, BUFFERS, BUFFER_SIZE);
}

#define vsock_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
