/* What the parts of the balloon device share. */
#pragma once

#include "vmm/virtio/devices.h"

enum { BALLOON_PAGE_SHIFT = 12, BALLOON_PAGES_A_MIB = 256 };

/* What a queue is for. Which of them there are, and their numbers, follow from the features agreed. */
enum balloon_role {
    BALLOON_INFLATE,
    BALLOON_DEFLATE,
    BALLOON_STATISTICS_QUEUE,
    BALLOON_HINTING,
    BALLOON_REPORTING,
    BALLOON_ROLES,
};

/* One of these has the hints, when there are hints; which, is known when the driver is ready. */
#define BALLOON_PROMPT_QUEUES (1ull << 2 | 1ull << 3)

/* What is asked for and told about free pages (balloon_hinting.c). */
struct balloon_hints {
    uint32_t host_cmd; /* as the guest reads it: 0 stop, 1 done, else the number of a run */
    uint32_t last_run; /* the number used last */
    uint32_t guest_cmd;
    bool has_guest_cmd;
    bool acknowledge_on_stop;
};

struct balloon {
    struct virtio_device device;
    struct virtqueue queues[BALLOON_ROLES];
    enum balloon_role roles[BALLOON_ROLES]; /* by number of the queue; valid while active */

    uint32_t target_pages;
    uint32_t actual_pages; /* as the guest says */
    struct balloon_hints hints;

    struct event_timer turn_timer; /* goes on where a queue's turn ended */
    struct event_timer poll_timer;
    uint32_t interval_s;
    bool poll_waits; /* for the guest's buffer: it is late */
    bool has_buffer; /* the guest's buffer for statistics is here: its chain's head */
    uint16_t buffer_head;
    unsigned buffer_queue;
    uint64_t statistics[BALLOON_STATISTICS];
    bool statistic_given[BALLOON_STATISTICS];
};

static inline struct balloon *balloon_of(const struct virtio_device *device)
{
    return (struct balloon *)((char *)(uintptr_t)device - offsetof(struct balloon, device));
}

/* Serves a chain of the hinting queue. Releases what it says is free, if that is what was asked for. */
void balloon_hinting_serve(struct balloon *balloon, const struct virtqueue_chain *chain);
/* Forgets what the guest said. */
void balloon_hinting_reset(struct balloon *balloon);

/* Gives the chain's writable buffers back to the host; returns how many bytes, adds to `*fails` what is refused. */
uint64_t balloon_release_buffers(struct balloon *balloon, const struct virtqueue_chain *chain, uint64_t *fails);
