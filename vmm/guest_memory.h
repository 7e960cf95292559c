/*
 * Guest memory: the memslots and the one checked way from a guest-physical address to host memory. Everybody who
 * follows an address that a guest chose comes through here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/config.h"

enum { GUEST_REGIONS_MAX = 4 };

/* One memslot: `size` bytes of guest-physical memory from `gpa`, at `hva` in this process. */
struct guest_region {
    uint64_t gpa;
    uint64_t size;
    uint8_t *hva;
    uint64_t shared_offset; /* in the file that others map it from, when it is shared */
};

struct guest_memory {
    struct guest_region regions[GUEST_REGIONS_MAX]; /* by ascending gpa; the index is the memslot number */
    size_t count;
    bool shared;   /* mapped from `shared_fd`, a memfd whose size is sealed; else private to this process */
    int shared_fd; /* of no meaning unless shared */
};

/*
 * Reserves memory for the `count` regions whose gpa and size are filled in (hva is set here): anonymous, private,
 * lazily populated, not executable, not dumped in cores. HUGE_PAGES_2M maps hugetlbfs pages and fails when the host
 * has not enough of them.
 */
struct error *guest_memory_map(struct guest_memory *memory, enum huge_pages huge_pages);
/* The same in memory that can be handed to another process, which then sees all of it. */
struct error *guest_memory_map_shared(struct guest_memory *memory, enum huge_pages huge_pages);
void guest_memory_unmap(struct guest_memory *memory);

/* Fresh zero pages in place of all that was written or mapped into the regions; their hva, hence the memslots, stay. */
struct error *guest_memory_clear(const struct guest_memory *memory, enum huge_pages huge_pages);

/* The host address of [gpa, gpa + length), or NULL unless the whole range lies within one region. */
void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t length);

/* Copies; false (and nothing copied) when the range is not guest memory. */
bool guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t length);
bool guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *from, size_t length);

/* Total bytes of all regions. */
uint64_t guest_memory_size(const struct guest_memory *memory);
