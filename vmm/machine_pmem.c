/* The pmem devices of a machine, and the memslots of their files. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/kvm.h"
#include "vmm/virtio/devices.h"

#include <linux/kvm.h>
#include <string.h>

/* The numbers of their memslots, far from those of the regions of guest memory. */
enum { PMEM_MEMSLOT_FIRST = 256 };

struct error *machine_pmem_new(struct machine *machine, const struct pmem_config *config,
                               struct virtio_mmio **transport)
{
    struct virtio_device *device;
    struct error *error = virtio_pmem_new(config, machine->loop, &device);

    return error != NULL ? error : machine_device_attach(machine, device, transport);
}

struct error *machine_pmem_connect(struct machine *machine)
{
    uint64_t gpa = arch_pmem_start(&machine->memory);

    for (uint32_t i = 0; i < machine->config.pmem_count; i++) {
        struct virtio_device *device = virtio_mmio_device(machine->pmem[i]);
        const struct shared_file *file = virtio_pmem_file(device);
        struct guest_region region = {.gpa = gpa, .size = file->size, .hva = file->hva};
        struct error *error = arch_check_reach(gpa, file->size);

        if (error == NULL)
            error = kvm_memslot_set(machine->vm_fd, PMEM_MEMSLOT_FIRST + i, &region,
                                    file->read_only ? KVM_MEM_READONLY : 0);
        if (error != NULL)
            return error_wrap(error, "pmem '%s'", machine->config.pmem[i].id);
        virtio_pmem_place(device, region.gpa);
        gpa += file->size;
    }
    return NULL;
}

static size_t pmem_find(const struct vm_config *config, const char *id)
{
    size_t i = 0;

    while (i < config->pmem_count && strcmp(config->pmem[i].id, id) != 0)
        i++;
    return i;
}

static struct error *check_pmem(const struct machine *machine, const struct pmem_config *config, size_t place)
{
    const struct vm_config *all = &machine->config;

    if (config->path_on_host == NULL)
        return error_new(ERROR_INPUT, "path_on_host: missing, expected a path");
    if (config->root_device && all->drive_count > 0 && all->drives[0].is_root_device)
        return error_new(ERROR_INPUT, "root_device: true, but drive '%s' is the root device already",
                         all->drives[0].drive_id);
    if (config->root_device && all->pmem_count > 0 && place != 0 && all->pmem[0].root_device)
        return error_new(ERROR_INPUT, "root_device: true, but pmem '%s' is the root device already", all->pmem[0].id);
    return place < all->pmem_count ? NULL : machine_check_room(machine, "pmem");
}

/* The guest numbers them in this order, and the kernel command line names the root's number. */
static void pmem_move_to_front(struct machine *machine, size_t from)
{
    struct pmem_config config = machine->config.pmem[from];
    struct virtio_mmio *transport = machine->pmem[from];

    memmove(&machine->config.pmem[1], &machine->config.pmem[0], from * sizeof(config));
    memmove(&machine->pmem[1], &machine->pmem[0], from * sizeof(transport));
    machine->config.pmem[0] = config;
    machine->pmem[0] = transport;
}

struct error *machine_put_pmem(struct machine *machine, struct pmem_config *config)
{
    struct virtio_mmio *transport;
    struct error *error = machine_check_not_started(machine, "pmem");
    size_t place;

    if (error == NULL)
        error = machine_check_id("id", config->id);
    if (error != NULL)
        return error;
    place = pmem_find(&machine->config, config->id);
    error = check_pmem(machine, config, place);
    if (error == NULL)
        error = machine_pmem_new(machine, config, &transport);
    if (error != NULL)
        return error;

    /* Its memslot comes before the irqchip: a VM that has its memory already is not the one. */
    if (machine->memory.count > 0)
        machine_vm_discard(machine);
    if (place == machine->config.pmem_count) {
        machine->config.pmem_count++;
    } else {
        machine_device_free(machine, &machine->pmem[place]);
        pmem_config_free(&machine->config.pmem[place]);
    }
    machine->pmem[place] = transport;
    take_config(&machine->config.pmem[place], config);
    if (machine->config.pmem[place].root_device)
        pmem_move_to_front(machine, place);
    machine_prepare_later(machine);
    return NULL;
}

struct error *machine_patch_pmem(struct machine *machine, struct pmem_update *update)
{
    struct error *error = machine_check_started(machine, "pmem");

    if (error != NULL)
        return error;

    size_t place = update->id != NULL ? pmem_find(&machine->config, update->id) : machine->config.pmem_count;
    if (place == machine->config.pmem_count)
        return error_new(ERROR_INPUT, "id: '%s', expected the id of a configured pmem device", update->id);
    virtio_pmem_update(virtio_mmio_device(machine->pmem[place]), update);
    machine_rate_limiter_config_update(&machine->config.pmem[place].rate_limiter, &update->rate_limiter);
    pmem_update_free(update);
    return NULL;
}
