/* The KVM calls that belong to no architecture. Descriptors are plain ints, closed by their owner. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/guest_memory.h"

/* Opens /dev/kvm and checks that it speaks the API we were built for. */
struct error *kvm_open(int *kvm_fd);

/* How many bytes of a vCPU's descriptor its struct kvm_run takes. */
struct error *kvm_run_size(int kvm_fd, size_t *size);

struct error *kvm_vm_new(int kvm_fd, int *vm_fd);

/* Registers every region as the memslot of its index. Before the irqchip and any ioeventfd: see machine_prepare.c. */
struct error *kvm_memslots_set(int vm_fd, const struct guest_memory *memory, bool track_dirty_pages);

/*
 * One memslot beyond the regions of guest memory, with KVM_MEM_* flags; size 0 takes it away. At the same time, or
 * while the guest runs.
 */
struct error *kvm_memslot_set(int vm_fd, uint32_t slot, const struct guest_region *region, uint32_t flags);

/* Makes `*event_fd`, a non-blocking eventfd whose every write is an edge on `gsi`. After the irqchip. */
struct error *kvm_irq_event_new(int vm_fd, uint32_t gsi, int *event_fd);
