/*
 * Every system call of the set-up is made to fail, one a run: the jailer says so, exits with 1 and leaves nothing on
 * the host; or, where the call does not matter, the VMM runs. ptrace(2) skips the call and puts EIO in its place.
 */
#include "tests/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS_MAX = 2000, VMM_CODE = 17 };

/* Never made to fail: they cannot fail (close(2) closes even then), or the process ends with them. */
static const long exempt[] = {SYS_exit,    SYS_exit_group, SYS_futex,           SYS_rt_sigreturn,
                              SYS_wait4,   SYS_getegid,    SYS_rt_sigtimedwait, SYS_rt_sigprocmask,
                              SYS_geteuid, SYS_getpid,     SYS_gettid,          SYS_close};

/*
 * The jail is as strong without them: what cleans up; fcntl (libc sets close-on-exec a second time); stat of devices
 * that a host may lack, and whether a user may open them or manage a cgroup; statfs of the usual cgroup mounts, which
 * are then looked up (lseek: reading the list); the jailer's own CPU time.
 */
static const long harmless[] = {SYS_open,       SYS_munmap, SYS_rt_sigaction,  SYS_fcntl, SYS_stat,   SYS_statfs,
                                SYS_faccessat2, SYS_lseek,  SYS_clock_gettime, SYS_umask, SYS_madvise};

static bool is_among(long number, const long *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

struct run {
    int target;    /* which call fails */
    bool killing;  /* it does not fail: its process is killed in it */
    int seen;      /* calls so far */
    long failed;   /* its number, -1: there were fewer calls */
    pid_t failing; /* the thread that is in it */
    bool counting;
    int execs;  /* 1: the jailer, 2: the VMM */
    int status; /* of the first process */
    char errors[4096];
};

/* libcap-ng asks for the state of each capability: that cannot fail. */
static bool only_reads(const struct __ptrace_syscall_info *info)
{
    return info->entry.nr == SYS_prctl &&
           (info->entry.args[0] == PR_CAPBSET_READ || info->entry.args[0] == PR_CAP_AMBIENT);
}

/* A stop at a call's entry or exit. */
static void handle_call(struct run *run, pid_t thread)
{
    struct __ptrace_syscall_info info;
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) <= 0 || run->execs != 1)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        /* The first step of main: before it are libc and libcap-ng. */
        run->counting = run->counting || info.entry.nr == SYS_close_range;
        if (!run->counting)
            return;
        if (is_among((long)info.entry.nr, exempt, array_length(exempt)) || only_reads(&info) ||
            run->seen++ != run->target)
            return;
        run->failed = (long)info.entry.nr;
        if (run->killing) {
            kill(thread, SIGKILL);
            return;
        }
        run->failing = thread;
        ptrace(PTRACE_GETREGS, thread, NULL, &registers);
        if (run->failed == SYS_execveat) {
            /* Under the filter a number that does not exist would trap: an exec of no descriptor fails by itself. */
            registers.rdi = (unsigned long long)-1;
            run->failing = 0;
        } else {
            registers.orig_rax = (unsigned long long)-1;
        }
        ptrace(PTRACE_SETREGS, thread, NULL, &registers);
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && run->failing == thread) {
        run->failing = 0;
        ptrace(PTRACE_GETREGS, thread, NULL, &registers);
        registers.rax = (unsigned long long)-EIO;
        ptrace(PTRACE_SETREGS, thread, NULL, &registers);
    }
}

static void trace_me(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
}

/* Follows all processes and threads until none is left. */
static void follow(struct run *run, pid_t first)
{
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                         PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL;
    int status;

    assert_int_equal(waitpid(first, &status, 0), first);
    assert_true(WIFSTOPPED(status));
    ptrace(PTRACE_SETOPTIONS, first, NULL, options);
    ptrace(PTRACE_SYSCALL, first, NULL, 0);
    for (pid_t thread; (thread = waitpid(-1, &status, __WALL)) > 0;) {
        int deliver = 0;

        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == first)
                run->status = status;
            continue;
        }
        if (WSTOPSIG(status) == (SIGTRAP | 0x80))
            handle_call(run, thread);
        else if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8)))
            run->execs++;
        else if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP)
            deliver = WSTOPSIG(status);
        ptrace(PTRACE_SYSCALL, thread, NULL, deliver);
    }
}

static void run_with_fault(struct jail *jail, const char *const *more, struct run *run)
{
    const char *arguments[64];
    int errors[2];

    jail->before_exec = trace_me;
    jail_arguments(jail, arguments, more);
    assert_int_equal(pipe2(errors, O_CLOEXEC), 0);
    pid_t pid = jail_start(jail, -1, errors[1], arguments);
    close(errors[1]);
    follow(run, pid);
    ssize_t got = read(errors[0], run->errors, sizeof(run->errors) - 1);
    run->errors[got > 0 ? got : 0] = '\0';
    close(errors[0]);
}

/* `also` is one more harmless call. */
static void fail_each_call(struct jail *jail, const char *const *more, int code, long also)
{
    unsigned wrong = 0;
    int target = 0;

    for (; target < CALLS_MAX; target++) {
        struct run run = {.target = target, .failed = -1};

        run_with_fault(jail, more, &run);
        if (run.failed < 0) {
            assert_int_equal(run.execs, 2);
            break;
        }
        bool ran = run.execs == 2;
        bool fine;
        if (ran)
            fine = (run.failed == also || is_among(run.failed, harmless, array_length(harmless))) &&
                   WIFEXITED(run.status) && WEXITSTATUS(run.status) == code;
        else
            fine = WIFEXITED(run.status) && WEXITSTATUS(run.status) == 1 &&
                   strncmp(run.errors, "mayfly-jailer: ", 15) == 0;
        if (!fine) {
            print_error("call %d (number %ld) fails: %s, status %#x: %s\n", target, run.failed,
                        ran ? "the VMM runs" : "no VMM", (unsigned)run.status, run.errors);
            wrong++;
        }
        if (!ran) {
            if (access(jail_path(jail, "base/%s", jail->exec_name), F_OK) == 0)
                print_error("call %d (number %ld) leaves something: %s\n", target, run.failed, run.errors);
            assert_nothing_left(jail);
        }
        jail_remove(jail);
    }
    jail_remove(jail);
    print_message("# %d calls made to fail\n", target);
    assert_true(target > 50 && target < CALLS_MAX);
    assert_int_equal(wrong, 0);
}

static int collect_garbage(const struct jail *jail)
{
    const char *build = getenv("MAYFLY_BUILD");
    char program[256];
    int status;

    snprintf(program, sizeof(program), "%s/release/mayfly", build != NULL ? build : "build");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        execl(program, "mayfly", "gc", "--base", jail->base, NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Killed before each of its calls in turn, as is what it forked: whatever it had made by then is found. */
static void kill_in_each_call(struct jail *jail, const char *const *more)
{
    int target = 0;

    for (; target < CALLS_MAX; target++) {
        struct run run = {.target = target, .failed = -1, .killing = true};

        run_with_fault(jail, more, &run);
        assert_int_equal(collect_garbage(jail), 0);
        assert_nothing_left(jail);
        if (run.failed < 0)
            break;
    }
    print_message("# killed in %d calls\n", target);
    assert_true(target > 50 && target < CALLS_MAX);
}

static void test_what_a_killed_jailer_left_is_collected(void **state)
{
    kill_in_each_call(*state, (const char *const[]){"--cgroup", "cpu.shares=10", "--bind", "/etc/passwd:/a/b/passwd:ro",
                                                    "--", "17", "leave", NULL});
}

static void test_what_a_killed_jailer_of_a_namespace_left_is_collected(void **state)
{
    kill_in_each_call(*state, (const char *const[]){"--new-pid-ns", "--new-cgroup-ns", "--new-time-ns",
                                                    "--memory-limit=100000000", "--", "17", "leave", NULL});
}

static void test_a_call_that_fails_in_binding_leaves_nothing(void **state)
{
    fail_each_call(*state,
                   (const char *const[]){"--bind", "/etc/passwd:/a/b/passwd:ro", "--bind", "/usr/lib:/lib",
                                         "--memory-limit=100000000", "--announce", "--", "17", "leave", NULL},
                   VMM_CODE, SYS_writev /* the announcement */);
}

static void test_a_call_that_fails_leaves_nothing(void **state)
{
    fail_each_call(*state, (const char *const[]){"--cgroup", "cpu.shares=10", "--", "17", "leave", NULL}, VMM_CODE, -1);
}

static void test_a_call_that_fails_in_namespaces_leaves_nothing(void **state)
{
    fail_each_call(*state,
                   (const char *const[]){"--new-pid-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns",
                                         "--new-net-ns", "--new-time-ns", "--cgroup", "cpuset.cpus=0", "--", "17",
                                         "leave", NULL},
                   VMM_CODE, -1);
}

static void test_a_call_that_fails_in_a_daemon_leaves_nothing(void **state)
{
    fail_each_call(*state, (const char *const[]){"--daemonize", "--", "17", "leave", NULL}, 0,
                   SYS_read); /* of the caller, that waits */
}

static void test_a_call_that_fails_in_a_users_jail_leaves_nothing(void **state)
{
    fail_each_call(*state,
                   (const char *const[]){"--new-pid-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns",
                                         "--new-net-ns", "--new-time-ns", "--", "17", "leave", NULL},
                   VMM_CODE, SYS_writev); /* of a note */
}

TEST_MAIN(jail_test(test_a_call_that_fails_leaves_nothing),
          jail_test(test_a_call_that_fails_in_namespaces_leaves_nothing),
          jail_test(test_a_call_that_fails_in_a_daemon_leaves_nothing),
          user_test(test_a_call_that_fails_in_a_users_jail_leaves_nothing),
          jail_test(test_a_call_that_fails_in_binding_leaves_nothing),
          jail_test(test_what_a_killed_jailer_left_is_collected),
          jail_test(test_what_a_killed_jailer_of_a_namespace_left_is_collected))
