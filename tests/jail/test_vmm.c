/* The real mayfly-vmm in the jail: it boots freestanding guests with every device, from the API and from a file. */
#include "tests/jail/jail.h"
#include "tests/machine/machine.h"
#include "tests/unit/host_tap.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/client/client.h"
#include "api/client/connect.h"
#include "vmm/base/clock.h"

/* A jailed VMM; one a test. */
static struct {
    struct jail *jail;
    pid_t pid;
    int process_fd;
    int out;
    char output[1 << 16];
    size_t length;
    struct api_client *api;
} vmm;

static int prepare_vmm(void **state)
{
    memset(&vmm, 0, sizeof(vmm));
    vmm.jail = *state;
    vmm.process_fd = vmm.out = -1;
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        print_message("skipped: /dev/kvm cannot be opened: %s\n", strerror(errno));
        skip();
    }
    strcpy(vmm.jail->exec, jail_path(vmm.jail, "%s", vmm.jail->exec_name));
    copy_file(getenv("MAYFLY_VMM") != NULL ? getenv("MAYFLY_VMM") : "build/release/mayfly-vmm", vmm.jail->exec, 0755);
    return 0;
}

static int vmm_setup(void **state)
{
    return jail_setup(state) != 0 ? -1 : prepare_vmm(state);
}

static int vmm_setup_as_user(void **state)
{
    return jail_setup_as_user(state) != 0 ? -1 : prepare_vmm(state);
}

static int vmm_teardown(void **state)
{
    api_client_free(vmm.api);
    if (vmm.pid > 0) {
        kill(vmm.pid, SIGKILL);
        waitpid(vmm.pid, NULL, 0);
        /* In a pid namespace it was the waiting process that died first: the output ends when the VMM has. */
        for (struct pollfd wait = {.fd = vmm.out, .events = POLLIN}; poll(&wait, 1, 5000) > 0;)
            if (read(vmm.out, vmm.output, sizeof(vmm.output)) <= 0)
                break;
    }
    fd_close(&vmm.process_fd);
    fd_close(&vmm.out);
    return jail_teardown(state);
}

#define vmm_test(function) cmocka_unit_test_setup_teardown(function, vmm_setup, vmm_teardown)

#define user_vmm_test(function) cmocka_unit_test_setup_teardown(function, vmm_setup_as_user, vmm_teardown)

static void make_folder(const char *path)
{
    mkdir(path, 0755);
    if (vmm.jail->as_user)
        assert_int_equal(chown(path, JAIL_UID, JAIL_GID), 0);
}

/* A file in the jail's root, of the jail's user, as a caller prepares it. */
static void prepare(const char *name, const char *from, size_t size)
{
    make_folder(jail_path(vmm.jail, "base/%s", vmm.jail->exec_name));
    make_folder(jail_path(vmm.jail, "base/%s/%s", vmm.jail->exec_name, vmm.jail->id));
    make_folder(jail_root(vmm.jail, ""));
    make_folder(jail_root(vmm.jail, "run")); /* who waits for the socket watches its folder */
    if (from != NULL)
        copy_file(from, jail_root(vmm.jail, name), 0400);
    else
        write_text(jail_root(vmm.jail, name), "");
    if (size > 0)
        assert_int_equal(truncate(jail_root(vmm.jail, name), (off_t)size), 0);
    assert_int_equal(chown(jail_root(vmm.jail, name), vmm.jail->uid, vmm.jail->gid), 0);
}

static void start(const char *const *more)
{
    const char *arguments[64];
    int out[2];

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    jail_arguments(vmm.jail, arguments, more);
    vmm.pid = jail_start(vmm.jail, out[1], out[1], arguments);
    close(out[1]);
    vmm.out = out[0];
    vmm.process_fd = (int)syscall(SYS_pidfd_open, vmm.pid, 0);
    assert_true(vmm.process_fd >= 0);
}

static void connect_api(void)
{
    struct error *error =
        api_client_connect(jail_root(vmm.jail, "run/x.sock"), vmm.process_fd, MACHINE_PATIENCE_MS, &vmm.api);

    if (error != NULL) {
        kill(vmm.pid, SIGKILL);
        ssize_t got = read(vmm.out, vmm.output, sizeof(vmm.output) - 1);

        fail_msg("no API: %s\n%.*s", error->message, (int)(got < 0 ? 0 : got), vmm.output);
    }
    api_client_set_timeout(vmm.api, MACHINE_PATIENCE_MS);
}

static void put(const char *path, const char *json)
{
    struct api_response response;

    assert_no_error(api_client_request(vmm.api, "PUT", path, json, strlen(json), &response));
    if (response.status / 100 != 2)
        fail_msg("PUT %s %s: %u %s", path, json, response.status, response.body);
    api_response_free(&response);
}

static void boot_from(const char *kernel, const char *boot_arguments)
{
    char json[512];

    snprintf(json, sizeof(json), "{\"kernel_image_path\":\"%s\",\"boot_args\":\"%s\"}", kernel, boot_arguments);
    put("/boot-source", json);
    put("/actions", "{\"action_type\":\"InstanceStart\"}");
}

static void boot(const char *boot_arguments)
{
    boot_from("/vmlinux", boot_arguments);
}

/* Waits until the VMM's output has `text`. */
static void expect(const char *text)
{
    while (strstr(vmm.output, text) == NULL) {
        struct pollfd wait = {.fd = vmm.out, .events = POLLIN};
        ssize_t got = -1;

        if (poll(&wait, 1, MACHINE_PATIENCE_MS) > 0)
            got = read(vmm.out, vmm.output + vmm.length, sizeof(vmm.output) - 1 - vmm.length);
        if (got <= 0)
            fail_msg("the output ends without \"%s\":\n%s", text, vmm.output);
        vmm.length += (size_t)got;
        vmm.output[vmm.length] = '\0';
    }
}

static void expect_exit(int code)
{
    int status;

    assert_int_equal(waitpid(vmm.pid, &status, 0), vmm.pid);
    vmm.pid = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        fail_msg("status %#x, expected exit code %d:\n%s", (unsigned)status, code, vmm.output);
}

#define ALL_NAMESPACES "--new-pid-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns", "--new-time-ns"
#define TO_API "--", "--api-sock", "/run/x.sock"

static void test_guest_with_a_drive_runs_in_the_jail(void **state)
{
    struct stat status;

    (void)state;
    prepare("vmlinux", guest_image("block"), 0);
    prepare("disk", NULL, 1 << 20);
    start((const char *const[]){TO_API, NULL});
    connect_api();
    /* Whoever is neither root nor the jail's user does not reach the API. */
    assert_int_equal(stat(jail_root(vmm.jail, "run/x.sock"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_uid, JAIL_UID);
    assert_int_equal(status.st_gid, JAIL_GID);
    put("/drives/disk",
        "{\"drive_id\":\"disk\",\"path_on_host\":\"/disk\",\"is_root_device\":false,\"is_read_only\":false}");
    boot("ops=c,w3:A,f,r3");
    expect("write 0\nflush 0\nread 0 41 41\ndone\n");
    expect_exit(0);
}

static int bound_teardown(void **state)
{
    umount2(jail_root(vmm.jail, "disk"), MNT_DETACH);
    umount2(vmm.jail->base, MNT_DETACH);
    return vmm_teardown(state);
}

/* As Kata Containers plugs a disk. */
static void test_file_that_is_bound_into_a_running_jail_is_there(void **state)
{
    (void)state;
    assert_int_equal(mount(vmm.jail->base, vmm.jail->base, NULL, MS_BIND, NULL), 0);
    assert_int_equal(mount(NULL, vmm.jail->base, NULL, MS_SHARED, NULL), 0);
    prepare("vmlinux", guest_image("block"), 0);
    prepare("disk", NULL, 0);
    write_text(jail_path(vmm.jail, "image"), "");
    assert_int_equal(truncate(jail_path(vmm.jail, "image"), 1 << 20), 0);
    assert_int_equal(chown(jail_path(vmm.jail, "image"), vmm.jail->uid, vmm.jail->gid), 0);
    start((const char *const[]){TO_API, NULL});
    connect_api();
    assert_int_equal(mount(jail_path(vmm.jail, "image"), jail_root(vmm.jail, "disk"), NULL, MS_BIND, NULL), 0);
    put("/drives/disk",
        "{\"drive_id\":\"disk\",\"path_on_host\":\"/disk\",\"is_root_device\":false,\"is_read_only\":false}");
    boot("ops=c,w3:A,f,r3");
    expect("capacity 800\nwrite 0\nflush 0\nread 0 41 41\ndone\n");
    expect_exit(0);
}

static void test_guest_runs_in_all_namespaces(void **state)
{
    (void)state;
    prepare("vmlinux", guest_image("hello"), 0);
    start((const char *const[]){ALL_NAMESPACES, "--new-net-ns", "--cgroup", "cpu.shares=100", TO_API, NULL});
    connect_api();
    boot("greeting");
    expect("hello\ncmdline: greeting");
    expect_exit(0);
}

static void test_guest_with_a_drive_runs_in_a_users_jail(void **state)
{
    test_guest_with_a_drive_runs_in_the_jail(state);
}

static void test_guest_runs_in_all_namespaces_of_a_user(void **state)
{
    test_guest_runs_in_all_namespaces(state);
}

static void test_guest_runs_in_a_vmm_that_a_link_names(void **state)
{
    (void)state;
    assert_int_equal(rename(vmm.jail->exec, jail_path(vmm.jail, "the_file_itself")), 0);
    assert_int_equal(symlink("the_file_itself", vmm.jail->exec), 0);
    prepare("vmlinux", guest_image("hello"), 0);
    start((const char *const[]){TO_API, NULL});
    connect_api(); /* in the jail of the link's name */
    boot("greeting");
    expect("hello\ncmdline: greeting");
    expect_exit(0);
}

/* In the child: somebody else, of this group. */
static int connect_as(gid_t group)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", jail_root(vmm.jail, "run/x.sock"));
        if (setgroups(1, &group) != 0 || setgid(4711) != 0 || setuid(4711) != 0)
            _exit(255);
        _exit(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_api_is_open_to_the_jails_group_when_both_say_so(void **state)
{
    char gid[16];

    (void)state;
    snprintf(gid, sizeof(gid), "%d", JAIL_GID);
    prepare("vmlinux", guest_image("hello"), 0);
    start((const char *const[]){"--open-to-group", TO_API, "--api-sock-group", gid, NULL});
    connect_api();
    assert_int_equal(connect_as(JAIL_GID), 0);
    assert_int_equal(connect_as(JAIL_GID + 1), EACCES);
    boot("greeting");
    expect("hello\ncmdline: greeting");
    expect_exit(0);
}

static void test_api_is_the_jails_users_alone_unless_told_otherwise(void **state)
{
    (void)state;
    prepare("vmlinux", guest_image("hello"), 0);
    start((const char *const[]){TO_API, NULL});
    connect_api();
    assert_int_equal(connect_as(JAIL_GID), EACCES);
}

/* For a test that starts several, one after the other. */
static void end_and_forget(int signal)
{
    api_client_free(vmm.api);
    vmm.api = NULL;
    kill(vmm.pid, signal);
    assert_int_equal(waitpid(vmm.pid, NULL, 0), vmm.pid);
    vmm.pid = 0;
    fd_close(&vmm.process_fd);
    fd_close(&vmm.out);
    jail_remove(vmm.jail);
}

/* Whoever may connect by the socket's mode; the kernel tells who calls. */
static void test_api_serves_only_the_user_that_it_was_told(void **state)
{
    static const char *const users[] = {"0", "4711"};

    (void)state;
    for (size_t i = 0; i < array_length(users); i++) {
        cleanup_error struct error *error = NULL;
        struct api_response response;

        prepare("vmlinux", guest_image("hello"), 0);
        start((const char *const[]){"--new-pid-ns", TO_API, "--api-peer-uid", users[i], NULL});
        connect_api();
        error = api_client_request(vmm.api, "GET", "/", NULL, 0, &response);
        assert_int_equal(error == NULL, i == 0);
        if (error == NULL)
            api_response_free(&response);
        end_and_forget(SIGTERM);
    }
}

/* The number of seccomp filters over the main thread. */
static int filters(void)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/status", vmm.pid);
    const char *line = strstr(read_text(path), "\nSeccomp_filters:");
    assert_non_null(line);
    return atoi(line + strlen("\nSeccomp_filters:"));
}

static void test_the_base_filter_stays_unless_it_is_refused_itself(void **state)
{
    static const struct {
        const char *jailer;
        const char *vmm;
        int filters; /* before the guest starts */
    } ways[] = {
        {"--new-uts-ns", "--level=Info", 2},
        {"--new-uts-ns", "--no-seccomp", 1},
        {"--no-base-filter", "--level=Info", 1},
        {"--no-base-filter", "--no-seccomp", 0},
    };

    (void)state;
    for (size_t i = 0; i < array_length(ways); i++) {
        prepare("vmlinux", guest_image("hello"), 0);
        start((const char *const[]){ways[i].jailer, TO_API, ways[i].vmm, NULL});
        connect_api();
        assert_int_equal(filters(), ways[i].filters);
        end_and_forget(SIGTERM);
    }
}

static void test_guest_runs_for_uid_zero(void **state)
{
    (void)state;
    vmm.jail->uid = vmm.jail->gid = 0;
    prepare("vmlinux", guest_image("hello"), 0);
    start((const char *const[]){TO_API, NULL});
    connect_api();
    boot("greeting");
    expect("hello\ncmdline: greeting");
    expect_exit(0);
}

static void test_guest_runs_from_a_config_file(void **state)
{
    (void)state;
    prepare("vmlinux", guest_image("hello"), 0);
    write_text(jail_root(vmm.jail, "config.json"),
               "{\"boot-source\":{\"kernel_image_path\":\"/vmlinux\",\"boot_args\":\"from-file\"},"
               "\"machine-config\":{\"vcpu_count\":2,\"mem_size_mib\":64}}");
    start((const char *const[]){"--new-pid-ns", "--", "--no-api", "--config-file", "config.json", NULL});
    expect("hello\ncmdline: from-file");
    expect_exit(0);
}

static void test_console_ports_open_in_the_jail(void **state)
{
    cleanup_fd int port = -1;
    char echoed[6] = {0};

    (void)state;
    prepare("vmlinux", guest_image("console"), 0);
    start((const char *const[]){"--new-pid-ns", TO_API, NULL});
    connect_api();
    put("/mayfly/console", "{\"ports\":[{\"name\":\"log\",\"output_path\":\"/log\"},"
                           "{\"name\":\"echo\",\"socket_path\":\"/run/echo\"}]}");
    boot("log");
    assert_no_error(socket_connect_when_ready(jail_root(vmm.jail, "run/echo"), vmm.process_fd,
                                              clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull, &port));
    expect("peer came\n");
    assert_int_equal(write(port, "hello", 5), 5);
    for (ssize_t at = 0, got; at < 5; at += got) {
        struct pollfd wait = {.fd = port, .events = POLLIN};

        assert_true(poll(&wait, 1, MACHINE_PATIENCE_MS) > 0);
        got = read(port, echoed + at, sizeof(echoed) - (size_t)at);
        assert_true(got > 0);
    }
    assert_string_equal(echoed, "hello");
}

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

static void test_a_vmm_that_lives_holds_its_pid_file(void **state)
{
    (void)state;
    prepare("vmlinux", guest_image("hello"), 0);
    start((const char *const[]){"--new-pid-ns", TO_API, NULL});
    connect_api();
    cleanup_fd int file = open(jail_pid_file(vmm.jail), O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(errno, EWOULDBLOCK);

    /* The pid is the VMM's, as the host sees it; killed, nobody holds the lock. */
    pid_t pid = (pid_t)atoi(read_text(jail_pid_file(vmm.jail)));
    assert_true(pid > 0 && pid != vmm.pid);
    assert_int_equal(kill(pid, SIGKILL), 0);
    expect_exit(128 + SIGKILL);
    assert_int_equal(flock(file, LOCK_EX | LOCK_NB), 0);
}

JAIL_MAIN(vmm_test(test_guest_with_a_drive_runs_in_the_jail), vmm_test(test_guest_runs_in_all_namespaces),
          cmocka_unit_test_setup_teardown(test_file_that_is_bound_into_a_running_jail_is_there, vmm_setup,
                                          bound_teardown),
          vmm_test(test_api_is_open_to_the_jails_group_when_both_say_so),
          vmm_test(test_api_is_the_jails_users_alone_unless_told_otherwise),
          vmm_test(test_api_serves_only_the_user_that_it_was_told),
          vmm_test(test_the_base_filter_stays_unless_it_is_refused_itself),
          vmm_test(test_guest_runs_in_a_vmm_that_a_link_names), vmm_test(test_guest_runs_for_uid_zero),
          vmm_test(test_guest_runs_from_a_config_file), vmm_test(test_console_ports_open_in_the_jail),
          vmm_test(test_guest_reaches_a_tap_of_the_network_namespace),
          vmm_test(test_guest_has_a_network_by_a_socket_in_the_jail),
          user_vmm_test(test_guest_has_a_network_by_a_socket_in_a_users_jail),
          user_vmm_test(test_guest_has_a_network_by_a_socket_in_a_reduced_jail),
          user_vmm_test(test_guest_with_a_drive_runs_in_a_users_jail),
          user_vmm_test(test_guest_runs_in_all_namespaces_of_a_user),
          vmm_test(test_a_vmm_that_lives_holds_its_pid_file))
