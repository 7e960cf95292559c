/*
 * Runs the real mayfly-jailer: each test has a chroot base of its own, and knows what the jailer may have left behind.
 * The jailer is $MAYFLY_BUILD/release/mayfly-jailer; in place of the VMM it runs tests/jail/probe/, or whatever `exec`
 * says.
 */
#pragma once

#include "tests/unit/harness.h"

#include <stdbool.h>
#include <sys/types.h>

enum { JAIL_UID = 64123, JAIL_GID = 64124, JAIL_KVM_GROUP = 64125, JAIL_SUBORDINATE = 400000 };

struct jail {
    char directory[40]; /* of the test */
    char base[64];      /* --chroot-base-dir */
    char exec[256];     /* --exec-file */
    char exec_name[64];
    char id[72];
    unsigned uid;
    unsigned gid;
    bool as_user;              /* the jailer is started as JAIL_UID, with JAIL_KVM_GROUP as supplementary group */
    gid_t kvm_group;           /* who may then open /dev/kvm */
    bool etc;                  /* /etc/passwd, subuid and subgid are the test's own, in its directory */
    char jailer[256];          /* the program, when it is not the one in the build folder */
    void (*before_exec)(void); /* runs in the jailer's process before it is executed */
};

/* How a jailer ended. */
struct outcome {
    int status; /* of waitpid */
    char out[8192];
    char errors[8192];
};

/* main() as TEST_MAIN makes it; without root every test is skipped: all start as root, also those of an ordinary user.
 */
#define JAIL_MAIN(...)                                                                                                 \
    int main(void)                                                                                                     \
    {                                                                                                                  \
        struct CMUnitTest tests[] = {__VA_ARGS__};                                                                     \
        test_filter_from_environment();                                                                                \
        jail_skip_without_root(tests, array_length(tests));                                                            \
        return cmocka_run_group_tests(tests, NULL, NULL);                                                              \
    }
void jail_skip_without_root(struct CMUnitTest *tests, size_t count);

/* Each test starts with a jail in *state. Teardown removes all that is left of it. */
#define jail_test(function) cmocka_unit_test_setup_teardown(function, jail_setup, jail_teardown)
int jail_setup(void **state);
int jail_teardown(void **state);
/* The same for an ordinary user's jail: base and jailer are where that user can use them. */
#define user_test(function) cmocka_unit_test_setup_teardown(function, jail_setup_as_user, jail_teardown)
int jail_setup_as_user(void **state);

/* For before_exec: a seccomp filter as containers have it, under which no namespace can be made. */
void forbid_user_namespaces(void);

/* For before_exec: root's capabilities are these, or what the engines leave to it by default as far as it matters. */
void keep_capabilities(const int *kept, size_t count);
void keep_usual_capabilities(void);
/* And that with the filter: neither CAP_SYS_ADMIN nor namespaces. */
void become_root_of_a_container(void);
/*
 * A user's subordinate ids begin at JAIL_SUBORDINATE: newuidmap finds that in /etc (`etc`). The jail's uid and gid are
 * two of them from now on. The test is skipped without newuidmap.
 */
void give_subordinate_ids(struct jail *jail);

/* Runs the jailer with the five options that name the jail, and then those given; NULL ends them. */
void jail_run(const struct jail *jail, struct outcome *outcome, ...) __attribute__((sentinel));
/* Runs it with just these arguments. */
void jail_run_arguments(const struct jail *jail, struct outcome *outcome, const char *const *arguments);
/* Starts it and returns at once. */
pid_t jail_start(const struct jail *jail, int out, int errors, const char *const *arguments);
/* The arguments that jail_run makes; `arguments` has room for 64. */
void jail_arguments(const struct jail *jail, const char **arguments, const char *const *more);

/* Waits until the VMM is dead: until nobody holds the lock of its pid file. */
void jail_await_end(const struct jail *jail);

/* Fails the test unless the outcome is this. */
void assert_exited(const struct outcome *outcome, int code);
/* Exit code 1, and exactly this message on stderr. */
void assert_refused(const struct outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What the probe reported has this in it. */
void assert_reported(const struct outcome *outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Fails the test unless what is at `path` has just this mode and owner. */
void assert_mode(const char *path, mode_t mode, uid_t uid, gid_t gid);

/* What there is of the jail: paths valid until the eighth call after this one. */
const char *jail_path(const struct jail *jail, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *jail_root(const struct jail *jail, const char *name); /* <base>/<exec name>/<id>/root/<name> */
const char *jail_pid_file(const struct jail *jail);
/* The jail's cgroup of version 1: /sys/fs/cgroup/<controller>/<exec name>/<id>. */
const char *jail_cgroup(const struct jail *jail, const char *controller, const char *file);

/* Fails the test unless folder, cgroups and mounts are as if the jailer had never run. */
void assert_nothing_left(const struct jail *jail);
/* Removes folder and cgroups of the jail `id`, as `mayfly gc` will. */
void jail_remove(const struct jail *jail);
/* The whole of a small file, in a static buffer. */
const char *read_text(const char *path);
void write_text(const char *path, const char *text);
/* A program built from this folder. */
const char *jail_program(const char *name);
/* Copies the probe under another name into the test's directory. */
void copy_file(const char *from, const char *to, mode_t mode);
