#include "api/cli/run_leftover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

#define PREFIX "mayfly-run-"

enum { TRIES_MAX = 16 };

struct error *run_leftover_make(const char *place, char *path, size_t size, int *fd)
{
    struct stat status;

    /* `mayfly gc` may see the folder before it is locked, and take it for a dead one: then another is made. */
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        if (snprintf(path, size, "%s/" PREFIX "XXXXXX", place) >= (int)size)
            return error_errno(ENAMETOOLONG, "cannot make a directory for the sockets in %s", place);
        if (mkdtemp(path) == NULL)
            return error_errno(errno, "cannot make a directory for the sockets in %s", place);
        *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*fd >= 0 && flock(*fd, LOCK_EX | LOCK_NB) == 0 && fstat(*fd, &status) == 0 && status.st_nlink > 0)
            return NULL;
        fd_close(fd);
    }
    return error_new(ERROR_HOST, "cannot lock a directory for the sockets in %s", place);
}

struct error *run_leftover_make_somewhere(char *path, size_t size, int *fd)
{
    const char *places[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
    struct error *error = NULL;

    for (size_t i = 0; i < array_length(places); i++) {
        if (places[i] == NULL || places[i][0] != '/')
            continue;
        error_free(error);
        error = run_leftover_make(places[i], path, size, fd);
        if (error == NULL)
            return NULL;
    }
    path[0] = '\0';
    return error;
}

/* It holds sockets only: nothing is a directory. */
static void unlink_all(int folder)
{
    int copy = fcntl(folder, F_DUPFD_CLOEXEC, 3);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    while (directory != NULL && (entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(folder, entry->d_name, 0);
    if (directory != NULL)
        closedir(directory);
    else
        fd_close(&copy);
}

void run_leftover_clear(const char *path)
{
    cleanup_fd int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (folder >= 0)
        unlink_all(folder);
    rmdir(path);
}

bool run_leftover_remove(int parent, const char *name, bool dry_run)
{
    cleanup_fd int folder = -1;
    struct stat status;

    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || strlen(name) != strlen(PREFIX "XXXXXX"))
        return false;
    folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fstat(folder, &status) != 0 || status.st_uid != geteuid() ||
        ((status.st_mode & 0777) != 0700 && (status.st_mode & 0777) != 0711) || flock(folder, LOCK_EX | LOCK_NB) != 0)
        return false;
    if (!dry_run)
        unlink_all(folder);
    return dry_run || unlinkat(parent, name, AT_REMOVEDIR) == 0;
}
