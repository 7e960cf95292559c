#include "tests/machine/jailed.h"

#include "vmm/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VMS_MAX = 16, ARGUMENTS_MAX = 32, OUTPUT_MAX = 64 << 20, LEAVE_PATIENCE_MS = 2000 };

static struct vm *vms[VMS_MAX];

static uint64_t deadline(void)
{
    return clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;
}

/* poll(2) until `deadline_us`; false when it passed. */
static bool wait_readable(int fd, uint64_t deadline_us)
{
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        uint64_t now = clock_monotonic_us();
        int ready;

        if (now >= deadline_us)
            return false;
        ready = poll(&wait, 1, (int)((deadline_us - now + 999) / 1000));
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

static const char *vmm_path(void)
{
    const char *path = getenv("MAYFLY_VMM");

    return path != NULL ? path : "build/release/mayfly-vmm";
}

/* A VMM of the coverage build counts what ran as it leaves. */
static void leave(const struct vm *vm)
{
    struct pollfd process = {.fd = vm->process_fd, .events = POLLIN};

    kill(vm->pid, SIGTERM);
    poll(&process, 1, LEAVE_PATIENCE_MS);
}

static void vm_free(struct vm *vm)
{
    api_client_free(vm->api);
    if (!vm->ended) {
        if (strstr(vmm_path(), "/coverage/") != NULL)
            leave(vm);
        kill(vm->pid, SIGKILL);
        waitpid(vm->pid, NULL, 0);
    }
    fd_close(&vm->process_fd);
    fd_close(&vm->serial_in);
    fd_close(&vm->serial_out);
    test_remove(vm->directory);
    if (machine_is_jailed())
        jailed_remove(vm);
    free(vm->output);
    free(vm);
}

int machine_teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < VMS_MAX; i++) {
        if (vms[i] != NULL)
            vm_free(vms[i]);
        vms[i] = NULL;
    }
    return 0;
}

const char *guest_image(const char *guest)
{
    static char paths[4][256];
    static unsigned next;
    const char *build = getenv("MAYFLY_BUILD");
    char *path = paths[next++ % array_length(paths)];

    snprintf(path, sizeof(paths[0]), "%s/guests/%s.elf", build != NULL ? build : "build", guest);
    return path;
}

const char *vm_path(const struct vm *vm, const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % array_length(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", vm->directory, name);
    return path;
}

const char *vm_file(const struct vm *vm, const char *name, size_t size, char fill)
{
    const char *path = vm_path(vm, name);
    cleanup_free char *bytes = malloc(size);
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    memset(bytes, fill, size);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    return path;
}

int vm_listen(const struct vm *vm, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", vm_path(vm, name));
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static const char *jailer_path(void)
{
    static char path[256];
    const char *build = getenv("MAYFLY_BUILD");

    snprintf(path, sizeof(path), "%s/release/mayfly-jailer", build != NULL ? build : "build");
    return path;
}

static void child(const struct machine_options *options, const char *program, char **arguments, int in, int out,
                  int err)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(126);
    if (options->stdin_closed)
        close(STDIN_FILENO);
    else if (dup2(in, STDIN_FILENO) < 0)
        _exit(126);
    if (options->before_exec != NULL)
        options->before_exec();
    execv(program, arguments);
    dprintf(STDERR_FILENO, "cannot execute %s: %s\n", program, strerror(errno));
    _exit(127);
}

static void spawn(struct vm *vm, const struct machine_options *options)
{
    const char *log = vm_path(vm, "log");
    char *arguments[ARGUMENTS_MAX] = {(char *)"mayfly-vmm", (char *)"--id", (char *)"test"};
    size_t count = 3;
    char *jailer[JAILED_ARGUMENTS_MAX];
    cleanup_free char *text = NULL;
    int in[2], out[2];
    cleanup_fd int err = -1;

    if (options->name != NULL)
        arguments[0] = (char *)(uintptr_t)options->name;
    if (!options->no_log_path) {
        arguments[count++] = (char *)"--log-path";
        arguments[count++] = (char *)(uintptr_t)log;
    }
    if (!options->no_api) {
        arguments[count++] = (char *)"--api-sock";
        arguments[count++] = vm->api_path;
    }
    for (size_t i = 0; options->arguments != NULL && options->arguments[i] != NULL; i++) {
        assert_true(count + 1 < ARGUMENTS_MAX);
        arguments[count++] = (char *)(uintptr_t)options->arguments[i];
    }
    if (machine_is_jailed())
        jailed_arguments(vm, options, vmm_path(), arguments, jailer, &text);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    err = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(err >= 0);
    vm->pid = fork();
    if (vm->pid == 0)
        child(options, machine_is_jailed() ? jailer_path() : vmm_path(), machine_is_jailed() ? jailer : arguments,
              in[0], out[1], err);
    assert_true(vm->pid > 0);
    close(in[0]);
    close(out[1]);
    vm->serial_in = in[1];
    vm->serial_out = out[0];
    if (options->stdin_closed)
        fd_close(&vm->serial_in);
    vm->process_fd = (int)syscall(SYS_pidfd_open, vm->pid, 0);
    assert_true(vm->process_fd >= 0);
}

struct vm *vm_start_with(const struct machine_options *options)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    size_t slot = 0;
    struct error *error;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        print_message("skipped: /dev/kvm cannot be opened: %s\n", strerror(errno));
        free(vm);
        skip();
    }
    if (machine_is_jailed() && options->unjailed != NULL) {
        print_message("skipped: not in a jail: %s\n", options->unjailed);
        free(vm);
        skip();
    }
    while (slot < VMS_MAX && vms[slot] != NULL)
        slot++;
    assert_true(slot < VMS_MAX);
    strcpy(vm->directory, "/tmp/mayfly-test-XXXXXX");
    assert_non_null(mkdtemp(vm->directory));
    snprintf(vm->api_path, sizeof(vm->api_path), "%s/api.sock", vm->directory);
    assert_int_equal(mkdir(vm_path(vm, "shared"), 0755), 0);
    spawn(vm, options);
    vms[slot] = vm;
    if (options->no_api)
        return vm;
    error = api_client_connect(vm->api_path, vm->process_fd, MACHINE_PATIENCE_MS, &vm->api);
    if (error != NULL)
        vm_fail(vm, "no API: %s", error->message);
    api_client_set_timeout(vm->api, MACHINE_PATIENCE_MS);
    return vm;
}

struct vm *vm_start(void)
{
    return vm_start_with(&(struct machine_options){0});
}

/* Takes what has come from the serial port; false at its end. Blocks unless there is something. */
static bool read_output(struct vm *vm)
{
    char bytes[4096];
    ssize_t got = read(vm->serial_out, bytes, sizeof(bytes));

    if (got < 0 && errno == EINTR)
        return true;
    if (got <= 0 || vm->output_length + (size_t)got > OUTPUT_MAX)
        return false;
    vm->output = realloc(vm->output, vm->output_length + (size_t)got + 1);
    memcpy(vm->output + vm->output_length, bytes, (size_t)got);
    vm->output_length += (size_t)got;
    vm->output[vm->output_length] = '\0';
    return true;
}

char *vm_log(const struct vm *vm)
{
    cleanup_fd int fd = open(vm_path(vm, "log"), O_RDONLY | O_CLOEXEC);
    struct stat status;
    char *text;
    ssize_t got;

    if (fd < 0 || fstat(fd, &status) != 0)
        return strdup("");
    text = calloc(1, (size_t)status.st_size + 1);
    got = read(fd, text, (size_t)status.st_size);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

void vm_fail(struct vm *vm, const char *format, ...)
{
    char message[1024];
    char *log = vm_log(vm);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    print_error("--- serial output (%zu bytes):\n%.4000s\n--- log:\n%.8000s\n---\n", vm->output_length,
                vm->output != NULL ? vm->output : "", log);
    free(log);
    fail_msg("%s", message);
    abort(); /* not reached: fail_msg jumps */
}

void vm_expect(struct vm *vm, const char *text)
{
    uint64_t until = deadline();

    for (;;) {
        char *found = vm->output == NULL ? NULL : strstr(vm->output + vm->output_seen, text);

        if (found != NULL) {
            vm->output_seen = (size_t)(found - vm->output) + strlen(text);
            return;
        }
        if (!wait_readable(vm->serial_out, until))
            vm_fail(vm, "\"%s\" did not come within %d ms", text, MACHINE_PATIENCE_MS);
        if (!read_output(vm))
            vm_fail(vm, "the serial output ended before \"%s\"", text);
    }
}

void vm_say(struct vm *vm, const char *bytes)
{
    assert_int_equal(write(vm->serial_in, bytes, strlen(bytes)), strlen(bytes));
}

static void await_end(struct vm *vm)
{
    uint64_t until = deadline();
    int status;

    /* Its output first: a full pipe would keep it from ending. */
    for (;;) {
        struct pollfd wait[] = {{.fd = vm->serial_out, .events = POLLIN}, {.fd = vm->process_fd, .events = POLLIN}};
        uint64_t now = clock_monotonic_us();

        if (now >= until)
            vm_fail(vm, "the process did not end within %d ms", MACHINE_PATIENCE_MS);
        if (poll(wait, 2, (int)((until - now + 999) / 1000)) < 0 && errno != EINTR)
            vm_fail(vm, "poll: %s", strerror(errno));
        if (wait[0].revents != 0 && !read_output(vm))
            fd_close(&vm->serial_out);
        else if (wait[0].revents == 0 && wait[1].revents != 0)
            break;
    }
    assert_int_equal(waitpid(vm->pid, &status, 0), vm->pid);
    vm->ended = true;
    vm->status = status;
}

void vm_expect_exit(struct vm *vm, int code)
{
    await_end(vm);
    if (!WIFEXITED(vm->status) || WEXITSTATUS(vm->status) != code)
        vm_fail(vm, "ended with status 0x%x, expected exit code %d", vm->status, code);
}

void vm_expect_killed(struct vm *vm, int signal)
{
    await_end(vm);
    if (!WIFSIGNALED(vm->status) || WTERMSIG(vm->status) != signal)
        vm_fail(vm, "ended with status 0x%x, expected signal %d", vm->status, signal);
}

void vm_expect_log(struct vm *vm, const char *text)
{
    char *log = vm_log(vm);
    bool found = strstr(log, text) != NULL;

    free(log);
    if (!found)
        vm_fail(vm, "the log does not say \"%s\"", text);
}

const char *vm_proc(const struct vm *vm, const char *name)
{
    static char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", vm->pid, name);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && geteuid() != 0 && (errno == EACCES || errno == EPERM)) {
        print_message("skipped: /proc/<process>/%s of the VMM, which is undumpable, is root's\n", name);
        skip();
    }
    return path;
}

unsigned long vm_pss_mib(const struct vm *vm)
{
    cleanup_free char *line = NULL;
    size_t size = 0;
    unsigned long kib = 0;

    FILE *file = fopen(vm_proc(vm, "smaps_rollup"), "re");
    assert_non_null(file);
    while (getline(&line, &size, file) > 0)
        if (strncmp(line, "Pss_Anon:", 9) == 0)
            kib += strtoul(line + 9, NULL, 10);
        else if (strncmp(line, "Pss_Shmem:", 10) == 0)
            kib += strtoul(line + 10, NULL, 10);
    fclose(file);
    return kib >> 10;
}

void vm_await_log_times(struct vm *vm, const char *text, unsigned times)
{
    uint64_t deadline = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;
    unsigned said = 0;

    while (said < times && clock_monotonic_us() < deadline) {
        cleanup_free char *log = vm_log(vm);

        said = 0;
        for (const char *found = log; (found = strstr(found, text)) != NULL; found++)
            said++;
        free(vm_get(vm, "/version"));
    }
    if (said < times)
        vm_fail(vm, "the log says \"%s\" %u times, not %u", text, said, times);
}

void vm_await_log(struct vm *vm, const char *text)
{
    vm_await_log_times(vm, text, 1);
}
