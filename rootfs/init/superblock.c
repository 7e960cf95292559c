#include "superblock.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static uint32_t le32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint16_t le16(const unsigned char *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

/* Bytes at an offset, and what has them there. */
struct magic {
    const char *words;
    size_t offset;
    unsigned char size;
    unsigned char bytes[5];
};

/* The first whose magic is there; NULL: none. */
static const char *find(const struct magic *magics, size_t count, const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (length >= magics[i].offset + magics[i].size &&
            memcmp(bytes + magics[i].offset, magics[i].bytes, magics[i].size) == 0) {
            return magics[i].words;
        }
    }
    return NULL;
}

const char *superblock_type(const unsigned char *bytes, size_t length)
{
    static const struct magic types[] = {
        {"erofs", 1024, 4, {0xe2, 0xe1, 0xf5, 0xe0}},
        {"squashfs", 0, 4, {'h', 's', 'q', 's'}},
        {"ext4", 1024 + 0x38, 2, {0x53, 0xef}},
    };

    return find(types, sizeof(types) / sizeof(types[0]), bytes, length);
}

const char *superblock_mistaken(const unsigned char *bytes, size_t length)
{
    static const struct magic kinds[] = {
        {"a qcow2 image (qemu-img convert -O raw makes a plain one)", 0, 4, {'Q', 'F', 'I', 0xfb}},
        {"a tar archive (rootfs/build makes an image of its files)", 257, 5, {'u', 's', 't', 'a', 'r'}},
        {"compressed by gzip", 0, 2, {0x1f, 0x8b}},
        {"compressed by xz", 0, 5, {0xfd, '7', 'z', 'X', 'Z'}},
        {"compressed by zstd", 0, 4, {0x28, 0xb5, 0x2f, 0xfd}},
        {"a disk with partitions (root=PARTUUID=ID names one)", 510, 2, {0x55, 0xaa}},
    };

    if (length == 0) {
        return "smaller than a sector";
    }
    return find(kinds, sizeof(kinds) / sizeof(kinds[0]), bytes, length);
}

/* UEFI 2.10, 5.3: the header is in LBA 1, the GUID's first three fields are little-endian. */
static unsigned gpt_partition(const unsigned char *disk, size_t length, const char *uuid)
{
    const unsigned char *header = disk + 512;
    uint32_t entries;
    uint32_t size;
    size_t at = 2 * 512;

    if (length < 1024 || memcmp(header, "EFI PART", 8) != 0) {
        return 0;
    }
    entries = le32(header + 80);
    size = le32(header + 84);
    /* The entries start at LBA 2 on every disk that has a primary table and 512-byte sectors. */
    if (le32(header + 72) != 2 || le32(header + 76) != 0 || size < 128 || size > 4096) {
        return 0;
    }
    for (uint32_t i = 0; i < entries && length - at >= size; i++, at += size) {
        const unsigned char *g = disk + at + 16;
        char text[37];

        snprintf(text, sizeof(text), "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", le32(g), le16(g + 4),
                 le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
        if (strcasecmp(text, uuid) == 0) {
            return i + 1;
        }
    }
    return 0;
}

static unsigned mbr_partition(const unsigned char *disk, size_t length, const char *uuid)
{
    if (length < 512 || disk[510] != 0x55 || disk[511] != 0xaa) {
        return 0;
    }
    for (unsigned i = 0; i < 4; i++) {
        const unsigned char *entry = disk + 446 + i * 16;
        char text[12];

        snprintf(text, sizeof(text), "%08x-%02x", le32(disk + 440), i + 1);
        /* A type of 0 is an unused entry. */
        if (entry[4] != 0 && strcasecmp(text, uuid) == 0) {
            return i + 1;
        }
    }
    return 0;
}

unsigned partition_number(const unsigned char *bytes, size_t length, const char *uuid)
{
    unsigned number = gpt_partition(bytes, length, uuid);

    return number != 0 ? number : mbr_partition(bytes, length, uuid);
}
