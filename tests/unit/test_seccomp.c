/* What each filter forbids: a child loads it as a thread of the VMM would, makes one system call, and dies of SIGSYS.
 */
#include "tests/unit/harness.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/seccomp.h"
#include "vmm/syscall_name.h"

enum { FILE_SIZE_MAX = 65536, X32 = 0x40000000 };

enum stage { BASE = 1 << 0, MAIN_START = 1 << 1, MAIN_RUN = 1 << 2, VCPU = 1 << 3, EVERYWHERE = 15 };

static const struct {
    enum stage stage;
    const char *file;
    const char *filters[2]; /* the outer one first */
} stages[] = {
    {BASE, "base.bin", {"base", NULL}},
    {MAIN_START, "vmm.bin", {"main_start", NULL}},
    {MAIN_RUN, "vmm.bin", {"main_start", "main_run"}},
    {VCPU, "vmm.bin", {"main_start", "vcpu"}},
};

struct call {
    int stages; /* where it is forbidden (or allowed) */
    long number;
    unsigned long arguments[6];
};

static const struct call forbidden[] = {
    /* other programs, other processes */
    {EVERYWHERE, SYS_execve, {0}},
    {MAIN_START | MAIN_RUN | VCPU, SYS_execveat, {0, 0, 0, 0, 0x1000}},
    {BASE, SYS_execveat, {0}},
    {EVERYWHERE, SYS_fork, {0}},
    {EVERYWHERE, SYS_vfork, {0}},
    {EVERYWHERE, SYS_clone, {SIGCHLD}},
    {EVERYWHERE, SYS_clone, {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND}},
    {EVERYWHERE, SYS_clone, {0x7d0f00 | CLONE_NEWUSER}},
    {EVERYWHERE, SYS_clone3, {0}},
    {MAIN_RUN | VCPU, SYS_clone, {0x7d0f00}},
    {EVERYWHERE, SYS_kill, {1}},
    {EVERYWHERE, SYS_tgkill, {1, 1}},
    {VCPU, SYS_tkill, {1}},
    {EVERYWHERE, SYS_ptrace, {0}},
    {EVERYWHERE, SYS_sched_setscheduler, {1, SCHED_BATCH}},
    {EVERYWHERE, SYS_sched_setscheduler, {0, SCHED_FIFO}},
    {EVERYWHERE, SYS_sched_getscheduler, {1}},
    {VCPU, SYS_sched_setscheduler, {0, SCHED_BATCH}},
    {EVERYWHERE, SYS_process_vm_readv, {0}},
    {EVERYWHERE, SYS_process_vm_writev, {0}},
    {EVERYWHERE, SYS_pidfd_open, {1}},
    {EVERYWHERE, SYS_pidfd_getfd, {0}},
    {EVERYWHERE, SYS_kcmp, {0}},
    /* the system */
    {EVERYWHERE, SYS_mount, {0}},
    {EVERYWHERE, SYS_umount2, {0}},
    {EVERYWHERE, SYS_pivot_root, {0}},
    {EVERYWHERE, SYS_chroot, {0}},
    {EVERYWHERE, SYS_unshare, {CLONE_NEWUSER}},
    {EVERYWHERE, SYS_setns, {0}},
    {EVERYWHERE, SYS_bpf, {0}},
    {EVERYWHERE, SYS_perf_event_open, {0}},
    {EVERYWHERE, SYS_userfaultfd, {0}},
    {EVERYWHERE, SYS_init_module, {0}},
    {EVERYWHERE, SYS_finit_module, {0}},
    {EVERYWHERE, SYS_kexec_load, {0}},
    {EVERYWHERE, SYS_reboot, {0}},
    {EVERYWHERE, SYS_add_key, {0}},
    {EVERYWHERE, SYS_keyctl, {0}},
    {EVERYWHERE, SYS_open_by_handle_at, {0}},
    {EVERYWHERE, SYS_iopl, {3}},
    {EVERYWHERE, SYS_modify_ldt, {1}},
    /* its own rights */
    {EVERYWHERE, SYS_setuid, {0}},
    {EVERYWHERE, SYS_setgroups, {0}},
    {EVERYWHERE, SYS_capset, {0}},
    {EVERYWHERE, SYS_prctl, {PR_SET_SECCOMP}},
    {EVERYWHERE, SYS_prctl, {PR_SET_MM}},
    {MAIN_START | MAIN_RUN | VCPU, SYS_prctl, {PR_SET_DUMPABLE, 1}},
    {MAIN_RUN | VCPU, SYS_prctl, {PR_SET_NAME}},
    {EVERYWHERE, SYS_seccomp, {SECCOMP_SET_MODE_STRICT}},
    {MAIN_RUN | VCPU, SYS_seccomp, {SECCOMP_SET_MODE_FILTER}},
    {EVERYWHERE, SYS_prlimit64, {0}},
    {EVERYWHERE, SYS_setrlimit, {0}},
    {EVERYWHERE, SYS_personality, {0}},
    /* memory */
    {EVERYWHERE, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1UL}},
    {EVERYWHERE, SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC}},
    {EVERYWHERE, SYS_pkey_mprotect, {0}},
    {EVERYWHERE, SYS_madvise, {0, 4096, MADV_DODUMP}},
    {EVERYWHERE, SYS_memfd_create, {0}},
    {MAIN_RUN, SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED, 0}},
    {MAIN_RUN | VCPU, SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE}},
    {VCPU, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1UL}},
    {VCPU, SYS_brk, {0}},
    /* files */
    {EVERYWHERE, SYS_openat, {0}},
    {EVERYWHERE, SYS_openat2, {0}},
    {EVERYWHERE, SYS_mknod, {0}},
    {EVERYWHERE, SYS_symlink, {0}},
    {EVERYWHERE, SYS_link, {0}},
    {EVERYWHERE, SYS_rename, {0}},
    {EVERYWHERE, SYS_chmod, {0}},
    {EVERYWHERE, SYS_chown, {0}},
    {EVERYWHERE, SYS_fcntl, {0, F_SETOWN}},
    {EVERYWHERE, SYS_fcntl, {0, F_DUPFD}},
    {EVERYWHERE, SYS_dup2, {0, 1}},
    {MAIN_RUN, SYS_open, {0, O_RDWR | O_CREAT}},
    {MAIN_RUN | VCPU, SYS_unlink, {0}},
    {VCPU, SYS_open, {0, O_RDONLY}},
    {VCPU, SYS_read, {0}},
    {MAIN_RUN | VCPU, SYS_io_uring_setup, {1}},
    {EVERYWHERE, SYS_io_uring_register, {0, 9}}, /* IORING_REGISTER_PERSONALITY */
    {VCPU, SYS_io_uring_register, {0}},
    /* sockets */
    {EVERYWHERE, SYS_socket, {AF_INET, SOCK_DGRAM}},
    {EVERYWHERE, SYS_socket, {AF_INET6, SOCK_STREAM}},
    {EVERYWHERE, SYS_socket, {AF_NETLINK, SOCK_RAW}},
    {EVERYWHERE, SYS_socket, {AF_PACKET, SOCK_RAW}},
    {EVERYWHERE, SYS_socket, {AF_VSOCK, SOCK_STREAM}},
    {EVERYWHERE, SYS_socketpair, {AF_UNIX, SOCK_STREAM}},
    {EVERYWHERE, SYS_recvmsg, {0}}, /* descriptors that others pass */
    {EVERYWHERE, SYS_setsockopt, {0}},
    {MAIN_RUN | VCPU, SYS_socket, {AF_UNIX, SOCK_STREAM}},
    {VCPU, SYS_connect, {0}},
    {MAIN_RUN | VCPU, SYS_bind, {0}},
    {VCPU, SYS_accept4, {0}},
    {VCPU, SYS_sendmsg, {0}},
    /* devices */
    {EVERYWHERE, SYS_ioctl, {0, TIOCSTI}},
    {EVERYWHERE, SYS_ioctl, {0, TIOCSCTTY}},
    {EVERYWHERE, SYS_ioctl, {0, KVM_GET_DIRTY_LOG}},
    {EVERYWHERE, SYS_ioctl, {0, KVM_CREATE_DEVICE}},
    {EVERYWHERE, SYS_ioctl, {0, 0}},
    {MAIN_RUN | VCPU, SYS_ioctl, {0, KVM_CREATE_VM}},
    {MAIN_RUN | VCPU, SYS_ioctl, {0, KVM_CREATE_VCPU}},
    {VCPU, SYS_ioctl, {0, KVM_SET_USER_MEMORY_REGION}},
    {MAIN_RUN | VCPU, SYS_ioctl, {0, KVM_SET_SREGS}},
    {MAIN_RUN | VCPU, SYS_ioctl, {0, KVM_IRQFD}},
    {MAIN_RUN, SYS_ioctl, {0, KVM_RUN}},
    {VCPU, SYS_ioctl, {0, KVM_KVMCLOCK_CTRL}},
    /* the same under another number */
    {EVERYWHERE, X32 + SYS_read, {0}},
    {EVERYWHERE, X32 + 520, {0}}, /* x32's execve */
    {EVERYWHERE, 100000, {0}},
};

/* Harmless, and needed: that the filters were loaded at all is not why the others die. */
static const struct call permitted[] = {
    {EVERYWHERE, SYS_write, {-1UL, 0, 0}},
    {EVERYWHERE, SYS_close, {-1UL}},
    {EVERYWHERE, SYS_clock_gettime, {0}},
    {EVERYWHERE, SYS_ioctl, {-1UL, TCSETS}},
    {VCPU, SYS_ioctl, {-1UL, KVM_RUN}},
    {VCPU, SYS_ioctl, {-1UL, 0xffffffff00000000 | KVM_RUN}}, /* the kernel takes 32 bits of it */
    {BASE | MAIN_START | MAIN_RUN, SYS_mmap, {0, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1UL}},
    {BASE | MAIN_START, SYS_socket, {AF_UNIX, -1UL}},
    {MAIN_RUN, SYS_socket, {AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, -1UL}},
    {BASE | MAIN_START | MAIN_RUN, SYS_open, {0, O_RDONLY}},
    {BASE, SYS_execveat, {-1UL, 0, 0, 0, 0x1000}},
    {BASE | MAIN_START | MAIN_RUN, SYS_sched_getscheduler, {0}},
    {BASE | MAIN_START | MAIN_RUN, SYS_sched_setscheduler, {0, SCHED_BATCH}},
    {BASE | MAIN_START | MAIN_RUN, SYS_sched_setscheduler, {0, SCHED_OTHER}},
};

static struct seccomp_blob read_filters(const char *file, uint8_t bytes[FILE_SIZE_MAX])
{
    const char *build = getenv("MAYFLY_BUILD");
    char path[256];

    snprintf(path, sizeof(path), "%s/filters/%s", build != NULL ? build : "build", file);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, bytes, FILE_SIZE_MAX);
    assert_true(size > 0);
    return (struct seccomp_blob){bytes, (size_t)size};
}

/* cmocka catches these signals. */
static void die_of_signals(void)
{
    signal(SIGSYS, SIG_DFL);
    signal(SIGSEGV, SIG_DFL);
}

/* In a child that makes no other call from here on. */
static void load_and_call(const struct seccomp_blob *blob, const char *const filters[2], const struct call *call)
{
    const unsigned long *a = call->arguments;

    die_of_signals();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(100);
    for (size_t i = 0; i < 2 && filters[i] != NULL; i++)
        if (seccomp_file_load(blob, filters[i]) != NULL)
            _exit(101);
    syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    syscall(SYS_exit_group, 0);
}

/* The wait status of such a child. */
static int outcome(size_t stage, const struct call *call)
{
    static uint8_t bytes[FILE_SIZE_MAX];
    const struct seccomp_blob blob = read_filters(stages[stage].file, bytes);
    int status;
    pid_t pid;

    assert_no_error(seccomp_file_check(&blob, stages[stage].file));
    pid = fork();
    if (pid == 0)
        load_and_call(&blob, stages[stage].filters, call);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void each_ends(const struct call *calls, size_t count, bool allowed)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t stage = 0; stage < array_length(stages); stage++) {
            if ((calls[i].stages & (int)stages[stage].stage) == 0)
                continue;
            int status = outcome(stage, &calls[i]);
            bool fine = allowed ? status == 0 : WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;

            if (!fine)
                fail_msg("%ld (%s) with %#lx, %#lx, %#lx under %s %s: wait status %#x", calls[i].number,
                         syscall_name((int)calls[i].number), calls[i].arguments[0], calls[i].arguments[1],
                         calls[i].arguments[2], stages[stage].filters[0],
                         stages[stage].filters[1] != NULL ? stages[stage].filters[1] : "", (unsigned)status);
        }
    }
}

static void test_forbidden_calls_end_the_process(void **state)
{
    (void)state;
    each_ends(forbidden, array_length(forbidden), false);
}

static void test_needed_calls_pass(void **state)
{
    (void)state;
    each_ends(permitted, array_length(permitted), true);
}

#if defined(__x86_64__)
static void test_calls_of_another_architecture_are_forbidden(void **state)
{
    static uint8_t bytes[FILE_SIZE_MAX];
    const struct seccomp_blob blob = read_filters("vmm.bin", bytes);
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        die_of_signals();
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_file_load(&blob, "main_start") != NULL)
            _exit(101);
        long number = 20; /* getpid(2) of i386; a kernel that knows no i386 raises SIGSEGV */
        __asm__ volatile("int $0x80" : "+a"(number) : : "memory", "r8", "r9", "r10", "r11");
        syscall(SYS_exit_group, 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_true(WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV);
}
#endif

static void test_file_cut_anywhere_is_refused(void **state)
{
    static uint8_t bytes[FILE_SIZE_MAX];
    struct seccomp_blob blob = read_filters("vmm.bin", bytes);
    size_t whole = blob.size;

    (void)state;
    for (blob.size = 0; blob.size < whole; blob.size++) {
        uint8_t *part = malloc(blob.size + 1); /* the sanitizers see its end */

        memcpy(part, bytes, blob.size);
        blob.data = part;
        assert_error(seccomp_file_check(&blob, "cut"), ERROR_INPUT, "cut ");
        free(part);
    }
}

static void test_filter_that_is_missing_is_an_error(void **state)
{
    static uint8_t bytes[FILE_SIZE_MAX];
    const struct seccomp_blob blob = read_filters("vmm.bin", bytes);

    (void)state;
    assert_true(seccomp_file_has(&blob, "vcpu"));
    assert_false(seccomp_file_has(&blob, "vcp"));
    assert_error(seccomp_file_load(&blob, "vcpu0"), ERROR_INPUT, "none called \"vcpu0\"");
}

static void test_system_calls_have_their_names(void **state)
{
    (void)state;
    assert_string_equal(syscall_name(SYS_read), "read");
    assert_string_equal(syscall_name(SYS_execve), "execve");
    assert_string_equal(syscall_name(SYS_clone3), "clone3");
    assert_string_equal(syscall_name(-1), "unknown");
    assert_string_equal(syscall_name(400), "unknown"); /* a hole in the table */
    assert_string_equal(syscall_name(1000000), "unknown");
}

TEST_MAIN(cmocka_unit_test(test_forbidden_calls_end_the_process), cmocka_unit_test(test_needed_calls_pass),
#if defined(__x86_64__)
          cmocka_unit_test(test_calls_of_another_architecture_are_forbidden),
#endif
          cmocka_unit_test(test_file_cut_anywhere_is_refused),
          cmocka_unit_test(test_filter_that_is_missing_is_an_error),
          cmocka_unit_test(test_system_calls_have_their_names))
