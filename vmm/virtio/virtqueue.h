/*
 * A split virtqueue, device side (virtio 1.2, section 2.7). Descriptor chains are walked here and nowhere else: each
 * ring index and descriptor is read once, validated, and handed out as an iovec of host addresses.
 *
 * Runs with the event loop's lock held. Any breach of the ring's rules by the guest makes the queue broken: the call
 * says so, and the device calls virtio_device_fail. A queue that the driver left out is always empty.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/guest_memory.h"

enum {
    VIRTQUEUE_SIZE_MAX = 256,
    VIRTQUEUE_IOV_MAX = 256, /* descriptors in one chain, indirect ones included */
};

struct vring_desc;
struct vring_avail;
struct vring_used;

struct virtqueue {
    /* Written by the transport while the driver configures the queue. */
    uint16_t size_max; /* set by the device before it is offered */
    uint16_t size;     /* a power of two, at most size_max */
    bool ready;
    uint64_t descriptor_gpa; /* descriptor table */
    uint64_t driver_gpa;     /* available ring */
    uint64_t device_gpa;     /* used ring */

    /* Set by virtqueue_activate; the addresses stay valid until the queue is reset: memslots do not move. */
    const struct guest_memory *memory;
    const struct vring_desc *descriptors;
    const struct vring_avail *available;
    struct vring_used *used;
    bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
    bool indirect;  /* VIRTIO_F_INDIRECT_DESC was negotiated */
    bool broken;

    /* Where the device is. */
    uint16_t next_available; /* index of the next chain to pop */
    uint16_t next_used;      /* index of the next used element to write */
    uint16_t signalled_used; /* next_used when the guest was last considered for an interrupt */
    bool signalled_valid;
};

/* One request: first the buffers that the device reads, then those that it writes. Empty buffers are left out. */
struct virtqueue_chain {
    uint16_t head;
    uint16_t readable_count;
    uint16_t writable_count;
    uint32_t readable_bytes; /* sums; a chain of 4 GiB or more is refused */
    uint32_t writable_bytes;
    struct iovec iov[VIRTQUEUE_IOV_MAX]; /* readable_count, then writable_count entries */
};

enum virtqueue_result {
    VIRTQUEUE_EMPTY,  /* nothing to do */
    VIRTQUEUE_CHAIN,  /* `chain` is filled in */
    VIRTQUEUE_BROKEN, /* the guest broke the rules; the queue stays broken until reset */
};

/* Clears all but size_max: the state after a device reset. */
void virtqueue_reset(struct virtqueue *queue);

/*
 * Checks a queue that the driver made ready: size, alignment, all three areas within guest memory. Returns false, and
 * changes nothing, when one is wrong. The ring positions stay as they are: zero after a reset, or what a snapshot set.
 */
bool virtqueue_activate(struct virtqueue *queue, const struct guest_memory *memory, uint64_t driver_features);

/* Whether one of a ready queue's three areas reaches into [gpa, gpa + length). */
bool virtqueue_overlaps(const struct virtqueue *queue, uint64_t gpa, uint64_t length);

/* Whether there are chains that were popped and not pushed. */
bool virtqueue_is_working(const struct virtqueue *queue);

/* Takes the next available chain. */
enum virtqueue_result virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain);

/* The chain that begins with descriptor `head`, of one who has had it before. */
enum virtqueue_result virtqueue_look(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain);
/*
 * Goes on where another process has served the queue, which had taken `in_flight` chains and not given them back. The
 * next virtqueue_needs_signal says that the guest may have to be told of what it did give back.
 */
void virtqueue_take_over(struct virtqueue *queue, uint16_t in_flight);

/* Puts the chain popped last back, for later; only before it was pushed or another was popped. */
void virtqueue_unpop(struct virtqueue *queue);

/* Returns chain `head` to the guest with `written` bytes in its writable buffers. Nothing on a broken queue. */
void virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t written);

/*
 * The same in two steps, for chains that the guest must see all at once (the buffers of one network frame):
 * virtqueue_fill writes the used element `ahead` places from the next one, virtqueue_publish hands `count` of them
 * over.
 */
void virtqueue_fill(struct virtqueue *queue, uint16_t ahead, uint16_t head, uint32_t written);
void virtqueue_publish(struct virtqueue *queue, uint16_t count);

/* How many chains were pushed since virtqueue_needs_signal was last asked. */
uint16_t virtqueue_unsignalled(const struct virtqueue *queue);
/* Whether the guest wants an interrupt for what was pushed since the last call (EVENT_IDX or the no-interrupt flag). */
bool virtqueue_needs_signal(struct virtqueue *queue);

/* Whether the driver has made another chain available. */
bool virtqueue_has_chain(const struct virtqueue *queue);
/*
 * Asks the guest to notify about new chains. Returns true when one has already arrived: then go on popping, or the
 * notification is lost. virtqueue_disarm tells the guest that notifications are not needed for now.
 */
bool virtqueue_arm(struct virtqueue *queue);
void virtqueue_disarm(struct virtqueue *queue);

/*
 * Copy between a chain's buffers and flat memory, starting `offset` bytes into its readable (writable) part; return
 * how many bytes were copied: less than `length` at the end of the chain.
 */
size_t virtqueue_chain_read(const struct virtqueue_chain *chain, size_t offset, void *to, size_t length);
size_t virtqueue_chain_write(const struct virtqueue_chain *chain, size_t offset, const void *from, size_t length);

/*
 * Fills `iov` (room for VIRTQUEUE_IOV_MAX) with the part of `from` (`count` entries) after the first `skip` bytes and
 * at most `length` bytes long; returns the number of entries. `iov` may be `from`, or before it in the same array.
 */
size_t iovec_slice(struct iovec *iov, const struct iovec *from, size_t count, size_t skip, size_t length);
