#include "vmm/arch/x86_64/image.h"

#include "vmm/base/checked.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096ull

struct error *image_open(struct image *image, int fd, const char *path)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_errno(errno, "\"%s\"", path);
    if (!S_ISREG(status.st_mode))
        return error_new(ERROR_INPUT, "\"%s\" is %s, expected a regular file", path,
                         S_ISDIR(status.st_mode) ? "a directory" : "a device, socket or FIFO");
    if (status.st_size == 0)
        return error_new(ERROR_INPUT, "\"%s\" is empty", path);
    *image = (struct image){.fd = fd, .path = path, .size = (uint64_t)status.st_size};
    return NULL;
}

struct error *image_read(const struct image *image, uint64_t offset, void *to, size_t length)
{
    size_t done = 0;

    while (done < length) {
        ssize_t got = pread(image->fd, (uint8_t *)to + done, length - done, (off_t)(offset + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(errno, "\"%s\": cannot read", image->path);
        if (got == 0)
            return error_new(ERROR_INPUT, "\"%s\" became shorter than %llu bytes while it was read", image->path,
                             (unsigned long long)image->size);
        done += (size_t)got;
    }
    return NULL;
}

static struct error *map_pages(const struct image *image, uint64_t offset, uint8_t *hva, size_t length)
{
    void *mapped =
        mmap(hva, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, image->fd, (off_t)offset);

    if (mapped == MAP_FAILED) {
        int code = errno;

        guest_pages_keep(hva, length);
        return error_errno(code, "\"%s\": cannot map into guest memory", image->path);
    }
    madvise(hva, length, MADV_DONTDUMP); /* the mapping is a new one: as the rest of guest memory */
    return NULL;
}

struct error *image_load(const struct image *image, const struct guest_memory *memory, const struct image_piece *piece,
                         bool map, size_t *mapped)
{
    uint8_t *hva = guest_memory_at(memory, piece->gpa, piece->size);

    if (hva == NULL)
        return error_new(ERROR_INTERNAL, "\"%s\": nothing but guest memory may be loaded", image->path);

    /* The whole pages in the middle: [head, tail) of the piece. HVAs are page-aligned where GPAs are. */
    uint64_t head = align_up(piece->gpa, PAGE) - piece->gpa;
    uint64_t tail = align_down(piece->gpa + piece->size, PAGE) - piece->gpa;
    bool congruent = (piece->gpa - piece->offset) % PAGE == 0;
    if (!map || !congruent || piece->gpa + piece->size < align_up(piece->gpa, PAGE) || head >= tail)
        return image_read(image, piece->offset, hva, piece->size);

    struct error *error = map_pages(image, piece->offset + head, hva + head, tail - head);
    if (error == NULL)
        error = image_read(image, piece->offset, hva, head);
    if (error == NULL)
        error = image_read(image, piece->offset + tail, hva + tail, piece->size - tail);
    if (error == NULL)
        *mapped += tail - head;
    return error;
}
