/*
 * Memory that comes and goes: waits for the host's wish, plugs all of it, uses it, gives it back. Prints what each
 * request is answered with. disk: has a disk work on plugged memory, and beyond it. hostile: asks for what may not be
 * had, and answers into what it gives away. net: has a network wait for a frame with a buffer beside the memory that
 * goes, and within it. rings: lays a queue into plugged memory. reach: has a disk read a MiB into each that is not
 * plugged, or, with answer, answer where nothing is. short: the host has a block less than it wishes for. touch: then
 * goes where memory was; leave: where it never was.
 */
#include "tests/guest/lib/virtio.h"

enum { PLUG = 0, UNPLUG = 1, UNPLUG_ALL = 2, STATE = 3, BLOCK = 2 << 20 };
enum { CONFIG_BLOCK = 0, CONFIG_ADDRESS = 16, CONFIG_SIZE = 24, CONFIG_PLUGGED = 40, CONFIG_REQUESTED = 48 };

static struct virtio memory;
static uint64_t start, size;

struct request {
    uint16_t type;
    uint16_t padding[3];
    uint64_t gpa;
    uint16_t blocks;
    uint16_t more[3];
};

struct response {
    uint16_t type;
    uint16_t padding[3];
    uint16_t state;
};

static struct request request;
static struct response response;

/* The answer's type, and of a state request the state in the upper half. */
static uint32_t ask(uint16_t type, uint64_t gpa, uint64_t blocks)
{
    request = (struct request){.type = type, .gpa = gpa, .blocks = (uint16_t)blocks};
    response = (struct response){.type = 99};
    virtio_request(&memory, 0,
                   (struct buffer[]){{&request, sizeof(request), false}, {&response, sizeof(response), true}}, 2);
    return (uint32_t)response.state << 16 | response.type;
}

static void say(const char *what, uint16_t type, uint64_t gpa, uint64_t blocks)
{
    serial_result(what, ask(type, gpa, blocks));
}

static void wait_go(void)
{
    while (serial_get() != 'g')
        ;
}

static volatile uint64_t *at(uint64_t gpa)
{
    guest_expect(guest_map(gpa), "out of page tables");
    return (volatile uint64_t *)gpa;
}

static void fill(uint64_t gpa, uint64_t length)
{
    for (uint64_t i = 0; i < length; i += 4096) {
        volatile uint64_t *word = at(gpa + i);

        guest_expect(*word == 0, "plugged memory that is not empty");
        *word = ~i;
    }
}

static void ask_for_what_may_not_be_had(uint64_t wanted)
{
    say("beyond", PLUG, start, wanted / BLOCK + 1);
    say("below", PLUG, start - BLOCK, 1);
    say("above", PLUG, start + size, 1);
    say("across", PLUG, start + size - BLOCK, 2);
    say("wraps", PLUG, 0xffffffffffe00000, 2);
    say("uneven", PLUG, start + 4096, 1);
    say("none", PLUG, start, 0);
    say("not plugged", UNPLUG, start, 1);
    say("odd", 7, start, 1);
    say("plug", PLUG, start + BLOCK, 1);
    say("again", PLUG, start + BLOCK, 1);
    say("mixed", STATE, start, 2);
    say("mixed plug", PLUG, start, 2);
    say("mixed unplug", UNPLUG, start, 2);

    /* Half a request; nowhere to answer; an answer into what is given away. */
    virtio_request(&memory, 0, (struct buffer[]){{&request, 9, false}, {&response, sizeof(response), true}}, 2);
    serial_result("half", response.type);
    request = (struct request){.type = STATE, .gpa = start, .blocks = 1};
    virtio_request(&memory, 0, &(struct buffer){&request, sizeof(request), false}, 1);
    virtio_request(&memory, 0, (struct buffer[]){{&request, sizeof(request), false}, {&response, 3, true}}, 2);
    request = (struct request){.type = UNPLUG, .gpa = start + BLOCK, .blocks = 1};
    virtio_request(
        &memory, 0,
        (struct buffer[]){{&request, sizeof(request), false}, {(void *)(start + BLOCK + 64), sizeof(response), true}},
        2);
    say("gone", STATE, start + BLOCK, 1);
}

/* Every other block, then the rest: as many memory mappings of the VMM as can be. */
static void plug_in_pieces(uint64_t wanted)
{
    uint64_t blocks = wanted / BLOCK, failures = 0;

    for (uint64_t first = 0; first < 2; first++)
        for (uint64_t i = first; i < blocks; i += 2)
            failures += (ask(PLUG, start + i * BLOCK, 1) & 0xffff) != 0;
    for (uint64_t first = 0; first < 2; first++)
        for (uint64_t i = first; i < blocks; i += 2)
            failures += (ask(UNPLUG, start + i * BLOCK, 1) & 0xffff) != 0;
    serial_result("failures", failures);
}

/* Another device, with its ring in memory that is to go. */
static void open_device(struct virtio *device, uint32_t type)
{
    struct queue *ring = (struct queue *)(uintptr_t)at(start);

    guest_expect(virtio_find(device, type, 0), "no such device");
    guest_expect(virtio_negotiate(device, FEATURE_VERSION_1), "no features");
    ring->size = QUEUE_SIZE;
    device->queues = ring;
    virtio_write(device, REG_QUEUE_SELECT, 0);
    virtio_write(device, REG_QUEUE_SIZE, QUEUE_SIZE);
    const uint32_t registers[] = {REG_QUEUE_DESCRIPTOR, REG_QUEUE_DRIVER, REG_QUEUE_DEVICE};
    const uint64_t places[] = {(uint64_t)&ring->descriptors, (uint64_t)&ring->available, (uint64_t)&ring->used};
    for (unsigned i = 0; i < 3; i++) {
        virtio_write(device, registers[i], (uint32_t)places[i]);
        virtio_write(device, registers[i] + 4, (uint32_t)(places[i] >> 32));
    }
    virtio_write(device, REG_QUEUE_READY, 1);
    virtio_driver_ok(device);
}

static void keep_ring(void)
{
    struct virtio entropy;

    open_device(&entropy, VIRTIO_ENTROPY);
    serial_result("status", virtio_read(&entropy, REG_STATUS) & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET));
    say("ring", UNPLUG, start, 1);
    say("ring all", UNPLUG_ALL, 0, 0);
    virtio_write(&entropy, REG_STATUS, 0);
}

/* A network that has taken a receive buffer: it has by the time that it has sent a frame. */
static void open_network(struct virtio *net, const volatile void *buffer)
{
    static struct queue rings[2];
    static uint8_t frame[64];

    guest_expect(virtio_find(net, VIRTIO_NET, 0) && virtio_negotiate(net, FEATURE_VERSION_1), "no network");
    net->queues = rings;
    virtio_queue(net, 0);
    virtio_queue(net, 1);
    virtio_driver_ok(net);
    queue_add(&rings[0], &(struct buffer){buffer, 2048, true}, 1);
    virtio_notify(net, 0);
    virtio_request(net, 1, &(struct buffer){frame, sizeof(frame), false}, 1);
}

static void keep_receive_buffer(void)
{
    static uint8_t beside[2048];
    struct virtio net;

    open_network(&net, beside);
    say("beside", UNPLUG, start, 1);
    say("again", PLUG, start, 1);
    open_network(&net, at(start));
    say("within", UNPLUG, start, 1);
    virtio_write(&net, REG_STATUS, 0);
    say("without", UNPLUG, start, 1);
    say("again", PLUG, start, 1);
}

/* The disk's first bytes to or from `gpa`, with the request in plugged memory. Returns the status. */
static uint8_t move_bytes(struct virtio *disk, bool write, uint64_t gpa, uint32_t length)
{
    volatile uint64_t *header = at(start + 0x2000);
    volatile uint8_t *status = (volatile uint8_t *)at(start + 0x3000);

    header[0] = write;
    header[1] = 0;
    *status = 99;
    virtio_request(disk, 0, (struct buffer[]){{header, 16, false}, {(void *)gpa, length, !write}, {status, 1, true}},
                   3);
    return *status;
}

static uint8_t move_sector(struct virtio *disk, bool write, uint64_t gpa)
{
    return move_bytes(disk, write, gpa, 512);
}

static void reach_with_disk(uint64_t wanted)
{
    enum { MIB = 1 << 20 };
    struct virtio disk;
    uint8_t failures = 0;

    open_device(&disk, VIRTIO_BLOCK);
    if (cmdline_has("answer")) {
        volatile uint64_t *header = at(start + 0x2000);

        header[0] = header[1] = 0;
        queue_add(disk.queues, (struct buffer[]){{header, 16, false}, {(void *)(start + wanted), 1, true}}, 2);
        virtio_notify(&disk, 0);
        wait_go();
    }
    for (uint64_t gpa = start + wanted; gpa < start + size; gpa += MIB)
        failures |= move_bytes(&disk, false, gpa, MIB);
    virtio_write(&disk, REG_STATUS, 0);
    serial_result("reached", failures);
    wait_go();
    say("plug", PLUG, start + wanted, (size - wanted) / BLOCK);
    serial_puts("filled\n");
    wait_go();
    say("all", UNPLUG_ALL, 0, 0);
    say("plug", PLUG, start, wanted / BLOCK);
}

/* A block further on, where the disk has been before the memory was plugged. */
static void use_disk(uint64_t wanted)
{
    struct virtio disk;

    open_device(&disk, VIRTIO_BLOCK);
    *at(start + BLOCK) = 0x1234567;
    serial_result("write", move_sector(&disk, true, start + BLOCK));
    serial_result("read", move_sector(&disk, false, start + wanted - BLOCK));
    serial_result("word", *at(start + wanted - BLOCK));
    serial_result("read beyond", move_sector(&disk, false, start + wanted));
    say("ring", UNPLUG, start, 1);
    virtio_write(&disk, REG_STATUS, 0);
    say("all", UNPLUG_ALL, 0, 0);
    start += BLOCK;
    say("plug", PLUG, start, wanted / BLOCK);
}

void guest_main(void)
{
    guest_expect(virtio_open(&memory, VIRTIO_MEM, FEATURE_VERSION_1 | 3, 1), "no memory device");
    start = virtio_config64(&memory, CONFIG_ADDRESS);
    size = virtio_config64(&memory, CONFIG_SIZE);
    serial_result("block", virtio_config64(&memory, CONFIG_BLOCK));
    serial_result("start", start);
    serial_result("size", size);
    serial_result("plugged", virtio_config64(&memory, CONFIG_PLUGGED));
    say("early", PLUG, start, 1);
    serial_puts("ready\n");
    wait_go();

    uint64_t wanted = virtio_config64(&memory, CONFIG_REQUESTED);
    serial_result("wanted", wanted);
    if (cmdline_has("hostile"))
        ask_for_what_may_not_be_had(wanted);
    if (cmdline_has("pieces"))
        plug_in_pieces(wanted);
    if (cmdline_has("short")) {
        say("too many", PLUG, start, wanted / BLOCK);
        wanted -= BLOCK;
    }
    say("plug", PLUG, start, wanted / BLOCK);
    say("state", STATE, start, wanted / BLOCK);
    say("beyond", STATE, start, wanted / BLOCK + 1);
    if (cmdline_has("rings"))
        keep_ring();
    if (cmdline_has("net"))
        keep_receive_buffer();
    if (cmdline_has("reach"))
        reach_with_disk(wanted);
    if (cmdline_has("disk"))
        use_disk(wanted);
    fill(start, wanted);
    serial_result("plugged", virtio_config64(&memory, CONFIG_PLUGGED));
    wait_go();

    say("unplug", UNPLUG, start, wanted / BLOCK / 2);
    serial_result("rest", *at(start + wanted / 2));
    serial_puts("half\n");
    wait_go();
    if (cmdline_has("touch")) {
        *at(start) = 1;
        serial_result("reached", *at(start) == 1);
    }
    say("all", UNPLUG_ALL, 0, 0);
    say("state", STATE, start, wanted / BLOCK);
    serial_result("nothing", *at(start));
    *at(start) = 1;
    serial_result("plugged", virtio_config64(&memory, CONFIG_PLUGGED));
    say("plug", PLUG, start, 1);
    serial_result("empty", *at(start));
    serial_puts("done\n");
}
