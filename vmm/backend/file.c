#include "vmm/backend/file.h"

#include "vmm/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *file_type_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFCHR:
        return "a character device";
    case S_IFIFO:
        return "a FIFO";
    default:
        return "a special file";
    }
}

/* Tried out: only newer kernels tell (STATX_DIOALIGN). Never more than a page. */
static uint32_t direct_alignment(int fd)
{
    cleanup_free uint8_t *memory = aligned_alloc(DISK_ALIGNMENT_MAX, 2 * DISK_ALIGNMENT_MAX);
    struct iovec sector = {.iov_base = memory + DISK_SECTOR, .iov_len = DISK_SECTOR};

    if (memory == NULL)
        return DISK_ALIGNMENT_MAX; /* which is right for every disk */
    return preadv(fd, &sector, 1, 0) < 0 && errno == EINVAL ? DISK_ALIGNMENT_MAX : DISK_SECTOR;
}

struct error *disk_file_open(const char *path, bool read_only, bool direct, struct disk_file *file)
{
    int access = (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
    /* A FIFO that somebody put there must not hold us up. */
    cleanup_fd int fd = open(path, access | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;

    if (fd < 0) {
        /* What open(2) says of a file system without it. */
        if (direct && errno == EINVAL)
            return error_errno(EINVAL, "cannot open \"%s\" directly: its file system has no direct I/O", path);

        bool refused = errno == EACCES || errno == EPERM || errno == EROFS;

        return error_errno(errno, "cannot open \"%s\"%s", path, refused && !read_only ? " for writing" : "");
    }
    if (fstat(fd, &status) < 0)
        return error_errno(errno, "cannot stat \"%s\"", path);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return error_new(ERROR_INPUT, "\"%s\" is %s, expected a regular file or a block device", path,
                         file_type_name(status.st_mode));

    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0 || fcntl(fd, F_SETFL, direct ? O_DIRECT : 0) < 0)
        return error_errno(errno, "cannot use \"%s\"", path);

    char identity[3 * 20 + 1];
    snprintf(identity, sizeof(identity), "%llu%llu%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_rdev, (unsigned long long)status.st_ino);
    uint32_t alignment = direct ? direct_alignment(fd) : DISK_SECTOR;
    *file = (struct disk_file){
        .fd = take_fd(&fd),
        .size = (uint64_t)size,
        .block_device = S_ISBLK(status.st_mode),
        .alignment = alignment,
    };
    memcpy(file->identity, identity, strnlen(identity, sizeof(file->identity)));
    return NULL;
}

void disk_file_close(struct disk_file *file)
{
    fd_close(&file->fd);
}

/* Ways to do without a range's contents, the best first. */
static const struct {
    enum disk_operation operation;
    bool deallocate;
    int modes[3];
} fallocate_ways[] = {
    {DISK_DISCARD, false, {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, -1}},
    {DISK_WRITE_ZEROES,
     true,
     {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, -1}},
    {DISK_WRITE_ZEROES, false, {FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, -1}},
};

int disk_request_fallocate_mode(const struct disk_request *request)
{
    for (size_t i = 0; i < array_length(fallocate_ways); i++)
        if (fallocate_ways[i].operation == request->operation && fallocate_ways[i].deallocate == request->deallocate)
            return fallocate_ways[i].modes[request->attempt];
    return -1;
}

bool disk_request_blocks(const struct disk_file *file, const struct disk_request *request)
{
    switch (request->operation) {
    case DISK_DISCARD:
        return file->block_device;
    case DISK_WRITE_ZEROES:
        return disk_request_fallocate_mode(request) < 0;
    default:
        return false;
    }
}

/* Drops the first `bytes` of what is left to transfer. */
static void skip_transferred(struct disk_request *request, size_t bytes)
{
    request->done += bytes;
    while (request->iov_count > 0 && bytes >= request->iov->iov_len) {
        bytes -= request->iov->iov_len;
        request->iov++;
        request->iov_count--;
    }
    if (bytes > 0) {
        request->iov->iov_base = (uint8_t *)request->iov->iov_base + bytes;
        request->iov->iov_len -= bytes;
    }
}

static bool advance_transfer(struct disk_request *request, ssize_t result, int *code)
{
    /* The file ends where it did not when it was opened. */
    if (result == 0 && request->done < request->length) {
        *code = EIO;
        return true;
    }
    skip_transferred(request, (size_t)result);
    *code = 0;
    return request->done >= request->length;
}

/* A file system or a device that does not know a way to forget contents: another one is tried. */
static bool advance_fallocate(struct disk_request *request, int *code)
{
    if (disk_request_fallocate_mode(request) < 0) {
        *code = EOPNOTSUPP;
        return true;
    }
    request->attempt++;
    *code = 0;
    /* A discard is a hint, and done when no way is left. Zeros can always be written. */
    return request->operation == DISK_DISCARD && disk_request_fallocate_mode(request) < 0;
}

bool disk_request_advance(struct disk_request *request, ssize_t result, int *code)
{
    bool transfer = request->operation == DISK_READ || request->operation == DISK_WRITE;

    if (result == -EINTR)
        return false;
    if (result == -EOPNOTSUPP && !transfer && request->operation != DISK_SYNC)
        return advance_fallocate(request, code);
    if (result < 0) {
        *code = (int)-result;
        return true;
    }
    if (transfer)
        return advance_transfer(request, result, code);
    *code = 0;
    return true;
}

/* The last way: write them. */
static ssize_t write_zeroes(const struct disk_file *file, const struct disk_request *request)
{
    enum { PIECE = 4096, PIECES = 16 };
    static const uint8_t zeroes[PIECE] __attribute__((aligned(PIECE)));
    uint64_t done = 0;

    while (done < request->length) {
        struct iovec iov[PIECES];
        uint64_t left = request->length - done;
        int count = 0;

        while (count < PIECES && left > 0) {
            size_t piece = left < PIECE ? (size_t)left : PIECE;

            iov[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)zeroes, .iov_len = piece};
            left -= piece;
        }

        ssize_t written = pwritev(file->fd, iov, count, (off_t)(request->offset + done));
        if (written < 0 && errno != EINTR)
            return -1;
        if (written > 0)
            done += (uint64_t)written;
    }
    return 0;
}

const struct iovec *disk_request_piece(struct disk_request *request, unsigned *count)
{
    size_t bytes = 0;
    unsigned whole = 0;

    while (whole < request->iov_count && request->iov[whole].iov_len <= DISK_PIECE_MAX - bytes)
        bytes += request->iov[whole++].iov_len;
    *count = whole;
    if (whole > 0 || request->iov_count == 0)
        return request->iov;
    *count = 1;
    request->part = (struct iovec){.iov_base = request->iov->iov_base, .iov_len = DISK_PIECE_MAX};
    return &request->part;
}

/* A read or a write of a piece; errno is set. */
static ssize_t transfer(const struct disk_file *file, struct disk_request *request)
{
    off_t offset = (off_t)(request->offset + request->done);
    unsigned count;
    const struct iovec *iov = disk_request_piece(request, &count);

    if (request->operation == DISK_READ)
        return preadv(file->fd, iov, (int)count, offset);
    /* musl knows pwritev2 from 1.2.5 on only. */
    if (request->durable)
        return syscall(SYS_pwritev2, file->fd, iov, count, offset, 0, RWF_DSYNC);
    return pwritev(file->fd, iov, (int)count, offset);
}

/* Returns what it did, errno being set. */
static ssize_t issue(const struct disk_file *file, struct disk_request *request)
{
    uint64_t range[2] = {request->offset, request->length};
    int mode;

    switch (request->operation) {
    case DISK_READ:
    case DISK_WRITE:
        return transfer(file, request);
    case DISK_SYNC:
        return fdatasync(file->fd);
    case DISK_DISCARD:
    case DISK_WRITE_ZEROES:
        if (request->operation == DISK_DISCARD && file->block_device)
            return ioctl(file->fd, BLKDISCARD, range);
        mode = disk_request_fallocate_mode(request);
        if (mode < 0)
            return write_zeroes(file, request);
        return fallocate(file->fd, mode, (off_t)request->offset, (off_t)request->length);
    default:
        errno = EINVAL;
        return -1;
    }
}

ssize_t disk_request_issue(const struct disk_file *file, struct disk_request *request)
{
    ssize_t result = issue(file, request);

    return result < 0 ? -errno : result;
}

bool disk_request_step(const struct disk_file *file, struct disk_request *request, int *code)
{
    return disk_request_advance(request, disk_request_issue(file, request), code);
}

int disk_request_run(const struct disk_file *file, struct disk_request *request)
{
    int code = 0;

    while (!disk_request_step(file, request, &code))
        ;
    return code;
}
