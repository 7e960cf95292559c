/* The model-specific registers whose reset values in KVM are not what a booted machine has. */
#pragma once

#include "vmm/base/error.h"

struct error *msrs_set(int vcpu_fd);
