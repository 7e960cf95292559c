#include "vmm/backend/file_ring.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_SLOT = 0, /* of the ring's registered files: its only one */
    RETRY_US = 1000,
};

struct file_ring {
    struct io_uring uring;
    struct event_source source; /* the ring itself: readable while completions wait */
    struct event_timer retry;   /* the kernel could not take a submission */
    const struct disk_file *file;
    unsigned in_flight;
    bool abandoned;            /* what is in flight is not continued */
    bool holding;              /* nor is it now, but later */
    struct disk_request *held; /* what is to be continued then */
    uint64_t allowance;        /* bytes that may still be continued with; UINT64_MAX: any */
    void (*settled)(void *owner);
    void *owner;
    struct event_loop *loop;
};

/* What the ring is for, and no more: whoever takes the VMM over gains no other system call through it. */
static struct error *restrict_ring(struct io_uring *uring)
{
    struct io_uring_restriction restrictions[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES_UPDATE},
    };
    int code = io_uring_register_restrictions(uring, restrictions, array_length(restrictions));

    return code < 0 ? error_errno(-code, "cannot restrict an io_uring") : NULL;
}

static struct error *start_ring(struct file_ring *ring)
{
    struct error *error = restrict_ring(&ring->uring);

    if (error != NULL)
        return error;

    int code = io_uring_register_files(&ring->uring, &ring->file->fd, 1);
    if (code == 0)
        code = io_uring_enable_rings(&ring->uring);
    if (code < 0)
        return error_errno(-code, "cannot start an io_uring");
    return event_source_add(ring->loop, &ring->source, EPOLLIN);
}

/* The submission queue has a place for every request in flight, so there always is a free entry. */
static void issue(struct file_ring *ring, struct disk_request *request)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    uint64_t offset = request->offset + request->done;
    unsigned count;
    const struct iovec *iov = disk_request_piece(request, &count);

    switch (request->operation) {
    case DISK_READ:
        io_uring_prep_readv(sqe, FILE_SLOT, iov, count, offset);
        break;
    case DISK_WRITE:
        io_uring_prep_writev2(sqe, FILE_SLOT, iov, count, offset, request->durable ? RWF_DSYNC : 0);
        break;
    case DISK_SYNC:
        io_uring_prep_fsync(sqe, FILE_SLOT, IORING_FSYNC_DATASYNC);
        break;
    default:
        io_uring_prep_fallocate(sqe, FILE_SLOT, disk_request_fallocate_mode(request), (off_t)request->offset,
                                (off_t)request->length);
        break;
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, request);
}

static bool may_go_on(struct file_ring *ring, const struct disk_request *request)
{
    uint64_t bytes = request->length - request->done;

    if (bytes > DISK_PIECE_MAX)
        bytes = DISK_PIECE_MAX;
    if (bytes > ring->allowance)
        return false;
    if (ring->allowance != UINT64_MAX)
        ring->allowance -= bytes;
    return true;
}

/* Issues `request`, for its rest or in another way; finishes one that a ring cannot take. */
static void go_on(struct file_ring *ring, struct disk_request *request)
{
    if (!disk_request_blocks(ring->file, request)) {
        issue(ring, request);
        return;
    }

    int code = disk_request_run(ring->file, request);
    ring->in_flight--;
    request->complete(request, code);
}

/* Finishes `request`, goes on with it, or keeps it. */
static void settle(struct file_ring *ring, struct disk_request *request, int result)
{
    int code = 0;
    bool finished = disk_request_advance(request, result, &code);

    if (!finished && ring->holding) {
        request->next = ring->held;
        ring->held = request;
        ring->in_flight--;
        return;
    }
    /* Failures, too: nobody is to try again in another way. */
    if ((ring->abandoned && (!finished || code != 0)) || (!finished && !may_go_on(ring, request))) {
        finished = true;
        code = ECANCELED;
    }
    if (!finished) {
        go_on(ring, request);
        return;
    }
    ring->in_flight--;
    request->complete(request, code);
}

unsigned file_ring_reap(struct file_ring *ring)
{
    struct io_uring_cqe *cqe;
    unsigned count = 0;

    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        struct disk_request *request = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&ring->uring, cqe);
        settle(ring, request, result);
        count++;
    }
    return count;
}

static void ring_ready(struct event_source *source, uint32_t events)
{
    struct file_ring *ring = container_of(source, struct file_ring, source);

    (void)events;
    if (file_ring_reap(ring) == 0)
        return;
    ring->settled(ring->owner);
    file_ring_submit(ring);
}

void file_ring_submit(struct file_ring *ring)
{
    int code = 0;

    while (io_uring_sq_ready(&ring->uring) > 0) {
        code = io_uring_submit(&ring->uring);
        if (code < 0 && code != -EINTR)
            break;
    }
    /* Out of memory, as a rule: what is queued stays queued. */
    if (code < 0 && code != -EINTR) {
        log_warning("cannot submit to an io_uring, trying again: %s", strerror(-code));
        event_timer_set(ring->loop, &ring->retry, clock_monotonic_us() + RETRY_US);
    }
}

static void retry_expired(struct event_timer *timer)
{
    file_ring_submit(container_of(timer, struct file_ring, retry));
}

void file_ring_queue(struct file_ring *ring, struct disk_request *request)
{
    ring->in_flight++;
    issue(ring, request);
}

unsigned file_ring_room(const struct file_ring *ring)
{
    return FILE_RING_DEPTH - ring->in_flight;
}

static void drain(struct file_ring *ring)
{
    while (ring->in_flight > 0) {
        if (file_ring_reap(ring) > 0)
            continue;
        /* Any failure passes or is met again: guest memory may be written until the last request is back. */
        io_uring_submit_and_wait(&ring->uring, 1);
    }
}

void file_ring_drain(struct file_ring *ring, uint64_t bytes)
{
    ring->allowance = bytes;
    file_ring_continue(ring);
    drain(ring);
    ring->allowance = UINT64_MAX;
}

void file_ring_hold(struct file_ring *ring)
{
    ring->holding = true;
    drain(ring);
    ring->holding = false;
}

void file_ring_continue(struct file_ring *ring)
{
    while (ring->held != NULL) {
        struct disk_request *request = ring->held;

        ring->held = request->next;
        ring->in_flight++;
        go_on(ring, request);
    }
    file_ring_submit(ring);
}

void file_ring_abandon(struct file_ring *ring)
{
    ring->abandoned = true;
    drain(ring);
    ring->abandoned = false;
}

struct error *file_ring_set_file(struct file_ring *ring, const struct disk_file *file)
{
    int fd = file->fd;
    int code = io_uring_register_files_update(&ring->uring, FILE_SLOT, &fd, 1);

    if (code < 0)
        return error_errno(-code, "cannot give another file to an io_uring");
    ring->file = file;
    return NULL;
}

struct error *file_ring_new(struct event_loop *loop, const struct disk_file *file, void (*settled)(void *owner),
                            void *owner, struct file_ring **ring)
{
    struct file_ring *made = calloc(1, sizeof(*made));

    if (made == NULL)
        return error_errno(ENOMEM, "cannot make an io_uring");

    int code = io_uring_queue_init(FILE_RING_DEPTH, &made->uring, IORING_SETUP_R_DISABLED);
    if (code < 0) {
        free(made);
        return error_errno(-code, "cannot make an io_uring");
    }
    made->source = (struct event_source){.fd = made->uring.ring_fd, .ready = ring_ready};
    made->retry.expired = retry_expired;
    made->file = file;
    made->allowance = UINT64_MAX;
    made->settled = settled;
    made->owner = owner;
    made->loop = loop;

    struct error *error = start_ring(made);
    if (error != NULL) {
        file_ring_free(made);
        return error;
    }
    *ring = made;
    return NULL;
}

void file_ring_free(struct file_ring *ring)
{
    if (ring == NULL)
        return;
    file_ring_drain(ring, UINT64_MAX);
    event_timer_cancel(&ring->retry);
    event_source_remove(&ring->source);
    io_uring_queue_exit(&ring->uring);
    free(ring);
}
