/* The network of a jailed VMM: a tap in a network namespace, and a socket in the jail that somebody else serves. */
#include "tests/jail/vmm_fixture.h"
#include "tests/unit/host_tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* A tap of the jail's user in a network namespace that this process is in. */
static void make_tap(void)
{
    assert_int_equal(unshare(CLONE_NEWNET), 0);
    cleanup_fd int tun = host_tap_open("tap0", IFF_VNET_HDR, true);
    assert_true(tun >= 0);
    assert_int_equal(ioctl(tun, TUNSETOWNER, (unsigned long)JAIL_UID), 0);
    host_link_set("tap0", true);
}

static void test_guest_reaches_a_tap_of_the_network_namespace(void **state)
{
    cleanup_fd int host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    char netns[64];
    char frame[2000] = {0};

    (void)state;
    make_tap();
    cleanup_fd int wire = host_packet_socket("tap0", 0x88b5);
    cleanup_fd int inside = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_int_equal(setns(host, CLONE_NEWNET), 0); /* the jailer starts on the host's side */
    snprintf(netns, sizeof(netns), "/proc/%d/fd/%d", getpid(), inside);

    prepare("vmlinux", guest_image("net"), 0);
    start((const char *const[]){"--netns", netns, "--new-pid-ns", TO_API, NULL});
    connect_api();
    put("/network-interfaces/eth0",
        "{\"iface_id\":\"eth0\",\"host_dev_name\":\"tap0\",\"guest_mac\":\"06:00:ac:10:00:02\"}");
    boot("");
    expect("mac 0600ac100002\n");
    struct pollfd wait = {.fd = wire, .events = POLLIN};
    assert_true(poll(&wait, 1, MACHINE_PATIENCE_MS) > 0);
    assert_int_equal(recv(wire, frame, sizeof(frame), 0), 64);
    assert_memory_equal(frame + 14, "hi", 2);
}

/* What passt does without root: somebody on the host's side listens on a socket in the jail, and has the guest's
 * frames. */
static void serve_a_network(const char *const *jail, const char *place, const char *kernel)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint8_t frame[4 + 64] = {0};
    char json[256];

    prepare("vmlinux", guest_image("net"), 0);
    start(jail);
    connect_api();
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", jail_root(vmm.jail, "run/net"));
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(chown(address.sun_path, vmm.jail->uid, vmm.jail->gid), 0);
    assert_int_equal(listen(listener, 1), 0);
    snprintf(json, sizeof(json), "{\"iface_id\":\"eth0\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"%s\"}}",
             place);
    put("/network-interfaces/eth0", json);
    cleanup_fd int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(connection >= 0);
    boot_from(kernel, "");
    for (size_t at = 0; at < sizeof(frame);) {
        struct pollfd wait = {.fd = connection, .events = POLLIN};
        ssize_t got = -1;

        assert_true(poll(&wait, 1, MACHINE_PATIENCE_MS) > 0);
        got = read(connection, frame + at, sizeof(frame) - at);
        assert_true(got > 0);
        at += (size_t)got;
    }
    assert_memory_equal(frame, "\0\0\0\x40", 4);
    assert_memory_equal(frame + 4 + 14, "hi", 2);
}

static void test_guest_has_a_network_by_a_socket_in_the_jail(void **state)
{
    (void)state;
    serve_a_network((const char *const[]){ALL_NAMESPACES, "--new-net-ns", "--no-tun", TO_API, NULL}, "/run/net",
                    "/vmlinux");
}

static void test_guest_has_a_network_by_a_socket_in_a_users_jail(void **state)
{
    test_guest_has_a_network_by_a_socket_in_the_jail(state);
}

static void test_guest_has_a_network_by_a_socket_in_a_reduced_jail(void **state)
{
    (void)state;
    vmm.jail->before_exec = forbid_user_namespaces;
    serve_a_network((const char *const[]){"--allow-reduced", "--", "--api-sock", "run/x.sock", NULL}, "run/net",
                    "vmlinux");
}

JAIL_MAIN(vmm_test(test_guest_reaches_a_tap_of_the_network_namespace),
          vmm_test(test_guest_has_a_network_by_a_socket_in_the_jail),
          user_vmm_test(test_guest_has_a_network_by_a_socket_in_a_users_jail),
          user_vmm_test(test_guest_has_a_network_by_a_socket_in_a_reduced_jail))
