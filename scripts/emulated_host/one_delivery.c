/*
 * A plugin of QEMU that keeps its emulation of SVM from delivering a guest's interrupt twice.
 *
 * When VMRUN injects an interrupt, QEMU delivers it and leaves its number in the CPU's exception_index. If the loop
 * that runs translated code is left before the guest's next exit or exception, as for each timer that is due, the
 * number is taken for an exception that is still to be delivered, and the guest gets the interrupt again, whether it
 * has interrupts enabled or not. A handler then waits for the lock that it holds itself.
 *
 * Exceptions are delivered by a function that the CPU's class names. The plugin puts itself before that: interrupts of
 * devices do not come that way, so a vector of theirs, with interrupts disabled, is one of those; it is dropped. (An
 * INT instruction comes that way, but no program here uses one with interrupts disabled.) All that it knows of QEMU is
 * what the executable exports; where that is not as expected it says so and leaves QEMU as it is.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct CPUState CPUState;

/* Of QEMU's plugin interface, version 1. */
__attribute__((visibility("default"))) int qemu_plugin_version = 1;
void qemu_plugin_register_vcpu_init_cb(uint64_t id, void (*made)(uint64_t id, unsigned index));

/* Of QEMU itself, and of GLib. */
typedef struct {
    uint8_t *data;
    unsigned length;
} ByteArray;
CPUState *qemu_get_cpu(int index);
void *object_get_class(void *object);
void x86_cpu_do_interrupt(CPUState *cpu);
int x86_cpu_gdb_read_register(CPUState *cpu, ByteArray *bytes, int number);
void cpu_loop_exit_noexc(CPUState *cpu);
ByteArray *g_byte_array_new(void);
ByteArray *g_byte_array_set_size(ByteArray *bytes, unsigned length);

enum {
    FIRST_DEVICE_VECTOR = 32,
    LAST_VECTOR = 255,
    REGISTER_EFLAGS = 17, /* in gdb's order, as of a 64-bit processor */
    INTERRUPTS_ENABLED = 1 << 9,
    WORDS = 128, /* of the class, and of a table, that are looked through */
};

static size_t exception_index; /* its offset in a CPUState */

static int32_t vector_of(const CPUState *cpu)
{
    int32_t vector;
    memcpy(&vector, (const char *)cpu + exception_index, sizeof(vector));
    return vector;
}

static int interrupts_are_enabled(CPUState *cpu)
{
    static _Thread_local ByteArray *bytes;
    uint32_t flags = INTERRUPTS_ENABLED;
    if (!bytes)
        bytes = g_byte_array_new();
    g_byte_array_set_size(bytes, 0);
    if (x86_cpu_gdb_read_register(cpu, bytes, REGISTER_EFLAGS) == (int)sizeof(flags))
        memcpy(&flags, bytes->data, sizeof(flags));
    return (flags & INTERRUPTS_ENABLED) != 0;
}

static void deliver(CPUState *cpu)
{
    int32_t vector = vector_of(cpu);
    if (vector >= FIRST_DEVICE_VECTOR && vector <= LAST_VECTOR && !interrupts_are_enabled(cpu))
        return; /* and the caller takes it for delivered */
    x86_cpu_do_interrupt(cpu);
}

/* cpu_loop_exit_noexc is where it is set to -1: movl $-1, offset(%rdi). */
static int find_exception_index(void)
{
    const uint8_t *code = (const uint8_t *)(uintptr_t)cpu_loop_exit_noexc;
    for (int i = 0; i < 16; i++) {
        uint32_t offset;
        memcpy(&offset, code + i + 2, sizeof(offset));
        if (code[i] == 0xc7 && code[i + 1] == 0x87 && offset < 1 << 16 &&
            memcmp(code + i + 6, "\xff\xff\xff\xff", 4) == 0) {
            exception_index = offset;
            return 1;
        }
    }
    return 0;
}

/* Reads what may not be there; the number of whole words that are. */
static size_t words_at(const void *address, void **words)
{
    struct iovec ours = {words, WORDS * sizeof(*words)}, theirs = {(void *)(uintptr_t)address, ours.iov_len};
    ssize_t got = process_vm_readv(getpid(), &ours, 1, &theirs, 1, 0);
    return got < 0 ? 0 : (size_t)got / sizeof(*words);
}

static size_t index_of_do_interrupt(void *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (words[i] == (void *)(uintptr_t)x86_cpu_do_interrupt)
            return i;
    }
    return WORDS;
}

/*
 * The class points to a table of functions, which is constant: it gets a copy. Of the members that have such a table
 * after them it is the nearest.
 */
static int take_the_place(void **class)
{
    static void *table[WORDS];
    void *members[WORDS], *words[WORDS];
    size_t count = words_at(class, members), member = 0, place = WORDS;
    for (size_t i = 0; i < count; i++) {
        size_t found = index_of_do_interrupt(words, words_at(members[i], words));
        if (found < place) {
            place = found, member = i;
            memcpy(table, words, sizeof(table));
        }
    }
    if (place == WORDS)
        return 0;
    table[place] = (void *)(uintptr_t)deliver;
    class[member] = table;
    return 1;
}

static void cpu_made(uint64_t id, unsigned index)
{
    (void)id;
    if (index > 0)
        return; /* of the same class as the first */
    CPUState *cpu = qemu_get_cpu(0);
    if (!cpu || !find_exception_index() || !take_the_place(object_get_class(cpu)))
        fprintf(stderr, "one_delivery: this QEMU is not as expected; guests may get an interrupt twice\n");
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_init_cb(id, cpu_made);
    return 0;
}
