#include "tests/unit/boot_fixture.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILES_MAX = 64, PAGE = 4096 };

static struct guest_memory memory;
static int files[FILES_MAX];
static size_t file_count;

struct guest_memory *boot_memory(uint64_t mib)
{
    guest_memory_unmap(&memory);
    arch_memory_layout(mib << 20, &memory);
    assert_no_error(guest_memory_map(&memory, HUGE_PAGES_NONE));
    return &memory;
}

static void close_files(void)
{
    for (size_t i = 0; i < file_count; i++)
        close(files[i]);
    file_count = 0;
}

int boot_teardown(void **state)
{
    (void)state;
    guest_memory_unmap(&memory);
    close_files();
    return 0;
}

int boot_file(const void *bytes, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    assert_true(fd >= 0);
    if (file_count == FILES_MAX)
        close_files();
    files[file_count++] = fd;
    assert_int_equal(write(fd, bytes, size), size);
    return fd;
}

bool boot_memory_is(const struct guest_memory *of, uint64_t gpa, uint64_t size, uint8_t value)
{
    const uint8_t *bytes = guest_memory_at(of, gpa, size);

    assert_non_null(bytes);
    return size == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, size - 1) == 0);
}

bool boot_memory_untouched(const struct guest_memory *of)
{
    for (size_t i = 0; i < of->count; i++) {
        size_t first = of->regions[i].gpa == 0 ? 1 << 20 : 0;
        size_t pages = (of->regions[i].size - first) / PAGE;
        cleanup_free unsigned char *resident = malloc(pages + 1);

        assert_int_equal(mincore(of->regions[i].hva + first, pages * PAGE, resident), 0);
        for (size_t page = 0; page < pages; page++) {
            if (resident[page] & 1)
                return false;
        }
    }
    return true;
}

void boot_pattern(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + i / PAGE * 13 + 1);
}

uint64_t boot_number(const uint8_t *at, size_t size)
{
    uint64_t value = 0;

    memcpy(&value, at, size);
    return value;
}

uint8_t boot_sum(const uint8_t *bytes, size_t size)
{
    uint8_t total = 0;

    for (size_t i = 0; i < size; i++)
        total = (uint8_t)(total + bytes[i]);
    return total;
}

struct arch_boot boot_with(uint32_t vcpus, size_t slot_count, bool serial)
{
    static struct arch_virtio_slot slots[64];

    for (size_t i = 0; i < array_length(slots); i++)
        slots[i] = (struct arch_virtio_slot){ARCH_VIRTIO_MMIO_GPA + i * 0x1000, ARCH_VIRTIO_GSI_FIRST + (uint32_t)i};
    return (struct arch_boot){.vcpu_count = vcpus, .slots = slots, .slot_count = slot_count, .has_serial = serial};
}
