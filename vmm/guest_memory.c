#include "vmm/guest_memory.h"

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/hotplug_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE_SIZE (2ull << 20)

/*
 * Address space whose start lies on a huge page's, as guest-physical addresses do: only then can KVM give the guest a
 * huge page where the host has one, be it by the caller's wish or by the host's policy. One fault in 512 is left, and a
 * Linux guest boots in two thirds of the instructions. NULL when there is none.
 */
static uint8_t *region_place(uint64_t size)
{
    uint64_t room;

    if (!checked_add(size, HUGE_PAGE_SIZE, &room))
        return NULL;

    uint8_t *found = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED)
        return NULL;

    uint8_t *place = found + (align_up((uintptr_t)found, HUGE_PAGE_SIZE) - (uintptr_t)found);
    size_t before = (size_t)(place - found);
    size_t after = (size_t)(HUGE_PAGE_SIZE - before);
    if (before > 0)
        munmap(found, before);
    if (after > 0)
        munmap(place + size, after);
    return place;
}

/* Maps fresh memory, or that of a shared region, at `place` (MAP_FIXED), or anywhere when that is NULL. */
static struct error *region_map(const struct guest_memory *memory, const struct guest_region *region,
                                enum huge_pages huge_pages, uint8_t *place, uint8_t **hva)
{
    int flags = (memory->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) | MAP_NORESERVE;
    uint64_t size = region->size;

    if (place != NULL)
        flags |= MAP_FIXED;
    /* Without MAP_NORESERVE the pages are reserved now: a shortage is an error here, not a SIGBUS under the guest. */
    if (huge_pages == HUGE_PAGES_2M)
        flags = (flags & ~MAP_NORESERVE) | (memory->shared ? 0 : MAP_HUGETLB | (21 << MAP_HUGE_SHIFT));

    void *mapped = mmap(place, size, PROT_READ | PROT_WRITE, flags, memory->shared ? memory->shared_fd : -1,
                        memory->shared ? (off_t)region->shared_offset : 0);
    if (mapped == MAP_FAILED) {
        int code = errno;

        if (place != NULL)
            guest_pages_keep(place, size);
        return error_errno(
            code, "mem_size_mib: cannot map %llu MiB of guest memory%s", (unsigned long long)size >> 20,
            huge_pages == HUGE_PAGES_2M ? " from 2M huge pages (are enough in /proc/sys/vm/nr_hugepages?)" : "");
    }

    /* Advice only: a host without the feature still runs the guest. */
    madvise(mapped, size, MADV_DONTDUMP);
    if (huge_pages == HUGE_PAGES_TRANSPARENT)
        madvise(mapped, size, MADV_HUGEPAGE);
    *hva = mapped;
    return NULL;
}

static struct error *region_new(const struct guest_memory *memory, struct guest_region *region,
                                enum huge_pages huge_pages)
{
    uint8_t *place = region_place(region->size);
    struct error *error = region_map(memory, region, huge_pages, place, &region->hva);

    if (error != NULL && place != NULL)
        munmap(place, region->size);
    return error;
}

static struct error *regions_map(struct guest_memory *memory, enum huge_pages huge_pages)
{
    memory->huge_pages = huge_pages;
    for (size_t i = 0; i < memory->count; i++)
        memory->regions[i].hva = NULL;
    for (size_t i = 0; i < memory->count; i++) {
        struct error *error = region_new(memory, &memory->regions[i], huge_pages);

        if (error != NULL) {
            guest_memory_unmap(memory);
            return error;
        }
    }
    return NULL;
}

struct error *guest_memory_map(struct guest_memory *memory, enum huge_pages huge_pages)
{
    memory->shared = false;
    return regions_map(memory, huge_pages);
}

/*
 * The file's size is sealed before anybody else has it: who could shorten it would take memory from under the guest's
 * feet, and from under ours.
 */
struct error *guest_memory_file_new(uint64_t size, enum huge_pages huge_pages, int *fd)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge_pages == HUGE_PAGES_2M ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    cleanup_fd int made = memfd_create("guest memory", flags);

    if (made < 0 || ftruncate(made, (off_t)size) < 0 || fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return error_errno(errno, "cannot make %llu MiB of shared guest memory", (unsigned long long)size >> 20);
    *fd = take_fd(&made);
    return NULL;
}

struct error *guest_memory_map_shared(struct guest_memory *memory, enum huge_pages huge_pages)
{
    uint64_t size = 0;
    struct error *error;

    for (size_t i = 0; i < memory->count; i++) {
        memory->regions[i].shared_offset = size;
        size += memory->regions[i].size;
    }
    error = guest_memory_file_new(size, huge_pages, &memory->shared_fd);
    if (error != NULL) {
        memory->count = 0;
        return error_wrap(error, "mem_size_mib");
    }
    memory->shared = true;
    return regions_map(memory, huge_pages);
}

struct error *guest_memory_clear(const struct guest_memory *memory, enum huge_pages huge_pages)
{
    if (memory->shared) {
        off_t size = (off_t)guest_memory_size(memory);

        if (fallocate(memory->shared_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) < 0)
            return error_errno(errno, "cannot clear the guest's memory");
        return NULL;
    }
    for (size_t i = 0; i < memory->count; i++) {
        const struct guest_region *region = &memory->regions[i];
        uint8_t *hva;
        struct error *error = region_map(memory, region, huge_pages, region->hva, &hva);

        if (error != NULL)
            return error;
    }
    return NULL;
}

void guest_memory_unmap(struct guest_memory *memory)
{
    for (size_t i = 0; i < memory->count; i++) {
        if (memory->regions[i].hva != NULL)
            munmap(memory->regions[i].hva, memory->regions[i].size);
        memory->regions[i].hva = NULL;
    }
    memory->count = 0;
    if (memory->shared)
        fd_close(&memory->shared_fd);
    memory->shared = false;
    memset(memory->files, 0, sizeof(memory->files));
}

void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t length)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct guest_region *region = &memory->regions[i];

        if (gpa >= region->gpa && range_within(gpa - region->gpa, length, region->size))
            return region->hva + (gpa - region->gpa);
    }
    return memory->hotplug != NULL ? hotplug_memory_at(memory->hotplug, gpa, length) : NULL;
}

static bool gpa_within(const uint8_t *hva, const uint8_t *start, uint64_t size, uint64_t start_gpa, uint64_t *gpa)
{
    if ((uintptr_t)hva - (uintptr_t)start >= size)
        return false;
    *gpa = start_gpa + ((uintptr_t)hva - (uintptr_t)start);
    return true;
}

bool guest_memory_gpa(const struct guest_memory *memory, const void *hva, uint64_t *gpa)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct guest_region *region = &memory->regions[i];

        if (gpa_within(hva, region->hva, region->size, region->gpa, gpa))
            return true;
    }
    return memory->hotplug != NULL &&
           gpa_within(hva, memory->hotplug->hva, memory->hotplug->size, memory->hotplug->gpa, gpa);
}

bool guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t length)
{
    const void *from = guest_memory_at(memory, gpa, length);

    if (from == NULL)
        return false;
    memcpy(to, from, length);
    return true;
}

bool guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *from, size_t length)
{
    void *to = guest_memory_at(memory, gpa, length);

    if (to == NULL)
        return false;
    memcpy(to, from, length);
    return true;
}

uint64_t guest_memory_size(const struct guest_memory *memory)
{
    uint64_t size = 0;

    for (size_t i = 0; i < memory->count; i++)
        size += memory->regions[i].size;
    return size;
}
