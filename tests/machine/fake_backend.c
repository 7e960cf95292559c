#include "tests/machine/fake_backend.h"

#include "tests/machine/fake_backend_devices.h"
#include "tests/machine/send_descriptors.h"
#include "tests/unit/harness.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HEADER = sizeof(struct vhost_user_header), FDS_MAX = SEND_DESCRIPTORS_MAX };

struct region {
    struct vhost_user_region told;
    uint8_t *at;
};

struct backend backend;

static struct {
    int socket, channel;
    uint64_t features, protocol;
    struct region regions[VHOST_USER_REGIONS_MAX];
    unsigned region_count;
} front;

static volatile sig_atomic_t announce;

static void on_usr1(int signal)
{
    (void)signal;
    announce = 1;
}

void *backend_memory(uint64_t address, bool is_hva)
{
    for (unsigned i = 0; i < front.region_count; i++) {
        const struct vhost_user_region *told = &front.regions[i].told;
        uint64_t start = is_hva ? told->hva : told->gpa;

        if (address >= start && address - start < told->size)
            return front.regions[i].at + (address - start);
    }
    _exit(3);
}

/* --- The rings --- */

static bool event_index(void)
{
    return (front.features & 1ull << VIRTIO_RING_F_EVENT_IDX) != 0;
}

bool backend_take(struct backend_queue *queue, uint16_t *head)
{
    /* Asks to be notified of the next one, and then looks: both sides do, or one sleeps for ever. */
    if (queue->running && event_index())
        __atomic_store_n((uint16_t *)&queue->used->ring[queue->size], queue->next, __ATOMIC_SEQ_CST);
    if (!queue->running || __atomic_load_n(&queue->available->idx, __ATOMIC_SEQ_CST) == queue->next)
        return false;
    *head = queue->available->ring[queue->next & (queue->size - 1)];
    if (queue->in_flight != NULL) {
        static uint64_t counter;

        queue->in_flight->descriptors[*head].counter = ++counter;
        __atomic_store_n(&queue->in_flight->descriptors[*head].in_flight, 1, __ATOMIC_SEQ_CST);
    }
    queue->next++;
    return true;
}

void backend_give(struct backend_queue *queue, uint16_t head, uint32_t written)
{
    struct inflight_queue *in_flight = queue->in_flight;

    if (in_flight != NULL) {
        in_flight->descriptors[head].next = in_flight->last_batch_head;
        __atomic_store_n(&in_flight->last_batch_head, head, __ATOMIC_SEQ_CST);
    }
    queue->used->ring[queue->used->idx & (queue->size - 1)] = (vring_used_elem_t){.id = head, .len = written};
    __atomic_store_n(&queue->used->idx, (uint16_t)(queue->used->idx + 1), __ATOMIC_SEQ_CST);
    if (in_flight != NULL) {
        __atomic_store_n(&in_flight->descriptors[head].in_flight, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&in_flight->used_index, queue->used->idx, __ATOMIC_SEQ_CST);
    }
}

/* What the one before had taken and not given back is done first, in the order in which it was taken. */
static void resume(unsigned index)
{
    struct backend_queue *queue = &backend.queues[index];
    struct inflight_queue *in_flight = queue->in_flight;
    uint16_t heads[256];
    unsigned count = 0;

    if (in_flight->used_index != queue->used->idx) {
        in_flight->descriptors[in_flight->last_batch_head].in_flight = 0;
        in_flight->used_index = queue->used->idx;
    }
    for (uint16_t head = 0; head < queue->size; head++) {
        unsigned place = count;

        if (!in_flight->descriptors[head].in_flight)
            continue;
        for (; place > 0 && in_flight->descriptors[heads[place - 1]].counter > in_flight->descriptors[head].counter;
             place--)
            heads[place] = heads[place - 1];
        heads[place] = head;
        count++;
    }
    queue->next = (uint16_t)(in_flight->used_index + count);
    for (unsigned i = 0; i < count; i++)
        backend_redo(index, heads[i]);
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
    ssize_t got = recvmsg(front.socket, &header, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&header) : NULL;

    memset(fds, -1, FDS_MAX * sizeof(int));
    if (rights != NULL)
        memcpy(fds, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
    if (got > 0 && message->header.size > 0)
        got = recv(front.socket, &message->payload, message->header.size, MSG_WAITALL);
    return got;
}

static void answer_with(struct vhost_user_message *message, size_t size, const int *fds, size_t count)
{
    const int gifts[] = {0, 1, 2};

    message->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message->header.size = (uint32_t)size;
    size += HEADER;
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
    case BACKEND_ANSWERS_HALF:
        size = HEADER + 3;
        break;
    case BACKEND_ANSWERS_UNASKED:
        send_descriptors(front.socket, message, size, NULL, 0, 0);
        break;
    case BACKEND_GIVES_DESCRIPTORS:
        fds = gifts;
        count = 3;
        break;
    default:
        break;
    }
    send_descriptors(front.socket, message, size, fds, count, 0);
}

static void answer(struct vhost_user_message *message, size_t size)
{
    answer_with(message, size, NULL, 0);
}

static void answer_number(struct vhost_user_message *message, uint64_t number)
{
    message->payload.number = number;
    answer(message, sizeof(number));
}

static void map_memory(const struct vhost_user_message *message, const int fds[FDS_MAX])
{
    while (backend.behaviour == BACKEND_STALLS_AT_START)
        pause();
    front.region_count = message->payload.memory.count;
    for (unsigned i = 0; i < front.region_count; i++) {
        struct region *region = &front.regions[i];

        region->told = message->payload.memory.regions[i];
        region->at = mmap(NULL, region->told.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fds[i],
                          (off_t)region->told.offset);
        /* Nobody can take the memory from under the front end. */
        if (region->at == MAP_FAILED || ftruncate(fds[i], 0) == 0)
            _exit(4);
        close(fds[i]);
    }
}

static void answer_config(struct vhost_user_message *message)
{
    uint32_t size = message->payload.config.size;

    backend_config(message->payload.config.bytes, size);
    if (backend.behaviour == BACKEND_CONFIG_IS_SHORT)
        message->payload.config.size = size = 8;
    answer(message, offsetof(struct vhost_user_config, bytes) + size);
}

static void map_in_flight(int fd, uint64_t size)
{
    struct inflight_queue *all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (all == MAP_FAILED)
        _exit(5);
    for (unsigned i = 0; i < size / sizeof(*all); i++)
        backend.queues[i].in_flight = &all[i];
}

static void give_in_flight(struct vhost_user_message *message)
{
    struct vhost_user_inflight *told = &message->payload.inflight;
    int fd = memfd_create("in flight", MFD_CLOEXEC);

    told->mmap_size = told->queue_count * sizeof(struct inflight_queue);
    told->mmap_offset = 0;
    if (ftruncate(fd, (off_t)told->mmap_size) != 0)
        _exit(6);
    answer_with(message, sizeof(*told), &fd, backend.behaviour == BACKEND_COUNTS_NOWHERE ? 0 : 1);
    close(fd);
}

static uint64_t offered_features(void)
{
    uint64_t features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VHOST_USER_F_PROTOCOL_FEATURES | backend_features();

    return backend.behaviour == BACKEND_IS_LEGACY ? features & ~(1ull << VIRTIO_F_VERSION_1) : features;
}

static uint64_t offered_protocol(void)
{
    uint64_t protocol = 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK | 1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ |
                        1ull << VHOST_USER_PROTOCOL_F_MQ;

    if (backend.behaviour != BACKEND_KEEPS_NO_CONFIG && backend.device == BACKEND_DISK)
        protocol |= 1ull << VHOST_USER_PROTOCOL_F_CONFIG;
    if (backend.behaviour == BACKEND_DIES_IN_DISORDER || backend.behaviour == BACKEND_COUNTS_NOWHERE ||
        backend.behaviour == BACKEND_KEEPS_COUNT)
        protocol |= 1ull << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD;
    return protocol;
}

static void give_ring_back(struct vhost_user_message *message)
{
    struct backend_queue *queue = &backend.queues[message->payload.state.index];

    while (backend.behaviour == BACKEND_STALLS_LATER)
        pause();
    queue->running = false;
    message->payload.state.value = queue->next;
    if (backend.behaviour == BACKEND_NAMES_OTHER_RING)
        message->payload.state.index = 77;
    answer(message, sizeof(message->payload.state));
}

static void enable(struct backend_queue *queue, bool on)
{
    bool starts = on && !queue->running && queue->kick >= 0;

    queue->running = on && queue->kick >= 0 && backend.behaviour != BACKEND_REFUSES_MEMORY;
    starts = starts && queue->running;
    if (starts && queue->in_flight != NULL)
        resume((unsigned)(queue - backend.queues));
}

/* Whether it has an answer of its own, which has been given. */
static bool handle(struct vhost_user_message *message, const int fds[FDS_MAX])
{
    const struct vhost_user_vring_address address = message->payload.address;
    const uint32_t value = message->payload.state.value;
    struct backend_queue *queue = &backend.queues[message->payload.state.index % BACKEND_QUEUES_MAX];

    switch (message->header.request) {
    case VHOST_USER_GET_FEATURES:
        answer_number(message, offered_features());
        return true;
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        answer_number(message, offered_protocol());
        return true;
    case VHOST_USER_GET_QUEUE_NUM:
        answer_number(message, backend.behaviour == BACKEND_HAS_NO_QUEUES ? 0 : BACKEND_QUEUES_MAX - 1);
        return true;
    case VHOST_USER_GET_CONFIG:
        answer_config(message);
        return true;
    case VHOST_USER_GET_INFLIGHT_FD:
        give_in_flight(message);
        return true;
    case VHOST_USER_GET_VRING_BASE:
        give_ring_back(message);
        return true;
    case VHOST_USER_SET_FEATURES:
        front.features = message->payload.number;
        return false;
    case VHOST_USER_SET_INFLIGHT_FD:
        map_in_flight(fds[0], message->payload.inflight.mmap_size);
        return false;
    case VHOST_USER_SET_BACKEND_REQ_FD:
        front.channel = fds[0];
        return false;
    case VHOST_USER_SET_MEM_TABLE:
        map_memory(message, fds);
        return false;
    case VHOST_USER_SET_VRING_NUM:
        queue->size = value;
        return false;
    case VHOST_USER_SET_VRING_BASE:
        queue->next = (uint16_t)value;
        return false;
    case VHOST_USER_SET_VRING_ADDR:
        queue->descriptors = backend_memory(address.descriptors, true);
        queue->available = backend_memory(address.available, true);
        queue->used = backend_memory(address.used, true);
        return false;
    case VHOST_USER_SET_VRING_CALL:
        queue->call = fds[0];
        return false;
    case VHOST_USER_SET_VRING_KICK:
        queue->kick = fds[0];
        return false;
    case VHOST_USER_SET_VRING_ENABLE:
        enable(queue, value != 0);
        return false;
    default:
        return false;
    }
}

static void tell_of_change(void)
{
    struct vhost_user_header message = {VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, VHOST_USER_VERSION, 0};

    announce = 0;
    if (front.channel >= 0)
        send(front.channel, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void serve_queues(void)
{
    for (unsigned i = 0; i < BACKEND_QUEUES_MAX; i++)
        if (backend.queues[i].running)
            backend_serve(i);
}

/* Waits for something to do, and does what the guest wants. Whether the front end has something to say. */
static bool wait_and_serve(void)
{
    struct pollfd waits[1 + BACKEND_QUEUES_MAX] = {{.fd = front.socket, .events = POLLIN}};
    struct timespec at_once = {0};
    sigset_t none;

    for (unsigned i = 0; i < BACKEND_QUEUES_MAX; i++) {
        const struct backend_queue *queue = &backend.queues[i];

        waits[1 + i] = (struct pollfd){.fd = queue->running ? queue->kick : -1, .events = POLLIN};
    }
    sigemptyset(&none);
    ppoll(waits, 1 + BACKEND_QUEUES_MAX, backend.behaviour == BACKEND_SHOUTS ? &at_once : NULL, &none);
    if (announce || backend.behaviour == BACKEND_SHOUTS)
        tell_of_change();
    for (unsigned i = 0; i < BACKEND_QUEUES_MAX; i++) {
        eventfd_t count;

        if (waits[1 + i].revents != 0)
            eventfd_read(waits[1 + i].fd, &count);
    }
    serve_queues();
    return waits[0].revents != 0;
}

static void serve_connection(void)
{
    sigset_t usr1;

    front.channel = -1;
    front.region_count = 0;
    for (unsigned i = 0; i < BACKEND_QUEUES_MAX; i++)
        backend.queues[i] = (struct backend_queue){.kick = -1, .call = -1};
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    for (;;) {
        struct vhost_user_message message;
        int fds[FDS_MAX];

        if (!wait_and_serve())
            continue;
        if (receive(&message, fds) <= 0)
            return;

        bool acknowledge = (message.header.flags & VHOST_USER_NEED_REPLY) != 0;
        bool refuse = backend.behaviour == BACKEND_REFUSES_MEMORY && message.header.request == VHOST_USER_SET_MEM_TABLE;
        if (!handle(&message, fds) && acknowledge)
            answer_number(&message, refuse);
        serve_queues();
    }
}

static void serve(int listener)
{
    struct sigaction action = {.sa_handler = on_usr1};

    sigaction(SIGUSR1, &action, NULL);
    for (;;) {
        front.socket = accept(listener, NULL, NULL);
        if (front.socket < 0)
            continue;
        while (backend.behaviour == BACKEND_STALLS)
            pause();
        if (backend.behaviour != BACKEND_CLOSES)
            serve_connection();
        close(front.socket);
    }
}

pid_t backend_start_as(enum backend_device device, const char *path, const char *disk, enum backend_behaviour behaviour)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pid_t parent = getpid();

    assert_true(strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    unlink(path);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 4), 0);
    backend = (struct backend){.device = device, .behaviour = behaviour, .disk = -1};
    if (disk != NULL)
        backend.disk = open(disk, O_RDWR | O_CLOEXEC);
    assert_true(disk == NULL || backend.disk >= 0);

    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
            _exit(1);
        signal(SIGBUS, SIG_DFL); /* not the test's failure */
        serve(listener);
    }
    close(listener);
    if (disk != NULL)
        close(backend.disk);
    return pid;
}

pid_t backend_start(const char *path, const char *disk, enum backend_behaviour behaviour)
{
    return backend_start_as(BACKEND_DISK, path, disk, behaviour);
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

bool backend_has_died(pid_t pid)
{
    return waitpid(pid, NULL, WNOHANG) == pid;
}
