#include "tests/unit/boot_fixture.h"

#include "vmm/arch/x86_64/acpi.h"
#include "vmm/arch/x86_64/aml.h"
#include "vmm/arch/x86_64/layout.h"

#include <stdio.h>
#include <string.h>

/* The table at `gpa`, its signature, place and checksum checked. */
static const uint8_t *table(const struct guest_memory *memory, uint64_t gpa, const char *signature, uint32_t *length)
{
    const uint8_t *header = guest_memory_at(memory, gpa, 36);

    assert_non_null(header);
    assert_memory_equal(header, signature, 4);
    *length = (uint32_t)boot_number(header + 4, 4);
    assert_true(gpa >= LAYOUT_ACPI && gpa + *length <= LAYOUT_KERNEL_MIN);
    assert_int_equal(boot_sum(header, *length), 0);
    return header;
}

static struct tables {
    const uint8_t *fadt, *madt, *dsdt;
    uint32_t fadt_length, madt_length, dsdt_length;
} tables;

/* As a kernel finds them, from the RSDP on. */
static void find_tables(const struct guest_memory *memory, uint64_t rsdp_gpa)
{
    const uint8_t *rsdp = guest_memory_at(memory, rsdp_gpa, 36);
    uint32_t length;

    assert_int_equal(rsdp_gpa % 16, 0); /* or a search would miss it */
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(boot_sum(rsdp, 20), 0);
    assert_int_equal(boot_sum(rsdp, 36), 0);
    const uint8_t *xsdt = table(memory, boot_number(rsdp + 24, 8), "XSDT", &length);
    assert_int_equal(length, 36 + 2 * 8);
    tables.fadt = table(memory, boot_number(xsdt + 36, 8), "FACP", &tables.fadt_length);
    tables.madt = table(memory, boot_number(xsdt + 44, 8), "APIC", &tables.madt_length);
    tables.dsdt = table(memory, boot_number(tables.fadt + 140, 8), "DSDT", &tables.dsdt_length);
    assert_int_equal(boot_number(tables.fadt + 40, 4), boot_number(tables.fadt + 140, 8));
}

static void write_tables(uint32_t vcpus, size_t slot_count, bool serial)
{
    struct guest_memory *memory = boot_memory(2);
    const struct arch_boot boot = boot_with(vcpus, slot_count, serial);
    uint64_t rsdp;

    assert_no_error(acpi_write(memory, &boot, &rsdp));
    find_tables(memory, rsdp);
}

static void test_tables_are_found_with_checksums_that_fit(void **state)
{
    (void)state;
    write_tables(1, 0, false);
    write_tables(1, 3, true);
    write_tables(32, 19, true);
}

static void test_machine_is_hardware_reduced_and_can_reset_and_power_off(void **state)
{
    (void)state;
    write_tables(1, 0, true);
    assert_int_equal(tables.fadt_length, 276);
    assert_int_equal(boot_number(tables.fadt + 112, 4) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    assert_int_equal(tables.fadt[116], 1); /* reset register: I/O port */
    assert_int_equal(boot_number(tables.fadt + 120, 8), ARCH_ACPI_RESET_PORT);
    assert_int_equal(tables.fadt[128], ARCH_ACPI_RESET_VALUE);
    assert_int_equal(tables.fadt[244], 1); /* sleep control register: I/O port */
    assert_int_equal(boot_number(tables.fadt + 248, 8), ARCH_ACPI_SLEEP_PORT);
    assert_int_equal(boot_number(tables.fadt + 260, 8), ARCH_ACPI_SLEEP_PORT + 1);
}

static void test_each_vcpu_and_the_ioapic_are_in_the_madt(void **state)
{
    (void)state;
    for (uint32_t vcpus = 1; vcpus <= 32; vcpus += 31) {
        uint32_t processors = 0, ioapics = 0;

        write_tables(vcpus, 0, false);
        assert_int_equal(boot_number(tables.madt + 36, 4), 0xfee00000);
        for (uint32_t at = 44; at < tables.madt_length; at += tables.madt[at + 1]) {
            if (tables.madt[at] == 0) {
                assert_int_equal(tables.madt[at + 3], processors);
                assert_int_equal(boot_number(tables.madt + at + 4, 4), 1);
                processors++;
            } else {
                assert_int_equal(tables.madt[at], 1);
                assert_int_equal(boot_number(tables.madt + at + 4, 4), 0xfec00000);
                ioapics++;
            }
            assert_true(tables.madt[at + 1] > 0);
        }
        assert_int_equal(processors, vcpus);
        assert_int_equal(ioapics, 1);
    }
}

/* Decodes a PkgLength at `at`; where the package ends. */
static const uint8_t *package_end(const uint8_t *at, const uint8_t **contents)
{
    assert_int_equal(at[0] >> 6, 1);
    *contents = at + 2;
    return at + ((at[0] & 0xf) | at[1] << 4);
}

struct device {
    char name[5], method[5];
    uint8_t hid[12];
    uint64_t memory, io[2], interrupt;
    int io_count;
};

static void read_resources(const uint8_t *at, const uint8_t *end, struct device *device)
{
    while (*at != 0x79) {
        switch (*at) {
        case 0x86:
            device->memory = boot_number(at + 4, 4);
            assert_int_equal(boot_number(at + 8, 4), 0x1000);
            at += 12;
            break;
        case 0x89:
            assert_int_equal(at[3], 3); /* consumer, edge, active high */
            device->interrupt = boot_number(at + 5, 4);
            at += 9;
            break;
        case 0x47:
            assert_int_equal(boot_number(at + 2, 2), boot_number(at + 4, 2));
            device->io[device->io_count++] = boot_number(at + 2, 2);
            at += 8;
            break;
        default:
            fail_msg("resource 0x%02x", *at);
        }
        assert_true(at < end);
    }
    assert_ptr_equal(at + 2, end);
}

/* Reads a Device's contents: names with an integer, a string, a buffer. */
static void read_device(const uint8_t *at, const uint8_t *end, struct device *device)
{
    const uint8_t *contents;

    memset(device, 0, sizeof(*device));
    memcpy(device->name, at, 4);
    for (at += 4; at < end;) {
        const char *name = (const char *)at + 1;

        if (at[0] == 0x14) { /* a method */
            const uint8_t *method_end = package_end(at + 1, &contents);

            snprintf(device->method, sizeof(device->method), "%.4s", (const char *)contents);
            assert_memory_equal(contents + 5, "\x86PWRB\x0a\x80", 7); /* after the flags: Notify (PWRB, 0x80) */
            assert_ptr_equal(contents + 12, method_end);
            at = method_end;
            continue;
        }
        assert_int_equal(at[0], 0x08);
        at += 5;
        switch (*at) {
        case 0x0a:
            at += 2;
            break;
        case 0x0c:
            memcpy(device->hid, at + 1, 4);
            at += 5;
            break;
        case 0x0d:
            assert_memory_equal(name, "_HID", 4);
            snprintf((char *)device->hid, sizeof(device->hid), "%s", (const char *)at + 1);
            at += strlen((const char *)at) + 1;
            break;
        case 0x11: {
            const uint8_t *buffer_end = package_end(at + 1, &contents);

            assert_memory_equal(name, "_CRS", 4);
            assert_int_equal(contents[0], 0x0a);
            assert_ptr_equal(contents + 2 + contents[1], buffer_end);
            read_resources(contents + 2, buffer_end, device);
            at = buffer_end;
            break;
        }
        default:
            fail_msg("value 0x%02x", *at);
        }
    }
    assert_ptr_equal(at, end);
}

static size_t read_devices(struct device *devices)
{
    const uint8_t *aml = tables.dsdt + 36;
    const uint8_t *at;
    size_t count = 0;

    assert_int_equal(aml[0], 0x10);
    const uint8_t *end = package_end(aml + 1, &at);
    assert_memory_equal(at, "\\_SB_", 5);
    for (at += 5; at < end; count++) {
        const uint8_t *contents;

        assert_int_equal(at[0], 0x5b);
        assert_int_equal(at[1], 0x82);
        const uint8_t *device_end = package_end(at + 2, &contents);
        assert_true(device_end <= end);
        read_device(contents, device_end, &devices[count]);
        at = device_end;
    }
    assert_ptr_equal(at, end);
    assert_memory_equal(end, "\x08_S5_\x12", 6);
    return count;
}

static void test_dsdt_describes_serial_keyboard_and_each_virtio_slot(void **state)
{
    struct device devices[32];

    (void)state;
    for (size_t slot_count = 0; slot_count <= 19; slot_count++) {
        write_tables(1, slot_count, true);
        assert_int_equal(read_devices(devices), 4 + slot_count);
        assert_memory_equal(devices[0].hid, "\x41\xd0\x05\x01", 4); /* PNP0501 */
        assert_int_equal(devices[0].io[0], 0x3f8);
        assert_int_equal(devices[0].interrupt, ARCH_SERIAL_GSI);
        assert_memory_equal(devices[1].hid, "\x41\xd0\x03\x03", 4); /* PNP0303 */
        assert_int_equal(devices[1].io[1], 0x64);
        assert_int_equal(devices[1].interrupt, 1);
        for (size_t i = 0; i < slot_count; i++) {
            const struct device *device = &devices[2 + i];

            assert_string_equal(device->hid, "LNRO0005");
            assert_int_equal(device->memory, ARCH_VIRTIO_MMIO_GPA + i * 0x1000);
            assert_int_equal(device->interrupt, ARCH_VIRTIO_GSI_FIRST + i);
            for (size_t other = 0; other < 2 + i; other++)
                assert_string_not_equal(device->name, devices[other].name);
        }
        assert_string_equal(devices[2 + slot_count].name, "PWRB");
        assert_memory_equal(devices[2 + slot_count].hid, "\x41\xd0\x0c\x0c", 4); /* PNP0C0C */
        assert_string_equal(devices[3 + slot_count].hid, "ACPI0013");
        assert_int_equal(devices[3 + slot_count].interrupt, ARCH_POWER_BUTTON_GSI);
        assert_string_equal(devices[3 + slot_count].method, "_EVT");
    }
}

static void test_dsdt_leaves_a_missing_serial_port_out(void **state)
{
    struct device devices[32];

    (void)state;
    write_tables(1, 1, false);
    assert_int_equal(read_devices(devices), 4);
    assert_string_equal(devices[0].name, "PS2K");
}

static void test_tables_that_do_not_fit_are_an_error_and_stay_in_their_room(void **state)
{
    struct guest_memory *memory = boot_memory(2);
    cleanup_free struct arch_virtio_slot *many = calloc(3000, sizeof(*many));
    struct arch_boot boot = boot_with(1, 19, true);
    uint64_t rsdp;

    (void)state;
    boot.slots = many;
    boot.slot_count = 3000;
    assert_error(acpi_write(memory, &boot, &rsdp), ERROR_INTERNAL, "3000 devices do not fit");
    assert_true(boot_memory_is(memory, LAYOUT_KERNEL_MIN, 0x1000, 0));
}

static void test_writer_stops_at_its_capacity(void **state)
{
    uint8_t buffer[8];
    struct table_writer writer = {.buffer = buffer, .capacity = 4};
    const uint8_t patch = 1;

    (void)state;
    memset(buffer, 0xee, sizeof(buffer));
    put_u16(&writer, 1);
    put_u32(&writer, 2);
    assert_true(writer.full);
    put_u8(&writer, 3); /* would fit, but there is a gap before it */
    assert_int_equal(writer.length, 2);
    patch_bytes(&writer, 2, &patch, 1);
    patch_bytes(&writer, SIZE_MAX, &patch, 2);
    assert_int_equal(buffer[2], 0xee);
}

#define TEST(name) cmocka_unit_test_teardown(name, boot_teardown)

TEST_MAIN(TEST(test_tables_are_found_with_checksums_that_fit),
          TEST(test_machine_is_hardware_reduced_and_can_reset_and_power_off),
          TEST(test_each_vcpu_and_the_ioapic_are_in_the_madt),
          TEST(test_dsdt_describes_serial_keyboard_and_each_virtio_slot),
          TEST(test_dsdt_leaves_a_missing_serial_port_out),
          TEST(test_tables_that_do_not_fit_are_an_error_and_stay_in_their_room),
          TEST(test_writer_stops_at_its_capacity))
