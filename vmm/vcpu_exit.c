#include "vmm/vcpu_exit.h"

#include "vmm/arch/arch.h"
#include "vmm/base/log.h"
#include "vmm/exit_code.h"
#include "vmm/mapped_file.h"
#include "vmm/metrics.h"
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

enum { REASON_MAX = 160, REGISTERS_MAX = 320 };

static void log_registers(const struct vcpu *vcpu)
{
    char text[REGISTERS_MAX];

    if (arch_vcpu_describe(vcpu->fd, text, sizeof(text)))
        log_error("%s: %s", vcpu->name, text);
}

/*
 * Guest memory beyond a mapped file's end is an EFAULT, or an exception in the guest, or what KVM cannot emulate: all
 * that goes wrong in such a guest is laid to the file.
 */
static bool log_truncated_file(void)
{
    const char *file = mapped_file_truncated();

    if (file != NULL)
        log_error("'%s' was truncated while mapped into guest memory", file);
    return file != NULL;
}

static bool end_guest(struct vcpu *vcpu, int exit_code, const char *reason)
{
    struct vcpus *vcpus = vcpu->vcpus;

    if (exit_code != EXIT_CODE_OK) {
        METRIC_INCREMENT(vcpu.failures);
        log_registers(vcpu);
        if (log_truncated_file())
            exit_code = EXIT_CODE_SIGBUS;
    }
    event_loop_lock(vcpus->loop);
    vcpus->end(vcpus->owner, exit_code, reason);
    event_loop_unlock(vcpus->loop);
    return false;
}

/* One access; nobody there reads as all ones, as on a bus without pull-downs, and swallows writes. */
static bool access_bus(struct vcpu *vcpu, const struct bus *bus, bool is_write, uint64_t address, uint8_t *data,
                       uint32_t length)
{
    const struct bus_range *range = bus_find(bus, address, length);

    if (range == NULL) {
        if (!is_write)
            memset(data, 0xff, length);
        return false;
    }

    uint64_t offset = address - range->start;
    event_loop_lock(vcpu->vcpus->loop);
    if (is_write)
        range->ops->write(range->device, offset, data, length);
    else
        range->ops->read(range->device, offset, data, length);
    event_loop_unlock(vcpu->vcpus->loop);
    return true;
}

/* `count` is more than one for the string instructions (rep outsb): the same port, one element after the other. */
static bool handle_port(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    uint32_t size = run->io.size;
    bool is_write = run->io.direction == KVM_EXIT_IO_OUT;

    if (is_write)
        METRIC_INCREMENT(vcpu.exit_io_out);
    else
        METRIC_INCREMENT(vcpu.exit_io_in);
    for (uint32_t i = 0; i < run->io.count; i++)
        if (!access_bus(vcpu, vcpu->vcpus->ports, is_write, run->io.port, data + (size_t)i * size, size))
            METRIC_INCREMENT(vcpu.unknown_port);
    return true;
}

static bool handle_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    if (run->mmio.is_write)
        METRIC_INCREMENT(vcpu.exit_mmio_write);
    else
        METRIC_INCREMENT(vcpu.exit_mmio_read);
    if (access_bus(vcpu, vcpu->vcpus->mmio, run->mmio.is_write, run->mmio.phys_addr, run->mmio.data, run->mmio.len))
        return true;
    METRIC_INCREMENT(vcpu.unknown_mmio);
    /* To a KVM that emulates the instruction, memory behind the end of its file looks like MMIO. */
    if (mapped_file_truncated() != NULL)
        return end_guest(vcpu, EXIT_CODE_ERROR, "guest memory beyond the end of its file");
    return true;
}

static bool handle_shutdown(struct vcpu *vcpu)
{
    return end_guest(vcpu, EXIT_CODE_ERROR, "triple fault");
}

/* With the irqchip in the kernel a vCPU halts there; out here, nobody could wake it. */
static bool handle_halt(struct vcpu *vcpu)
{
    return end_guest(vcpu, EXIT_CODE_ERROR, "a vCPU halted for ever");
}

static bool handle_system_event(struct vcpu *vcpu)
{
    switch (vcpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        return end_guest(vcpu, EXIT_CODE_OK, "the guest powered off");
    case KVM_SYSTEM_EVENT_RESET:
        return end_guest(vcpu, EXIT_CODE_OK, "the guest reset");
    case KVM_SYSTEM_EVENT_CRASH:
        return end_guest(vcpu, EXIT_CODE_ERROR, "the guest reported a crash");
    default: {
        char reason[REASON_MAX];

        snprintf(reason, sizeof(reason), "unknown KVM system event %u", vcpu->run->system_event.type);
        return end_guest(vcpu, EXIT_CODE_ERROR, reason);
    }
    }
}

static const char *internal_error_name(uint32_t suberror)
{
    switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        return "an instruction that KVM cannot emulate";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
        return "exceptions at the same time";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        return "an event that cannot be delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
        return "an unexpected hardware exit";
    default:
        return "unknown";
    }
}

/* KVM adds data words, the failed instruction's bytes among them where it knows them. */
static bool handle_internal_error(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    char reason[REASON_MAX];
    int used = snprintf(reason, sizeof(reason), "KVM internal error %u (%s), data", run->internal.suberror,
                        internal_error_name(run->internal.suberror));

    for (uint32_t i = 0; i < run->internal.ndata && i < 4 && used > 0 && (size_t)used < sizeof(reason); i++)
        used += snprintf(reason + used, sizeof(reason) - (size_t)used, " 0x%llx", run->internal.data[i]);
    return end_guest(vcpu, EXIT_CODE_ERROR, reason);
}

static bool handle_fail_entry(struct vcpu *vcpu)
{
    char reason[REASON_MAX];

    snprintf(reason, sizeof(reason), "the processor refused to enter the guest: hardware reason 0x%llx",
             vcpu->run->fail_entry.hardware_entry_failure_reason);
    return end_guest(vcpu, EXIT_CODE_ERROR, reason);
}

static bool handle_unexpected(struct vcpu *vcpu)
{
    char reason[REASON_MAX];

    snprintf(reason, sizeof(reason), "unexpected KVM exit %u", vcpu->run->exit_reason);
    return end_guest(vcpu, EXIT_CODE_ERROR, reason);
}

/* By exit reason. What is not here, KVM was never asked for. */
bool vcpu_exit_handle(struct vcpu *vcpu)
{
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
        return handle_port(vcpu);
    case KVM_EXIT_MMIO:
        return handle_mmio(vcpu);
    case KVM_EXIT_INTR:
        return true;
    case KVM_EXIT_HLT:
        return handle_halt(vcpu);
    case KVM_EXIT_SHUTDOWN:
        return handle_shutdown(vcpu);
    case KVM_EXIT_SYSTEM_EVENT:
        return handle_system_event(vcpu);
    case KVM_EXIT_INTERNAL_ERROR:
        return handle_internal_error(vcpu);
    case KVM_EXIT_FAIL_ENTRY:
        return handle_fail_entry(vcpu);
    default:
        return handle_unexpected(vcpu);
    }
}

/* Newer than the headers of many hosts: flags, address and size follow, 64 bits each. */
enum { EXIT_MEMORY_FAULT = 39 };

/* Memory that the guest has no right to, or that the host cannot give. Some kernels say where. */
static void describe_fault(const struct vcpu *vcpu, char *reason, size_t size)
{
    const struct kvm_run *run = vcpu->run;
    uint64_t gpa;

    memcpy(&gpa, run->padding + sizeof(gpa), sizeof(gpa));
    int used = snprintf(reason, size, "KVM_RUN of %s: the guest touched memory that is not plugged or cannot be had",
                        vcpu->name);
    if (run->exit_reason == EXIT_MEMORY_FAULT && used > 0 && (size_t)used < size)
        snprintf(reason + used, size - (size_t)used, ", at 0x%llx", (unsigned long long)gpa);
}

void vcpu_exit_failed(struct vcpu *vcpu, int code)
{
    char reason[REASON_MAX];

    if (code == EFAULT)
        describe_fault(vcpu, reason, sizeof(reason));
    else
        snprintf(reason, sizeof(reason), "KVM_RUN of %s: %s", vcpu->name, strerror(code));
    end_guest(vcpu, EXIT_CODE_ERROR, reason);
}
