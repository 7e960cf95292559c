/* `mayfly doctor`: the checks, and the command that runs them. */
#include "api/cli/doctor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "api/cli/commands.h"
#include "api/cli/option_next.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/error.h"

const struct doctor_check doctor_checks[] = {
    {"kernel", check_kernel, "Newer kernels have more walls for the jail, and start and save microVMs faster."},
    {"kvm", check_kvm,
     "Every microVM runs on KVM, and some nested or software KVMs accept every call but cannot run Linux."},
    {"kvm-device", check_kvm_device,
     "Whoever may open /dev/kvm may run microVMs: you have to, and services that do not run any should not."},
    {"nested", check_nested,
     "In a virtual machine each exit of a guest, and each CPUID instruction of a program, costs several times as "
     "much."},
    {"cgroup", check_cgroup, "The jail limits each microVM's memory, processes and processor time with cgroups."},
    {"cgroup-delegation", check_cgroup_delegation,
     "Without root, only a cgroup that systemd delegates can limit what a microVM takes."},
    {"user-namespaces", check_user_namespaces, "Without root, the jail is built in a user namespace."},
    {"landlock", check_landlock, "Landlock is the jail's last wall around files, should the others fall."},
    {"seccomp", check_seccomp, "The jail and each thread of the VMM leave themselves only the system calls they need."},
    {"mitigations", check_mitigations,
     "A guest reads other guests' and the host's memory when these are off and the processor is vulnerable."},
    {"vulnerabilities", check_vulnerabilities,
     "A guest may read other guests' and the host's memory through a processor that is vulnerable and not mitigated."},
    {"smt", check_smt,
     "Two microVMs on the two threads of a core share its caches and buffers and can watch each other."},
    {"ksm", check_ksm, "A guest can tell by the time of a write whether a merged page is in another guest too."},
    {"swap", check_swap,
     "What a guest kept in memory stays on a swap disk that is not encrypted, after the microVM is gone."},
    {"open-files", check_open_files,
     "Each VMM has a descriptor for every disk, queue and connection, and the jailer sets a limit of its own."},
    {"processes", check_processes,
     "Each microVM takes a thread a vCPU and some more, and the host runs out of numbers."},
    {"mappings", check_mappings, "Returning a guest's memory piece by piece splits its mapping into many."},
    {"overcommit", check_overcommit, "Guests seldom use all their memory, so hosts run more of them than would fit."},
    {"huge-pages", check_huge_pages, "Guest memory in huge pages costs fewer page faults and TLB misses."},
    {"tun", check_tun, "A network interface of a microVM is a tap device of the host."},
    {"vhost-net", check_vhost_net,
     "Interfaces with vhost have the host's kernel move their frames; no other needs it."},
    {"vsock", check_vsock,
     "Other VMMs connect guest sockets through the host's kernel; Mayfly ends them in Unix sockets."},
    {"io-uring", check_io_uring, "Disks with the io_engine Async do their I/O through io_uring."},
    {"userfaultfd", check_userfaultfd,
     "A process that serves a restored guest's memory on demand gets its faults by it."},
};
const size_t doctor_check_count = array_length(doctor_checks);

static const char help[] =
    "Usage: mayfly doctor [OPTION...]\n"
    "\n"
    "Looks whether this host is fit to run microVMs. Says for each matter whether it is ok, worth a\n"
    "note or a problem, why it matters, and the command that mends it. Changes nothing.\n"
    "\n"
    "  --check NAME       only this one; may be repeated\n"
    "  -v, --verbose      also says why it matters where all is well\n"
    "  --json             one line of JSON\n"
    "  -h, --help         prints this text\n"
    "\n"
    "Exit code: 0 no problem; 1 a problem; 125 it could not look.\n"
    "\n"
    "Checks:";

struct doctor_options {
    bool help, json, verbose;
    bool *chosen; /* by check; none: all */
    size_t chosen_count;
};

static struct error *choose(struct doctor_options *options, const char *name)
{
    for (size_t i = 0; i < doctor_check_count; i++) {
        if (strcmp(doctor_checks[i].name, name) != 0)
            continue;
        options->chosen[i] = true;
        options->chosen_count++;
        return NULL;
    }
    return error_new(ERROR_INPUT, "--check \"%s\": expected one of those that mayfly doctor --help names", name);
}

static struct error *parse(struct doctor_options *options, int argc, char **argv)
{
    static const struct option long_options[] = {
        {"check", required_argument, NULL, 'c'},
        {"json", no_argument, NULL, 'j'},
        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct error *error = NULL;
    int option;

    opterr = 0;
    optind = 0; /* so that glibc and musl start afresh */
    while (error == NULL && (option = option_next("mayfly doctor", argc, argv, "+:hv", long_options, &error)) != -1) {
        if (option == 'c')
            error = choose(options, optarg);
        options->json |= option == 'j';
        options->verbose |= option == 'v';
        options->help |= option == 'h';
    }
    if (error == NULL && optind < argc)
        error = error_new(ERROR_INPUT, "%s: expected an option; see mayfly doctor --help", argv[optind]);
    return error;
}

static void print_help(void)
{
    fputs(help, stdout);
    for (size_t i = 0; i < doctor_check_count; i++)
        printf("%s%s", i % 6 == 0 ? "\n  " : " ", doctor_checks[i].name);
    putchar('\n');
}

/* 0: not a terminal. */
static unsigned terminal_columns(int fd)
{
    struct winsize size;

    if (!isatty(fd))
        return 0;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* Runs the checks that were chosen, telling each as it comes unless JSON is wanted. The exit code. */
static struct error *examine(const struct doctor_options *options, struct examination *examinations, int *exit_code)
{
    struct host host = host_here();
    unsigned columns = terminal_columns(STDOUT_FILENO);
    size_t counts[VERDICT_COUNT] = {0};
    size_t count = 0;

    if (!host_has(&host, "/proc/self/limits") || !host_has(&host, "/sys/devices"))
        return error_new(ERROR_HOST, "/proc and /sys are not mounted here: nothing can be told");
    for (size_t i = 0; i < doctor_check_count; i++) {
        struct examination *examination = &examinations[count];

        if (options->chosen_count > 0 && !options->chosen[i])
            continue;
        examination->check = &doctor_checks[i];
        doctor_checks[i].look(&host, &examination->finding);
        counts[examination->finding.verdict]++;
        count++;
        if (!options->json)
            doctor_print(stdout, examination, options->verbose, columns);
    }
    if (options->json && !doctor_print_json(stdout, examinations, count, counts))
        return error_new(ERROR_HOST, "a finding is not UTF-8, and JSON cannot tell it");
    if (!options->json)
        doctor_print_total(stdout, counts);
    *exit_code = counts[VERDICT_PROBLEM] > 0;
    return NULL;
}

int command_doctor(int argc, char **argv)
{
    struct doctor_options options = {.chosen = calloc(doctor_check_count, sizeof(*options.chosen))};
    struct examination *examinations = calloc(doctor_check_count, sizeof(*examinations));
    int exit_code = 0;
    struct error *error;

    if (options.chosen == NULL || examinations == NULL)
        abort();
    error = parse(&options, argc, argv);
    if (error == NULL && options.help)
        print_help();
    else if (error == NULL)
        error = examine(&options, examinations, &exit_code);
    if (error != NULL) {
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
        exit_code = EXIT_MAYFLY_FAILED;
    }
    error_free(error);
    free(examinations);
    free(options.chosen);
    return exit_code;
}
