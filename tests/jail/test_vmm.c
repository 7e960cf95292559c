/* The real mayfly-vmm in the jail: it boots freestanding guests with every device, from the API and from a file. */
#include "tests/jail/vmm_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/clock.h"

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
          user_vmm_test(test_guest_with_a_drive_runs_in_a_users_jail),
          user_vmm_test(test_guest_runs_in_all_namespaces_of_a_user),
          vmm_test(test_a_vmm_that_lives_holds_its_pid_file))
