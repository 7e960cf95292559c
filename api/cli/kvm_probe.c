#include "api/cli/kvm_probe.h"

#include <asm/kvm.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "api/cli/kvm_probe_guest.h"
#include "vmm/base/cleanup.h"

#define PATIENCE_SECONDS 3
#define CPUID_ENTRIES_MAX 256
#define GUEST_MEMORY 0x10000
#define GUEST_GDT 0x1000
#define GUEST_IDT 0x2000
#define GUEST_PML4 0x3000
#define GUEST_PDPT 0x4000
#define GUEST_PD 0x5000 /* four of them, for 4 GiB: the local APIC is near the top */
#define GUEST_CODE 0xa000
#define GUEST_STACK 0xf000

#define VECTOR_BP 3
#define VECTOR_UD 6
/* Slower than this an instruction, and the hypervisor is emulating rather than running it. */
#define EMULATED_NS 50

extern const uint8_t guest_start[], guest_on_exception[], guest_on_breakpoint[], guest_on_interrupt[], guest_end[];

static const char *const failures[] = {
    [0] = "guest code does not run at all",
    [STEP_ENTERED] = "guest code stops in a plain loop",
    [STEP_LOOPED] = "exceptions are not delivered through the guest's IDT",
    [STEP_EXCEPTION] = "breakpoints (int3) are not delivered through the guest's IDT",
    [STEP_BREAKPOINT] = "the guest cannot save and restore its FPU state (xsave, xrstor)",
    [STEP_STATE_SAVED] = "the guest cannot go to user mode and back (iretq, syscall)",
    [STEP_USER_MODE] = "interrupts of the local APIC are not delivered through the guest's IDT",
    [STEP_SELF_IPI] = "the local APIC's timer does not wake the guest",
    [STEP_TIMER] = "guest code stops after an interrupt",
    [STEP_WANT_MESSAGE] = "message-signalled interrupts do not reach the guest",
};

static void out_of_time(int signo)
{
    (void)signo; /* its only use is to interrupt KVM_RUN */
}

static enum kvm_answer answer(struct kvm_probe *probe, enum kvm_answer verdict, const char *text, const char *detail)
{
    probe->answer = verdict;
    snprintf(probe->text, sizeof(probe->text), "%s: %s", text, detail);
    return verdict;
}

static uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void gate_set(uint8_t *memory, unsigned vector, const uint8_t *handler)
{
    uint64_t address = GUEST_CODE + (uint64_t)(handler - guest_start);
    uint64_t gate[2] = {
        (address & 0xffff) | SELECTOR_CODE << 16 | 0x8e00ull << 32 | (address >> 16 & 0xffff) << 48,
        address >> 32,
    };

    memcpy(memory + GUEST_IDT + 16 * vector, gate, sizeof(gate));
}

static void memory_prepare(uint8_t *memory)
{
    const uint64_t gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff};
    const uint64_t table = 7; /* present, writable, for user mode too */
    uint64_t *pml4 = (uint64_t *)(memory + GUEST_PML4);
    uint64_t *pdpt = (uint64_t *)(memory + GUEST_PDPT);
    uint64_t *pd = (uint64_t *)(memory + GUEST_PD);

    memcpy(memory + GUEST_GDT, gdt, sizeof(gdt));
    pml4[0] = GUEST_PDPT | table;
    for (uint64_t i = 0; i < 4; i++)
        pdpt[i] = (GUEST_PD + i * 0x1000) | table;
    for (uint64_t i = 0; i < 4 * 512; i++)
        pd[i] = i << 21 | 0x80 | table;
    gate_set(memory, VECTOR_BP, guest_on_breakpoint);
    gate_set(memory, VECTOR_UD, guest_on_exception);
    gate_set(memory, VECTOR_INTERRUPT, guest_on_interrupt);
    memcpy(memory + GUEST_CODE, guest_start, (size_t)(guest_end - guest_start));
}

static bool cpuid_copy(int kvm, int vcpu)
{
    cleanup_free struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

    if (cpuid == NULL)
        return false;
    cpuid->nent = CPUID_ENTRIES_MAX;
    return ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0 && ioctl(vcpu, KVM_SET_CPUID2, cpuid) == 0;
}

static bool registers_set(int vcpu)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = SELECTOR_CODE, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = SELECTOR_DATA, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = GUEST_CODE, .rsp = GUEST_STACK, .rflags = 2};
    struct kvm_sregs sregs;

    if (ioctl(vcpu, KVM_GET_SREGS, &sregs) != 0)
        return false;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt = (struct kvm_dtable){.base = GUEST_GDT, .limit = 39};
    sregs.idt = (struct kvm_dtable){.base = GUEST_IDT, .limit = 16 * (VECTOR_INTERRUPT + 1) - 1};
    sregs.cr3 = GUEST_PML4;
    sregs.cr4 = 1u << 5 | 1u << 9;        /* PAE, OSFXSR */
    sregs.cr0 = 1u | 1u << 4 | 1u << 31;  /* PE, ET, PG */
    sregs.efer = 1u | 1u << 8 | 1u << 10; /* SCE, LME, LMA */
    return ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0 && ioctl(vcpu, KVM_SET_REGS, &regs) == 0;
}

/* Runs the guest to its end, or until the timer or an exit that it should not make. Returns the last step it took. */
static unsigned guest_run(int vm, int vcpu, const struct kvm_run *run, uint64_t *loop_ns)
{
    struct kvm_msi message = {.address_lo = 0xfee00000, .data = VECTOR_INTERRUPT};
    uint64_t entered = 0;
    unsigned step = 0;

    while (step != STEP_DONE) {
        if (ioctl(vcpu, KVM_RUN, NULL) != 0 || run->exit_reason != KVM_EXIT_IO || run->io.port != PORT_STEP)
            return step;
        step = *((const uint8_t *)run + run->io.data_offset);
        if (step == STEP_ENTERED)
            entered = now_ns();
        if (step == STEP_LOOPED)
            *loop_ns = now_ns() - entered;
        if (step == STEP_WANT_MESSAGE && ioctl(vm, KVM_SIGNAL_MSI, &message) < 0)
            return step;
    }
    return step;
}

/* Runs the guest with a timer that interrupts KVM_RUN, in case it never comes back. */
static unsigned guest_run_for_a_while(int vm, int vcpu, const struct kvm_run *run, uint64_t *loop_ns)
{
    const struct itimerval patience = {.it_value = {.tv_sec = PATIENCE_SECONDS}, .it_interval = {.tv_usec = 100000}};
    const struct itimerval none = {0};
    const struct sigaction action = {.sa_handler = out_of_time};
    struct sigaction before;
    sigset_t alarm, mask;
    unsigned step;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigaction(SIGALRM, &action, &before);
    sigprocmask(SIG_UNBLOCK, &alarm, &mask); /* it may have been inherited blocked */
    setitimer(ITIMER_REAL, &patience, NULL);
    step = guest_run(vm, vcpu, run, loop_ns);
    setitimer(ITIMER_REAL, &none, NULL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGALRM, &before, NULL);
    return step;
}

static void tell(struct kvm_probe *probe, unsigned step, uint64_t loop_ns)
{
    double ns = (double)loop_ns / SPEED_INSTRUCTIONS;
    char speed[80] = "";

    probe->emulated = ns > EMULATED_NS;
    if (loop_ns > 0)
        snprintf(speed, sizeof(speed), " (%.*f ns an instruction%s)", ns < 10 ? 2 : 0, ns,
                 probe->emulated ? ": emulated" : "");
    probe->answer = step == STEP_DONE ? KVM_RUNS_LINUX : KVM_CANNOT_RUN_LINUX;
    if (step == STEP_DONE)
        snprintf(probe->text, sizeof(probe->text), "KVM can run Linux here%s", speed);
    else
        snprintf(probe->text, sizeof(probe->text), "KVM cannot run Linux here: %s%s", failures[step], speed);
}

/* With memory that the caller unmaps after the VM is gone. */
static enum kvm_answer probe_with(struct kvm_probe *probe, uint8_t *memory)
{
    struct kvm_userspace_memory_region slot = {.memory_size = GUEST_MEMORY, .userspace_addr = (uintptr_t)memory};
    cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    cleanup_fd int vm = -1;
    cleanup_fd int vcpu = -1;
    uint64_t loop_ns = 0;
    unsigned step;

    if (kvm < 0)
        return answer(probe, KVM_NOT_USABLE, "no usable /dev/kvm", strerror(errno));
    if (ioctl(kvm, KVM_GET_API_VERSION, NULL) != KVM_API_VERSION)
        return answer(probe, KVM_NOT_USABLE, "no usable /dev/kvm", "its API version is not 12");
    vm = ioctl(kvm, KVM_CREATE_VM, NULL);
    if (vm < 0)
        return answer(probe, KVM_NOT_USABLE, "KVM cannot create a virtual machine", strerror(errno));
    /* Intel processors without unrestricted guest want a place for a TSS; the order spares a grace period. */
    ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0 || ioctl(vm, KVM_CREATE_IRQCHIP, NULL) != 0)
        return answer(probe, KVM_CANNOT_RUN_LINUX, "KVM cannot run Linux here: memory or irqchip", strerror(errno));
    vcpu = ioctl(vm, KVM_CREATE_VCPU, NULL);
    int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (vcpu < 0 || run_size <= 0 || !cpuid_copy(kvm, vcpu) || !registers_set(vcpu))
        return answer(probe, KVM_CANNOT_RUN_LINUX, "KVM cannot run Linux here: the vCPU cannot be set up",
                      strerror(errno));
    void *run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        return answer(probe, KVM_CANNOT_RUN_LINUX, "KVM cannot run Linux here: mmap of the vCPU", strerror(errno));
    step = guest_run_for_a_while(vm, vcpu, run, &loop_ns);
    tell(probe, step, loop_ns);
    munmap(run, (size_t)run_size);
    return probe->answer;
}

enum kvm_answer kvm_probe(struct kvm_probe *probe)
{
    uint8_t *memory = mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *probe = (struct kvm_probe){0};
    if (memory == MAP_FAILED)
        return answer(probe, KVM_NOT_USABLE, "no memory for the probe", strerror(errno));
    memory_prepare(memory);
    probe_with(probe, memory);
    munmap(memory, GUEST_MEMORY);
    return probe->answer;
}
