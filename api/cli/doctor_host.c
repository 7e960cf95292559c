#include "api/cli/doctor_host.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

enum { PATH_SIZE = 1024 };

static int try_open_here(const char *path)
{
    cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    return fd >= 0 ? 0 : errno;
}

static int landlock_abi_here(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);

    return abi >= 0 ? (int)abi : -errno;
}

/* The kernel looks whether the caller may before it looks at the arguments, which are none. */
static int io_uring_here(void)
{
    if (syscall(SYS_io_uring_setup, 0u, NULL) >= 0)
        return 0;
    return errno == EFAULT || errno == EINVAL ? 0 : errno;
}

struct host host_here(void)
{
    static char programs[PATH_SIZE];
    ssize_t length = readlink("/proc/self/exe", programs, sizeof(programs) - 1);
    char *slash;

    programs[length > 0 ? length : 0] = '\0';
    slash = strrchr(programs, '/');
    if (slash != NULL && slash != programs)
        *slash = '\0';
    return (struct host){
        .root = "",
        .uid = geteuid(),
        .programs = slash != NULL ? programs : "/usr/local/bin",
        .try_open = try_open_here,
        .probe_kvm = kvm_probe,
        .landlock_abi = landlock_abi_here,
        .io_uring = io_uring_here,
    };
}

static bool full_path(const struct host *host, const char *path, char full[PATH_SIZE])
{
    return snprintf(full, PATH_SIZE, "%s%s", host->root, path) < PATH_SIZE;
}

bool host_read(const struct host *host, const char *path, char *text, size_t size)
{
    char full[PATH_SIZE];
    cleanup_fd int fd = full_path(host, path, full) ? open(full, O_RDONLY | O_CLOEXEC) : -1;
    size_t length = 0;
    ssize_t got = 1;

    text[0] = '\0';
    while (fd >= 0 && length < size - 1 && got > 0) {
        got = read(fd, text + length, size - 1 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    if (fd < 0 || got < 0) {
        text[0] = '\0';
        return false;
    }
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    return true;
}

bool host_read_number(const struct host *host, const char *path, uint64_t *number)
{
    char text[64];
    char *end;

    if (!host_read(host, path, text, sizeof(text)) || !isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0;
}

FILE *host_open(const struct host *host, const char *path)
{
    char full[PATH_SIZE];

    return full_path(host, path, full) ? fopen(full, "re") : NULL;
}

bool host_has(const struct host *host, const char *path)
{
    char full[PATH_SIZE];

    return full_path(host, path, full) && access(full, F_OK) == 0;
}

int host_try_open(const struct host *host, const char *path)
{
    char full[PATH_SIZE];

    return full_path(host, path, full) ? host->try_open(full) : ENAMETOOLONG;
}

bool has_word(const char *text, const char *word)
{
    static const char separators[] = " \t\n,[]";
    size_t length = strlen(word);

    for (const char *at = text; (at = strstr(at, word)) != NULL; at++) {
        bool starts = at == text || strchr(separators, at[-1]) != NULL;

        if (starts && strchr(separators, at[length]) != NULL) /* finds the end of the text too */
            return true;
    }
    return false;
}

bool host_cpu_has(const struct host *host, const char *flag)
{
    FILE *file = host_open(host, "/proc/cpuinfo");
    cleanup_free char *line = NULL;
    size_t size = 0;
    bool found = false;

    if (file == NULL)
        return false;
    while (getline(&line, &size, file) > 0) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        found = has_word(line, flag);
        break; /* the others are the same */
    }
    fclose(file);
    return found;
}

static uint64_t limit_parse(const char *text)
{
    return strcmp(text, "unlimited") == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

bool host_limit(const struct host *host, const char *name, uint64_t *soft, uint64_t *hard)
{
    FILE *file = host_open(host, "/proc/self/limits");
    cleanup_free char *line = NULL;
    size_t size = 0;
    bool found = false;

    if (file == NULL)
        return false;
    while (!found && getline(&line, &size, file) > 0) {
        char texts[2][32];

        if (strncmp(line, name, strlen(name)) != 0 || sscanf(line + strlen(name), "%31s %31s", texts[0], texts[1]) != 2)
            continue;
        *soft = limit_parse(texts[0]);
        *hard = limit_parse(texts[1]);
        found = true;
    }
    fclose(file);
    return found;
}
