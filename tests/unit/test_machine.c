/* What a machine accepts and refuses before it starts. Nothing here runs a guest: tests/machine does. */
#include "tests/unit/harness.h"

#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"
#include "vmm/machine.h"
#include "vmm/machine_parts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

struct fixture {
    struct event_loop *loop;
    struct machine *machine;
    char directory[64];
};

static struct fixture fixture;

static int setup(void **state)
{
    const struct machine_options options = {.id = "test"};

    (void)state;
    strcpy(fixture.directory, "/tmp/mayfly-machine-XXXXXX");
    assert_non_null(mkdtemp(fixture.directory));
    assert_no_error(event_loop_new(&fixture.loop));
    assert_no_error(machine_new(fixture.loop, &options, &fixture.machine));
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    machine_free(fixture.machine);
    event_loop_free(fixture.loop);
    snprintf(command, sizeof(command), "rm -r %s", fixture.directory);
    return system(command);
}

static const struct vm_config *config(void)
{
    return machine_configuration(fixture.machine);
}

/* The path of a file of `size` bytes in the test's directory; heap-allocated. */
static char *file(const char *name, off_t size)
{
    char *path;

    assert_true(asprintf(&path, "%s/%s", fixture.directory, name) > 0);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
    return path;
}

/* --- machine-config --- */

static struct error *put_machine_config(uint32_t vcpu_count, uint64_t mem_size_mib, bool smt, enum huge_pages pages)
{
    struct machine_config machine_config = {
        .vcpu_count = vcpu_count, .mem_size_mib = mem_size_mib, .smt = smt, .huge_pages = pages};

    return machine_put_machine_config(fixture.machine, &machine_config);
}

static void test_machine_has_one_vcpu_and_128_mib_unless_told(void **state)
{
    (void)state;
    assert_int_equal(config()->machine.vcpu_count, 1);
    assert_int_equal(config()->machine.mem_size_mib, 128);
    assert_int_equal(machine_state(fixture.machine), MACHINE_NOT_STARTED);
    assert_string_equal(machine_id(fixture.machine), "test");
}

static void test_machine_config_out_of_bounds_is_named_and_changes_nothing(void **state)
{
    static const struct {
        uint32_t vcpu_count;
        uint64_t mem_size_mib;
        bool smt;
        enum huge_pages pages;
        const char *text;
    } bad[] = {
        {0, 128, false, HUGE_PAGES_NONE, "vcpu_count: 0, expected 1 to 32"},
        {33, 128, false, HUGE_PAGES_NONE, "vcpu_count: 33, expected 1 to 32"},
        {3, 128, true, HUGE_PAGES_NONE, "vcpu_count: 3, expected 1 or an even number"},
        {2, 0, false, HUGE_PAGES_NONE, "mem_size_mib: 0, expected 1 to"},
        {2, UINT64_MAX, false, HUGE_PAGES_NONE, "mem_size_mib: 18446744073709551615"},
        {2, (uint64_t)MEM_SIZE_MIB_MAX + 1, false, HUGE_PAGES_NONE, "mem_size_mib: 8388609"},
        {2, 129, false, HUGE_PAGES_2M, "mem_size_mib: 129, expected a multiple of 2"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++) {
        assert_error(put_machine_config(bad[i].vcpu_count, bad[i].mem_size_mib, bad[i].smt, bad[i].pages), ERROR_INPUT,
                     bad[i].text);
        assert_int_equal(config()->machine.vcpu_count, 1);
        assert_int_equal(config()->machine.mem_size_mib, 128);
    }
}

static void test_machine_config_at_its_bounds_is_accepted(void **state)
{
    (void)state;
    assert_no_error(put_machine_config(32, 1, true, HUGE_PAGES_NONE));
    assert_no_error(put_machine_config(1, 129, true, HUGE_PAGES_TRANSPARENT));
    assert_no_error(put_machine_config(1, 8192, false, HUGE_PAGES_2M));
    assert_int_equal(config()->machine.mem_size_mib, 8192);
}

static void test_memory_out_of_all_proportion_to_the_host_is_refused(void **state)
{
    struct sysinfo host;

    (void)state;
    assert_int_equal(sysinfo(&host), 0);
    uint64_t limit = ((uint64_t)host.totalram * host.mem_unit >> 20) * 64;
    if (limit >= MEM_SIZE_MIB_MAX) {
        print_message("skipped: this host has memory for any guest\n");
        skip();
    }
    assert_error(put_machine_config(1, limit + 1, false, HUGE_PAGES_NONE), ERROR_INPUT, "times this host's memory");
    assert_no_error(put_machine_config(1, limit, false, HUGE_PAGES_NONE));
}

/* --- boot-source --- */

static struct error *put_boot_source(const char *kernel, const char *initrd, const char *boot_args)
{
    struct boot_source_config source = {
        .kernel_image_path = kernel == NULL ? NULL : strdup(kernel),
        .initrd_path = initrd == NULL ? NULL : strdup(initrd),
        .boot_args = boot_args == NULL ? NULL : strdup(boot_args),
    };
    struct error *error = machine_put_boot_source(fixture.machine, &source);

    if (error == NULL)
        assert_null(source.kernel_image_path);
    boot_source_config_free(&source);
    return error;
}

static void test_boot_source_that_cannot_be_opened_is_named_and_changes_nothing(void **state)
{
    cleanup_free char *kernel = file("kernel", 4096);
    cleanup_free char *fifo = file("gone", 0);

    (void)state;
    unlink(fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_no_error(put_boot_source(kernel, NULL, "quiet"));
    assert_error(put_boot_source("/does/not/exist", NULL, NULL), ERROR_HOST,
                 "kernel_image_path: cannot open '/does/not/exist': No such file");
    assert_error(put_boot_source(kernel, "/no/initrd", NULL), ERROR_HOST, "initrd_path: cannot open '/no/initrd'");
    assert_error(put_boot_source(fixture.directory, NULL, NULL), ERROR_INPUT, "is not a regular file");
    assert_error(put_boot_source(fifo, NULL, NULL), ERROR_INPUT, "is not a regular file");
    assert_error(put_boot_source(NULL, NULL, NULL), ERROR_INPUT, "kernel_image_path: missing");
    assert_error(put_boot_source(kernel, NULL, "a\tb"), ERROR_INPUT, "boot_args: byte 0x09");
    assert_string_equal(config()->boot_source.kernel_image_path, kernel);
    assert_string_equal(config()->boot_source.boot_args, "quiet");
}

static void test_second_boot_source_replaces_the_first(void **state)
{
    cleanup_free char *first = file("first", 10);
    cleanup_free char *second = file("second", 10);

    (void)state;
    assert_no_error(put_boot_source(first, second, "quiet"));
    assert_no_error(put_boot_source(second, NULL, NULL));
    assert_string_equal(config()->boot_source.kernel_image_path, second);
    assert_null(config()->boot_source.initrd_path);
    assert_null(config()->boot_source.boot_args);
}

/* --- drives --- */

static struct error *put_drive(const char *id, const char *path, bool is_root)
{
    struct drive_config drive = {.drive_id = strdup(id), .path_on_host = strdup(path), .is_root_device = is_root};
    struct error *error = machine_put_drive(fixture.machine, &drive);

    drive_config_free(&drive);
    return error;
}

static void test_root_drive_comes_first_whenever_it_was_put(void **state)
{
    cleanup_free char *disk = file("disk", 1 << 20);

    (void)state;
    assert_no_error(put_drive("data", disk, false));
    assert_no_error(put_drive("more", disk, false));
    assert_no_error(put_drive("root", disk, true));
    assert_int_equal(config()->drive_count, 3);
    assert_string_equal(config()->drives[0].drive_id, "root");
    assert_string_equal(config()->drives[1].drive_id, "data");
    assert_string_equal(config()->drives[2].drive_id, "more");
}

static void test_second_root_drive_is_refused(void **state)
{
    cleanup_free char *disk = file("disk", 1 << 20);

    (void)state;
    assert_no_error(put_drive("root", disk, true));
    assert_error(put_drive("other", disk, true), ERROR_INPUT, "is_root_device: true, but drive 'root'");
    assert_int_equal(config()->drive_count, 1);
    assert_no_error(put_drive("root", disk, true));
    assert_no_error(put_drive("root", disk, false));
    assert_no_error(put_drive("other", disk, true));
    assert_string_equal(config()->drives[0].drive_id, "other");
}

static void test_same_drive_id_replaces(void **state)
{
    cleanup_free char *disk = file("disk", 1 << 20);
    cleanup_free char *other = file("other", 2 << 20);

    (void)state;
    assert_no_error(put_drive("d", disk, false));
    assert_no_error(put_drive("d", other, false));
    assert_int_equal(config()->drive_count, 1);
    assert_string_equal(config()->drives[0].path_on_host, other);
    assert_error(put_drive("d", "/does/not/exist", false), ERROR_HOST, "/does/not/exist");
    assert_string_equal(config()->drives[0].path_on_host, other);
}

static void test_bad_drive_id_is_named(void **state)
{
    char long_id[ID_LENGTH_MAX + 2];

    (void)state;
    memset(long_id, 'a', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    assert_error(put_drive("", "/dev/null", false), ERROR_INPUT, "drive_id: 0 characters, expected 1 to 64");
    assert_error(put_drive(long_id, "/dev/null", false), ERROR_INPUT, "drive_id: 65 characters");
    assert_error(put_drive("a b", "/dev/null", false), ERROR_INPUT, "drive_id: 'a b'");
    assert_int_equal(config()->drive_count, 0);
}

static void test_devices_are_at_most_as_many_as_interrupts(void **state)
{
    cleanup_free char *disk = file("disk", 1 << 20);
    struct entropy_config entropy = {.present = true};
    char id[16];

    (void)state;
    for (int i = 0; i < VIRTIO_DEVICES_MAX; i++) {
        snprintf(id, sizeof(id), "d%d", i);
        assert_no_error(put_drive(id, disk, false));
    }
    assert_error(put_drive("one_more", disk, false), ERROR_INPUT, "at most 19 devices");
    assert_error(machine_put_entropy(fixture.machine, &entropy), ERROR_INPUT, "at most 19 devices");
    assert_no_error(put_drive("d3", disk, true));
    assert_int_equal(config()->drive_count, VIRTIO_DEVICES_MAX);
}

/* --- network interfaces --- */

static void test_missing_tap_is_named(void **state)
{
    struct network_interface_config interface = {.iface_id = strdup("eth0"), .host_dev_name = strdup("mayfly/no/tap")};

    (void)state;
    struct error *error = machine_put_network_interface(fixture.machine, &interface);
    assert_non_null(error);
    assert_non_null(strstr(error->message, "host_dev_name"));
    error_free(error);
    network_interface_config_free(&interface);
    assert_int_equal(config()->network_interface_count, 0);
}

/* --- logger and metrics --- */

static void test_bad_log_level_is_named_and_opens_nothing(void **state)
{
    cleanup_free char *path = file("log", 0);
    struct logger_config logger = {.log_path = strdup(path), .level = strdup("Loud")};

    (void)state;
    assert_error(machine_put_logger(fixture.machine, &logger), ERROR_INPUT, "level: 'Loud', expected Off, Error");
    assert_true(log_is_stderr());
    logger_config_free(&logger);
}

static void test_metrics_can_be_put_once(void **state)
{
    struct metrics_config missing = {.metrics_path = strdup("/does/not/exist/metrics")};
    struct metrics_config metrics_config = {.metrics_path = file("metrics", 0)};
    struct metrics_config again = {.metrics_path = file("again", 0)};

    (void)state;
    assert_error(machine_put_metrics(fixture.machine, &missing), ERROR_HOST, "metrics_path: cannot open");
    assert_no_error(machine_put_metrics(fixture.machine, &metrics_config));
    assert_error(machine_put_metrics(fixture.machine, &again), ERROR_STATE, "metrics_path: already set to");
    metrics_config_free(&missing);
    metrics_config_free(&again);
}

static void test_flushed_metrics_are_in_the_file_with_id_and_properties(void **state)
{
    cleanup_free char *path = file("metrics", 0);
    struct metrics_config metrics_config = {.metrics_path = strdup(path), .emit_id = true};
    char line[16384] = "";

    (void)state;
    metrics_config.properties.pairs = calloc(1, sizeof(struct string_pair));
    metrics_config.properties.count = 1;
    metrics_config.properties.pairs[0] = (struct string_pair){.name = strdup("na\"me"), .value = strdup("a\\b\n")};
    assert_no_error(machine_flush_metrics(fixture.machine));
    assert_no_error(machine_put_metrics(fixture.machine, &metrics_config));
    assert_no_error(machine_flush_metrics(fixture.machine));

    int fd = open(path, O_RDONLY);
    assert_true(read(fd, line, sizeof(line) - 1) > 0);
    close(fd);
    assert_non_null(strstr(line, ",\"id\":\"test\",\"properties\":{\"na\\\"me\":\"a\\\\b\\u000a\"},\"api_server\":{"));
}

/* --- life cycle --- */

static void test_start_without_a_boot_source_is_refused(void **state)
{
    (void)state;
    assert_error(machine_start(fixture.machine), ERROR_STATE, "no kernel_image_path");
    assert_int_equal(machine_state(fixture.machine), MACHINE_NOT_STARTED);
}

static void test_what_needs_a_running_machine_is_refused_before(void **state)
{
    struct drive_update update = {.drive_id = strdup("d")};

    (void)state;
    assert_error(machine_pause(fixture.machine), ERROR_STATE, "Paused");
    assert_error(machine_resume(fixture.machine), ERROR_STATE, "Resumed");
    assert_error(machine_send_ctrl_alt_del(fixture.machine), ERROR_STATE, "SendCtrlAltDel");
    assert_error(machine_patch_drive(fixture.machine, &update), ERROR_STATE, "drives");
    drive_update_free(&update);
}

static void test_failed_start_leaves_the_machine_to_be_mended(void **state)
{
    cleanup_free char *broken = file("broken", 4096);

    (void)state;
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        print_message("skipped: no /dev/kvm\n");
        skip();
    }
    assert_no_error(put_boot_source(broken, NULL, NULL));
    for (int i = 0; i < 2; i++) {
        struct error *error = machine_start(fixture.machine);

        assert_non_null(error);
        assert_non_null(strstr(error->message, "kernel_image_path"));
        assert_non_null(strstr(error->message, broken));
        error_free(error);
        assert_int_equal(machine_state(fixture.machine), MACHINE_NOT_STARTED);
        assert_no_error(put_machine_config(2, 64, false, HUGE_PAGES_NONE));
    }
}

/* A machine of 8 TiB may have 8 more plugged in. */
static void test_balloon_is_no_larger_than_its_pages_can_be_counted(void **state)
{
    const uint64_t all = 2ull * MEM_SIZE_MIB_MAX;

    (void)state;
    assert_no_error(machine_check_balloon(all - 1, all));
    assert_error(machine_check_balloon(all, all), ERROR_INPUT, "amount_mib: 16777216, expected at most 16777215");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(test_machine_has_one_vcpu_and_128_mib_unless_told),
          TEST(test_machine_config_out_of_bounds_is_named_and_changes_nothing),
          TEST(test_machine_config_at_its_bounds_is_accepted),
          TEST(test_memory_out_of_all_proportion_to_the_host_is_refused),
          TEST(test_boot_source_that_cannot_be_opened_is_named_and_changes_nothing),
          TEST(test_second_boot_source_replaces_the_first), TEST(test_root_drive_comes_first_whenever_it_was_put),
          TEST(test_second_root_drive_is_refused), TEST(test_same_drive_id_replaces), TEST(test_bad_drive_id_is_named),
          TEST(test_balloon_is_no_larger_than_its_pages_can_be_counted),
          TEST(test_devices_are_at_most_as_many_as_interrupts), TEST(test_missing_tap_is_named),
          TEST(test_bad_log_level_is_named_and_opens_nothing), TEST(test_metrics_can_be_put_once),
          TEST(test_flushed_metrics_are_in_the_file_with_id_and_properties),
          TEST(test_start_without_a_boot_source_is_refused), TEST(test_what_needs_a_running_machine_is_refused_before),
          TEST(test_failed_start_leaves_the_machine_to_be_mended))
