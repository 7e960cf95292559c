/*
 * Entry by PVH, for QEMU's microvm: 32-bit protected mode, EBX = start info. Switches to long mode with the page tables
 * of tests/guest/lib/start.S and goes on there, with a zero page that has nothing but the command line. Mayfly enters
 * at _start by the Linux protocol when it is told so; by PVH it comes here, too.
 */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start

    .section .text, "ax"
    .code32
pvh_start:
    mov 24(%ebx), %eax /* cmdline_paddr */
    mov %eax, made_zero_page + 0x228
    mov %cr4, %eax
    or $0x20, %eax /* PAE */
    mov %eax, %cr4
    mov $page_table_4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx /* EFER */
    rdmsr
    or $0x100, %eax /* LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax /* PG, PE */
    mov %eax, %cr0
    lgdt table_pointer
    ljmp $8, $long_mode
    .code64
long_mode:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $made_zero_page, %rsi
    jmp _start

    .balign 8
table:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
table_pointer:
    .word . - table - 1
    .long table

    .section .bss
    .balign 4096
made_zero_page:
    .fill 4096
    .section .note.GNU-stack, "", @progbits
