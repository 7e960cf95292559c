#include "tests/unit/harness.h"

#include "tests/unit/guest_ring.h"

#include "vmm/base/clock.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { POLL_US = 1000, PATIENCE_US = 20000000 };

void guest_memory_setup(struct guest_memory *memory)
{
    *memory = (struct guest_memory){
        .regions = {{.gpa = 0, .size = GUEST_LOW_SIZE}, {.gpa = GUEST_HIGH_GPA, .size = GUEST_HIGH_SIZE}},
        .count = 2,
    };
    assert_no_error(guest_memory_map(memory, HUGE_PAGES_NONE));
}

void *guest_at(const struct guest_memory *memory, uint64_t gpa, size_t length)
{
    void *hva = guest_memory_at(memory, gpa, length);

    assert_non_null(hva);
    return hva;
}

void guest_ring_init(struct guest_ring *ring, struct guest_memory *memory, uint64_t gpa, uint16_t size)
{
    assert_in_range(size, 1, GUEST_RING_SIZE_MAX);
    memset(guest_at(memory, gpa, GUEST_RING_STRIDE), 0, GUEST_RING_STRIDE);
    *ring = (struct guest_ring){
        .memory = memory,
        .size = size,
        .descriptor_gpa = gpa,
        .driver_gpa = gpa + 0x1000,
        .device_gpa = gpa + 0x2000,
        .descriptors = guest_at(memory, gpa, 0x1000),
        .available = guest_at(memory, gpa + 0x1000, 0x1000),
        .used = guest_at(memory, gpa + 0x2000, 0x2000),
    };
    for (uint16_t i = 0; i < size; i++)
        ring->next_free[i] = (uint16_t)(i + 1);
}

void guest_ring_configure(const struct guest_ring *ring, struct virtqueue *queue)
{
    if (queue->size_max == 0)
        queue->size_max = ring->size;
    queue->size = ring->size;
    queue->descriptor_gpa = ring->descriptor_gpa;
    queue->driver_gpa = ring->driver_gpa;
    queue->device_gpa = ring->device_gpa;
    queue->ready = true;
}

void guest_ring_descriptor(struct guest_ring *ring, uint16_t index, uint64_t gpa, uint32_t length, uint16_t flags,
                           uint16_t next)
{
    ring->descriptors[index] = (struct vring_desc){.addr = gpa, .len = length, .flags = flags, .next = next};
}

void guest_ring_available_index(struct guest_ring *ring, uint16_t index)
{
    __atomic_store_n(&ring->available->idx, index, __ATOMIC_SEQ_CST);
}

void guest_ring_publish(struct guest_ring *ring, uint16_t head)
{
    uint16_t index = ring->available->idx;

    __atomic_store_n(&ring->available->ring[index % ring->size], head, __ATOMIC_RELAXED);
    guest_ring_available_index(ring, (uint16_t)(index + 1));
}

static uint16_t take_descriptor(struct guest_ring *ring)
{
    uint16_t index = ring->free_head;

    assert_true(index < ring->size); /* the test keeps more in flight than the ring holds */
    ring->free_head = ring->next_free[index];
    return index;
}

static uint16_t buffer_flags(const struct guest_buffer *buffer, bool last)
{
    return (uint16_t)((buffer->writable ? VRING_DESC_F_WRITE : 0) | (last ? 0 : VRING_DESC_F_NEXT));
}

uint16_t guest_ring_add(struct guest_ring *ring, const struct guest_buffer *buffers, size_t count)
{
    uint16_t head = ring->free_head;

    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        uint16_t index = take_descriptor(ring);

        guest_ring_descriptor(ring, index, buffers[i].gpa, buffers[i].length, buffer_flags(&buffers[i], i + 1 == count),
                              ring->free_head);
    }
    ring->chain_length[head] = (uint16_t)count;
    guest_ring_publish(ring, head);
    return head;
}

uint16_t guest_ring_add_indirect(struct guest_ring *ring, uint64_t table_gpa, const struct guest_buffer *buffers,
                                 size_t count)
{
    uint16_t head = take_descriptor(ring);
    size_t length = count * sizeof(struct vring_desc);
    uint8_t *table = guest_at(ring->memory, table_gpa, length);

    for (size_t i = 0; i < count; i++) {
        struct vring_desc descriptor = {
            .addr = buffers[i].gpa,
            .len = buffers[i].length,
            .flags = buffer_flags(&buffers[i], i + 1 == count),
            .next = (uint16_t)(i + 1),
        };

        memcpy(table + i * sizeof(descriptor), &descriptor, sizeof(descriptor));
    }
    guest_ring_descriptor(ring, head, table_gpa, (uint32_t)length, VRING_DESC_F_INDIRECT, 0);
    ring->chain_length[head] = 1;
    guest_ring_publish(ring, head);
    return head;
}

bool guest_ring_has_used(const struct guest_ring *ring)
{
    return __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) != ring->last_used;
}

bool guest_ring_take_used(struct guest_ring *ring, uint16_t *head, uint32_t *length)
{
    if (!guest_ring_has_used(ring))
        return false;

    const vring_used_elem_t *element = &ring->used->ring[ring->last_used % ring->size];
    uint32_t id = __atomic_load_n(&element->id, __ATOMIC_RELAXED);

    *length = __atomic_load_n(&element->len, __ATOMIC_RELAXED);
    assert_true(id < ring->size);
    *head = (uint16_t)id;
    ring->last_used++;

    uint16_t index = *head;
    for (uint16_t i = 0; i < ring->chain_length[id]; i++) {
        uint16_t next = ring->descriptors[index].next;

        ring->next_free[index] = ring->free_head;
        ring->free_head = index;
        index = next;
    }
    ring->chain_length[id] = 0;
    return true;
}

void guest_ring_used_event(struct guest_ring *ring, uint16_t index)
{
    __atomic_store_n(&ring->available->ring[ring->size], index, __ATOMIC_SEQ_CST);
}

uint16_t guest_ring_avail_event(const struct guest_ring *ring)
{
    return __atomic_load_n((const uint16_t *)&ring->used->ring[ring->size], __ATOMIC_SEQ_CST);
}

void guest_ring_flags(struct guest_ring *ring, uint16_t flags)
{
    __atomic_store_n(&ring->available->flags, flags, __ATOMIC_SEQ_CST);
}

static void count_queue_signal(void *transport, unsigned index)
{
    struct guest_driver *driver = transport;

    assert_true(index < driver->device->queue_count);
    driver->queue_signals[index]++;
}

static void count_config_signal(void *transport)
{
    struct guest_driver *driver = transport;

    if (driver->device->active)
        driver->config_signals++;
}

static void ignore_config(void *transport)
{
    (void)transport;
}

static void note_failure(void *transport)
{
    ((struct guest_driver *)transport)->failed = true;
}

static int eventfd_made(int *fd)
{
    if (*fd == 0)
        *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(*fd > 0);
    return *fd;
}

static int notify_fd(void *transport, unsigned index)
{
    return eventfd_made(&((struct guest_driver *)transport)->bells[index]);
}

static int interrupt_fd(void *transport)
{
    return eventfd_made(&((struct guest_driver *)transport)->interrupt);
}

static void note_who_serves(void *transport, unsigned index, bool here)
{
    ((struct guest_driver *)transport)->served_here[index] = here;
}

static const struct virtio_transport_ops counting_transport = {
    .signal_queue = count_queue_signal,
    .signal_config = count_config_signal,
    .show_config = ignore_config,
    .fail = note_failure,
    .notify_fd = notify_fd,
    .interrupt_fd = interrupt_fd,
    .serve_here = note_who_serves,
};

static void probe_ready(struct event_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

static void probe_expired(struct event_timer *timer)
{
    (void)timer;
}

/* The source that was added last, and the timer that comes after all that are due. */
static void look_into_loop(struct event_loop *loop, const struct event_source **source,
                           const struct event_timer **timer)
{
    struct event_source new_source = {.fd = eventfd(0, EFD_CLOEXEC), .ready = probe_ready};
    struct event_timer new_timer = {.expired = probe_expired};

    assert_no_error(event_source_add(loop, &new_source, 0));
    *source = new_source.next;
    event_source_remove(&new_source);
    close(new_source.fd);
    event_timer_set(loop, &new_timer, 0);
    *timer = new_timer.next;
    event_timer_cancel(&new_timer);
}

void guest_driver_setup(struct guest_driver *driver)
{
    const struct event_timer *timer;

    memset(driver, 0, sizeof(*driver));
    guest_memory_setup(&driver->memory);
    assert_no_error(event_loop_new(&driver->loop));
    look_into_loop(driver->loop, &driver->first_source, &timer);
}

void guest_driver_restart(struct guest_driver *driver, uint64_t features)
{
    struct virtio_device *device = driver->device;

    assert_true(device->queue_count <= GUEST_DRIVER_QUEUES_MAX);
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct guest_ring *ring = &driver->rings[i];

        assert_in_range(device->queues[i].size_max, 1, VIRTQUEUE_SIZE_MAX);
        guest_ring_init(ring, &driver->memory, GUEST_RINGS_GPA + i * GUEST_RING_STRIDE, device->queues[i].size_max);
        guest_ring_configure(ring, &device->queues[i]);
        assert_true(virtqueue_activate(&device->queues[i], &driver->memory, features));
    }
    device->driver_features = features | 1ULL << VIRTIO_F_VERSION_1;
    assert_true(device->ops->activate(device));
    device->active = true;
}

void guest_driver_start(struct guest_driver *driver, struct virtio_device *device, uint64_t features)
{
    /* The transport adds these to every device's offer. */
    uint64_t transport_features =
        1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC | 1ULL << VIRTIO_RING_F_EVENT_IDX;

    assert_int_equal(features & ~(device->features | transport_features), 0);
    driver->device = device;
    device->memory = &driver->memory;
    device->loop = driver->loop;
    device->transport_ops = &counting_transport;
    device->transport = driver;
    guest_driver_restart(driver, features);
}

void guest_driver_reset(struct guest_driver *driver)
{
    struct virtio_device *device = driver->device;

    if (device->active)
        virtio_device_reset(device);
    device->active = device->failed = driver->failed = false;
    device->driver_features = 0;
    for (unsigned i = 0; i < device->queue_count; i++)
        virtqueue_reset(&device->queues[i]);
}

/* What a device leaves behind in the loop would be called when the device is gone. */
void guest_driver_teardown(struct guest_driver *driver)
{
    const struct event_source *source;
    const struct event_timer *timer;

    if (driver->device != NULL)
        virtio_device_destroy(driver->device);
    look_into_loop(driver->loop, &source, &timer);
    assert_ptr_equal(source, driver->first_source);
    assert_null(timer);
    event_loop_free(driver->loop);
    guest_memory_unmap(&driver->memory);
    for (unsigned i = 0; i < GUEST_DRIVER_QUEUES_MAX; i++)
        if (driver->bells[i] > 0)
            close(driver->bells[i]);
    if (driver->interrupt > 0)
        close(driver->interrupt);
    driver->device = NULL;
}

void guest_driver_notify(struct guest_driver *driver, unsigned index)
{
    if (driver->device->active && !driver->device->failed)
        driver->device->ops->notify(driver->device, index);
}

static void poll_expired(struct event_timer *timer)
{
    struct guest_driver *driver = container_of(timer, struct guest_driver, poll);
    uint64_t now = clock_monotonic_us();

    if (driver->done(driver->argument) || now >= driver->deadline_us)
        event_loop_stop(driver->loop);
    else
        event_timer_set(driver->loop, timer, now + POLL_US);
}

void guest_driver_run_until(struct guest_driver *driver, bool (*done)(void *argument), void *argument)
{
    if (done(argument))
        return;
    driver->done = done;
    driver->argument = argument;
    driver->deadline_us = clock_monotonic_us() + PATIENCE_US;
    driver->poll.expired = poll_expired;
    event_timer_set(driver->loop, &driver->poll, 0);
    assert_no_error(event_loop_run(driver->loop));
    event_timer_cancel(&driver->poll);
    if (!done(argument))
        fail_msg("the device did not do what was waited for");
}

static bool ring_has_used(void *argument)
{
    return guest_ring_has_used(argument);
}

uint32_t guest_driver_wait_used(struct guest_driver *driver, unsigned index, uint16_t *head)
{
    struct guest_ring *ring = &driver->rings[index];
    uint16_t ignored;
    uint32_t length;

    guest_driver_run_until(driver, ring_has_used, ring);
    assert_true(guest_ring_take_used(ring, head != NULL ? head : &ignored, &length));
    return length;
}
