/* A network interface on a tap, in a network namespace of this test's own. */
#include "tests/machine/machine.h"
#include "tests/unit/host_tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/base/clock.h"

enum { ETHERTYPE_EXPERIMENT = 0x88b5, HEADER = 14, FRAME_MAX = 2000 };

static const char tap[] = "tap0";

/* Makes a tap that outlives its descriptor, up, in a new network namespace; false when this user may not. */
static bool make_tap_with(int more_flags)
{
    cleanup_fd int tun = unshare(CLONE_NEWNET) == 0 ? host_tap_open(tap, IFF_VNET_HDR | more_flags, true) : -1;

    if (tun < 0)
        return false;
    host_link_set(tap, true);
    return true;
}

static bool make_tap(void)
{
    return make_tap_with(0);
}

static void need_tap(void)
{
    if (!make_tap()) {
        print_message("skipped: a tap in a network namespace needs root and /dev/net/tun: %s\n", strerror(errno));
        skip();
    }
}

static size_t receive_frame(struct vm *vm, int wire, uint8_t frame[FRAME_MAX])
{
    for (;;) {
        struct pollfd wait = {.fd = wire, .events = POLLIN};
        struct sockaddr_ll from;
        socklen_t from_size = sizeof(from);
        ssize_t got;

        if (poll(&wait, 1, MACHINE_PATIENCE_MS) <= 0)
            vm_fail(vm, "no frame came within %d ms", MACHINE_PATIENCE_MS);
        got = recvfrom(wire, frame, FRAME_MAX, 0, (struct sockaddr *)&from, &from_size);
        assert_true(got > 0);
        if (from.sll_pkttype != PACKET_OUTGOING)
            return (size_t)got;
    }
}

static void send_frame(int wire, size_t length, uint8_t fill)
{
    static const uint8_t header[HEADER] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 0xb5};
    uint8_t frame[FRAME_MAX];

    memset(frame, fill, sizeof(frame));
    memcpy(frame, header, sizeof(header));
    assert_int_equal(send(wire, frame, length, 0), length);
}

static void exchange(const char *more, const char *cmdline, const char *expected)
{
    static const size_t lengths[] = {60, 64, 577, 1514};
    struct vm *vm;
    cleanup_fd int wire = -1;
    uint8_t frame[FRAME_MAX];

    need_tap();
    vm = vm_start();
    wire = host_packet_socket(tap, ETHERTYPE_EXPERIMENT);
    vm_put(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\"%s}", tap, more);
    vm_boot(vm, "net", cmdline);
    vm_expect(vm, expected);
    vm_expect(vm, "sent\n");
    assert_int_equal(receive_frame(vm, wire, frame), 64);
    assert_memory_equal(frame + HEADER, "hi", 2);
    host_tap_await(tap);
    for (size_t i = 0; i < array_length(lengths); i++) {
        send_frame(wire, lengths[i], (uint8_t)('a' + i));
        assert_int_equal(receive_frame(vm, wire, frame), lengths[i]);
        assert_int_equal(frame[5], 9);  /* to whom we sent from */
        assert_int_equal(frame[11], 1); /* from whom we sent to */
        assert_int_equal(frame[lengths[i] - 1], 'a' + i);
    }
    send_frame(wire, 60, 'q');
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_frames_pass_both_ways(void **state)
{
    (void)state;
    exchange(",\"guest_mac\":\"06:00:ac:10:00:02\"", NULL, "mac 0600ac100002\n");
}

static void test_frames_pass_a_rate_limiter(void **state)
{
    (void)state;
    exchange(",\"guest_mac\":\"06:00:ac:10:00:03\",\"rx_rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":10}},"
             "\"tx_rate_limiter\":{\"bandwidth\":{\"size\":1600,\"refill_time\":10}}",
             NULL, "mac 0600ac100003\n");
}

static void test_mtu_is_told_to_the_guest(void **state)
{
    (void)state;
    exchange(",\"mtu\":1400", NULL, "mtu 578\n");
}

static void test_frames_pass_to_a_guest_that_computes_checksums(void **state)
{
    (void)state;
    exchange("", "checksums", "mac ");
}

/* Frames that are too short, too long or lie about themselves; then a sound one, which must come out. */
static void test_wrong_frames_harm_nobody(void **state)
{
    struct vm *vm;

    (void)state;
    need_tap();
    vm = vm_start();
    vm_put(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\"}", tap);
    vm_boot(vm, "hostile_requests", "device=net");
    vm_expect(vm, "sound frame served ");
    vm_expect(vm, "recovered\n");
    vm_expect_exit(vm, 0);
}

static void test_tap_that_goes_down_and_up_and_away_leaves_the_guest_running(void **state)
{
    struct vm *vm;
    uint8_t frame[FRAME_MAX];

    (void)state;
    need_tap();
    vm = vm_start();
    cleanup_fd int wire = host_packet_socket(tap, ETHERTYPE_EXPERIMENT);
    vm_put(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\"}", tap);
    vm_boot(vm, "net", "blind");
    vm_expect(vm, "sent\n");
    assert_int_equal(receive_frame(vm, wire, frame), 64);
    host_link_set(tap, false);
    free(vm_get(vm, "/"));
    host_link_set(tap, true);
    fd_close(&wire); /* it has been told that the network was down */
    wire = host_packet_socket(tap, ETHERTYPE_EXPERIMENT);
    host_tap_await(tap);
    send_frame(wire, 60, 'a');
    assert_int_equal(receive_frame(vm, wire, frame), 60);
    send_frame(wire, 60, 'q');
    vm_expect(vm, "waiting\n");
    host_tap_delete(tap);
    free(vm_get(vm, "/"));
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_patch(vm, "/network-interfaces/eth0",
             "{\"iface_id\":\"eth0\",\"rx_rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":10}}}");
    vm_say(vm, "\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

/* The kernel sends a flow's frames to the queue on which the guest sent one of that flow last. */
static void test_two_pairs_of_queues_take_turns(void **state)
{
    struct vm *vm;
    uint8_t frame[FRAME_MAX];

    (void)state;
    if (!make_tap_with(IFF_MULTI_QUEUE)) {
        print_message("skipped: a tap in a network namespace needs root and /dev/net/tun: %s\n", strerror(errno));
        skip();
    }
    vm = vm_start();
    cleanup_fd int wire = host_packet_socket(tap, ETHERTYPE_EXPERIMENT);
    vm_put(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\"}", tap);
    vm_put(vm, "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":2}");
    vm_put(vm, "/network-interfaces/eth0",
           "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\",\"guest_mac\":\"06:00:ac:10:00:02\"}", tap);
    vm_boot(vm, "net", "pairs");
    vm_expect(vm, "pairs 0\nsent\n");
    assert_int_equal(receive_frame(vm, wire, frame), 64);
    assert_int_equal(receive_frame(vm, wire, frame), 64);
    host_tap_await(tap);
    for (uint8_t i = 0; i < 6; i++) {
        send_frame(wire, 60, i);
        assert_int_equal(receive_frame(vm, wire, frame), 60);
        assert_int_equal(frame[59], i);
        vm_expect(vm, i % 2 == 0 ? "pair 1\n" : "pair 0\n");
    }
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    send_frame(wire, 60, 'q');
    vm_expect(vm, "pair 1\nframe 3c\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_queues_that_cannot_be_are_refused(void **state)
{
    struct vm *vm;

    (void)state;
    need_tap();
    vm = vm_start();
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":2}",
               "iface_id: 'eth0', expected the id of a configured interface");
    vm_put(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\"}", tap);
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":2}",
               "is not a tap with several queues");
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":0}", "queues: 0");
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":33}", "queues: 33");
    vm_put(vm, "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\"}");
    vm_boot(vm, "net", "pairs");
    vm_expect(vm, "no such queue");
}

static void test_vhost_that_cannot_be_is_refused(void **state)
{
    const char *vhost = "{\"iface_id\":\"eth0\",\"vhost\":true}";
    struct vm *vm;

    (void)state;
    need_tap();
    vm = vm_start();
    vm_put(
        vm, "/network-interfaces/eth0",
        "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\",\"rx_rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":1}}}",
        tap);
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", vhost,
               "vhost: true, but interface 'eth0' has rx_rate_limiter, expected none");
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"vhost\":1}", "vhost: 1");
    vm_put(vm, "/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"host_dev_name\":\"%s\"}", tap);
    if (access("/dev/vhost-net", R_OK | W_OK) < 0) {
        vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", vhost, "vhost: cannot open /dev/vhost-net");
        /* It is as it was. */
        vm_boot(vm, "net", "pairs");
        vm_expect(vm, "no such queue");
    }
}

/* A backend's program is the test: it listens, and serves the VMM that connects. */
static void put_backend(struct vm *vm)
{
    vm_put(vm, "/network-interfaces/eth0",
           "{\"iface_id\":\"eth0\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"%s\"}}", vm_path(vm, "backend"));
}

static void hear(struct vm *vm, int peer, void *to, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct pollfd wait = {.fd = peer, .events = POLLIN};
        ssize_t got;

        if (poll(&wait, 1, MACHINE_PATIENCE_MS) <= 0)
            vm_fail(vm, "the backend heard nothing for %d ms", MACHINE_PATIENCE_MS);
        got = recv(peer, (char *)to + done, length - done, 0);
        assert_true(got > 0);
        done += (size_t)got;
    }
}

static uint32_t hear_frame(struct vm *vm, int peer, uint8_t frame[FRAME_MAX])
{
    uint32_t length;

    hear(vm, peer, &length, sizeof(length));
    length = ntohl(length);
    assert_true(length <= FRAME_MAX);
    hear(vm, peer, frame, length);
    return length;
}

static void say_frame(int peer, uint32_t length, uint8_t fill)
{
    const uint32_t prefix = htonl(length);

    assert_int_equal(send(peer, &prefix, sizeof(prefix), 0), sizeof(prefix));
    send_frame(peer, length, fill);
}

static void test_frames_pass_over_a_stream_socket(void **state)
{
    static const uint32_t lengths[] = {60, 64, 577, 1514};
    struct vm *vm = vm_start();
    cleanup_fd int listener = vm_listen(vm, "backend");
    uint8_t frame[FRAME_MAX];

    (void)state;
    put_backend(vm);
    put_backend(vm); /* replaces the first */
    cleanup_free char *config = vm_get(vm, "/vm/config");
    assert_non_null(strstr(config, "\"backend\":{\"type\":\"stream\",\"socket_path\":\""));
    assert_null(strstr(config, "host_dev_name"));
    fd_close(&(int){accept(listener, NULL, NULL)});
    cleanup_fd int peer = accept(listener, NULL, NULL);
    vm_boot(vm, "net", NULL);
    assert_int_equal(hear_frame(vm, peer, frame), 64);
    assert_memory_equal(frame + HEADER, "hi", 2);
    for (size_t i = 0; i < array_length(lengths); i++) {
        say_frame(peer, lengths[i], (uint8_t)('a' + i));
        assert_int_equal(hear_frame(vm, peer, frame), lengths[i]);
        assert_int_equal(frame[lengths[i] - 1], 'a' + i);
    }
    say_frame(peer, 60, 'q');
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_backend_that_dies_or_lies_leaves_the_guest_running(void **state)
{
    static const uint8_t nonsense[] = {0xff, 0xff, 0xff, 0xff};

    (void)state;
    for (unsigned lies = 0; lies < 2; lies++) {
        struct vm *vm = vm_start();
        cleanup_fd int listener = vm_listen(vm, "backend");
        uint8_t frame[FRAME_MAX];

        put_backend(vm);
        cleanup_fd int peer = accept(listener, NULL, NULL);
        vm_boot(vm, "net", "blind");
        assert_int_equal(hear_frame(vm, peer, frame), 64);
        say_frame(peer, 60, 'q');
        vm_expect(vm, "waiting\n");
        if (lies)
            assert_int_equal(send(peer, nonsense, sizeof(nonsense), 0), sizeof(nonsense));
        else
            fd_close(&peer);
        free(vm_get(vm, "/"));
        vm_say(vm, "\n");
        vm_expect(vm, "done\n");
        vm_expect_exit(vm, 0);
        vm_expect_log(vm, "the guest's frames are dropped from now on");
    }
}

static void test_backend_is_refused_by_what_is_wrong_with_it(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "PUT", "/network-interfaces/eth0",
               "{\"iface_id\":\"eth0\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"/no/such/socket\"}}",
               "backend.socket_path: \"/no/such/socket\": cannot connect to it: No such file or directory");
    vm_refuses(vm, "PUT", "/network-interfaces/eth0",
               "{\"iface_id\":\"eth0\",\"backend\":{\"type\":\"pigeon\",\"socket_path\":\"/no/such/socket\"}}",
               "backend.type: ");
    vm_refuses(vm, "PUT", "/network-interfaces/eth0", "{\"iface_id\":\"eth0\"}", "host_dev_name: missing");
}

static void assert_status(struct vm *vm, const char *method, const char *path, const char *json, unsigned status)
{
    struct api_response response;

    assert_no_error(api_client_request(vm->api, method, path, json, json == NULL ? 0 : strlen(json), &response));
    if (response.status != status)
        vm_fail(vm, "%s %s: %u %s, expected %u", method, path, response.status, response.body, status);
    api_response_free(&response);
}

static void assert_metadata(struct vm *vm, const char *expected)
{
    cleanup_free char *body = vm_get(vm, "/mmds");

    assert_string_equal(body, expected);
}

static void test_metadata_is_put_patched_and_held_to_its_limit(void **state)
{
    static const char *const arguments[] = {"--mmds-size-limit", "40", NULL};
    const struct machine_options options = {.arguments = arguments};
    struct vm *vm = vm_start_with(&options);

    (void)state;
    assert_metadata(vm, "{}");
    vm_refuses(vm, "PATCH", "/mmds", "{\"a\":1}", "the metadata was never put");
    vm_put(vm, "/mmds", "{\"b\":{\"c\":1.0},\"a\":\"x\"}");
    vm_patch(vm, "/mmds", "{\"b\":{\"c\":null,\"d\":[]}}");
    assert_metadata(vm, "{\"a\":\"x\",\"b\":{\"d\":[]}}");
    vm_refuses(vm, "PUT", "/mmds", "[1]", "expected one");
    assert_status(vm, "PUT", "/mmds", "{\"a\":\"0123456789012345678901234567890123456789\"}", 413);
    assert_status(vm, "PATCH", "/mmds", "{\"z\":\"0123456789012345678901234567890123456789\"}", 413);
    assert_metadata(vm, "{\"a\":\"x\",\"b\":{\"d\":[]}}");
}

static void test_metadata_service_needs_an_interface_and_a_right_address(void **state)
{
    struct vm *vm = vm_start();
    cleanup_fd int listener = vm_listen(vm, "backend");

    (void)state;
    (void)listener;
    vm_refuses(vm, "PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"]}",
               "network_interfaces[0]: 'eth0', expected the id of a configured interface");
    vm_refuses(vm, "PUT", "/mmds/config", "{\"network_interfaces\":[]}", "network_interfaces: ");
    put_backend(vm);
    vm_refuses(vm, "PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"ipv4_address\":\"10.20.30.40\"}",
               "ipv4_address: ");
    vm_refuses(vm, "PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"ipv4_address\":\"169.254.0.10\"}",
               "ipv4_address: ");
    vm_refuses(vm, "PUT", "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"version\":\"V3\"}", "version: ");
    vm_put(vm, "/mmds/config", "{\"network_interfaces\":[\"eth0\"],\"version\":\"V2\"}");
    put_backend(vm); /* the interface that replaces it leads there, too */
    cleanup_free char *config = vm_get(vm, "/vm/config");
    assert_non_null(strstr(config, "\"mmds-config\":{\"version\":\"V2\",\"network_interfaces\":[\"eth0\"],"
                                   "\"ipv4_address\":\"169.254.169.254\",\"imds_compat\":false}"));
}

static void test_tap_of_another_interface_is_refused(void **state)
{
    struct vm *vm;

    (void)state;
    need_tap();
    vm = vm_start();
    vm_put(vm, "/network-interfaces/a", "{\"iface_id\":\"a\",\"host_dev_name\":\"%s\"}", tap);
    vm_refuses(vm, "PUT", "/network-interfaces/b", "{\"iface_id\":\"b\",\"host_dev_name\":\"tap0\"}",
               "'tap0' is the device of interface 'a' already");
    vm_put(vm, "/network-interfaces/a", "{\"iface_id\":\"a\",\"host_dev_name\":\"%s\"}", tap);
}

TEST_MAIN(machine_test(test_tap_of_another_interface_is_refused), machine_test(test_two_pairs_of_queues_take_turns),
          machine_test(test_queues_that_cannot_be_are_refused), machine_test(test_vhost_that_cannot_be_is_refused),
          machine_test(test_metadata_is_put_patched_and_held_to_its_limit),
          machine_test(test_metadata_service_needs_an_interface_and_a_right_address),
          machine_test(test_frames_pass_over_a_stream_socket),
          machine_test(test_backend_that_dies_or_lies_leaves_the_guest_running),
          machine_test(test_backend_is_refused_by_what_is_wrong_with_it),
          machine_test(test_tap_that_goes_down_and_up_and_away_leaves_the_guest_running),
          machine_test(test_frames_pass_both_ways), machine_test(test_frames_pass_a_rate_limiter),
          machine_test(test_mtu_is_told_to_the_guest),
          machine_test(test_frames_pass_to_a_guest_that_computes_checksums),
          machine_test(test_wrong_frames_harm_nobody))
