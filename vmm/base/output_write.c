#include "vmm/base/output_write.h"

#include <errno.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t output_write(int fd, const void *data, size_t length)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    struct pollfd writable = {.fd = fd, .events = POLLOUT};

    /* Offset -1: where write(2) would. musl knows pwritev2 from 1.2.5 on only. */
    ssize_t written = syscall(SYS_pwritev2, fd, &iov, 1L, -1L, -1L, RWF_NOWAIT);
    if (written >= 0 || (errno != EAGAIN && errno != EOPNOTSUPP))
        return written;
    /* A file says EAGAIN too, when it has to look for room, and is always ready. */
    if (poll(&writable, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, data, length);
}
