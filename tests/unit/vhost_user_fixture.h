/*
 * A vhost-user front end and the back end that it talks to, which writes down what it hears. The back end works
 * whenever the front end's loop is idle; beside calls that wait for it, in a thread.
 */
#pragma once

#include "tests/unit/harness.h"

#include "vmm/backend/vhost_user.h"
#include "vmm/base/clock.h"
#include "vmm/hotplug_memory.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { RINGS = 3, RING_SIZE = 8, CONFIG_SIZE = 24, HEARD_MAX = 128, QUIET_ROUNDS = 4, NOBODY = -1 };

#define BIT(number) (1ull << (number))
#define PROTOCOL BIT(VHOST_USER_F_PROTOCOL_FEATURES)
#define VERSION_1 BIT(VIRTIO_F_VERSION_1)
#define NEEDED (BIT(2) | BIT(5) | BIT(9)) /* of the virtio features */
#define USUAL_PROTOCOL                                                                                                 \
    (BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | BIT(VHOST_USER_PROTOCOL_F_CONFIG) |        \
     BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ))
#define COUNTING BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)

struct heard {
    struct vhost_user_message message;
    int fds[VHOST_USER_REGIONS_MAX];
    unsigned fd_count;
};

/* What the next back end is like, and what the one that there is has heard. */
static struct {
    uint64_t features, protocol, queues;
    uint8_t config[CONFIG_SIZE];
    uint32_t config_size;
    uint32_t silent_at, refuses; /* a request: it answers nothing from then on, or with a failure */
    uint64_t in_flight_size;     /* of its memory for requests in flight */
    bool in_flight_given;        /* and that comes along */
    bool is_short;               /* what it says of that memory, and of rings */
    uint16_t base[RINGS];        /* where it says that the rings are */
    uint32_t index_off;          /* added to a ring's number in an answer */
    int listener, socket, in_flight_fd, stop;
    bool is_silent;
    struct heard heard[HEARD_MAX];
    unsigned count;
} backend;

static struct vhost_user front;
static struct vhost_user_metrics counted;
static struct vhost_user_needs needs;
static struct event_loop *loop;
static struct guest_memory memory;
static struct hotplug_memory plugged;
static char path[64];
static unsigned failures, changes;
static const char *failure; /* the last one that the owner heard of */
static union {
    struct vring_avail ring;
    uint16_t room[2 + RING_SIZE + 1];
} available[RINGS];
static union {
    struct vring_used ring;
    vring_used_elem_t room[1 + RING_SIZE + 1];
} used[RINGS];
static struct vring_desc descriptors[RINGS][RING_SIZE];
static struct vhost_user_ring rings[RINGS];

/* --- The back end --- */

static inline void say(int fd, const void *message, size_t size, int with)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr alignment;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)message, .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (with >= 0) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(sizeof(int));
        *CMSG_FIRSTHDR(&header) =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), &with, sizeof(int));
    }
    if (sendmsg(fd, &header, MSG_NOSIGNAL) != (ssize_t)size && errno != EPIPE)
        abort();
}

static inline void answer(struct vhost_user_message *message, size_t size, int with)
{
    message->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message->header.size = (uint32_t)size;
    say(backend.socket, message, sizeof(message->header) + size, with);
}

static inline void answer_number(struct vhost_user_message message, uint64_t number)
{
    message.payload.number = number;
    answer(&message, sizeof(number), NOBODY);
}

static inline void respond(struct vhost_user_message message)
{
    switch (message.header.request) {
    case VHOST_USER_GET_FEATURES:
        return answer_number(message, backend.features);
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        return answer_number(message, backend.protocol);
    case VHOST_USER_GET_QUEUE_NUM:
        return answer_number(message, backend.queues);
    case VHOST_USER_GET_CONFIG:
        memcpy(message.payload.config.bytes, backend.config, CONFIG_SIZE);
        message.payload.config.size = backend.config_size;
        return answer(&message, offsetof(struct vhost_user_config, bytes) + backend.config_size, NOBODY);
    case VHOST_USER_GET_VRING_BASE:
        message.payload.state.value = backend.base[message.payload.state.index];
        message.payload.state.index += backend.index_off;
        return answer(&message, sizeof(message.payload.state) - backend.is_short, NOBODY);
    case VHOST_USER_GET_INFLIGHT_FD:
        message.payload.inflight.mmap_size = backend.in_flight_size;
        message.payload.inflight.mmap_offset = 4096;
        return answer(&message, sizeof(message.payload.inflight) - backend.is_short,
                      backend.in_flight_given ? backend.in_flight_fd : NOBODY);
    default:
        if ((message.header.flags & VHOST_USER_NEED_REPLY) != 0)
            answer_number(message, message.header.request == backend.refuses);
    }
}

static inline void backend_leave(void)
{
    fd_close(&backend.socket);
}

/* Takes a message, if there is one, and answers it. Whether there was. */
static inline bool backend_work(void)
{
    union {
        char room[CMSG_SPACE(VHOST_USER_REGIONS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control;
    struct heard *heard = &backend.heard[backend.count];
    struct iovec iov = {.iov_base = &heard->message, .iov_len = sizeof(heard->message.header)};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    if (backend.socket < 0) {
        backend.socket = accept(backend.listener, NULL, NULL);
        return backend.socket >= 0;
    }
    ssize_t got = recvmsg(backend.socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got == 0)
        backend_leave();
    if (got <= 0)
        return got == 0;

    size_t size = heard->message.header.size;
    if (got != sizeof(heard->message.header) || size > sizeof(heard->message.payload) ||
        (size > 0 && recv(backend.socket, &heard->message.payload, size, 0) != (ssize_t)size) ||
        ++backend.count == HEARD_MAX)
        abort();
    if (CMSG_FIRSTHDR(&header) != NULL) {
        heard->fd_count = (unsigned)((CMSG_FIRSTHDR(&header)->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(heard->fds, CMSG_DATA(CMSG_FIRSTHDR(&header)), heard->fd_count * sizeof(int));
    }
    backend.is_silent = backend.is_silent || heard->message.header.request == backend.silent_at;
    if (!backend.is_silent)
        respond(heard->message);
    return true;
}

static inline void *work_until_stopped(void *unused)
{
    for (;;) {
        struct pollfd waits[] = {{.fd = backend.stop, .events = POLLIN},
                                 {.fd = backend.socket < 0 ? backend.listener : backend.socket, .events = POLLIN}};

        poll(waits, 2, -1);
        if (waits[0].revents != 0)
            return unused;
        backend_work();
    }
}

/* Runs `call`, which waits for the back end. */
#define BESIDE_BACKEND(call)                                                                                           \
    do {                                                                                                               \
        pthread_t thread;                                                                                              \
        eventfd_t count;                                                                                               \
        assert_int_equal(pthread_create(&thread, NULL, work_until_stopped, NULL), 0);                                  \
        call;                                                                                                          \
        eventfd_write(backend.stop, 1);                                                                                \
        pthread_join(thread, NULL);                                                                                    \
        eventfd_read(backend.stop, &count);                                                                            \
    } while (0)

static inline void forget_heard(void)
{
    for (unsigned i = 0; i < backend.count; i++)
        for (unsigned j = 0; j < backend.heard[i].fd_count; j++)
            close(backend.heard[i].fds[j]);
    memset(backend.heard, 0, sizeof(backend.heard));
    backend.count = 0;
}

/* The nth such request since the last forget_heard, counted from 0; NULL: there were not so many. */
static inline const struct heard *heard_nth(uint32_t request, unsigned nth)
{
    for (unsigned i = 0; i < backend.count; i++)
        if (backend.heard[i].message.header.request == request && nth-- == 0)
            return &backend.heard[i];
    return NULL;
}

static inline unsigned times_heard(uint32_t request)
{
    unsigned times = 0;

    while (heard_nth(request, times) != NULL)
        times++;
    return times;
}

static inline const struct heard *heard(uint32_t request)
{
    const struct heard *only = heard_nth(request, 0);

    if (only == NULL || heard_nth(request, 1) != NULL)
        fail_msg("request %u came not once", request);
    return only;
}

#define HEARS(...)                                                                                                     \
    do {                                                                                                               \
        const uint32_t requests[] = {__VA_ARGS__};                                                                     \
        for (unsigned r = 0; r < array_length(requests); r++)                                                          \
            assert_int_equal(r < backend.count ? backend.heard[r].message.header.request : 0, requests[r]);            \
        assert_int_equal(backend.count, array_length(requests));                                                       \
    } while (0)

/* --- The loop --- */

static struct event_task work;
static unsigned quiet_rounds;
static bool (*awaited)(void);
static enum vhost_user_state awaited_state;
static unsigned awaited_failures;

static inline void work_and_look(struct event_task *task)
{
    bool worked = backend_work();

    quiet_rounds = worked ? 0 : quiet_rounds + 1;
    if (quiet_rounds >= QUIET_ROUNDS && awaited())
        event_loop_stop(loop);
    else
        event_loop_when_idle(loop, task);
}

/* Until this is so, and nobody has anything to say. */
static inline void run_until(bool (*is_so)(void))
{
    quiet_rounds = 0;
    awaited = is_so;
    work.run = work_and_look;
    event_loop_when_idle(loop, &work);
    assert_no_error(event_loop_run(loop));
}

static inline bool always(void)
{
    return true;
}

static inline void run(void)
{
    run_until(always);
}

static inline bool has_state(void)
{
    return front.state == awaited_state;
}

static inline void run_until_state(enum vhost_user_state state)
{
    awaited_state = state;
    run_until(has_state);
}

static inline bool has_failed(void)
{
    return failures == awaited_failures;
}

static inline void run_until_failures(unsigned count)
{
    awaited_failures = count;
    run_until(has_failed);
}

/* --- The owner --- */

static inline void on_config_changed(void *owner)
{
    assert_ptr_equal(owner, &failures);
    changes++;
}

static inline void on_failed(void *owner, const char *reason)
{
    assert_ptr_equal(owner, &failures);
    assert_int_equal(front.connection.fd, NOBODY);
    failures++;
    failure = reason;
}

static const struct vhost_user_owner owner_ops = {on_config_changed, on_failed};

static inline struct error *open_front(void)
{
    struct error *error;

    BESIDE_BACKEND(error = vhost_user_open(&front, &needs, loop, &owner_ops, &failures));
    return error;
}

/* Of a disk, say: agreed with, and nothing heard since. */
static inline void open_with(uint64_t protocol)
{
    backend.protocol = protocol;
    assert_no_error(open_front());
    assert_int_equal(front.state, VHOST_USER_READY);
    run();
    forget_heard();
}

static inline void stop_front(void)
{
    BESIDE_BACKEND(vhost_user_stop(&front));
}

static inline unsigned rung(int bell)
{
    eventfd_t count = 0;

    eventfd_read(bell, &count);
    return (unsigned)count;
}

static inline void empty_queues(void)
{
    memset(available, 0, sizeof(available));
    memset(used, 0, sizeof(used));
}

static inline int fixture_setup(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)state;
    snprintf(path, sizeof(path), "/tmp/mayfly-front-%d.sock", getpid());
    strcpy(address.sun_path, path);
    unlink(path);
    memset(&backend, 0, sizeof(backend));
    backend.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(backend.listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(backend.listener, 4), 0);
    backend.socket = NOBODY;
    backend.stop = eventfd(0, EFD_CLOEXEC);
    backend.in_flight_fd = memfd_create("in flight", MFD_CLOEXEC);
    backend.features = VERSION_1 | PROTOCOL | BIT(2) | BIT(9) | BIT(11);
    backend.protocol = USUAL_PROTOCOL | BIT(1);
    backend.queues = RINGS;
    backend.config_size = CONFIG_SIZE;
    memset(backend.config, 'c', CONFIG_SIZE);
    counted = (struct vhost_user_metrics){0};
    needs = (struct vhost_user_needs){.name = "block",
                                      .id = "disk",
                                      .path = path,
                                      .metrics = &counted,
                                      .features = NEEDED,
                                      .config_size = CONFIG_SIZE,
                                      .queue_count = RINGS,
                                      .queue_size = RING_SIZE,
                                      .resumable = true};
    memory = (struct guest_memory){
        .count = 2,
        .shared = true,
        .shared_fd = memfd_create("guest memory", MFD_CLOEXEC),
        .regions = {{0, 0x10000, (uint8_t *)0x100000, 0}, {0x100000000, 0x20000, (uint8_t *)0x200000, 0x10000}}};
    plugged = (struct hotplug_memory){.gpa = 0x200000000,
                                      .size = 0x40000,
                                      .hva = (uint8_t *)0x300000,
                                      .shared = true,
                                      .shared_fd = memfd_create("plugged memory", MFD_CLOEXEC)};
    empty_queues();
    for (unsigned i = 0; i < RINGS; i++)
        rings[i] = (struct vhost_user_ring){.ready = true,
                                            .enabled = true,
                                            .size = RING_SIZE,
                                            .base = (uint16_t)(5 + i),
                                            .descriptors = descriptors[i],
                                            .available = &available[i].ring,
                                            .used = &used[i].ring,
                                            .kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                            .call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    rings[1].ready = false;
    rings[1].descriptors = NULL;
    rings[1].available = NULL;
    rings[1].used = NULL;
    failures = changes = 0;
    failure = NULL;
    return event_loop_new(&loop) == NULL ? 0 : -1;
}

static inline int fixture_teardown(void **state)
{
    (void)state;
    vhost_user_close(&front);
    forget_heard();
    backend_leave();
    close(backend.listener);
    close(backend.stop);
    close(backend.in_flight_fd);
    close(memory.shared_fd);
    close(plugged.shared_fd);
    for (unsigned i = 0; i < RINGS; i++) {
        close(rings[i].kick_fd);
        close(rings[i].call_fd);
    }
    event_loop_free(loop);
    unlink(path);
    return 0;
}

#define front_test(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)
