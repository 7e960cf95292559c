#include "vmm/vcpu.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/exit_code.h"
#include "vmm/vcpu_exit.h"

#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* Deep enough for a log line inside a device; the sanitizers' frames are several times larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STACK_SIZE = 1024 * 1024 };
#else
enum { STACK_SIZE = 64 * 1024 };
#endif

/* Only there to make KVM_RUN return EINTR. */
static void kicked(int signal)
{
    (void)signal;
}

static int kick_signal(void)
{
    return SIGRTMIN;
}

void vcpus_init(struct vcpus *vcpus)
{
    vcpus->order = VCPU_ORDER_PARK;
    pthread_mutex_init(&vcpus->lock, NULL);
    pthread_cond_init(&vcpus->ordered, NULL);
    pthread_cond_init(&vcpus->obeyed, NULL);
}

struct error *vcpu_add(struct vcpus *vcpus, int vm_fd)
{
    uint32_t index = vcpus->count;
    struct vcpu *vcpu = &vcpus->vcpu[index];

    cleanup_fd int fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (fd < 0)
        return error_errno(errno, "vcpu_count: KVM_CREATE_VCPU for vCPU %u", index);

    void *run = mmap(NULL, vcpus->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED)
        return error_errno(errno, "cannot map the kvm_run of vCPU %u", index);

    *vcpu = (struct vcpu){.vcpus = vcpus, .index = index, .run = run, .fd = take_fd(&fd)};
    snprintf(vcpu->name, sizeof(vcpu->name), "fc_vcpu %hhu", (unsigned char)index);
    vcpus->count++;
    return NULL;
}

static void obeyed(struct vcpus *vcpus)
{
    vcpus->parked++;
    pthread_cond_broadcast(&vcpus->obeyed);
}

/* Waits while the order is to park. False when it is to quit. */
static bool wait_for_run(struct vcpu *vcpu)
{
    struct vcpus *vcpus = vcpu->vcpus;
    bool run;

    pthread_mutex_lock(&vcpus->lock);
    if (vcpus->order == VCPU_ORDER_PARK) {
        obeyed(vcpus);
        while (vcpus->order == VCPU_ORDER_PARK)
            pthread_cond_wait(&vcpus->ordered, &vcpus->lock);
        vcpus->parked--;
    }
    run = vcpus->order == VCPU_ORDER_RUN;
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&vcpus->lock);
    return run;
}

/* Runs the guest until it is over (false) or this vCPU is kicked (true). */
static bool run_until_kicked(struct vcpu *vcpu)
{
    for (;;) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
            if (!vcpu_exit_handle(vcpu))
                return false;
        } else if (errno == EINTR) {
            return true;
        } else if (errno != EAGAIN) { /* EAGAIN: an application processor woke up before its INIT */
            vcpu_exit_failed(vcpu, errno);
            return false;
        }
    }
}

/* All that this thread will ever do is allowed by its filter: nothing is left to narrow when the guest starts. */
static bool narrow(struct vcpu *vcpu)
{
    struct vcpus *vcpus = vcpu->vcpus;
    cleanup_error struct error *error = filters_load(vcpus->filters, FILTER_VCPU);

    if (error == NULL)
        return true;
    event_loop_lock(vcpus->loop);
    vcpus->end(vcpus->owner, EXIT_CODE_ERROR, error->message);
    event_loop_unlock(vcpus->loop);
    return false;
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *vcpu = argument;
    bool in_use;

    log_set_thread(vcpu->name);
    /* From inside, as from outside it takes a /proc, which a jail has not. */
    prctl(PR_SET_NAME, vcpu->name);
    in_use = narrow(vcpu);
    while (in_use && wait_for_run(vcpu))
        in_use = run_until_kicked(vcpu);
    if (!in_use) {
        /* The guest is over for this vCPU; whoever parks the others need not wait for it. */
        pthread_mutex_lock(&vcpu->vcpus->lock);
        obeyed(vcpu->vcpus);
        pthread_mutex_unlock(&vcpu->vcpus->lock);
    }
    return NULL;
}

/* All signals are the main thread's but the kick and those that an instruction of the thread itself raises. */
static void vcpu_signal_mask(sigset_t *mask)
{
    static const int unmasked[] = {SIGBUS, SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGSYS};

    sigfillset(mask);
    for (size_t i = 0; i < array_length(unmasked); i++)
        sigdelset(mask, unmasked[i]);
    sigdelset(mask, kick_signal());
}

struct error *vcpu_thread_start(struct vcpus *vcpus)
{
    struct vcpu *vcpu = &vcpus->vcpu[vcpus->count - 1];
    struct sigaction action = {.sa_handler = kicked};
    pthread_attr_t attributes;
    sigset_t mask, saved;

    if (vcpu->index == 0)
        sigaction(kick_signal(), &action, NULL);

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    vcpu_signal_mask(&mask);
    pthread_sigmask(SIG_SETMASK, &mask, &saved); /* inherited */
    int code = pthread_create(&vcpu->thread, &attributes, vcpu_thread, vcpu);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    pthread_attr_destroy(&attributes);
    if (code != 0)
        return error_errno(code, "vcpu_count: cannot start the thread of vCPU %u", vcpu->index);
    vcpu->started = true;
    return NULL;
}

static void give_order(struct vcpus *vcpus, enum vcpu_order order)
{
    pthread_mutex_lock(&vcpus->lock);
    vcpus->order = order;
    pthread_cond_broadcast(&vcpus->ordered);
    pthread_mutex_unlock(&vcpus->lock);
}

/*
 * immediate_exit first, then the signal: a vCPU on its way into KVM_RUN, whose signal was already taken, still comes
 * back at once.
 */
static void kick_all(struct vcpus *vcpus)
{
    for (uint32_t i = 0; i < vcpus->count; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];

        if (!vcpu->started)
            continue;
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
        pthread_kill(vcpu->thread, kick_signal());
    }
}

void vcpus_run(struct vcpus *vcpus)
{
    give_order(vcpus, VCPU_ORDER_RUN);
}

void vcpus_park(struct vcpus *vcpus)
{
    give_order(vcpus, VCPU_ORDER_PARK);
    kick_all(vcpus);
    pthread_mutex_lock(&vcpus->lock);
    while (vcpus->parked < vcpus->count)
        pthread_cond_wait(&vcpus->obeyed, &vcpus->lock);
    pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_free(struct vcpus *vcpus)
{
    if (vcpus->count == 0)
        return;
    give_order(vcpus, VCPU_ORDER_QUIT);
    kick_all(vcpus);
    for (uint32_t i = 0; i < vcpus->count; i++) {
        struct vcpu *vcpu = &vcpus->vcpu[i];

        if (vcpu->started)
            pthread_join(vcpu->thread, NULL);
        munmap(vcpu->run, vcpus->run_size);
        fd_close(&vcpu->fd);
    }
    vcpus->count = 0;
    vcpus->parked = 0;
    vcpus->order = VCPU_ORDER_PARK;
}
