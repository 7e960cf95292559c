/* What a vCPU does when KVM_RUN returns. */
#pragma once

#include <stdbool.h>

struct vcpu;

/* Answers the exit in vcpu->run. False when it ended the guest. On the vCPU's thread. */
bool vcpu_exit_handle(struct vcpu *vcpu);

/* KVM_RUN failed with errno `code`: logs why and ends the guest. */
void vcpu_exit_failed(struct vcpu *vcpu, int code);
