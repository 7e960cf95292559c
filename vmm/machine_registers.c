/*
 * The pages from which the guest reads its devices' registers: one memslot that it cannot write. A read is no exit
 * then, and a write is one as if there were no memory; ioeventfds see it, too. The guest maps them uncached, we do not:
 * x86 keeps the two coherent. An architecture that does not (aarch64, for device memory) must do without.
 */
#include "vmm/machine_parts.h"

#include "vmm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/mman.h>

/* Between those of guest memory and those of files that are memory. */
enum { MEMSLOT = 128, PAGES_SIZE = VIRTIO_DEVICES_MAX * VIRTIO_MMIO_SIZE };

struct error *machine_registers_map(struct machine *machine)
{
    if (machine->registers == NULL) {
        void *pages = mmap(NULL, PAGES_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (pages == MAP_FAILED)
            return error_errno(errno, "cannot map the registers of virtio devices");
        machine->registers = pages;
    }

    const struct guest_region region = {.gpa = ARCH_VIRTIO_MMIO_GPA, .size = PAGES_SIZE, .hva = machine->registers};
    return kvm_memslot_set(machine->vm_fd, MEMSLOT, &region, KVM_MEM_READONLY);
}

void machine_registers_unmap(struct machine *machine)
{
    if (machine->registers != NULL)
        munmap(machine->registers, PAGES_SIZE);
    machine->registers = NULL;
}

void machine_registers_show(struct machine *machine)
{
    struct virtio_mmio *list[VIRTIO_DEVICES_MAX];
    size_t count = machine_transports(machine, list);

    for (size_t slot = 0; slot < count; slot++)
        virtio_mmio_place(list[slot], machine->registers + slot * VIRTIO_MMIO_SIZE);
}
