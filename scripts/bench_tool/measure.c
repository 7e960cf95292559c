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
#include "api/client/connect.h"
#include "scripts/bench_tool/counters.h"
#include "scripts/bench_tool/measured_vmm.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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
        vmm_await_byte(&vmm);
        uint64_t said = clock_monotonic_us();
        printf("{\"wall_us\":%llu,\"since_spawn_us\":%llu}\n", (unsigned long long)(said - asked),
               (unsigned long long)(said - vmm.spawned_us));
        vmm_end(&vmm);
    }
}

static struct {
    const char *path;
    const char *kernel; /* NULL: a life ends with a served GET / */
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
        if (crowd.kernel != NULL) {
            configure(&vmm, crowd.kernel);
            start(&vmm);
            vmm_await_byte(&vmm);
        } else {
            vmm_request(&vmm, "GET", "/", NULL);
        }
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

static void measure_jails(unsigned count, unsigned callers)
{
    uint64_t begin = clock_monotonic_us();

    measure_parallel(jail.jailer, NULL, count, callers);
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
    vmm_await_text(&vmm, text);

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
