/* The real passt behind a network interface, in a network namespace of this test's own. */
#include "tests/machine/machine.h"
#include "tests/unit/host_tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOST_PORT = 5000, PUBLISHED_PORT = 8053, BYTES_MAX = 65536 };

static const char uplink[] = "up0", host_address[] = "198.51.100.1";

static struct sockaddr_in internet(const char *address, uint16_t port)
{
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET, address, &made.sin_addr), 1);
    return made;
}

static void set(int control, const char *name, unsigned long what, const char *address)
{
    struct ifreq request = {.ifr_flags = IFF_UP};

    if (address != NULL) {
        struct sockaddr_in wanted = internet(address, 0);

        memcpy(&request.ifr_addr, &wanted, sizeof(wanted));
    }
    strcpy(request.ifr_name, name);
    assert_int_equal(ioctl(control, what, &request), 0);
}

/* passt takes a default route for granted: a tap that nobody listens on has it. False when this user may not. */
static bool make_network(void)
{
    struct sockaddr_in any = internet("0.0.0.0", 0), gateway = internet("198.51.100.254", 0);
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    cleanup_fd int tun = unshare(CLONE_NEWNET) == 0 ? host_tap_open(uplink, 0, true) : -1;
    cleanup_fd int control = -1;

    if (tun < 0)
        return false;
    control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set(control, "lo", SIOCSIFFLAGS, NULL);
    set(control, uplink, SIOCSIFADDR, host_address);
    set(control, uplink, SIOCSIFNETMASK, "255.255.255.0");
    set(control, uplink, SIOCSIFFLAGS, NULL);
    memcpy(&route.rt_dst, &any, sizeof(any));
    memcpy(&route.rt_genmask, &any, sizeof(any));
    memcpy(&route.rt_gateway, &gateway, sizeof(gateway));
    assert_int_equal(ioctl(control, SIOCADDRT, &route), 0);
    return true;
}

/* A mount namespace of its own, in which the host's name server is at its loopback interface. */
static void set_resolver(const char *directory)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/resolv.conf", directory);
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, "nameserver 127.0.0.1\n", 21) != 21 || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL) != 0)
        _exit(97);
}

static void child(int connection, const char *log, const char *directory)
{
    char published[32];
    const char *const arguments[] = {
        "passt",       "--foreground", "--fd",      "3",        "--ipv4-only",   "--address",   "10.0.2.15",
        "--netmask",   "24",           "--gateway", "10.0.2.2", "--no-map-gw",   "--tcp-ports", "none",
        "--udp-ports", published,      "--runas",   "65534",    "--dns-forward", "10.0.2.3",    NULL};

    snprintf(published, sizeof(published), "%s/%u:53", host_address, PUBLISHED_PORT);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_resolver(directory);
    if (dup2(open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), STDERR_FILENO) < 0 || dup2(connection, 3) < 0)
        _exit(98);
    fcntl(3, F_SETFD, 0);
    execvp("passt", (char *const *)(uintptr_t)arguments);
    _exit(99);
}

/* A VM whose interface leads to a passt; the test is skipped where there can be none. */
static struct vm *start(pid_t *passt)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int listener = -1, connection = -1;
    struct vm *vm;

    if (system("command -v passt >/dev/null") != 0) {
        print_message("skipped: passt is not installed (package passt)\n");
        skip();
    }
    if (!make_network()) {
        print_message("skipped: a network namespace with a tap needs root and /dev/net/tun: %s\n", strerror(errno));
        skip();
    }
    vm = vm_start();
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", vm_path(vm, "net"));
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    vm_put(vm, "/network-interfaces/eth0",
           "{\"iface_id\":\"eth0\",\"guest_mac\":\"06:00:ac:10:00:02\",\"mtu\":65520,\"backend\":{\"type\":\"stream\","
           "\"socket_path\":\"%s\"}}",
           address.sun_path);
    connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(connection >= 0);
    *passt = fork();
    assert_true(*passt >= 0);
    if (*passt == 0)
        child(connection, vm_path(vm, "passt.log"), vm->directory);
    return vm;
}

static int open_socket(const char *address, uint16_t port)
{
    struct sockaddr_in own = internet(address, port);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
    return fd;
}

static size_t receive(struct vm *vm, int fd, uint8_t *bytes, struct sockaddr_in *from)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    socklen_t size = sizeof(*from);
    ssize_t got;

    if (poll(&wait, 1, MACHINE_PATIENCE_MS) <= 0)
        vm_fail(vm, "no datagram came within %d ms", MACHINE_PATIENCE_MS);
    got = recvfrom(fd, bytes, BYTES_MAX, 0, (struct sockaddr *)from, &size);
    assert_true(got > 0);
    return (size_t)got;
}

/* The guest's datagram comes, its answer goes back, and one that the host begins goes the other way. */
static void converse(struct vm *vm, size_t bytes)
{
    static uint8_t datagram[BYTES_MAX];
    cleanup_fd int server = open_socket(host_address, HOST_PORT), client = open_socket(host_address, 0);
    struct sockaddr_in peer, published = internet(host_address, PUBLISHED_PORT);

    vm_expect(vm, "found the gateway\n");
    assert_int_equal(receive(vm, server, datagram, &peer), bytes);
    assert_true(datagram[0] == 'a' && datagram[bytes - 1] == 'a');
    datagram[0] = datagram[bytes - 1] = 'b';
    assert_int_equal(sendto(server, datagram, bytes, 0, (struct sockaddr *)&peer, sizeof(peer)), bytes);
    vm_expect(vm, "the host answered\n");
    vm_expect(vm, "serving\n");
    assert_int_equal(sendto(client, "hello", 5, 0, (struct sockaddr *)&published, sizeof(published)), 5);
    assert_int_equal(receive(vm, client, datagram, &peer), 5);
    assert_memory_equal(datagram, "hello", 5);
    vm_expect(vm, "served\n");
}

static void test_datagrams_of_any_size_pass_through_passt_both_ways(void **state)
{
    static const size_t sizes[] = {3, 1472, 9000, 65492};

    (void)state;
    for (size_t i = 0; i < array_length(sizes); i++) {
        pid_t passt;
        struct vm *vm = start(&passt);
        char cmdline[32];
        int status;

        snprintf(cmdline, sizeof(cmdline), "bytes=%zu", sizes[i]);
        vm_boot(vm, "passt", cmdline);
        converse(vm, sizes[i]);
        vm_expect(vm, "done\n");
        vm_expect_exit(vm, 0);
        assert_int_equal(waitpid(passt, &status, 0), passt); /* it ends with the VMM */
        assert_int_equal(status, 0);
    }
}

static void test_names_are_asked_of_a_server_at_the_hosts_loopback_interface(void **state)
{
    static uint8_t query[BYTES_MAX];
    pid_t passt;
    struct vm *vm = start(&passt);
    cleanup_fd int server = open_socket("127.0.0.1", 53);
    struct sockaddr_in peer;

    (void)state;
    vm_boot(vm, "passt", "resolver bytes=100");
    assert_int_equal(receive(vm, server, query, &peer), 100);
    query[0] = query[99] = 'b';
    assert_int_equal(sendto(server, query, 100, 0, (struct sockaddr *)&peer, sizeof(peer)), 100);
    vm_expect(vm, "the host answered\n");
}

static void test_guest_outlives_a_killed_passt_and_sees_its_link_go_down(void **state)
{
    pid_t passt;
    struct vm *vm = start(&passt);

    (void)state;
    vm_boot(vm, "passt", "last");
    converse(vm, 32);
    assert_int_equal(kill(passt, SIGKILL), 0);
    assert_int_equal(waitpid(passt, NULL, 0), passt);
    vm_expect(vm, "the link is down\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
    vm_expect_log(vm, "the guest's frames are dropped from now on");
}

static void test_passt_ends_with_a_killed_vmm(void **state)
{
    pid_t passt;
    struct vm *vm = start(&passt);
    int status;

    (void)state;
    vm_boot(vm, "passt", "last");
    converse(vm, 32);
    assert_int_equal(kill(vm->pid, SIGKILL), 0);
    vm_expect_killed(vm, SIGKILL);
    assert_int_equal(waitpid(passt, &status, 0), passt);
    assert_int_equal(status, 0);
}

TEST_MAIN(machine_test(test_datagrams_of_any_size_pass_through_passt_both_ways),
          machine_test(test_names_are_asked_of_a_server_at_the_hosts_loopback_interface),
          machine_test(test_guest_outlives_a_killed_passt_and_sees_its_link_go_down),
          machine_test(test_passt_ends_with_a_killed_vmm))
