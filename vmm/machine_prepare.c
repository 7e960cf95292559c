/*
 * Preparing a VM ahead of its start, a step at a time whenever the event loop is idle, so that InstanceStart finds it
 * done. Nothing happens before the first put: whoever only asks GET / waits for none of it.
 *
 * The order of the steps is KVM's. All memslots come first: setting one shortly after any change of the I/O buses
 * (irqchip, ioeventfd) waits 5-10 ms for that change's grace period, before it costs 0.1 ms. The irqchip comes before
 * the vCPUs, which get their local APICs from it. ioeventfds and irqfds come last. For the same reason nothing is ever
 * unregistered: a configuration that no longer fits the VM gets another VM.
 */
#include "vmm/machine_parts.h"

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/exit_code.h"
#include "vmm/kvm.h"
#include "vmm/mapped_file.h"
#include "vmm/signals.h"

#include <errno.h>
#include <unistd.h>

enum { QUIET_US = 2000 };

/* --- What no longer fits --- */

/* What is closed apart from the loop: destroying a VM takes the kernel 5-15 ms. */
static void *close_thread(void *vm_fd)
{
    close((int)(intptr_t)vm_fd);
    return NULL;
}

static void close_apart(int vm_fd)
{
    void *argument = (void *)(intptr_t)vm_fd;
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, close_thread, argument) != 0)
        close_thread(argument);
    pthread_attr_destroy(&attributes);
}

static void forget_boot_files(const struct machine *machine)
{
    mapped_file_forget(machine->kernel_fd);
    mapped_file_forget(machine->initrd_fd);
}

void machine_vm_discard(struct machine *machine)
{
    vcpus_free(&machine->vcpus);
    fd_close(&machine->serial_irq_fd);
    fd_close(&machine->keyboard_irq_fd);
    fd_close(&machine->power_button_irq_fd);
    machine->serial.irq_fd = -1;
    machine->i8042.irq_fd = -1;
    machine->connected_count = 0;
    machine->boot_loaded = false;
    machine->memory_dirty = false;
    forget_boot_files(machine);

    /* At once: the next VM may need the very huge pages that this one had. */
    machine_memory_hotplug_discard(machine);
    guest_memory_unmap(&machine->memory);
    if (machine->vm_fd >= 0)
        close_apart(machine->vm_fd);
    machine->vm_fd = -1;
}

void machine_boot_discard(struct machine *machine)
{
    machine->boot_loaded = false;
    machine->memory_dirty = machine->memory.count > 0;
    forget_boot_files(machine);
}

size_t machine_transports(const struct machine *machine, struct virtio_mmio *list[VIRTIO_DEVICES_MAX])
{
    const struct vm_config *config = &machine->config;
    size_t count = 0;

    for (size_t i = 0; i < config->drive_count; i++)
        list[count++] = machine->drives[i];
    for (size_t i = 0; i < config->network_interface_count; i++)
        list[count++] = machine->network_interfaces[i];
    if (config->entropy.present)
        list[count++] = machine->entropy;
    if (config->console.port_count > 0)
        list[count++] = machine->console;
    if (config->vsock.present)
        list[count++] = machine->vsock;
    for (size_t i = 0; i < config->pmem_count; i++)
        list[count++] = machine->pmem[i];
    for (size_t i = 0; i < config->file_system_count; i++)
        list[count++] = machine->file_systems[i];
    if (config->balloon.present)
        list[count++] = machine->balloon;
    if (config->memory_hotplug.present)
        list[count++] = machine->memory_hotplug;
    return count;
}

/* Whether the devices that the VM is connected to are where they belong. */
static bool connections_fit(const struct machine *machine)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    size_t count = machine_transports(machine, list);

    if (machine->connected_count > count)
        return false;
    for (size_t i = 0; i < machine->connected_count; i++)
        if (machine->connected[i] != list[i])
            return false;
    return true;
}

/* --- The steps. Each does something and says so by true, or finds that there is nothing to do. --- */

typedef bool step_function(struct machine *machine, struct error **error);

static bool step_vm(struct machine *machine, struct error **error)
{
    if (machine->vm_fd >= 0)
        return false;
    if (machine->kvm_fd < 0)
        *error = kvm_open(&machine->kvm_fd);
    if (*error == NULL && machine->vcpus.run_size == 0)
        *error = kvm_run_size(machine->kvm_fd, &machine->vcpus.run_size);
    if (*error == NULL)
        *error = kvm_vm_new(machine->kvm_fd, &machine->vm_fd);
    return true;
}

static bool step_memory(struct machine *machine, struct error **error)
{
    const struct machine_config *config = &machine->config.machine;

    if (machine->memory.count > 0)
        return false;
    /* Files that are memory have memslots, too. */
    *error = machine_devices_complete(machine);
    if (*error != NULL)
        return true;
    arch_memory_layout(config->mem_size_mib << 20, &machine->memory);
    *error = machine_shares_memory(machine) ? guest_memory_map_shared(&machine->memory, config->huge_pages)
                                            : guest_memory_map(&machine->memory, config->huge_pages);
    if (*error == NULL)
        *error = kvm_memslots_set(machine->vm_fd, &machine->memory, config->track_dirty_pages);
    if (*error == NULL)
        *error = machine_memory_hotplug_reserve(machine);
    if (*error == NULL)
        *error = machine_pmem_connect(machine);
    if (*error == NULL)
        *error = machine_registers_map(machine);
    if (*error == NULL)
        *error = arch_vm_setup(machine->vm_fd);
    pit_init(&machine->pit, machine->vm_fd);
    return true;
}

static bool step_cpuid(struct machine *machine, struct error **error)
{
    if (machine->cpuid != NULL)
        return false;
    *error = machine_custom_cpu_check(machine);
    if (*error == NULL)
        *error = arch_cpuid_get(machine->kvm_fd, &machine->cpuid);
    if (*error == NULL && machine->cpu_template != NULL)
        *error = arch_cpuid_apply(machine->cpuid, machine->cpu_template);
    if (*error != NULL) {
        arch_cpuid_free(machine->cpuid);
        machine->cpuid = NULL;
    }
    return true;
}

static bool step_vcpu(struct machine *machine, struct error **error)
{
    const struct machine_config *config = &machine->config.machine;
    struct vcpus *vcpus = &machine->vcpus;
    uint32_t index = vcpus->count;

    if (index == config->vcpu_count)
        return false;
    *error = vcpu_add(vcpus, machine->vm_fd);
    if (*error == NULL)
        *error = arch_vcpu_setup(vcpus->vcpu[index].fd, machine->cpuid, index, config->vcpu_count, config->smt);
    if (*error == NULL && machine->cpu_template != NULL)
        *error = arch_vcpu_apply(vcpus->vcpu[index].fd, machine->cpu_template);
    if (*error == NULL)
        *error = vcpu_thread_start(vcpus);
    return true;
}

static bool step_interrupts(struct machine *machine, struct error **error)
{
    if (machine->power_button_irq_fd >= 0)
        return false;
    *error = kvm_irq_event_new(machine->vm_fd, ARCH_SERIAL_GSI, &machine->serial_irq_fd);
    if (*error == NULL)
        *error = kvm_irq_event_new(machine->vm_fd, I8042_GSI, &machine->keyboard_irq_fd);
    if (*error == NULL)
        *error = kvm_irq_event_new(machine->vm_fd, ARCH_POWER_BUTTON_GSI, &machine->power_button_irq_fd);
    machine->serial.irq_fd = machine->serial_irq_fd;
    machine->i8042.irq_fd = machine->keyboard_irq_fd;
    return true;
}

/*
 * Whether the file may be mapped into guest memory rather than read. Not when this process could write it: it would
 * then hand a guest that broke out the memory of all the others that map it. Root can write everything and is only
 * kept from it by the jail, which takes root away. Nor into memory that others see: they would not see the file.
 */
static bool may_map(const struct machine *machine, const char *path)
{
    if (machine->memory.shared || machine->options.no_kernel_sharing ||
        machine->config.machine.huge_pages == HUGE_PAGES_2M)
        return false;
    return geteuid() == 0 || access(path, W_OK) != 0;
}

static struct error *load_kernel(struct machine *machine)
{
    const char *path = machine->config.boot_source.kernel_image_path;
    struct error *error =
        arch_kernel_load(&machine->memory, machine->kernel_fd, path, may_map(machine, path), &machine->kernel);

    if (error != NULL)
        return error_wrap(error, "kernel_image_path");
    machine->memory.files[GUEST_FILES_KERNEL] = (struct guest_range){.gpa = 0, .end = machine->kernel.end};
    if (machine->kernel.mapped_bytes > 0)
        mapped_file_add(machine->kernel_fd, path);
    return NULL;
}

static struct error *load_initrd(struct machine *machine)
{
    const char *path = machine->config.boot_source.initrd_path;

    machine->initrd_size = 0;
    if (path == NULL)
        return NULL;

    bool map = may_map(machine, path);
    struct error *error = arch_initrd_load(&machine->memory, machine->initrd_fd, path, map, &machine->kernel,
                                           &machine->initrd_gpa, &machine->initrd_size);
    if (error != NULL)
        return error_wrap(error, "initrd_path");
    machine->memory.files[GUEST_FILES_INITRD] = (struct guest_range){
        .gpa = machine->initrd_gpa, .end = align_up(machine->initrd_gpa + machine->initrd_size, 4096)};
    if (map)
        mapped_file_add(machine->initrd_fd, path);
    return NULL;
}

static bool step_boot_source(struct machine *machine, struct error **error)
{
    if (machine->boot_loaded || machine->config.boot_source.kernel_image_path == NULL)
        return false;
    if (machine->memory_dirty)
        *error = guest_memory_clear(&machine->memory, machine->config.machine.huge_pages);
    if (*error != NULL)
        return true;

    machine->memory_dirty = true;
    *error = load_kernel(machine);
    if (*error == NULL)
        *error = load_initrd(machine);
    machine->boot_loaded = *error == NULL;
    return true;
}

/* SIGTERM, SIGINT and SIGQUIT end the machine in order once there is one. */
static void terminated(struct event_source *source, uint32_t events)
{
    struct machine *machine = container_of(source, struct machine, termination);

    (void)events;
    signals_termination_take(source->fd);
    machine_leave(machine, EXIT_CODE_OK, "terminated by a signal");
}

static bool step_termination(struct machine *machine, struct error **error)
{
    if (machine->termination.fd >= 0)
        return false;
    machine->termination.ready = terminated;
    *error = signals_termination_watch(machine->loop, &machine->termination);
    return true;
}

static bool step_devices(struct machine *machine, struct error **error)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    uint32_t slot = (uint32_t)machine->connected_count;

    *error = machine_devices_complete(machine);
    if (*error != NULL)
        return true;
    if (slot == machine_transports(machine, list))
        return false;
    *error = virtio_mmio_connect(list[slot], machine->vm_fd, ARCH_VIRTIO_MMIO_GPA + (uint64_t)slot * VIRTIO_MMIO_SIZE,
                                 ARCH_VIRTIO_GSI_FIRST + slot);
    if (*error == NULL)
        machine->connected[machine->connected_count++] = list[slot];
    return true;
}

/* In KVM's order; what is not KVM's stands where it disturbs least. */
static step_function *const steps[] = {
    step_vm, step_memory, step_cpuid, step_vcpu, step_interrupts, step_boot_source, step_termination, step_devices,
};

/* Does one thing. False when there was nothing left to do. */
static bool prepare_one(struct machine *machine, struct error **error)
{
    *error = NULL;
    for (size_t i = 0; i < array_length(steps); i++) {
        if (!steps[i](machine, error))
            continue;
        /* A kernel that cannot be loaded is the caller's mistake; after anything else the VM is half built. */
        if (*error != NULL && steps[i] != step_boot_source)
            machine_vm_discard(machine);
        return true;
    }
    return false;
}

/*
 * Callers who put no machine-config get the default size; callers who put it late would see a VM of that size thrown
 * away. So memory and vCPUs wait for a machine-config, or for a moment of quiet.
 */
static bool waits_for_size(const struct machine *machine)
{
    return machine->vm_fd >= 0 && machine->memory.count == 0 && !machine->size_settled;
}

static void quiet(struct event_timer *timer)
{
    struct machine *machine = container_of(timer, struct machine, prepare_timer);

    machine->size_settled = true;
    event_loop_when_idle(machine->loop, &machine->prepare_task);
}

static void prepare_when_idle(struct event_task *task)
{
    struct machine *machine = container_of(task, struct machine, prepare_task);
    struct error *error;

    if (machine->state != MACHINE_NOT_STARTED)
        return;
    if (waits_for_size(machine)) {
        machine->prepare_timer.expired = quiet;
        event_timer_set(machine->loop, &machine->prepare_timer, clock_monotonic_us() + QUIET_US);
        return;
    }
    if (!prepare_one(machine, &error))
        return;
    if (error == NULL) {
        event_loop_when_idle(machine->loop, task);
        return;
    }
    /* The configuration may be on its way to something else. InstanceStart tries again and reports. */
    log_debug("preparing: %s", error->message);
    error_free(error);
}

void machine_prepare_later(struct machine *machine)
{
    if (!connections_fit(machine) ||
        (machine->memory.count > 0 && machine->memory.shared != machine_shares_memory(machine)))
        machine_vm_discard(machine);
    event_timer_cancel(&machine->prepare_timer);
    machine->prepare_task.run = prepare_when_idle;
    event_loop_when_idle(machine->loop, &machine->prepare_task);
}

struct error *machine_prepare(struct machine *machine)
{
    struct error *error;

    while (prepare_one(machine, &error))
        if (error != NULL)
            return error;
    return NULL;
}
