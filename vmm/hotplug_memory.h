/*
 * Memory that is plugged into a running guest and unplugged again, block by block (virtio-mem). The address space for
 * all of it is reserved; what is not plugged can be touched by nobody here. Another process that shares it maps all of
 * it from the beginning, and reaches what is not plugged as well: what it leaves there is gone when that is plugged. A
 * memslot is there while any block of its part is plugged. Runs with the event loop's lock held.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/config.h"

struct guest_region;

struct hotplug_memory {
    uint64_t gpa;
    uint64_t size;
    uint64_t slot_size;  /* a multiple of block_size */
    uint64_t block_size; /* a power of two */
    uint64_t plugged_size;
    uint8_t *hva;          /* NULL: there is none */
    uint8_t *plugged;      /* 1 for each block that is */
    uint32_t *slot_blocks; /* how many blocks of each slot are */
    uint32_t runs;         /* how many stretches of plugged blocks there are: each is a mapping of the process */
    enum huge_pages huge_pages;
    bool shared;   /* what is plugged is mapped from `shared_fd`, a memfd of `size` bytes; else private */
    int shared_fd; /* of no meaning unless shared */

    /* Sets memslot `slot`, or removes it when the region's size is 0. False when that cannot be. */
    bool (*memslot_set)(void *owner, uint32_t slot, const struct guest_region *region);
    void *owner;
};

/*
 * Reserves address space for `config` at `gpa`, nothing of it plugged; if `shared`, with a file for all of it that can
 * be handed to another process. The caller then sets memslot_set and owner.
 */
struct error *hotplug_memory_new(struct hotplug_memory *memory, const struct memory_hotplug_config *config,
                                 uint64_t gpa, enum huge_pages huge_pages, bool shared);
/* Gives everything back; `memory` is then none. */
void hotplug_memory_free(struct hotplug_memory *memory);

/* Whether [gpa, gpa + length) is some whole blocks of the memory. */
bool hotplug_memory_is_range(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length);

/* Of such a range: are all of its blocks plugged, or none, or some. */
enum hotplug_state { HOTPLUG_PLUGGED, HOTPLUG_UNPLUGGED, HOTPLUG_MIXED };
enum hotplug_state hotplug_memory_state(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length);

/* Such a range, all unplugged (plugged). False when the host refuses: nothing has changed. */
bool hotplug_memory_plug(struct hotplug_memory *memory, uint64_t gpa, uint64_t length);
bool hotplug_memory_unplug(struct hotplug_memory *memory, uint64_t gpa, uint64_t length);

/* For guest_memory_at: the host address of [gpa, gpa + length), or NULL unless all of it is plugged. */
void *hotplug_memory_at(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length);
