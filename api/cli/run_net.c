#include "api/cli/run_net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/cli/locate.h"
#include "api/cli/run_leftover.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

extern char **environ;

enum {
    READY_PATIENCE_MS = 10000,
    SOCKET_FD = 3, /* where the connection is in the child */
    FAILED_BEFORE_EXEC = 127,
    NOBODY = 65534,
    ARGUMENTS_MAX = 32 + 2 * RUN_PUBLISH_MAX,
    TEXT_SIZE = 64,
    /* The largest that passt takes: it ends TCP itself, so that the size of its packets to the guest is free. */
    MTU = 65520,
    FIFO_SIZE = 4096, /* the smallest that a FIFO can have */
};

enum { READY, ENDED }; /* of what is polled */

/* Of the jail's sockets. */
static const char socket_name[] = "net";

/* Each guest is alone behind its passt. With a known address passt can connect to it from the first moment. */
static const char guest_mac[] = "02:6d:61:79:66:6c";

void run_net_init(struct run_net *net)
{
    *net = (struct run_net){.directory_fd = -1,
                            .ready_fd = -1,
                            .filler_fd = -1,
                            .words_fd = -1,
                            .process_fd = -1,
                            .deadline_us = UINT64_MAX};
}

static bool by_passt(const struct run_net *net)
{
    return net->options != NULL;
}

/*
 * passt tells that it is up by writing its pid into a file: a FIFO in a directory of ours. Below /tmp, where the
 * AppArmor profile that Debian has for passt lets it write.
 */
static struct error *make_ready_fifo(struct run_net *net)
{
    char path[RUN_NET_PATH_SIZE + 8];
    struct error *error = run_leftover_make("/tmp", net->directory, sizeof(net->directory), &net->directory_fd);

    if (error != NULL) {
        net->directory[0] = '\0';
        return error;
    }
    snprintf(path, sizeof(path), "%s/ready", net->directory);
    if (mkfifo(path, 0600) != 0)
        return error_errno(errno, "--net: cannot make %s", path);
    net->ready_fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    net->filler_fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    return net->ready_fd >= 0 && net->filler_fd >= 0 ? NULL : error_errno(errno, "--net: %s", path);
}

/*
 * passt tells the guest of a new connection once, in a frame that waits for the guest's driver and is lost if the guest
 * has no address by then: the host's program hangs for passt's patience of ten seconds. So passt is held until the
 * guest is up, in the very call by which it says that it is up itself: into a FIFO that is full. The kernel keeps the
 * connections meanwhile. Should we die, the FIFO breaks, and passt finds its guest gone.
 */
static struct error *hold(struct run_net *net)
{
    static const char filler[FIFO_SIZE];

    if (fcntl(net->filler_fd, F_SETPIPE_SZ, FIFO_SIZE) != FIFO_SIZE ||
        write(net->filler_fd, filler, FIFO_SIZE) != FIFO_SIZE)
        return error_errno(errno, "--net: cannot fill a FIFO in %s", net->directory);
    net->held = true;
    return NULL;
}

static void set_deadline(struct run_net *net)
{
    net->deadline_us = clock_monotonic_us() + READY_PATIENCE_MS * 1000ull;
}

struct error *run_net_let_go(struct run_net *net)
{
    char filler[FIFO_SIZE];

    if (!net->held)
        return NULL;
    net->held = false;
    set_deadline(net);
    return read(net->ready_fd, filler, FIFO_SIZE) == FIFO_SIZE ? NULL
                                                               : error_errno(errno, "--net: cannot empty a FIFO");
}

struct error *run_net_prepare(struct run_net *net, const struct run_net_options *options)
{
    if (!options->wanted || options->tap[0] != '\0')
        return NULL;
    net->program = locate_passt();
    if (net->program == NULL)
        return error_new(ERROR_INPUT, "--net: passt is not on PATH; Debian has it in the package passt");
    net->options = options;

    struct error *error = make_ready_fifo(net);
    return error != NULL || options->publish_count == 0 ? error : hold(net);
}

/* --- passt's command line --- */

struct command {
    const char *words[ARGUMENTS_MAX];
    char texts[RUN_PUBLISH_MAX + 4][TEXT_SIZE]; /* those that are not constant: --fd, --pid, --runas, --netmask */
    size_t word_count, text_count;
};

static void add(struct command *command, const char *option, const char *value)
{
    command->words[command->word_count++] = option;
    if (value != NULL)
        command->words[command->word_count++] = value;
}

static void add_text(struct command *command, const char *option, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add_text(struct command *command, const char *option, const char *format, ...)
{
    char *text = command->texts[command->text_count++];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, TEXT_SIZE, format, arguments);
    va_end(arguments);
    add(command, option, text);
}

/*
 * The guest is not trusted: its gateway's address does not lead to the host's loopback interface. It has one address,
 * which init sets: there is no DHCP. A port that is published for one protocol is not for the other.
 */
static void make_command(struct command *command, const struct run_net *net, uid_t uid, gid_t gid)
{
    const struct run_net_options *options = net->options;
    bool tcp = false, udp = false;

    add(command, "passt", "--foreground");
    add(command, "--quiet", NULL);
    add(command, "--ipv4-only", "--no-dhcp");
    add(command, "--no-map-gw", NULL);
    add_text(command, "--fd", "%d", SOCKET_FD);
    add_text(command, "--pid", "%s/ready", net->directory);
    if (geteuid() == 0)
        add_text(command, "--runas", "%u:%u", uid, gid);
    add(command, "--address", options->address);
    add_text(command, "--netmask", "%u", options->bits);
    add(command, "--gateway", options->gateway);
    if (!options->own_resolver)
        add(command, "--dns-forward", options->resolver);
    for (size_t i = 0; i < options->publish_count; i++) {
        const struct run_publish *publish = &options->publish[i];

        add_text(command, publish->udp ? "--udp-ports" : "--tcp-ports", "%s/%u:%u", publish->address, publish->host,
                 publish->guest);
        udp = udp || publish->udp;
        tcp = tcp || !publish->udp;
    }
    if (!tcp)
        add(command, "--tcp-ports", "none");
    if (!udp)
        add(command, "--udp-ports", "none");
}

/* --- Its start --- */

/* Listening before the VMM is told of it, nobody has to wait. In a jail the folder is the VMM's own, and we are root.
 */
static struct error *listen_for_vmm(const struct vmm_process *process, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char path[VMM_PATH_SIZE];

    vmm_process_path(process, socket_name, path);
    if (strlen(path) >= sizeof(address.sun_path))
        return error_errno(ENAMETOOLONG, "--net: %s", path);
    strcpy(address.sun_path, path);
    if (made < 0 || fchmod(made, 0600) != 0 || bind(made, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(made, 1) != 0)
        return error_errno(errno, "--net: cannot listen on %s", path);
    if (process->jail.used && geteuid() == 0 && lchown(path, process->jail.uid, process->jail.gid) != 0)
        return error_errno(errno, "--net: cannot give the jail's user %s", path);
    *fd = take_fd(&made);
    return NULL;
}

static void fail(const char *what)
{
    dprintf(STDERR_FILENO, "%s: %s\n", what, strerror(errno));
    _exit(FAILED_BEFORE_EXEC);
}

static void child(const char *program, const struct command *command, int connection, int words, pid_t parent)
{
    sigset_t none;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    /* Not to be closed by the dup2 of another: first out of the way. */
    int high = fcntl(connection, F_DUPFD, SOCKET_FD + 1);

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(words, STDOUT_FILENO) < 0 || dup2(words, STDERR_FILENO) < 0)
        _exit(FAILED_BEFORE_EXEC);
    /* It does not outlive a change of user: from there on the connection's end is passt's. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(FAILED_BEFORE_EXEC);
    if (high < 0 || dup2(high, SOCKET_FD) < 0 || syscall(SYS_close_range, SOCKET_FD + 1u, ~0u, 0u) != 0)
        fail("cannot pass the connection on");
    execve(program, (char *const *)(uintptr_t)command->words, environ);
    fail(program);
}

/* As root passt takes a user that is nobody's but this microVM's, where there is one. */
static struct error *start_passt(struct run_net *net, const struct vmm_process *process, int connection)
{
    struct command command = {0};
    uid_t uid = process->jail.used ? process->jail.uid : NOBODY;
    gid_t gid = process->jail.used ? process->jail.gid : NOBODY;
    pid_t parent = getpid();
    cleanup_fd int words = -1;
    int pipe_fds[2];

    if (geteuid() == 0 && (fchownat(net->directory_fd, "ready", uid, gid, AT_SYMLINK_NOFOLLOW) != 0 ||
                           fchmod(net->directory_fd, 0711) != 0))
        return error_errno(errno, "--net: cannot let passt's user into %s", net->directory);
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(errno, "pipe");
    net->words_fd = pipe_fds[0];
    words = pipe_fds[1];
    make_command(&command, net, uid, gid);

    pid_t pid = fork();
    if (pid < 0)
        return error_errno(errno, "--net: cannot start %s", net->program);
    if (pid == 0)
        child(net->program, &command, connection, words, parent);
    net->pid = pid;
    net->process_fd = (int)syscall(SYS_pidfd_open, pid, 0u);
    net->awaited = true;
    if (!net->held)
        set_deadline(net);
    return net->process_fd >= 0 ? NULL : error_errno(errno, "pidfd_open");
}

static struct error *put_interface(struct api_client *client, const char *tap, const char *socket_path)
{
    struct body *body = body_new();

    body_string(body, "iface_id", "eth0");
    if (socket_path == NULL) {
        body_string(body, "host_dev_name", tap);
    } else {
        body_open_object(body, "backend");
        body_string(body, "type", "stream");
        body_string(body, "socket_path", socket_path);
        body_close_object(body);
        body_string(body, "guest_mac", guest_mac);
        body_integer(body, "mtu", MTU);
    }

    struct error *error = api_client_put(client, "/network-interfaces/eth0", body);
    return error == NULL ? NULL : error_wrap(error, "--net");
}

static struct error *put_tap(struct api_client *client, const struct run_net_options *options)
{
    struct error *error = put_interface(client, options->tap, NULL);
    struct body *body;

    if (error != NULL || !options->vhost)
        return error;
    body = body_new();
    body_string(body, "iface_id", "eth0");
    body_boolean(body, "vhost", true);
    error = api_client_put(client, "/mayfly/network-interfaces/eth0", body);
    return error == NULL ? NULL : error_wrap(error, "--net");
}

struct error *run_net_configure(struct run_net *net, struct api_client *client, const struct vmm_process *process,
                                const struct run_net_options *options)
{
    char path[VMM_PATH_SIZE];
    cleanup_fd int listener = -1, connection = -1;
    struct error *error;

    if (!options->wanted)
        return NULL;
    if (!by_passt(net))
        return put_tap(client, options);
    error = listen_for_vmm(process, &listener);
    if (error != NULL)
        return error;
    vmm_process_inner_path(process, socket_name, path);
    error = put_interface(client, NULL, path);
    vmm_process_path(process, socket_name, path);
    unlink(path);
    if (error != NULL)
        return error;
    connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return error_errno(errno, "--net: the VMM did not connect");
    return start_passt(net, process, connection);
}

/* --- Its life --- */

/* What it said last, less what it says about a missing system log. */
static void last_words(const struct run_net *net, char *text, size_t size)
{
    char all[4096];
    ssize_t got = net->words_fd < 0 ? 0 : read(net->words_fd, all, sizeof(all) - 1);
    char *rest = all;
    char *line;

    *text = '\0';
    all[got > 0 ? got : 0] = '\0';
    while ((line = strsep(&rest, "\n")) != NULL)
        if (*line != '\0' && strstr(line, "to syslog") == NULL)
            snprintf(text, size, "%s", line);
}

/* The FIFO of one that is held has the filler in it, which tells nothing. */
void run_net_poll(const struct run_net *net, struct pollfd wait[RUN_NET_POLL_COUNT])
{
    wait[READY] = (struct pollfd){.fd = net->awaited && !net->held ? net->ready_fd : -1, .events = POLLIN};
    wait[ENDED] = (struct pollfd){.fd = net->awaited ? net->process_fd : -1, .events = POLLIN};
}

struct error *run_net_check(struct run_net *net, const struct pollfd wait[RUN_NET_POLL_COUNT])
{
    static const char no_route[] = "External interface not usable";
    char text[256];

    if (wait[READY].revents != 0) {
        net->awaited = false;
        net->deadline_us = UINT64_MAX;
        return NULL;
    }
    if (wait[ENDED].revents == 0)
        return clock_monotonic_us() < net->deadline_us
                   ? NULL
                   : error_new(ERROR_HOST, "--net: passt was not ready within %d s", READY_PATIENCE_MS / 1000);
    waitpid(net->pid, NULL, 0);
    net->pid = 0;
    last_words(net, text, sizeof(text));
    return error_new(ERROR_HOST, "--net: passt ended before it was ready: %s%s", text,
                     strncmp(text, no_route, strlen(no_route)) == 0
                         ? " (it takes its network from the host's interface that has the default route)"
                         : "");
}

void run_net_tell(struct run_net *net)
{
    char text[256];
    int status;

    if (net->pid <= 0 || waitpid(net->pid, &status, WNOHANG) <= 0)
        return;
    net->pid = 0;
    if (status == 0)
        return; /* its connection was closed first */
    last_words(net, text, sizeof(text));
    dprintf(STDERR_FILENO, "mayfly: the guest lost its network: passt %s %d%s%s\n",
            WIFSIGNALED(status) ? "was killed by signal" : "exited with code",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), text[0] != '\0' ? ": " : "", text);
}

void run_net_end(struct run_net *net)
{
    if (net->pid > 0) {
        kill(net->pid, SIGKILL);
        waitpid(net->pid, NULL, 0);
    }
    if (net->directory[0] != '\0')
        run_leftover_clear(net->directory);
    fd_close(&net->directory_fd);
    fd_close(&net->ready_fd);
    fd_close(&net->filler_fd);
    fd_close(&net->words_fd);
    fd_close(&net->process_fd);
    free(net->program);
    run_net_init(net);
}
