#include "tests/guest/lib/virtio.h"

enum { MAGIC = 0x74726976, VERSION = 2 };

static const uint64_t slots_gpa = 0xc0001000;
static struct queue queues[QUEUES_MAX];

bool virtio_find(struct virtio *virtio, uint32_t type, unsigned nth)
{
    for (unsigned slot = 0; slot < SLOTS_MAX; slot++) {
        uint64_t base = slots_gpa + slot * 0x1000ull;

        if (mmio_read32(base + REG_MAGIC) != MAGIC)
            return false; /* slots are filled from the first on */
        if (mmio_read32(base + REG_DEVICE_ID) != type || nth-- != 0)
            continue;
        guest_expect(mmio_read32(base + REG_VERSION) == VERSION, "transport version");
        *virtio = (struct virtio){.base = base, .queues = queues};
        return true;
    }
    return false;
}

bool virtio_negotiate(struct virtio *virtio, uint64_t wanted)
{
    virtio_write(virtio, REG_STATUS, 0);
    while (virtio_read(virtio, REG_STATUS) != 0)
        ;
    virtio_write(virtio, REG_STATUS, STATUS_ACKNOWLEDGE);
    virtio_write(virtio, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    virtio_write(virtio, REG_DEVICE_FEATURES_SELECT, 0);
    virtio->offered = virtio_read(virtio, REG_DEVICE_FEATURES);
    virtio_write(virtio, REG_DEVICE_FEATURES_SELECT, 1);
    virtio->offered |= (uint64_t)virtio_read(virtio, REG_DEVICE_FEATURES) << 32;
    virtio->features = virtio->offered & wanted;
    virtio_write(virtio, REG_DRIVER_FEATURES_SELECT, 0);
    virtio_write(virtio, REG_DRIVER_FEATURES, (uint32_t)virtio->features);
    virtio_write(virtio, REG_DRIVER_FEATURES_SELECT, 1);
    virtio_write(virtio, REG_DRIVER_FEATURES, (uint32_t)(virtio->features >> 32));
    virtio_write(virtio, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    return (virtio_read(virtio, REG_STATUS) & STATUS_FEATURES_OK) != 0;
}

static void write_gpa(const struct virtio *virtio, uint32_t reg, uint64_t gpa)
{
    virtio_write(virtio, reg, (uint32_t)gpa);
    virtio_write(virtio, reg + 4, (uint32_t)(gpa >> 32));
}

void virtio_queue(struct virtio *virtio, unsigned index)
{
    struct queue *queue = &virtio->queues[index];
    uint32_t size_max;

    memset(queue, 0, sizeof(*queue));
    virtio_write(virtio, REG_QUEUE_SELECT, index);
    size_max = virtio_read(virtio, REG_QUEUE_SIZE_MAX);
    guest_expect(size_max != 0, "no such queue");
    queue->size = (uint16_t)(size_max < QUEUE_SIZE ? size_max : QUEUE_SIZE);
    virtio_write(virtio, REG_QUEUE_SIZE, queue->size);
    write_gpa(virtio, REG_QUEUE_DESCRIPTOR, (uint64_t)queue->descriptors);
    write_gpa(virtio, REG_QUEUE_DRIVER, (uint64_t)&queue->available);
    write_gpa(virtio, REG_QUEUE_DEVICE, (uint64_t)&queue->used);
    virtio_write(virtio, REG_QUEUE_READY, 1);
}

void virtio_driver_ok(struct virtio *virtio)
{
    virtio_write(virtio, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

bool virtio_open(struct virtio *virtio, uint32_t type, uint64_t wanted, unsigned queue_count)
{
    if (!virtio_find(virtio, type, 0) || !virtio_negotiate(virtio, wanted | FEATURE_VERSION_1))
        return false;
    virtio->queue_count = queue_count;
    for (unsigned index = 0; index < queue_count; index++)
        virtio_queue(virtio, index);
    virtio_driver_ok(virtio);
    return (virtio_read(virtio, REG_STATUS) & STATUS_NEEDS_RESET) == 0;
}

uint64_t virtio_config64(const struct virtio *virtio, uint32_t offset)
{
    uint64_t low = virtio_read(virtio, REG_CONFIG + offset);

    return low | (uint64_t)virtio_read(virtio, REG_CONFIG + offset + 4) << 32;
}

uint16_t queue_add(struct queue *queue, const struct buffer *buffers, unsigned count)
{
    uint16_t head = queue->next_descriptor;
    uint16_t available = queue->available.index;

    for (unsigned i = 0; i < count; i++) {
        uint16_t at = queue->next_descriptor;
        uint16_t next = (uint16_t)((at + 1) % queue->size);
        uint16_t flags = buffers[i].writable ? DESC_WRITE : 0;

        if (i + 1 < count)
            flags |= DESC_NEXT;
        queue->descriptors[at].gpa = (uint64_t)buffers[i].data;
        queue->descriptors[at].length = buffers[i].length;
        queue->descriptors[at].flags = flags;
        queue->descriptors[at].next = next;
        queue->next_descriptor = next;
    }
    queue->available.ring[available % queue->size] = head;
    compiler_barrier();
    queue->available.index = (uint16_t)(available + 1);
    return head;
}

void virtio_notify(const struct virtio *virtio, unsigned index)
{
    virtio_write(virtio, REG_QUEUE_NOTIFY, index);
}

bool queue_has_used(const struct queue *queue)
{
    return queue->used.index != queue->next_used;
}

struct used_element queue_wait(struct queue *queue)
{
    volatile struct used_element *element;

    while (!queue_has_used(queue))
        __asm__ volatile("pause");
    compiler_barrier();
    element = &queue->used.ring[queue->next_used++ % queue->size];
    return (struct used_element){element->id, element->length};
}

uint32_t virtio_request(struct virtio *virtio, unsigned index, const struct buffer *buffers, unsigned count)
{
    queue_add(&virtio->queues[index], buffers, count);
    virtio_notify(virtio, index);
    return queue_wait(&virtio->queues[index]).length;
}
