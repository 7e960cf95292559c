/*
 * A driver that leaves: it resets its disk while a request is in flight. A read that completes tells that the discard
 * of sectors= sectors beside it is under way.
 */
#include "tests/guest/lib/virtio.h"

enum { REQUEST_IN = 0, REQUEST_DISCARD = 11, SECTOR = 512 };

#define FEATURE_DISCARD (1ull << 13)

struct request_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct discard_segment {
    uint64_t sector;
    uint32_t sector_count;
    uint32_t flags;
};

static struct virtio disk;
static uint8_t data[SECTOR];
static volatile uint8_t statuses[2];
static struct discard_segment segment;
static struct request_header headers[2] = {{REQUEST_DISCARD, 0, 0}, {REQUEST_IN, 0, 0}};

void guest_main(void)
{
    const struct buffer discard[] = {
        {&headers[0], sizeof(headers[0]), false}, {&segment, sizeof(segment), false}, {&statuses[0], 1, true}};
    const struct buffer read[] = {
        {&headers[1], sizeof(headers[1]), false}, {data, sizeof(data), true}, {&statuses[1], 1, true}};

    segment.sector_count = (uint32_t)cmdline_number("sectors", 8);
    guest_expect(virtio_open(&disk, VIRTIO_BLOCK, FEATURE_DISCARD | FEATURE_VERSION_1, 1), "no disk");
    queue_add(&disk.queues[0], discard, 3);
    queue_add(&disk.queues[0], read, 3);
    virtio_notify(&disk, 0);
    queue_wait(&disk.queues[0]);
    virtio_write(&disk, REG_STATUS, 0);
    guest_expect(virtio_read(&disk, REG_STATUS) == 0, "the device was not reset");
    serial_puts("abandoned\n");

    guest_expect(virtio_open(&disk, VIRTIO_BLOCK, FEATURE_VERSION_1, 1), "the disk did not come back");
    virtio_request(&disk, 0, read, 3);
    serial_result("read", statuses[1]);
}
