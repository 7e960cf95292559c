/*
 * Can this machine's KVM run Linux? Asks by running a small guest that does what Linux cannot do without: take
 * exceptions and three kinds of interrupt through its IDT, save its FPU state, go to user mode and back. A hypervisor
 * can offer all of KVM's ioctls and yet not do that. Says the answer in one line. Exit code: 0 it can, 1 it cannot, 2
 * there is no usable /dev/kvm.
 */
#include "probe.h"

#include <asm/kvm.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_SECONDS 3
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

enum { ANSWER_YES = 0, ANSWER_NO = 1, ANSWER_NO_KVM = 2 };

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

static int answer(int code, const char *text, const char *detail)
{
    printf("%s%s%s\n", text, detail[0] ? ": " : "", detail);
    return code;
}

static uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* musl's ioctl takes an int, glibc's an unsigned long; the kernel looks at 32 bits. */
static int kvm_call(int fd, unsigned long request, const void *argument)
{
    return ioctl(fd, (int)request, argument);
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
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[256];
    } cpuid = {.head = {.nent = 256}};

    return kvm_call(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) == 0 && kvm_call(vcpu, KVM_SET_CPUID2, &cpuid) == 0;
}

static bool registers_set(int vcpu)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = SELECTOR_CODE, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = SELECTOR_DATA, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = GUEST_CODE, .rsp = GUEST_STACK, .rflags = 2};
    struct kvm_sregs sregs;

    if (kvm_call(vcpu, KVM_GET_SREGS, &sregs) != 0)
        return false;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt = (struct kvm_dtable){.base = GUEST_GDT, .limit = 39};
    sregs.idt = (struct kvm_dtable){.base = GUEST_IDT, .limit = 16 * (VECTOR_INTERRUPT + 1) - 1};
    sregs.cr3 = GUEST_PML4;
    sregs.cr4 = 1u << 5 | 1u << 9;        /* PAE, OSFXSR */
    sregs.cr0 = 1u | 1u << 4 | 1u << 31;  /* PE, ET, PG */
    sregs.efer = 1u | 1u << 8 | 1u << 10; /* SCE, LME, LMA */
    return kvm_call(vcpu, KVM_SET_SREGS, &sregs) == 0 && kvm_call(vcpu, KVM_SET_REGS, &regs) == 0;
}

/* Runs the guest to its end, or until the timer or an exit that it should not make. Returns the last step it took. */
static unsigned guest_run(int vm, int vcpu, const struct kvm_run *run, uint64_t *loop_ns)
{
    struct kvm_msi message = {.address_lo = 0xfee00000, .data = VECTOR_INTERRUPT};
    uint64_t entered = 0;
    unsigned step = 0;

    while (step != STEP_DONE) {
        if (kvm_call(vcpu, KVM_RUN, NULL) != 0 || run->exit_reason != KVM_EXIT_IO || run->io.port != PORT_STEP)
            return step;
        step = *((const uint8_t *)run + run->io.data_offset);
        if (step == STEP_ENTERED)
            entered = now_ns();
        if (step == STEP_LOOPED)
            *loop_ns = now_ns() - entered;
        if (step == STEP_WANT_MESSAGE && kvm_call(vm, KVM_SIGNAL_MSI, &message) < 0)
            return step;
    }
    return step;
}

int main(void)
{
    struct itimerval patience = {.it_value = {.tv_sec = PATIENCE_SECONDS}, .it_interval = {.tv_usec = 100000}};
    struct sigaction action = {.sa_handler = out_of_time};
    char speed[80];
    uint64_t loop_ns = 0;

    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return answer(ANSWER_NO_KVM, "no usable /dev/kvm", strerror(errno));
    if (kvm_call(kvm, KVM_GET_API_VERSION, NULL) != KVM_API_VERSION)
        return answer(ANSWER_NO_KVM, "no usable /dev/kvm", "its API version is not 12");

    uint8_t *memory = mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return answer(ANSWER_NO_KVM, "no memory for the probe", strerror(errno));
    memory_prepare(memory);
    struct kvm_userspace_memory_region slot = {.memory_size = GUEST_MEMORY, .userspace_addr = (uintptr_t)memory};

    int vm = kvm_call(kvm, KVM_CREATE_VM, NULL);
    if (vm < 0)
        return answer(ANSWER_NO_KVM, "KVM cannot create a virtual machine", strerror(errno));
    /* Intel processors without unrestricted guest want a place for a TSS; the order spares a grace period. */
    kvm_call(vm, KVM_SET_TSS_ADDR, (const void *)0xfffbd000);
    if (kvm_call(vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0 || kvm_call(vm, KVM_CREATE_IRQCHIP, NULL) != 0)
        return answer(ANSWER_NO, "KVM cannot run Linux here: memory or irqchip", strerror(errno));
    int vcpu = kvm_call(vm, KVM_CREATE_VCPU, NULL);
    int run_size = kvm_call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (vcpu < 0 || run_size <= 0 || !cpuid_copy(kvm, vcpu) || !registers_set(vcpu))
        return answer(ANSWER_NO, "KVM cannot run Linux here: the vCPU cannot be set up", strerror(errno));
    const struct kvm_run *run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        return answer(ANSWER_NO, "KVM cannot run Linux here: mmap of the vCPU", strerror(errno));

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &patience, NULL);
    unsigned step = guest_run(vm, vcpu, run, &loop_ns);

    double ns = (double)loop_ns / SPEED_INSTRUCTIONS;

    speed[0] = 0;
    if (loop_ns > 0)
        snprintf(speed, sizeof(speed), " (%.*f ns an instruction%s)", ns < 10 ? 2 : 0, ns,
                 ns > EMULATED_NS ? ": emulated" : "");
    if (step == STEP_DONE) {
        printf("KVM can run Linux here%s\n", speed);
        return ANSWER_YES;
    }
    printf("KVM cannot run Linux here: %s%s\n", failures[step], speed);
    return ANSWER_NO;
}
