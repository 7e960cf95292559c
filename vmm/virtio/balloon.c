/*
 * The memory balloon (virtio 1.2, section 5.5): the guest gives pages up and takes them back, tells how its memory is
 * doing, and names pages that are free. What it gives up goes back to the host at once.
 */
#include "vmm/virtio/balloon.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/metrics.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUEUE_SIZE = VIRTQUEUE_SIZE_MAX,
    /* Of one request; Linux has 256. More are not looked at: those pages stay where they are. */
    REQUEST_PAGES_MAX = 1024,
    /* Of one request; Linux has 16. */
    REQUEST_STATISTICS_MAX = 64,
    /* Requests served before others on the event loop have their turn. */
    TURN = 4,
};

static uint32_t role_feature(enum balloon_role role)
{
    static const uint32_t features[BALLOON_ROLES] = {
        [BALLOON_STATISTICS_QUEUE] = 1u << VIRTIO_BALLOON_F_STATS_VQ,
        [BALLOON_HINTING] = 1u << VIRTIO_BALLOON_F_FREE_PAGE_HINT,
        [BALLOON_REPORTING] = 1u << VIRTIO_BALLOON_F_REPORTING,
    };

    return features[role];
}

/* --- Pages --- */

static int compare_pages(const void *one, const void *other)
{
    uint32_t a, b;

    memcpy(&a, one, sizeof(a));
    memcpy(&b, other, sizeof(b));
    return a < b ? -1 : a > b;
}

/* A stretch may reach from one region of memory into the next, or have a page that is none. */
static void release_pages(struct balloon *balloon, uint64_t first, uint64_t count)
{
    const struct guest_memory *memory = balloon->device.memory;
    const uint64_t page = 1u << BALLOON_PAGE_SHIFT;

    if (guest_memory_release(memory, first * page, count * page, GUEST_RELEASE_ALL))
        return;
    for (uint64_t i = 0; i < count; i++)
        if (!guest_memory_release(memory, (first + i) * page, page, GUEST_RELEASE_ALL))
            METRIC_INCREMENT(balloon.event_fails);
}

/* The guest names single pages, in no order; neighbours go in one call. */
static void inflate(struct balloon *balloon, const struct virtqueue_chain *chain)
{
    uint32_t pages[REQUEST_PAGES_MAX];
    size_t count = virtqueue_chain_read(chain, 0, pages, sizeof(pages)) / sizeof(pages[0]);

    METRIC_INCREMENT(balloon.inflate_count);
    if (chain->readable_bytes > sizeof(pages) || chain->readable_bytes % sizeof(pages[0]) != 0)
        METRIC_INCREMENT(balloon.event_fails);
    qsort(pages, count, sizeof(pages[0]), compare_pages);
    for (size_t i = 0, next; i < count; i = next) {
        next = i + 1;
        while (next < count && pages[next] - pages[next - 1] <= 1)
            next++;
        release_pages(balloon, pages[i], (uint64_t)pages[next - 1] - pages[i] + 1);
    }
}

uint64_t balloon_release_buffers(struct balloon *balloon, const struct virtqueue_chain *chain, uint64_t *fails)
{
    const struct guest_memory *memory = balloon->device.memory;
    enum guest_release what = balloon->device.prompt_queues != 0 ? GUEST_RELEASE_BUT_FILES : GUEST_RELEASE_ALL;
    uint64_t freed = 0;

    for (size_t i = chain->readable_count; i < (size_t)chain->readable_count + chain->writable_count; i++) {
        uint64_t gpa;

        if (guest_memory_gpa(memory, chain->iov[i].iov_base, &gpa) &&
            guest_memory_release(memory, gpa, chain->iov[i].iov_len, what))
            freed += chain->iov[i].iov_len;
        else
            (*fails)++;
    }
    return freed;
}

static void report(struct balloon *balloon, const struct virtqueue_chain *chain)
{
    uint64_t fails = 0;

    METRIC_INCREMENT(balloon.free_page_report_count);
    METRIC_ADD(balloon.free_page_report_freed, balloon_release_buffers(balloon, chain, &fails));
    METRIC_ADD(balloon.free_page_report_fails, fails);
}

/* --- Statistics: the guest hands a buffer in; when it gets it back it fills it anew, and hands it in again --- */

static const struct {
    uint16_t tag;
    enum balloon_statistic statistic;
} statistic_tags[] = {
    {VIRTIO_BALLOON_S_SWAP_IN, BALLOON_SWAP_IN},
    {VIRTIO_BALLOON_S_SWAP_OUT, BALLOON_SWAP_OUT},
    {VIRTIO_BALLOON_S_MAJFLT, BALLOON_MAJOR_FAULTS},
    {VIRTIO_BALLOON_S_MINFLT, BALLOON_MINOR_FAULTS},
    {VIRTIO_BALLOON_S_MEMFREE, BALLOON_FREE_MEMORY},
    {VIRTIO_BALLOON_S_MEMTOT, BALLOON_TOTAL_MEMORY},
    {VIRTIO_BALLOON_S_AVAIL, BALLOON_AVAILABLE_MEMORY},
    {VIRTIO_BALLOON_S_CACHES, BALLOON_DISK_CACHES},
    {VIRTIO_BALLOON_S_HTLB_PGALLOC, BALLOON_HUGETLB_ALLOCATIONS},
    {VIRTIO_BALLOON_S_HTLB_PGFAIL, BALLOON_HUGETLB_FAILURES},
    /* Since Linux 6.12, later than the headers of many hosts. */
    {10, BALLOON_OOM_KILL},
    {11, BALLOON_ALLOC_STALL},
    {12, BALLOON_ASYNC_SCAN},
    {13, BALLOON_DIRECT_SCAN},
    {14, BALLOON_ASYNC_RECLAIM},
    {15, BALLOON_DIRECT_RECLAIM},
};

struct statistic {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

static void statistic_set(struct balloon *balloon, const struct statistic *from)
{
    for (size_t i = 0; i < array_length(statistic_tags); i++) {
        if (statistic_tags[i].tag != from->tag)
            continue;
        balloon->statistics[statistic_tags[i].statistic] = from->value;
        balloon->statistic_given[statistic_tags[i].statistic] = true;
    }
}

static void statistics_return_buffer(struct balloon *balloon)
{
    if (!balloon->has_buffer)
        return;
    balloon->has_buffer = false;
    virtqueue_push(&balloon->queues[balloon->buffer_queue], balloon->buffer_head, 0);
    virtio_device_signal(&balloon->device, balloon->buffer_queue);
}

/* The first buffer after a reset holds what the guest found at that moment, too. */
static void statistics_take(struct balloon *balloon, unsigned queue, const struct virtqueue_chain *chain)
{
    struct statistic all[REQUEST_STATISTICS_MAX];
    size_t length = virtqueue_chain_read(chain, 0, all, sizeof(all));

    METRIC_INCREMENT(balloon.stats_updates_count);
    if (length % sizeof(all[0]) != 0 || chain->readable_bytes > sizeof(all))
        METRIC_INCREMENT(balloon.stats_update_fails);
    for (size_t i = 0; i < length / sizeof(all[0]); i++)
        statistic_set(balloon, &all[i]);

    /* One buffer is kept. */
    statistics_return_buffer(balloon);
    balloon->has_buffer = true;
    balloon->buffer_queue = queue;
    balloon->buffer_head = chain->head;
    if (balloon->poll_waits) {
        balloon->poll_waits = false;
        statistics_return_buffer(balloon);
    }
}

static bool is_running(const struct balloon *balloon)
{
    const struct virtio_device *device = &balloon->device;

    return device->active && !device->failed && !device->paused;
}

static void poll_set(struct balloon *balloon)
{
    if (balloon->interval_s > 0 && is_running(balloon))
        event_timer_set(balloon->device.loop, &balloon->poll_timer,
                        clock_monotonic_us() + (uint64_t)balloon->interval_s * 1000000);
}

static void poll_expired(struct event_timer *timer)
{
    struct balloon *balloon = container_of(timer, struct balloon, poll_timer);

    statistics_return_buffer(balloon);
    poll_set(balloon);
}

/* --- Queues --- */

static void serve(struct balloon *balloon, unsigned index, const struct virtqueue_chain *chain)
{
    switch (balloon->roles[index]) {
    case BALLOON_INFLATE:
        inflate(balloon, chain);
        break;
    case BALLOON_STATISTICS_QUEUE:
        statistics_take(balloon, index, chain);
        return;
    case BALLOON_HINTING:
        balloon_hinting_serve(balloon, chain);
        break;
    case BALLOON_REPORTING:
        report(balloon, chain);
        break;
    case BALLOON_DEFLATE:
    case BALLOON_ROLES:
        METRIC_INCREMENT(balloon.deflate_count);
        break;
    }
    virtqueue_push(&balloon->queues[index], chain->head, 0);
}

/* Returns true when the queue has more than a turn's worth. A guest that shall wait for us must notify each time. */
static bool serve_queue(struct balloon *balloon, unsigned index)
{
    struct virtqueue *queue = &balloon->queues[index];
    struct virtqueue_chain chain;
    unsigned served = 0;

    if (!virtio_device_is_prompt(&balloon->device, index))
        virtqueue_disarm(queue);
    while (served < TURN) {
        enum virtqueue_result result = virtqueue_pop(queue, &chain);

        if (result == VIRTQUEUE_BROKEN) {
            METRIC_INCREMENT(balloon.event_fails);
            virtio_device_fail(&balloon->device, "a queue breaks the rules");
            return false;
        }
        if (result == VIRTQUEUE_CHAIN) {
            serve(balloon, index, &chain);
            served++;
        } else if (!virtqueue_arm(queue)) {
            break;
        }
    }
    virtio_device_signal(&balloon->device, index);
    return served == TURN;
}

/* The rest of the queues has to wait for the others on the event loop. */
static void serve_later(struct balloon *balloon)
{
    if (is_running(balloon))
        event_timer_set(balloon->device.loop, &balloon->turn_timer, 0);
}

static void serve_all(struct balloon *balloon)
{
    bool more = false;

    for (unsigned i = 0; i < balloon->device.queue_count && is_running(balloon); i++)
        if (balloon->queues[i].ready)
            more |= serve_queue(balloon, i);
    if (more)
        serve_later(balloon);
}

static void turn_expired(struct event_timer *timer)
{
    serve_all(container_of(timer, struct balloon, turn_timer));
}

/* A driver may have put something into a queue by now: Linux does so with its buffer for statistics. */
static bool balloon_activate(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);
    unsigned queue = 0;

    for (enum balloon_role role = 0; role < BALLOON_ROLES; role++) {
        uint32_t feature = role_feature(role);

        if (feature == 0 || (device->driver_features & feature) != 0)
            balloon->roles[queue++] = role;
    }
    /* Queues that no feature stands for: what comes there goes back unread. */
    while (queue < BALLOON_ROLES)
        balloon->roles[queue++] = BALLOON_ROLES;
    if (!balloon->queues[0].ready || !balloon->queues[1].ready) {
        METRIC_INCREMENT(balloon.activate_fails);
        return false;
    }
    if (balloon->interval_s > 0)
        event_timer_set(device->loop, &balloon->poll_timer,
                        clock_monotonic_us() + (uint64_t)balloon->interval_s * 1000000);
    event_timer_set(device->loop, &balloon->turn_timer, 0);
    return true;
}

/* That queue alone: this may be a vCPU's thread (prompt_queues), which must not do what inflating takes. */
static void balloon_notify(struct virtio_device *device, unsigned index)
{
    struct balloon *balloon = balloon_of(device);

    if (is_running(balloon) && serve_queue(balloon, index))
        serve_later(balloon);
}

static void balloon_pause(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);

    event_timer_cancel(&balloon->turn_timer);
    event_timer_cancel(&balloon->poll_timer);
}

static void balloon_resume(struct virtio_device *device)
{
    poll_set(balloon_of(device));
    serve_all(balloon_of(device));
}

static void balloon_reset(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);

    balloon_pause(device);
    balloon->has_buffer = balloon->poll_waits = false;
    balloon->actual_pages = 0;
    balloon_hinting_reset(balloon);
}

static void balloon_destroy(struct virtio_device *device)
{
    balloon_pause(device);
    free(balloon_of(device));
}

/* --- Config space --- */

static void balloon_config_read(struct virtio_device *device, uint32_t offset, uint8_t *data, uint32_t length)
{
    const struct balloon *balloon = balloon_of(device);
    struct virtio_balloon_config config = {
        .num_pages = balloon->target_pages,
        .actual = balloon->actual_pages,
        .free_page_hint_cmd_id = balloon->hints.host_cmd,
    };

    virtio_config_copy(&config, sizeof(config), offset, data, length);
}

/* The guest says how large the balloon is: a number for the statistics, nothing more. */
static void balloon_config_write(struct virtio_device *device, uint32_t offset, const uint8_t *data, uint32_t length)
{
    struct balloon *balloon = balloon_of(device);

    if (offset == offsetof(struct virtio_balloon_config, actual) && length == sizeof(balloon->actual_pages))
        memcpy(&balloon->actual_pages, data, length);
}

static const struct virtio_ops balloon_ops = {
    .type = VIRTIO_ID_BALLOON,
    .name = "balloon",
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
    .activate = balloon_activate,
    .notify = balloon_notify,
    .reset = balloon_reset,
    .pause = balloon_pause,
    .resume = balloon_resume,
    .holds = virtio_device_holds_nothing,
    .destroy = balloon_destroy,
};

/* --- What the host asks for --- */

void virtio_balloon_resize(struct virtio_device *device, uint32_t amount_mib)
{
    balloon_of(device)->target_pages = amount_mib * BALLOON_PAGES_A_MIB;
    virtio_device_config_changed(device);
}

void virtio_balloon_poll(struct virtio_device *device, uint32_t interval_s)
{
    struct balloon *balloon = balloon_of(device);

    balloon->interval_s = interval_s;
    event_timer_cancel(&balloon->poll_timer);
    if (!is_running(balloon))
        return;
    balloon->poll_waits = !balloon->has_buffer;
    statistics_return_buffer(balloon);
    poll_set(balloon);
}

void virtio_balloon_statistics(const struct virtio_device *device, struct balloon_statistics *statistics)
{
    const struct balloon *balloon = balloon_of(device);

    statistics->target_pages = balloon->target_pages;
    statistics->actual_pages = balloon->actual_pages;
    statistics->target_mib = balloon->target_pages / BALLOON_PAGES_A_MIB;
    statistics->actual_mib = balloon->actual_pages / BALLOON_PAGES_A_MIB;
    memcpy(statistics->value, balloon->statistics, sizeof(statistics->value));
    memcpy(statistics->given, balloon->statistic_given, sizeof(statistics->given));
}

static unsigned queue_count(uint64_t features)
{
    unsigned count = 0;

    for (enum balloon_role role = 0; role < BALLOON_ROLES; role++)
        count += role_feature(role) == 0 || (features & role_feature(role)) != 0;
    return count;
}

struct error *virtio_balloon_new(const struct balloon_config *config, struct event_loop *loop,
                                 struct virtio_device **device)
{
    struct balloon *balloon = calloc(1, sizeof(*balloon));

    (void)loop;
    if (balloon == NULL)
        return error_errno(ENOMEM, "cannot make the balloon device");
    for (size_t i = 0; i < BALLOON_ROLES; i++)
        balloon->queues[i].size_max = QUEUE_SIZE;
    balloon->turn_timer.expired = turn_expired;
    balloon->poll_timer.expired = poll_expired;
    balloon->target_pages = config->amount_mib * BALLOON_PAGES_A_MIB;
    balloon->interval_s = config->stats_polling_interval_s;
    balloon->device = (struct virtio_device){
        .ops = &balloon_ops,
        .id = "balloon",
        .features = (config->deflate_on_oom ? 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM : 0) |
                    (config->stats_polling_interval_s > 0 ? 1ull << VIRTIO_BALLOON_F_STATS_VQ : 0) |
                    (config->free_page_hinting ? 1ull << VIRTIO_BALLOON_F_FREE_PAGE_HINT : 0) |
                    (config->free_page_reporting ? 1ull << VIRTIO_BALLOON_F_REPORTING : 0),
        .queues = balloon->queues,
        .prompt_queues = config->free_page_hinting ? BALLOON_PROMPT_QUEUES : 0,
    };
    balloon->device.queue_count = queue_count(balloon->device.features);
    *device = &balloon->device;
    return NULL;
}
