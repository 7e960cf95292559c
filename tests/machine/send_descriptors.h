/* sendmsg(2) with descriptors, for back ends that are the tests' own. */
#pragma once

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { SEND_DESCRIPTORS_MAX = 8 };

static inline ssize_t send_descriptors(int socket, const void *bytes, size_t size, const int *fds, size_t count,
                                       int flags)
{
    union {
        char room[CMSG_SPACE(SEND_DESCRIPTORS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (count > 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    }
    return sendmsg(socket, &header, flags | MSG_NOSIGNAL);
}
