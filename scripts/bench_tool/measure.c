/*
 * The stop-watch of scripts/bench. Starts a VMM (mayfly-vmm or a firecracker: their command lines and APIs are the
 * same), does one thing to it many times, prints what each time cost as one JSON object a line.
 *
 *   measure api      VMM RUNS                       exec to a served GET /
 *   measure requests VMM COUNT kept|fresh           GET / again and again, on one connection or on one each
 *   measure start    VMM KERNEL PAUSE_MS RUNS       InstanceStart to the guest's first byte on the serial port
 *   measure parallel VMM KERNEL COUNT CALLERS       exec to the first byte, many at once
 *   measure memory   VMM MEM_MIB TEXT               private dirty memory of a VM that has said TEXT on its serial port
 *   measure life     VMM                            exec to exit
 *   measure jail     JAILER VMM BASE CGROUP_VERSION MOUNTS RUNS   exec of the jailer to a served GET /
 *   measure jails    JAILER VMM BASE CGROUP_VERSION COUNT CALLERS the same, many at once
 *
 * Memory and life are told the machine on standard input: lines "PUT /path {...}", up to InstanceStart.
 *
 * Times are microseconds: wall from just before posix_spawn (or InstanceStart), CPU of the process as the scheduler
 * counts it.
 */
#include "api/client/client.h"
#include "api/client/connect.h"
#include "scripts/bench_tool/counters.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { PATIENCE_US = 10000000 };

struct vmm {
    char socket[128];
    pid_t pid;
    int process_fd;
    int serial; /* the VMM's stdout */
    struct api_client *api;
    uint64_t spawned_us;
};

static void die(const char *what, struct error *error)
{
    fprintf(stderr, "measure: %s: %s\n", what, error != NULL ? error->message : strerror(errno));
    exit(EXIT_FAILURE);
}

/* When there is one, VMMs are started by it, with one cgroup, in a base folder that the caller empties. */
static struct {
    const char *jailer;
    const char *vmm;
    const char *base;
    const char *cgroup_version;
} jail;

/* The words of a VMM in the jail b<number>; the socket is where the host sees it. */
static size_t jail_words(char *argv[24], char socket[128], unsigned number, char id[16])
{
    const char *slash = strrchr(jail.vmm, '/');
    const char *const words[] = {jail.jailer,
                                 "--id",
                                 id,
                                 "--exec-file",
                                 jail.vmm,
                                 "--uid",
                                 "64200",
                                 "--gid",
                                 "64200",
                                 "--chroot-base-dir",
                                 jail.base,
                                 "--cgroup-version",
                                 jail.cgroup_version,
                                 "--cgroup",
                                 "pids.max=64",
                                 "--",
                                 "--api-sock",
                                 "/run/api.sock"};

    snprintf(id, 16, "b%u", number);
    snprintf(socket, 128, "%s/%s/%s/root/run/api.sock", jail.base, slash == NULL ? jail.vmm : slash + 1, id);
    for (size_t i = 0; i < array_length(words); i++)
        argv[i] = (char *)(uintptr_t)words[i];
    argv[array_length(words)] = NULL;
    return array_length(words);
}

/* Output goes to a pipe, the log to nowhere: a terminal or a file would be measured, too. */
static void vmm_spawn(struct vmm *vmm, const char *path, unsigned number)
{
    posix_spawn_file_actions_t actions;
    int out[2];

    const char *folder = getenv("TMPDIR");

    snprintf(vmm->socket, sizeof(vmm->socket), "%s/mayfly-bench-%d-%u.sock", folder != NULL ? folder : "/tmp", getpid(),
             number);
    unlink(vmm->socket);
    /* `path` may carry options of its own. */
    char words[512];
    char *argv[24];
    char *rest = NULL;
    size_t argc = 0;

    char id[16];

    snprintf(words, sizeof(words), "%s", path);
    for (char *word = strtok_r(words, " ", &rest); word != NULL && argc < 16; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    argv[argc++] = "--api-sock";
    argv[argc++] = vmm->socket;
    argv[argc++] = "--id";
    argv[argc++] = "bench";
    argv[argc] = NULL;
    if (jail.jailer != NULL)
        argc = jail_words(argv, vmm->socket, number, id);
    if (pipe2(out, O_CLOEXEC) < 0)
        die("pipe", NULL);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    vmm->spawned_us = clock_monotonic_us();
    errno = posix_spawn(&vmm->pid, argv[0], &actions, NULL, argv, environ);
    if (errno != 0)
        die(path, NULL);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    vmm->serial = out[0];
    vmm->process_fd = (int)syscall(SYS_pidfd_open, vmm->pid, 0);

    int fd;
    struct error *error = socket_connect_when_ready(vmm->socket, vmm->process_fd, vmm->spawned_us + PATIENCE_US, &fd);
    if (error != NULL)
        die("connecting", error);
    vmm->api = api_client_new(fd);
}

static void vmm_end(struct vmm *vmm)
{
    kill(vmm->pid, SIGKILL);
    waitpid(vmm->pid, NULL, 0);
    api_client_free(vmm->api);
    close(vmm->serial);
    close(vmm->process_fd);
    unlink(vmm->socket);
}

static void vmm_request(struct vmm *vmm, const char *method, const char *path, const char *body)
{
    struct api_response response;
    struct error *error = api_client_request(vmm->api, method, path, body, body == NULL ? 0 : strlen(body), &response);

    if (error != NULL)
        die(path, error);
    if (response.status / 100 != 2) {
        fprintf(stderr, "measure: %s %s: %s\n", method, path, response.body);
        exit(EXIT_FAILURE);
    }
    api_response_free(&response);
}

static double vmm_cpu_us(const struct vmm *vmm)
{
    const struct counters none = {.pid = vmm->pid};
    struct counts counts = counters_read(&none);

    return counts.cpu_us + counts.vcpu_us;
}

struct mapping {
    unsigned long start, end;
    unsigned private_dirty_kib;
    char name[64];
};

/*
 * Reads /proc/<pid>/smaps; returns how many mappings. Anonymous pages are those that are the process's own: "private
 * dirty" counts a program's text, too, as long as its file is not on a disk yet.
 */
static size_t vmm_mappings(const struct vmm *vmm, struct mapping *mappings, size_t max)
{
    char path[64];
    char line[512];
    size_t count = 0;

    snprintf(path, sizeof(path), "/proc/%d/smaps", vmm->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        die(path, NULL);
    while (fgets(line, sizeof(line), file) != NULL && count < max) {
        unsigned long start, end;
        char name[64] = "";
        unsigned kib;

        if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %63s", &start, &end, name) >= 2) {
            mappings[count] = (struct mapping){.start = start, .end = end};
            memcpy(mappings[count++].name, name, sizeof(name));
        } else if (count > 0 && sscanf(line, "Anonymous: %u kB", &kib) == 1) {
            mappings[count - 1].private_dirty_kib = kib;
        }
    }
    fclose(file);
    return count;
}

struct dirty {
    unsigned guest_kib;
    unsigned outside_kib;
};

/*
 * Guest memory is the run of adjacent mappings, `size` bytes in all, that has the largest mapping in it (a kernel
 * mapped over it cuts it into pieces). What is private and dirty elsewhere is what the VMM itself costs.
 */
static struct dirty vmm_private_dirty(const struct vmm *vmm, unsigned long guest_size)
{
    static struct mapping mappings[4096];
    size_t count = vmm_mappings(vmm, mappings, array_length(mappings));
    size_t first = 0, last;
    struct dirty dirty = {0};

    for (size_t i = 0; i < count; i++)
        if (mappings[i].end - mappings[i].start > mappings[first].end - mappings[first].start)
            first = i;
    last = first;
    while (first > 0 && mappings[first - 1].end == mappings[first].start &&
           mappings[last].end - mappings[first - 1].start <= guest_size)
        first--;
    while (last + 1 < count && mappings[last].end == mappings[last + 1].start &&
           mappings[last + 1].end - mappings[first].start <= guest_size)
        last++;
    if (guest_size > 0 && mappings[last].end - mappings[first].start != guest_size)
        fprintf(stderr, "measure: guest memory not found exactly; counted %lu bytes as it\n",
                mappings[last].end - mappings[first].start);
    for (size_t i = 0; i < count; i++)
        *(guest_size > 0 && i >= first && i <= last ? &dirty.guest_kib : &dirty.outside_kib) +=
            mappings[i].private_dirty_kib;
    return dirty;
}

/* Waits until `text` has come on the serial port. */
static void wait_for_text(struct vmm *vmm, const char *text)
{
    static char said[1 << 20];
    size_t length = 0;

    while (strstr(said, text) == NULL) {
        struct pollfd serial = {.fd = vmm->serial, .events = POLLIN};
        ssize_t got = -1;

        if (length + 1 < sizeof(said) && poll(&serial, 1, 60000) == 1)
            got = read(vmm->serial, said + length, sizeof(said) - 1 - length);
        if (got <= 0) {
            fprintf(stderr, "measure: the guest never said \"%s\", but:\n%s\n", text, said);
            exit(EXIT_FAILURE);
        }
        length += (size_t)got;
    }
}

static void wait_for_byte(struct vmm *vmm)
{
    struct pollfd serial = {.fd = vmm->serial, .events = POLLIN};
    char byte;

    if (poll(&serial, 1, PATIENCE_US / 1000) != 1 || read(vmm->serial, &byte, 1) != 1)
        die("the guest said nothing", NULL);
}

static void configure(struct vmm *vmm, const char *kernel)
{
    char body[512];

    vmm_request(vmm, "PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128}");
    snprintf(body, sizeof(body), "{\"kernel_image_path\":\"%s\",\"boot_args\":\"console=ttyS0\"}", kernel);
    vmm_request(vmm, "PUT", "/boot-source", body);
}

static void start(struct vmm *vmm)
{
    vmm_request(vmm, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}");
}

static void measure_api(const char *path, unsigned runs)
{
    for (unsigned i = 0; i < runs; i++) {
        struct vmm vmm;

        vmm_spawn(&vmm, path, i);
        vmm_request(&vmm, "GET", "/", NULL);
        uint64_t served = clock_monotonic_us();
        double cpu = vmm_cpu_us(&vmm);
        printf("{\"wall_us\":%llu,\"cpu_us\":%.1f,\"private_dirty_kib\":%u}\n",
               (unsigned long long)(served - vmm.spawned_us), cpu, vmm_private_dirty(&vmm, 0).outside_kib);
        vmm_end(&vmm);
    }
}

static void connect_again(struct vmm *vmm)
{
    int fd;
    struct error *error = socket_connect_when_ready(vmm->socket, vmm->process_fd, UINT64_MAX, &fd);

    if (error != NULL)
        die("connecting", error);
    api_client_free(vmm->api);
    vmm->api = api_client_new(fd);
}

/* What each of `count` requests takes, after one that nobody measures. */
static void measure_requests(const char *path, unsigned count, bool fresh)
{
    struct vmm vmm;
    struct counters counters;

    vmm_spawn(&vmm, path, 0);
    vmm_request(&vmm, "GET", "/", NULL);
    bool traced = counters_open(&counters, vmm.pid);
    struct counts before = counters_read(&counters);
    uint64_t began = clock_monotonic_us();
    for (unsigned i = 0; i < count; i++) {
        if (fresh)
            connect_again(&vmm);
        vmm_request(&vmm, "GET", "/", NULL);
    }
    uint64_t wall = clock_monotonic_us() - began;
    struct counts after = counters_read(&counters);
    printf("{\"wall_us\":%.2f,\"cpu_us\":%.3f", (double)wall / count, (after.cpu_us - before.cpu_us) / count);
    if (traced)
        printf(",\"syscalls\":%.3f", (double)(after.syscalls - before.syscalls) / count);
    puts("}");
    counters_close(&counters);
    vmm_end(&vmm);
}

/* A reply to InstanceStart may come after the guest's first byte: the byte ends the measure, not the reply. */
static void measure_start(const char *path, const char *kernel, unsigned pause_ms, unsigned runs)
{
    for (unsigned i = 0; i < runs; i++) {
        struct timespec pause = {.tv_nsec = (long)pause_ms * 1000000};
        struct vmm vmm;

        vmm_spawn(&vmm, path, i);
        configure(&vmm, kernel);
        if (pause_ms > 0)
            nanosleep(&pause, NULL);
        uint64_t asked = clock_monotonic_us();
        start(&vmm);
        wait_for_byte(&vmm);
        uint64_t said = clock_monotonic_us();
        printf("{\"wall_us\":%llu,\"since_spawn_us\":%llu}\n", (unsigned long long)(said - asked),
               (unsigned long long)(said - vmm.spawned_us));
        vmm_end(&vmm);
    }
}

static struct {
    const char *path;
    const char *kernel;
    unsigned count;
    unsigned next;
} crowd;

static void *caller(void *unused)
{
    (void)unused;
    for (;;) {
        struct vmm vmm;
        unsigned number = __atomic_fetch_add(&crowd.next, 1, __ATOMIC_RELAXED);

        if (number >= crowd.count)
            return NULL;
        vmm_spawn(&vmm, crowd.path, number);
        configure(&vmm, crowd.kernel);
        start(&vmm);
        wait_for_byte(&vmm);
        printf("{\"wall_us\":%llu}\n", (unsigned long long)(clock_monotonic_us() - vmm.spawned_us));
        vmm_end(&vmm);
    }
}

static void measure_parallel(const char *path, const char *kernel, unsigned count, unsigned callers)
{
    pthread_t threads[64];

    crowd.path = path;
    crowd.kernel = kernel;
    crowd.count = count;
    for (unsigned i = 0; i < callers && i < array_length(threads); i++)
        pthread_create(&threads[i], NULL, caller, NULL);
    for (unsigned i = 0; i < callers && i < array_length(threads); i++)
        pthread_join(threads[i], NULL);
}

/* Mounts that every jail's mount namespace copies; in one of our own. */
static void make_mounts(unsigned count)
{
    char path[PATH_MAX];

    if (count == 0)
        return;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
        die("a mount namespace", NULL);
    snprintf(path, sizeof(path), "%s/mounts", jail.base);
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        die(path, NULL);
    for (unsigned i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/mounts/%u", jail.base, i);
        if ((mkdir(path, 0755) < 0 && errno != EEXIST) || mount("tmpfs", path, "tmpfs", 0, "size=4k") < 0)
            die(path, NULL);
    }
}

static void *jail_caller(void *unused)
{
    (void)unused;
    for (;;) {
        struct vmm vmm;
        unsigned number = __atomic_fetch_add(&crowd.next, 1, __ATOMIC_RELAXED);

        if (number >= crowd.count)
            return NULL;
        vmm_spawn(&vmm, jail.jailer, number);
        vmm_request(&vmm, "GET", "/", NULL);
        printf("{\"wall_us\":%llu}\n", (unsigned long long)(clock_monotonic_us() - vmm.spawned_us));
        vmm_end(&vmm);
    }
}

static void measure_jails(unsigned count, unsigned callers)
{
    pthread_t threads[64];
    uint64_t begin = clock_monotonic_us();

    crowd.count = count;
    for (unsigned i = 0; i < callers && i < array_length(threads); i++)
        pthread_create(&threads[i], NULL, jail_caller, NULL);
    for (unsigned i = 0; i < callers && i < array_length(threads); i++)
        pthread_join(threads[i], NULL);
    printf("{\"all_us\":%llu}\n", (unsigned long long)(clock_monotonic_us() - begin));
}

static void send_requests(struct vmm *vmm)
{
    char line[4096];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        char *rest = NULL;
        const char *method = strtok_r(line, " ", &rest);
        const char *path = strtok_r(NULL, " ", &rest);

        if (path != NULL)
            vmm_request(vmm, method, path, rest);
    }
}

static void measure_memory(const char *path, unsigned mem_mib, const char *text)
{
    struct vmm vmm;

    vmm_spawn(&vmm, path, 0);
    send_requests(&vmm);
    wait_for_text(&vmm, text);

    struct dirty dirty = vmm_private_dirty(&vmm, (unsigned long)mem_mib << 20);
    printf("{\"outside_kib\":%u,\"guest_kib\":%u}\n", dirty.outside_kib, dirty.guest_kib);
    vmm_end(&vmm);
}

static void measure_life(const char *path)
{
    struct vmm vmm;
    int status;

    vmm_spawn(&vmm, path, 0);
    send_requests(&vmm);
    if (waitpid(vmm.pid, &status, 0) != vmm.pid)
        die("waiting for the end", NULL);
    printf("{\"wall_us\":%llu,\"exit_code\":%d}\n", (unsigned long long)(clock_monotonic_us() - vmm.spawned_us),
           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    unlink(vmm.socket);
}

static unsigned number(const char *word)
{
    return (unsigned)strtoul(word, NULL, 10);
}

int main(int argc, char *argv[])
{
    setlinebuf(stdout);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 8 && strncmp(argv[1], "jail", 4) == 0) {
        jail.jailer = argv[2];
        jail.vmm = argv[3];
        jail.base = argv[4];
        jail.cgroup_version = argv[5];
    }
    if (argc == 8 && strcmp(argv[1], "jail") == 0) {
        make_mounts(number(argv[6]));
        measure_api(jail.jailer, number(argv[7]));
    } else if (argc == 8 && strcmp(argv[1], "jails") == 0) {
        measure_jails(number(argv[6]), number(argv[7]));
    } else if (argc == 4 && strcmp(argv[1], "api") == 0)
        measure_api(argv[2], number(argv[3]));
    else if (argc == 5 && strcmp(argv[1], "requests") == 0)
        measure_requests(argv[2], number(argv[3]), strcmp(argv[4], "fresh") == 0);
    else if (argc == 6 && strcmp(argv[1], "start") == 0)
        measure_start(argv[2], argv[3], number(argv[4]), number(argv[5]));
    else if (argc == 6 && strcmp(argv[1], "parallel") == 0)
        measure_parallel(argv[2], argv[3], number(argv[4]), number(argv[5]));
    else if (argc == 5 && strcmp(argv[1], "memory") == 0)
        measure_memory(argv[2], number(argv[3]), argv[4]);
    else if (argc == 3 && strcmp(argv[1], "life") == 0)
        measure_life(argv[2]);
    else {
        fprintf(stderr, "measure: expected api|requests|start|parallel|memory|life|jail|jails and their arguments\n");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
