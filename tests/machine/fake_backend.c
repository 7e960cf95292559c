#include "tests/machine/fake_backend.h"

#include "tests/unit/harness.h"
#include "vmm/backend/vhost_user_message.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECTOR = 512, HEADER = sizeof(struct vhost_user_header), FDS_MAX = 8 };

struct region {
    struct vhost_user_region told;
    uint8_t *at;
};

static struct backend {
    enum backend_behaviour behaviour;
    int connection, channel, disk;
    struct region regions[VHOST_USER_REGIONS_MAX];
    unsigned region_count;
    bool running;
    uint32_t size;
    uint16_t next;
    int kick, call;
    struct vring_desc *descriptors;
    struct vring_avail *available;
    struct vring_used *used;
} backend;

static volatile sig_atomic_t announce;

static void on_usr1(int signal)
{
    (void)signal;
    announce = 1;
}

/* By the guest's addresses, or by those of the front end. */
static void *memory_at(uint64_t address, bool is_hva)
{
    for (unsigned i = 0; i < backend.region_count; i++) {
        const struct vhost_user_region *told = &backend.regions[i].told;
        uint64_t start = is_hva ? told->hva : told->gpa;

        if (address >= start && address - start < told->size)
            return backend.regions[i].at + (address - start);
    }
    _exit(3);
}

/* --- The disk --- */

static void serve_request(uint16_t head)
{
    struct virtio_blk_outhdr *header = memory_at(backend.descriptors[head].addr, false);
    uint16_t at = head;
    off_t offset = (off_t)header->sector * SECTOR;
    uint32_t written = 0;
    uint8_t *last = NULL;
    uint8_t status = VIRTIO_BLK_S_OK;

    while (backend.descriptors[at].flags & VRING_DESC_F_NEXT) {
        at = backend.descriptors[at].next;
        const struct vring_desc *descriptor = &backend.descriptors[at];
        last = memory_at(descriptor->addr, false);
        if (!(descriptor->flags & VRING_DESC_F_NEXT))
            break;
        if (header->type == VIRTIO_BLK_T_IN && pread(backend.disk, last, descriptor->len, offset) >= 0)
            written += descriptor->len;
        if (header->type == VIRTIO_BLK_T_OUT && pwrite(backend.disk, last, descriptor->len, offset) < 0)
            status = VIRTIO_BLK_S_IOERR;
        offset += descriptor->len;
    }
    *last = status;
    backend.used->ring[backend.used->idx & (backend.size - 1)] = (vring_used_elem_t){.id = head, .len = written + 1};
    __atomic_store_n(&backend.used->idx, (uint16_t)(backend.used->idx + 1), __ATOMIC_RELEASE);
}

static void serve_queue(void)
{
    while (backend.running && __atomic_load_n(&backend.available->idx, __ATOMIC_ACQUIRE) != backend.next) {
        uint16_t head = backend.available->ring[backend.next & (backend.size - 1)];

        if (backend.behaviour == BACKEND_DIES_BUSY)
            _exit(0);
        backend.next++;
        serve_request(head);
        eventfd_write(backend.call, 1);
    }
}

/* --- The protocol --- */

static ssize_t receive(struct vhost_user_message *message, int fds[FDS_MAX])
{
    union {
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control;
    struct iovec iov = {.iov_base = message, .iov_len = HEADER};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(backend.connection, &header, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&header) : NULL;

    memset(fds, -1, FDS_MAX * sizeof(int));
    if (rights != NULL)
        memcpy(fds, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
    if (got > 0 && message->header.size > 0)
        got = recv(backend.connection, &message->payload, message->header.size, MSG_WAITALL);
    return got;
}

static void answer(struct vhost_user_message *message, size_t size)
{
    message->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message->header.size = (uint32_t)size;
    switch (backend.behaviour) {
    case BACKEND_ANSWERS_OTHERS:
        message->header.request = VHOST_USER_GET_CONFIG;
        break;
    case BACKEND_ANSWERS_LONG:
        message->header.size = 1 << 20;
        break;
    case BACKEND_SPEAKS_VERSION_2:
        message->header.flags = 2 | VHOST_USER_REPLY;
        break;
    default:
        break;
    }
    send(backend.connection, message, HEADER + size, MSG_NOSIGNAL);
}

static void answer_number(struct vhost_user_message *message, uint64_t number)
{
    message->payload.number = number;
    answer(message, sizeof(number));
}

static void map_memory(const struct vhost_user_message *message, const int fds[FDS_MAX])
{
    backend.region_count = message->payload.memory.count;
    for (unsigned i = 0; i < backend.region_count; i++) {
        struct region *region = &backend.regions[i];

        region->told = message->payload.memory.regions[i];
        region->at =
            mmap(NULL, region->told.size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], (off_t)region->told.offset);
        /* Nobody can take the memory from under the front end. */
        if (region->at == MAP_FAILED || ftruncate(fds[i], 0) == 0)
            _exit(4);
        close(fds[i]);
    }
}

static void answer_config(struct vhost_user_message *message)
{
    struct virtio_blk_config config = {0};
    struct stat status;
    uint32_t size = message->payload.config.size;

    fstat(backend.disk, &status);
    config.capacity = (uint64_t)status.st_size / SECTOR;
    memcpy(message->payload.config.bytes, &config, size < sizeof(config) ? size : sizeof(config));
    if (backend.behaviour == BACKEND_CONFIG_IS_SHORT)
        message->payload.config.size = size = 8;
    answer(message, offsetof(struct vhost_user_config, bytes) + size);
}

/* Whether it has an answer of its own, which has been given. */
static bool handle(struct vhost_user_message *message, const int fds[FDS_MAX])
{
    const struct vhost_user_vring_address address = message->payload.address;
    const uint32_t value = message->payload.state.value;
    uint64_t protocol = 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK | 1ull << VHOST_USER_PROTOCOL_F_CONFIG |
                        1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ | 1ull << VHOST_USER_PROTOCOL_F_MQ;
    uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VHOST_USER_F_PROTOCOL_FEATURES;

    switch (message->header.request) {
    case VHOST_USER_GET_FEATURES:
        if (backend.behaviour == BACKEND_IS_LEGACY)
            features &= ~(1ull << VIRTIO_F_VERSION_1);
        answer_number(message, features | 1ull << VIRTIO_BLK_F_FLUSH);
        return true;
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        if (backend.behaviour == BACKEND_KEEPS_NO_CONFIG)
            protocol &= ~(1ull << VHOST_USER_PROTOCOL_F_CONFIG);
        answer_number(message, protocol);
        return true;
    case VHOST_USER_GET_QUEUE_NUM:
        answer_number(message, backend.behaviour == BACKEND_HAS_NO_QUEUES ? 0 : 4);
        return true;
    case VHOST_USER_GET_CONFIG:
        answer_config(message);
        return true;
    case VHOST_USER_GET_VRING_BASE:
        while (backend.behaviour == BACKEND_STALLS_LATER)
            pause();
        backend.running = false;
        message->payload.state.value = backend.next;
        answer(message, sizeof(message->payload.state));
        return true;
    case VHOST_USER_SET_BACKEND_REQ_FD:
        backend.channel = fds[0];
        return false;
    case VHOST_USER_SET_MEM_TABLE:
        map_memory(message, fds);
        return false;
    case VHOST_USER_SET_VRING_NUM:
        backend.size = value;
        return false;
    case VHOST_USER_SET_VRING_BASE:
        backend.next = (uint16_t)value;
        return false;
    case VHOST_USER_SET_VRING_ADDR:
        backend.descriptors = memory_at(address.descriptors, true);
        backend.available = memory_at(address.available, true);
        backend.used = memory_at(address.used, true);
        return false;
    case VHOST_USER_SET_VRING_CALL:
        backend.call = fds[0];
        return false;
    case VHOST_USER_SET_VRING_KICK:
        backend.kick = fds[0];
        return false;
    case VHOST_USER_SET_VRING_ENABLE:
        backend.running = true;
        return false;
    default:
        return false;
    }
}

static void tell_of_change(void)
{
    struct vhost_user_header message = {VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 0};

    announce = 0;
    if (backend.channel >= 0)
        send(backend.channel, &message, sizeof(message), MSG_NOSIGNAL);
}

static void serve_connection(void)
{
    sigset_t all_but_usr1, none;

    backend.running = false;
    backend.kick = backend.call = backend.channel = -1;
    sigemptyset(&none);
    sigemptyset(&all_but_usr1);
    sigaddset(&all_but_usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &all_but_usr1, NULL);
    for (;;) {
        struct pollfd waits[] = {{.fd = backend.connection, .events = POLLIN},
                                 {.fd = backend.running ? backend.kick : -1, .events = POLLIN}};
        struct vhost_user_message message;
        eventfd_t count;
        int fds[FDS_MAX];

        ppoll(waits, 2, NULL, &none);
        if (announce)
            tell_of_change();
        if (waits[1].revents != 0 && eventfd_read(backend.kick, &count) == 0)
            serve_queue();
        if (waits[0].revents == 0)
            continue;
        if (receive(&message, fds) <= 0)
            return;

        bool acknowledge = (message.header.flags & VHOST_USER_NEED_REPLY) != 0;
        bool refuse = backend.behaviour == BACKEND_REFUSES_MEMORY && message.header.request == VHOST_USER_SET_MEM_TABLE;
        if (!handle(&message, fds) && acknowledge)
            answer_number(&message, refuse);
        if (backend.running)
            serve_queue();
    }
}

static void serve(int listener)
{
    struct sigaction action = {.sa_handler = on_usr1};

    sigaction(SIGUSR1, &action, NULL);
    for (;;) {
        backend.connection = accept(listener, NULL, NULL);
        if (backend.connection < 0)
            continue;
        while (backend.behaviour == BACKEND_STALLS)
            pause();
        if (backend.behaviour != BACKEND_CLOSES)
            serve_connection();
        close(backend.connection);
    }
}

pid_t backend_start(const char *path, const char *disk, enum backend_behaviour behaviour)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pid_t parent = getpid();

    assert_true(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    unlink(path);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 4), 0);
    backend = (struct backend){.behaviour = behaviour, .disk = open(disk, O_RDWR | O_CLOEXEC)};
    assert_true(backend.disk >= 0);

    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
            _exit(1);
        serve(listener);
    }
    close(listener);
    close(backend.disk);
    return pid;
}

void backend_announce(pid_t pid)
{
    assert_int_equal(kill(pid, SIGUSR1), 0);
}

void backend_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
