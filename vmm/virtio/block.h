/*
 * What the files of the block device share: block.c (the device), block_request.c (what a request asks for),
 * block_serve.c (carrying it out). Others have devices.h.
 */
#pragma once

#include <linux/virtio_blk.h>

#include "vmm/backend/file.h"
#include "vmm/backend/file_ring.h"
#include "vmm/base/event_loop.h"
#include "vmm/metrics.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/rate_limiter.h"

/* What one request may forget or zero: bounds the time that it takes. */
enum {
    BLOCK_DISCARD_SECTORS_MAX = 1 << 18,      /* 128 MiB */
    BLOCK_WRITE_ZEROES_SECTORS_MAX = 1 << 15, /* 16 MiB */
};

struct block_request;

struct block {
    struct virtio_device device;
    struct virtio_blk_config config;
    char *id;
    DEVICE_METRICS(block_metrics) metrics;
    struct disk_file file;
    bool read_only;
    bool direct;                 /* around the host's page cache */
    bool writeback;              /* flushes reach the medium; else they are ignored (cache type Unsafe) */
    struct file_ring *ring;      /* NULL: synchronous */
    bool ring_was_full;          /* a request of this turn waits for room in it */
    struct block_flight *landed; /* a few, for the next */
    unsigned landed_count;
    struct block_request *unfinished; /* synchronous: one too large for a turn; it goes on before the next */
    uint64_t turn_bytes;              /* transferred in this turn */
    struct rate_limiter limiter;
    struct event_timer timer; /* serves the queues again: the limiter's tokens are there, or it is our turn again */
    unsigned next_queue;      /* is the first to be served then */
    struct virtqueue queues[];
};

/* A request that was taken from the queue. `disk` says what is to be done, if anything is left to do. */
struct block_request {
    struct disk_request disk;
    struct block *block;
    struct virtqueue *queue;
    uint16_t head;
    uint32_t written; /* bytes in the guest's buffers before the status */
    uint8_t *status;  /* the last writable byte */
};

/* Neighbours that are done as one, through the ring. */
struct block_flight {
    struct disk_request all; /* its iov is a copy: each of them may have to go on by itself */
    struct block *block;
    size_t size;               /* of the whole, in bytes */
    struct block_flight *next; /* when it has landed */
    unsigned count;
    struct block_request requests[];
};

/* One of `size` bytes or more, of which only `size` is set; NULL without memory. What has landed is used again. */
struct block_flight *block_flight_new(struct block *block, size_t size);
void block_flight_land(struct block_flight *flight);
void block_flights_free(struct block *block);

/* In place of a status: there is something to do on the disk. */
enum { BLOCK_RUN = -1 };

/*
 * Fills `request` from the chain, which has a writable byte; its buffers move to the front of chain->iov, and belong to
 * the request. Returns a status or BLOCK_RUN.
 */
int block_request_prepare(struct block *block, struct virtqueue *queue, struct virtqueue_chain *chain,
                          struct block_request *request);

/* Serves queue `index`, or all, as far as a turn goes, and sees to being called again. */
void block_serve(struct block *block, unsigned index);
void block_serve_all(struct block *block);
/* For struct event_timer and struct file_ring. */
void block_timer_expired(struct event_timer *timer);
void block_ring_settled(void *owner);
/* Stops what is in flight, to go on with it later: no guest memory is read or written meanwhile. */
void block_hold(struct block *block);
void block_continue(struct block *block);
/*
 * Ends what is in flight or held: no guest memory is read or written afterwards. What would take long, as no driver in
 * its senses asks for it, fails.
 */
void block_finish(struct block *block);
/* The same at once, whatever becomes of it; what cannot be taken back ends later, unheard. */
void block_abandon(struct block *block);
