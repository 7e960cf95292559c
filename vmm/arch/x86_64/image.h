/*
 * Kernel and initrd files: what they must be, and getting parts of them into guest memory. Error messages start with
 * the file's path; the caller knows which field of the API it came from.
 */
#pragma once

#include "vmm/arch/arch.h"

struct image {
    int fd;
    const char *path; /* for messages */
    uint64_t size;
};

/* `size` bytes of the file from `offset` on, for guest memory at `gpa`. */
struct image_piece {
    uint64_t offset;
    uint64_t gpa;
    uint64_t size;
    bool read; /* never mapped */
};

/* What loading a kernel comes to, once all of the file has been found right. */
enum { IMAGE_PIECES_MAX = 64 };
struct image_plan {
    struct image_piece pieces[IMAGE_PIECES_MAX];
    size_t count;
};

/* Refuses what is not a regular file, or empty. */
struct error *image_open(struct image *image, int fd, const char *path);

/* Reads all of [offset, offset + length); ERROR_INPUT when the file has become shorter. */
struct error *image_read(const struct image *image, uint64_t offset, void *to, size_t length);

/*
 * Brings the piece, which lies within the file and within one region of guest memory, to its place. With `map`, its
 * whole pages are mapped when offset and gpa are congruent modulo the page size; `*mapped` grows by their size. What
 * shares a page with something else (the first and last bytes) is read: guest memory around the piece keeps its zeros.
 */
struct error *image_load(const struct image *image, const struct guest_memory *memory, const struct image_piece *piece,
                         bool map, size_t *mapped);

/* The two kinds of kernel. Both fill `kernel` and `plan`, and touch no guest memory. */
bool elf_recognise(const uint8_t *start, size_t length);
struct error *elf_parse(const struct image *image, const struct guest_memory *memory, struct arch_kernel *kernel,
                        struct image_plan *plan);
bool bzimage_recognise(const uint8_t *start, size_t length);
struct error *bzimage_parse(const struct image *image, const struct guest_memory *memory, struct arch_kernel *kernel,
                            struct image_plan *plan);
