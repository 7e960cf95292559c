#include "vmm/arch/x86_64/mptable.h"

#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/table_writer.h"

enum {
    POINTER_SIZE = 16,
    POINTER_CHECKSUM = 10,
    HEADER_LENGTH = 4, /* offsets */
    HEADER_CHECKSUM = 7,
    HEADER_ENTRY_COUNT = 34,
};

enum { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum { INTERRUPT_VECTORED = 0, INTERRUPT_NMI = 1, INTERRUPT_EXTINT = 3 };
enum { ISA_BUS = 0, ALL_LOCAL_APICS = 0xff, APIC_VERSION = 0x14, TIMER_GSI = 0, KEYBOARD_GSI = 1 };
enum { PROCESSOR_ENABLED = 1, PROCESSOR_BOOT = 2, IOAPIC_ENABLED = 1, FEATURE_FPU = 1 << 0, FEATURE_APIC = 1 << 9 };

static void put_pointer(struct table_writer *out)
{
    put_bytes(out, "_MP_", 4);
    put_u32(out, (uint32_t)LAYOUT_MP_TABLE + POINTER_SIZE);
    put_u8(out, POINTER_SIZE / 16);
    put_u8(out, 4); /* specification 1.4 */
    put_u8(out, 0); /* checksum */
    put_zeros(out, 5);
    patch_checksum(out, POINTER_CHECKSUM, 0, POINTER_SIZE);
}

static void put_header(struct table_writer *out)
{
    put_bytes(out, "PCMP", 4);
    put_u16(out, 0); /* length */
    put_u8(out, 4);  /* specification 1.4 */
    put_u8(out, 0);  /* checksum */
    put_bytes(out, "MAYFLY  ", 8);
    put_bytes(out, "MICROVM     ", 12);
    put_zeros(out, 6); /* no OEM table */
    put_u16(out, 0);   /* entries */
    put_u32(out, LAYOUT_LOCAL_APIC);
    put_zeros(out, 4); /* no extended entries */
}

static void put_processor(struct table_writer *out, uint32_t index)
{
    put_u8(out, ENTRY_PROCESSOR);
    put_u8(out, (uint8_t)index); /* APIC id */
    put_u8(out, APIC_VERSION);
    put_u8(out, (uint8_t)(PROCESSOR_ENABLED | (index == 0 ? PROCESSOR_BOOT : 0)));
    put_u32(out, 0x600); /* family 6; kernels ask CPUID */
    put_u32(out, FEATURE_FPU | FEATURE_APIC);
    put_zeros(out, 8);
}

static void put_interrupt(struct table_writer *out, uint8_t entry, uint8_t type, uint32_t gsi, uint8_t apic,
                          uint8_t input)
{
    put_u8(out, entry);
    put_u8(out, type);
    put_u16(out, 0); /* polarity and trigger of the bus: ISA is active high, edge */
    put_u8(out, ISA_BUS);
    put_u8(out, (uint8_t)gsi);
    put_u8(out, apic);
    put_u8(out, input);
}

/* Only inputs that something is wired to: each costs the guest some thousand instructions. Returns how many. */
static uint16_t put_interrupts(struct table_writer *out, const struct arch_boot *boot, uint8_t ioapic)
{
    uint16_t count = 0;

    put_interrupt(out, ENTRY_INTERRUPT, INTERRUPT_VECTORED, TIMER_GSI, ioapic, TIMER_GSI);
    put_interrupt(out, ENTRY_INTERRUPT, INTERRUPT_VECTORED, KEYBOARD_GSI, ioapic, KEYBOARD_GSI);
    count = 2;
    if (boot->has_serial) {
        put_interrupt(out, ENTRY_INTERRUPT, INTERRUPT_VECTORED, ARCH_SERIAL_GSI, ioapic, ARCH_SERIAL_GSI);
        count++;
    }
    for (size_t i = 0; i < boot->slot_count; i++, count++) {
        uint32_t gsi = boot->slots[i].gsi;
        put_interrupt(out, ENTRY_INTERRUPT, INTERRUPT_VECTORED, gsi, ioapic, (uint8_t)gsi);
    }
    put_interrupt(out, ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTINT, 0, 0, 0);
    put_interrupt(out, ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, ALL_LOCAL_APICS, 1);
    return (uint16_t)(count + 2);
}

struct error *mptable_write(const struct guest_memory *memory, const struct arch_boot *boot)
{
    const size_t capacity = LAYOUT_MP_TABLE_END - LAYOUT_MP_TABLE;
    const uint8_t ioapic = (uint8_t)boot->vcpu_count; /* an id that no local APIC has */
    struct table_writer out = {.buffer = guest_memory_at(memory, LAYOUT_MP_TABLE, capacity), .capacity = capacity};

    if (out.buffer == NULL)
        return error_new(ERROR_INTERNAL, "no guest memory for the MP table");

    put_pointer(&out);
    put_header(&out);
    for (uint32_t i = 0; i < boot->vcpu_count; i++)
        put_processor(&out, i);
    put_u8(&out, ENTRY_BUS);
    put_u8(&out, ISA_BUS);
    put_bytes(&out, "ISA   ", 6);
    put_u8(&out, ENTRY_IOAPIC);
    put_u8(&out, ioapic);
    put_u8(&out, 0x11); /* version: KVM's */
    put_u8(&out, IOAPIC_ENABLED);
    put_u32(&out, LAYOUT_IOAPIC);

    const uint16_t entries = (uint16_t)(boot->vcpu_count + 2 + put_interrupts(&out, boot, ioapic));
    const uint16_t length = (uint16_t)(out.length - POINTER_SIZE);
    if (out.full)
        return error_new(ERROR_INTERNAL, "the MP table of %u vCPUs and %zu devices does not fit", boot->vcpu_count,
                         boot->slot_count);
    patch_bytes(&out, POINTER_SIZE + HEADER_LENGTH, &length, sizeof(length));
    patch_bytes(&out, POINTER_SIZE + HEADER_ENTRY_COUNT, &entries, sizeof(entries));
    patch_checksum(&out, POINTER_SIZE + HEADER_CHECKSUM, POINTER_SIZE, length);
    return NULL;
}
