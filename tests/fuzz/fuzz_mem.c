/* Memory that is plugged and unplugged, under a hostile driver that also has its buffers and rings there. */
#include "tests/fuzz/fuzz.h"

#include "vmm/hotplug_memory.h"
#include "vmm/virtio/devices.h"

#define START 0x200000000ull

static const struct memory_hotplug_config config = {
    .present = true, .total_size_mib = 256, .slot_size_mib = 128, .block_size_mib = 2};
static struct hotplug_memory memory;
static struct virtio_device *mem;
static enum memory_use use;
static bool host_refuses;

static bool memslot_set(void *owner, uint32_t slot, const struct guest_region *region)
{
    (void)owner;
    fuzz_require(slot >= 512 && (region->gpa - START) % (128u << 20) == 0);
    return region->size == 0 || !host_refuses;
}

/* The rings of the device itself; the machine knows those of all. */
static enum memory_use tell_use(void *owner, uint64_t gpa, uint64_t length)
{
    (void)owner;
    return virtqueue_overlaps(&mem->queues[0], gpa, length) ? MEMORY_HOLDS_RING : use;
}

static struct virtio_device *make(struct event_loop *loop)
{
    static const struct virtio_mem_users users = {.use = tell_use};

    (void)loop;
    use = MEMORY_UNUSED;
    host_refuses = false;
    fuzz_no_error(hotplug_memory_new(&memory, &config, START, HUGE_PAGES_NONE, false));
    memory.memslot_set = memslot_set;
    fuzz_no_error(virtio_mem_new(&config, &memory, &users, &mem));
    return mem;
}

static void attach(struct guest_memory *guest)
{
    guest->hotplug = &memory;
}

/* What the device says, what is counted and what can be reached are the same. */
static void check(void)
{
    uint64_t plugged = 0;

    for (uint64_t i = 0; i < memory.size / memory.block_size; i++)
        plugged += hotplug_memory_at(&memory, START + i * memory.block_size, memory.block_size) != NULL;
    fuzz_require(plugged * memory.block_size == memory.plugged_size);
    fuzz_require(memory.slot_blocks[0] + memory.slot_blocks[1] == plugged);
}

static void host_event(struct fuzz_input *input)
{
    uint8_t what = fuzz_u8(input);

    switch (what % 4) {
    case 0:
        virtio_mem_request(mem, (uint64_t)(what >> 2) * (4u << 20));
        break;
    case 1:
        use = what & 0x80 ? MEMORY_HOLDS_RING : MEMORY_UNUSED;
        break;
    case 2:
        host_refuses = (what & 0x80) != 0;
        break;
    default:
        check();
        break;
    }
}

static void end(void)
{
    check();
    hotplug_memory_free(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_device_ops ops = {.make = make, .attach = attach, .host_event = host_event, .end = end};

    return fuzz_device(&ops, data, size);
}
