/*
 * A driver that leaves: it resets its disk while reads of 4 MiB each are in flight. A short read that completes tells
 * that they are under way. Then it comes back, without VIRTIO_BLK_F_FLUSH, and writes sector 0.
 */
#include "tests/guest/lib/virtio.h"

enum {
    REQUEST_IN = 0,
    REQUEST_OUT = 1,
    SECTOR = 512,
    PIECE = 65536,
    PIECES = 64,
    LARGE = 4, /* so many large reads */
};

struct request_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

static struct virtio disk;
static uint8_t piece[PIECE];
static volatile uint8_t statuses[LARGE + 1];
static struct request_header headers[LARGE + 1];
static struct descriptor tables[LARGE][PIECES + 2] __attribute__((aligned(16)));

/* Puts an indirect table of its own into the queue: header, 64 times the same piece, status. */
static void add_large_read(unsigned index)
{
    struct descriptor *table = tables[index];
    struct queue *queue = &disk.queues[0];
    uint16_t head;

    headers[index].sector = 2048 + index * (uint64_t)(PIECE / SECTOR) * PIECES;
    for (uint16_t i = 0; i < PIECES; i++)
        table[1 + i] = (struct descriptor){(uint64_t)piece, PIECE, DESC_NEXT | DESC_WRITE, (uint16_t)(i + 2)};
    table[0] = (struct descriptor){(uint64_t)&headers[index], sizeof(headers[0]), DESC_NEXT, 1};
    table[PIECES + 1] = (struct descriptor){(uint64_t)&statuses[index], 1, DESC_WRITE, 0};
    head = queue_add(queue, (struct buffer[]){{table, sizeof(tables[0]), false}}, 1);
    queue->descriptors[head].flags = DESC_INDIRECT;
}

static void add_short(uint32_t type)
{
    headers[LARGE] = (struct request_header){type, 0, 0};
    queue_add(&disk.queues[0],
              (struct buffer[]){{&headers[LARGE], sizeof(headers[0]), false},
                                {piece, SECTOR, type == REQUEST_IN},
                                {&statuses[LARGE], 1, true}},
              3);
}

void guest_main(void)
{
    guest_expect(virtio_open(&disk, VIRTIO_BLOCK, FEATURE_INDIRECT_DESC | FEATURE_VERSION_1, 1), "no disk");
    for (unsigned i = 0; i < LARGE; i++)
        add_large_read(i);
    add_short(REQUEST_IN);
    virtio_notify(&disk, 0);
    queue_wait(&disk.queues[0]);
    virtio_write(&disk, REG_STATUS, 0);
    guest_expect(virtio_read(&disk, REG_STATUS) == 0, "the device was not reset");
    serial_puts("abandoned\n");

    guest_expect(virtio_open(&disk, VIRTIO_BLOCK, FEATURE_VERSION_1, 1), "the disk did not come back");
    memset(piece, 'w', SECTOR);
    add_short(REQUEST_OUT);
    virtio_notify(&disk, 0);
    queue_wait(&disk.queues[0]);
    serial_result("write", statuses[LARGE]);
}
