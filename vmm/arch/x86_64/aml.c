#include "vmm/arch/x86_64/aml.h"

#include <string.h>

/* ACPI 6.4, 20.2 and 6.4. */
enum {
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_STRING = 0x0d,
    OP_DWORD = 0x0c,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_NOTIFY = 0x86,
    OP_EXTENDED = 0x5b,
    OP_EXTENDED_DEVICE = 0x82,
    RESOURCE_IO = 0x47,
    RESOURCE_END = 0x79,
    RESOURCE_MEMORY32_FIXED = 0x86,
    RESOURCE_EXTENDED_INTERRUPT = 0x89,
};

/*
 * A PkgLength counts its own bytes and is not known before the end. The two-byte form (low four bits, then eight) is
 * always used, so that it can be filled in later: up to 4095 bytes, more marks the writer full.
 */
enum { PACKAGE_LENGTH_SIZE = 2, PACKAGE_LENGTH_MAX = 0xfff };

static size_t package_begin(struct table_writer *aml)
{
    size_t begun = aml->length;

    put_zeros(aml, PACKAGE_LENGTH_SIZE);
    return begun;
}

void aml_end(struct table_writer *aml, size_t begun)
{
    size_t length = aml->length - begun;

    if (length > PACKAGE_LENGTH_MAX) {
        aml->full = true;
        return;
    }

    const uint8_t encoded[PACKAGE_LENGTH_SIZE] = {(uint8_t)(1 << 6 | (length & 0xf)), (uint8_t)(length >> 4)};
    patch_bytes(aml, begun, encoded, sizeof(encoded));
}

static void put_name(struct table_writer *aml, const char *name)
{
    put_bytes(aml, name, strlen(name));
}

size_t aml_scope_begin(struct table_writer *aml, const char *name)
{
    put_u8(aml, OP_SCOPE);
    size_t begun = package_begin(aml);
    put_name(aml, name);
    return begun;
}

size_t aml_device_begin(struct table_writer *aml, const char *name)
{
    put_u8(aml, OP_EXTENDED);
    put_u8(aml, OP_EXTENDED_DEVICE);
    size_t begun = package_begin(aml);
    put_name(aml, name);
    return begun;
}

static void put_byte_integer(struct table_writer *aml, uint8_t value)
{
    put_u8(aml, OP_BYTE);
    put_u8(aml, value);
}

void aml_name_integer(struct table_writer *aml, const char *name, uint8_t value)
{
    put_u8(aml, OP_NAME);
    put_name(aml, name);
    put_byte_integer(aml, value);
}

void aml_name_string(struct table_writer *aml, const char *name, const char *value)
{
    put_u8(aml, OP_NAME);
    put_name(aml, name);
    put_u8(aml, OP_STRING);
    put_bytes(aml, value, strlen(value) + 1);
}

static uint32_t hex_digit(char digit)
{
    return (uint32_t)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, most significant byte first (ACPI 6.4, 19.3.4). */
static uint32_t eisa_id(const char *id)
{
    uint32_t value = 0;

    for (size_t i = 0; i < 3; i++)
        value = value << 5 | (uint32_t)(id[i] - '@');
    for (size_t i = 3; i < 7; i++)
        value = value << 4 | hex_digit(id[i]);
    return __builtin_bswap32(value);
}

void aml_name_eisa_id(struct table_writer *aml, const char *name, const char *id)
{
    put_u8(aml, OP_NAME);
    put_name(aml, name);
    put_u8(aml, OP_DWORD);
    put_u32(aml, eisa_id(id));
}

void aml_name_sleep_package(struct table_writer *aml, const char *name, uint8_t type)
{
    put_u8(aml, OP_NAME);
    put_name(aml, name);
    put_u8(aml, OP_PACKAGE);
    size_t begun = package_begin(aml);
    put_u8(aml, 2); /* elements: SLP_TYPa, SLP_TYPb */
    put_byte_integer(aml, type);
    put_byte_integer(aml, type);
    aml_end(aml, begun);
}

size_t aml_method_begin(struct table_writer *aml, const char *name, uint8_t argument_count)
{
    put_u8(aml, OP_METHOD);
    size_t begun = package_begin(aml);
    put_name(aml, name);
    put_u8(aml, argument_count); /* not serialized */
    return begun;
}

void aml_notify(struct table_writer *aml, const char *name, uint8_t value)
{
    put_u8(aml, OP_NOTIFY);
    put_name(aml, name);
    put_byte_integer(aml, value);
}

size_t aml_resources_begin(struct table_writer *aml)
{
    put_u8(aml, OP_NAME);
    put_name(aml, "_CRS");
    put_u8(aml, OP_BUFFER);
    size_t begun = package_begin(aml);
    put_byte_integer(aml, 0); /* bytes in the buffer, patched at the end */
    return begun;
}

void aml_resources_end(struct table_writer *aml, size_t begun)
{
    size_t first = begun + PACKAGE_LENGTH_SIZE + 2;

    put_u8(aml, RESOURCE_END);
    put_u8(aml, 0); /* checksum: none */

    size_t size = aml->length - first;
    if (size > UINT8_MAX) {
        aml->full = true;
        return;
    }
    const uint8_t encoded = (uint8_t)size;
    patch_bytes(aml, first - 1, &encoded, 1);
    aml_end(aml, begun);
}

void aml_resource_memory(struct table_writer *aml, uint32_t base, uint32_t length)
{
    put_u8(aml, RESOURCE_MEMORY32_FIXED);
    put_u16(aml, 9); /* bytes that follow */
    put_u8(aml, 1);  /* read-write */
    put_u32(aml, base);
    put_u32(aml, length);
}

void aml_resource_io(struct table_writer *aml, uint16_t port, uint8_t length)
{
    put_u8(aml, RESOURCE_IO);
    put_u8(aml, 1);     /* decodes 16 bits */
    put_u16(aml, port); /* lowest and highest base */
    put_u16(aml, port);
    put_u8(aml, 1); /* alignment */
    put_u8(aml, length);
}

void aml_resource_interrupt(struct table_writer *aml, uint32_t gsi)
{
    put_u8(aml, RESOURCE_EXTENDED_INTERRUPT);
    put_u16(aml, 6);              /* bytes that follow */
    put_u8(aml, 1 << 0 | 1 << 1); /* consumer, edge-triggered; active high and exclusive are zeros */
    put_u8(aml, 1);               /* interrupts */
    put_u32(aml, gsi);
}
