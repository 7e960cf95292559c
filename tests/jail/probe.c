/*
 * Runs in a jail in place of the VMM. The last argument says what to do: report what it sees, or try to get out. An
 * attempt's exit code is the errno that stopped it, 0 when nothing did; SIGSYS kills it when a seccomp filter did.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int count;
static char **words;

/* The errno of a result. */
static int stopped(long result)
{
    return result < 0 ? errno : 0;
}

static int attempt_open(void)
{
    return stopped(open("/etc/passwd", O_RDONLY));
}

static int attempt_climb(void)
{
    return stopped(open("../../../../../../../../etc/passwd", O_RDONLY));
}

static int attempt_climb_by_directory(void)
{
    for (int i = 0; i < 16; i++)
        if (chdir("..") < 0)
            return errno;
    return stopped(open("etc/passwd", O_RDONLY));
}

static int attempt_proc(void)
{
    return stopped(open("/proc/1/root/etc/passwd", O_RDONLY));
}

static int attempt_own_binary(void)
{
    return stopped(open((const char *)getauxval(AT_EXECFN), O_WRONLY));
}

static int attempt_write_binary_by_fd(void)
{
    for (int fd = 3; fd < 64; fd++)
        if (write(fd, "x", 1) == 1)
            return 0;
    return EBADF;
}

static int attempt_symlink(void)
{
    return stopped(symlink("/etc/passwd", "/link")) ?: stopped(open("/link", O_RDONLY));
}

static int attempt_hard_link(void)
{
    return stopped(link("/dev/kvm", "/run/kvm"));
}

static int attempt_mknod(void)
{
    return stopped(mknod("/disk", S_IFBLK | 0600, makedev(8, 0)));
}

static int attempt_mknod_in_dev(void)
{
    return stopped(mknod("/dev/mem", S_IFCHR | 0600, makedev(1, 1)));
}

static int attempt_mount(void)
{
    return stopped(mount("tmpfs", "/run", "tmpfs", 0, NULL));
}

static int attempt_remount(void)
{
    return stopped(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
}

static int attempt_umount(void)
{
    return stopped(umount2("/dev", MNT_DETACH));
}

static int attempt_fsopen(void)
{
    return stopped(syscall(SYS_fsopen, "proc", 0));
}

static int attempt_open_tree(void)
{
    return stopped(syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
}

static int attempt_handle(void)
{
    struct {
        struct file_handle handle;
        unsigned char bytes[16];
    } handle = {.handle = {.handle_bytes = 8, .handle_type = 1}};
    int root = open("/", O_RDONLY | O_DIRECTORY);

    return root < 0 ? errno : stopped(open_by_handle_at(root, &handle.handle, O_RDONLY));
}

static int attempt_chroot(void)
{
    return stopped(chroot("/run"));
}

static int attempt_pivot_root(void)
{
    return stopped(syscall(SYS_pivot_root, ".", "."));
}

static int attempt_unshare(void)
{
    return stopped(unshare(CLONE_NEWNS));
}

static int attempt_userns(void)
{
    return stopped(unshare(CLONE_NEWUSER));
}

static int attempt_userns_mount(void)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return errno;
    return stopped(mount("proc", "/run", "proc", 0, NULL));
}

static int attempt_setns(void)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

    return self < 0 ? errno : stopped(setns(self, CLONE_NEWNS));
}

static int attempt_kill_parent(void)
{
    /* In a pid namespace the parent is 0: nobody. */
    return stopped(kill(getppid() == 0 ? 2 : getppid(), SIGTERM));
}

static int attempt_ptrace(void)
{
    return stopped(ptrace(PTRACE_ATTACH, getppid() == 0 ? 2 : getppid(), NULL, NULL));
}

static int attempt_pidfd(void)
{
    return stopped(syscall(SYS_pidfd_open, getppid() == 0 ? 2 : getppid(), 0));
}

static int attempt_process_vm(void)
{
    static char byte;
    struct iovec here = {&byte, 1};
    struct iovec there = {&byte, 1};

    return stopped(syscall(SYS_process_vm_readv, getppid() == 0 ? 2 : getppid(), &here, 1ul, &there, 1ul, 0ul));
}

static int attempt_fork(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return stopped(pid);
}

static int attempt_exec(void)
{
    return stopped(execve("/run/sh", words, environ));
}

static int attempt_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(22), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return fd < 0 ? errno : stopped(connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int attempt_udp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {htonl(0x08080808)}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    return fd < 0 ? errno : stopped(sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)));
}

/* --- io_uring: its operations are no system calls, so no filter sees them --- */

static struct {
    int fd;
    struct io_uring_params params;
    unsigned char *submission, *completion;
    struct io_uring_sqe *requests;
} ring = {.fd = -1};

static int make_ring(void)
{
    ring.fd = (int)syscall(SYS_io_uring_setup, 4, &ring.params);
    if (ring.fd < 0)
        return errno;
    ring.submission = mmap(NULL, ring.params.sq_off.array + 4 * ring.params.sq_entries, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
    ring.completion = mmap(NULL, ring.params.cq_off.cqes + ring.params.cq_entries * sizeof(struct io_uring_cqe),
                           PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_CQ_RING);
    ring.requests = mmap(NULL, ring.params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
    return ring.submission == MAP_FAILED || ring.completion == MAP_FAILED || ring.requests == MAP_FAILED ? errno : 0;
}

/* What the operation answers: as a system call would, but for errno. */
static int ask_ring(struct io_uring_sqe request)
{
    unsigned *tail = (unsigned *)(void *)(ring.submission + ring.params.sq_off.tail);
    unsigned slot = *tail & (ring.params.sq_entries - 1);
    unsigned answer = *(unsigned *)(void *)(ring.completion + ring.params.cq_off.head);

    ring.requests[slot] = request;
    ((unsigned *)(void *)(ring.submission + ring.params.sq_off.array))[slot] = slot;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        return -errno;
    __atomic_store_n((unsigned *)(void *)(ring.completion + ring.params.cq_off.head), answer + 1, __ATOMIC_RELEASE);
    struct io_uring_cqe *all = (struct io_uring_cqe *)(void *)(ring.completion + ring.params.cq_off.cqes);
    return all[answer & (ring.params.cq_entries - 1)].res;
}

static int attempt_ring_open(void)
{
    int problem = make_ring();
    int fd = problem != 0 ? -problem
                          : ask_ring((struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
                                                           .fd = AT_FDCWD,
                                                           .addr = (unsigned long)"/etc/passwd",
                                                           .open_flags = O_RDONLY});

    return fd < 0 ? -fd : 0;
}

/* A socket of the ring's, connected by it. Before Linux 5.19 it makes none: EINVAL. */
static int ring_connect(int type, in_port_t port, uint32_t host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(host)}};
    int problem = make_ring();
    int fd = problem != 0
                 ? -problem
                 : ask_ring((struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = (unsigned)type});

    if (fd < 0)
        return -fd;
    fd = ask_ring((struct io_uring_sqe){
        .opcode = IORING_OP_CONNECT, .fd = fd, .addr = (unsigned long)&address, .off = sizeof(address)});
    return fd < 0 ? -fd : 0;
}

static int attempt_ring_tcp(void)
{
    return ring_connect(SOCK_STREAM, 22, INADDR_LOOPBACK);
}

static int attempt_ring_udp(void)
{
    return ring_connect(SOCK_DGRAM, 53, 0x08080808);
}

static int attempt_raw_socket(void)
{
    return stopped(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int attempt_packet_socket(void)
{
    return stopped(socket(AF_PACKET, SOCK_RAW, 0));
}

static int attempt_vsock(void)
{
    return stopped(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static int attempt_netlink(void)
{
    return stopped(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int attempt_abstract_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0mayfly-jail-test"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    return fd < 0 ? errno
                  : stopped(connect(fd, (struct sockaddr *)&address,
                                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof("mayfly-jail-test"))));
}

static int raise_limit(int resource)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0)
        return errno;
    limit.rlim_cur = limit.rlim_max = limit.rlim_max + 1;
    return stopped(setrlimit(resource, &limit));
}

static int attempt_raise_files(void)
{
    return raise_limit(RLIMIT_NOFILE);
}

static int attempt_raise_core(void)
{
    return raise_limit(RLIMIT_CORE);
}

static int attempt_nice(void)
{
    return stopped(setpriority(PRIO_PROCESS, 0, -20));
}

static int attempt_capset(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = 1u << CAP_SETUID, .permitted = 1u << CAP_SETUID}};

    return stopped(syscall(SYS_capset, &header, data));
}

/* EPERM unless one of the five sets has something in it. */
static int attempt_have_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    if (syscall(SYS_capget, &header, data) < 0)
        return errno;
    for (int i = 0; i < 2; i++)
        if ((data[i].effective | data[i].permitted | data[i].inheritable) != 0)
            return 0;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (prctl(PR_CAPBSET_READ, cap) == 1 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
            return 0;
    return EPERM;
}

static int attempt_securebits(void)
{
    return stopped(prctl(PR_SET_SECUREBITS, 0));
}

static int attempt_new_privileges(void)
{
    return stopped(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

static int attempt_setuid(void)
{
    return stopped(syscall(SYS_setresuid, 1, 1, 1));
}

static int attempt_setgid(void)
{
    return stopped(syscall(SYS_setresgid, 1, 1, 1));
}

static int attempt_setgroups(void)
{
    gid_t group = 0;

    return stopped(syscall(SYS_setgroups, 1, &group));
}

static int attempt_chown(void)
{
    return stopped(chown("/run", 1, 1));
}

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

/* What a VMM needs. */

static int attempt_kvm(void)
{
    return stopped(open("/dev/kvm", O_RDWR));
}

static int attempt_tun(void)
{
    return stopped(open("/dev/net/tun", O_RDWR));
}

static int attempt_urandom(void)
{
    return stopped(open("/dev/urandom", O_RDONLY));
}

static int attempt_listen(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/x.socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0)
        return errno;
    return stopped(bind(fd, (struct sockaddr *)&address, sizeof(address)));
}

/* What it was given: arguments, environment, ids, descriptors. */
static int report(void)
{
    for (int i = 0; i < count; i++)
        printf("argument %s\n", words[i]);
    for (char **variable = environ; *variable != NULL; variable++)
        printf("environment %s\n", *variable);
    printf("uid %u %u gid %u %u groups %d\n", getuid(), geteuid(), getgid(), getegid(), getgroups(0, NULL));
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("descriptor %d\n", fd);
    printf("umask %04o\n", umask(077));
    printf("pid %d session %d\n", getpid(), getsid(0));
    for (int resource = 0; resource < 16; resource++) {
        struct rlimit limit;

        if (getrlimit(resource, &limit) == 0)
            printf("limit %d %lld %lld\n", resource, (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    fflush(stdout);
    return 0;
}

/* Prints the file that the word before names, and whether it may be written. */
static int show(void)
{
    char text[4096];
    int fd = open(words[count - 2], O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text));

    if (got < 0)
        return errno;
    printf("%.*s%s\n", (int)got, text, open(words[count - 2], O_WRONLY) < 0 ? "read-only" : "writable");
    return 0;
}

/* Exits with the code that the argument before says. */
static int leave(void)
{
    return atoi(words[count - 2]);
}

static int die(void)
{
    return stopped(kill(getpid(), SIGKILL));
}

/* Says so and waits until stdin ends, or for a signal. */
static int wait_for_end(void)
{
    char byte;

    write(1, "ready\n", 6);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} commands[] = {
    {"open", attempt_open},
    {"climb", attempt_climb},
    {"climb-by-directory", attempt_climb_by_directory},
    {"proc", attempt_proc},
    {"own-binary", attempt_own_binary},
    {"write-binary-by-fd", attempt_write_binary_by_fd},
    {"symlink", attempt_symlink},
    {"hard-link", attempt_hard_link},
    {"mknod", attempt_mknod},
    {"mknod-in-dev", attempt_mknod_in_dev},
    {"mount", attempt_mount},
    {"remount", attempt_remount},
    {"umount", attempt_umount},
    {"fsopen", attempt_fsopen},
    {"open-tree", attempt_open_tree},
    {"handle", attempt_handle},
    {"chroot", attempt_chroot},
    {"pivot-root", attempt_pivot_root},
    {"unshare", attempt_unshare},
    {"userns", attempt_userns},
    {"userns-mount", attempt_userns_mount},
    {"setns", attempt_setns},
    {"kill-parent", attempt_kill_parent},
    {"ptrace", attempt_ptrace},
    {"pidfd", attempt_pidfd},
    {"process-vm", attempt_process_vm},
    {"fork", attempt_fork},
    {"exec", attempt_exec},
    {"tcp", attempt_tcp},
    {"udp", attempt_udp},
    {"ring-open", attempt_ring_open},
    {"ring-tcp", attempt_ring_tcp},
    {"ring-udp", attempt_ring_udp},
    {"raw-socket", attempt_raw_socket},
    {"packet-socket", attempt_packet_socket},
    {"vsock", attempt_vsock},
    {"netlink", attempt_netlink},
    {"abstract-socket", attempt_abstract_socket},
    {"raise-files", attempt_raise_files},
    {"raise-core", attempt_raise_core},
    {"nice", attempt_nice},
    {"capset", attempt_capset},
    {"have-capabilities", attempt_have_capabilities},
    {"securebits", attempt_securebits},
    {"new-privileges", attempt_new_privileges},
    {"setuid", attempt_setuid},
    {"setgid", attempt_setgid},
    {"setgroups", attempt_setgroups},
    {"chown", attempt_chown},
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
    {"kvm", attempt_kvm},
    {"tun", attempt_tun},
    {"urandom", attempt_urandom},
    {"listen", attempt_listen},
    {"report", report},
    {"show", show},
    {"leave", leave},
    {"die", die},
    {"wait", wait_for_end},
};

int main(int argc, char *argv[])
{
    count = argc;
    words = argv;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, argv[argc - 1]) == 0)
            return commands[i].run();
    fprintf(stderr, "probe: no command \"%s\"\n", argv[argc - 1]);
    return 255;
}
