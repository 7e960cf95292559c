/*
 * Does one thing count= times (default 1000): what=serial, ports, mmio, config, notify, control (all ports of the i8042
 * and CMOS), report (free pages to the balloon, served by this vCPU). "for_ever" instead of count= does it until
 * killed.
 */
#include "tests/guest/lib/virtio.h"

static struct virtio device;

static void open_entropy(void)
{
    guest_expect(virtio_open(&device, VIRTIO_ENTROPY, 0, 1), "no entropy device");
}

static void hammer_serial(uint64_t round)
{
    serial_put((char)('a' + round % 26));
}

static void hammer_ports(uint64_t round)
{
    uint16_t port = (uint16_t)(0x1000 + round % 0x1000);

    port_write8(port, (uint8_t)round);
    guest_expect(port_read8(port) == 0xff, "an unknown port answered");
}

static void hammer_mmio(uint64_t round)
{
    uint64_t gpa = 0xd0000000 + 8 * (round % 0x1000);

    mmio_write32(gpa, (uint32_t)round);
    mmio_read32(gpa);
}

static void hammer_config(uint64_t round)
{
    virtio_read(&device, (uint32_t)(round * 4 % 0x1000));
    virtio_write(&device, REG_CONFIG + (uint32_t)(round * 4 % 0xf00), (uint32_t)round);
}

static void hammer_notify(uint64_t round)
{
    virtio_notify(&device, (unsigned)(round % 3));
}

static void hammer_control(uint64_t round)
{
    static const uint16_t ports[] = {0x60, 0x61, 0x64, 0x70, 0x71, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3ff, 0x87, 0x2f8};
    uint16_t port = ports[round % (sizeof(ports) / sizeof(ports[0]))];

    port_read8(port);
    /* 0x80 and up at port 0x3fb would move the serial port's data register; 0xfe at 0x64 is the end. */
    port_write8(port, (uint8_t)(round & 0x3f));
}

enum { REPORTING = 3, PAGES_AT = 32 << 20, PAGE = 4096, TABLE = 256, TURN = 4 };

/* Every entry of the ring is the same request, with as many pages as one may have. */
static void open_balloon(void)
{
    static struct descriptor table[TABLE] __attribute__((aligned(16)));
    struct queue *queue;

    guest_expect(virtio_open(&device, VIRTIO_BALLOON, FEATURE_INDIRECT_DESC | 0x3f, REPORTING + 1), "no balloon");
    queue = &device.queues[REPORTING];
    for (unsigned i = 0; i < TABLE; i++)
        table[i] = (struct descriptor){PAGES_AT + 2ull * i * PAGE, PAGE,
                                       i + 1 < TABLE ? DESC_WRITE | DESC_NEXT : DESC_WRITE, (uint16_t)(i + 1)};
    queue->descriptors[0].gpa = (uint64_t)table;
    queue->descriptors[0].length = sizeof(table);
    queue->descriptors[0].flags = DESC_INDIRECT;
}

/* As much as one notification can keep the monitor busy with. */
static void hammer_report(uint64_t round)
{
    device.queues[REPORTING].available.index = (uint16_t)((round + 1) * TURN);
    virtio_notify(&device, REPORTING);
}

static const struct {
    const char *name;
    void (*run)(uint64_t round);
    void (*open)(void); /* NULL: needs no device */
} actions[] = {
    {"serial", hammer_serial, NULL},         {"ports", hammer_ports, NULL},           {"mmio", hammer_mmio, NULL},
    {"config", hammer_config, open_entropy}, {"notify", hammer_notify, open_entropy}, {"control", hammer_control, NULL},
    {"report", hammer_report, open_balloon},
};

void guest_main(void)
{
    char what[16] = "";
    uint64_t count = cmdline_has("for_ever") ? UINT64_MAX : cmdline_number("count", 1000);

    cmdline_value("what", what, sizeof(what));
    for (unsigned i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (!text_equal(actions[i].name, what))
            continue;
        if (actions[i].open != NULL)
            actions[i].open();
        serial_puts("hammering\n");
        for (uint64_t round = 0; round < count; round++)
            actions[i].run(round);
        serial_puts("\nsurvived\n");
        return;
    }
    guest_fail("unknown what=");
}
