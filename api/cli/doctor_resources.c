/* How much the host gives, and the devices that some microVMs want. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "api/cli/doctor.h"

enum {
    NO_FILE_DEFAULT = 2048, /* what the jailer sets unless it is told otherwise */
    PROCESSES_FEW = 1024,
    PID_MAX_SMALL = 32768, /* the kernel's own default */
    MAP_COUNT_DEFAULT = 65530,
};

void check_open_files(const struct host *host, struct finding *finding)
{
    uint64_t soft, hard;

    if (!host_limit(host, "Max open files", &soft, &hard)) {
        finding_set(finding, VERDICT_NOTE, "the limit is unknown: /proc/self/limits does not tell it");
    } else if (hard < NO_FILE_DEFAULT) {
        finding_set(finding, host->uid == 0 ? VERDICT_NOTE : VERDICT_PROBLEM,
                    "at most %" PRIu64 " a process; the jailer sets %d", hard, NO_FILE_DEFAULT);
        finding_mend(finding,
                     "echo '%s hard nofile 1048576' | sudo tee -a /etc/security/limits.d/60-mayfly.conf  # then log in "
                     "again",
                     host->uid == 0 ? "root" : "*");
    } else if (hard == UINT64_MAX) {
        finding_set(finding, VERDICT_OK, "no limit");
    } else {
        finding_set(finding, VERDICT_OK, "%" PRIu64 " a process", hard);
    }
}

void check_processes(const struct host *host, struct finding *finding)
{
    uint64_t soft, hard, pids, threads;

    if (!host_read_number(host, "/proc/sys/kernel/pid_max", &pids) ||
        !host_read_number(host, "/proc/sys/kernel/threads-max", &threads)) {
        finding_set(finding, VERDICT_NOTE, "the limits are unknown: /proc/sys/kernel does not tell them");
    } else if (host->uid != 0 && host_limit(host, "Max processes", &soft, &hard) && soft < PROCESSES_FEW) {
        finding_set(finding, VERDICT_NOTE, "only %" PRIu64 " processes and threads of this user", soft);
        finding_mend(finding,
                     "echo '* - nproc 65536' | sudo tee -a /etc/security/limits.d/60-mayfly.conf  # then log in "
                     "again");
    } else if (threads < PID_MAX_SMALL) {
        finding_set(finding, VERDICT_NOTE, "%" PRIu64 " threads on the whole host (kernel.threads-max)", threads);
        finding_mend_sysctl(finding, "kernel.threads-max", "1048576");
    } else if (pids <= PID_MAX_SMALL) {
        finding_set(finding, VERDICT_NOTE, "%" PRIu64 " processes and threads on the whole host (kernel.pid_max)",
                    pids);
        finding_mend_sysctl(finding, "kernel.pid_max", "4194304");
    } else {
        finding_set(finding, VERDICT_OK, "%" PRIu64 " processes and threads on the whole host",
                    pids < threads ? pids : threads);
    }
}

void check_mappings(const struct host *host, struct finding *finding)
{
    uint64_t count;

    if (!host_read_number(host, "/proc/sys/vm/max_map_count", &count)) {
        finding_set(finding, VERDICT_NOTE, "the limit is unknown: /proc/sys/vm/max_map_count cannot be read");
    } else if (count < MAP_COUNT_DEFAULT) {
        finding_set(finding, VERDICT_NOTE, "%" PRIu64 " a process (vm.max_map_count; the kernel's default is %d)",
                    count, MAP_COUNT_DEFAULT);
        finding_mend_sysctl(finding, "vm.max_map_count", "262144");
    } else {
        finding_set(finding, VERDICT_OK, "%" PRIu64 " a process", count);
    }
}

void check_overcommit(const struct host *host, struct finding *finding)
{
    uint64_t mode;

    if (host_read_number(host, "/proc/sys/vm/overcommit_memory", &mode) && mode == 2) {
        finding_set(finding, VERDICT_NOTE, "all memory of a guest counts from its start (vm.overcommit_memory is 2)");
        finding_mend_sysctl(finding, "vm.overcommit_memory", "0");
    } else {
        finding_set(finding, VERDICT_OK, "memory counts when it is touched");
    }
}

void check_huge_pages(const struct host *host, struct finding *finding)
{
    char enabled[64];
    uint64_t reserved = 0;
    const char *start = "";
    char mode[16] = "";

    host_read_number(host, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", &reserved);
    if (!host_read(host, "/sys/kernel/mm/transparent_hugepage/enabled", enabled, sizeof(enabled))) {
        finding_set(finding, VERDICT_NOTE, "the kernel has no transparent huge pages; %" PRIu64 " of 2 MiB reserved",
                    reserved);
        return;
    }
    start = strchr(enabled, '[');
    if (start != NULL)
        sscanf(start, "[%15[a-z]", mode);
    if (strcmp(mode, "never") == 0) {
        finding_set(finding, VERDICT_NOTE, "transparent ones are off; %" PRIu64 " of 2 MiB reserved", reserved);
        finding_mend(finding, "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
    } else {
        finding_set(finding, VERDICT_OK, "transparent ones: %s; %" PRIu64 " of 2 MiB reserved for huge_pages: 2M", mode,
                    reserved);
    }
}

/* A device node that nobody needs for all microVMs. */
static void look_at_device(const struct host *host, struct finding *finding, const char *path, const char *module)
{
    int refused = host_try_open(host, path);

    if (refused == 0) {
        finding_set(finding, VERDICT_OK, "%s can be opened", path);
    } else if (refused == ENOENT || refused == ENODEV || refused == ENXIO) {
        finding_set(finding, VERDICT_NOTE, "there is no %s", path);
        finding_mend(finding, "sudo modprobe %s && echo %s | sudo tee /etc/modules-load.d/%s.conf", module, module,
                     module);
    } else {
        finding_set(finding, VERDICT_NOTE, "%s cannot be opened: %s", path, strerror(refused));
        if (refused == EACCES) /* what may be done with it, the kernel checks anyway */
            finding_mend(finding, "sudo chmod 0666 %s", path);
    }
}

void check_tun(const struct host *host, struct finding *finding)
{
    look_at_device(host, finding, "/dev/net/tun", "tun");
}

void check_vhost_net(const struct host *host, struct finding *finding)
{
    bool there = host_has(host, "/dev/vhost-net");

    finding_set(finding, VERDICT_OK,
                there ? "there is /dev/vhost-net" : "there is no /dev/vhost-net (modprobe vhost_net)");
}

void check_vsock(const struct host *host, struct finding *finding)
{
    finding_set(finding, VERDICT_OK, "the kernel has %s; Mayfly's vsock needs neither",
                host_has(host, "/dev/vhost-vsock") ? "vhost-vsock"
                : host_has(host, "/dev/vsock")     ? "vsock, not vhost-vsock"
                                                   : "neither vsock nor vhost-vsock");
}

void check_io_uring(const struct host *host, struct finding *finding)
{
    uint64_t disabled = 0;
    int refused = host->io_uring();

    host_read_number(host, "/proc/sys/kernel/io_uring_disabled", &disabled);
    if (refused == ENOSYS) {
        finding_set(finding, VERDICT_NOTE, "the kernel has no io_uring");
    } else if (disabled != 0) {
        finding_set(finding, VERDICT_NOTE, "%s may use it (kernel.io_uring_disabled is %" PRIu64 ")",
                    disabled == 1 ? "only root and the group kernel.io_uring_group" : "nobody", disabled);
        finding_mend_sysctl(finding, "kernel.io_uring_disabled", "0");
    } else if (refused != 0) {
        finding_set(finding, VERDICT_NOTE, "it is refused: %s (a seccomp filter or security module)",
                    strerror(refused));
    } else {
        finding_set(finding, VERDICT_OK, "every process may use it");
    }
}

void check_userfaultfd(const struct host *host, struct finding *finding)
{
    uint64_t unprivileged = 0;
    bool known = host_read_number(host, "/proc/sys/vm/unprivileged_userfaultfd", &unprivileged);
    int refused = host_try_open(host, "/dev/userfaultfd");

    if (refused == 0) {
        finding_set(finding, VERDICT_OK, "/dev/userfaultfd can be opened");
    } else if (unprivileged != 0) {
        finding_set(finding, VERDICT_OK, "every process may use it (vm.unprivileged_userfaultfd)");
    } else if (refused == EACCES) {
        finding_set(finding, VERDICT_NOTE, "/dev/userfaultfd is not for this user");
        finding_mend_device(finding, "userfaultfd", "");
    } else if (known) {
        finding_set(finding, VERDICT_NOTE, "there is no /dev/userfaultfd (Linux 6.1), and the system call is root's");
        finding_mend_sysctl(finding, "vm.unprivileged_userfaultfd", "1");
    } else {
        finding_set(finding, VERDICT_NOTE, "the kernel has no userfaultfd (CONFIG_USERFAULTFD)");
    }
}
