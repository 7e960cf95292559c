/* Entered by the PVH protocol: 32-bit protected mode, EBX = start info. Says "pvh" when its magic is right. */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .section .text.start, "ax"
    .globl _start
_start: /* the 64-bit entry, which a loader that knows PVH does not take */
    mov $'6', %al
    mov $0x3f8, %edx
    outb %al, %dx
    jmp reset

    .code32
pvh_start:
    mov $0x3f8, %edx
    cmpl $0x336ec578, (%ebx)
    jne reset
    mov $'p', %al
    outb %al, %dx
    mov $'v', %al
    outb %al, %dx
    mov $'h', %al
    outb %al, %dx
reset:
    mov $0xfe, %al
    outb %al, $0x64
1:  hlt
    jmp 1b
    .section .note.GNU-stack, "", @progbits
