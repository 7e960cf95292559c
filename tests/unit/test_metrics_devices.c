/* Counters that devices have of their own: what the lines tell while they come, count and go. */
#include "tests/unit/harness.h"

#include "tests/unit/metrics_line.h"

#include "vmm/base/event_loop.h"
#include "vmm/config.h"
#include "vmm/machine.h"
#include "vmm/metrics.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct drive {
    DEVICE_METRICS(block_metrics) metrics;
};

static struct drive *drive_new(const char *id)
{
    struct drive *drive = calloc(1, sizeof(*drive));

    assert_non_null(drive);
    METRICS_DEVICE_ADD(&drive->metrics, METRICS_BLOCK, "block", id);
    return drive;
}

static void drive_free(struct drive *drive)
{
    metrics_device_remove(&drive->metrics.device);
    memset(drive, 0xff, sizeof(*drive));
    free(drive);
}

/* From here on every counter begins at 0. */
static int setup(void **state)
{
    (void)state;
    memset(&metrics, 0, sizeof(metrics));
    yajl_tree_free(metrics_line());
    memset(&metrics, 0, sizeof(metrics));
    yajl_tree_free(metrics_line());
    return 0;
}

static void test_each_device_tells_its_own_and_the_group_the_sum(void **state)
{
    struct drive *a = drive_new("a"), *b = drive_new("b");

    (void)state;
    COUNTER_ADD(a->metrics.counters.read_count, 3);
    COUNTER_ADD(b->metrics.counters.read_count, 4);
    yajl_val line = metrics_line();
    assert_int_equal(metrics_line_number(line, "block_a", "read_count"), 3);
    assert_int_equal(metrics_line_number(line, "block_b", "read_count"), 4);
    assert_int_equal(metrics_line_number(line, "block", "read_count"), 7);
    assert_int_equal(metrics_line_number(line, "block_b", "write_count"), 0);
    yajl_tree_free(line);

    COUNTER_INCREMENT(b->metrics.counters.read_count);
    line = metrics_line();
    assert_int_equal(metrics_line_number(line, "block_a", "read_count"), 0);
    assert_int_equal(metrics_line_number(line, "block_b", "read_count"), 1);
    assert_int_equal(metrics_line_number(line, "block", "read_count"), 1);
    yajl_tree_free(line);
    assert_int_equal(METRIC_TOTAL(block.read_count), 8);
    drive_free(a);
    drive_free(b);
}

static void test_what_a_device_counted_outlives_it_in_the_sum_alone(void **state)
{
    struct drive *drive = drive_new("a");

    (void)state;
    COUNTER_ADD(drive->metrics.counters.write_bytes, 512);
    assert_int_equal(metrics_line_next("block", "write_bytes"), 512);
    COUNTER_ADD(drive->metrics.counters.write_bytes, 100);
    drive_free(drive);
    yajl_val line = metrics_line();
    assert_int_equal(metrics_line_number(line, "block", "write_bytes"), 100);
    assert_false(metrics_line_has(line, "block_a"));
    yajl_tree_free(line);
    assert_int_equal(METRIC_TOTAL(block.write_bytes), 612);

    /* Another one of the same name begins at 0. */
    drive = drive_new("a");
    COUNTER_INCREMENT(drive->metrics.counters.write_bytes);
    line = metrics_line();
    assert_int_equal(metrics_line_number(line, "block_a", "write_bytes"), 1);
    assert_int_equal(metrics_line_number(line, "block", "write_bytes"), 1);
    yajl_tree_free(line);
    drive_free(drive);
}

static void test_devices_go_in_any_order(void **state)
{
    static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    static const char *const names[] = {"block_a", "block_b", "block_c"};

    (void)state;
    for (size_t i = 0; i < array_length(orders); i++) {
        struct drive *drives[] = {drive_new("a"), drive_new("b"), drive_new("c")};

        for (size_t j = 0; j < 3; j++) {
            COUNTER_INCREMENT(drives[orders[i][j]]->metrics.counters.flush_count);
            drive_free(drives[orders[i][j]]);
            yajl_val line = metrics_line();
            for (size_t k = 0; k < 3; k++) {
                bool gone = false;

                for (size_t l = 0; l <= j; l++)
                    gone = gone || orders[i][l] == k;
                assert_int_equal(metrics_line_has(line, names[k]), !gone);
            }
            assert_int_equal(metrics_line_number(line, "block", "flush_count"), 1);
            yajl_tree_free(line);
        }
    }
}

static void test_device_that_was_never_added_or_is_gone_may_be_removed(void **state)
{
    struct drive never = {0}, *drive = drive_new("a");

    (void)state;
    metrics_device_remove(&never.metrics.device);
    metrics_device_remove(&drive->metrics.device);
    drive_free(drive);
    yajl_tree_free(metrics_line());
}

static void test_times_of_a_back_end_are_values(void **state)
{
    DEVICE_METRICS(vhost_user_metrics) served = {0};

    (void)state;
    METRICS_DEVICE_ADD(&served, METRICS_VHOST_USER, "vhost_user_block", "d");
    COUNTER_SET(served.counters.init_time_us, 70);
    COUNTER_INCREMENT(served.counters.cfg_fails);
    for (int i = 0; i < 2; i++) {
        yajl_val line = metrics_line();

        assert_int_equal(metrics_line_number(line, "vhost_user_block_d", "init_time_us"), 70);
        assert_int_equal(metrics_line_number(line, "vhost_user_block_d", "cfg_fails"), i == 0);
        assert_int_equal(metrics_line_number(line, "vhost_user", "init_time_us"), 70);
        yajl_tree_free(line);
    }
    metrics_device_remove(&served.device);
    assert_int_equal(metrics_line_next("vhost_user", "init_time_us"), 0);
}

/* As many devices as a machine can have, with the longest names and numbers; one more is in the sum. */
static void test_full_machine_fits_the_line(void **state)
{
    struct {
        char id[ID_LENGTH_MAX + 1];
        DEVICE_METRICS(net_metrics) metrics;
    } interfaces[VIRTIO_DEVICES_MAX + 1];

    (void)state;
    for (size_t i = 0; i < array_length(interfaces); i++) {
        memset(&interfaces[i], 0, sizeof(interfaces[i]));
        snprintf(interfaces[i].id, sizeof(interfaces[i].id), "%0*zu", ID_LENGTH_MAX, i);
        METRICS_DEVICE_ADD(&interfaces[i].metrics, METRICS_NET, "net", interfaces[i].id);
        memset(&interfaces[i].metrics.counters, 0xff, sizeof(interfaces[i].metrics.counters));
    }
    memset(&metrics, 0xff, sizeof(metrics));
    yajl_val line = metrics_line();
    char name[sizeof("net_") + ID_LENGTH_MAX];
    snprintf(name, sizeof(name), "net_%s", interfaces[VIRTIO_DEVICES_MAX - 1].id);
    assert_true(metrics_line_has(line, name));
    snprintf(name, sizeof(name), "net_%s", interfaces[VIRTIO_DEVICES_MAX].id);
    assert_false(metrics_line_has(line, name));
    yajl_tree_free(line);
    COUNTER_ADD(interfaces[VIRTIO_DEVICES_MAX].metrics.counters.tx_count, 5);
    assert_int_equal(metrics_line_next("net", "tx_count"), 5);
    for (size_t i = 0; i < array_length(interfaces); i++)
        metrics_device_remove(&interfaces[i].metrics.device);
}

/* --- Devices themselves --- */

static struct event_loop *loop;
static char path[] = "/tmp/mayfly-metrics-XXXXXX";

static int setup_devices(void **state)
{
    setup(state);
    strcpy(path + sizeof(path) - 7, "XXXXXX");
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_no_error(event_loop_new(&loop));
    return 0;
}

static int teardown_devices(void **state)
{
    (void)state;
    event_loop_free(loop);
    return unlink(path);
}

static struct virtio_device *block_new(const char *id)
{
    struct drive_config config = {.drive_id = (char *)(uintptr_t)id, .path_on_host = path};
    struct virtio_device *device;

    assert_no_error(virtio_block_new(&config, loop, &device));
    return device;
}

static struct virtio_device *net_new(const char *id)
{
    struct network_interface_config config = {.iface_id = (char *)(uintptr_t)id};
    struct virtio_device *device;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[1]);
    assert_no_error(virtio_net_new_on(&config, net_stream_new(pair[0]), loop, &device));
    return device;
}

static struct virtio_device *pmem_new(const char *id)
{
    struct pmem_config config = {.id = (char *)(uintptr_t)id, .path_on_host = path};
    struct virtio_device *device;

    assert_no_error(virtio_pmem_new(&config, loop, &device));
    return device;
}

static void test_devices_are_in_the_line_from_their_making_to_their_end(void **state)
{
    struct virtio_device *devices[] = {block_new("a"), net_new("a"), pmem_new("a"), block_new("b")};
    static const char *const names[] = {"block_a", "net_a", "pmem_a", "block_b"};

    (void)state;
    for (size_t gone = 0; gone <= array_length(devices); gone++) {
        yajl_val line = metrics_line();

        for (size_t i = 0; i < array_length(devices); i++)
            assert_int_equal(metrics_line_has(line, names[i]), i >= gone);
        yajl_tree_free(line);
        if (gone < array_length(devices))
            devices[gone]->ops->destroy(devices[gone]);
    }
}

static void test_device_that_cannot_be_made_leaves_nothing_behind(void **state)
{
    struct drive_config drive = {.drive_id = (char *)"a", .path_on_host = (char *)"/does/not/exist"};
    struct drive_config served = {.drive_id = (char *)"a", .socket = (char *)"/does/not/exist"};
    struct pmem_config pmem = {.id = (char *)"a", .path_on_host = (char *)"/does/not/exist"};
    struct virtio_device *device;

    (void)state;
    assert_error(virtio_block_new(&drive, loop, &device), ERROR_HOST, "path_on_host");
    assert_error(virtio_pmem_new(&pmem, loop, &device), ERROR_HOST, "path_on_host");
    assert_error(virtio_vhost_user_block_new(&served, loop, &device), ERROR_HOST, "socket");
    yajl_val line = metrics_line();
    assert_false(metrics_line_has(line, "block_a"));
    assert_false(metrics_line_has(line, "pmem_a"));
    assert_false(metrics_line_has(line, "vhost_user_block_a"));
    assert_int_equal(metrics_line_number(line, "vhost_user", "cfg_fails"), 1);
    yajl_tree_free(line);
}

/* What replaces a drive is made before that one goes. */
static void test_device_that_replaces_another_counts_for_itself(void **state)
{
    struct virtio_device *device = block_new("a");
    struct drive_update update = {.path_on_host = path};

    (void)state;
    assert_no_error(virtio_block_update(device, &update));
    for (int i = 0; i < 3; i++) {
        struct virtio_device *next = block_new("a");

        device->ops->destroy(device);
        device = next;
    }
    yajl_val line = metrics_line();
    assert_int_equal(metrics_line_number(line, "block_a", "update_count"), 0);
    assert_int_equal(metrics_line_number(line, "block", "update_count"), 1);
    yajl_tree_free(line);
    device->ops->destroy(device);
}

static struct error *put_drive(struct machine *machine, const char *id, const char *file)
{
    struct drive_config config = {.drive_id = strdup(id), .path_on_host = strdup(file)};
    struct error *error = machine_put_drive(machine, &config);

    drive_config_free(&config);
    return error;
}

static void test_drive_that_is_put_again_is_in_the_line_once(void **state)
{
    const struct machine_options options = {.id = "test"};
    struct machine *machine;

    (void)state;
    assert_no_error(machine_new(loop, &options, &machine));
    for (int i = 0; i < 3; i++) {
        assert_no_error(put_drive(machine, "a", path));
        assert_no_error(put_drive(machine, "b", path));
        assert_error(put_drive(machine, "a", "/does/not/exist"), ERROR_HOST, "path_on_host");
        yajl_val line = metrics_line();
        assert_true(metrics_line_has(line, "block_a"));
        assert_true(metrics_line_has(line, "block_b"));
        for (size_t j = 0, seen = 0; j < line->u.object.len; j++) {
            seen += strncmp(line->u.object.keys[j], "block_", 6) == 0;
            assert_true(seen <= 2);
        }
        yajl_tree_free(line);
    }
    machine_free(machine);
    yajl_val line = metrics_line();
    assert_false(metrics_line_has(line, "block_a"));
    yajl_tree_free(line);
}

#define DEVICES(name) cmocka_unit_test_setup_teardown(name, setup_devices, teardown_devices)
#define COUNTERS(name) cmocka_unit_test_setup(name, setup)

TEST_MAIN(COUNTERS(test_each_device_tells_its_own_and_the_group_the_sum),
          COUNTERS(test_what_a_device_counted_outlives_it_in_the_sum_alone), COUNTERS(test_devices_go_in_any_order),
          COUNTERS(test_device_that_was_never_added_or_is_gone_may_be_removed),
          COUNTERS(test_times_of_a_back_end_are_values), COUNTERS(test_full_machine_fits_the_line),
          DEVICES(test_devices_are_in_the_line_from_their_making_to_their_end),
          DEVICES(test_device_that_cannot_be_made_leaves_nothing_behind),
          DEVICES(test_device_that_replaces_another_counts_for_itself),
          DEVICES(test_drive_that_is_put_again_is_in_the_line_once))
