/* A driver of the block device for tests, against a temporary file; each test runs with both engines. */
#pragma once

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

#include "tests/unit/guest_ring.h"

#include "vmm/config.h"

enum { SECTOR = 512, FILE_SECTORS = 2048, FILE_SIZE = FILE_SECTORS * SECTOR };

#define HEADER_GPA 0x100000ULL /* one every 64 bytes */
#define STATUS_GPA 0x180000ULL /* one byte a request */
#define DATA_GPA 0x200000ULL
#define TABLE_GPA 0x800000ULL
#define UNTOUCHED 0xee

#define FEATURE(name) (1ULL << VIRTIO_BLK_F_##name)
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)

/* The one of this test. */
extern struct block_driver {
    struct guest_driver driver;
    struct drive_config config;
    char path[64];
    unsigned requests; /* made so far: where the next header and status go */
} block;

int block_setup_sync(void **state);
int block_setup_async(void **state);
int block_teardown(void **state);

#define BLOCK_TEST(test)                                                                                               \
    {#test "_sync", test, block_setup_sync, block_teardown, NULL},                                                     \
    {                                                                                                                  \
#test "_async", test, block_setup_async, block_teardown, NULL                                                  \
    }

/* What the byte of a fresh file is. */
uint8_t block_pattern(uint64_t offset);
/* Makes one in `directory`; stores its path, for which there is room as in block.path. */
void block_make_file(char *path, const char *directory, uint64_t size);

/* From here on the file is in memory: how long a disk takes to flush, while others write to it, is nobody's failure. */
void block_use_memory(void);

/* The device of block.config; the test is skipped where the host has no io_uring. */
struct virtio_device *block_make_device(void);
/* Makes it and activates it. */
void block_start_with(uint64_t features);
void block_start(void);

/* What the driver reads of its config space. */
void block_read_config(struct virtio_blk_config *config);

void *block_at(uint64_t gpa, size_t length);
void block_fill(uint64_t gpa, size_t length, uint8_t value);
uint64_t block_header_gpa(unsigned number);
uint8_t *block_status_of(unsigned number);

/* Writes the header of the next request and clears its status; returns its number. */
unsigned block_new_request(uint32_t type, uint64_t sector);
/* The usual layout: header, data if any, status. */
unsigned block_add(uint32_t type, uint64_t sector, uint64_t data_gpa, uint32_t length);
/* Does one request; returns its status and, in *written, what the used element said. */
uint8_t block_request(uint32_t type, uint64_t sector, uint64_t data_gpa, uint32_t length, uint32_t *written);
/* The same, to and from DATA_GPA. */
uint8_t block_read_sectors(uint64_t sector, uint32_t sectors);
uint8_t block_write_sectors(uint64_t sector, uint32_t sectors);
/* Discards, or writes zeroes. */
uint8_t block_forget(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags);

/* Guest memory holds what a fresh file does from `offset` on. */
void assert_block_pattern(uint64_t gpa, uint64_t offset, size_t length);
/* The file holds `value`, or what it held at first. */
void assert_block_file_has(uint64_t offset, size_t length, uint8_t value);
void assert_block_file_kept(uint64_t offset, size_t length);
/* After a request that the device must survive: an ordinary read works. */
void assert_block_alive(void);
