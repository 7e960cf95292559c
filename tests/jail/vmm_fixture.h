/* The real mayfly-vmm in a jail: prepared, started, driven by its API. One a test. */
#pragma once

#include "tests/jail/jail.h"
#include "tests/machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/client/client.h"
#include "api/client/connect.h"

static struct {
    struct jail *jail;
    pid_t pid;
    int process_fd;
    int out;
    char output[1 << 16];
    size_t length;
    struct api_client *api;
} vmm;

static inline int prepare_vmm(void **state)
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

static inline int vmm_setup(void **state)
{
    return jail_setup(state) != 0 ? -1 : prepare_vmm(state);
}

static inline int vmm_setup_as_user(void **state)
{
    return jail_setup_as_user(state) != 0 ? -1 : prepare_vmm(state);
}

static inline int vmm_teardown(void **state)
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

static inline void make_folder(const char *path)
{
    mkdir(path, 0755);
    if (vmm.jail->as_user)
        assert_int_equal(chown(path, JAIL_UID, JAIL_GID), 0);
}

/* A file in the jail's root, of the jail's user, as a caller prepares it. */
static inline void prepare(const char *name, const char *from, size_t size)
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

static inline void start(const char *const *more)
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

static inline void connect_api(void)
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

static inline void put(const char *path, const char *json)
{
    struct api_response response;

    assert_no_error(api_client_request(vmm.api, "PUT", path, json, strlen(json), &response));
    if (response.status / 100 != 2)
        fail_msg("PUT %s %s: %u %s", path, json, response.status, response.body);
    api_response_free(&response);
}

static inline void boot_from(const char *kernel, const char *boot_arguments)
{
    char json[512];

    snprintf(json, sizeof(json), "{\"kernel_image_path\":\"%s\",\"boot_args\":\"%s\"}", kernel, boot_arguments);
    put("/boot-source", json);
    put("/actions", "{\"action_type\":\"InstanceStart\"}");
}

static inline void boot(const char *boot_arguments)
{
    boot_from("/vmlinux", boot_arguments);
}

/* Waits until the VMM's output has `text`. */
static inline void expect(const char *text)
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

static inline void expect_exit(int code)
{
    int status;

    assert_int_equal(waitpid(vmm.pid, &status, 0), vmm.pid);
    vmm.pid = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        fail_msg("status %#x, expected exit code %d:\n%s", (unsigned)status, code, vmm.output);
}

#define ALL_NAMESPACES "--new-pid-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns", "--new-time-ns"
#define TO_API "--", "--api-sock", "/run/x.sock"
