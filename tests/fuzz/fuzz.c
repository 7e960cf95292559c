#include "tests/fuzz/fuzz.h"

#include "vmm/base/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A timer that is due runs after the idle task, and may make something ready: look a few times. */
enum { ROUNDS = 3 };

void fuzz_require_named(bool holds, const char *text)
{
    if (holds)
        return;
    fprintf(stderr, "does not hold: %s\n", text);
    abort();
}

void fuzz_no_error(struct error *error)
{
    if (error == NULL)
        return;
    fprintf(stderr, "unexpected: %s\n", error->message);
    abort();
}

struct settling {
    struct event_task idle;
    struct event_loop *loop;
    unsigned rounds;
};

static void idle_run(struct event_task *task)
{
    struct settling *settling = container_of(task, struct settling, idle);

    if (++settling->rounds < ROUNDS)
        event_loop_when_idle(settling->loop, task);
    else
        event_loop_stop(settling->loop);
}

void fuzz_settle(struct event_loop *loop)
{
    struct settling settling = {.idle.run = idle_run, .loop = loop};

    event_loop_when_idle(loop, &settling.idle);
    fuzz_no_error(event_loop_run(loop));
}

static char directory[] = "/tmp/mayfly-fuzz-XXXXXX";

static void remove_directory(void)
{
    DIR *open_directory = opendir(directory);
    struct dirent *entry;

    while (open_directory != NULL && (entry = readdir(open_directory)) != NULL)
        unlinkat(dirfd(open_directory), entry->d_name, 0);
    if (open_directory != NULL)
        closedir(open_directory);
    rmdir(directory);
}

const char *fuzz_path(const char *name)
{
    static char path[96];
    static bool made;

    if (!made) {
        fuzz_require(mkdtemp(directory) != NULL);
        atexit(remove_directory);
        signal(SIGPIPE, SIG_IGN);
        made = true;
    }
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

int fuzz_dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        fd_close(&fd);
    return fd;
}
