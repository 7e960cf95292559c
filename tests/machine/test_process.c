/*
 * What the process does besides running its guest: the terminal on its stdin, signals, memory for large requests, other
 * users. With the rest of these tests it makes happen whatever the seccomp rules allow.
 */
#include "tests/machine/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "api/client/connect.h"
#include "vmm/base/clock.h"

enum { DISK_SIZE = 32 << 20 };

static void need_root(const char *what)
{
    if (geteuid() != 0) {
        print_message("skipped: %s needs root\n", what);
        skip();
    }
}

/* --- The terminal --- */

static int terminal_slave = -1;

/* In the child: a session of its own, whose terminal is its stdin. */
static void take_terminal(void)
{
    if (setsid() < 0 || dup2(terminal_slave, STDIN_FILENO) < 0 || ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
        _exit(120);
}

static bool terminal_is_raw(int master)
{
    struct termios termios;

    assert_int_equal(tcgetattr(master, &termios), 0);
    return (termios.c_lflag & (tcflag_t)(ICANON | ECHO)) == 0;
}

/* A guest that spins, started from a terminal. The master's side is returned. */
static int start_on_terminal(struct vm **vm)
{
    int master;

    assert_int_equal(openpty(&master, &terminal_slave, NULL, NULL, NULL), 0);
    *vm = vm_start_with(&(struct machine_options){.before_exec = take_terminal});
    assert_false(terminal_is_raw(master));
    vm_boot(*vm, "spin", NULL);
    vm_expect(*vm, "spinning\n");
    assert_true(terminal_is_raw(master));
    return master;
}

static void test_terminal_is_raw_until_the_guest_ends(void **state)
{
    struct vm *vm;
    cleanup_fd int master = start_on_terminal(&vm);

    (void)state;
    assert_int_equal(write(master, "pq", 2), 2);
    vm_expect(vm, "count ");
    vm_expect_exit(vm, 0);
    assert_false(terminal_is_raw(master));
    fd_close(&terminal_slave);
}

static void test_terminal_is_restored_when_the_vmm_is_terminated(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGQUIT};

    (void)state;
    for (size_t i = 0; i < array_length(signals); i++) {
        struct vm *vm;
        cleanup_fd int master = start_on_terminal(&vm);

        kill(vm->pid, signals[i]);
        vm_expect_killed(vm, signals[i]);
        assert_false(terminal_is_raw(master));
        fd_close(&terminal_slave);
        machine_teardown(NULL);
    }
}

static void test_terminal_is_restored_when_it_hangs_up(void **state)
{
    struct vm *vm;
    cleanup_fd int master = start_on_terminal(&vm);

    (void)state;
    kill(vm->pid, SIGHUP);
    vm_expect_exit(vm, 156);
    assert_false(terminal_is_raw(master));
    fd_close(&terminal_slave);
}

/* --- Signals --- */

static void test_broken_pipe_signal_is_survived(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    kill(vm->pid, SIGPIPE);
    free(vm_get(vm, "/"));
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    kill(vm->pid, SIGPIPE);
    free(vm_get(vm, "/"));
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_hang_up_ends_the_vmm_with_its_own_code(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    kill(vm->pid, SIGHUP);
    vm_expect_exit(vm, 156);
    vm_expect_log(vm, "[test:main] SIGHUP");
}

static bool uart_has_lost_output(const struct vm *vm)
{
    FILE *metrics = fopen(vm_path(vm, "metrics"), "re");
    cleanup_free char *line = NULL;
    size_t size = 0;
    bool lost = false;

    assert_non_null(metrics);
    while (!lost && getline(&line, &size, metrics) > 0) {
        const char *uart = strstr(line, "\"uart\":{");
        const char *count = uart == NULL ? NULL : strstr(uart, "\"missed_write_count\":");

        assert_non_null(count);
        lost = strtoull(strchr(count, ':') + 1, NULL, 10) > 0;
    }
    fclose(metrics);
    return lost;
}

/* Its stdout is full and nobody reads: it must not wait for that. */
static void test_vmm_whose_output_is_stuck_can_be_terminated(void **state)
{
    struct vm *vm = vm_start();
    char path[64], junk[4096] = {0};

    (void)state;
    vm_put(vm, "/metrics", "{\"metrics_path\":\"%s\"}", vm_path(vm, "metrics"));
    vm_put(vm, "/logger", "{\"level\":\"Warning\"}"); /* not every FlushMetrics */
    vm_boot(vm, "hammer", "what=serial for_ever");
    vm_expect(vm, "hammering\n");
    /* The guest would take a minute to fill the pipe: we do it, from the VMM's end. */
    snprintf(path, sizeof(path), "/proc/%d/fd/1", vm->pid);
    cleanup_fd int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        print_message("skipped: cannot open the VMM's stdout: %s\n", strerror(errno));
        skip();
    }
    while (write(fd, junk, sizeof(junk)) > 0 || write(fd, junk, 1) > 0)
        ;
    /* What waits in the UART has no room left. */
    while (!uart_has_lost_output(vm))
        vm_action(vm, "FlushMetrics");
    kill(vm->pid, SIGTERM);
    vm_expect_killed(vm, SIGTERM);
}

/* --- Memory --- */

enum { PROPERTIES_MAX = 64, PROPERTY = 132000, CALLERS = 9, BODY = 300000, SMALL_BODY = 45000 };

/* PUT /metrics with `count` properties of 132000 bytes: the heap keeps book of each by itself. */
static void put_properties(struct vm *vm, int count)
{
    cleanup_free char *body = malloc(PROPERTIES_MAX * (PROPERTY + 32) + 256);
    char *at = body;

    at += sprintf(at, "{\"metrics_path\":\"%s\",\"properties\":{", vm_path(vm, "metrics"));
    for (int i = 0; i < count; i++) {
        at += sprintf(at, "%s\"p%d\":\"", i > 0 ? "," : "", i);
        memset(at, 'a' + i % 26, PROPERTY);
        at += PROPERTY;
        *at++ = '"';
    }
    strcpy(at, "}}");

    struct api_response response;
    assert_no_error(api_client_request(vm->api, "PUT", "/metrics", body, strlen(body), &response));
    if (response.status != 204)
        vm_fail(vm, "PUT /metrics: %u %s", response.status, response.body);
    api_response_free(&response);
}

/* A caller that has sent all of a body of `length` bytes but the last, and waits. */
static int call_at_length(struct vm *vm, size_t length)
{
    static char body[BODY];
    char head[128];
    int fd;

    assert_no_error(socket_connect_when_ready(vm->api_path, vm->process_fd,
                                              clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull, &fd));
    memset(body, ' ', sizeof(body));
    snprintf(head, sizeof(head), "PUT /logger HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", length);
    assert_int_equal(send(fd, head, strlen(head), MSG_NOSIGNAL), strlen(head));
    for (size_t sent = 0; sent < length - 1;) {
        ssize_t more = send(fd, body + sent, length - 1 - sent, MSG_NOSIGNAL);

        assert_true(more > 0);
        sent += (size_t)more;
    }
    return fd;
}

/* Nine bodies in memory at once, then none. */
static void hold_bodies(struct vm *vm, size_t length)
{
    int callers[CALLERS];

    for (size_t i = 0; i < CALLERS; i++)
        callers[i] = call_at_length(vm, length);
    vm_action(vm, "FlushMetrics");
    for (size_t i = 0; i < CALLERS; i++)
        close(callers[i]);
    vm_action(vm, "FlushMetrics");
}

/* From little to much memory in use at the start: wherever the heap has to grow, it may. */
static void test_heap_grows_before_and_after_the_start(void **state)
{
    (void)state;
    for (int count = 40; count <= PROPERTIES_MAX; count += 8) {
        struct vm *vm = vm_start_with(
            &(struct machine_options){.arguments = (const char *[]){"--http-api-max-payload-size", "10000000", NULL}});

        put_properties(vm, count);
        vm_boot(vm, "spin", NULL);
        vm_expect(vm, "spinning\n");
        hold_bodies(vm, BODY);
        hold_bodies(vm, SMALL_BODY);
        vm_say(vm, "q");
        vm_expect_exit(vm, 0);
        machine_teardown(NULL);
    }
}

/* Sizes that come and go often make musl keep their memory, and tell the kernel that it may take the pages. */
static void test_bodies_of_one_size_come_and_go(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    for (int i = 0; i < 30; i++)
        hold_bodies(vm, SMALL_BODY);
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

/* It gets its answer although it goes on sending. */
static void test_too_large_a_request_is_answered(void **state)
{
    struct vm *vm = vm_start();
    char answer[256] = "";

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    cleanup_fd int fd = call_at_length(vm, BODY);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, MACHINE_PATIENCE_MS), 1);
    assert_true(recv(fd, answer, sizeof(answer) - 1, 0) > 0);
    assert_memory_equal(answer, "HTTP/1.1 400 ", 13);
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_huge_pages_may_be_transparent(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64,\"huge_pages\":\"Transparent\"}");
    vm_boot(vm, "hello", NULL);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

/* --- A VM that is not wanted any more --- */

/* Whether a thread of the VMM has this name. */
static bool has_thread(const struct vm *vm, const char *wanted)
{
    char path[64], name[17];
    bool found = false;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/task", vm->pid);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    while (!found && (entry = readdir(tasks)) != NULL) {
        snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", vm->pid, atoi(entry->d_name));
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);

        if (got > 0) {
            name[got] = '\0';
            name[strcspn(name, "\n")] = '\0';
            found = strcmp(name, wanted) == 0;
        }
    }
    closedir(tasks);
    return found;
}

static void test_vm_that_is_prepared_gives_way_to_another(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":64}");
    while (!has_thread(vm, "fc_vcpu 1"))
        sched_yield();
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":32}");
    while (has_thread(vm, "fc_vcpu 1"))
        sched_yield();
    vm_boot(vm, "hello", NULL);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

static void test_process_and_threads_have_the_names_that_tools_look_for(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.name = "/usr/bin/firecracker"});

    (void)state;
    assert_true(has_thread(vm, "firecracker"));
    vm_put(vm, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":32}");
    vm_boot(vm, "spin", NULL);
    while (!has_thread(vm, "fc_vcpu 0") || !has_thread(vm, "fc_vcpu 1"))
        sched_yield();
}

/* --- Peers of a console's port --- */

static int connect_port(struct vm *vm)
{
    int fd;

    assert_no_error(socket_connect_when_ready(vm_path(vm, "port"), vm->process_fd,
                                              clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull, &fd));
    return fd;
}

/* A peer that leaves bytes which nobody takes, and the one that takes its place. */
static void leave_and_return(struct vm *vm)
{
    int fd = connect_port(vm);

    assert_int_equal(write(fd, "unread", 6), 6);
    close(fd);
    free(vm_get(vm, "/"));
    fd = connect_port(vm);
    free(vm_get(vm, "/"));
    close(fd);
    free(vm_get(vm, "/"));
}

static void test_socket_that_nobody_listens_on_is_replaced(void **state)
{
    struct vm *vm = vm_start();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    strcpy(address.sun_path, vm_path(vm, "port"));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    fd_close(&fd);
    vm_put(vm, "/mayfly/console", "{\"ports\":[{\"name\":\"port\",\"socket_path\":\"%s\"}]}", vm_path(vm, "port"));
    close(connect_port(vm));
}

static void test_peers_come_and_go_without_a_driver(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/mayfly/console", "{\"ports\":[{\"name\":\"port\",\"socket_path\":\"%s\"}]}", vm_path(vm, "port"));
    leave_and_return(vm);
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    leave_and_return(vm);
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

/* --- Disks --- */

static void test_disk_is_reset_with_requests_in_flight(void **state)
{
    static const char *const engines[] = {"Async", "Sync"};

    (void)state;
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vm *vm = vm_start();
        const char *path = vm_file(vm, "disk", DISK_SIZE, 'd');
        cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC);
        char members[64], byte;

        /* On the disk and not in the page cache, so that reading it takes its time; but for the first page. */
        assert_true(fd >= 0);
        assert_int_equal(fsync(fd), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
        assert_int_equal(pread(fd, &byte, 1, 0), 1);

        snprintf(members, sizeof(members), ",\"cache_type\":\"Writeback\",\"io_engine\":\"%s\"", engines[i]);
        vm_drive(vm, "disk", path, members);
        vm_boot(vm, "abandon", NULL);
        vm_expect(vm, "abandoned\nwrite 0\n");
        vm_expect_exit(vm, 0);
        assert_int_equal(pread(fd, &byte, 1, 0), 1);
        assert_int_equal(byte, 'w');
        machine_teardown(NULL);
    }
}

/* --- Another user --- */

/* In the child: the user nobody, with a /dev/kvm that everybody may open. */
static void become_nobody_with_kvm(void)
{
    struct stat kvm;

    if (stat("/dev/kvm", &kvm) != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("none", "/mnt", "tmpfs", 0, NULL) != 0 ||
        mknod("/mnt/kvm", S_IFCHR | 0666, kvm.st_rdev) != 0 || chmod("/mnt/kvm", 0666) != 0 ||
        mount("/mnt/kvm", "/dev/kvm", NULL, MS_BIND, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0)
        _exit(120);
}

static void test_ordinary_user_runs_a_guest(void **state)
{
    char path[] = "/tmp/mayfly-test-config-XXXXXX";
    cleanup_fd int fd = mkstemp(path);

    (void)state;
    need_root("becoming another user");
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0644), 0);
    dprintf(fd, "{\"boot-source\":{\"kernel_image_path\":\"%s\"}}", guest_image("hello"));

    /* Without an API: its socket would lie in a directory of root's. */
    struct vm *vm = vm_start_with(
        &(struct machine_options){.no_api = true,
                                  .no_log_path = true,
                                  .before_exec = become_nobody_with_kvm,
                                  .unjailed = "an ordinary user's jail is tested in tests/jail/test_rootless",
                                  .arguments = (const char *[]){"--no-api", "--config-file", path, NULL}});
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
    unlink(path);
}

TEST_MAIN(machine_test(test_terminal_is_raw_until_the_guest_ends),
          machine_test(test_terminal_is_restored_when_the_vmm_is_terminated),
          machine_test(test_terminal_is_restored_when_it_hangs_up), machine_test(test_broken_pipe_signal_is_survived),
          machine_test(test_hang_up_ends_the_vmm_with_its_own_code),
          machine_test(test_vmm_whose_output_is_stuck_can_be_terminated),
          machine_test(test_heap_grows_before_and_after_the_start), machine_test(test_bodies_of_one_size_come_and_go),
          machine_test(test_too_large_a_request_is_answered), machine_test(test_huge_pages_may_be_transparent),
          machine_test(test_vm_that_is_prepared_gives_way_to_another),
          machine_test(test_process_and_threads_have_the_names_that_tools_look_for),
          machine_test(test_socket_that_nobody_listens_on_is_replaced),
          machine_test(test_peers_come_and_go_without_a_driver),
          machine_test(test_disk_is_reset_with_requests_in_flight), machine_test(test_ordinary_user_runs_a_guest))
