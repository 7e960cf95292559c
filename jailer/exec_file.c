#include "jailer/exec_file.h"

#include "vmm/base/cleanup.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

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

        if (header.e_phoff > INT64_MAX - (i + 1) * sizeof(segment) ||
            pread(fd, &segment, sizeof(segment), (off_t)(header.e_phoff + i * sizeof(segment))) != sizeof(segment))
            return error_new(ERROR_INPUT, "--exec-file: \"%s\" ends within its program headers", path);
        if (segment.p_type == PT_INTERP)
            return error_new(ERROR_INPUT,
                             "--exec-file: \"%s\" is dynamically linked and cannot run in an empty root; "
                             "expected a static binary",
                             path);
    }
    return NULL;
}

struct error *exec_file_open(const char *path, int *fd)
{
    struct stat status;
    /* A link is followed: callers keep versions apart with them, and who can change it can change the file as well. */
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

    struct error *error = check_static(file, path);
    if (error != NULL)
        return error;
    *fd = take_fd(&file);
    return NULL;
}
