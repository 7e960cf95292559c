#include "tests/unit/harness.h"

#include "tests/unit/fake_machine.h"

#include "api/config_file.h"

#include <stdio.h>
#include <unistd.h>

static char path[] = "/tmp/mayfly-config-XXXXXX";

static int setup(void **state)
{
    (void)state;
    fake_machine_reset();
    return 0;
}

static struct error *apply(const char *text)
{
    strcpy(strrchr(path, '-') + 1, "XXXXXX");

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);

    struct error *error = api_config_file_apply(path, &fake_machine);
    unlink(path);
    return error;
}

static void test_every_object_of_the_file_reaches_the_machine(void **state)
{
    (void)state;
    assert_no_error(apply(
        "{\"boot-source\": {\"kernel_image_path\": \"/k\", \"boot_args\": \"quiet\", \"initrd_path\": null},"
        " \"drives\": [{\"drive_id\": \"a\", \"is_root_device\": true, \"path_on_host\": \"/a\", \"partuuid\": null},"
        "              {\"drive_id\": \"b\", \"is_root_device\": false, \"path_on_host\": \"/b\", \"socket\": null}],"
        " \"machine-config\": {\"vcpu_count\": 2, \"mem_size_mib\": 512},"
        " \"network-interfaces\": [{\"iface_id\": \"n\", \"host_dev_name\": \"tap0\"}],"
        " \"entropy\": {}, \"serial\": {\"serial_out_path\": \"/s\"}, \"logger\": {\"level\": \"Debug\"},"
        " \"metrics\": {\"metrics_path\": \"/m\"}, \"balloon\": {\"amount_mib\": 3, \"deflate_on_oom\": true}, "
        "\"vsock\": {\"guest_cid\": 3, \"uds_path\": "
        "\"/v\"}, \"pmem\": [{\"id\": \"p\", \"path_on_host\": \"/p\"}], \"cpu-config\": "
        "null,"
        " \"mmds-config\": null, \"memory-hotplug\": {\"total_size_mib\": 256},"
        " \"mayfly-console\": {\"ports\": [{\"name\": \"p\", \"socket_path\": \"/p\", \"console\": true}]}}"));
    assert_string_equal(fake_machine.config.boot_source.kernel_image_path, "/k");
    assert_string_equal(fake_machine.config.boot_source.boot_args, "quiet");
    assert_int_equal(fake_machine.config.drive_count, 2);
    assert_string_equal(fake_machine.config.drives[1].path_on_host, "/b");
    assert_int_equal(fake_machine.config.machine.mem_size_mib, 512);
    assert_int_equal(fake_machine.config.network_interface_count, 1);
    assert_true(fake_machine.config.entropy.present);
    assert_string_equal(fake_machine.config.serial.serial_out_path, "/s");
    assert_string_equal(fake_machine.config.logger.level, "Debug");
    assert_string_equal(fake_machine.config.metrics.metrics_path, "/m");
    assert_int_equal(fake_machine.config.vsock.guest_cid, 3);
    assert_string_equal(fake_machine.config.pmem[0].path_on_host, "/p");
    assert_int_equal(fake_machine.config.balloon.amount_mib, 3);
    assert_int_equal(fake_machine.config.memory_hotplug.slot_size_mib, 128);
    assert_int_equal(fake_machine.config.console.port_count, 1);
    assert_true(fake_machine.config.console.ports[0].console);
}

static void test_ids_of_devices_may_have_hyphens_dots_and_slashes(void **state)
{
    (void)state;
    assert_no_error(apply(
        "{\"drives\": [{\"drive_id\": \"data-disk.1\", \"is_root_device\": false, \"path_on_host\": "
        "\"/a\"}, {\"drive_id\": \"/srv/images/home.img\", \"is_root_device\": false, "
        "\"path_on_host\": \"/a\"}], \"network-interfaces\": [{\"iface_id\": \"net-1\", \"host_dev_name\": \"tap0\"}], "
        "\"pmem\": [{\"id\": \"p-1\", \"path_on_host\": \"/p\"}]}"));
    assert_string_equal(fake_machine.config.drives[0].drive_id, "data-disk.1");
    assert_string_equal(fake_machine.config.drives[1].drive_id, "/srv/images/home.img");
    assert_string_equal(fake_machine.config.network_interfaces[0].iface_id, "net-1");
    assert_error(apply("{\"drives\": [{\"drive_id\": \"a b\", \"is_root_device\": false, \"path_on_host\": \"/a\"}]}"),
                 ERROR_INPUT,
                 "drives[0].drive_id: \"a b\" given, expected a string of 1 to 64 bytes: letters, digits, _, -, "
                 ". and /");
}

static void test_only_what_the_file_has_is_put(void **state)
{
    (void)state;
    assert_no_error(apply("{\"boot-source\": {\"kernel_image_path\": \"/k\"}, \"machine-config\": null}"));
    assert_int_equal(fake_machine.config.machine.mem_size_mib, 128);
    assert_false(fake_machine.config.entropy.present);
    assert_null(fake_machine.config.serial.serial_out_path);
    assert_int_equal(fake_machine.config.drive_count, 0);
}

static void test_wrong_file_is_refused_whole(void **state)
{
    (void)state;
    assert_error(apply("{\"boot-source\": {\"kernel_image_path\": \"/k\"}, \"machine-config\": {\"vcpu_count\": 99}}"),
                 ERROR_INPUT, "machine-config.vcpu_count: 99 given, expected an integer from 1 to 32");
    assert_null(fake_machine.config.boot_source.kernel_image_path);
    assert_error(apply("{\"boot_source\": {}}"), ERROR_INPUT, "unknown field \"boot_source\"");
    assert_error(apply("{\"vsock\": {\"guest_cid\": 3}}"), ERROR_INPUT, "vsock.uds_path: missing");
    assert_error(apply("{\"vsock\": {\"guest_cid\": 2, \"uds_path\": \"/v\"}}"), ERROR_INPUT,
                 "vsock.guest_cid: 2 given, expected an integer from 3 to 4294967294");
    assert_error(apply("{\"balloon\": {}}"), ERROR_INPUT, "balloon.amount_mib: missing");
    assert_error(apply("{\"pmem\": [{}]}"), ERROR_INPUT, "pmem[0].id: missing");
    assert_error(apply(""), ERROR_INPUT, "empty, expected a JSON object");
    assert_error(apply("{\"drives\": [{\"drive_id\": \"a\", \"is_root_device\": true}]}"), ERROR_INPUT,
                 "drives[0]: path_on_host: missing");
}

static void test_refusal_by_the_machine_names_the_key(void **state)
{
    (void)state;
    fake_machine.refusal = "kernel_image_path: no such file";
    assert_error(apply("{\"boot-source\": {\"kernel_image_path\": \"/k\"}}"), ERROR_HOST,
                 "boot-source: kernel_image_path: no such file");
}

static void test_missing_file_is_an_error_of_the_host(void **state)
{
    (void)state;
    assert_error(api_config_file_apply("/nonexistent/mayfly.json", &fake_machine), ERROR_HOST,
                 "cannot open it: No such file or directory");
    assert_error(api_config_file_apply("/dev/zero", &fake_machine), ERROR_INPUT, "expected fewer");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, setup)

TEST_MAIN(TEST(test_every_object_of_the_file_reaches_the_machine),
          TEST(test_ids_of_devices_may_have_hyphens_dots_and_slashes), TEST(test_only_what_the_file_has_is_put),
          TEST(test_wrong_file_is_refused_whole), TEST(test_refusal_by_the_machine_names_the_key),
          TEST(test_missing_file_is_an_error_of_the_host))
