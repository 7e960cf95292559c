/* Hosts made of a few files below a directory, for the tests of `mayfly doctor`. */
#pragma once

#include "tests/unit/harness.h"

#include "api/cli/doctor.h"

enum { FILES_MAX = 8, PATH_SIZE = 512 };

/* A list of files ends with {0}. */
struct file {
    const char *path, *text;
};

/* What a host answers instead of the kernel. Reset before each test by answers_reset, a set-up function for cmocka. */
extern struct answers {
    int open_error; /* of files that are there; for root they all are open, however it stands with their modes */
    int io_uring_error;
    int landlock_abi;
    struct kvm_probe probe;
} answers;
int answers_reset(void **state);

/* A host with only these files, at `root`, which it names. Give it back with host_remove. */
struct host host_make(char root[32], uid_t uid, const struct file *files);
void host_put(const char *root, const char *path, const char *text);
void host_remove(const char *root);

/* One host and what a check has to say of it. */
struct expectation {
    void (*look)(const struct host *host, struct finding *finding);
    struct file files[FILES_MAX];
    uid_t uid;
    enum verdict verdict;
    const char *found; /* a part of what is found */
    const char *mend;  /* a part of the command; NULL: there is none */
};

/* Makes each host in turn and holds the check's finding against what is expected. */
void expect_all(const struct expectation *expectations, size_t count);
#define EXPECT_ALL(expectations) expect_all(expectations, array_length(expectations))

/* Files that several tests want. */
#define DEBIAN                                                                                                         \
    {                                                                                                                  \
        "/etc/debian_version", "12.0\n"                                                                                \
    }
#define CPU_FLAGS(flags)                                                                                               \
    {                                                                                                                  \
        "/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu " flags " de\n\nprocessor\t: 1\n"                             \
    }

#define doctor_test(function) cmocka_unit_test_setup(function, answers_reset)
