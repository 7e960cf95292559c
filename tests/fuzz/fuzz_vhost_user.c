/*
 * Devices whose back end lies: a disk, a network or a file system, under a driver that is no better. The front end
 * waits for some answers, so the back end has its turn when the front end polls (the linker wraps poll, and what
 * connects); the clock is wrapped as well, and patience runs out at once. An input is: which device; how many bytes
 * decide the back end's answers, and these; the rest is the script of fuzz_device. The answers of a back end whose
 * bytes are used up are right.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/machine/send_descriptors.h"

#include "vmm/backend/unix_socket.h"
#include "vmm/base/cleanup.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = sizeof(struct vhost_user_header), FDS_MAX = VHOST_USER_REGIONS_MAX, IN_FLIGHT_SIZE = 4096 };

static struct {
    struct fuzz_input answers;
    int socket, channel; /* -1: closed */
    struct vhost_user_message request;
    size_t request_length;
    int request_fd; /* the first that came with it; -1: none */
} back_end;

enum kind { DISK, DISK_OF_QUEUES, NETWORK, NETWORK_OF_PAIRS, FILES, KINDS };

static enum kind kind;
static struct virtio_device *device;
static uint64_t now_us;
static int free_fd; /* the lowest before the device was there */

/* --- What the back end says --- */

static int some_fd(uint8_t which)
{
    int fd = -1;

    if (which % 4 == 0)
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    else if (which % 4 == 1)
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    else
        fd = memfd_create("in flight", MFD_CLOEXEC);
    fuzz_require(fd >= 0 && (which % 4 != 2 || ftruncate(fd, IN_FLIGHT_SIZE) == 0));
    return fd;
}

/* To one that nobody reads from, or who is gone, it is lost. */
static void send_with(int socket, const void *bytes, size_t size, const int *fds, size_t fd_count)
{
    fuzz_require(send_descriptors(socket, bytes, size, fds, fd_count, MSG_DONTWAIT) <= (ssize_t)size);
}

static void hang_up(void)
{
    fd_close(&back_end.socket);
    fd_close(&back_end.channel);
    fd_close(&back_end.request_fd);
    back_end.request_length = 0;
}

/* The payload of the right answer, which has room in place of the request's. Returns its size. */
static uint32_t answer_rightly(struct vhost_user_message *message)
{
    switch (message->header.request) {
    case VHOST_USER_GET_FEATURES:
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        message->payload.number = UINT64_MAX;
        return sizeof(message->payload.number);
    case VHOST_USER_GET_QUEUE_NUM:
        message->payload.number = VHOST_USER_RINGS_MAX;
        return sizeof(message->payload.number);
    case VHOST_USER_GET_CONFIG:
        memset(message->payload.config.bytes, 1, sizeof(message->payload.config.bytes));
        return (uint32_t)offsetof(struct vhost_user_config, bytes) + message->payload.config.size;
    case VHOST_USER_GET_VRING_BASE:
        message->payload.state.value = 0;
        return sizeof(message->payload.state);
    case VHOST_USER_GET_INFLIGHT_FD:
        message->payload.inflight.mmap_size = IN_FLIGHT_SIZE;
        message->payload.inflight.mmap_offset = 0;
        return sizeof(message->payload.inflight);
    default:
        message->payload.number = 0;
        return sizeof(message->payload.number);
    }
}

enum lie {
    LIE_PAYLOAD = 1,
    LIE_NUMBER,
    LIE_SIZE,
    LIE_HEADER,
    LIE_HALF,
    LIE_TWICE,
    LIE_SILENCE,
    LIE_END,
    LIE_FDS,
    LIE_NOISE,
    LIES = 16, /* the others are the truth */
};

/* Changes the right answer. Returns how many bytes of it are to be sent. */
static size_t bend(struct vhost_user_message *message, enum lie lie)
{
    struct fuzz_input *input = &back_end.answers;

    if (lie == LIE_PAYLOAD)
        fuzz_bytes(input, &message->payload, message->header.size);
    else if (lie == LIE_NUMBER)
        message->payload.number ^= 1ull << fuzz_u8(input) % 64;
    else if (lie == LIE_SIZE)
        message->header.size = fuzz_u16(input);
    else if (lie == LIE_HEADER)
        fuzz_bytes(input, &message->header, HEADER);
    else if (lie == LIE_NOISE)
        fuzz_bytes(input, message, sizeof(*message));

    const uint32_t size = message->header.size;
    size_t whole = lie == LIE_NOISE || size > sizeof(message->payload) ? sizeof(*message) : HEADER + size;
    return lie == LIE_HALF ? fuzz_u16(input) % whole : whole;
}

static void answer(void)
{
    struct vhost_user_message message = back_end.request;
    enum lie lie = fuzz_u8(&back_end.answers) % LIES;
    int fds[FDS_MAX];
    size_t fd_count = message.header.request == VHOST_USER_GET_INFLIGHT_FD && lie != LIE_FDS ? 1 : 0;
    uint8_t which = 2;

    message.header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message.header.size = answer_rightly(&message);
    size_t size = bend(&message, lie);
    if (lie == LIE_FDS) {
        which = fuzz_u8(&back_end.answers);
        fd_count = (size_t)(which >> 2) % (FDS_MAX + 1);
    }
    for (size_t i = 0; i < fd_count; i++)
        fds[i] = some_fd(which);
    if (lie != LIE_SILENCE && lie != LIE_END)
        send_with(back_end.socket, &message, size, fds, fd_count);
    if (lie == LIE_TWICE)
        send_with(back_end.socket, &message, size, fds, fd_count);
    for (size_t i = 0; i < fd_count; i++)
        close(fds[i]);
    if (lie == LIE_END)
        hang_up();
}

/* --- What it hears --- */

static bool wants_answer(const struct vhost_user_header *header)
{
    switch (header->request) {
    case VHOST_USER_GET_FEATURES:
    case VHOST_USER_GET_PROTOCOL_FEATURES:
    case VHOST_USER_GET_QUEUE_NUM:
    case VHOST_USER_GET_VRING_BASE:
    case VHOST_USER_GET_CONFIG:
    case VHOST_USER_GET_INFLIGHT_FD:
        return true;
    default:
        return (header->flags & VHOST_USER_NEED_REPLY) != 0;
    }
}

/* Reads on in the request, with one descriptor: the kernel closes the others. False when nothing is there. */
static bool hear_some(size_t whole)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr alignment;
    } control;
    struct iovec iov = {.iov_base = (uint8_t *)&back_end.request + back_end.request_length,
                        .iov_len = whole - back_end.request_length};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};
    ssize_t got = recvmsg(back_end.socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&header) : NULL;

    if (rights != NULL) {
        fd_close(&back_end.request_fd);
        memcpy(&back_end.request_fd, CMSG_DATA(rights), sizeof(int));
    }
    if (got > 0)
        back_end.request_length += (size_t)got;
    else if (got == 0)
        hang_up();
    return got > 0;
}

/* Hears all that was asked, and answers. What the front end says is sound, whatever it has heard. */
static void take_turn(void)
{
    while (back_end.socket >= 0) {
        struct vhost_user_header *header = &back_end.request.header;
        size_t whole = back_end.request_length < HEADER ? HEADER : HEADER + header->size;

        fuzz_require(whole <= sizeof(back_end.request));
        if (back_end.request_length < whole) {
            if (!hear_some(whole))
                return;
            continue;
        }
        fuzz_require((header->flags & VHOST_USER_VERSION_MASK) == VHOST_USER_VERSION);
        back_end.request_length = 0;
        if (header->request == VHOST_USER_SET_BACKEND_REQ_FD) {
            fd_close(&back_end.channel);
            back_end.channel = take_fd(&back_end.request_fd);
        }
        fd_close(&back_end.request_fd);
        if (wants_answer(header))
            answer();
    }
}

/* --- What the linker puts in place of the host --- */

int __wrap_unix_socket_connect(const char *path, int type);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
uint64_t __wrap_clock_monotonic_us(void);

int __wrap_unix_socket_connect(const char *path, int type)
{
    int ends[2];

    (void)path;
    hang_up();
    if (fuzz_u8(&back_end.answers) == UINT8_MAX)
        return -ECONNREFUSED;
    fuzz_require(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    back_end.socket = ends[1];
    return ends[0];
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    if (timeout_ms != 0)
        take_turn();
    int ready = __real_poll(fds, count, 0);
    if (ready == 0)
        now_us += (uint64_t)timeout_ms * 1000;
    return ready;
}

uint64_t __wrap_clock_monotonic_us(void)
{
    return ++now_us;
}

/* --- The device --- */

static int lowest_free_fd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    fuzz_require(fd >= 0);
    close(fd);
    return fd;
}

static struct virtio_device *make(struct event_loop *loop)
{
    char path[] = "/back.sock", id[] = "id";
    const bool many = kind == DISK_OF_QUEUES || kind == NETWORK_OF_PAIRS;
    struct drive_config drive = {
        .drive_id = id, .socket = path, .cache_type = CACHE_TYPE_WRITEBACK, .queue_count = many ? 4 : 0};
    struct network_interface_config net = {
        .iface_id = id,
        .backend = {.present = true, .type = NETWORK_BACKEND_VHOST_USER, .socket_path = path},
        .queue_count = many ? 3 : 0};
    struct file_system_config files = {.fs_id = id, .tag = id, .socket_path = path};
    struct error *error;

    free_fd = lowest_free_fd();
    device = NULL;
    if (kind == FILES)
        error = virtio_file_system_new(&files, loop, &device);
    else if (kind == NETWORK || kind == NETWORK_OF_PAIRS)
        error = virtio_vhost_user_net_new(&net, loop, &device);
    else
        error = virtio_vhost_user_block_new(&drive, loop, &device);
    fuzz_require((error == NULL) == (device != NULL));
    error_free(error);
    return device;
}

/* Gives a request back to the driver: the one whose turn it is, or one that nobody made. */
static void give_back(struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    const struct virtqueue *queue = &device->queues[(how & 0x7f) % device->queue_count];

    if (!device->active || !queue->ready)
        return;
    uint16_t at = queue->used->idx;
    uint16_t head = queue->available->ring[at & (queue->size - 1)];
    queue->used->ring[at & (queue->size - 1)].id = how & 0x80 ? fuzz_u16(input) : head;
    queue->used->idx = (uint16_t)(at + 1);
}

static void speak_on_channel(struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    struct vhost_user_message message = {.header = {.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
                                                    .flags = VHOST_USER_VERSION | (how & VHOST_USER_NEED_REPLY)}};
    size_t size = HEADER;

    if (back_end.channel < 0)
        return;
    if (how & 1)
        size = fuzz_bytes(input, &message, how);
    for (unsigned i = 0; i < 1u + (how >> 4); i++)
        send_with(back_end.channel, &message, size, NULL, 0);
    if (how == UINT8_MAX)
        fd_close(&back_end.channel);
}

static void check(void)
{
    const struct vhost_user *front = &vhost_user_device_of(device)->front;

    fuzz_require((front->state == VHOST_USER_CLOSED) == (front->connection.fd < 0));
    fuzz_require(front->state != VHOST_USER_CLOSED || front->expected_count == 0);
    fuzz_require(front->state != VHOST_USER_RUNNING || front->wanted);
    /* Requests to a file system wait for no other back end: they fail. */
    fuzz_require(kind != FILES || front->state != VHOST_USER_CLOSED || !front->wanted);
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input), bytes[sizeof(struct vhost_user_message)];

    switch (what % 8) {
    case 0:
    case 1:
        take_turn();
        break;
    case 2:
        give_back(input);
        break;
    case 3:
        speak_on_channel(input);
        break;
    case 4: {
        size_t size = fuzz_bytes(input, bytes, what);
        if (back_end.socket >= 0 && size > 0)
            send_with(back_end.socket, bytes, size, NULL, 0);
        break;
    }
    case 5:
        now_us += what & 0x80 ? VHOST_USER_PATIENCE_MS * 1000ull : VHOST_USER_RETRY_MS * 1000ull;
        break;
    case 6:
        hang_up();
        break;
    default:
        if (kind == DISK || kind == DISK_OF_QUEUES)
            error_free(virtio_vhost_user_config_read(device));
        break;
    }
    check();
}

/* No descriptor is left. */
static void end(void)
{
    hang_up();
    fuzz_require(lowest_free_fd() == free_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {
        .make = make, .host_event = host_event, .end = end, .memory_is_shared = true};
    struct fuzz_input input = {data, size};
    uint8_t which = fuzz_u8(&input);
    size_t length = fuzz_u16(&input);

    if (length > input.left)
        length = input.left;
    kind = which % KINDS;
    back_end.answers = (struct fuzz_input){input.at, length};
    back_end.socket = back_end.channel = back_end.request_fd = -1;
    return fuzz_device(&ops, input.at + length, input.left - length);
}
