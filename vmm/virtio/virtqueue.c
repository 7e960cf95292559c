#include "vmm/virtio/virtqueue.h"

#include "vmm/base/checked.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

/*
 * The rings are shared with vCPUs that write them while we look. Each field is loaded or stored exactly once, by an
 * atomic access; an index is loaded with acquire before what it announces is read, stored with release after what it
 * announces was written. Guest and host are little-endian on every architecture that we run on.
 *
 * Notification suppression (2.7.7, 2.7.10) is a handshake: each side stores its own word, then loads the other's, and
 * at least one must see the other's store or both sleep for ever. Those stores and loads are sequentially consistent
 * (a fence of its own would do as well, but ThreadSanitizer cannot see through one).
 */
static uint16_t load_relaxed(const __virtio16 *field)
{
    return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static uint16_t load_ordered(const __virtio16 *field)
{
    return __atomic_load_n(field, __ATOMIC_SEQ_CST);
}

static void store_ordered(__virtio16 *field, uint16_t value)
{
    __atomic_store_n(field, value, __ATOMIC_SEQ_CST);
}

static uint16_t load_acquire(const __virtio16 *field)
{
    return __atomic_load_n(field, __ATOMIC_ACQUIRE);
}

/* One copy of a descriptor; the barrier keeps the compiler from going back to guest memory for a field. */
static struct vring_desc load_descriptor(const uint8_t *table, uint32_t index)
{
    struct vring_desc descriptor;

    memcpy(&descriptor, table + index * sizeof(descriptor), sizeof(descriptor));
    __asm__ volatile("" : "+m"(descriptor));
    return descriptor;
}

void virtqueue_reset(struct virtqueue *queue)
{
    *queue = (struct virtqueue){.size_max = queue->size_max};
}

static uint64_t available_size(uint64_t size)
{
    return sizeof(struct vring_avail) + (size + 1) * sizeof(__virtio16);
}

static uint64_t used_size(uint64_t size)
{
    return sizeof(struct vring_used) + size * sizeof(vring_used_elem_t) + sizeof(__virtio16);
}

static bool overlap(uint64_t one, uint64_t one_length, uint64_t other, uint64_t other_length)
{
    return one < other + other_length && other < one + one_length;
}

bool virtqueue_overlaps(const struct virtqueue *queue, uint64_t gpa, uint64_t length)
{
    uint64_t size = queue->size;

    return queue->ready && (overlap(queue->descriptor_gpa, size * sizeof(struct vring_desc), gpa, length) ||
                            overlap(queue->driver_gpa, available_size(size), gpa, length) ||
                            overlap(queue->device_gpa, used_size(size), gpa, length));
}

bool virtqueue_is_working(const struct virtqueue *queue)
{
    return queue->ready && queue->next_available != queue->next_used;
}

bool virtqueue_activate(struct virtqueue *queue, const struct guest_memory *memory, uint64_t driver_features)
{
    uint64_t size = queue->size;

    if (size == 0 || size > queue->size_max || (size & (size - 1)) != 0)
        return false;
    if (queue->descriptor_gpa % VRING_DESC_ALIGN_SIZE != 0 || queue->driver_gpa % VRING_AVAIL_ALIGN_SIZE != 0 ||
        queue->device_gpa % VRING_USED_ALIGN_SIZE != 0)
        return false;

    /* Each ring ends with the event index of the other side. */
    void *descriptors = guest_memory_at(memory, queue->descriptor_gpa, size * sizeof(struct vring_desc));
    void *available = guest_memory_at(memory, queue->driver_gpa, available_size(size));
    void *used = guest_memory_at(memory, queue->device_gpa, used_size(size));
    if (descriptors == NULL || available == NULL || used == NULL)
        return false;

    queue->memory = memory;
    queue->descriptors = descriptors;
    queue->available = available;
    queue->used = used;
    queue->event_idx = (driver_features & (1ULL << VIRTIO_RING_F_EVENT_IDX)) != 0;
    queue->indirect = (driver_features & (1ULL << VIRTIO_RING_F_INDIRECT_DESC)) != 0;
    return true;
}

/* Adds one descriptor's buffer to the chain; false when that breaks a rule. */
static bool chain_add(struct virtqueue_chain *chain, const struct guest_memory *memory,
                      const struct vring_desc *descriptor)
{
    bool writable = (descriptor->flags & VRING_DESC_F_WRITE) != 0;
    uint32_t *bytes = writable ? &chain->writable_bytes : &chain->readable_bytes;

    /* All that the device reads comes before all that it writes (2.7.4.2). */
    if (!writable && chain->writable_count > 0)
        return false;
    if (descriptor->len == 0)
        return true;
    if (!checked_add(*bytes, descriptor->len, bytes))
        return false;

    void *hva = guest_memory_at(memory, descriptor->addr, descriptor->len);
    size_t place = (size_t)chain->readable_count + chain->writable_count;
    if (hva == NULL || place == VIRTQUEUE_IOV_MAX)
        return false;
    chain->iov[place] = (struct iovec){.iov_base = hva, .iov_len = descriptor->len};
    *(writable ? &chain->writable_count : &chain->readable_count) += 1;
    return true;
}

/* A descriptor table that is being walked: the queue's own, or an indirect one. */
struct table {
    const uint8_t *descriptors;
    uint32_t entries;
    uint32_t limit; /* descriptors that a chain may have here: more is a loop */
    bool indirect;
};

/* The table that an indirect descriptor refers to (2.7.5.3); false when it must not. */
static bool table_enter(struct table *table, const struct virtqueue *queue, const struct vring_desc *descriptor)
{
    if (!queue->indirect || table->indirect || (descriptor->flags & VRING_DESC_F_NEXT) != 0)
        return false;
    if (descriptor->len == 0 || descriptor->len % sizeof(struct vring_desc) != 0)
        return false;

    uint32_t entries = (uint32_t)(descriptor->len / sizeof(struct vring_desc));
    const uint8_t *descriptors = guest_memory_at(queue->memory, descriptor->addr, descriptor->len);
    if (descriptors == NULL)
        return false;
    *table = (struct table){
        .descriptors = descriptors,
        .entries = entries,
        .limit = entries < VIRTQUEUE_IOV_MAX ? entries : VIRTQUEUE_IOV_MAX,
        .indirect = true,
    };
    return true;
}

static bool walk_chain(const struct virtqueue *queue, struct virtqueue_chain *chain)
{
    struct table table = {
        .descriptors = (const uint8_t *)queue->descriptors,
        .entries = queue->size,
        .limit = queue->size,
    };
    uint32_t index = chain->head;
    uint32_t walked = 0;

    for (;;) {
        if (index >= table.entries || walked++ == table.limit)
            return false;

        struct vring_desc descriptor = load_descriptor(table.descriptors, index);
        if ((descriptor.flags & VRING_DESC_F_INDIRECT) != 0) {
            if (!table_enter(&table, queue, &descriptor))
                return false;
            index = 0;
            walked = 0;
            continue;
        }
        if (!chain_add(chain, queue->memory, &descriptor))
            return false;
        if ((descriptor.flags & VRING_DESC_F_NEXT) == 0)
            return true;
        index = descriptor.next;
    }
}

static enum virtqueue_result break_queue(struct virtqueue *queue)
{
    queue->broken = true;
    return VIRTQUEUE_BROKEN;
}

/* A queue that the driver did not make ready has no rings: it stays empty. */
static bool queue_works(const struct virtqueue *queue)
{
    return queue->used != NULL && !queue->broken;
}

enum virtqueue_result virtqueue_look(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    chain->head = head;
    chain->readable_count = chain->writable_count = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    return walk_chain(queue, chain) ? VIRTQUEUE_CHAIN : break_queue(queue);
}

enum virtqueue_result virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    if (!queue_works(queue))
        return queue->broken ? VIRTQUEUE_BROKEN : VIRTQUEUE_EMPTY;

    uint16_t announced = load_acquire(&queue->available->idx);
    if (announced == queue->next_available)
        return VIRTQUEUE_EMPTY;
    /* No more chains than the ring has entries can be on their way, popped ones included. */
    if ((uint16_t)(announced - queue->next_available) > queue->size ||
        (uint16_t)(announced - queue->next_used) > queue->size)
        return break_queue(queue);

    uint16_t head = load_relaxed(&queue->available->ring[queue->next_available & (queue->size - 1)]);
    enum virtqueue_result result = virtqueue_look(queue, head, chain);
    if (result == VIRTQUEUE_CHAIN)
        queue->next_available++;
    return result;
}

void virtqueue_take_over(struct virtqueue *queue, uint16_t in_flight)
{
    queue->next_used = load_acquire(&queue->used->idx);
    queue->next_available = (uint16_t)(queue->next_used + in_flight);
    /* What it gave back last it may not have told the guest of. */
    queue->signalled_used = (uint16_t)(queue->next_used - 1);
    queue->signalled_valid = false;
}

void virtqueue_unpop(struct virtqueue *queue)
{
    queue->next_available--;
}

void virtqueue_fill(struct virtqueue *queue, uint16_t ahead, uint16_t head, uint32_t written)
{
    if (!queue_works(queue))
        return;

    vring_used_elem_t *element = &queue->used->ring[(queue->next_used + ahead) & (queue->size - 1)];

    __atomic_store_n(&element->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&element->len, written, __ATOMIC_RELAXED);
}

void virtqueue_publish(struct virtqueue *queue, uint16_t count)
{
    if (!queue_works(queue))
        return;
    queue->next_used = (uint16_t)(queue->next_used + count);
    store_ordered(&queue->used->idx, queue->next_used);
}

void virtqueue_push(struct virtqueue *queue, uint16_t head, uint32_t written)
{
    virtqueue_fill(queue, 0, head, written);
    virtqueue_publish(queue, 1);
}

uint16_t virtqueue_unsignalled(const struct virtqueue *queue)
{
    return (uint16_t)(queue->next_used - queue->signalled_used);
}

bool virtqueue_needs_signal(struct virtqueue *queue)
{
    uint16_t before = queue->signalled_used;
    bool valid = queue->signalled_valid;

    if (virtqueue_unsignalled(queue) == 0 || !queue_works(queue))
        return false;
    queue->signalled_used = queue->next_used;
    queue->signalled_valid = true;

    if (!queue->event_idx)
        return (load_ordered(&queue->available->flags) & VRING_AVAIL_F_NO_INTERRUPT) == 0;

    uint16_t used_event = load_ordered(&queue->available->ring[queue->size]);
    return !valid || vring_need_event(used_event, queue->next_used, before);
}

bool virtqueue_has_chain(const struct virtqueue *queue)
{
    return queue_works(queue) && load_ordered(&queue->available->idx) != queue->next_available;
}

bool virtqueue_arm(struct virtqueue *queue)
{
    if (!queue_works(queue))
        return false;
    if (queue->event_idx)
        store_ordered((__virtio16 *)&queue->used->ring[queue->size], queue->next_available);
    else
        store_ordered(&queue->used->flags, 0);
    return load_ordered(&queue->available->idx) != queue->next_available;
}

void virtqueue_disarm(struct virtqueue *queue)
{
    /* With EVENT_IDX the event index that lies behind says it already. */
    if (queue_works(queue) && !queue->event_idx)
        __atomic_store_n(&queue->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

size_t iovec_slice(struct iovec *iov, const struct iovec *from, size_t count, size_t skip, size_t length)
{
    size_t entries = 0;

    for (size_t i = 0; i < count && length > 0; i++) {
        if (skip >= from[i].iov_len) {
            skip -= from[i].iov_len;
            continue;
        }

        size_t part = from[i].iov_len - skip;
        if (part > length)
            part = length;
        iov[entries++] = (struct iovec){.iov_base = (uint8_t *)from[i].iov_base + skip, .iov_len = part};
        length -= part;
        skip = 0;
    }
    return entries;
}

/* Copies between `flat` and the buffers; `to_guest` is the direction. */
static size_t copy(const struct iovec *iov, size_t count, size_t offset, uint8_t *flat, size_t length, bool to_guest)
{
    size_t done = 0;

    for (size_t i = 0; i < count && done < length; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }

        uint8_t *place = (uint8_t *)iov[i].iov_base + offset;
        size_t part = iov[i].iov_len - offset;
        if (part > length - done)
            part = length - done;
        if (to_guest)
            memcpy(place, flat + done, part);
        else
            memcpy(flat + done, place, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t virtqueue_chain_read(const struct virtqueue_chain *chain, size_t offset, void *to, size_t length)
{
    size_t done = copy(chain->iov, chain->readable_count, offset, to, length, false);

    /* What was copied is checked and used from now on; the compiler must not look at the guest's copy again. */
    __asm__ volatile("" ::: "memory");
    return done;
}

size_t virtqueue_chain_write(const struct virtqueue_chain *chain, size_t offset, const void *from, size_t length)
{
    return copy(chain->iov + chain->readable_count, chain->writable_count, offset, (uint8_t *)(uintptr_t)from, length,
                true);
}
