#include "tests/unit/harness.h"

#include "vmm/cmdline.h"

#include <string.h>

/* The command line for `boot_args` and a root drive (NULL: none). */
static const char *build(const char *boot_args, struct drive_config *root)
{
    static char text[512];
    struct vm_config config = {.boot_source.boot_args = (char *)boot_args};

    if (root != NULL) {
        config.drives[0] = *root;
        config.drive_count = 1;
    }
    assert_no_error(cmdline_build(&config, text, sizeof(text)));
    return text;
}

static void test_default_is_firecrackers(void **state)
{
    (void)state;
    assert_string_equal(build(NULL, NULL), "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux "
                                           "i8042.nopnp i8042.dumbkbd swiotlb=noforce pci=off");
}

static void test_root_drive_is_named(void **state)
{
    struct drive_config root = {.is_root_device = true};

    (void)state;
    assert_string_equal(build("quiet", &root), "quiet pci=off root=/dev/vda rw");
    root.is_read_only = true;
    assert_string_equal(build("quiet", &root), "quiet pci=off root=/dev/vda ro");
    root.partuuid = (char *)"0eaa91a0-01";
    assert_string_equal(build("quiet", &root), "quiet pci=off root=PARTUUID=0eaa91a0-01 ro");
    root.is_root_device = false;
    assert_string_equal(build("quiet", &root), "quiet pci=off");
}

static void test_root_pmem_is_named(void **state)
{
    struct vm_config config = {.boot_source.boot_args = (char *)"quiet", .pmem[0].root_device = true, .pmem_count = 1};
    char text[512];

    (void)state;
    assert_no_error(cmdline_build(&config, text, sizeof(text)));
    assert_string_equal(text, "quiet pci=off root=/dev/pmem0 rw");
    config.pmem[0].read_only = true;
    assert_no_error(cmdline_build(&config, text, sizeof(text)));
    assert_string_equal(text, "quiet pci=off root=/dev/pmem0 ro");
}

static void test_arguments_of_init_stay_last(void **state)
{
    struct drive_config root = {.is_root_device = true};

    (void)state;
    assert_string_equal(build("quiet -- --verbose a=b", &root), "quiet pci=off root=/dev/vda rw -- --verbose a=b");
    assert_string_equal(build("-- sh", &root), "pci=off root=/dev/vda rw -- sh");
    assert_string_equal(build("quiet --", NULL), "quiet pci=off --");
    assert_string_equal(build("a--b -- c -- d", NULL), "a--b pci=off -- c -- d");
}

static void test_callers_own_pci_option_is_kept(void **state)
{
    (void)state;
    assert_string_equal(build("pci=noacpi quiet", NULL), "pci=noacpi quiet");
    assert_string_equal(build("xpci=1", NULL), "xpci=1 pci=off");
    assert_string_equal(build("quiet -- pci=1", NULL), "quiet pci=off -- pci=1");
}

static void test_empty_arguments_are_not_the_default(void **state)
{
    (void)state;
    assert_string_equal(build("", NULL), "pci=off");
    assert_string_equal(build("  ", NULL), "pci=off");
}

static void test_line_that_does_not_fit_is_refused(void **state)
{
    struct vm_config config = {.boot_source.boot_args = (char *)"0123456789"};
    char text[18 + 1];

    (void)state;
    assert_no_error(cmdline_build(&config, text, sizeof(text)));
    assert_error(cmdline_build(&config, text, sizeof(text) - 1), ERROR_INPUT, "boot_args");
}

static void test_arguments_must_be_printable_and_short(void **state)
{
    char text[2049];

    (void)state;
    assert_no_error(cmdline_check("console=ttyS0 a=\"b c\""));
    assert_error(cmdline_check("quiet\nroot=x"), ERROR_INPUT, "boot_args: byte 0x0a at offset 5");
    assert_error(cmdline_check("\xc3\xa4"), ERROR_INPUT, "byte 0xc3");
    memset(text, 'x', sizeof(text) - 1);
    text[2048] = '\0';
    assert_error(cmdline_check(text), ERROR_INPUT, "boot_args: 2048 bytes, expected at most 2047");
}

TEST_MAIN(cmocka_unit_test(test_default_is_firecrackers), cmocka_unit_test(test_root_drive_is_named),
          cmocka_unit_test(test_root_pmem_is_named), cmocka_unit_test(test_arguments_of_init_stay_last),
          cmocka_unit_test(test_callers_own_pci_option_is_kept),
          cmocka_unit_test(test_empty_arguments_are_not_the_default),
          cmocka_unit_test(test_line_that_does_not_fit_is_refused),
          cmocka_unit_test(test_arguments_must_be_printable_and_short))
