/*
 * Drives the real mayfly-vmm: starts the process in a directory of its own, talks to its API, listens to the serial
 * port, waits for its end. Every wait has a deadline; a wait that fails shows the serial output and the log, and fails
 * the test.
 *
 * The VMM is $MAYFLY_VMM, by default build/release/mayfly-vmm; guests come from $MAYFLY_BUILD/guests. With
 * $MAYFLY_JAILED set the jailer starts it (jailed.h).
 */
#pragma once

#include "tests/unit/harness.h"

#include <stdbool.h>
#include <sys/types.h>

#include "api/client/client.h"

enum { MACHINE_PATIENCE_MS = 30000 };

struct machine_options {
    const char *name;             /* what the VMM is called as; NULL: mayfly-vmm */
    const char *const *arguments; /* more arguments for mayfly-vmm; NULL-terminated */
    void (*before_exec)(void);    /* runs in the child: namespaces, limits */
    bool no_api;                  /* do not connect (nor pass --api-sock) */
    bool no_log_path;             /* the log stays on stderr, which goes to the same file */
    bool stdin_closed;
    const char *shows;    /* what before_exec made, or a device: a jail has it at the same path */
    const char *unjailed; /* why this cannot be tested in a jail; NULL: it can */
};

struct vm {
    char directory[40]; /* in it "shared", which a jailed VMM may only read: kernels there are mapped */
    char api_path[64];
    pid_t pid;
    int process_fd; /* pidfd */
    int serial_in;  /* the VMM's stdin, -1 when closed */
    int serial_out; /* the VMM's stdout */
    struct api_client *api;
    char *output; /* all that came from stdout */
    size_t output_length;
    size_t output_seen; /* what vm_expect has passed */
    bool ended;
    int status; /* of waitpid, once ended */
};

/* Each test starts with no VM and may start several; teardown kills and removes what is left of them. */
#define machine_test(function) cmocka_unit_test_teardown(function, machine_teardown)
int machine_teardown(void **state);

struct vm *vm_start(void);
struct vm *vm_start_with(const struct machine_options *options);
/* Fails the test, showing what the VM said. */
void vm_fail(struct vm *vm, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* Requests that must succeed (2xx). `json` may have printf conversions. */
void vm_put(struct vm *vm, const char *path, const char *json, ...) __attribute__((format(printf, 3, 4)));
void vm_patch(struct vm *vm, const char *path, const char *json, ...) __attribute__((format(printf, 3, 4)));
void vm_action(struct vm *vm, const char *action_type);
/* A request that must answer 400 with a fault that contains `text`. */
void vm_refuses(struct vm *vm, const char *method, const char *path, const char *json, const char *text);
/* The body of a GET that succeeds; the caller frees it. */
char *vm_get(struct vm *vm, const char *path);
/* A connection of the caller's own to the API socket. */
int vm_dial(struct vm *vm);

/* PUT /boot-source with a guest of tests/guest; `cmdline` may be NULL. */
void vm_boot_source(struct vm *vm, const char *guest, const char *cmdline);
/* The same and InstanceStart. */
void vm_boot(struct vm *vm, const char *guest, const char *cmdline);
/* PUT /drives with a file; `more` is further members, beginning with a comma, or "". */
void vm_drive(struct vm *vm, const char *id, const char *path, const char *more);

/* Waits until the serial output (after the last such match) contains `text`. */
void vm_expect(struct vm *vm, const char *text);
/* Sends bytes to the serial port. */
void vm_say(struct vm *vm, const char *bytes);
/* Waits for the end of the process, which must have exited with `code` (been killed by `signal`). */
void vm_expect_exit(struct vm *vm, int code);
void vm_expect_killed(struct vm *vm, int signal);
/* The log so far; the caller frees it. */
char *vm_log(const struct vm *vm);
void vm_expect_log(struct vm *vm, const char *text);
/* Waits until the log says it (as often as that). */
void vm_await_log(struct vm *vm, const char *text);
void vm_await_log_times(struct vm *vm, const char *text, unsigned times);

/*
 * /proc/<process>/<name>; valid until the next call. Skips the test where only root may look into the VMM, which is
 * undumpable.
 */
const char *vm_proc(const struct vm *vm, const char *name);
/*
 * What the process takes of the host's memory, in MiB, but for pages of files, which it shares with processes that come
 * and go. Skips as vm_proc does.
 */
unsigned long vm_pss_mib(const struct vm *vm);

/* A path in the VM's directory; valid until the eighth call after this one. */
const char *vm_path(const struct vm *vm, const char *name);
/* Makes a file of `size` bytes there, filled with `fill`; returns its path. */
const char *vm_file(const struct vm *vm, const char *name, size_t size, char fill);
/* A stream socket that listens there, close-on-exec. */
int vm_listen(const struct vm *vm, const char *name);
/* The ELF image of a guest. */
const char *guest_image(const char *guest);
