#include "vmm/arch/x86_64/acpi.h"

#include "vmm/arch/x86_64/aml.h"
#include "vmm/arch/x86_64/layout.h"

#include <stdio.h>

enum {
    HEADER_SIZE = 36,
    HEADER_LENGTH = 4, /* offsets */
    HEADER_CHECKSUM = 9,
    RSDP_SIZE = 36,
    RSDP_CHECKSUM = 8, /* over the first 20 bytes, all there was in ACPI 1 */
    RSDP_SIZE_ACPI1 = 20,
    RSDP_CHECKSUM_EXTENDED = 32,
};

/* FADT: offsets (table 5.9), flags, registers. */
enum {
    FADT_SIZE = 276,
    FADT_DSDT = 40,
    FADT_BOOT_ARCH = 109,
    FADT_FLAGS = 112,
    FADT_RESET_REGISTER = 116,
    FADT_RESET_VALUE = 128,
    FADT_MINOR_VERSION = 131,
    FADT_X_DSDT = 140,
    FADT_SLEEP_CONTROL = 244,
    FADT_SLEEP_STATUS = 256,
};

/*
 * Hardware-reduced: no SCI, no ACPI timer, and Linux then leaves the 8259s and the PIT alone as well. There is a
 * keyboard controller (Ctrl-Alt-Del), no VGA and no CMOS clock: a guest told so does not wait for them. The power
 * button is a device of its own, not fixed hardware.
 */
#define BOOT_ARCH (BOOT_ARCH_8042 | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_CMOS_CLOCK)
#define BOOT_ARCH_8042 (1u << 1)
#define BOOT_ARCH_NO_VGA (1u << 2)
#define BOOT_ARCH_NO_CMOS_CLOCK (1u << 5)
#define FLAGS (FLAG_WBINVD | FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON | FLAG_RESET_REGISTER | FLAG_HARDWARE_REDUCED)
#define FLAG_WBINVD (1u << 0)
#define FLAG_NO_POWER_BUTTON (1u << 4)
#define FLAG_NO_SLEEP_BUTTON (1u << 5)
#define FLAG_RESET_REGISTER (1u << 10)
#define FLAG_HARDWARE_REDUCED (1u << 20)

enum { I8042_COMMAND_PORT = 0x64, MADT_LOCAL_APIC = 0, MADT_IOAPIC = 1, S5_SLEEP_TYPE = 5, BUTTON_PRESSED = 0x80 };

static size_t table_begin(struct table_writer *out, const char *signature, uint8_t revision)
{
    size_t start = out->length;

    put_bytes(out, signature, 4);
    put_u32(out, 0); /* length, patched at the end */
    put_u8(out, revision);
    put_u8(out, 0);                /* checksum, patched at the end */
    put_bytes(out, "MAYFLY", 6);   /* OEM id */
    put_bytes(out, "MICROVM ", 8); /* OEM table id */
    put_u32(out, 1);               /* OEM revision */
    put_bytes(out, "MYFL", 4);     /* creator id */
    put_u32(out, 1);               /* creator revision */
    return start;
}

/* Returns the table's GPA. */
static uint64_t table_end(struct table_writer *out, size_t start)
{
    const uint32_t length = (uint32_t)(out->length - start);

    patch_bytes(out, start + HEADER_LENGTH, &length, sizeof(length));
    patch_checksum(out, start + HEADER_CHECKSUM, start, length);
    return LAYOUT_ACPI + start;
}

static void describe_serial(struct table_writer *aml)
{
    size_t device = aml_device_begin(aml, "COM1");
    aml_name_eisa_id(aml, "_HID", "PNP0501");
    aml_name_integer(aml, "_UID", 0);
    size_t resources = aml_resources_begin(aml);
    aml_resource_io(aml, 0x3f8, 8);
    aml_resource_interrupt(aml, ARCH_SERIAL_GSI);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static void describe_keyboard(struct table_writer *aml)
{
    size_t device = aml_device_begin(aml, "PS2K");
    aml_name_eisa_id(aml, "_HID", "PNP0303");
    size_t resources = aml_resources_begin(aml);
    aml_resource_io(aml, 0x60, 1);
    aml_resource_io(aml, I8042_COMMAND_PORT, 1);
    aml_resource_interrupt(aml, 1);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

/*
 * The button and the device whose interrupt says that it was pressed (5.6.9): hardware-reduced ACPI has no SCI, an
 * event's interrupt runs _EVT, which notifies the button.
 */
static void describe_power_button(struct table_writer *aml)
{
    size_t button = aml_device_begin(aml, "PWRB");
    aml_name_eisa_id(aml, "_HID", "PNP0C0C");
    aml_end(aml, button);

    size_t events = aml_device_begin(aml, "GED_");
    aml_name_string(aml, "_HID", "ACPI0013");
    size_t resources = aml_resources_begin(aml);
    aml_resource_interrupt(aml, ARCH_POWER_BUTTON_GSI);
    aml_resources_end(aml, resources);
    size_t method = aml_method_begin(aml, "_EVT", 1);
    aml_notify(aml, "PWRB", BUTTON_PRESSED);
    aml_end(aml, method);
    aml_end(aml, events);
}

static void describe_virtio(struct table_writer *aml, const struct arch_virtio_slot *slot, uint8_t index)
{
    char name[8];

    snprintf(name, sizeof(name), "V%03X", (unsigned)index);
    size_t device = aml_device_begin(aml, name);
    aml_name_string(aml, "_HID", "LNRO0005"); /* what Linux's virtio-mmio driver is called in ACPI */
    aml_name_integer(aml, "_UID", index);
    aml_name_integer(aml, "_CCA", 1); /* DMA is cache-coherent */
    size_t resources = aml_resources_begin(aml);
    aml_resource_memory(aml, (uint32_t)slot->gpa, 0x1000);
    aml_resource_interrupt(aml, slot->gsi);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static uint64_t put_dsdt(struct table_writer *out, const struct arch_boot *boot)
{
    size_t start = table_begin(out, "DSDT", 2);
    size_t scope = aml_scope_begin(out, "\\_SB_");

    if (boot->has_serial)
        describe_serial(out);
    describe_keyboard(out);
    for (size_t i = 0; i < boot->slot_count; i++)
        describe_virtio(out, &boot->slots[i], (uint8_t)i);
    describe_power_button(out);
    aml_end(out, scope);
    aml_name_sleep_package(out, "_S5_", S5_SLEEP_TYPE);
    return table_end(out, start);
}

/* Generic address structure (5.2.3.2): one byte in I/O space. */
static void patch_port(struct table_writer *out, size_t offset, uint16_t port)
{
    const uint8_t address[12] = {1 /* I/O space */,   8 /* bits */,  0,
                                 1 /* byte access */, (uint8_t)port, (uint8_t)(port >> 8)};

    patch_bytes(out, offset, address, sizeof(address));
}

static uint64_t put_fadt(struct table_writer *out, uint64_t dsdt)
{
    const uint32_t dsdt32 = (uint32_t)dsdt;
    const uint16_t boot_arch = BOOT_ARCH;
    const uint32_t flags = FLAGS;
    const uint8_t reset_value = ARCH_ACPI_RESET_VALUE;
    const uint8_t minor_version = 4;
    size_t start = table_begin(out, "FACP", 6);

    put_zeros(out, FADT_SIZE - HEADER_SIZE);
    patch_bytes(out, start + FADT_DSDT, &dsdt32, sizeof(dsdt32));
    patch_bytes(out, start + FADT_BOOT_ARCH, &boot_arch, sizeof(boot_arch));
    patch_bytes(out, start + FADT_FLAGS, &flags, sizeof(flags));
    patch_port(out, start + FADT_RESET_REGISTER, ARCH_ACPI_RESET_PORT);
    patch_bytes(out, start + FADT_RESET_VALUE, &reset_value, sizeof(reset_value));
    patch_bytes(out, start + FADT_MINOR_VERSION, &minor_version, sizeof(minor_version));
    patch_bytes(out, start + FADT_X_DSDT, &dsdt, sizeof(dsdt));
    patch_port(out, start + FADT_SLEEP_CONTROL, ARCH_ACPI_SLEEP_PORT);
    patch_port(out, start + FADT_SLEEP_STATUS, ARCH_ACPI_SLEEP_PORT + 1);
    return table_end(out, start);
}

static uint64_t put_madt(struct table_writer *out, uint32_t vcpu_count)
{
    size_t start = table_begin(out, "APIC", 5);

    put_u32(out, LAYOUT_LOCAL_APIC);
    put_u32(out, 0); /* flags: no 8259s to mask */
    for (uint32_t i = 0; i < vcpu_count; i++) {
        put_u8(out, MADT_LOCAL_APIC);
        put_u8(out, 8);          /* length */
        put_u8(out, (uint8_t)i); /* processor UID */
        put_u8(out, (uint8_t)i); /* APIC id */
        put_u32(out, 1);         /* enabled */
    }
    put_u8(out, MADT_IOAPIC);
    put_u8(out, 12); /* length */
    put_u8(out, 0);  /* id */
    put_u8(out, 0);
    put_u32(out, LAYOUT_IOAPIC);
    put_u32(out, 0); /* first GSI */
    return table_end(out, start);
}

static uint64_t put_xsdt(struct table_writer *out, uint64_t fadt, uint64_t madt)
{
    size_t start = table_begin(out, "XSDT", 1);

    put_u64(out, fadt);
    put_u64(out, madt);
    return table_end(out, start);
}

static void patch_rsdp(struct table_writer *out, size_t start, uint64_t xsdt)
{
    struct table_writer rsdp = {.buffer = out->buffer + start, .capacity = RSDP_SIZE};

    put_bytes(&rsdp, "RSD PTR ", 8);
    put_u8(&rsdp, 0); /* checksum */
    put_bytes(&rsdp, "MAYFLY", 6);
    put_u8(&rsdp, 2);  /* revision: ACPI 2 and later */
    put_u32(&rsdp, 0); /* no RSDT */
    put_u32(&rsdp, RSDP_SIZE);
    put_u64(&rsdp, xsdt);
    put_u32(&rsdp, 0); /* extended checksum, reserved */
    patch_checksum(&rsdp, RSDP_CHECKSUM, 0, RSDP_SIZE_ACPI1);
    patch_checksum(&rsdp, RSDP_CHECKSUM_EXTENDED, 0, RSDP_SIZE);
}

struct error *acpi_write(const struct guest_memory *memory, const struct arch_boot *boot, uint64_t *rsdp)
{
    const size_t capacity = LAYOUT_KERNEL_MIN - LAYOUT_ACPI;
    struct table_writer out = {.buffer = guest_memory_at(memory, LAYOUT_ACPI, capacity), .capacity = capacity};

    if (out.buffer == NULL)
        return error_new(ERROR_INTERNAL, "no guest memory for the ACPI tables");

    /* The RSDP comes first, where a kernel that searches finds it at once; it is filled in when the XSDT is there. */
    put_zeros(&out, RSDP_SIZE);
    uint64_t dsdt = put_dsdt(&out, boot);
    uint64_t fadt = put_fadt(&out, dsdt);
    uint64_t madt = put_madt(&out, boot->vcpu_count);
    uint64_t xsdt = put_xsdt(&out, fadt, madt);
    if (out.full)
        return error_new(ERROR_INTERNAL, "the ACPI tables of %zu devices do not fit", boot->slot_count);
    patch_rsdp(&out, 0, xsdt);
    *rsdp = LAYOUT_ACPI;
    return NULL;
}
