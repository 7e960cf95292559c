#include "scripts/bench_tool/counters.h"

#include "vmm/base/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SYSCALL, PORT, REGISTER, FAST_REGISTER, KINDS };
_Static_assert((int)KINDS == (int)COUNTERS_KINDS, "a number for each trace point");

static const char *const trace_points[KINDS] = {
    [SYSCALL] = "raw_syscalls/sys_enter",
    [PORT] = "kvm/kvm_pio",
    [REGISTER] = "kvm/kvm_mmio",
    /* Some processors tell a write to a registered address without its instruction being looked at. */
    [FAST_REGISTER] = "kvm/kvm_fast_mmio",
};

/* The folder of all trace points. A mount of our own: not every host has one where it belongs, and nobody else sees it.
 */
static int trace_folder(void)
{
    cleanup_fd int context = (int)syscall(SYS_fsopen, "tracefs", FSOPEN_CLOEXEC);

    if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    cleanup_fd int mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    return openat(mount, "events", O_DIRECTORY | O_CLOEXEC | O_RDONLY);
}

/* The number of a trace point, or 0. */
static unsigned trace_point(int folder, const char *name)
{
    char path[64], text[16] = "";

    snprintf(path, sizeof(path), "%s/id", name);
    cleanup_fd int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        return 0;
    return (unsigned)strtoul(text, NULL, 10);
}

static bool count_thread(struct counters *counters, pid_t thread, unsigned kind)
{
    struct perf_event_attr what = {
        .type = PERF_TYPE_TRACEPOINT,
        .size = sizeof(what),
        .config = counters->trace_points[kind],
        .inherit = 1,
    };

    if (what.config == 0 || counters->file_count == COUNTERS_FILES_MAX)
        return false;
    int fd = (int)syscall(SYS_perf_event_open, &what, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0)
        return false;
    counters->files[counters->file_count] = fd;
    counters->kinds[counters->file_count++] = kind;
    return true;
}

/* Calls `visit` with the folder in /proc of each thread; false when one of the calls was. */
static bool each_thread(pid_t pid, bool (*visit)(pid_t thread, const char *folder, void *data), void *data)
{
    char path[64];
    bool all = true;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char thread[sizeof(path) + sizeof(entry->d_name)];

        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(thread, sizeof(thread), "%s/%s", path, entry->d_name);
        all = visit((pid_t)strtol(entry->d_name, NULL, 10), thread, data) && all;
    }
    closedir(folder);
    return all;
}

static bool open_thread(pid_t thread, const char *folder, void *data)
{
    bool counted = true;

    (void)folder;
    for (unsigned kind = 0; kind < KINDS; kind++)
        counted = count_thread(data, thread, kind) && counted;
    return counted;
}

bool counters_open(struct counters *counters, pid_t pid)
{
    cleanup_fd int folder = trace_folder();

    *counters = (struct counters){.pid = pid};
    for (unsigned kind = 0; kind < KINDS; kind++)
        counters->trace_points[kind] = trace_point(folder, trace_points[kind]);
    return each_thread(pid, open_thread, counters);
}

void counters_close(struct counters *counters)
{
    while (counters->file_count > 0)
        close(counters->files[--counters->file_count]);
}

/* Mayfly's and Firecracker's virtual processors are called fc_vcpu 0..., QEMU's CPU 0/KVM... */
static bool is_vcpu(const char *folder)
{
    char path[512], name[32] = "";

    snprintf(path, sizeof(path), "%s/comm", folder);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    if (fgets(name, sizeof(name), file) == NULL)
        name[0] = '\0';
    fclose(file);
    return strstr(name, "vcpu") != NULL || strncmp(name, "CPU ", 4) == 0;
}

/* The first number of a thread's schedstat: nanoseconds on a processor. */
static bool add_time(pid_t thread, const char *folder, void *data)
{
    struct counts *counts = data;
    unsigned long long nanoseconds = 0;
    char path[512];

    (void)thread;
    snprintf(path, sizeof(path), "%s/schedstat", folder);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return true; /* it has ended */
    if (fscanf(file, "%llu", &nanoseconds) != 1)
        nanoseconds = 0;
    fclose(file);
    *(is_vcpu(folder) ? &counts->vcpu_us : &counts->cpu_us) += (double)nanoseconds / 1000;
    return true;
}

struct counts counters_read(const struct counters *counters)
{
    struct counts counts = {0};

    for (unsigned i = 0; i < counters->file_count; i++) {
        uint64_t count = 0;

        if (read(counters->files[i], &count, sizeof(count)) == sizeof(count))
            *(counters->kinds[i] == SYSCALL ? &counts.syscalls : &counts.exits) += count;
    }
    each_thread(counters->pid, add_time, &counts);
    return counts;
}
