#include "vmm/backend/vhost_user_wire.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { FDS_MAX = VHOST_USER_REGIONS_MAX, HEADER_SIZE = sizeof(struct vhost_user_header) };

bool vhost_user_fail(struct vhost_user *front, const char *why)
{
    if (front->failure == NULL)
        front->failure = why;
    return false;
}

bool vhost_user_fail_for_good(struct vhost_user *front, const char *why)
{
    front->hopeless = true;
    return vhost_user_fail(front, why);
}

static const char *reason(int code)
{
    return code == EPIPE || code == ECONNRESET ? "it closed the connection" : strerror(code);
}

static bool has_answer(enum vhost_user_request request)
{
    switch (request) {
    case VHOST_USER_GET_FEATURES:
    case VHOST_USER_GET_PROTOCOL_FEATURES:
    case VHOST_USER_GET_QUEUE_NUM:
    case VHOST_USER_GET_VRING_BASE:
    case VHOST_USER_GET_CONFIG:
    case VHOST_USER_GET_INFLIGHT_FD:
        return true;
    default:
        return false;
    }
}

static void put_fds(struct msghdr *message, void *room, const int *fds, size_t fd_count)
{
    if (fd_count == 0)
        return;
    message->msg_control = room;
    message->msg_controllen = (socklen_t)CMSG_SPACE(fd_count * sizeof(int));

    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = (socklen_t)CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(control), fds, fd_count * sizeof(int));
}

/* A back end that reads so little that a message does not fit into the socket has stalled. */
static bool send_whole(struct vhost_user *front, const void *message, size_t size, const int *fds, size_t fd_count)
{
    union {
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)message, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t sent;

    put_fds(&header, &control, fds, fd_count);
    do
        sent = sendmsg(front->connection.fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return vhost_user_fail(front, errno == EAGAIN ? "it reads nothing" : reason(errno));
    return (size_t)sent == size || vhost_user_fail(front, "it reads nothing");
}

bool vhost_user_say(struct vhost_user *front, enum vhost_user_request request, const void *payload, size_t size,
                    const int *fds, size_t fd_count)
{
    bool acknowledged = (front->protocol_features & 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK) != 0;
    bool answered = has_answer(request) || acknowledged;
    struct vhost_user_message message = {
        .header = {.request = request,
                   .flags = VHOST_USER_VERSION |
                            (acknowledged && !has_answer(request) ? (uint32_t)VHOST_USER_NEED_REPLY : 0),
                   .size = (uint32_t)size},
    };

    if (front->failure != NULL)
        return false;
    if (answered && front->expected_count == VHOST_USER_EXPECTED_MAX)
        return vhost_user_fail(front, "it answers nothing");
    if (size > 0)
        memcpy(&message.payload, payload, size);
    if (!send_whole(front, &message, HEADER_SIZE + size, fds, fd_count))
        return false;
    if (answered) {
        unsigned last = (front->expected_first + front->expected_count++) % VHOST_USER_EXPECTED_MAX;

        front->expected[last] = (uint8_t)request;
    }
    return true;
}

bool vhost_user_ask(struct vhost_user *front, enum vhost_user_request request)
{
    return vhost_user_say(front, request, NULL, 0, NULL, 0);
}

bool vhost_user_say_number(struct vhost_user *front, enum vhost_user_request request, uint64_t number)
{
    return vhost_user_say(front, request, &number, sizeof(number), NULL, 0);
}

bool vhost_user_say_state(struct vhost_user *front, enum vhost_user_request request, uint32_t index, uint32_t value)
{
    struct vhost_user_vring_state state = {.index = index, .value = value};

    return vhost_user_say(front, request, &state, sizeof(state), NULL, 0);
}

bool vhost_user_say_fd(struct vhost_user *front, enum vhost_user_request request, uint32_t index, int fd)
{
    uint64_t number = fd < 0 ? index | (uint64_t)VHOST_USER_NO_FD : index;

    return vhost_user_say(front, request, &number, sizeof(number), &fd, fd < 0 ? 0 : 1);
}

/* Room for one descriptor in *received, when asked for; the kernel closes all others that come. */
static ssize_t receive_some(int fd, void *to, size_t size, int *received)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr alignment;
    } control;
    struct iovec iov = {.iov_base = to, .iov_len = size};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};

    if (received == NULL)
        return recv(fd, to, size, MSG_DONTWAIT);

    ssize_t got = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    if (rights == NULL || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return got;
    fd_close(received);
    memcpy(received, CMSG_DATA(rights), sizeof(int));
    return got;
}

/* Reads on until `message` is whole. 1: it is; 0: more has to come; -1: the other side is gone or talks nonsense, see
 * *failure. */
static int read_message(int fd, struct vhost_user_message *message, size_t *length, int *received, const char **failure)
{
    for (;;) {
        size_t whole = HEADER_SIZE;

        if (*length >= HEADER_SIZE) {
            if (message->header.size > sizeof(message->payload)) {
                *failure = "a message of it is longer than any";
                return -1;
            }
            whole += message->header.size;
            if (*length == whole)
                return 1;
        }

        ssize_t got = receive_some(fd, (uint8_t *)message + *length, whole - *length, received);
        if (got > 0) {
            *length += (size_t)got;
        } else if (got == 0) {
            *failure = "it closed the connection";
            return -1;
        } else if (errno != EINTR) {
            *failure = reason(errno);
            return errno == EAGAIN ? 0 : -1;
        }
    }
}

/* The next answer. A descriptor is asked for only when one is to come. */
static int read_answer(struct vhost_user *front, const char **failure)
{
    bool brings_fd = front->expected_count > 0 && front->expected[front->expected_first] == VHOST_USER_GET_INFLIGHT_FD;

    return read_message(front->connection.fd, &front->incoming, &front->incoming_length,
                        brings_fd ? &front->incoming_fd : NULL, failure);
}

bool vhost_user_receive(struct vhost_user *front, vhost_user_answer *take)
{
    const char *failure = NULL;
    int whole;

    while ((whole = read_answer(front, &failure)) > 0) {
        const struct vhost_user_header *header = &front->incoming.header;

        front->incoming_length = 0;
        if ((header->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION || (header->flags & VHOST_USER_REPLY) == 0)
            return vhost_user_fail(front, "it speaks another protocol");
        if (front->expected_count == 0 || header->request != front->expected[front->expected_first])
            return vhost_user_fail(front, "it answered what it was not asked");

        front->expected_first = (front->expected_first + 1) % VHOST_USER_EXPECTED_MAX;
        front->expected_count--;
        bool taken = take(front, (enum vhost_user_request)header->request, &front->incoming);
        fd_close(&front->incoming_fd);
        if (!taken)
            return false;
    }
    return whole == 0 || vhost_user_fail(front, failure);
}

bool vhost_user_wait(struct vhost_user *front, vhost_user_answer *take, uint64_t patience_us)
{
    const uint64_t deadline = clock_monotonic_us() + patience_us;

    while (front->failure == NULL && front->expected_count > 0) {
        struct pollfd wait = {.fd = front->connection.fd, .events = POLLIN};
        uint64_t now = clock_monotonic_us();

        if (now >= deadline)
            return vhost_user_fail(front, "it does not answer");
        poll(&wait, 1, (int)((deadline - now + 999) / 1000));
        vhost_user_receive(front, take);
    }
    return front->failure == NULL;
}

/* No more than that at once: whoever talks without end keeps nobody else waiting. */
enum { HEARD_MAX = 16 };

bool vhost_user_listen(struct vhost_user *front, bool *changed)
{
    const char *failure = NULL;
    int whole = 0;

    *changed = false;
    for (int heard = 0; heard < HEARD_MAX; heard++) {
        whole = read_message(front->channel.fd, &front->said, &front->said_length, NULL, &failure);
        if (whole <= 0)
            break;

        struct {
            struct vhost_user_header header;
            uint64_t number;
        } __attribute__((packed)) answer = {
            .header = {.request = front->said.header.request,
                       .flags = VHOST_USER_VERSION | VHOST_USER_REPLY,
                       .size = sizeof(uint64_t)},
            .number = front->said.header.request != VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
        };

        front->said_length = 0;
        *changed = *changed || front->said.header.request == VHOST_USER_BACKEND_CONFIG_CHANGE_MSG;
        if ((front->said.header.flags & VHOST_USER_NEED_REPLY) != 0 &&
            send(front->channel.fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            return false;
    }
    return whole >= 0;
}
