/*
 * Carrying out what a drive's queues ask for, in turns: straight between guest memory and the host's file, either
 * synchronously or through io_uring.
 */
#include "vmm/virtio/block.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Requests served, and bytes transferred by the synchronous engine, before others on the event loop have a turn. */
enum { TURN = 64, TURN_BYTES = 4 * DISK_PIECE_MAX };

/* What is transferred at most when all has to end: 64 MiB. Requests of Linux have 128 times a quarter MiB left then. */
enum { FINISH_BYTES = 64 * DISK_PIECE_MAX };

/*
 * Writes to the host's page cache that are done as one. Some kernels copy more at once more slowly (6.1 on tmpfs: a MiB
 * as one took twice the instructions of four quarters); less costs a wake-up more for each entry of the ring.
 */
enum { CACHED_WRITE_MAX = DISK_PIECE_MAX / 2 };

/*
 * Transfers that follow one another in a queue and on the disk: done as one of at most DISK_PIECE_MAX bytes. A driver
 * that reads a file in pieces, several at a time, asks for such.
 */
struct neighbours {
    struct disk_request all;
    unsigned count;
    struct block_request requests[16];
    struct iovec iov[VIRTQUEUE_IOV_MAX]; /* theirs */
};

/* Completion. */

static void count(struct block *block, const struct disk_request *disk)
{
    switch (disk->operation) {
    case DISK_READ:
        COUNTER_INCREMENT(block->metrics.counters.read_count);
        COUNTER_ADD(block->metrics.counters.read_bytes, disk->done);
        break;
    case DISK_WRITE:
        COUNTER_INCREMENT(block->metrics.counters.write_count);
        COUNTER_ADD(block->metrics.counters.write_bytes, disk->done);
        break;
    case DISK_SYNC:
        COUNTER_INCREMENT(block->metrics.counters.flush_count);
        break;
    case DISK_DISCARD:
        COUNTER_INCREMENT(block->metrics.counters.discard_count);
        break;
    case DISK_WRITE_ZEROES:
        COUNTER_INCREMENT(block->metrics.counters.write_zeroes_count);
        break;
    default:
        break;
    }
}

static void finish(struct block_request *request, uint8_t status)
{
    if (status == VIRTIO_BLK_S_OK)
        count(request->block, &request->disk);
    *request->status = status;
    virtqueue_push(request->queue, request->head, request->written + 1);
}

/*
 * The disk is done with `request`: `code` is 0 or an errno, which the guest gets as an I/O error. ECANCELED is no error
 * of the disk: the guest reset the device, or it would have taken too long to end.
 */
static void complete(struct block_request *request, int code)
{
    static const char *const operations[DISK_OPERATIONS] = {"read", "write", "flush", "discard", "zero"};
    const struct disk_request *disk = &request->disk;

    if (disk->operation == DISK_READ)
        request->written = (uint32_t)disk->done;
    if (code != 0 && code != ECANCELED) {
        COUNTER_INCREMENT(request->block->metrics.counters.execute_fails);
        log_error("drive \"%s\": cannot %s %llu bytes at %llu: %s", request->block->id, operations[disk->operation],
                  (unsigned long long)disk->length, (unsigned long long)disk->offset, strerror(code));
    }
    finish(request, code == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
}

static void complete_in_flight(struct disk_request *disk, int code)
{
    struct block_request *request = container_of(disk, struct block_request, disk);

    complete(request, code);
    free(request);
}

/* Running. */

/* A copy of `request` that outlives its chain; NULL without memory. */
static struct block_request *keep(const struct block_request *request)
{
    size_t iov_size = request->disk.iov_count * sizeof(request->disk.iov[0]);
    struct block_request *copy = malloc(sizeof(*copy) + iov_size);

    if (copy == NULL)
        return NULL;
    *copy = *request;
    copy->disk.iov = (struct iovec *)(copy + 1);
    if (iov_size > 0)
        memcpy(copy->disk.iov, request->disk.iov, iov_size);
    copy->disk.complete = complete_in_flight;
    return copy;
}

static void launch(struct block *block, struct block_request *request)
{
    struct block_request *copy = keep(request);

    if (copy == NULL)
        complete(request, ENOMEM);
    else
        file_ring_queue(block->ring, &copy->disk);
}

/* Runs `request` for what is left of this turn; true when it is finished, `*code` being its result. */
static bool run_for_a_turn(struct block *block, struct disk_request *disk, int *code)
{
    uint64_t done = disk->done;
    bool finished;

    do {
        finished = disk_request_step(&block->file, disk, code);
        block->turn_bytes += disk->done - done;
        done = disk->done;
    } while (!finished && block->turn_bytes < TURN_BYTES);
    return finished;
}

static void run_synchronously(struct block *block, struct block_request *request)
{
    int code;

    if (run_for_a_turn(block, &request->disk, &code)) {
        complete(request, code);
        return;
    }
    block->unfinished = keep(request);
    if (block->unfinished == NULL)
        complete(request, ENOMEM);
}

/* Ends what the synchronous engine left for another turn. */
static void end_unfinished(struct block *block)
{
    struct block_request *request = block->unfinished;
    bool finished = false;
    int code;

    if (request == NULL)
        return;
    block->unfinished = NULL;
    for (uint64_t stop = request->disk.done + FINISH_BYTES; !finished && request->disk.done < stop;)
        finished = disk_request_step(&block->file, &request->disk, &code);
    complete_in_flight(&request->disk, finished ? code : ECANCELED);
}

static void abandon_unfinished(struct block *block)
{
    free(block->unfinished);
    block->unfinished = NULL;
}

/* How much may be done as one with `request`. What has to be on the disk at its end waits for that once. */
static uint64_t together_max(const struct block_request *request)
{
    const bool cached = request->disk.operation == DISK_WRITE && !request->disk.durable && !request->block->direct;

    return cached ? CACHED_WRITE_MAX : DISK_PIECE_MAX;
}

/* Adds `request` to its neighbours, and copies what it has in the chain; false when it is none of theirs. */
static bool join(struct neighbours *neighbours, const struct block_request *request)
{
    struct disk_request *all = &neighbours->all;
    const struct disk_request *disk = &request->disk;

    if ((disk->operation != DISK_READ && disk->operation != DISK_WRITE) || disk->length > DISK_PIECE_MAX)
        return false;
    if (neighbours->count == 0)
        *all = (struct disk_request){
            .operation = disk->operation,
            .durable = disk->durable,
            .offset = disk->offset,
            .iov = neighbours->iov,
        };
    if (neighbours->count == array_length(neighbours->requests) || disk->operation != all->operation ||
        disk->durable != all->durable || disk->offset != all->offset + all->length ||
        (all->length > 0 && all->length + disk->length > together_max(request)) ||
        disk->iov_count > VIRTQUEUE_IOV_MAX - all->iov_count)
        return false;

    struct block_request *joined = &neighbours->requests[neighbours->count++];
    *joined = *request;
    joined->disk.iov = neighbours->iov + all->iov_count;
    memcpy(joined->disk.iov, disk->iov, disk->iov_count * sizeof(disk->iov[0]));
    all->iov_count += disk->iov_count;
    all->length += disk->length;
    return true;
}

/*
 * What was done for all of them, `done` bytes, is what the first ones asked for. What is left undone each does for
 * itself, unless the guest has reset the device: a failure belongs to the one that meets it.
 */
static void share_out(struct block *block, struct block_request *requests, unsigned count, uint64_t done, bool canceled)
{
    for (unsigned i = 0; i < count; i++) {
        struct block_request *request = &requests[i];
        uint64_t share = done < request->disk.length ? done : request->disk.length;
        int code;

        done -= share;
        if (share == 0 || !disk_request_advance(&request->disk, (ssize_t)share, &code))
            code = canceled ? ECANCELED : disk_request_run(&block->file, &request->disk);
        complete(request, code);
    }
}

/* Neighbours in flight. */

static void share_out_flight(struct disk_request *disk, int code)
{
    struct block_flight *flight = container_of(disk, struct block_flight, all);

    share_out(flight->block, flight->requests, flight->count, disk->done, code == ECANCELED);
    block_flight_land(flight);
}

static void launch_neighbours(struct block *block, struct neighbours *neighbours)
{
    size_t requests_size = neighbours->count * sizeof(neighbours->requests[0]);
    size_t iov_size = neighbours->all.iov_count * sizeof(neighbours->iov[0]);
    struct block_flight *flight = block_flight_new(block, sizeof(*flight) + requests_size + 2 * iov_size);
    struct iovec *iov;

    if (flight == NULL) {
        for (unsigned i = 0; i < neighbours->count; i++)
            complete(&neighbours->requests[i], ENOMEM);
        return;
    }
    flight->block = block;
    flight->count = neighbours->count;
    flight->all = neighbours->all;
    flight->all.complete = share_out_flight;
    memcpy(flight->requests, neighbours->requests, requests_size);
    iov = (struct iovec *)(flight->requests + flight->count);
    memcpy(iov, neighbours->iov, iov_size);
    for (unsigned i = 0; i < flight->count; i++)
        flight->requests[i].disk.iov = iov + (neighbours->requests[i].disk.iov - neighbours->iov);
    flight->all.iov = iov + neighbours->all.iov_count;
    memcpy(flight->all.iov, neighbours->iov, iov_size);
    file_ring_queue(block->ring, &flight->all);
}

static void run_neighbours(struct block *block, struct neighbours *neighbours)
{
    if (neighbours->count == 0)
        return;
    if (block->ring != NULL && neighbours->count == 1) {
        launch(block, &neighbours->requests[0]);
    } else if (block->ring != NULL) {
        launch_neighbours(block, neighbours);
    } else {
        ssize_t result = neighbours->count > 1 ? disk_request_issue(&block->file, &neighbours->all) : 0;

        block->turn_bytes += neighbours->all.length;
        share_out(block, neighbours->requests, neighbours->count, result > 0 ? (uint64_t)result : 0, false);
    }
    neighbours->count = 0;
}

static void run(struct block *block, struct neighbours *neighbours, struct block_request *request)
{
    if (join(neighbours, request))
        return;
    run_neighbours(block, neighbours);
    if (join(neighbours, request))
        return;
    if (block->ring != NULL && !disk_request_blocks(&block->file, &request->disk))
        launch(block, request);
    else
        run_synchronously(block, request);
}

/* Goes on with what the last turn left; false when that is not finished in this one either. */
static bool run_unfinished(struct block *block)
{
    struct block_request *request = block->unfinished;
    int code;

    if (request == NULL)
        return true;
    if (!run_for_a_turn(block, &request->disk, &code))
        return false;
    block->unfinished = NULL;
    complete_in_flight(&request->disk, code);
    return true;
}

/* Whether the rate limiter lets `request` pass; if not, the timer will bring us back. */
static bool admit(struct block *block, const struct block_request *request)
{
    bool transfer = request->disk.operation == DISK_READ || request->disk.operation == DISK_WRITE;

    if (!block->limiter.bandwidth.limited && !block->limiter.ops.limited)
        return true;

    uint64_t retry_us = rate_limiter_take(&block->limiter, transfer ? request->disk.length : 0, clock_monotonic_us());
    if (retry_us == 0)
        return true;
    COUNTER_INCREMENT(block->metrics.counters.rate_limiter_throttled_events);
    event_timer_set(block->device.loop, &block->timer, retry_us);
    return false;
}

enum turn {
    TURN_NEXT,  /* a request was served */
    TURN_EMPTY, /* there is none */
    TURN_WAIT,  /* the next one waits: for tokens, or for room in the ring */
};

static enum turn serve_next(struct block *block, struct virtqueue *queue, struct virtqueue_chain *chain,
                            struct neighbours *neighbours)
{
    struct block_request request;

    /* Neighbours that wait for more take a place, too. */
    if (block->ring != NULL && file_ring_room(block->ring) <= (neighbours->count > 0 ? 1U : 0U)) {
        COUNTER_INCREMENT(block->metrics.counters.io_engine_throttled_events);
        block->ring_was_full = true;
        return TURN_WAIT;
    }
    switch (virtqueue_pop(queue, chain)) {
    case VIRTQUEUE_EMPTY:
        return TURN_EMPTY;
    case VIRTQUEUE_BROKEN:
        COUNTER_INCREMENT(block->metrics.counters.event_fails);
        virtio_device_fail(&block->device, "its queue breaks the rules");
        return TURN_WAIT;
    case VIRTQUEUE_CHAIN:
        break;
    }
    /* Without room for a status nothing can be told. */
    if (chain->writable_bytes == 0) {
        COUNTER_INCREMENT(block->metrics.counters.invalid_reqs_count);
        virtqueue_push(queue, chain->head, 0);
        return TURN_NEXT;
    }

    int status = block_request_prepare(block, queue, chain, &request);
    if (!admit(block, &request)) {
        virtqueue_unpop(queue);
        return TURN_WAIT;
    }
    if (status == BLOCK_RUN) {
        run(block, neighbours, &request);
        return TURN_NEXT;
    }
    if (status != VIRTIO_BLK_S_OK)
        COUNTER_INCREMENT(block->metrics.counters.invalid_reqs_count);
    finish(&request, (uint8_t)status);
    return TURN_NEXT;
}

/* Serves what a queue holds, as far as the turn goes that all of them share; true when there is more. */
static bool serve_queue(struct block *block, struct virtqueue *queue, unsigned *served)
{
    struct virtqueue_chain chain;
    struct neighbours neighbours;
    enum turn turn = TURN_NEXT;
    unsigned before = *served;

    neighbours.count = 0;
    virtqueue_disarm(queue);
    while (turn == TURN_NEXT && *served < TURN && run_unfinished(block) && block->turn_bytes < TURN_BYTES) {
        (*served)++;
        turn = serve_next(block, queue, &chain, &neighbours);
        if (turn == TURN_EMPTY && *served == before + 1)
            COUNTER_INCREMENT(block->metrics.counters.no_avail_buffer);
        /* Others may come while these are served: the guest need not notify of them. */
        if (turn == TURN_EMPTY)
            run_neighbours(block, &neighbours);
        if (turn == TURN_EMPTY && virtqueue_arm(queue))
            turn = TURN_NEXT;
    }
    run_neighbours(block, &neighbours);
    return turn == TURN_NEXT;
}

/*
 * Hands over what this turn queued. What the kernel has done at once is complete before the guest is told of the turn:
 * one interrupt, no wake-up. Returns whether that made room for which a request waits.
 */
static bool submit(struct block *block)
{
    unsigned completed;

    if (block->ring == NULL)
        return false;
    file_ring_submit(block->ring);
    completed = file_ring_reap(block->ring);
    file_ring_submit(block->ring); /* what came back half-way goes on in a turn of its own */
    return completed > 0 && block->ring_was_full;
}

/*
 * Serves `count` queues from `first` on; one submission for all of them, and one interrupt each. Who comes after
 * the queue at which the turn ended is the first in the next.
 */
static void serve(struct block *block, unsigned first, unsigned count)
{
    unsigned served = 0, visited = 0;
    bool more = false;

    /* A set timer will serve the queues when it is time. */
    if (!block->device.active || block->device.failed || block->device.paused || block->timer.loop != NULL)
        return;
    block->turn_bytes = 0;
    block->ring_was_full = false;
    while (visited < count && !more && block->timer.loop == NULL && !block->device.failed)
        more = serve_queue(block, &block->queues[(first + visited++) % block->device.queue_count], &served);
    block->next_queue = (first + visited) % block->device.queue_count;
    if (submit(block) || more)
        event_timer_set(block->device.loop, &block->timer, 0);
    virtio_device_signal_all(&block->device);
}

void block_serve_all(struct block *block)
{
    serve(block, block->next_queue, block->device.queue_count);
}

void block_timer_expired(struct event_timer *timer)
{
    struct block *block = container_of(timer, struct block, timer);

    COUNTER_INCREMENT(block->metrics.counters.rate_limiter_event_count);
    block_serve_all(block);
}

void block_ring_settled(void *owner)
{
    struct block *block = owner;

    virtio_device_signal_all(&block->device);
    block_serve_all(block);
}

void block_serve(struct block *block, unsigned index)
{
    serve(block, index, 1);
}

/* What the synchronous engine left for another turn waits by itself. */
void block_hold(struct block *block)
{
    if (block->ring != NULL)
        file_ring_hold(block->ring);
}

void block_continue(struct block *block)
{
    if (block->ring != NULL)
        file_ring_continue(block->ring);
}

void block_finish(struct block *block)
{
    end_unfinished(block);
    if (block->ring != NULL)
        file_ring_drain(block->ring, FINISH_BYTES);
}

void block_abandon(struct block *block)
{
    abandon_unfinished(block);
    if (block->ring != NULL)
        file_ring_abandon(block->ring);
}
