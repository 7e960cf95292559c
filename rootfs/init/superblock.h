/*
 * Telling file systems and partitions by their bytes. No I/O.
 */
#pragma once

#include <stddef.h>

/* Bytes from the start of a device that are enough for both functions. */
#define SUPERBLOCK_BYTES 4096

/* The type, as mount(2) names it, of the file system whose first `length` bytes are at `bytes`;
 * NULL when it is none that the guest kernel knows. */
const char *superblock_type(const unsigned char *bytes, size_t length);

/* What else they are, in words that tell what to do, of the things that are taken for a file system's image; or NULL. */
const char *superblock_mistaken(const unsigned char *bytes, size_t length);

/*
 * The number, from 1, of the partition that `uuid` names, in a disk whose first `length` bytes are
 * at `bytes`; 0 when there is none. `uuid` is a GPT partition's GUID, or an MBR's disk signature
 * and partition number, "XXXXXXXX-NN"; any case. Sectors are of 512 bytes. Of a GPT the entries
 * within `length` bytes are looked at.
 */
unsigned partition_number(const unsigned char *bytes, size_t length, const char *uuid);

/* Bytes that hold a GPT's header and its usual 128 entries. */
#define PARTITION_TABLE_BYTES (34 * 512)
