/* The guest's init: file systems and partitions told by their bytes, and the mount table. */
#include "tests/unit/harness.h"

#include "rootfs/init/mounts.h"
#include "rootfs/init/superblock.h"

#include <string.h>

#define GUID "00112233-4455-6677-8899-AABBCCDDEEFF"

static unsigned char disk[PARTITION_TABLE_BYTES];

/* A GPT whose entry `index` has GUID. */
static void gpt_make(unsigned index)
{
    static const unsigned char guid[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                           0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

    memset(disk, 0, sizeof(disk));
    memcpy(disk + 512, "EFI PART", 8);
    disk[512 + 72] = 2;
    disk[512 + 80] = 128;
    disk[512 + 84] = 128;
    memcpy(disk + 1024 + index * 128 + 16, guid, sizeof(guid));
}

static void mbr_make(void)
{
    memset(disk, 0, sizeof(disk));
    memcpy(disk + 440, "\xef\xbe\xad\xde", 4);
    disk[446 + 16 + 4] = 0x83;
    disk[510] = 0x55;
    disk[511] = 0xaa;
}

static void test_file_systems_are_told_by_their_magic(void **state)
{
    (void)state;
    memset(disk, 0, sizeof(disk));
    assert_null(superblock_type(disk, SUPERBLOCK_BYTES));
    memcpy(disk + 1024 + 0x38, "\x53\xef", 2);
    assert_string_equal(superblock_type(disk, SUPERBLOCK_BYTES), "ext4");
    memcpy(disk, "hsqs", 4);
    assert_string_equal(superblock_type(disk, SUPERBLOCK_BYTES), "squashfs");
    memcpy(disk + 1024, "\xe2\xe1\xf5\xe0", 4);
    assert_string_equal(superblock_type(disk, SUPERBLOCK_BYTES), "erofs");
}

static void test_what_is_taken_for_an_image_is_told(void **state)
{
    static const struct {
        size_t at;
        const char *magic, *says;
    } kinds[] = {
        {0, "QFI\xfb", "a qcow2 image"},
        {257, "ustar", "a tar archive"},
        {0, "\x1f\x8b", "gzip"},
        {0,
         "\xfd"
         "7zXZ",
         "xz"},
        {0, "\x28\xb5\x2f\xfd", "zstd"},
        {510, "\x55\xaa", "with partitions"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(kinds); i++) {
        memset(disk, 0, sizeof(disk));
        assert_null(superblock_mistaken(disk, SUPERBLOCK_BYTES));
        memcpy(disk + kinds[i].at, kinds[i].magic, strlen(kinds[i].magic));
        assert_null(superblock_type(disk, SUPERBLOCK_BYTES));
        assert_non_null(superblock_mistaken(disk, SUPERBLOCK_BYTES));
        assert_non_null(strstr(superblock_mistaken(disk, SUPERBLOCK_BYTES), kinds[i].says));
        assert_null(superblock_mistaken(disk, kinds[i].at + 1));
    }
    assert_string_equal(superblock_mistaken(disk, 0), "smaller than a sector");
}

static void test_short_device_has_no_file_system(void **state)
{
    (void)state;
    memset(disk, 0, sizeof(disk));
    memcpy(disk + 1024 + 0x38, "\x53\xef", 2);
    assert_null(superblock_type(disk, 1024 + 0x39));
    assert_null(superblock_type(disk, 0));
}

static void test_gpt_partition_is_found_by_guid_in_any_case(void **state)
{
    (void)state;
    gpt_make(0);
    assert_int_equal(partition_number(disk, sizeof(disk), GUID), 1);
    assert_int_equal(partition_number(disk, sizeof(disk), "00112233-4455-6677-8899-aabbccddeeff"), 1);
    assert_int_equal(partition_number(disk, sizeof(disk), "00112233-4455-6677-8899-aabbccddeef0"), 0);
    gpt_make(127);
    assert_int_equal(partition_number(disk, sizeof(disk), GUID), 128);
    assert_int_equal(partition_number(disk, sizeof(disk) - 1, GUID), 0);
}

static void test_gpt_with_odd_header_is_left_alone(void **state)
{
    (void)state;
    gpt_make(0);
    disk[512 + 84] = 0;
    assert_int_equal(partition_number(disk, sizeof(disk), GUID), 0);
    gpt_make(0);
    memset(disk + 512 + 84, 0xff, 4);
    assert_int_equal(partition_number(disk, sizeof(disk), GUID), 0);
    gpt_make(0);
    disk[512 + 76] = 1;
    assert_int_equal(partition_number(disk, sizeof(disk), GUID), 0);
    gpt_make(0);
    memset(disk + 512 + 80, 0xff, 4);
    assert_int_equal(partition_number(disk, sizeof(disk), "no such partition"), 0);
}

static void test_mbr_partition_is_found_by_signature_and_number(void **state)
{
    (void)state;
    mbr_make();
    assert_int_equal(partition_number(disk, 512, "deadbeef-02"), 2);
    assert_int_equal(partition_number(disk, 512, "DEADBEEF-02"), 2);
    assert_int_equal(partition_number(disk, 512, "deadbeef-01"), 0);
    assert_int_equal(partition_number(disk, 511, "deadbeef-02"), 0);
    disk[510] = 0;
    assert_int_equal(partition_number(disk, 512, "deadbeef-02"), 0);
}

static void test_mount_line_is_cut_and_unescaped(void **state)
{
    char text[] = "/dev/vda /mnt/a\\040b ext4 rw,relatime 0 0\nproc /proc proc ro 0 0\n";
    struct mount_line line;
    char *next;

    (void)state;
    next = mount_line_take(&line, text);
    assert_non_null(next);
    assert_string_equal(line.source, "/dev/vda");
    assert_string_equal(line.target, "/mnt/a b");
    assert_string_equal(line.type, "ext4");
    assert_true(line.writable);
    next = mount_line_take(&line, next);
    assert_non_null(next);
    assert_string_equal(line.target, "/proc");
    assert_false(line.writable);
    assert_null(mount_line_take(&line, next));
}

static void test_mount_line_cut_short_is_none(void **state)
{
    char without_end[] = "/dev/vda / ext4 rw 0 0";
    char without_fields[] = "/dev/vda /\n";
    char rwx[] = "a b c rwx 0 0\n";
    struct mount_line line;

    (void)state;
    assert_null(mount_line_take(&line, without_end));
    assert_null(mount_line_take(&line, without_fields));
    assert_non_null(mount_line_take(&line, rwx));
    assert_false(line.writable);
}

TEST_MAIN(cmocka_unit_test(test_file_systems_are_told_by_their_magic),
          cmocka_unit_test(test_what_is_taken_for_an_image_is_told),
          cmocka_unit_test(test_short_device_has_no_file_system),
          cmocka_unit_test(test_gpt_partition_is_found_by_guid_in_any_case),
          cmocka_unit_test(test_gpt_with_odd_header_is_left_alone),
          cmocka_unit_test(test_mbr_partition_is_found_by_signature_and_number),
          cmocka_unit_test(test_mount_line_is_cut_and_unescaped), cmocka_unit_test(test_mount_line_cut_short_is_none))
