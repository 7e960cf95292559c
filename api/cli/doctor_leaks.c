/* The ways in which one guest's secrets may reach another's processor, page or disk. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "api/cli/doctor.h"
#include "vmm/base/cleanup.h"

#define VULNERABILITIES "/sys/devices/system/cpu/vulnerabilities"

enum { MITIGATIONS_SIZE = 128 };

/* Whether the kernel was told to leave guests unmitigated; `value` becomes what follows "mitigations=". */
static bool mitigations_off(const char *cmdline, char value[MITIGATIONS_SIZE])
{
    /* no_guest_*: the attack vectors of Linux 6.17. */
    static const char *const harmful[] = {"off", "no_guest_host", "no_guest_guest"};

    value[0] = '\0';
    for (const char *option = cmdline; (option = strstr(option, "mitigations=")) != NULL; option++)
        if (option == cmdline || option[-1] == ' ')
            sscanf(option, "mitigations=%127s", value); /* the last one counts */
    for (size_t i = 0; i < array_length(harmful); i++)
        if (has_word(value, harmful[i]))
            return true;
    return false;
}

static void mend_mitigations(const struct host *host, struct finding *finding)
{
    if (host_has(host, "/etc/debian_version"))
        finding_mend(finding, "sudo sed -i 's/mitigations=[^ \"]*//' /etc/default/grub && sudo update-grub && sudo "
                              "reboot");
    else
        finding_mend(finding, "sudo grubby --update-kernel=ALL --remove-args=mitigations && sudo reboot");
}

void check_mitigations(const struct host *host, struct finding *finding)
{
    char cmdline[4096], value[MITIGATIONS_SIZE];

    if (!host_read(host, "/proc/cmdline", cmdline, sizeof(cmdline))) {
        finding_set(finding, VERDICT_NOTE, "the kernel's command line cannot be read");
    } else if (mitigations_off(cmdline, value)) {
        finding_set(finding, VERDICT_PROBLEM, "the kernel was booted with mitigations=%s", value);
        mend_mitigations(host, finding);
    } else {
        finding_set(finding, VERDICT_OK, "those against guests were not turned off at boot");
    }
}

enum { VULNERABILITIES_MAX = 64, NAME_SIZE = 64 };

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The names of the files in the directory, sorted. */
static size_t vulnerabilities_list(const struct host *host, char names[VULNERABILITIES_MAX][NAME_SIZE])
{
    char path[1024];
    const struct dirent *entry;
    size_t count = 0;
    DIR *directory;

    snprintf(path, sizeof(path), "%s" VULNERABILITIES, host->root);
    directory = opendir(path);
    while (directory != NULL && count < VULNERABILITIES_MAX && (entry = readdir(directory)) != NULL)
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < NAME_SIZE)
            strcpy(names[count++], entry->d_name);
    if (directory != NULL)
        closedir(directory);
    qsort(names, count, NAME_SIZE, by_name);
    return count;
}

static void mend_vulnerable(const struct host *host, struct finding *finding)
{
    size_t length = strlen(finding->found);
    char cmdline[4096], value[MITIGATIONS_SIZE];

    host_read(host, "/proc/cmdline", cmdline, sizeof(cmdline));
    if (mitigations_off(cmdline, value))
        mend_mitigations(host, finding);
    else if (host_cpu_has(host, "hypervisor"))
        snprintf(finding->found + length, sizeof(finding->found) - length,
                 "; this virtual machine's provider has to mend it");
    else if (host_has(host, "/etc/debian_version"))
        finding_mend(finding, "sudo apt-get install %s-microcode && sudo reboot",
                     host_cpu_has(host, "vmx") ? "intel" : "amd64");
    else
        finding_mend(finding, "sudo dnf install microcode_ctl linux-firmware && sudo reboot");
}

void check_vulnerabilities(const struct host *host, struct finding *finding)
{
    /* Within one process only, or no hole by itself. Any other name, also one not known yet, is a way between guests.
     */
    static const char *const lesser[] = {"spec_store_bypass", "spectre_v1", "old_microcode"};
    char names[VULNERABILITIES_MAX][NAME_SIZE];
    size_t count = vulnerabilities_list(host, names);
    enum verdict verdict = VERDICT_OK;
    char text[256] = "";

    for (size_t i = 0; i < count; i++) {
        char path[sizeof(VULNERABILITIES) + NAME_SIZE], state[256];
        size_t length = strlen(text);
        bool less = false;

        snprintf(path, sizeof(path), VULNERABILITIES "/%s", names[i]);
        host_read(host, path, state, sizeof(state));
        if (strncmp(state, "Vulnerable", 10) != 0 && strncmp(state, "KVM: Vulnerable", 15) != 0)
            continue;
        for (size_t j = 0; j < array_length(lesser); j++)
            less = less || strcmp(names[i], lesser[j]) == 0;
        snprintf(text + length, sizeof(text) - length, "%s%s", length > 0 ? ", " : "", names[i]);
        verdict = less && verdict != VERDICT_PROBLEM ? VERDICT_NOTE : VERDICT_PROBLEM;
    }
    if (count == 0) {
        finding_set(finding, VERDICT_NOTE, "the kernel does not say what the processor is vulnerable to");
    } else if (verdict == VERDICT_OK) {
        finding_set(finding, VERDICT_OK, "none of %zu known ones is open", count);
    } else {
        finding_set(finding, verdict, "open: %s", text);
        mend_vulnerable(host, finding);
    }
}

void check_smt(const struct host *host, struct finding *finding)
{
    char names[VULNERABILITIES_MAX][NAME_SIZE];
    size_t count = vulnerabilities_list(host, names);
    char leaking[256] = "";
    uint64_t active;

    for (size_t i = 0; i < count; i++) {
        char path[sizeof(VULNERABILITIES) + NAME_SIZE], state[256];
        size_t length = strlen(leaking);

        snprintf(path, sizeof(path), VULNERABILITIES "/%s", names[i]);
        host_read(host, path, state, sizeof(state));
        if (strstr(state, "SMT vulnerable") != NULL || strstr(state, "SMT Host state unknown") != NULL)
            snprintf(leaking + length, sizeof(leaking) - length, "%s%s", length > 0 ? ", " : "", names[i]);
    }
    if (!host_read_number(host, "/sys/devices/system/cpu/smt/active", &active)) {
        finding_set(finding, VERDICT_NOTE, "the kernel does not say whether SMT is on");
    } else if (active == 0 && leaking[0] != '\0') {
        finding_set(finding, VERDICT_NOTE, "off as far as this virtual machine sees; its host decides (%s)", leaking);
    } else if (active == 0) {
        finding_set(finding, VERDICT_OK, "off");
    } else {
        if (leaking[0] != '\0')
            finding_set(finding, VERDICT_PROBLEM, "on, and this processor leaks between threads (%s)", leaking);
        else
            finding_set(finding, VERDICT_NOTE,
                        "on: give two threads of a core to one microVM (cpuset), or turn it off");
        finding_mend_boot(host, finding, "nosmt");
    }
}

void check_ksm(const struct host *host, struct finding *finding)
{
    uint64_t run;

    if (!host_read_number(host, "/sys/kernel/mm/ksm/run", &run)) {
        finding_set(finding, VERDICT_OK, "the kernel cannot merge pages");
    } else if (run == 1) {
        finding_set(finding, VERDICT_NOTE, "on (Mayfly asks for none of it, but a service may switch it on for all)");
        finding_mend(finding, "sudo systemctl disable --now ksm ksmtuned; echo 2 | sudo tee /sys/kernel/mm/ksm/run");
    } else {
        finding_set(finding, VERDICT_OK, "off");
    }
}

void check_swap(const struct host *host, struct finding *finding)
{
    FILE *file = host_open(host, "/proc/swaps");
    cleanup_free char *line = NULL;
    size_t size = 0;
    char areas[256] = "";

    if (file == NULL) {
        finding_set(finding, VERDICT_OK, "the kernel cannot swap");
        return;
    }
    while (getline(&line, &size, file) > 0) {
        size_t length = strlen(areas);
        char area[128];

        /* The heading has no path, and zram is memory. */
        if (line[0] == '/' && strncmp(line, "/dev/zram", 9) != 0 && sscanf(line, "%127s", area) == 1)
            snprintf(areas + length, sizeof(areas) - length, "%s%s", length > 0 ? ", " : "", area);
    }
    fclose(file);
    if (areas[0] == '\0') {
        finding_set(finding, VERDICT_OK, "none on disk");
    } else {
        finding_set(finding, VERDICT_NOTE, "on %s", areas);
        finding_mend(finding, "sudo swapoff -a && sudo sed -i '/\\sswap\\s/s/^[^#]/#&/' /etc/fstab");
    }
}
