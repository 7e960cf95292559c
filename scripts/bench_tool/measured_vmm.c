#include "scripts/bench_tool/measured_vmm.h"

#include "api/client/connect.h"
#include "scripts/bench_tool/counters.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PATIENCE_US = 10000000 };

void die(const char *what, struct error *error)
{
    fprintf(stderr, "measure: %s: %s\n", what, error != NULL ? error->message : strerror(errno));
    exit(EXIT_FAILURE);
}

struct jail jail;

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
void vmm_spawn(struct vmm *vmm, const char *path, unsigned number)
{
    const char *folder = getenv("TMPDIR");
    posix_spawn_file_actions_t actions;
    int out[2];

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

void vmm_end(struct vmm *vmm)
{
    kill(vmm->pid, SIGKILL);
    waitpid(vmm->pid, NULL, 0);
    api_client_free(vmm->api);
    close(vmm->serial);
    close(vmm->process_fd);
    unlink(vmm->socket);
}

void vmm_request(struct vmm *vmm, const char *method, const char *path, const char *body)
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

double vmm_cpu_us(const struct vmm *vmm)
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

/*
 * Guest memory is the run of adjacent mappings, `size` bytes in all, that has the largest mapping in it (a kernel
 * mapped over it cuts it into pieces). What is private and dirty elsewhere is what the VMM itself costs.
 */
struct dirty vmm_private_dirty(const struct vmm *vmm, unsigned long guest_size)
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

void vmm_await_text(struct vmm *vmm, const char *text)
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

void vmm_await_byte(struct vmm *vmm)
{
    struct pollfd serial = {.fd = vmm->serial, .events = POLLIN};
    char byte;

    if (poll(&serial, 1, PATIENCE_US / 1000) != 1 || read(vmm->serial, &byte, 1) != 1)
        die("the guest said nothing", NULL);
}
