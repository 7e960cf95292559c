/*
 * Requests whose rings are right and whose contents are wrong: device=block, net or console. After each the device is
 * reset and used properly; at the end "recovered". What becomes of a request ("dead" or "served <status>") is printed.
 */
#include "tests/guest/lib/virtio.h"

enum { SECTOR = 512, NO_STATUS = 0xee };

static struct virtio device;
static struct queue *ring; /* the queue that is attacked */
static unsigned ring_index;
static uint8_t page[8192] __attribute__((aligned(4096)));
static volatile uint8_t status[4];

struct header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

static struct header header;

/* Offers a chain and waits until the device has answered it or died. */
static void attack(const char *name, const struct buffer *buffers, unsigned count)
{
    uint16_t before = ring->used.index;

    status[0] = NO_STATUS;
    queue_add(ring, buffers, count);
    virtio_notify(&device, ring_index);
    serial_puts(name);
    for (;;) {
        if ((virtio_read(&device, REG_STATUS) & STATUS_NEEDS_RESET) != 0) {
            serial_puts(" dead\n");
            return;
        }
        if (ring->used.index != before) {
            serial_puts(" served ");
            serial_hex(status[0]);
            serial_put('\n');
            return;
        }
    }
}

#define ATTACK(name, ...)                                                                                              \
    attack(name, (struct buffer[]){__VA_ARGS__}, sizeof((struct buffer[]){__VA_ARGS__}) / sizeof(struct buffer))

/* --- Block --- */

static void open_block(uint32_t type)
{
    guest_expect(virtio_open(&device, VIRTIO_BLOCK, 0, 1), "no disk");
    ring = &device.queues[0];
    ring_index = 0;
    header = (struct header){type, 0, 0};
}

static void block_works(void)
{
    struct buffer buffers[] = {{&header, sizeof(header), false}, {page, SECTOR, true}, {&status[0], 1, true}};

    open_block(0);
    status[0] = NO_STATUS;
    virtio_request(&device, 0, buffers, 3);
    guest_expect(status[0] == 0, "the disk does not work any more");
}

static void attack_block(void)
{
    const struct buffer head = {&header, sizeof(header), false}, end = {&status[0], 1, true};

    open_block(0);
    ATTACK("header only", head);
    open_block(0);
    ATTACK("status only", end);
    open_block(0);
    ATTACK("header and status", head, end);
    open_block(0);
    ATTACK("short header", {&header, 15, false}, {page, SECTOR, true}, end);
    open_block(0);
    ATTACK("long header", {page, 4096, false}, {page, SECTOR, true}, end);
    open_block(0);
    ATTACK("half sector", head, {page, 256, true}, end);
    open_block(0);
    ATTACK("no byte", head, {page, 0, true}, end);
    open_block(0);
    ATTACK("read into readable", head, {page, SECTOR, false}, end);
    open_block(1);
    ATTACK("write from writable", head, {page, SECTOR, true}, end);
    open_block(1);
    ATTACK("write of nothing", head, end);
    open_block(8);
    ATTACK("short id", head, {page, 5, true}, end);
    open_block(11);
    ATTACK("half a segment", head, {page, 8, false}, end);
    open_block(11);
    memset(page, 0xff, 16);
    ATTACK("endless discard", head, {page, 16, false}, end);
    open_block(13);
    ATTACK("endless zeroes", head, {page, 16, false}, end);
    open_block(0);
    header.sector = UINT64_MAX;
    ATTACK("last sector of all", head, {page, SECTOR, true}, end);
    open_block(0);
    header.sector = UINT64_MAX / SECTOR;
    ATTACK("offset that wraps", head, {page, SECTOR, true}, end);
    open_block(0);
    /* The header in pieces is allowed: it must work. */
    ATTACK("header in pieces", {&header, 1, false}, {(uint8_t *)&header + 1, 15, false}, {page, SECTOR, true}, end);
    block_works();
}

/* --- Network --- */

static void open_net(void)
{
    guest_expect(virtio_open(&device, VIRTIO_NET, 0, 2), "no network device");
    ring = &device.queues[1];
    ring_index = 1;
    memset(page, 0, sizeof(page));
}

static void attack_net(void)
{
    open_net();
    ATTACK("no frame", {page, 12, false});
    open_net();
    ATTACK("half a header", {page, 6, false});
    open_net();
    ATTACK("one byte", {page, 13, false});
    open_net();
    ATTACK("writable frame", {page, 100, true});
    open_net();
    ATTACK("giant frame", {(void *)0x2000000, 1u << 20, false}, {(void *)0x2000000, 1u << 20, false});
    open_net();
    memset(page, 0xff, 12);
    ATTACK("mad header", {page, 100, false});
    open_net();
    ATTACK("sound frame", {page, 12 + 60, false});
}

/* --- Console --- */

struct control {
    uint32_t port;
    uint16_t event;
    uint16_t value;
};

static struct control control;

static void open_console(uint32_t port, uint16_t event, uint16_t value)
{
    guest_expect(virtio_open(&device, VIRTIO_CONSOLE, 1ull << 1, 4), "no console");
    ring = &device.queues[3];
    ring_index = 3;
    control = (struct control){port, event, value};
}

static void attack_console(void)
{
    const struct buffer message = {&control, sizeof(control), false};

    for (uint16_t event = 0; event < 10; event++) {
        open_console(0xffffffff, event, 1);
        ATTACK("port beyond all", message);
        open_console(1, event, 0xffff);
        ATTACK("port beyond the last", message);
        open_console(0, event, 0xffff);
        ATTACK("value beyond all", message);
    }
    open_console(0, 0xffff, 0);
    ATTACK("event beyond all", message);
    open_console(0, 0, 1);
    ATTACK("short message", {&control, 3, false});
    open_console(0, 0, 1);
    ATTACK("long message", {page, 8192, false});
    open_console(0, 0, 1);
    ATTACK("writable message", {&control, sizeof(control), true});
    open_console(0, 3, 1);
    ATTACK("ready before added", message);
    ATTACK("open before ready", {&(struct control){0, 6, 1}, sizeof(control), false});
    ATTACK("data of a closed port", message);
}

void guest_main(void)
{
    char kind[16] = "";

    cmdline_value("device", kind, sizeof(kind));
    if (text_equal(kind, "block"))
        attack_block();
    else if (text_equal(kind, "net"))
        attack_net();
    else if (text_equal(kind, "console"))
        attack_console();
    else
        guest_fail("unknown device=");
    serial_puts("recovered\n");
}
