/* What opens more of the kernel, or of its machine. */
#include "tests/jail/probe/probe.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int attempt_keyring(void)
{
    return stopped(syscall(SYS_add_key, "user", "mayfly", "x", 1, -4 /* KEY_SPEC_USER_KEYRING */));
}

static int attempt_keyctl(void)
{
    return stopped(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL));
}

static int attempt_bpf(void)
{
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

    return stopped(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static int attempt_perf(void)
{
    struct perf_event_attr attr = {.size = sizeof(attr), .type = PERF_TYPE_HARDWARE};

    return stopped(syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0));
}

static int attempt_module(void)
{
    return stopped(syscall(SYS_init_module, "", 0, ""));
}

static int attempt_module_by_fd(void)
{
    return stopped(syscall(SYS_finit_module, 0, "", 0));
}

static int attempt_kexec(void)
{
    return stopped(syscall(SYS_kexec_load, 0, 0, NULL, 0));
}

static int attempt_reboot(void)
{
    return stopped(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL));
}

static int attempt_ports(void)
{
    return stopped(syscall(SYS_iopl, 3));
}

static int attempt_clock(void)
{
    struct timespec time = {.tv_sec = 1};

    return stopped(syscall(SYS_clock_settime, CLOCK_REALTIME, &time));
}

static int attempt_hostname(void)
{
    return stopped(sethostname("x", 1));
}

static int attempt_swap(void)
{
    return stopped(syscall(SYS_swapoff, "/x"));
}

static int attempt_kernel_log(void)
{
    return stopped(syscall(SYS_syslog, 5, NULL, 0));
}

static int attempt_executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

/* The same kernel by another door: numbers of another architecture would pass a filter that looks at numbers alone. */
static int attempt_int80(void)
{
    long result = 20; /* getpid */

    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return result < 0 ? (int)-result : 0;
}

static int attempt_x32(void)
{
    return stopped(syscall(0x40000000 + SYS_getpid));
}

const struct command attempts_on_the_kernel[] = {
    {"keyring", attempt_keyring},
    {"keyctl", attempt_keyctl},
    {"bpf", attempt_bpf},
    {"perf", attempt_perf},
    {"module", attempt_module},
    {"module-by-fd", attempt_module_by_fd},
    {"kexec", attempt_kexec},
    {"reboot", attempt_reboot},
    {"ports", attempt_ports},
    {"clock", attempt_clock},
    {"hostname", attempt_hostname},
    {"swap", attempt_swap},
    {"kernel-log", attempt_kernel_log},
    {"executable-memory", attempt_executable_memory},
    {"int80", attempt_int80},
    {"x32", attempt_x32},
    {NULL, NULL},
};
