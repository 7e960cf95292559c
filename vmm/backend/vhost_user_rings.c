/*
 * The back end's rings: handing them over, taking them back, and what a back end has in hand. A back end with the
 * protocol feature INFLIGHT_SHMFD gives us memory of its own in which it counts that; we keep the descriptor, look at
 * nothing, and hand it to the back end that comes after it, which then neither loses a request nor does one twice.
 */
#include "vmm/backend/vhost_user_rings.h"

#include "vmm/backend/vhost_user_wire.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/hotplug_memory.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

/*
 * Memory that comes and goes is there as a whole: the table stays as it is when a block is plugged, and the back end
 * has to be asked for nothing then. It reaches what is not plugged.
 */
static bool say_memory(struct vhost_user *front)
{
    const struct guest_memory *memory = front->memory;
    const struct hotplug_memory *hotplug = memory->hotplug;
    struct vhost_user_memory table = {.count = (uint32_t)memory->count};
    int fds[VHOST_USER_REGIONS_MAX];

    for (size_t i = 0; i < memory->count; i++) {
        const struct guest_region *region = &memory->regions[i];

        fds[i] = memory->shared_fd;
        table.regions[i] = (struct vhost_user_region){
            .gpa = region->gpa, .size = region->size, .hva = (uintptr_t)region->hva, .offset = region->shared_offset};
    }
    if (hotplug != NULL) {
        fds[table.count] = hotplug->shared_fd;
        table.regions[table.count++] =
            (struct vhost_user_region){.gpa = hotplug->gpa, .size = hotplug->size, .hva = (uintptr_t)hotplug->hva};
    }
    return vhost_user_say(front, VHOST_USER_SET_MEM_TABLE, &table,
                          offsetof(struct vhost_user_memory, regions) + table.count * sizeof(table.regions[0]), fds,
                          table.count);
}

static bool say_ring(struct vhost_user *front, uint32_t index)
{
    const struct vhost_user_ring *ring = &front->rings[index];
    struct vhost_user_vring_address address = {
        .index = index,
        .descriptors = (uintptr_t)ring->descriptors,
        .available = (uintptr_t)ring->available,
        .used = (uintptr_t)ring->used,
    };

    return vhost_user_say_state(front, VHOST_USER_SET_VRING_NUM, index, ring->size) &&
           vhost_user_say_state(front, VHOST_USER_SET_VRING_BASE, index, ring->base) &&
           vhost_user_say(front, VHOST_USER_SET_VRING_ADDR, &address, sizeof(address), NULL, 0) &&
           vhost_user_say_fd(front, VHOST_USER_SET_VRING_CALL, index, ring->call_fd) &&
           vhost_user_say_fd(front, VHOST_USER_SET_VRING_KICK, index, ring->kick_fd);
}

void vhost_user_ring_bell(int fd)
{
    struct pollfd bell = {.fd = fd, .events = POLLOUT};

    if (fd >= 0 && poll(&bell, 1, 0) == 1 && (bell.revents & POLLOUT) != 0 && eventfd_write(fd, 1) < 0)
        log_debug("cannot ring a bell: %s", strerror(errno));
}

/* The back end that vanished may have taken a notification along, or an interrupt. */
static void wake(const struct vhost_user_ring *ring)
{
    vhost_user_ring_bell(ring->kick_fd);
    vhost_user_ring_bell(ring->call_fd);
}

/* Where the rings go on. The used index says it when the back end knows itself what it has in hand. */
static bool find_bases(struct vhost_user *front)
{
    for (uint32_t i = 0; i < front->needs.queue_count; i++) {
        struct vhost_user_ring *ring = &front->rings[i];

        if (!ring->ready)
            continue;
        if (front->in_flight_fd >= 0)
            ring->base = __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE);
        else if (!vhost_user_ring_recover(ring, &ring->base))
            return false;
    }
    return true;
}

static bool say_rings(struct vhost_user *front)
{
    const bool interrupted = front->interrupted;
    const bool protocol = (front->features & 1ull << VHOST_USER_F_PROTOCOL_FEATURES) != 0;

    front->state = VHOST_USER_RUNNING;
    if (interrupted && !find_bases(front))
        return vhost_user_fail_for_good(front,
                                        "a back end ended with requests in hand, which it did out of order and counted "
                                        "nowhere (protocol feature INFLIGHT_SHMFD): reboot the guest");
    for (uint32_t i = 0; i < front->needs.queue_count; i++) {
        struct vhost_user_ring *ring = &front->rings[i];

        if (!ring->ready)
            continue;
        if (!say_ring(front, i))
            return false;
        if (protocol && !vhost_user_say_state(front, VHOST_USER_SET_VRING_ENABLE, i, ring->enabled))
            return false;
        if (front->again)
            wake(ring);
    }
    if (interrupted)
        log_info("%s \"%s\": the back end at \"%s\" is back", front->needs.name, front->needs.id, front->needs.path);
    if (interrupted)
        COUNTER_INCREMENT(front->needs.metrics->reconnects);
    front->interrupted = false;
    front->again = true;
    return true;
}

bool vhost_user_rings_run(struct vhost_user *front)
{
    const uint64_t features =
        (front->driver_features & front->features) | (front->features & 1ull << VHOST_USER_F_PROTOCOL_FEATURES);

    if (!vhost_user_say_number(front, VHOST_USER_SET_FEATURES, features) || !say_memory(front))
        return false;
    if (!vhost_user_has(front, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
        return say_rings(front);
    if (front->in_flight_fd >= 0)
        return vhost_user_say(front, VHOST_USER_SET_INFLIGHT_FD, &front->in_flight, sizeof(front->in_flight),
                              &front->in_flight_fd, 1) &&
               say_rings(front);
    /* Rings that have run without are in nobody's count. */
    if (front->again)
        return say_rings(front);

    struct vhost_user_inflight wanted = {.queue_count = (uint16_t)front->needs.queue_count,
                                         .queue_size = (uint16_t)front->needs.queue_size};
    front->state = VHOST_USER_COUNTING;
    return vhost_user_say(front, VHOST_USER_GET_INFLIGHT_FD, &wanted, sizeof(wanted), NULL, 0);
}

bool vhost_user_rings_take_in_flight(struct vhost_user *front, const struct vhost_user_message *answer)
{
    const struct vhost_user_inflight *told = &answer->payload.inflight;

    if (answer->header.size != sizeof(*told) || front->state != VHOST_USER_COUNTING)
        return vhost_user_fail(front, "it answered what it was not asked");
    if (told->mmap_size == 0)
        return say_rings(front);
    if (front->incoming_fd < 0)
        return vhost_user_fail_for_good(front, "it gave no memory for requests in flight");
    front->in_flight = *told;
    front->in_flight_fd = take_fd(&front->incoming_fd);
    return vhost_user_say(front, VHOST_USER_SET_INFLIGHT_FD, told, sizeof(*told), &front->in_flight_fd, 1) &&
           say_rings(front);
}

bool vhost_user_rings_take_base(struct vhost_user *front, const struct vhost_user_message *answer)
{
    const struct vhost_user_vring_state *state = &answer->payload.state;

    if (answer->header.size != sizeof(*state) || state->index >= front->needs.queue_count)
        return vhost_user_fail(front, "it answered what it was not asked");
    front->rings[state->index].base = (uint16_t)state->value;
    return true;
}

void vhost_user_rings_lost(struct vhost_user *front)
{
    for (uint32_t i = 0; i < front->needs.queue_count; i++)
        if (front->rings[i].ready)
            vhost_user_ring_lost(&front->rings[i]);
}
