/*
 * Uses a disk, a console, an entropy source and a network interface, then says "busy" and waits for a byte on the
 * serial port. The devices share the driver's memory for their queues: each is left alone when the next one comes.
 */
#include "tests/guest/lib/console.h"

enum { BLOCK_IN = 0, BLOCK_OUT = 1, REQUEST_SIZE = 64 * 1024, RX = 0, TX = 1, FRAME = 12 + 1514, ROUNDS = 8 };

static struct virtio device;
static struct console console;
static uint8_t data[REQUEST_SIZE];
static volatile uint8_t status;

static void block_request(uint32_t type, uint64_t sector)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = {type, 0, sector};
    const struct buffer buffers[] = {
        {&header, sizeof(header), false}, {data, sizeof(data), type == BLOCK_IN}, {&status, 1, true}};

    status = 0xee;
    virtio_request(&device, 0, buffers, 3);
    guest_expect(status == 0, "the disk refused");
}

static void use_disk(void)
{
    guest_expect(virtio_open(&device, VIRTIO_BLOCK, 0, 1), "no disk");
    for (uint64_t round = 0; round < ROUNDS; round++) {
        block_request(BLOCK_OUT, round * (REQUEST_SIZE / 512));
        block_request(BLOCK_IN, round * (REQUEST_SIZE / 512));
    }
}

static void use_console(void)
{
    guest_expect(console_open(&console), "no console");
    for (unsigned round = 0; round < ROUNDS; round++)
        console_write(&console, console_find(&console, "log"), data, CONSOLE_BUFFER_SIZE);
}

static void use_entropy(void)
{
    guest_expect(virtio_open(&device, VIRTIO_ENTROPY, 0, 1), "no entropy device");
    for (unsigned round = 0; round < ROUNDS; round++)
        virtio_request(&device, 0, &(struct buffer){data, sizeof(data), true}, 1);
}

static void use_network(void)
{
    guest_expect(virtio_open(&device, VIRTIO_NET, 0, 2), "no network device");
    memset(data, 0xff, FRAME);
    memset(data, 0, 12);
    for (unsigned round = 0; round < ROUNDS; round++)
        virtio_request(&device, TX, &(struct buffer){data, FRAME, false}, 1);
}

void guest_main(void)
{
    use_disk();
    use_console();
    use_entropy();
    if (cmdline_has("net"))
        use_network();
    serial_puts("busy\n");
    serial_get();
}
