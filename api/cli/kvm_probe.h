/*
 * Can this machine's KVM run Linux? Asks by running a small guest (kvm_probe_guest.S) that does what Linux cannot do
 * without: take exceptions and three kinds of interrupt through its IDT, save its FPU state, go to user mode and back.
 * A hypervisor can offer all of KVM's ioctls and yet not do that. `mayfly doctor` asks, and scripts/kvm-linux-probe,
 * which compiles this file before anything else is built: it needs the C library, the kernel's headers and
 * vmm/base/cleanup.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Also the exit codes of scripts/kvm-linux-probe. */
enum kvm_answer {
    KVM_RUNS_LINUX = 0,
    KVM_CANNOT_RUN_LINUX = 1,
    KVM_NOT_USABLE = 2, /* no /dev/kvm, no permission, or it creates no virtual machine */
};

struct kvm_probe {
    enum kvm_answer answer;
    bool emulated;  /* guest code ran so slowly that it cannot have run on the processor itself */
    char text[200]; /* the answer in one line, with the reason and the speed */
};

/* Fills `probe` and returns its answer. Takes milliseconds, or some seconds when the guest hangs; uses SIGALRM. */
enum kvm_answer kvm_probe(struct kvm_probe *probe);
