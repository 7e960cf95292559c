/*
 * Reads or writes the first disk, as its command line says: op=read|write size=<bytes> depth=<requests at once>
 * requests=<how many> [random]. All of a depth are handed over together, as Linux does for a program that submits
 * together; then it waits for them.
 */
#include "scripts/bench_tool/guest/driver.h"

enum { DEPTH_MAX = 32, SIZE_MAX_BYTES = 128 << 10, SECTOR = 512, REQUEST_IN = 0, REQUEST_OUT = 1 };

#define FEATURE_FLUSH (1ull << 9) /* who cannot flush relies on each write */

static struct virtio disk;
static struct ring ring;
static struct slot {
    struct descriptor table[3];
    struct {
        uint32_t type;
        uint32_t reserved;
        uint64_t sector;
    } header;
    volatile uint8_t status;
} slots[DEPTH_MAX] __attribute__((aligned(64)));
static uint8_t data[DEPTH_MAX][SIZE_MAX_BYTES] __attribute__((aligned(4096)));

static struct {
    bool write;
    bool random;
    uint32_t size;
    uint32_t depth;
    uint64_t units; /* of `size` bytes on the disk */
    uint64_t next;
} work;

static void set_descriptor(volatile struct descriptor *to, const struct descriptor *from, uint16_t base)
{
    to->gpa = from->gpa;
    to->length = from->length;
    to->flags = from->flags;
    to->next = (uint16_t)(base + from->next);
}

/* Descriptors never change: only the header's sector does. */
static void prepare_slot(uint16_t number)
{
    struct slot *slot = &slots[number];
    bool indirect = (disk.features & FEATURE_INDIRECT_DESC) != 0;
    uint16_t head = (uint16_t)(number * 3);

    slot->table[0] = (struct descriptor){(uint64_t)&slot->header, sizeof(slot->header), DESC_NEXT, 1};
    slot->table[1] = (struct descriptor){(uint64_t)data[number], work.size,
                                         (uint16_t)(DESC_NEXT | (work.write ? 0 : DESC_WRITE)), 2};
    slot->table[2] = (struct descriptor){(uint64_t)&slot->status, 1, DESC_WRITE, 0};
    for (unsigned part = 0; part < 3; part++)
        set_descriptor(&ring.descriptors[head + part], &slot->table[part], head);
    if (indirect)
        set_descriptor(&ring.descriptors[head],
                       &(struct descriptor){(uint64_t)slot->table, sizeof(slot->table), DESC_INDIRECT, 0}, 0);
    slot->header.type = work.write ? REQUEST_OUT : REQUEST_IN;
}

static uint64_t next_unit(void)
{
    if (work.random)
        work.next = work.next * 6364136223846793005ull + 1442695040888963407ull;
    else
        work.next++;
    return (work.random ? work.next >> 33 : work.next) % work.units;
}

static void submit(uint16_t number)
{
    slots[number].header.sector = next_unit() * (work.size / SECTOR);
    slots[number].status = 0xee;
    ring_add(&ring, (uint16_t)(number * 3));
}

static void batch(void)
{
    struct used_element element;
    unsigned done = 0;

    for (uint16_t number = 0; number < work.depth; number++)
        submit(number);
    ring_kick(&ring);
    while (done < work.depth) {
        ring_wait(&ring, 1);
        while (ring_take(&ring, &element)) {
            guest_expect(slots[element.id / 3].status == 0, "a request failed");
            done++;
        }
        ring_arm(&ring, 1);
    }
}

void guest_main(void)
{
    uint64_t requests = cmdline_number("requests", 0);
    char op[8];

    guest_expect(cmdline_value("op", op, sizeof(op)), "op= is missing");
    work.write = text_equal(op, "write");
    work.random = cmdline_has("random");
    work.size = (uint32_t)cmdline_number("size", 4096);
    work.depth = (uint32_t)cmdline_number("depth", 1);
    guest_expect(work.size <= SIZE_MAX_BYTES && work.depth <= DEPTH_MAX, "size or depth");
    driver_open(&disk, VIRTIO_BLOCK, FEATURE_FLUSH, &ring, 1);
    work.units = virtio_config64(&disk, 0) * SECTOR / work.size;
    for (uint16_t number = 0; number < work.depth; number++)
        prepare_slot(number);
    for (uint64_t sent = 0; sent < requests; sent += work.depth)
        batch();
    say_and_spin("done");
}
