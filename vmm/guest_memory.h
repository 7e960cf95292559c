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

/* [gpa, end) */
struct guest_range {
    uint64_t gpa;
    uint64_t end;
};

struct hotplug_memory;

enum { GUEST_FILES_KERNEL, GUEST_FILES_INITRD, GUEST_FILES };

struct guest_memory {
    struct guest_region regions[GUEST_REGIONS_MAX]; /* by ascending gpa; the index is the memslot number */
    size_t count;
    bool shared;   /* mapped from `shared_fd`, a memfd whose size is sealed; else private to this process */
    int shared_fd; /* of no meaning unless shared */
    enum huge_pages huge_pages;
    struct guest_range files[GUEST_FILES]; /* where pages may be those of a file, mapped privately */
    const struct hotplug_memory *hotplug;  /* more memory, as far as it is plugged; NULL: none */
};

/*
 * Reserves memory for the `count` regions whose gpa and size are filled in (hva is set here): anonymous, private,
 * lazily populated, not executable, not dumped in cores. HUGE_PAGES_2M maps hugetlbfs pages and fails when the host
 * has not enough of them.
 */
struct error *guest_memory_map(struct guest_memory *memory, enum huge_pages huge_pages);
/* The same in memory that can be handed to another process, which then sees all of it. */
struct error *guest_memory_map_shared(struct guest_memory *memory, enum huge_pages huge_pages);
/* A memfd of sealed size for memory that others map. */
struct error *guest_memory_file_new(uint64_t size, enum huge_pages huge_pages, int *fd);
void guest_memory_unmap(struct guest_memory *memory);

/* Fresh zero pages in place of all that was written or mapped into the regions; their hva, hence the memslots, stay. */
struct error *guest_memory_clear(const struct guest_memory *memory, enum huge_pages huge_pages);

/*
 * Gives the whole pages within [gpa, gpa + length) back to the host: the guest finds zeros there, whatever was there
 * before, when it comes again. Pages of 2M only as a whole. With GUEST_RELEASE_BUT_FILES those of a mapped file stay
 * as they are: what a vCPU's thread may do. False when the range is not guest memory, or the host refuses.
 * (guest_memory_release.c)
 */
enum guest_release { GUEST_RELEASE_ALL, GUEST_RELEASE_BUT_FILES };
bool guest_memory_release(const struct guest_memory *memory, uint64_t gpa, uint64_t length, enum guest_release what);

/*
 * Maps fresh pages over [hva, hva + length), or those from `offset` on of a shared file, or pages that nobody may
 * touch: for what is within guest memory.
 */
bool guest_pages_map(uint8_t *hva, uint64_t length, enum huge_pages huge_pages);
bool guest_pages_map_shared(uint8_t *hva, uint64_t length, enum huge_pages huge_pages, int fd, uint64_t offset);
bool guest_pages_forbid(uint8_t *hva, uint64_t length);
/*
 * For after a mapping over [hva, hva + length) that failed: the kernel may have unmapped what was there before it knew,
 * and what this process maps next would come to lie there, within the guest's reach. Forbids the range, or ends the
 * process.
 */
void guest_pages_keep(uint8_t *hva, uint64_t length);

/* The host address of [gpa, gpa + length), or NULL unless the whole range lies within one region. */
void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t length);

/* The other way: what guest_memory_at found at `hva`. */
bool guest_memory_gpa(const struct guest_memory *memory, const void *hva, uint64_t *gpa);

/* Copies; false (and nothing copied) when the range is not guest memory. */
bool guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t length);
bool guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *from, size_t length);

/* Total bytes of all regions. */
uint64_t guest_memory_size(const struct guest_memory *memory);
