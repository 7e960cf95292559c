#include "jailer/exec_file.h"

#include "vmm/base/cleanup.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 16 };

/* Only the header and the program headers are looked at; the kernel checks the rest. */
static struct error *check_static(int fd, const char *path)
{
    Elf64_Ehdr header;
    ssize_t got = pread(fd, &header, sizeof(header), 0);

    if (got < 0)
        return error_errno(errno, "--exec-file: cannot read \"%s\"", path);
    if (got != sizeof(header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr))
        return error_new(ERROR_INPUT, "--exec-file: \"%s\" is not a 64-bit ELF program", path);

    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;

        got = header.e_phoff > INT64_MAX - (i + 1) * sizeof(segment)
                  ? 0
                  : pread(fd, &segment, sizeof(segment), (off_t)(header.e_phoff + i * sizeof(segment)));
        if (got < 0)
            return error_errno(errno, "--exec-file: cannot read \"%s\"", path);
        if (got != sizeof(segment))
            return error_new(ERROR_INPUT, "--exec-file: \"%s\" ends within its program headers", path);
        if (segment.p_type == PT_INTERP)
            return error_new(ERROR_INPUT,
                             "--exec-file: \"%s\" is dynamically linked and cannot run in an empty root; "
                             "expected a static binary",
                             path);
    }
    return NULL;
}

static bool is_trusted(uid_t uid, const struct stat *file)
{
    return uid == 0 || uid == geteuid() || uid == file->st_uid;
}

/* Cuts the path behind its last slash: "" is the working directory. */
static void keep_folder(char *path)
{
    char *slash = strrchr(path, '/');

    path[slash == NULL ? 0 : slash + 1 - path] = '\0';
}

static struct error *check_link(const char *path, const struct stat *link, const struct stat *file)
{
    char folder[PATH_MAX];
    struct stat status;

    snprintf(folder, sizeof(folder), "%s", path);
    keep_folder(folder);
    if (stat(folder[0] == '\0' ? "." : folder, &status) < 0)
        return error_errno(errno, "--exec-file: cannot look at the folder of \"%s\"", path);
    if (!is_trusted(link->st_uid, file))
        return error_new(ERROR_INPUT,
                         "--exec-file: the symbolic link \"%s\" belongs to user %u; expected root, user %u or the "
                         "file's owner, %u",
                         path, link->st_uid, geteuid(), file->st_uid);
    if (!is_trusted(status.st_uid, file) || (status.st_mode & (S_IWOTH | S_ISVTX)) == S_IWOTH)
        return error_new(ERROR_INPUT,
                         "--exec-file: others may replace the symbolic link \"%s\": its folder belongs to user %u, "
                         "mode %04o",
                         path, status.st_uid, status.st_mode & 07777);
    return NULL;
}

/*
 * The file is open already: who swaps links meanwhile makes them lead to another file than that, or has to be trusted
 * with it.
 */
static struct error *check_links(const char *path, const struct stat *file)
{
    char at[PATH_MAX], target[PATH_MAX];
    struct stat status;

    snprintf(at, sizeof(at), "%s", path);
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        if (lstat(at, &status) < 0)
            return error_errno(errno, "--exec-file: cannot look at \"%s\"", at);
        if (!S_ISLNK(status.st_mode))
            return status.st_ino == file->st_ino && status.st_dev == file->st_dev
                       ? NULL
                       : error_new(ERROR_INPUT, "--exec-file: \"%s\" became another file meanwhile", path);

        struct error *error = check_link(at, &status, file);
        if (error != NULL)
            return error;
        ssize_t length = readlink(at, target, sizeof(target) - 1);
        if (length < 0)
            return error_errno(errno, "--exec-file: cannot read the symbolic link \"%s\"", at);
        target[length] = '\0';
        if (target[0] == '/')
            at[0] = '\0';
        keep_folder(at);
        if (strlen(at) + (size_t)length >= sizeof(at))
            return error_errno(ENAMETOOLONG, "--exec-file: cannot follow \"%s\"", path);
        strcat(at, target);
    }
    return error_errno(ELOOP, "--exec-file: cannot follow \"%s\"", path);
}

struct error *exec_file_open(const char *path, int *fd)
{
    struct stat status;
    cleanup_fd int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (file < 0)
        return error_errno(errno, "--exec-file: cannot open \"%s\"", path);
    if (fstat(file, &status) < 0)
        return error_errno(errno, "--exec-file: cannot look at \"%s\"", path);
    if (!S_ISREG(status.st_mode))
        return error_new(ERROR_INPUT, "--exec-file: \"%s\" is not a regular file", path);
    if ((status.st_mode & 0111) == 0)
        return error_new(ERROR_INPUT, "--exec-file: \"%s\" is not executable (mode %04o)", path,
                         status.st_mode & 07777);

    if ((status.st_mode & S_IWOTH) != 0)
        return error_new(ERROR_INPUT, "--exec-file: \"%s\" is writable by everybody (mode %04o)", path,
                         status.st_mode & 07777);

    struct error *error = check_links(path, &status);
    if (error == NULL)
        error = check_static(file, path);
    if (error != NULL)
        return error;
    *fd = take_fd(&file);
    return NULL;
}
