/*
 * Breaks the rules of virtio on the entropy device, or with "network" on what a network device sends from, one way a
 * run (attack=), then tries to use the device properly. Prints how many attacks there will be, and for each, when it
 * has happened, "done?"; a byte on the serial port says that the device has had its chance. Then "<attack> dead" when
 * the device asked for a reset, "<attack> served" when it answered, else "<attack> ignored"; at the end "recovered"
 * when the device works after a reset. With patience=N it looks N times for what the device does: who sends the byte
 * cannot know, where the host's kernel is the device.
 */
#include "tests/guest/lib/virtio.h"

enum { OUTSIDE_MIB = 2048 }; /* far above the memory of any test */

static struct virtio device;
static struct queue *ring;
static unsigned number; /* of the queue */
static bool network;
static uint64_t patience;
static uint8_t page[4096] __attribute__((aligned(4096)));
static struct descriptor indirect[QUEUE_SIZE] __attribute__((aligned(16)));

/* Offers descriptor `head` to the device. */
static void offer(uint16_t head)
{
    uint16_t index = ring->available.index;

    ring->available.ring[index % QUEUE_SIZE] = head;
    compiler_barrier();
    ring->available.index = (uint16_t)(index + 1);
    virtio_notify(&device, number);
}

static void describe(unsigned at, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    ring->descriptors[at].gpa = gpa;
    ring->descriptors[at].length = length;
    ring->descriptors[at].flags = flags;
    ring->descriptors[at].next = next;
}

static void describe_indirect(unsigned at, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    indirect[at] = (struct descriptor){gpa, length, flags, next};
}

static void attack_loop(void)
{
    describe(0, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 1);
    describe(1, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 0);
    offer(0);
}

static void attack_self_loop(void)
{
    describe(0, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 0);
    offer(0);
}

static void attack_outside(void)
{
    describe(0, (uint64_t)OUTSIDE_MIB << 20, 64, DESC_WRITE, 0);
    offer(0);
}

static void attack_mmio_buffer(void)
{
    describe(0, device.base, 64, DESC_WRITE, 0);
    offer(0);
}

static void attack_wrap(void)
{
    describe(0, UINT64_MAX - 15, 64, DESC_WRITE, 0);
    offer(0);
}

static void attack_huge_length(void)
{
    describe(0, (uint64_t)page, UINT32_MAX, DESC_WRITE, 0);
    offer(0);
}

static void attack_length_sum(void)
{
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        describe(i, 0x2000000, 64u << 20, i + 1 < QUEUE_SIZE ? DESC_WRITE | DESC_NEXT : DESC_WRITE, (uint16_t)(i + 1));
    offer(0);
}

static void attack_zero_length(void)
{
    describe(0, (uint64_t)page, 0, DESC_WRITE, 0);
    offer(0);
}

static void attack_bad_head(void)
{
    offer(QUEUE_SIZE);
}

static void attack_bad_next(void)
{
    describe(0, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 0xffff);
    offer(0);
}

static void attack_index_jump(void)
{
    ring->available.index = (uint16_t)(ring->available.index + 1000);
    virtio_notify(&device, number);
}

static void attack_index_back(void)
{
    ring->available.index = (uint16_t)(ring->available.index - 1);
    virtio_notify(&device, number);
}

static void attack_readable_after_writable(void)
{
    describe(0, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 1);
    describe(1, (uint64_t)page, 16, 0, 0);
    offer(0);
}

static void attack_only_readable(void)
{
    describe(0, (uint64_t)page, 16, 0, 0);
    offer(0);
}

static void attack_indirect_loop(void)
{
    describe_indirect(0, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 1);
    describe_indirect(1, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 0);
    describe(0, (uint64_t)indirect, 32, DESC_INDIRECT, 0);
    offer(0);
}

static void attack_indirect_nested(void)
{
    describe_indirect(0, (uint64_t)indirect, 16, DESC_INDIRECT, 0);
    describe(0, (uint64_t)indirect, 16, DESC_INDIRECT, 0);
    offer(0);
}

static void attack_indirect_odd_size(void)
{
    describe_indirect(0, (uint64_t)page, 16, DESC_WRITE, 0);
    describe(0, (uint64_t)indirect, 17, DESC_INDIRECT, 0);
    offer(0);
}

static void attack_indirect_outside(void)
{
    describe(0, (uint64_t)OUTSIDE_MIB << 20, 16, DESC_INDIRECT, 0);
    offer(0);
}

static void attack_indirect_bad_next(void)
{
    describe_indirect(0, (uint64_t)page, 16, DESC_WRITE | DESC_NEXT, 9);
    describe(0, (uint64_t)indirect, 32, DESC_INDIRECT, 0);
    offer(0);
}

static void attack_buffer_is_the_ring(void)
{
    describe(0, (uint64_t)ring, sizeof(*ring), DESC_WRITE, 0);
    offer(0);
}

/* Writes to registers that have no business being written now. */
static void attack_move_live_queue(void)
{
    virtio_write(&device, REG_QUEUE_SELECT, number);
    virtio_write(&device, REG_QUEUE_DESCRIPTOR, 0xfffff000);
    virtio_write(&device, REG_QUEUE_DRIVER, 0xfffff000);
    virtio_write(&device, REG_QUEUE_DEVICE, 0xfffff000);
    virtio_write(&device, REG_QUEUE_SIZE, 7);
}

static void attack_ready_twice(void)
{
    virtio_write(&device, REG_QUEUE_SELECT, number);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
}

static void attack_driver_ok_twice(void)
{
    virtio_driver_ok(&device);
    virtio_driver_ok(&device);
}

static void attack_notify_beyond(void)
{
    virtio_notify(&device, 1);
    virtio_notify(&device, 0xffff);
    virtio_notify(&device, 0xffffffff);
}

static void attack_select_beyond(void)
{
    virtio_write(&device, REG_QUEUE_SELECT, 0xffffffff);
    guest_expect(virtio_read(&device, REG_QUEUE_SIZE_MAX) == 0, "queue 0xffffffff has a size");
    virtio_write(&device, REG_QUEUE_SIZE, 16);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_write(&device, REG_QUEUE_SELECT, number);
}

static void attack_odd_accesses(void)
{
    for (uint32_t offset = 0; offset < 0x110; offset += 3)
        mmio_read8(device.base + offset);
    for (uint32_t offset = 0; offset < 0x70; offset += 3)
        __asm__ volatile("movb $0xff, (%0)" : : "r"(device.base + offset) : "memory");
    __asm__ volatile("movl $0xffffffff, (%0)" : : "r"(device.base + 0x6e) : "memory");
}

static void attack_features_late(void)
{
    virtio_write(&device, REG_DRIVER_FEATURES_SELECT, 0);
    virtio_write(&device, REG_DRIVER_FEATURES, 0xffffffff);
}

static void attack_clear_status_bits(void)
{
    virtio_write(&device, REG_STATUS, STATUS_ACKNOWLEDGE);
}

static void attack_failed(void)
{
    virtio_write(&device, REG_STATUS, 15 | STATUS_FAILED);
}

/* Attacks on the set-up of a queue: the device is reset, and brought up wrongly. */
static void begin_setup(void)
{
    guest_expect(virtio_negotiate(&device, FEATURE_VERSION_1), "negotiation");
    virtio_queue(&device, number);
    virtio_write(&device, REG_QUEUE_READY, 0);
}

static void attack_size_not_power_of_two(void)
{
    begin_setup();
    virtio_write(&device, REG_QUEUE_SIZE, 7);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
    attack_zero_length();
}

static void attack_size_zero(void)
{
    begin_setup();
    virtio_write(&device, REG_QUEUE_SIZE, 0);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
    attack_zero_length();
}

static void attack_size_too_large(void)
{
    begin_setup();
    virtio_write(&device, REG_QUEUE_SIZE, 0x8000);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
    attack_zero_length();
}

static void attack_ring_outside(void)
{
    begin_setup();
    virtio_write(&device, REG_QUEUE_DEVICE + 4, 0x7fffffff);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
    attack_zero_length();
}

static void attack_ring_misaligned(void)
{
    begin_setup();
    virtio_write(&device, REG_QUEUE_DESCRIPTOR, (uint32_t)(uint64_t)ring + 1);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
    attack_zero_length();
}

static void attack_ring_wraps(void)
{
    begin_setup();
    virtio_write(&device, REG_QUEUE_DESCRIPTOR, 0xfffffff0);
    virtio_write(&device, REG_QUEUE_DESCRIPTOR + 4, 0xffffffff);
    virtio_write(&device, REG_QUEUE_READY, 1);
    virtio_driver_ok(&device);
    attack_zero_length();
}

static void attack_no_version_1(void)
{
    guest_expect(!virtio_negotiate(&device, 0), "FEATURES_OK without VERSION_1");
}

static void attack_unoffered_features(void)
{
    virtio_write(&device, REG_STATUS, 0);
    virtio_write(&device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (uint32_t word = 0; word < 4; word++) {
        virtio_write(&device, REG_DRIVER_FEATURES_SELECT, word);
        virtio_write(&device, REG_DRIVER_FEATURES, 0xffffffff);
    }
    virtio_write(&device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    guest_expect((virtio_read(&device, REG_STATUS) & STATUS_FEATURES_OK) == 0, "features that were not offered");
}

static void attack_driver_ok_at_once(void)
{
    virtio_write(&device, REG_STATUS, 0);
    virtio_write(&device, REG_STATUS, STATUS_DRIVER_OK);
    virtio_notify(&device, 0);
}

static void attack_notify_before_driver_ok(void)
{
    guest_expect(virtio_negotiate(&device, FEATURE_VERSION_1), "negotiation");
    virtio_queue(&device, number);
    attack_zero_length();
}

static const struct {
    const char *name;
    void (*run)(void);
} attacks[] = {
    {"loop", attack_loop},
    {"self_loop", attack_self_loop},
    {"outside", attack_outside},
    {"mmio_buffer", attack_mmio_buffer},
    {"wrap", attack_wrap},
    {"huge_length", attack_huge_length},
    {"length_sum", attack_length_sum},
    {"zero_length", attack_zero_length},
    {"bad_head", attack_bad_head},
    {"bad_next", attack_bad_next},
    {"index_jump", attack_index_jump},
    {"index_back", attack_index_back},
    {"readable_after_writable", attack_readable_after_writable},
    {"only_readable", attack_only_readable},
    {"indirect_loop", attack_indirect_loop},
    {"indirect_nested", attack_indirect_nested},
    {"indirect_odd_size", attack_indirect_odd_size},
    {"indirect_outside", attack_indirect_outside},
    {"indirect_bad_next", attack_indirect_bad_next},
    {"buffer_is_the_ring", attack_buffer_is_the_ring},
    {"move_live_queue", attack_move_live_queue},
    {"ready_twice", attack_ready_twice},
    {"driver_ok_twice", attack_driver_ok_twice},
    {"notify_beyond", attack_notify_beyond},
    {"select_beyond", attack_select_beyond},
    {"odd_accesses", attack_odd_accesses},
    {"features_late", attack_features_late},
    {"clear_status_bits", attack_clear_status_bits},
    {"failed", attack_failed},
    {"size_not_power_of_two", attack_size_not_power_of_two},
    {"size_zero", attack_size_zero},
    {"size_too_large", attack_size_too_large},
    {"ring_outside", attack_ring_outside},
    {"ring_misaligned", attack_ring_misaligned},
    {"ring_wraps", attack_ring_wraps},
    {"no_version_1", attack_no_version_1},
    {"unoffered_features", attack_unoffered_features},
    {"driver_ok_at_once", attack_driver_ok_at_once},
    {"notify_before_driver_ok", attack_notify_before_driver_ok},
};

static bool device_opens(void)
{
    if (network)
        return virtio_open(&device, VIRTIO_NET, FEATURE_INDIRECT_DESC, 2);
    return virtio_open(&device, VIRTIO_ENTROPY, FEATURE_INDIRECT_DESC, 1);
}

static bool device_works(void)
{
    if (!network)
        return virtio_request(&device, 0, &(struct buffer){page, 64, true}, 1) == 64;
    memset(page, 0, sizeof(page));
    return virtio_request(&device, number, &(struct buffer){page, 12 + 60, false}, 1) == 0;
}

static bool is_dead(void)
{
    return (virtio_read(&device, REG_STATUS) & STATUS_NEEDS_RESET) != 0;
}

/* No speed of ours tells when the monitor is done with a notification: whoever sends the byte knows. */
static const char *outcome(void)
{
    serial_puts("done?\n");
    serial_get();
    for (uint64_t left = patience; left > 0 && !is_dead() && ring->used.index == 0; left--)
        compiler_barrier();
    if (is_dead())
        return " dead\n";
    return ring->used.index != 0 ? " served\n" : " ignored\n";
}

static void run_attack(const char *name, void (*run)(void))
{
    const char *said;

    guest_expect(device_opens(), "no such device");
    ring = &device.queues[number];
    run();
    said = outcome();
    serial_puts(name);
    serial_puts(said);
    guest_expect(device_opens() && device_works(), "the device did not come back after a reset");
}

static bool is_wanted(const char *wanted, unsigned attack)
{
    return text_equal(wanted, "all") || text_equal(wanted, attacks[attack].name);
}

void guest_main(void)
{
    const unsigned all = sizeof(attacks) / sizeof(attacks[0]);
    char wanted[32] = "all";
    unsigned count = 0;

    cmdline_value("attack", wanted, sizeof(wanted));
    network = cmdline_has("network");
    number = network ? 1 : 0;
    patience = cmdline_number("patience", 0);
    for (unsigned i = 0; i < all; i++)
        count += is_wanted(wanted, i);
    guest_expect(count > 0, "unknown attack=");
    serial_result("attacks", count);
    for (unsigned i = 0; i < all; i++)
        if (is_wanted(wanted, i))
            run_attack(attacks[i].name, attacks[i].run);
    serial_puts("recovered\n");
}
