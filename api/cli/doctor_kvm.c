/* KVM itself, and what it runs on. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "api/cli/doctor.h"
#include "vmm/base/cleanup.h"

void check_kvm(const struct host *host, struct finding *finding)
{
    struct kvm_probe probe;

    host->probe_kvm(&probe);
    if (probe.answer == KVM_RUNS_LINUX)
        finding_set(finding, probe.emulated ? VERDICT_NOTE : VERDICT_OK, "%s", probe.text);
    else
        finding_set(finding, VERDICT_PROBLEM, "%s", probe.text);
}

/* The name of a group, or its number. */
static void group_name(const struct host *host, gid_t gid, char name[64])
{
    FILE *file = host_open(host, "/etc/group");
    cleanup_free char *line = NULL;
    size_t size = 0;

    snprintf(name, 64, "%u", (unsigned)gid);
    while (file != NULL && getline(&line, &size, file) > 0) {
        char found[64];
        unsigned number;

        if (sscanf(line, "%63[^:]:%*[^:]:%u:", found, &number) == 2 && number == gid) {
            strcpy(name, found);
            break;
        }
    }
    if (file != NULL)
        fclose(file);
}

static void kvm_missing(const struct host *host, struct finding *finding)
{
    char misc[4096];
    const char *module = host_cpu_has(host, "vmx") ? "kvm_intel" : host_cpu_has(host, "svm") ? "kvm_amd" : NULL;

    host_read(host, "/proc/misc", misc, sizeof(misc));
    if (has_word(misc, "kvm")) {
        finding_set(finding, VERDICT_PROBLEM,
                    "there is no /dev/kvm, but the kernel has KVM: a container needs the device passed in (--device "
                    "/dev/kvm)");
        return;
    }
    if (module == NULL) {
        finding_set(finding, VERDICT_PROBLEM,
                    "there is no /dev/kvm: the processor offers no virtualisation; turn it on in the firmware, or for "
                    "this virtual machine in the host above it");
        return;
    }
    finding_set(finding, VERDICT_PROBLEM, "there is no /dev/kvm: the module %s is not loaded", module);
    finding_mend(finding, "sudo modprobe %s && echo %s | sudo tee /etc/modules-load.d/kvm.conf", module, module);
}

void check_kvm_device(const struct host *host, struct finding *finding)
{
    char path[1024];
    char group[64];
    struct stat status;
    unsigned mode;
    int refused;

    snprintf(path, sizeof(path), "%s/dev/kvm", host->root);
    if (stat(path, &status) != 0) {
        kvm_missing(host, finding);
        return;
    }
    mode = status.st_mode & 0777u;
    group_name(host, status.st_gid, group);
    refused = host_try_open(host, "/dev/kvm");
    if (refused == EACCES && (mode & 060) == 060 && status.st_gid != 0) {
        finding_set(finding, VERDICT_PROBLEM, "/dev/kvm is for root and the group %s, which you are not in", group);
        finding_mend(finding, "sudo usermod -aG %s \"$USER\" && newgrp %s", group, group);
    } else if (refused == EACCES) {
        finding_set(finding, VERDICT_PROBLEM, "/dev/kvm is for root only (group %s, mode %04o)", group, mode);
        finding_mend_device(finding, "kvm", " && sudo usermod -aG kvm \"$USER\" && newgrp kvm");
    } else if (refused != 0) {
        finding_set(finding, VERDICT_PROBLEM, "/dev/kvm cannot be opened: %s%s", strerror(refused),
                    refused == EPERM ? " (a device cgroup forbids it)" : "");
    } else if ((mode & 06) != 0) {
        finding_set(finding, VERDICT_NOTE, "every user and service may open /dev/kvm (mode %04o)", mode);
        finding_mend_device(finding, "kvm", "");
    } else if ((mode & 060) != 060 || status.st_gid == 0) {
        finding_set(finding, VERDICT_NOTE, "only root may open /dev/kvm (group %s, mode %04o)", group, mode);
        finding_mend_device(finding, "kvm", "");
    } else {
        finding_set(finding, VERDICT_OK, "/dev/kvm is for root and the group %s (mode %04o)", group, mode);
    }
}

void check_nested(const struct host *host, struct finding *finding)
{
    char parameter[16];
    const char *offered = "";

    if (host_read(host, "/sys/module/kvm_intel/parameters/nested", parameter, sizeof(parameter)) ||
        host_read(host, "/sys/module/kvm_amd/parameters/nested", parameter, sizeof(parameter)))
        offered = parameter[0] == 'Y' || parameter[0] == '1'
                      ? "; KVM offers nested virtualisation, which Mayfly hides from its guests"
                      : "; KVM offers no nested virtualisation";
    if (host_cpu_has(host, "hypervisor"))
        finding_set(finding, VERDICT_NOTE, "this host is itself a virtual machine%s", offered);
    else
        finding_set(finding, VERDICT_OK, "this host is not a virtual machine itself%s", offered);
}

void check_kernel(const struct host *host, struct finding *finding)
{
    static const struct {
        unsigned major, minor;
        enum verdict without;
        const char *brings;
    } versions[] = {
        {5, 9, VERDICT_PROBLEM, "close_range, which mayfly and its jailer cannot do without"},
        {5, 10, VERDICT_NOTE, "io_uring as disks use it"},
        {5, 13, VERDICT_NOTE, "Landlock"},
        {6, 1, VERDICT_NOTE, "/dev/userfaultfd"},
        {6, 7, VERDICT_NOTE, "PAGEMAP_SCAN, a third of the time to find dirty pages"},
        {6, 18, VERDICT_NOTE, "ioeventfds that do not wait for a grace period each, some ms of a start"},
    };
    char release[128];
    unsigned major, minor;
    size_t length;

    if (!host_read(host, "/proc/sys/kernel/osrelease", release, sizeof(release)) ||
        sscanf(release, "%u.%u", &major, &minor) != 2) {
        finding_set(finding, VERDICT_PROBLEM, "the kernel's version is unknown: /proc/sys/kernel/osrelease is \"%s\"",
                    release);
        return;
    }
    finding_set(finding, VERDICT_OK, "Linux %s", release);
    for (size_t i = 0; i < array_length(versions); i++) {
        if (major > versions[i].major || (major == versions[i].major && minor >= versions[i].minor))
            continue;
        length = strlen(finding->found);
        snprintf(finding->found + length, sizeof(finding->found) - length, "%s %u.%u has %s",
                 finding->verdict == VERDICT_OK ? ";" : ",", versions[i].major, versions[i].minor, versions[i].brings);
        if (finding->verdict < versions[i].without)
            finding->verdict = versions[i].without;
    }
}
