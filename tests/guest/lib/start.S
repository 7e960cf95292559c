/*
 * Entry by the Linux 64-bit boot protocol: long mode, interrupts off, RSI = zero page, no stack. The tables that the
 * boot loader made need only cover the kernel, so these take over: the first 4 GiB, identity-mapped in 2 MiB pages.
 */
    .section .text.start, "ax"
    .globl _start
_start:
    mov $stack_end, %rsp
    mov $page_table_4, %rax
    mov %rax, %cr3
    mov %rsi, %rdi
    call guest_start
1:  hlt
    jmp 1b

    .section .data.page_tables, "aw"
    .balign 4096
    .globl page_table_4
page_table_4:
    .quad page_table_3 + 0x3
    .fill 511, 8, 0
    .globl page_table_3
page_table_3:
    .quad page_table_2 + 0x0003, page_table_2 + 0x1003, page_table_2 + 0x2003, page_table_2 + 0x3003
    .fill 508, 8, 0
page_table_2:
    .set page, 0
    .rept 2048
    .quad page + 0x83
    .set page, page + 0x200000
    .endr

    .section .bss
    .balign 16
    .fill 16384
stack_end:
    .section .note.GNU-stack, "", @progbits
