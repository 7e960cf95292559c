/*
 * The probe's guest, entered in long mode with its memory identity mapped; kvm_probe.c has prepared the page tables, GDT and
 * IDT, and copies this to GUEST_CODE. Each step needs something that Linux cannot do without, and says so on a port.
 */
#include "api/cli/kvm_probe_guest.h"

#define APIC_SPURIOUS 0xfee000f0
#define APIC_EOI 0xfee000b0
#define APIC_ICR 0xfee00300
#define APIC_LVT_TIMER 0xfee00320
#define APIC_TIMER_COUNT 0xfee00380
#define APIC_TIMER_DIVIDE 0xfee003e0
#define ICR_TO_SELF 0x40000

#define CR4_OSXSAVE 0x40000
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SYSCALL_MASK 0xc0000084

    .macro step number
    mov $\number, %al
    out %al, $PORT_STEP
    .endm

    /* Waits for the handler of an interrupt; a hypervisor that never delivers it is ended by the probe's timer. */
    .macro await
1:  pause
    cmpb $0, seen(%rip)
    je 1b
    movb $0, seen(%rip)
    .endm

    .section .rodata
    .globl guest_start, guest_on_exception, guest_on_breakpoint, guest_on_interrupt, guest_end
guest_start:
    step STEP_ENTERED

    /* About SPEED_INSTRUCTIONS instructions, which the host times from step to step. */
    mov $(SPEED_INSTRUCTIONS / 2), %ecx
2:  dec %ecx
    jnz 2b
    step STEP_LOOPED

    ud2
    step STEP_EXCEPTION

    /* Linux patches its code with breakpoints, and tests at boot that they work. */
    int3
    step STEP_BREAKPOINT

    /* The FPU state of a task, by the instructions that Linux takes when CPUID offers them. */
    mov $1, %eax
    cpuid
    bt $26, %ecx
    jnc 4f
    mov %cr4, %rax
    or $CR4_OSXSAVE, %rax
    mov %rax, %cr4
    mov $3, %eax /* x87 and SSE */
    xor %edx, %edx
    mov $GUEST_XSAVE, %edi
    xsave64 (%rdi)
    xrstor64 (%rdi)
4:  step STEP_STATE_SAVED

    /* To user mode with iretq, and back with syscall. STAR: sysret is not used, so only syscall's selectors count. */
    mov $MSR_STAR, %ecx
    xor %eax, %eax
    mov $SELECTOR_CODE, %edx
    wrmsr
    mov $MSR_LSTAR, %ecx
    lea 6f(%rip), %rax
    xor %edx, %edx
    wrmsr
    mov $MSR_SYSCALL_MASK, %ecx
    xor %eax, %eax
    wrmsr
    mov %rsp, %rbx
    pushq $(SELECTOR_USER_DATA | 3)
    pushq %rbx
    pushq $2
    pushq $(SELECTOR_USER_CODE | 3)
    lea 5f(%rip), %rax
    pushq %rax
    iretq
5:  syscall
6:  mov %rbx, %rsp
    step STEP_USER_MODE

    mov $APIC_SPURIOUS, %edi
    movl $0x1ff, (%rdi)
    sti
    mov $APIC_ICR, %edi
    movl $(ICR_TO_SELF | VECTOR_INTERRUPT), (%rdi)
    await
    step STEP_SELF_IPI

    mov $APIC_TIMER_DIVIDE, %edi
    movl $0xb, (%rdi)
    mov $APIC_LVT_TIMER, %edi
    movl $VECTOR_INTERRUPT, (%rdi)
    /* The timer must wake a halted processor: no interrupt may come between sti and hlt. */
    cli
    mov $APIC_TIMER_COUNT, %edi
    movl $100000, (%rdi)
    sti
    hlt
    await
    step STEP_TIMER

    /* At this step the host sends a message-signalled interrupt. */
    step STEP_WANT_MESSAGE
    await
    step STEP_DONE
3:  hlt
    jmp 3b

guest_on_exception:
    addq $2, (%rsp) /* past ud2 */
    iretq

guest_on_breakpoint:
    iretq

guest_on_interrupt:
    push %rdi
    movb $1, seen(%rip)
    mov $APIC_EOI, %edi
    movl $0, (%rdi)
    pop %rdi
    iretq

seen:
    .byte 0
guest_end:

    .section .note.GNU-stack, "", @progbits
