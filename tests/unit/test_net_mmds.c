/* Frames to and from the metadata service. */
#include "tests/unit/net_fixture.h"

#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/socket.h>

#include "vmm/mmds/frame.h"
#include "vmm/mmds/mmds.h"
#include "vmm/virtio/devices.h"

static const uint8_t arp_request[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,    9,    8,    6,
                                        0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,    0,    0,    9,
                                        0xa9, 0xfe, 0,    5,    0,    0,    0, 0, 0, 0, 0xa9, 0xfe, 0xa9, 0xfe};
static struct mmds mmds = {.limit = 1000};

static void lead_to_mmds(void)
{
    assert_true(virtio_net_set_mmds(driver.device, &mmds, 0xa9fea9fe));
}

static void guest_asks(uint64_t gpa)
{
    const struct guest_buffer buffer = {gpa, HEADER + sizeof(arp_request), false};

    memset(guest_at(&driver.memory, gpa, HEADER), 0, HEADER);
    memcpy(guest_at(&driver.memory, gpa + HEADER, sizeof(arp_request)), arp_request, sizeof(arp_request));
    guest_ring_add(&driver.rings[TX], &buffer, 1);
}

static void assert_answered(uint64_t gpa)
{
    const uint8_t *got = guest_at(&driver.memory, gpa, HEADER + sizeof(arp_request));

    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), HEADER + sizeof(arp_request));
    assert_int_equal(got[10], 1);
    assert_int_equal(got[HEADER + 21], 2); /* a reply */
}

static void test_frames_for_the_metadata_service_never_reach_the_tap(void **state)
{
    (void)state;
    start(FEATURE(VIRTIO_RING_F_EVENT_IDX));
    lead_to_mmds();
    give_buffers(3, 2000);
    guest_asks(TX_GPA);
    guest_send(TX_GPA + SLOT, 200);
    guest_asks(TX_GPA + 2 * SLOT);
    guest_driver_notify(&driver, TX);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(guest_driver_wait_used(&driver, TX, NULL), 0);
    assert_host_gets(200);
    assert_host_gets_nothing();
    assert_answered(RX_GPA);
    assert_answered(RX_GPA + SLOT);
    assert_int_equal(driver.queue_signals[RX] + driver.queue_signals[TX], 1);
    host_send(100); /* and the tap's frames come as ever */
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), 100);
    guest_driver_settle(&driver);
}

static void test_metadata_service_waits_for_receive_buffers(void **state)
{
    (void)state;
    start(FEATURE(VIRTIO_RING_F_EVENT_IDX));
    lead_to_mmds();
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    guest_driver_settle(&driver);
    give_buffers(1, 2000);
    assert_answered(RX_GPA);
}

static void test_metadata_service_answers_though_the_tap_is_gone(void **state)
{
    (void)state;
    start(0);
    lead_to_mmds();
    give_buffers(2, 2000);
    fd_close(&host);
    guest_driver_settle(&driver);
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    assert_answered(RX_GPA);
    guest_driver_settle(&driver);
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    guest_driver_settle(&driver);
}

static void test_metadata_service_keeps_to_the_limits(void **state)
{
    (void)state;
    limit_ops(&config.rx_rate_limiter, 1, 5);
    limit_ops(&config.tx_rate_limiter, 1, 5);
    start(0);
    lead_to_mmds();
    give_buffers(3, 2000);
    for (unsigned i = 0; i < 3; i++)
        guest_asks(TX_GPA + i * SLOT);
    guest_driver_notify(&driver, TX);
    for (unsigned i = 0; i < 3; i++)
        assert_answered(RX_GPA + i * SLOT);
    assert_true(METRIC_TOTAL(net.tx_rate_limiter_throttled) > 0);
}

static void assert_syn_answered(uint64_t gpa)
{
    struct segment segment;
    uint32_t length = guest_driver_wait_used(&driver, RX, NULL);

    assert_true(length > HEADER);
    assert_true(frame_parse_segment(guest_at(&driver.memory, gpa + HEADER, length - HEADER), length - HEADER,
                                    0xa9fe0005, &segment));
    assert_int_equal(segment.flags, SEGMENT_SYN | SEGMENT_ACK);
}

static void guest_opens_a_connection(void)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 9};
    const struct segment syn = {.peer = {.mac = {6, 1, 0x23, 0x45, 0x67, 1}, .port = 80, .address = 0xa9fea9fe},
                                .port = 40000,
                                .flags = SEGMENT_SYN,
                                .window = 1000};
    uint8_t *bytes = guest_at(&driver.memory, TX_GPA, HEADER + FRAME_SENT_MAX);

    memset(bytes, 0, HEADER);
    const struct guest_buffer buffer = {
        TX_GPA, HEADER + (uint32_t)frame_write_segment(bytes + HEADER, mac, 0xa9fe0005, &syn), false};
    guest_ring_add(&driver.rings[TX], &buffer, 1);
    guest_driver_notify(&driver, TX);
}

/* By its timer: the guest says nothing more. */
static void test_metadata_service_says_again_what_the_guest_did_not_hear(void **state)
{
    (void)state;
    start(0);
    lead_to_mmds();
    give_buffers(3, 2000);
    guest_opens_a_connection();
    assert_syn_answered(RX_GPA);
    assert_syn_answered(RX_GPA + SLOT);
    assert_syn_answered(RX_GPA + 2 * SLOT);
}

/* What it would say again is for a driver that is gone. */
static void test_metadata_service_knows_nothing_of_the_driver_before(void **state)
{
    struct virtio_device *device;

    (void)state;
    start(0);
    device = driver.device;
    lead_to_mmds();
    guest_opens_a_connection();
    guest_driver_settle(&driver); /* there is no buffer for the answer */
    guest_driver_reset(&driver);
    guest_driver_restart(&driver, 0);
    give_buffers(2, 2000);
    guest_driver_settle(&driver);
    assert_false(guest_ring_has_used(&driver.rings[RX]));

    guest_opens_a_connection();
    assert_syn_answered(RX_GPA);
    device->paused = true;
    virtio_device_pause(device);
    guest_driver_settle(&driver);
    device->paused = false;
    device->ops->resume(device);
    assert_syn_answered(RX_GPA + SLOT); /* the end finds it waiting for a third time */
}

/* Nothing of ours is told beside the frame, and each byte of it is in its place. */
static void test_answers_fill_buffers_in_pieces(void **state)
{
    const struct guest_buffer pieces[] = {
        {RX_GPA, 5, true}, {RX_GPA + 0x100, 20, true}, {RX_GPA + 0x200, 30, true}, {RX_GPA + 0x300, 2000, true}};
    uint8_t got[HEADER + sizeof(arp_request)];
    size_t used = 0;

    (void)state;
    start(0);
    lead_to_mmds();
    guest_ring_add(&driver.rings[RX], pieces, array_length(pieces));
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    assert_int_equal(guest_driver_wait_used(&driver, RX, NULL), sizeof(got));
    for (size_t i = 0; i < array_length(pieces) && used < sizeof(got); i++) {
        size_t part = pieces[i].length < sizeof(got) - used ? pieces[i].length : sizeof(got) - used;

        memcpy(got + used, guest_at(&driver.memory, pieces[i].gpa, part), part);
        used += part;
    }
    for (size_t i = 0; i < HEADER; i++)
        assert_int_equal(got[i], i == 10); /* num_buffers */
    assert_memory_equal(got + HEADER, arp_request + 6, 6);
    assert_int_equal(got[HEADER + 21], 2); /* a reply */
    assert_memory_equal(got + HEADER + 28, arp_request + 38, 4);
    assert_memory_equal(got + HEADER + 32, arp_request + 22, 10);
}

static void test_interface_no_longer_leads_to_the_metadata_service(void **state)
{
    (void)state;
    start(0);
    lead_to_mmds();
    assert_true(virtio_net_set_mmds(driver.device, NULL, 0));
    guest_asks(TX_GPA);
    guest_driver_notify(&driver, TX);
    guest_driver_wait_used(&driver, TX, NULL);
    assert_int_equal(recv(host, answer, sizeof(answer), 0), HEADER + sizeof(arp_request));
}

TEST_MAIN(net_test(test_metadata_service_says_again_what_the_guest_did_not_hear),
          net_test(test_frames_for_the_metadata_service_never_reach_the_tap),
          net_test(test_metadata_service_waits_for_receive_buffers),
          net_test(test_metadata_service_answers_though_the_tap_is_gone),
          net_test(test_metadata_service_keeps_to_the_limits),
          net_test(test_metadata_service_knows_nothing_of_the_driver_before),
          net_test(test_answers_fill_buffers_in_pieces),
          net_test(test_interface_no_longer_leads_to_the_metadata_service))
