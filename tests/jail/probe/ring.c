/* io_uring: its operations are no system calls, so no filter sees them. */
#include "tests/jail/probe/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    int fd;
    struct io_uring_params params;
    unsigned char *submission, *completion;
    struct io_uring_sqe *requests;
} ring = {.fd = -1};

static int make_ring(void)
{
    ring.fd = (int)syscall(SYS_io_uring_setup, 4, &ring.params);
    if (ring.fd < 0)
        return errno;
    ring.submission = mmap(NULL, ring.params.sq_off.array + 4 * ring.params.sq_entries, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQ_RING);
    ring.completion = mmap(NULL, ring.params.cq_off.cqes + ring.params.cq_entries * sizeof(struct io_uring_cqe),
                           PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_CQ_RING);
    ring.requests = mmap(NULL, ring.params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_SQES);
    return ring.submission == MAP_FAILED || ring.completion == MAP_FAILED || ring.requests == MAP_FAILED ? errno : 0;
}

/* What the operation answers: as a system call would, but for errno. */
static int ask_ring(struct io_uring_sqe request)
{
    unsigned *tail = (unsigned *)(void *)(ring.submission + ring.params.sq_off.tail);
    unsigned slot = *tail & (ring.params.sq_entries - 1);
    unsigned answer = *(unsigned *)(void *)(ring.completion + ring.params.cq_off.head);

    ring.requests[slot] = request;
    ((unsigned *)(void *)(ring.submission + ring.params.sq_off.array))[slot] = slot;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        return -errno;
    __atomic_store_n((unsigned *)(void *)(ring.completion + ring.params.cq_off.head), answer + 1, __ATOMIC_RELEASE);
    struct io_uring_cqe *all = (struct io_uring_cqe *)(void *)(ring.completion + ring.params.cq_off.cqes);
    return all[answer & (ring.params.cq_entries - 1)].res;
}

static int attempt_ring_open(void)
{
    int problem = make_ring();
    int fd = problem != 0 ? -problem
                          : ask_ring((struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
                                                           .fd = AT_FDCWD,
                                                           .addr = (unsigned long)"/etc/passwd",
                                                           .open_flags = O_RDONLY});

    return fd < 0 ? -fd : 0;
}

/* A socket of the ring's, connected by it. Before Linux 5.19 it makes none: EINVAL. */
static int ring_connect(int type, in_port_t port, uint32_t host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(host)}};
    int problem = make_ring();
    int fd = problem != 0
                 ? -problem
                 : ask_ring((struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = (unsigned)type});

    if (fd < 0)
        return -fd;
    fd = ask_ring((struct io_uring_sqe){
        .opcode = IORING_OP_CONNECT, .fd = fd, .addr = (unsigned long)&address, .off = sizeof(address)});
    return fd < 0 ? -fd : 0;
}

static int attempt_ring_tcp(void)
{
    return ring_connect(SOCK_STREAM, 22, INADDR_LOOPBACK);
}

static int attempt_ring_udp(void)
{
    return ring_connect(SOCK_DGRAM, 53, 0x08080808);
}

const struct command attempts_by_ring[] = {
    {"ring-open", attempt_ring_open},
    {"ring-tcp", attempt_ring_tcp},
    {"ring-udp", attempt_ring_udp},
    {NULL, NULL},
};
