#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/clock.h"
#include "vmm/base/log.h"
#include "vmm/cmdline.h"
#include "vmm/exit_code.h"
#include "vmm/metrics.h"
#include "vmm/signals.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define METRICS_PERIOD_US 60000000ull
#define METRICS_FIRST_US 1000

/* --- Making --- */

static void guest_ended(void *owner, int exit_code, const char *reason)
{
    machine_leave(owner, exit_code, reason);
}

static void guest_reset(void *owner)
{
    machine_leave(owner, EXIT_CODE_OK, "the guest reset");
}

static void guest_powered_off(void *owner)
{
    machine_leave(owner, EXIT_CODE_OK, "the guest powered off");
}

static struct error *add_legacy_devices(struct machine *machine)
{
    struct error *error;

    serial_init(&machine->serial, machine->loop, machine->serial_ring);
    i8042_init(&machine->i8042, guest_reset, machine);
    machine->acpi_sleep = (struct acpi_sleep){.power_off = guest_powered_off, .reset = guest_reset, .owner = machine};
    error = bus_add(&machine->ports, SERIAL_PORT, SERIAL_PORTS, &serial_bus_ops, &machine->serial);
    if (error == NULL)
        error = bus_add(&machine->ports, I8042_PORT, 1, &i8042_bus_ops, &machine->i8042);
    if (error == NULL)
        error = bus_add(&machine->ports, I8042_COMMAND_PORT, 1, &i8042_command_bus_ops, &machine->i8042);
    if (error == NULL)
        error = bus_add(&machine->ports, PIT_PORT, PIT_PORTS, &pit_bus_ops, &machine->pit);
    if (error == NULL)
        error = bus_add(&machine->ports, PIT_GATE_PORT, 1, &pit_gate_bus_ops, &machine->pit);
    if (error == NULL)
        error =
            bus_add(&machine->ports, ARCH_ACPI_SLEEP_PORT, ACPI_SLEEP_PORTS, &acpi_sleep_bus_ops, &machine->acpi_sleep);
    if (error == NULL && machine->options.boot_timer)
        error =
            bus_add(&machine->mmio, ARCH_BOOT_TIMER_GPA, BOOT_TIMER_SIZE, &boot_timer_bus_ops, &machine->boot_timer);
    return error;
}

struct error *machine_new(struct event_loop *loop, const struct machine_options *options, struct machine **machine)
{
    /* Fresh pages from the kernel: malloc would touch them all to clear them, and most are never needed. */
    _Static_assert(offsetof(struct machine, config.machine) + sizeof(struct machine_config) <= 4096,
                   "what every process touches is in the first page");
    struct machine *made = mmap(NULL, sizeof(*made), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return error_errno(errno, "cannot make the machine");

    made->loop = loop;
    made->options = *options;
    if (made->options.exit == NULL)
        made->options.exit = _exit;
    machine_config_default(&made->config.machine);
    made->kvm_fd = made->vm_fd = made->serial_irq_fd = made->keyboard_irq_fd = made->power_button_irq_fd = -1;
    made->kernel_fd = made->initrd_fd = made->metrics_fd = made->termination.fd = -1;

    vcpus_init(&made->vcpus);
    made->vcpus.loop = loop;
    made->vcpus.ports = &made->ports;
    made->vcpus.mmio = &made->mmio;
    made->vcpus.filters = options->filters;
    made->vcpus.end = guest_ended;
    made->vcpus.owner = made;

    struct error *error = add_legacy_devices(made);
    if (error != NULL) {
        munmap(made, sizeof(*made));
        return error;
    }
    *machine = made;
    return NULL;
}

void machine_free(struct machine *machine)
{
    machine_vm_discard(machine);
    for (size_t i = 0; i < machine->config.drive_count; i++)
        virtio_mmio_free(machine->drives[i]);
    for (size_t i = 0; i < machine->config.network_interface_count; i++)
        virtio_mmio_free(machine->network_interfaces[i]);
    for (size_t i = 0; i < machine->config.pmem_count; i++)
        virtio_mmio_free(machine->pmem[i]);
    virtio_mmio_free(machine->entropy);
    virtio_mmio_free(machine->console);
    virtio_mmio_free(machine->vsock);
    for (size_t i = 0; i < machine->config.file_system_count; i++)
        virtio_mmio_free(machine->file_systems[i]);
    virtio_mmio_free(machine->balloon);
    virtio_mmio_free(machine->memory_hotplug);
    machine_registers_unmap(machine);
    serial_close(&machine->serial);
    event_timer_cancel(&machine->metrics_timer);
    event_timer_cancel(&machine->prepare_timer);
    event_source_remove(&machine->termination);
    fd_close(&machine->termination.fd);
    fd_close(&machine->metrics_fd);
    fd_close(&machine->kernel_fd);
    fd_close(&machine->initrd_fd);
    fd_close(&machine->kvm_fd);
    arch_cpuid_free(machine->cpuid);
    machine_custom_cpu_free(machine);
    machine_mmds_free(machine);
    vm_config_free(&machine->config);
    munmap(machine, sizeof(*machine));
}

enum machine_state machine_state(const struct machine *machine)
{
    return machine->state;
}

const char *machine_id(const struct machine *machine)
{
    return machine->options.id;
}

const struct vm_config *machine_configuration(const struct machine *machine)
{
    return &machine->config;
}

/* --- Starting --- */

static struct error *write_boot_tables(struct machine *machine)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    struct arch_virtio_slot slots[VIRTIO_DEVICES_MAX];
    char cmdline[ARCH_CMDLINE_MAX];
    struct arch_boot boot = {
        .kernel = &machine->kernel,
        .cmdline = cmdline,
        .initrd_gpa = machine->initrd_gpa,
        .initrd_size = machine->initrd_size,
        .vcpu_count = machine->vcpus.count,
        .slots = slots,
        .slot_count = machine_transports(machine, list),
        .has_serial = true,
    };
    struct error *error = cmdline_build(&machine->config, cmdline, sizeof(cmdline));

    if (error != NULL)
        return error;
    for (uint32_t i = 0; i < boot.slot_count; i++)
        slots[i] = (struct arch_virtio_slot){.gpa = ARCH_VIRTIO_MMIO_GPA + (uint64_t)i * VIRTIO_MMIO_SIZE,
                                             .gsi = ARCH_VIRTIO_GSI_FIRST + i};

    /* Should the rest fail, these tables are not to be found by another kernel. */
    machine->memory_dirty = true;
    error = arch_boot_write(&machine->memory, &boot);
    if (error != NULL)
        return error;
    return arch_vcpu_boot(machine->vcpus.vcpu[0].fd, &machine->memory, &machine->kernel);
}

static void remove_devices_from_bus(struct machine *machine)
{
    for (uint64_t slot = 0; slot < VIRTIO_DEVICES_MAX; slot++)
        bus_remove(&machine->mmio, ARCH_VIRTIO_MMIO_GPA + slot * VIRTIO_MMIO_SIZE);
}

static struct error *add_devices_to_bus(struct machine *machine)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    size_t count = machine_transports(machine, list);
    struct error *error = NULL;

    for (uint64_t slot = 0; error == NULL && slot < count; slot++)
        error = bus_add(&machine->mmio, ARCH_VIRTIO_MMIO_GPA + slot * VIRTIO_MMIO_SIZE, VIRTIO_MMIO_SIZE,
                        &virtio_mmio_bus_ops, list[slot]);
    return error;
}

static void write_metrics(struct machine *machine)
{
    struct error *error = machine->metrics_fd < 0 ? NULL : metrics_write(machine->metrics_fd);

    if (error != NULL)
        log_warning("%s", error->message);
    error_free(error);
}

static void metrics_due(struct event_timer *timer)
{
    struct machine *machine = container_of(timer, struct machine, metrics_timer);

    write_metrics(machine);
    event_timer_set(machine->loop, timer, clock_monotonic_us() + METRICS_PERIOD_US);
}

static struct error *start(struct machine *machine)
{
    struct error *error = machine_prepare(machine);

    if (error == NULL)
        error = serial_open(&machine->serial, &machine->config.serial);
    if (error == NULL)
        error = write_boot_tables(machine);
    if (error == NULL)
        error = add_devices_to_bus(machine);
    /* Last: under it nothing can be prepared any more. */
    if (error == NULL)
        error = filters_load(machine->options.filters, FILTER_MAIN_RUN);
    return error;
}

struct error *machine_start(struct machine *machine)
{
    machine->boot_timer.start_us = clock_monotonic_us();
    machine->boot_timer.start_cpu_us = clock_process_cpu_us();
    if (machine->state != MACHINE_NOT_STARTED)
        return error_new(ERROR_STATE, "InstanceStart: the microVM has already started");
    if (machine->config.boot_source.kernel_image_path == NULL)
        return error_new(ERROR_STATE, "InstanceStart: no kernel_image_path; put a boot source first");

    struct error *error = start(machine);
    if (error != NULL) {
        remove_devices_from_bus(machine);
        serial_close(&machine->serial);
        if (machine->memory_dirty)
            machine_boot_discard(machine);
        return error;
    }
    machine_balloon_note(machine);
    machine_registers_show(machine);
    machine->state = MACHINE_RUNNING;
    vcpus_run(&machine->vcpus);
    /* The caller has its answer first. No task: a guest that leaves no idle moment would never be told of. */
    machine->metrics_timer.expired = metrics_due;
    event_timer_set(machine->loop, &machine->metrics_timer, clock_monotonic_us() + METRICS_FIRST_US);
    return NULL;
}

/* --- Pausing --- */

struct error *machine_pause(struct machine *machine)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    size_t count = machine_transports(machine, list);
    uint64_t start_us = clock_monotonic_us();

    if (machine->state == MACHINE_PAUSED)
        return NULL;
    if (machine->state != MACHINE_RUNNING)
        return error_new(ERROR_STATE, "Paused: the microVM has not started");

    /* A vCPU on its way out may need the lock to finish its exit. Nothing else runs on this thread meanwhile. */
    event_loop_unlock(machine->loop);
    vcpus_park(&machine->vcpus);
    event_loop_lock(machine->loop);
    for (size_t i = 0; i < count; i++)
        virtio_mmio_pause(list[i]);
    machine->state = MACHINE_PAUSED;
    METRIC_SET(latencies.vmm_pause_vm, clock_monotonic_us() - start_us);
    return NULL;
}

struct error *machine_resume(struct machine *machine)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    size_t count = machine_transports(machine, list);
    uint64_t start_us = clock_monotonic_us();

    if (machine->state == MACHINE_RUNNING)
        return NULL;
    if (machine->state != MACHINE_PAUSED)
        return error_new(ERROR_STATE, "Resumed: the microVM has not started");

    /* Or the guest takes the pause for a soft lockup. EINVAL: it has no kvm-clock. */
    for (uint32_t i = 0; i < machine->vcpus.count; i++)
        if (ioctl(machine->vcpus.vcpu[i].fd, KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL) {
            METRIC_INCREMENT(vcpu.kvmclock_ctrl_fails);
            log_warning("KVM_KVMCLOCK_CTRL of vCPU %u failed, errno %d", i, errno);
        }
    for (size_t i = 0; i < count; i++)
        virtio_mmio_resume(list[i]);
    machine->state = MACHINE_RUNNING;
    vcpus_run(&machine->vcpus);
    METRIC_SET(latencies.vmm_resume_vm, clock_monotonic_us() - start_us);
    return NULL;
}

/* --- The rest --- */

struct error *machine_send_ctrl_alt_del(struct machine *machine)
{
    if (machine->state == MACHINE_NOT_STARTED)
        return error_new(ERROR_STATE, "SendCtrlAltDel: the microVM has not started");
    return i8042_send_ctrl_alt_del(&machine->i8042);
}

struct error *machine_press_power_button(struct machine *machine)
{
    if (machine->state == MACHINE_NOT_STARTED)
        return error_new(ERROR_STATE, "PowerButton: the microVM has not started");
    if (eventfd_write(machine->power_button_irq_fd, 1) < 0)
        return error_errno(errno, "PowerButton: cannot interrupt the guest");
    return NULL;
}

struct error *machine_flush_metrics(struct machine *machine)
{
    return machine->metrics_fd < 0 ? NULL : metrics_write(machine->metrics_fd);
}

void machine_leave(struct machine *machine, int exit_code, const char *reason)
{
    serial_close(&machine->serial);
    if (signals_termination() != 0)
        log_info("terminated by signal %d", signals_termination());
    else if (exit_code == EXIT_CODE_OK)
        log_info("%s: exit code %d", reason, exit_code);
    else
        log_error("%s: exit code %d", reason, exit_code);
    if (machine->metrics_fd >= 0)
        metrics_write_at_end(machine->metrics_fd);
    signals_die_of_termination();
    machine->options.exit(exit_code);
}
