/* What fake_backend.c, the protocol, and fake_backend_devices.c, what requests do, have of each other. */
#pragma once

#include "tests/machine/fake_backend.h"
#include "vmm/backend/vhost_user_message.h"

#include <linux/virtio_ring.h>
#include <stdbool.h>

enum { BACKEND_QUEUES_MAX = 9 };

/* Requests in flight, as the specification lays them out for split virtqueues. */
struct inflight_descriptor {
    uint8_t in_flight;
    uint8_t padding[5];
    uint16_t next;
    uint64_t counter;
};
struct inflight_queue {
    uint64_t features;
    uint16_t version;
    uint16_t descriptor_count;
    uint16_t last_batch_head;
    uint16_t used_index;
    struct inflight_descriptor descriptors[256];
};

struct backend_queue {
    bool running; /* it has a kick and is enabled */
    bool enabled;
    uint32_t size;
    uint16_t next;
    int kick, call;
    struct vring_desc *descriptors;
    struct vring_avail *available;
    struct vring_used *used;
    struct inflight_queue *in_flight; /* NULL: nobody counts */
};

struct backend {
    enum backend_device device;
    enum backend_behaviour behaviour;
    int disk;
    unsigned served; /* requests so far, or frames */
    struct backend_queue queues[BACKEND_QUEUES_MAX];
};
extern struct backend backend;

/* By the guest's addresses, or by those of the front end. Ends the process when there is no such address. */
void *backend_memory(uint64_t address, bool is_hva);

/* The next request, or false. */
bool backend_take(struct backend_queue *queue, uint16_t *head);
void backend_give(struct backend_queue *queue, uint16_t head, uint32_t written);

/* Does what is in the queue. */
void backend_serve(unsigned index);
/* Does a request that a back end before this one had taken. */
void backend_redo(unsigned index, uint16_t head);
/* Fills in the config space; returns the virtio features beyond the common ones. */
uint64_t backend_features(void);
void backend_config(uint8_t *bytes, uint32_t size);
