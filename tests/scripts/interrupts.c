/*
 * For the emulated host: injects interrupts into a guest whose handler leaves them disabled, while timers of the host
 * fall due. Exits with 1 when the handler is entered a second time for one of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { MEMORY = 0x10000, CODE = 0x1000, STACK = 0x8000, LINE = 5, VECTOR = 0x40 + LINE, TIMES = 100 };
enum { TWICE = 0x11 }; /* a port; any other ends a wait */

/*
 * In real mode: sets the interrupt controller up, then waits for interrupts, and in the handler for long enough that a
 * timer of the host falls due.
 */
asm(".pushsection .rodata\n"
    ".code16\n"
    "guest: movb $0x11, %al\n"
    "    outb %al, $0x20\n"
    "    movb $0x40, %al\n"
    "    outb %al, $0x21\n"
    "    movb $4, %al\n"
    "    outb %al, $0x21\n"
    "    movb $1, %al\n"
    "    outb %al, $0x21\n"
    "    movb $0, %al\n"
    "    outb %al, $0x21\n"
    "    sti\n"
    "    outb %al, $0x10\n"
    "1:  jmp 1b\n"
    "handler: cmpw $0, 0x2000\n"
    "    je 2f\n"
    "    outb %al, $0x11\n"
    "2:  movw $1, 0x2000\n"
    "    movl $200000, %ecx\n"
    "3:  decl %ecx\n"
    "    jnz 3b\n"
    "    movw $0, 0x2000\n"
    "    movb $0x20, %al\n"
    "    outb %al, $0x20\n"
    "    outb %al, $0x10\n"
    "    iret\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const uint8_t guest[], handler[], guest_end[];

static void ignore(int number)
{
    (void)number;
}

static int checked(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(2);
    }
    return result;
}

/* Runs until the guest writes to its port; signals are no end. */
static void run_to_port(int vcpu, const struct kvm_run *run)
{
    while (ioctl(vcpu, KVM_RUN, 0) < 0) {
        if (errno != EINTR)
            checked(-1, "KVM_RUN");
    }
    if (run->exit_reason != KVM_EXIT_IO) {
        fprintf(stderr, "exit reason %u\n", run->exit_reason);
        exit(2);
    }
    if (run->io.port == TWICE) {
        printf("an interrupt came twice\n");
        exit(1);
    }
}

int main(void)
{
    int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    int vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
    checked(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "memory");
    memcpy(memory + CODE, guest, (size_t)(guest_end - guest));
    uint16_t entry = (uint16_t)(CODE + (handler - guest));
    memcpy(memory + 4 * VECTOR, &entry, sizeof(entry));

    checked(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    int vcpu = checked(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    size_t size = (size_t)checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "size");
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_sregs special;
    checked(ioctl(vcpu, KVM_GET_SREGS, &special), "KVM_GET_SREGS");
    special.cs.base = special.cs.selector = 0;
    checked(ioctl(vcpu, KVM_SET_SREGS, &special), "KVM_SET_SREGS");
    struct kvm_regs registers = {.rip = CODE, .rsp = STACK, .rflags = 2};
    checked(ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");

    signal(SIGALRM, ignore);
    struct itimerval timer = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &timer, NULL);
    run_to_port(vcpu, run);
    for (int i = 0; i < TIMES; i++) {
        struct kvm_irq_level line = {.irq = LINE, .level = 1};
        checked(ioctl(vm, KVM_IRQ_LINE, &line), "KVM_IRQ_LINE");
        line.level = 0;
        checked(ioctl(vm, KVM_IRQ_LINE, &line), "KVM_IRQ_LINE");
        run_to_port(vcpu, run);
    }
    printf("%d interrupts, each once\n", TIMES);
    return 0;
}
