/*
 * `mayfly doctor`: what a host must have, should have and should know before it runs other people's microVMs. Each
 * check looks at one matter and fills in a finding; doctor_checks is the table of them all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "api/cli/doctor_host.h"

/* In order of weight. */
enum verdict {
    VERDICT_OK,
    VERDICT_NOTE,    /* microVMs run, but slower, with a wall less, or not as any user */
    VERDICT_PROBLEM, /* they do not run, or one may reach the host or another */
    VERDICT_COUNT,
};

struct finding {
    enum verdict verdict;
    char found[384]; /* what is the case, in words; UTF-8 */
    char mend[512];  /* the shell command that mends it; "" when there is none, or nothing to mend */
};

struct doctor_check {
    const char *name;
    void (*look)(const struct host *host, struct finding *finding); /* gets a zeroed finding */
    const char *why;                                                /* it matters: one sentence */
};

extern const struct doctor_check doctor_checks[];
extern const size_t doctor_check_count;

/* For the checks. The text is cut where it does not fit. */
void finding_set(struct finding *finding, enum verdict verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void finding_mend(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The command that sets a sysctl now and at every boot. */
void finding_mend_sysctl(struct finding *finding, const char *key, const char *value);
/* The command that adds `words` to the kernel's command line and boots with them. */
void finding_mend_boot(const struct host *host, struct finding *finding, const char *words);
/* The command that gives /dev/<name> to the group kvm, now and at every boot, and `then` another one. */
void finding_mend_device(struct finding *finding, const char *name, const char *then);

/* The checks, by file. doctor_kvm.c: */
void check_kvm(const struct host *host, struct finding *finding);
void check_kvm_device(const struct host *host, struct finding *finding);
void check_nested(const struct host *host, struct finding *finding);
void check_kernel(const struct host *host, struct finding *finding);
/* doctor_jail.c: */
void check_cgroup(const struct host *host, struct finding *finding);
void check_cgroup_delegation(const struct host *host, struct finding *finding);
void check_user_namespaces(const struct host *host, struct finding *finding);
void check_landlock(const struct host *host, struct finding *finding);
void check_seccomp(const struct host *host, struct finding *finding);
/* doctor_leaks.c: */
void check_mitigations(const struct host *host, struct finding *finding);
void check_vulnerabilities(const struct host *host, struct finding *finding);
void check_smt(const struct host *host, struct finding *finding);
void check_ksm(const struct host *host, struct finding *finding);
void check_swap(const struct host *host, struct finding *finding);
/* doctor_resources.c: */
void check_open_files(const struct host *host, struct finding *finding);
void check_processes(const struct host *host, struct finding *finding);
void check_mappings(const struct host *host, struct finding *finding);
void check_overcommit(const struct host *host, struct finding *finding);
void check_huge_pages(const struct host *host, struct finding *finding);
void check_tun(const struct host *host, struct finding *finding);
void check_vhost_net(const struct host *host, struct finding *finding);
void check_vsock(const struct host *host, struct finding *finding);
void check_io_uring(const struct host *host, struct finding *finding);
void check_userfaultfd(const struct host *host, struct finding *finding);

struct examination {
    const struct doctor_check *check;
    struct finding finding;
};

/*
 * One finding, readable: a line, and for anything but VERDICT_OK (with `verbose` always) why it matters and what mends
 * it. On a terminal (`columns` > 0) in colours and wrapped at `columns`, commands excepted.
 */
void doctor_print(FILE *to, const struct examination *examination, bool verbose, unsigned columns);
/* The last line: how many of each verdict. */
void doctor_print_total(FILE *to, const size_t counts[VERDICT_COUNT]);
/* All of them as one line of JSON. False when a finding is not UTF-8 or there is no memory. */
bool doctor_print_json(FILE *to, const struct examination *examinations, size_t count,
                       const size_t counts[VERDICT_COUNT]);
