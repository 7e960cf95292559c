/*
 * Every system call of the set-up is made to fail, one a run: the jailer says so, exits with 1 and leaves nothing on
 * the host; or, where the call does not matter, the VMM runs. ptrace(2) skips the call and puts EIO in its place.
 */
#include "tests/jail/delegated.h"
#include "tests/jail/fault_messages.h"
#include "tests/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS_MAX = 2000, VMM_CODE = 17 };

/* Never made to fail: they cannot fail (close(2) closes even then, a child can be killed), or the process ends with
 * them. */
static const long exempt[] = {
    SYS_exit,           SYS_exit_group, SYS_futex,  SYS_rt_sigreturn, SYS_wait4, SYS_getegid, SYS_rt_sigtimedwait,
    SYS_rt_sigprocmask, SYS_geteuid,    SYS_getpid, SYS_gettid,       SYS_close, SYS_kill};

/*
 * The jail is as strong without them: what cleans up; fcntl (libc sets close-on-exec a second time); stat of devices
 * that a host may lack, and whether a user may open them or manage a cgroup; statfs of the usual cgroup mounts, which
 * are then looked up (lseek: reading the list); the jailer's own CPU time; what a cgroup's jail is called (readlink,
 * fsetxattr).
 */
static const long harmless[] = {SYS_open,    SYS_munmap,     SYS_rt_sigaction, SYS_fcntl,         SYS_stat,
                                SYS_statfs,  SYS_faccessat2, SYS_lseek,        SYS_clock_gettime, SYS_umask,
                                SYS_madvise, SYS_readlink,   SYS_fsetxattr};

static bool is_among(long number, const long *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

struct run {
    int target;     /* which call fails */
    bool killing;   /* it does not fail: its process is killed in it */
    bool orphaning; /* nor that: the first process is, and the one in the call finds itself without it */
    int seen;       /* calls so far */
    long failed;    /* its number, -1: there were fewer calls */
    pid_t failing;  /* the thread that is in it */
    bool elsewhere; /* not the first one's */
    bool helped;    /* the first process becomes the VMM: others help it */
    bool counting;
    pid_t mappers[8]; /* newuidmap and newgidmap: not the jailer, though it starts them */
    size_t mapper_count;
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

static pid_t parent_of(pid_t process)
{
    char path[32];
    int parent = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", process);
    const char *rest = strrchr(read_text(path), ')');
    assert_non_null(rest);
    assert_int_equal(sscanf(rest, ") %*c %d", &parent), 1);
    return parent;
}

static void (*before_trace)(void); /* of the test: what the jailer is to have lost already */

/* A stop at a call's entry or exit. */
static void handle_call(struct run *run, pid_t first, pid_t thread)
{
    struct __ptrace_syscall_info info;
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) <= 0 || run->execs != 1)
        return;
    for (size_t i = 0; i < run->mapper_count; i++)
        if (run->mappers[i] == thread)
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
        run->elsewhere = thread != first;
        if (run->killing || run->orphaning) {
            kill(run->killing ? thread : first, SIGKILL);
            while (run->orphaning && parent_of(thread) == first)
                sched_yield();
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

/* Which program a process has become. */
static void handle_exec(struct run *run, pid_t process)
{
    char path[64], program[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/exe", process);
    if (readlink(path, program, sizeof(program) - 1) > 0 && strstr(program, "idmap") != NULL &&
        run->mapper_count < array_length(run->mappers))
        run->mappers[run->mapper_count++] = process;
    else
        run->execs++;
}

static void trace_me(void)
{
    if (before_trace != NULL)
        before_trace();
    raise(SIGSTOP);
}

/* Follows all processes and threads until none is left. */
static void follow(struct run *run, pid_t first)
{
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                         PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL;
    int status;

    /* Attached by us, who are root, and not of its own accord: or no set-uid program would work. */
    assert_int_equal(waitpid(first, &status, WUNTRACED), first);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(ptrace(PTRACE_ATTACH, first, NULL, NULL), 0);
    assert_int_equal(waitpid(first, &status, __WALL), first);
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
            handle_call(run, first, thread);
        else if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8)))
            handle_exec(run, thread);
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

/* --- One call a run --- */

/* The line of a reduced jail that tells which walls are missing; or NULL. */
static const char *walls_of(const struct run *run)
{
    return strstr(run->errors, "mayfly-jailer: reduced jail, without: ");
}

static bool is_fine(const struct run *run, int code, const long *also, const char *walls)
{
    if (run->execs != 2)
        return WIFEXITED(run->status) && WEXITSTATUS(run->status) == 1 &&
               fault_is_told(run->failed, run->errors, before_trace != NULL);
    if (!WIFEXITED(run->status) || WEXITSTATUS(run->status) != code)
        return false;
    /* One more is missing, and it is told. */
    if (walls_of(run) != NULL && strcmp(walls_of(run), walls) != 0)
        return true;
    /* A process that only tries, or holds, a namespace for the jailer; what it is to achieve was achieved. */
    if (run->elsewhere && run->helped)
        return true;
    for (; *also >= 0; also++)
        if (run->failed == *also)
            return true;
    return is_among(run->failed, harmless, array_length(harmless));
}

static bool has_word(const char *const *words, const char *one, const char *other)
{
    for (; *words != NULL; words++)
        if (strcmp(*words, one) == 0 || strcmp(*words, other) == 0)
            return true;
    return false;
}

#define CALLS(...) ((const long[]){__VA_ARGS__, -1})

/* `also` are more harmless calls; -1 ends them. */
static void fail_each_call(struct jail *jail, const char *const *more, int code, const long *also)
{
    struct run whole = {.target = -1, .failed = -1};
    unsigned wrong = 0;
    int target = 0;

    run_with_fault(jail, more, &whole);
    jail_remove(jail);
    delegated_empty();
    const char *walls = walls_of(&whole) == NULL ? "" : walls_of(&whole);

    for (; target < CALLS_MAX; target++) {
        struct run run = {.target = target, .failed = -1, .helped = !has_word(more, "--new-pid-ns", "--daemonize")};

        run_with_fault(jail, more, &run);
        if (run.failed < 0) {
            assert_int_equal(run.execs, 2);
            break;
        }
        bool ran = run.execs == 2;
        if (!is_fine(&run, code, also, walls)) {
            print_error("call %d (number %ld) fails: %s, status %#x: %s\n", target, run.failed,
                        ran ? "the VMM runs" : "no VMM", (unsigned)run.status, run.errors);
            wrong++;
        }
        if (!ran) {
            if (access(jail_path(jail, "base/%s", jail->exec_name), F_OK) == 0)
                print_error("call %d (number %ld) leaves something: %s\n", target, run.failed, run.errors);
            assert_nothing_left(jail);
            assert_delegated_is_empty();
        }
        jail_remove(jail);
        delegated_empty();
    }
    jail_remove(jail);
    delegated_empty();
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
    if (jail->as_user) { /* who collects what is that user's; the build folder may be closed to others */
        char from[256];

        strcpy(from, program);
        snprintf(program, sizeof(program), "%s", jail_path(jail, "mayfly"));
        if (access(program, F_OK) != 0)
            copy_file(from, program, 0755);
    }
    pid_t pid = fork();
    if (pid == 0) {
        if (jail->as_user && (setgid(JAIL_GID) != 0 || setuid(JAIL_UID) != 0))
            _exit(98);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        execl(program, "mayfly", "gc", "--base", jail->base, NULL);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/*
 * Killed before each of its calls in turn, as is what it forked: whatever it had made by then is found. Or the jailer
 * itself is killed in each of these calls, its children's too: those end, or there is no end to the test.
 */
static void kill_in_each_call(struct jail *jail, const char *const *more, bool jailer_only)
{
    int target = 0;

    for (; target < CALLS_MAX; target++) {
        struct run run = {.target = target, .failed = -1, .killing = !jailer_only, .orphaning = jailer_only};

        run_with_fault(jail, more, &run);
        /* Here /etc does not give the user those ids. */
        if (jail->as_user && jail->uid != JAIL_UID)
            jail_remove(jail);
        else
            assert_int_equal(collect_garbage(jail), 0);
        assert_nothing_left(jail);
        assert_delegated_is_empty();
        if (run.failed < 0)
            break;
    }
    print_message("# killed in %d calls\n", target);
    assert_true(target > 50 && target < CALLS_MAX);
}

static void test_what_a_killed_jailer_left_is_collected(void **state)
{
    kill_in_each_call(*state,
                      (const char *const[]){"--cgroup", "cpu.shares=10", "--bind", "/etc/passwd:/a/b/passwd:ro", "--",
                                            "17", "leave", NULL},
                      false);
}

static void test_what_a_killed_jailer_of_a_namespace_left_is_collected(void **state)
{
    kill_in_each_call(*state,
                      (const char *const[]){"--new-pid-ns", "--new-cgroup-ns", "--new-time-ns",
                                            "--memory-limit=100000000", "--", "17", "leave", NULL},
                      false);
}

static void test_what_a_killed_jailer_started_ends(void **state)
{
    struct jail *jail = *state;
    char file[128];

    write_text(jail_path(jail, "secret"), "mine\n");
    snprintf(file, sizeof(file), "--bind=%s:/f:own", jail_path(jail, "secret"));
    kill_in_each_call(jail, (const char *const[]){file, "--", "17", "leave", NULL}, true);
    kill_in_each_call(jail, (const char *const[]){file, "--new-pid-ns", "--", "17", "leave", NULL}, true);
}

static void test_what_a_killed_jailer_of_a_user_started_ends(void **state)
{
    struct jail *jail = *state;

    give_subordinate_ids(jail);
    kill_in_each_call(jail, (const char *const[]){"--new-pid-ns", "--", "17", "leave", NULL}, true);
}

static void test_a_call_that_fails_in_binding_leaves_nothing(void **state)
{
    fail_each_call(*state,
                   (const char *const[]){"--bind", "/etc/passwd:/a/b/passwd:ro", "--bind", "/usr/lib:/lib",
                                         "--memory-limit=100000000", "--announce", "--", "17", "leave", NULL},
                   VMM_CODE, CALLS(SYS_writev /* the announcement */));
}

static void test_a_call_that_fails_leaves_nothing(void **state)
{
    fail_each_call(*state, (const char *const[]){"--cgroup", "cpu.shares=10", "--", "17", "leave", NULL}, VMM_CODE,
                   CALLS(-1));
}

static void test_a_call_that_fails_in_namespaces_leaves_nothing(void **state)
{
    fail_each_call(*state,
                   (const char *const[]){"--new-pid-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns",
                                         "--new-net-ns", "--new-time-ns", "--cgroup", "cpuset.cpus=0", "--", "17",
                                         "leave", NULL},
                   VMM_CODE, CALLS(-1));
}

static void test_a_call_that_fails_in_a_daemon_leaves_nothing(void **state)
{
    fail_each_call(*state, (const char *const[]){"--daemonize", "--", "17", "leave", NULL}, 0,
                   CALLS(SYS_read /* of the caller, that waits */));
}

static void test_a_call_that_fails_in_a_users_jail_leaves_nothing(void **state)
{
    fail_each_call(*state,
                   (const char *const[]){"--new-pid-ns", "--new-ipc-ns", "--new-uts-ns", "--new-cgroup-ns",
                                         "--new-net-ns", "--new-time-ns", "--", "17", "leave", NULL},
                   VMM_CODE, CALLS(SYS_writev /* of a note */));
}

static void test_a_call_that_fails_in_giving_files_away_leaves_nothing(void **state)
{
    struct jail *jail = *state;
    char file[128], device[128];

    write_text(jail_path(jail, "secret"), "mine\n");
    snprintf(file, sizeof(file), "--bind=%s:/f:own", jail_path(jail, "secret"));
    assert_int_equal(mknod(jail_path(jail, "node"), S_IFCHR | 0600, makedev(1, 7)), 0);
    snprintf(device, sizeof(device), "--bind=%s:/dev/disk:own,ro", jail_path(jail, "node"));
    fail_each_call(jail, (const char *const[]){file, device, "--", "17", "leave", NULL}, VMM_CODE, CALLS(-1));
}

static void test_a_call_that_fails_with_subordinate_ids_leaves_nothing(void **state)
{
    struct jail *jail = *state;

    give_subordinate_ids(jail);
    fail_each_call(jail, (const char *const[]){"--", "17", "leave", NULL}, VMM_CODE, CALLS(SYS_writev /* of a note */));
}

static void test_a_call_that_fails_in_a_delegated_cgroup_leaves_nothing(void **state)
{
    if (!delegated_make()) {
        print_message("skipped: no cgroup version 2 is mounted here\n");
        skip();
    }
    fail_each_call(*state, (const char *const[]){"--new-pid-ns", "--new-cgroup-ns", "--", "17", "leave", NULL},
                   VMM_CODE, CALLS(SYS_writev /* of a note */));
    delegated_end();
}

static void test_what_a_killed_jailer_of_a_user_left_is_collected(void **state)
{
    if (!delegated_make()) {
        print_message("skipped: no cgroup version 2 is mounted here\n");
        skip();
    }
    kill_in_each_call(*state, (const char *const[]){"--new-pid-ns", "--", "17", "leave", NULL}, false);
    delegated_end();
}

static void test_a_call_that_fails_in_a_reduced_jail_leaves_nothing(void **state)
{
    before_trace = become_root_of_a_container;
    fail_each_call(*state,
                   (const char *const[]){"--allow-reduced", "--cgroup", "cpu.shares=10", "--bind",
                                         "/etc/passwd:/a/passwd:ro", "--", "17", "leave", NULL},
                   VMM_CODE, CALLS(SYS_writev /* of what is missing */, SYS_ioctl /* a copy that shares blocks */));
    before_trace = NULL;
}

static void test_a_call_that_fails_in_a_reduced_jail_of_a_user_leaves_nothing(void **state)
{
    before_trace = forbid_user_namespaces;
    fail_each_call(*state, (const char *const[]){"--allow-reduced", "--", "17", "leave", NULL}, VMM_CODE,
                   CALLS(SYS_writev, SYS_capget /* nobody has rights, who cannot be asked */));
    before_trace = NULL;
}

JAIL_MAIN(jail_test(test_a_call_that_fails_leaves_nothing),
          jail_test(test_a_call_that_fails_in_giving_files_away_leaves_nothing),
          user_test(test_a_call_that_fails_with_subordinate_ids_leaves_nothing),
          user_test(test_a_call_that_fails_in_a_delegated_cgroup_leaves_nothing),
          jail_test(test_a_call_that_fails_in_a_reduced_jail_leaves_nothing),
          user_test(test_a_call_that_fails_in_a_reduced_jail_of_a_user_leaves_nothing),
          jail_test(test_a_call_that_fails_in_namespaces_leaves_nothing),
          jail_test(test_a_call_that_fails_in_a_daemon_leaves_nothing),
          user_test(test_a_call_that_fails_in_a_users_jail_leaves_nothing),
          jail_test(test_a_call_that_fails_in_binding_leaves_nothing),
          jail_test(test_what_a_killed_jailer_left_is_collected), jail_test(test_what_a_killed_jailer_started_ends),
          user_test(test_what_a_killed_jailer_of_a_user_started_ends),
          user_test(test_what_a_killed_jailer_of_a_user_left_is_collected),
          jail_test(test_what_a_killed_jailer_of_a_namespace_left_is_collected))
