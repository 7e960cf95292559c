/* Giving guest memory back to the host, and taking it away from the guest: balloon, free pages, hot-plugged memory. */
#include "vmm/guest_memory.h"

#include "vmm/base/checked.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_SIZE = 4096 };
#define HUGE_PAGE_SIZE (2ull << 20)

static bool pages_map(uint8_t *hva, uint64_t length, enum huge_pages huge_pages, int flags, int fd, uint64_t offset)
{
    /* With it a shortage of huge pages were a SIGBUS under the guest. */
    if (huge_pages != HUGE_PAGES_2M)
        flags |= MAP_NORESERVE;
    if (mmap(hva, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
        return false;
    madvise(hva, length, MADV_DONTDUMP);
    if (huge_pages == HUGE_PAGES_TRANSPARENT)
        madvise(hva, length, MADV_HUGEPAGE);
    return true;
}

bool guest_pages_map(uint8_t *hva, uint64_t length, enum huge_pages huge_pages)
{
    const int huge = huge_pages == HUGE_PAGES_2M ? MAP_HUGETLB | (21 << MAP_HUGE_SHIFT) : 0;

    return pages_map(hva, length, huge_pages, MAP_PRIVATE | MAP_ANONYMOUS | huge, -1, 0);
}

bool guest_pages_map_shared(uint8_t *hva, uint64_t length, enum huge_pages huge_pages, int fd, uint64_t offset)
{
    return pages_map(hva, length, huge_pages, MAP_SHARED, fd, offset);
}

bool guest_pages_forbid(uint8_t *hva, uint64_t length)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

    return mmap(hva, length, PROT_NONE, flags, -1, 0) != MAP_FAILED;
}

void guest_pages_keep(uint8_t *hva, uint64_t length)
{
    if (!guest_pages_forbid(hva, length))
        abort();
}

/*
 * A process has room for some ten thousand mappings (vm.max_map_count), and a guest that gives up every other page of a
 * file takes two for each. So a file has so many holes at most: in a large one they are not worth a mapping each.
 */
enum { HOLES_MAX = 8192 };

static bool is_worth_a_hole(const struct guest_range *file, uint64_t length)
{
    return length >= align_up((file->end - file->gpa) / HOLES_MAX, PAGE_SIZE);
}

/*
 * Where a file is mapped, MADV_DONTNEED would bring the file's bytes back: anonymous memory goes over them. Else the
 * pages stay, as zeros.
 */
static void release_file_pages(const struct guest_range *file, uint8_t *hva, uint64_t length,
                               enum huge_pages huge_pages)
{
    if (!is_worth_a_hole(file, length) || !guest_pages_map(hva, length, huge_pages))
        memset(hva, 0, length);
}

/* How far from `gpa` on, up to `end`, pages are all one file's or none's. Shared memory has no file's but its own. */
static uint64_t same_kind(const struct guest_memory *memory, uint64_t gpa, uint64_t end,
                          const struct guest_range **file)
{
    *file = NULL;
    for (size_t i = 0; i < GUEST_FILES && !memory->shared; i++) {
        const struct guest_range *range = &memory->files[i];

        if (gpa >= range->gpa && gpa < range->end) {
            *file = range;
            return range->end < end ? range->end : end;
        }
        if (gpa < range->gpa && range->gpa < end)
            end = range->gpa;
    }
    return end;
}

bool guest_memory_release(const struct guest_memory *memory, uint64_t gpa, uint64_t length, enum guest_release what)
{
    uint64_t unit = memory->huge_pages == HUGE_PAGES_2M ? HUGE_PAGE_SIZE : PAGE_SIZE;
    uint8_t *start = guest_memory_at(memory, gpa, length);

    if (start == NULL)
        return false;

    uint64_t end = align_down(gpa + length, unit);
    for (uint64_t at = align_up(gpa, unit), next; at < end; at = next) {
        const struct guest_range *file;
        uint8_t *hva = start + (at - gpa);

        next = same_kind(memory, at, end, &file);
        if (file != NULL && what == GUEST_RELEASE_ALL)
            release_file_pages(file, hva, next - at, memory->huge_pages);
        else if (file != NULL)
            continue;
        /* What others map as well is a hole in its file then, for them, too. */
        else if (madvise(hva, next - at, memory->shared ? MADV_REMOVE : MADV_DONTNEED) < 0)
            return false;
    }
    return true;
}
