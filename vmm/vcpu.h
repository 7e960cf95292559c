/*
 * The vCPUs: one thread each that does nothing but KVM_RUN and the exits that must be answered at once. All of them
 * obey one order: park, run or quit. They are made parked, long before the guest runs.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/bus.h"
#include "vmm/config.h"
#include "vmm/filters.h"

struct kvm_run;
struct vcpus;

enum vcpu_order { VCPU_ORDER_PARK, VCPU_ORDER_RUN, VCPU_ORDER_QUIT };

struct vcpu {
    struct vcpus *vcpus;
    uint32_t index;
    int fd;
    struct kvm_run *run; /* shared with the kernel */
    pthread_t thread;
    bool started; /* the thread */
    /* "fc_vcpu 31", in the log and in /proc: Firecracker's, as whoever pins vCPUs or bills their time looks for it. */
    char name[12];
};

struct vcpus {
    uint32_t count;
    size_t run_size;

    /* Who answers exits; set before the first vcpu_add, borrowed. */
    struct event_loop *loop; /* its lock is held around every device access */
    const struct bus *ports;
    const struct bus *mmio;
    /*
     * The guest is over, `reason` says why. On a vCPU's thread, with the loop's lock held. When
     * it returns, that vCPU never runs again.
     */
    void (*end)(void *owner, int exit_code, const char *reason);
    void *owner;
    const struct filters *filters; /* NULL: none */

    pthread_mutex_t lock; /* of the fields below */
    pthread_cond_t ordered;
    pthread_cond_t obeyed;
    enum vcpu_order order;
    uint32_t parked; /* how many threads are not in the guest and will not enter it */

    struct vcpu vcpu[VCPUS_MAX]; /* `count` of them, not under the lock */
};

void vcpus_init(struct vcpus *vcpus);

/* Creates the next vCPU of `vm_fd`, without its thread, so that its registers can be set. After the irqchip. */
struct error *vcpu_add(struct vcpus *vcpus, int vm_fd);
/* Starts the thread of the vCPU added last; it parks. After an error of either call only vcpus_free is left to do. */
struct error *vcpu_thread_start(struct vcpus *vcpus);

/* Lets all vCPUs go. Any thread. */
void vcpus_run(struct vcpus *vcpus);

/*
 * Kicks all vCPUs out of the guest and returns when every one is parked. Not with the loop's lock held: a vCPU may be
 * waiting for it. An exit that it was answering is complete then, registers and memory included.
 */
void vcpus_park(struct vcpus *vcpus);

/* Ends the threads and closes the vCPUs; count is 0 afterwards. Not with the loop's lock held while they run. */
void vcpus_free(struct vcpus *vcpus);
