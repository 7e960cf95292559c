/*
 * The shortest guest: one byte on the serial port, then rest. What the bench times from InstanceStart on. PADDING
 * bytes of data make the image as big as a kernel.
 */
    .section .text.start, "ax"
    .globl _start
_start:
    mov $0x3f8, %edx
    mov $'!', %al
    outb %al, %dx
1:  cli
    hlt
    jmp 1b

#ifdef PADDING
    .section .padding, "aw"
    .balign 4096
    .fill PADDING, 1, 0x5a
#endif
    .section .note.GNU-stack, "", @progbits
