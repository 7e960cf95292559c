/*
 * A block device driven by the command line: ops=<op>,<op>,... each prints one line. D<n> takes the n-th disk,
 * w<sector>:<letter> writes, r<sector> reads, f flushes, i asks for the ID, d<sector> discards, z<sector> writes
 * zeroes, L<sector> reads 32 KiB into eight buffers, m keeps eight reads in flight, u sends an unknown request, R
 * resets the device and opens it again, E the same with indirect descriptors and EVENT_IDX, p waits for a byte on the
 * serial port, c prints the capacity, F the offered features, S<n> streams n writes, b asks for five reads and waits
 * until the device breaks.
 */
#include "tests/guest/lib/virtio.h"

enum {
    REQUEST_IN = 0,
    REQUEST_OUT = 1,
    REQUEST_FLUSH = 4,
    REQUEST_GET_ID = 8,
    REQUEST_DISCARD = 11,
    REQUEST_WRITE_ZEROES = 13,
    SECTOR = 512,
};

#define BLOCK_FEATURES (1ull << 5 | 1ull << 9 | 1ull << 13 | 1ull << 14) /* RO, FLUSH, DISCARD, WRITE_ZEROES */

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
static uint8_t data[8][4096] __attribute__((aligned(4096)));
static struct request_header headers[8];
static volatile uint8_t statuses[8];

static void open_disk_with(unsigned nth, uint64_t features)
{
    guest_expect(virtio_find(&disk, VIRTIO_BLOCK, nth), "no such disk");
    guest_expect(virtio_negotiate(&disk, BLOCK_FEATURES | FEATURE_VERSION_1 | features), "features refused");
    guest_expect((disk.features & features) == features, "features not offered");
    virtio_queue(&disk, 0);
    virtio_driver_ok(&disk);
}

static void open_disk(unsigned nth)
{
    open_disk_with(nth, 0);
}

static uint8_t request(uint32_t type, uint64_t sector, const struct buffer *middle, unsigned count)
{
    struct buffer buffers[10];

    headers[0] = (struct request_header){type, 0, sector};
    statuses[0] = 0xee;
    buffers[0] = (struct buffer){&headers[0], sizeof(headers[0]), false};
    for (unsigned i = 0; i < count; i++)
        buffers[1 + i] = middle[i];
    buffers[1 + count] = (struct buffer){&statuses[0], 1, true};
    virtio_request(&disk, 0, buffers, count + 2);
    return statuses[0];
}

static void write_sector(uint64_t sector, char letter)
{
    struct buffer middle = {data[0], SECTOR, false};

    memset(data[0], letter, SECTOR);
    serial_result("write", request(REQUEST_OUT, sector, &middle, 1));
}

/* "read <status> <first byte> <last byte>" */
static void read_sector(uint64_t sector)
{
    struct buffer middle = {data[0], SECTOR, true};

    memset(data[0], '?', SECTOR);
    serial_puts("read ");
    serial_hex(request(REQUEST_IN, sector, &middle, 1));
    serial_put(' ');
    serial_hex(data[0][0]);
    serial_put(' ');
    serial_hex(data[0][SECTOR - 1]);
    serial_put('\n');
}

static void read_large(uint64_t sector)
{
    struct buffer middle[8];
    bool same = true;

    for (unsigned i = 0; i < 8; i++) {
        data[i][0] = data[i][4095] = '?';
        middle[i] = (struct buffer){data[i], sizeof(data[i]), true};
    }
    serial_puts("large ");
    serial_hex(request(REQUEST_IN, sector, middle, 8));
    for (unsigned i = 0; i < 8; i++)
        same = same && data[i][0] == data[0][0] && data[i][4095] == data[0][0];
    serial_put(' ');
    serial_hex(data[0][0]);
    serial_puts(same ? " same\n" : " differs\n");
}

/* Five requests of three descriptors fill the queue of sixteen. */
static void ask_for_five(void)
{
    for (unsigned i = 0; i < 5; i++) {
        headers[i] = (struct request_header){REQUEST_IN, 0, i};
        statuses[i] = 0xee;
        queue_add(&disk.queues[0],
                  (struct buffer[]){
                      {&headers[i], sizeof(headers[i]), false}, {data[i], SECTOR, true}, {&statuses[i], 1, true}},
                  3);
    }
    virtio_notify(&disk, 0);
}

static void read_many(void)
{
    uint32_t seen = 0, statuses_or = 0;

    ask_for_five();
    for (unsigned i = 0; i < 5; i++)
        seen |= 1u << queue_wait(&disk.queues[0]).id;
    for (unsigned i = 0; i < 5; i++)
        statuses_or |= statuses[i];
    serial_result("many", statuses_or);
    guest_expect((seen & (seen - 1)) != 0, "one head came back again and again");
}

/* "broken <how many were answered> <the interrupt status>" */
static void wait_until_broken(void)
{
    virtio_write(&disk, REG_INTERRUPT_ACK, 3);
    ask_for_five();
    while ((virtio_read(&disk, REG_STATUS) & STATUS_NEEDS_RESET) == 0)
        ;
    serial_puts("broken ");
    serial_hex(disk.queues[0].used.index);
    serial_put(' ');
    serial_hex(virtio_read(&disk, REG_INTERRUPT_STATUS) & 2);
    serial_put('\n');
}

static void get_id(void)
{
    struct buffer middle = {data[0], 20, true};

    memset(data[0], 0, 21);
    serial_puts("id ");
    serial_hex(request(REQUEST_GET_ID, 0, &middle, 1));
    serial_put(' ');
    serial_puts((const char *)data[0]);
    serial_put('\n');
}

static void discard(uint32_t type, uint64_t sector, const char *name)
{
    static struct discard_segment segment;
    struct buffer middle = {&segment, sizeof(segment), false};

    segment = (struct discard_segment){sector, 1, 0};
    serial_result(name, request(type, sector, &middle, 1));
}

/* --- A stream of writes: several in flight, each answered once, in whatever order --- */

enum { STREAMS = 5, STREAM_SECTORS = 64, PER_REQUEST = 3, IDLE = 0xffffffff };

static struct descriptor tables[STREAMS][PER_REQUEST] __attribute__((aligned(16)));
static uint32_t in_flight[STREAMS]; /* the write's number, or IDLE */

static struct descriptor descriptor_of(unsigned stream, unsigned part)
{
    static const uint32_t lengths[] = {sizeof(headers[0]), SECTOR, 1};
    static const uint16_t flags[] = {DESC_NEXT, DESC_NEXT, DESC_WRITE};
    const uint64_t places[] = {(uint64_t)&headers[stream], (uint64_t)data[stream], (uint64_t)&statuses[stream]};

    return (struct descriptor){places[part], lengths[part], flags[part], (uint16_t)(part + 1)};
}

/* Every stream has descriptors of its own: three in the ring, or one that refers to a table. */
static uint16_t stream_head(unsigned stream)
{
    volatile struct descriptor *ring = disk.queues[0].descriptors;
    uint16_t head = (uint16_t)(stream * PER_REQUEST);

    for (unsigned part = 0; part < PER_REQUEST; part++) {
        struct descriptor descriptor = descriptor_of(stream, part);

        tables[stream][part] = descriptor;
        descriptor.next = (uint16_t)(head + descriptor.next);
        ring[head + part].gpa = descriptor.gpa;
        ring[head + part].length = descriptor.length;
        ring[head + part].flags = descriptor.flags;
        ring[head + part].next = descriptor.next;
    }
    if ((disk.features & FEATURE_INDIRECT_DESC) != 0) {
        ring[head].gpa = (uint64_t)tables[stream];
        ring[head].length = sizeof(tables[stream]);
        ring[head].flags = DESC_INDIRECT;
    }
    return head;
}

/* Rings the doorbell if the device asked for it: a device that forgets to ask is never served again. */
static void stream_notify(uint16_t before)
{
    const struct queue *queue = &disk.queues[0];
    uint16_t now = queue->available.index;

    __asm__ volatile("lock addl $0, (%%rsp)" : : : "memory");
    if ((disk.features & FEATURE_EVENT_IDX) == 0
            ? (queue->used.flags & 1) == 0
            : (uint16_t)(now - queue->used.available_event - 1) < (uint16_t)(now - before))
        virtio_notify(&disk, 0);
}

static void stream_write(unsigned stream, uint32_t number)
{
    struct queue *queue = &disk.queues[0];
    uint16_t before = queue->available.index;

    headers[stream] = (struct request_header){REQUEST_OUT, 0, number % STREAM_SECTORS};
    *(volatile uint32_t *)data[stream] = number;
    *(volatile uint32_t *)(data[stream] + SECTOR - 4) = number;
    statuses[stream] = 0xee;
    in_flight[stream] = number;
    queue->available.ring[before % queue->size] = stream_head(stream);
    compiler_barrier();
    queue->available.index = (uint16_t)(before + 1);
    stream_notify(before);
}

static unsigned stream_wait(void)
{
    uint32_t stream = queue_wait(&disk.queues[0]).id / PER_REQUEST;

    guest_expect(stream < STREAMS && in_flight[stream] != IDLE, "a write was answered twice");
    guest_expect(statuses[stream] == 0, "a write failed");
    in_flight[stream] = IDLE;
    return stream;
}

static void stream(uint64_t count)
{
    uint32_t number = 0;

    guest_expect(disk.queues[0].size == QUEUE_SIZE, "queue size");
    for (unsigned i = 0; i < STREAMS; i++)
        in_flight[i] = IDLE;
    serial_puts("streaming\n");
    while (number < STREAMS && number < count) {
        stream_write(number, number);
        number++;
    }
    while (number < count)
        stream_write(stream_wait(), number++);
    for (unsigned i = 0; i < STREAMS && i < count; i++)
        stream_wait();
    serial_result("streamed", count);
}

static void run_op(const char *op)
{
    uint64_t number = text_number(op + 1);
    const char *letter = op;

    while (*letter != '\0' && *letter != ':')
        letter++;
    switch (*op) {
    case 'D':
        open_disk((unsigned)number);
        break;
    case 'w':
        write_sector(number, letter[1]);
        break;
    case 'r':
        read_sector(number);
        break;
    case 'f':
        serial_result("flush", request(REQUEST_FLUSH, 0, NULL, 0));
        break;
    case 'i':
        get_id();
        break;
    case 'd':
        discard(REQUEST_DISCARD, number, "discard");
        break;
    case 'z':
        discard(REQUEST_WRITE_ZEROES, number, "zeroes");
        break;
    case 'L':
        read_large(number);
        break;
    case 'm':
        read_many();
        break;
    case 'b':
        wait_until_broken();
        break;
    case 'u':
        serial_result("unknown", request(0x7777, 0, NULL, 0));
        break;
    case 'R':
        open_disk(0);
        serial_puts("reopened\n");
        break;
    case 'E':
        open_disk_with(0, FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX);
        serial_puts("modern\n");
        break;
    case 'S':
        stream(number);
        break;
    case 'p':
        serial_puts("waiting\n");
        serial_get();
        break;
    case 'c':
        serial_result("capacity", virtio_config64(&disk, 0));
        break;
    case 'F':
        serial_result("features", disk.offered);
        break;
    default:
        guest_fail("unknown op");
    }
}

void guest_main(void)
{
    char ops[256];
    char *op = ops;

    guest_expect(cmdline_value("ops", ops, sizeof(ops)), "ops= is missing");
    open_disk(0);
    while (*op != '\0') {
        char *end = op;

        while (*end != '\0' && *end != ',')
            end++;
        if (*end == ',')
            *end++ = '\0';
        run_op(op);
        op = end;
    }
    serial_puts("done\n");
}
