/*
 * What a freestanding guest program stands on. It polls: no interrupt is ever taken. Keep programs short: a host may
 * emulate every instruction at a third of a microsecond.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each program is this function. Returning resets the machine. */
void guest_main(void);

/* Ports and registers. */
static inline void port_write8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t port_read8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t mmio_read32(uint64_t gpa)
{
    uint32_t value;

    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
    return value;
}

static inline void mmio_write32(uint64_t gpa, uint32_t value)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
}

static inline uint8_t mmio_read8(uint64_t gpa)
{
    uint8_t value;

    __asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(gpa) : "memory");
    return value;
}

static inline uint64_t time_stamp(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void compiler_barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

/* The 16550 at 0x3f8. */
void serial_put(char byte);
void serial_puts(const char *text);
void serial_decimal(uint64_t value);
void serial_hex(uint64_t value);
/* "name value\n" in hex: the usual result line. */
void serial_result(const char *name, uint64_t value);
bool serial_ready(void); /* a byte has arrived */
char serial_get(void);   /* waits for one */

/* Ways to end. */
void guest_reset(void) __attribute__((noreturn));        /* i8042: an ordinary end */
void guest_triple_fault(void) __attribute__((noreturn)); /* an exception without an IDT */
void guest_halt(void) __attribute__((noreturn));         /* waits for an interrupt that never comes */
/* Prints "FAIL <what>" and resets. */
void guest_fail(const char *what) __attribute__((noreturn));
void guest_expect(bool condition, const char *what);

/* Writes 123 to the boot timer. */
void boot_timer_write(void);

/* The command line that the VMM gave. */
const char *cmdline(void);
/* The text after "<name>=" up to the next blank, copied into `value`; false when there is no such word. */
bool cmdline_value(const char *name, char *value, size_t size);
uint64_t cmdline_number(const char *name, uint64_t otherwise);
bool cmdline_has(const char *word);

/* The memory map of the zero page. */
struct e820_entry {
    uint64_t start;
    uint64_t size;
    uint32_t type; /* 1: usable RAM */
} __attribute__((packed));
unsigned e820_count(void);
struct e820_entry e820_at(unsigned index);
const uint8_t *zero_page(void);

/* Makes `gpa` reachable when it is above 4 GiB (2 MiB around it); false without room for more page tables. */
bool guest_map(uint64_t gpa);

bool text_equal(const char *a, const char *b);
size_t text_length(const char *text);
uint64_t text_number(const char *text);
void *memcpy(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *a, const void *b, size_t length);
