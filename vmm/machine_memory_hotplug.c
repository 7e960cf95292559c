/* Memory that a machine gets and loses while it runs. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/hotplug_memory.h"
#include "vmm/kvm.h"
#include "vmm/virtio/devices.h"

#include <linux/kvm.h>
#include <linux/virtio_ids.h>
#include <string.h>

/*
 * A ring, or a buffer that a device works on, is in the middle of what the guest wants taken away: it would take the
 * VMM's hands off it as well.
 */
static enum memory_use memory_use(void *owner, uint64_t gpa, uint64_t length)
{
    const struct machine *machine = owner;
    const uint8_t *start = machine->hotplug.hva + (gpa - machine->hotplug.gpa);
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    size_t count = machine_transports(machine, list);
    enum memory_use use = MEMORY_UNUSED;

    for (size_t i = 0; i < count; i++) {
        const struct virtio_device *device = virtio_mmio_device(list[i]);

        for (unsigned j = 0; device->active && j < device->queue_count; j++) {
            const struct virtqueue *queue = &device->queues[j];

            if (virtqueue_overlaps(queue, gpa, length))
                return MEMORY_HOLDS_RING;
            if (virtqueue_is_working(queue) &&
                (device->ops->holds == NULL || device->ops->holds(device, start, length)))
                use = MEMORY_MAY_BE_WORKED_ON;
        }
    }
    return use;
}

struct error *machine_memory_hotplug_new(struct machine *machine, const struct memory_hotplug_config *config,
                                         struct virtio_mmio **transport)
{
    const struct virtio_mem_users users = {.use = memory_use, .owner = machine};
    struct virtio_device *device;
    struct error *error = virtio_mem_new(config, &machine->hotplug, &users, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

static bool memslot_set(void *owner, uint32_t slot, const struct guest_region *region)
{
    const struct machine *machine = owner;
    bool log = region->size > 0 && machine->config.machine.track_dirty_pages;
    struct error *error = kvm_memslot_set(machine->vm_fd, slot, region, log ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    bool done = error == NULL;

    if (!done)
        log_warning("hotplug/memory: %s", error->message);
    error_free(error);
    return done;
}

struct error *machine_memory_hotplug_reserve(struct machine *machine)
{
    const struct memory_hotplug_config *config = &machine->config.memory_hotplug;
    struct error *error;

    if (!config->present)
        return NULL;
    error = arch_check_reach(arch_hotplug_start(&machine->memory), config->total_size_mib << 20);
    if (error != NULL)
        return error_wrap(error, "total_size_mib");
    error = hotplug_memory_new(&machine->hotplug, config, arch_hotplug_start(&machine->memory),
                               machine->config.machine.huge_pages, machine->memory.shared);
    if (error != NULL)
        return error;
    machine->hotplug.memslot_set = memslot_set;
    machine->hotplug.owner = machine;
    machine->memory.hotplug = &machine->hotplug;
    return NULL;
}

void machine_memory_hotplug_discard(struct machine *machine)
{
    machine->memory.hotplug = NULL;
    hotplug_memory_free(&machine->hotplug);
}

static struct error *check_config(const struct machine *machine, const struct memory_hotplug_config *config)
{
    unsigned long long total = config->total_size_mib, slot = config->slot_size_mib, block = config->block_size_mib;

    if (block < HOTPLUG_BLOCK_SIZE_MIB_DEFAULT || (block & (block - 1)) != 0)
        return error_new(ERROR_INPUT, "block_size_mib: %llu, expected a power of two, at least %d", block,
                         HOTPLUG_BLOCK_SIZE_MIB_DEFAULT);
    if (slot < HOTPLUG_SLOT_SIZE_MIB_DEFAULT || slot % block != 0)
        return error_new(ERROR_INPUT, "slot_size_mib: %llu, expected a multiple of block_size_mib, at least %d", slot,
                         HOTPLUG_SLOT_SIZE_MIB_DEFAULT);
    if (total == 0 || total % slot != 0)
        return error_new(ERROR_INPUT, "total_size_mib: %llu, expected a multiple of slot_size_mib, %llu", total, slot);
    if (total / slot > HOTPLUG_SLOTS_MAX)
        return error_new(ERROR_INPUT, "total_size_mib: %llu, expected at most %d times slot_size_mib", total,
                         HOTPLUG_SLOTS_MAX);
    if (total > MEM_SIZE_MIB_MAX)
        return error_new(ERROR_INPUT, "total_size_mib: %llu, expected at most %d", total, MEM_SIZE_MIB_MAX);
    return machine_check_host_memory("total_size_mib", total + machine->config.machine.mem_size_mib);
}

struct error *machine_put_memory_hotplug(struct machine *machine, struct memory_hotplug_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "hotplug/memory");

    if (error == NULL)
        error = check_config(machine, config);
    if (error == NULL && !machine->config.memory_hotplug.present)
        error = machine_check_room(machine, "hotplug/memory");
    if (error == NULL)
        error = machine_memory_hotplug_new(machine, config, &transport);
    if (error != NULL)
        return error;

    /* Its place decides where files that are memory are: their memslots are set already. */
    if (machine->memory.count > 0)
        machine_vm_discard(machine);
    if (machine->memory_hotplug != NULL)
        machine_device_free(machine, &machine->memory_hotplug);
    machine->memory_hotplug = transport;
    take_config(&machine->config.memory_hotplug, config);
    machine->config.memory_hotplug.present = true;
    machine_prepare_later(machine);
    return NULL;
}

static struct error *check_present(const struct machine *machine)
{
    if (machine->memory_hotplug == NULL)
        return error_new(ERROR_STATE, "hotplug/memory: there is none, expected one put before the microVM started");
    return machine_check_started(machine, "hotplug/memory");
}

struct error *machine_patch_memory_hotplug(struct machine *machine, const struct memory_hotplug_update *update)
{
    const struct memory_hotplug_config *config = &machine->config.memory_hotplug;
    struct error *error = check_present(machine);

    if (error != NULL)
        return error;
    if (update->requested_size_mib > config->total_size_mib || update->requested_size_mib % config->block_size_mib != 0)
        return error_new(ERROR_INPUT,
                         "requested_size_mib: %llu, expected a multiple of block_size_mib, %llu, and at most "
                         "total_size_mib, %llu",
                         (unsigned long long)update->requested_size_mib, (unsigned long long)config->block_size_mib,
                         (unsigned long long)config->total_size_mib);
    virtio_mem_request(virtio_mmio_device(machine->memory_hotplug), update->requested_size_mib << 20);
    return NULL;
}

struct error *machine_get_memory_hotplug(const struct machine *machine, struct memory_hotplug_status *status)
{
    const struct memory_hotplug_config *config = &machine->config.memory_hotplug;
    struct error *error = check_present(machine);

    if (error != NULL)
        return error;
    *status = (struct memory_hotplug_status){
        .total_size_mib = config->total_size_mib,
        .slot_size_mib = config->slot_size_mib,
        .block_size_mib = config->block_size_mib,
        .plugged_size_mib = machine->hotplug.plugged_size >> 20,
        .requested_size_mib = virtio_mem_requested(virtio_mmio_device(machine->memory_hotplug)) >> 20,
    };
    return NULL;
}
