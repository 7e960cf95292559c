/*
 * The memory device (virtio 1.2, section 5.15): the host says how much memory it wants the guest to have, the guest
 * asks for blocks of it, and gives them back.
 */
#include "vmm/hotplug_memory.h"

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_SIZE = 128,
    /* Requests served before others on the event loop have their turn. */
    TURN = 16,
    /* A block that devices may be working on is looked at again, and at last refused: Linux comes back in a minute. */
    RETRY_US = 1000,
    RETRIES_MAX = 1000,
};

struct mem {
    struct virtio_device device;
    struct virtqueue queue;
    struct hotplug_memory *memory;
    struct virtio_mem_users users;
    struct event_timer timer;
    uint64_t block_size; /* as in the configuration: the memory comes later */
    uint64_t region_size;
    uint64_t requested_size;
    unsigned retries;
};

static struct mem *mem_of(const struct virtio_device *device)
{
    return container_of((struct virtio_device *)(uintptr_t)device, struct mem, device);
}

/* --- Requests: each answers with a type of response --- */

/* WAIT is ours: the request is to be looked at again. */
enum { WAIT = 0xffff };

static bool range_of(const struct mem *mem, uint64_t gpa, uint16_t blocks, uint64_t *length)
{
    *length = blocks * mem->memory->block_size;
    return hotplug_memory_is_range(mem->memory, gpa, *length);
}

static uint16_t plug(struct mem *mem, uint64_t gpa, uint16_t blocks)
{
    struct hotplug_memory *memory = mem->memory;
    uint64_t length;

    METRIC_INCREMENT(memory_hotplug.plug_count);
    if (!range_of(mem, gpa, blocks, &length) || hotplug_memory_state(memory, gpa, length) != HOTPLUG_UNPLUGGED)
        return VIRTIO_MEM_RESP_ERROR;
    if (memory->plugged_size > mem->requested_size || length > mem->requested_size - memory->plugged_size)
        return VIRTIO_MEM_RESP_NACK;
    if (!hotplug_memory_plug(memory, gpa, length))
        return VIRTIO_MEM_RESP_BUSY;
    METRIC_ADD(memory_hotplug.plug_bytes, length);
    return VIRTIO_MEM_RESP_ACK;
}

/* What a device of ours has its hands on stays: its ring for good, a buffer until it is done with it. */
static uint16_t check_users(struct mem *mem, uint64_t gpa, uint64_t length)
{
    enum memory_use use = mem->users.use(mem->users.owner, gpa, length);

    if (use == MEMORY_MAY_BE_WORKED_ON && mem->retries++ < RETRIES_MAX)
        return WAIT;
    mem->retries = 0;
    return use == MEMORY_UNUSED ? VIRTIO_MEM_RESP_ACK : VIRTIO_MEM_RESP_BUSY;
}

static uint16_t unplug(struct mem *mem, uint64_t gpa, uint16_t blocks)
{
    struct hotplug_memory *memory = mem->memory;
    uint64_t length;
    uint16_t response;

    if (!range_of(mem, gpa, blocks, &length) || hotplug_memory_state(memory, gpa, length) != HOTPLUG_PLUGGED)
        return VIRTIO_MEM_RESP_ERROR;
    response = check_users(mem, gpa, length);
    if (response != VIRTIO_MEM_RESP_ACK)
        return response;
    METRIC_INCREMENT(memory_hotplug.unplug_count);
    if (!hotplug_memory_unplug(memory, gpa, length)) {
        METRIC_INCREMENT(memory_hotplug.unplug_discard_fails);
        return VIRTIO_MEM_RESP_BUSY;
    }
    METRIC_ADD(memory_hotplug.unplug_bytes, length);
    return VIRTIO_MEM_RESP_ACK;
}

/* A stretch of plugged blocks at a time. */
static uint16_t unplug_all(struct mem *mem)
{
    struct hotplug_memory *memory = mem->memory;
    uint64_t count = memory->size / memory->block_size;
    uint16_t response = check_users(mem, memory->gpa, memory->size);

    if (response != VIRTIO_MEM_RESP_ACK)
        return response;
    METRIC_INCREMENT(memory_hotplug.unplug_all_count);
    for (uint64_t i = 0, end; i < count; i = end) {
        end = i + 1;
        if (!memory->plugged[i])
            continue;
        while (end < count && memory->plugged[end])
            end++;
        if (!hotplug_memory_unplug(memory, memory->gpa + i * memory->block_size, (end - i) * memory->block_size))
            return VIRTIO_MEM_RESP_BUSY;
    }
    return VIRTIO_MEM_RESP_ACK;
}

static uint16_t state(struct mem *mem, uint64_t gpa, uint16_t blocks, uint16_t *answer)
{
    static const uint16_t states[] = {
        [HOTPLUG_PLUGGED] = VIRTIO_MEM_STATE_PLUGGED,
        [HOTPLUG_UNPLUGGED] = VIRTIO_MEM_STATE_UNPLUGGED,
        [HOTPLUG_MIXED] = VIRTIO_MEM_STATE_MIXED,
    };
    uint64_t length;

    METRIC_INCREMENT(memory_hotplug.state_count);
    if (!range_of(mem, gpa, blocks, &length))
        return VIRTIO_MEM_RESP_ERROR;
    *answer = states[hotplug_memory_state(mem->memory, gpa, length)];
    return VIRTIO_MEM_RESP_ACK;
}

static void count_duration(uint16_t type, uint64_t duration_us)
{
    if (type == VIRTIO_MEM_REQ_PLUG)
        latency_add(&metrics.memory_hotplug.plug, duration_us);
    else if (type == VIRTIO_MEM_REQ_UNPLUG)
        latency_add(&metrics.memory_hotplug.unplug, duration_us);
    else if (type == VIRTIO_MEM_REQ_UNPLUG_ALL)
        latency_add(&metrics.memory_hotplug.unplug_all, duration_us);
    else if (type == VIRTIO_MEM_REQ_STATE)
        latency_add(&metrics.memory_hotplug.state, duration_us);
}

static void count_failure(uint16_t type, uint16_t response)
{
    if (response == VIRTIO_MEM_RESP_ACK)
        return;
    if (type == VIRTIO_MEM_REQ_PLUG)
        METRIC_INCREMENT(memory_hotplug.plug_fails);
    else if (type == VIRTIO_MEM_REQ_UNPLUG)
        METRIC_INCREMENT(memory_hotplug.unplug_fails);
    else if (type == VIRTIO_MEM_REQ_UNPLUG_ALL)
        METRIC_INCREMENT(memory_hotplug.unplug_all_fails);
    else if (type == VIRTIO_MEM_REQ_STATE)
        METRIC_INCREMENT(memory_hotplug.state_fails);
    else
        METRIC_INCREMENT(memory_hotplug.queue_event_fails);
}

static uint16_t carry_out(struct mem *mem, const struct virtqueue_chain *chain, uint16_t *answer)
{
    struct virtio_mem_req request = {0};
    size_t length = virtqueue_chain_read(chain, 0, &request, sizeof(request));
    uint16_t response = VIRTIO_MEM_RESP_ERROR;
    uint64_t start_us = clock_monotonic_us();

    /* Asking to unplug all needs no more than the type. */
    if (length < sizeof(request) && (length < sizeof(request.type) || request.type != VIRTIO_MEM_REQ_UNPLUG_ALL))
        request.type = UINT16_MAX;
    switch (request.type) {
    case VIRTIO_MEM_REQ_PLUG:
        response = plug(mem, request.u.plug.addr, request.u.plug.nb_blocks);
        break;
    case VIRTIO_MEM_REQ_UNPLUG:
        response = unplug(mem, request.u.unplug.addr, request.u.unplug.nb_blocks);
        break;
    case VIRTIO_MEM_REQ_UNPLUG_ALL:
        response = unplug_all(mem);
        break;
    case VIRTIO_MEM_REQ_STATE:
        response = state(mem, request.u.state.addr, request.u.state.nb_blocks, answer);
        break;
    default:
        break;
    }
    /* A request that was asked again and again counts once. */
    if (response != WAIT) {
        count_failure(request.type, response);
        count_duration(request.type, clock_monotonic_us() - start_us);
    }
    return response;
}

/* Returns false when the request is to be looked at again later. */
static bool serve(struct mem *mem, const struct virtqueue_chain *chain)
{
    struct virtio_mem_resp response = {0};
    uint16_t answer = 0;
    uint16_t type = carry_out(mem, chain, &answer);

    if (type == WAIT)
        return false;
    virtio_device_config_shown(&mem->device);
    response.type = type;
    response.u.state.state = answer;

    /*
     * The answer's buffer may be in what was just taken away: guest memory is asked again, or it would be written to
     * where nothing is any more.
     */
    uint32_t written = 0;
    uint64_t gpa;
    size_t first = chain->readable_count;
    if (chain->writable_count > 0 && chain->iov[first].iov_len >= sizeof(response) &&
        guest_memory_gpa(mem->device.memory, chain->iov[first].iov_base, &gpa) &&
        guest_memory_write(mem->device.memory, gpa, &response, sizeof(response)))
        written = sizeof(response);
    else
        METRIC_INCREMENT(memory_hotplug.queue_event_fails);
    virtqueue_push(&mem->queue, chain->head, written);
    return true;
}

static void serve_queue(struct mem *mem)
{
    struct virtio_device *device = &mem->device;
    struct virtqueue_chain chain;

    if (!device->active || device->failed || device->paused || mem->timer.loop != NULL)
        return;
    virtqueue_disarm(&mem->queue);
    for (unsigned served = 0;;) {
        enum virtqueue_result result = virtqueue_pop(&mem->queue, &chain);

        if (result == VIRTQUEUE_BROKEN) {
            METRIC_INCREMENT(memory_hotplug.queue_event_fails);
            virtio_device_fail(device, "its queue breaks the rules");
            return;
        }
        if (result == VIRTQUEUE_EMPTY) {
            if (!virtqueue_arm(&mem->queue))
                break;
            continue;
        }
        if (!serve(mem, &chain)) {
            virtqueue_unpop(&mem->queue);
            event_timer_set(device->loop, &mem->timer, clock_monotonic_us() + RETRY_US);
            break;
        }
        if (++served == TURN) {
            event_timer_set(device->loop, &mem->timer, 0);
            break;
        }
    }
    virtio_device_signal(device, 0);
}

static void timer_expired(struct event_timer *timer)
{
    serve_queue(container_of(timer, struct mem, timer));
}

/* What is plugged stays so, whatever the driver does: it asks for the state of blocks, or for all to go. */
static bool mem_activate(struct virtio_device *device)
{
    if (device->queues[0].ready)
        return true;
    METRIC_INCREMENT(memory_hotplug.activate_fails);
    return false;
}

static void mem_notify(struct virtio_device *device, unsigned index)
{
    (void)index;
    METRIC_INCREMENT(memory_hotplug.queue_event_count);
    serve_queue(mem_of(device));
}

static void mem_stop(struct virtio_device *device)
{
    struct mem *mem = mem_of(device);

    event_timer_cancel(&mem->timer);
    mem->retries = 0;
}

static void mem_resume(struct virtio_device *device)
{
    serve_queue(mem_of(device));
}

static void mem_destroy(struct virtio_device *device)
{
    mem_stop(device);
    free(mem_of(device));
}

static void mem_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct mem *mem = mem_of(device);
    struct virtio_mem_config config = {
        .block_size = mem->block_size,
        .addr = mem->memory->gpa,
        .region_size = mem->region_size,
        .usable_region_size = mem->region_size,
        .plugged_size = mem->memory->plugged_size,
        .requested_size = mem->requested_size,
    };

    virtio_config_copy(&config, sizeof(config), offset, data, length);
}

static const struct virtio_ops mem_ops = {
    .type = VIRTIO_ID_MEM,
    .name = "memory-hotplug",
    .config_read = mem_config_read,
    .activate = mem_activate,
    .notify = mem_notify,
    .reset = mem_stop,
    .pause = mem_stop,
    .resume = mem_resume,
    .holds = virtio_device_holds_nothing,
    .destroy = mem_destroy,
};

void virtio_mem_request(struct virtio_device *device, uint64_t size)
{
    mem_of(device)->requested_size = size;
    virtio_device_config_changed(device);
}

uint64_t virtio_mem_requested(const struct virtio_device *device)
{
    return mem_of(device)->requested_size;
}

struct error *virtio_mem_new(const struct memory_hotplug_config *config, struct hotplug_memory *memory,
                             const struct virtio_mem_users *users, struct virtio_device **device)
{
    struct mem *mem = calloc(1, sizeof(*mem));

    if (mem == NULL)
        return error_errno(ENOMEM, "cannot make the memory device");
    mem->timer.expired = timer_expired;
    mem->queue.size_max = QUEUE_SIZE;
    mem->memory = memory;
    mem->users = *users;
    mem->block_size = config->block_size_mib << 20;
    mem->region_size = config->total_size_mib << 20;
    mem->device = (struct virtio_device){
        .ops = &mem_ops,
        .id = "memory",
        /* What is not plugged cannot be read either. */
        .features = 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE,
        .queues = &mem->queue,
        .queue_count = 1,
    };
    *device = &mem->device;
    return NULL;
}
