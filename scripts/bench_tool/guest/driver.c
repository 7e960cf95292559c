#include "scripts/bench_tool/guest/driver.h"

enum { MAGIC = 0x74726976, VERSION = 2 };

static const struct {
    uint64_t gpa;
    uint64_t stride;
    unsigned count;
} windows[] = {
    {0xc0001000, 0x1000, 19}, /* Mayfly, and Firecracker */
    {0xfeb00000, 0x200, 24},  /* QEMU microvm: most are empty */
};

static bool is_device(uint64_t base, uint32_t type)
{
    return mmio_read32(base + REG_MAGIC) == MAGIC && mmio_read32(base + REG_DEVICE_ID) == type &&
           mmio_read32(base + REG_VERSION) == VERSION;
}

static uint64_t find(uint32_t type)
{
    for (size_t window = 0; window < sizeof(windows) / sizeof(windows[0]); window++)
        for (unsigned slot = 0; slot < windows[window].count; slot++)
            if (is_device(windows[window].gpa + slot * windows[window].stride, type))
                return windows[window].gpa + slot * windows[window].stride;
    guest_fail("no such device");
}

static void write_gpa(const struct virtio *device, uint32_t reg, uint64_t gpa)
{
    virtio_write(device, reg, (uint32_t)gpa);
    virtio_write(device, reg + 4, (uint32_t)(gpa >> 32));
}

static void ring_open(struct ring *ring, struct virtio *device, unsigned number)
{
    uint32_t size_max;

    ring->device = device;
    ring->number = number;
    virtio_write(device, REG_QUEUE_SELECT, number);
    size_max = virtio_read(device, REG_QUEUE_SIZE_MAX);
    guest_expect(size_max != 0, "no such queue");
    ring->size = (uint16_t)(size_max < RING_SIZE ? size_max : RING_SIZE);
    virtio_write(device, REG_QUEUE_SIZE, ring->size);
    write_gpa(device, REG_QUEUE_DESCRIPTOR, (uint64_t)ring->descriptors);
    write_gpa(device, REG_QUEUE_DRIVER, (uint64_t)&ring->available);
    write_gpa(device, REG_QUEUE_DEVICE, (uint64_t)&ring->used);
    virtio_write(device, REG_QUEUE_READY, 1);
}

void driver_open(struct virtio *device, uint32_t type, uint64_t wanted, struct ring *rings, unsigned count)
{
    *device = (struct virtio){.base = find(type)};
    guest_expect(virtio_negotiate(device, wanted | FEATURE_VERSION_1 | FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX),
                 "features refused");
    for (unsigned number = 0; number < count; number++)
        ring_open(&rings[number], device, number);
    virtio_driver_ok(device);
}

void ring_add(struct ring *ring, uint16_t head)
{
    ring->available.ring[ring->added++ % ring->size] = head;
    compiler_barrier();
    ring->available.index = ring->added;
}

static void full_barrier(void)
{
    __asm__ volatile("lock addl $0, (%%rsp)" : : : "memory");
}

static bool wants_notification(const struct ring *ring)
{
    if ((ring->device->features & FEATURE_EVENT_IDX) == 0)
        return (ring->used.flags & 1) == 0;
    return (uint16_t)(ring->added - ring->used.available_event - 1) < (uint16_t)(ring->added - ring->notified);
}

void ring_kick(struct ring *ring)
{
    full_barrier();
    if (wants_notification(ring))
        virtio_notify(ring->device, ring->number);
    ring->notified = ring->added;
}

bool ring_take(struct ring *ring, struct used_element *element)
{
    if (ring->used.index == ring->taken)
        return false;
    compiler_barrier();
    *element = ring->used.ring[ring->taken++ % ring->size];
    return true;
}

void ring_arm(struct ring *ring, uint16_t count)
{
    ring->available.used_event = (uint16_t)(ring->taken + count - 1);
    full_barrier();
}

void ring_wait(const struct ring *ring, uint16_t count)
{
    while ((uint16_t)(ring->used.index - ring->taken) < count)
        __asm__ volatile("pause");
}

void say_and_spin(const char *text)
{
    serial_puts(text);
    serial_put('\n');
    for (;;)
        __asm__ volatile("pause");
}
