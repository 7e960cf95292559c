/*
 * An image of a MiB. Once a byte has come over the serial port it reads its own last page; with "initrd" the initrd's
 * last byte; with "status" it has a disk write the status of a request there.
 */
#include "tests/guest/lib/virtio.h"

static volatile uint8_t padding[1 << 20] __attribute__((section(".padding"), aligned(4096))) = {1};

static uint32_t field32(unsigned offset)
{
    uint32_t value;

    memcpy(&value, zero_page() + offset, sizeof(value));
    return value;
}

static uint8_t initrd_end(void)
{
    enum { RAMDISK = 0x218, RAMDISK_SIZE = 0x21c };

    return *(volatile uint8_t *)((uint64_t)field32(RAMDISK) + field32(RAMDISK_SIZE) - 1);
}

static uint32_t disk_status(void)
{
    static struct virtio disk;
    static uint8_t sector[512];
    static const uint64_t header[2];
    const struct buffer buffers[] = {
        {header, sizeof(header), false}, {sector, sizeof(sector), true}, {&padding[sizeof(padding) - 1], 1, true}};

    guest_expect(virtio_open(&disk, VIRTIO_BLOCK, 0, 1), "no disk");
    return virtio_request(&disk, 0, buffers, 3);
}

void guest_main(void)
{
    serial_puts("waiting\n");
    serial_get();
    if (cmdline_has("status"))
        serial_result("written", disk_status());
    else
        serial_result("last", cmdline_has("initrd") ? initrd_end() : padding[sizeof(padding) - 1]);
}
