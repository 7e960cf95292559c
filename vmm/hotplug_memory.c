#include "vmm/hotplug_memory.h"

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * The numbers of the memslots, after those of files that are memory. A guest that leaves every other block plugged has
 * a mapping for each: it may have so many, and the process keeps room for what it needs itself.
 */
enum { MEMSLOT_FIRST = 512, RUNS_MAX = 8192 };

/* Huge pages fit only where addresses are aligned alike. */
static uint8_t *reserve(uint64_t size, uint64_t align)
{
    uint8_t *found;

    if (size > UINT64_MAX - align)
        return NULL;
    found = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED)
        return NULL;

    uint64_t before = align_up((uintptr_t)found, align) - (uintptr_t)found;
    if (before > 0)
        munmap(found, before);
    if (align > before)
        munmap(found + before + size, align - before);
    return found + before;
}

struct error *hotplug_memory_new(struct hotplug_memory *memory, const struct memory_hotplug_config *config,
                                 uint64_t gpa, enum huge_pages huge_pages, bool shared)
{
    uint64_t size = config->total_size_mib << 20;
    struct error *error = NULL;

    *memory = (struct hotplug_memory){
        .gpa = gpa,
        .size = size,
        .slot_size = config->slot_size_mib << 20,
        .block_size = config->block_size_mib << 20,
        .hva = reserve(size, 2ull << 20),
        .plugged = calloc(config->total_size_mib / config->block_size_mib, sizeof(*memory->plugged)),
        .slot_blocks = calloc(config->total_size_mib / config->slot_size_mib, sizeof(*memory->slot_blocks)),
        .huge_pages = huge_pages,
    };
    if (memory->hva == NULL || memory->plugged == NULL || memory->slot_blocks == NULL)
        error =
            error_errno(ENOMEM, "cannot reserve %llu MiB of address space", (unsigned long long)config->total_size_mib);
    else if (shared)
        error = guest_memory_file_new(size, huge_pages, &memory->shared_fd);
    memory->shared = error == NULL && shared;
    if (error == NULL)
        return NULL;
    hotplug_memory_free(memory);
    return error_wrap(error, "total_size_mib");
}

void hotplug_memory_free(struct hotplug_memory *memory)
{
    if (memory->hva != NULL)
        munmap(memory->hva, memory->size);
    if (memory->shared)
        fd_close(&memory->shared_fd);
    free(memory->plugged);
    free(memory->slot_blocks);
    memset(memory, 0, sizeof(*memory));
}

static uint64_t block_of(const struct hotplug_memory *memory, uint64_t gpa)
{
    return (gpa - memory->gpa) / memory->block_size;
}

bool hotplug_memory_is_range(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    return length > 0 && gpa >= memory->gpa && range_within(gpa - memory->gpa, length, memory->size) &&
           (gpa - memory->gpa) % memory->block_size == 0 && length % memory->block_size == 0;
}

enum hotplug_state hotplug_memory_state(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    uint64_t first = block_of(memory, gpa), count = length / memory->block_size;

    for (uint64_t i = 1; i < count; i++)
        if (memory->plugged[first + i] != memory->plugged[first])
            return HOTPLUG_MIXED;
    return memory->plugged[first] ? HOTPLUG_PLUGGED : HOTPLUG_UNPLUGGED;
}

void *hotplug_memory_at(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    if (gpa < memory->gpa || !range_within(gpa - memory->gpa, length, memory->size) ||
        gpa - memory->gpa == memory->size)
        return NULL;

    uint64_t last = block_of(memory, gpa + (length > 0 ? length - 1 : 0));
    for (uint64_t block = block_of(memory, gpa); block <= last; block++)
        if (!memory->plugged[block])
            return NULL;
    return memory->hva + (gpa - memory->gpa);
}

/* --- Plugging --- */

/* Gives the host what the file has there. */
static bool file_empty(const struct hotplug_memory *memory, uint64_t offset, uint64_t length)
{
    return fallocate(memory->shared_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) == 0;
}

/* Another process may have written there since it was taken away. */
static bool pages_map(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    const uint64_t offset = gpa - memory->gpa;

    if (!memory->shared)
        return guest_pages_map(memory->hva + offset, length, memory->huge_pages);
    return file_empty(memory, offset, length) &&
           guest_pages_map_shared(memory->hva + offset, length, memory->huge_pages, memory->shared_fd, offset);
}

static bool pages_give(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    if (pages_map(memory, gpa, length))
        return true;
    guest_pages_keep(memory->hva + (gpa - memory->gpa), length);
    return false;
}

/* Should the file keep them, they are out of reach nevertheless, and gone when they come again. */
static bool pages_take(const struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    const uint64_t offset = gpa - memory->gpa;

    if (!guest_pages_forbid(memory->hva + offset, length))
        return false;
    if (memory->shared && !file_empty(memory, offset, length))
        log_warning("hotplug/memory: what was unplugged stays in use: %s", strerror(errno));
    return true;
}

static bool memslot_set(const struct hotplug_memory *memory, uint64_t slot, bool there)
{
    struct guest_region region = {
        .gpa = memory->gpa + slot * memory->slot_size,
        .size = there ? memory->slot_size : 0,
        .hva = memory->hva + slot * memory->slot_size,
    };

    return memory->memslot_set(memory->owner, (uint32_t)(MEMSLOT_FIRST + slot), &region);
}

/* How many blocks of [gpa, end) are in `slot`. */
static uint32_t blocks_in_slot(const struct hotplug_memory *memory, uint64_t slot, uint64_t gpa, uint64_t end)
{
    uint64_t start = memory->gpa + slot * memory->slot_size;

    if (gpa > start)
        start = gpa;
    if (end > memory->gpa + (slot + 1) * memory->slot_size)
        end = memory->gpa + (slot + 1) * memory->slot_size;
    return (uint32_t)((end - start) / memory->block_size);
}

static void remove_empty_slots(struct hotplug_memory *memory, uint64_t first, uint64_t last)
{
    for (uint64_t slot = first; slot <= last; slot++)
        if (memory->slot_blocks[slot] == 0)
            memslot_set(memory, slot, false);
}

static bool add_empty_slots(struct hotplug_memory *memory, uint64_t first, uint64_t last)
{
    for (uint64_t slot = first; slot <= last; slot++) {
        if (memory->slot_blocks[slot] > 0 || memslot_set(memory, slot, true))
            continue;
        if (slot > first)
            remove_empty_slots(memory, first, slot - 1);
        return false;
    }
    return true;
}

/* How many of the blocks right before and right after the range are plugged. */
static uint32_t plugged_neighbours(const struct hotplug_memory *memory, uint64_t first, uint64_t count)
{
    uint32_t before = first > 0 && memory->plugged[first - 1];
    uint32_t after = first + count < memory->size / memory->block_size && memory->plugged[first + count];

    return before + after;
}

static void account(struct hotplug_memory *memory, uint64_t gpa, uint64_t length, bool plugged)
{
    uint64_t first = block_of(memory, gpa), count = length / memory->block_size;
    uint32_t neighbours = plugged_neighbours(memory, first, count);
    uint64_t last_slot = (gpa - memory->gpa + length - 1) / memory->slot_size;

    memory->runs = plugged ? memory->runs + 1 - neighbours : memory->runs - 1 + neighbours;
    memory->plugged_size = plugged ? memory->plugged_size + length : memory->plugged_size - length;
    memset(memory->plugged + first, plugged, count);
    for (uint64_t slot = (gpa - memory->gpa) / memory->slot_size; slot <= last_slot; slot++) {
        uint32_t blocks = blocks_in_slot(memory, slot, gpa, gpa + length);

        memory->slot_blocks[slot] = plugged ? memory->slot_blocks[slot] + blocks : memory->slot_blocks[slot] - blocks;
    }
}

bool hotplug_memory_plug(struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    uint64_t first_slot = (gpa - memory->gpa) / memory->slot_size;
    uint64_t last_slot = (gpa - memory->gpa + length - 1) / memory->slot_size;

    if (memory->runs >= RUNS_MAX)
        return false;
    if (!pages_give(memory, gpa, length))
        return false;
    if (!add_empty_slots(memory, first_slot, last_slot)) {
        pages_take(memory, gpa, length);
        return false;
    }
    account(memory, gpa, length, true);
    return true;
}

/* The memory goes first: should its slot be left with nothing behind it, the guest still cannot have it. */
bool hotplug_memory_unplug(struct hotplug_memory *memory, uint64_t gpa, uint64_t length)
{
    if (memory->runs >= RUNS_MAX && plugged_neighbours(memory, block_of(memory, gpa), length / memory->block_size) == 2)
        return false;
    if (!pages_take(memory, gpa, length))
        return false;
    account(memory, gpa, length, false);
    remove_empty_slots(memory, (gpa - memory->gpa) / memory->slot_size,
                       (gpa - memory->gpa + length - 1) / memory->slot_size);
    return true;
}
