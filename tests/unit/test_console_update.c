#include "tests/unit/harness.h"

#include "tests/unit/console_driver.h"

#include "vmm/virtio/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Changing a console while its driver is at work: ports that come and go, windows that change their size. */

enum { PORTS = 3, FIRST = 0, LATER = 1, TERMINAL = 2 };
#define SIZE (1ULL << VIRTIO_CONSOLE_F_SIZE)

static struct console_driver console;
static struct guest_driver *const driver = &console.driver;
static struct console_port_config ports[PORTS];
static struct console_config config;
static char folder[] = "/tmp/mayfly-console-XXXXXX";
static char paths[PORTS][100];

static int setup(void **state)
{
    static const char *const names[PORTS] = {"first", "later", "terminal"};

    (void)state;
    memset(&console, 0, sizeof(console));
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < PORTS; i++) {
        snprintf(paths[i], sizeof(paths[i]), "%s/%zu", folder, i);
        ports[i] = (struct console_port_config){.name = (char *)names[i], .output_path = paths[i]};
    }
    ports[LATER].unplugged = true;
    ports[TERMINAL].console = true;
    ports[TERMINAL].columns = 80;
    ports[TERMINAL].rows = 25;
    config = (struct console_config){.ports = ports, .port_count = PORTS};
    guest_driver_setup(driver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_driver_teardown(driver);
    for (size_t i = 0; i < PORTS; i++)
        unlink(paths[i]);
    return rmdir(folder);
}

static void start(uint64_t features)
{
    console_driver_start(&console, &config, features);
    console_driver_say(&console, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
}

static void update(const struct console_update *what)
{
    assert_no_error(virtio_console_update(driver->device, what));
    console_driver_settle(&console);
}

static void plug(bool in)
{
    update(&(struct console_update){.name = (char *)"later", .has_unplugged = true, .unplugged = !in});
}

static void resize(uint32_t columns, uint32_t rows)
{
    update(&(struct console_update){.name = (char *)"terminal", .columns = columns, .rows = rows});
}

static void expect_size(uint16_t columns, uint16_t rows)
{
    const uint16_t size[] = {columns, rows};

    console_driver_expect(&console, TERMINAL, VIRTIO_CONSOLE_RESIZE, 0);
    assert_memory_equal(console.messages[console.messages_checked - 1].text, size, sizeof(size));
}

static void test_port_comes_and_goes(void **state)
{
    (void)state;
    start(MULTIPORT);
    console_driver_expect(&console, FIRST, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_expect(&console, TERMINAL, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_expect_silence(&console);
    for (unsigned times = 0; times < 3; times++) {
        plug(true);
        console_driver_expect(&console, LATER, VIRTIO_CONSOLE_PORT_ADD, 1);
        console_driver_say(&console, LATER, VIRTIO_CONSOLE_PORT_READY, 1);
        console_driver_expect(&console, LATER, VIRTIO_CONSOLE_PORT_NAME, 1);
        console_driver_expect(&console, LATER, VIRTIO_CONSOLE_PORT_OPEN, 1);
        plug(true); /* it is */
        console_driver_expect_silence(&console);
        plug(false);
        console_driver_expect(&console, LATER, VIRTIO_CONSOLE_PORT_REMOVE, 1);
        console_driver_say(&console, LATER, VIRTIO_CONSOLE_PORT_OPEN, 1); /* too late */
        console_driver_expect_silence(&console);
    }
}

static void test_changes_that_the_driver_has_not_heard_of_cancel_out(void **state)
{
    (void)state;
    assert_no_error(virtio_console_new(&config, driver->loop, &driver->device));
    guest_driver_start(driver, driver->device, MULTIPORT);
    console_driver_say(&console, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (unsigned times = 0; times < 100; times++) {
        plug(true);
        plug(false);
    }
    console_driver_give_control(&console, 8, 128);
    console_driver_settle(&console);
    console_driver_expect(&console, FIRST, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_expect(&console, TERMINAL, VIRTIO_CONSOLE_PORT_ADD, 1);
    console_driver_expect_silence(&console);
}

static void test_port_plugged_in_before_the_driver_came_is_found(void **state)
{
    (void)state;
    console_driver_start(&console, &config, MULTIPORT);
    plug(true);
    console_driver_expect_silence(&console);
    console_driver_say(&console, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (uint32_t i = 0; i < PORTS; i++)
        console_driver_expect(&console, i, VIRTIO_CONSOLE_PORT_ADD, 1);
}

static void test_terminal_is_told_its_size_and_each_change(void **state)
{
    (void)state;
    start(MULTIPORT | SIZE);
    console_driver_say(&console, TERMINAL, VIRTIO_CONSOLE_PORT_READY, 1);
    console.messages_checked = 2;
    console_driver_expect(&console, TERMINAL, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
    expect_size(80, 25);
    console_driver_expect(&console, TERMINAL, VIRTIO_CONSOLE_PORT_NAME, 1);
    console_driver_expect(&console, TERMINAL, VIRTIO_CONSOLE_PORT_OPEN, 1);
    resize(132, 43);
    expect_size(132, 43);
    console_driver_expect_silence(&console);
}

static void test_driver_that_does_not_know_sizes_hears_of_none(void **state)
{
    (void)state;
    start(MULTIPORT);
    console_driver_say(&console, TERMINAL, VIRTIO_CONSOLE_PORT_READY, 1);
    resize(132, 43);
    for (size_t i = 0; i < console.message_count; i++)
        assert_int_not_equal(console.messages[i].event, VIRTIO_CONSOLE_RESIZE);
}

static void test_driver_without_ports_finds_the_size_in_config_space(void **state)
{
    struct virtio_console_config space;

    (void)state;
    ports[FIRST].console = true;
    console_driver_start(&console, &config, SIZE);
    update(&(struct console_update){.name = (char *)"first", .columns = 100, .rows = 30});
    driver->device->ops->config_read(driver->device, 0, (uint8_t *)&space, sizeof(space));
    assert_int_equal(space.cols, 100);
    assert_int_equal(space.rows, 30);
    assert_int_equal(driver->config_signals, 1);
}

static void test_wrong_changes_are_refused(void **state)
{
    static const struct {
        struct console_update update;
        const char *text;
    } cases[] = {
        {{.name = (char *)"other", .columns = 1, .rows = 1}, "no port is called \"other\""},
        {{.name = (char *)"first", .columns = 80, .rows = 25}, "port \"first\" is no console"},
        {{.name = (char *)"terminal", .columns = 80}, "80 by 0 rows, expected 1 to 65535 of both"},
        {{.name = (char *)"terminal", .columns = 80, .rows = 65536}, "80 by 65536 rows"},
    };
    struct virtio_device *device;

    (void)state;
    start(MULTIPORT | SIZE);
    for (size_t i = 0; i < array_length(cases); i++)
        assert_error(virtio_console_update(driver->device, &cases[i].update), ERROR_INPUT, cases[i].text);
    ports[FIRST].rows = 5;
    assert_error(virtio_console_new(&config, driver->loop, &device), ERROR_INPUT, "only a port that is a console");
    ports[FIRST].console = true;
    assert_error(virtio_console_new(&config, driver->loop, &device), ERROR_INPUT, "0 by 5 rows");
}

#define console_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
TEST_MAIN(console_test(test_port_comes_and_goes),
          console_test(test_changes_that_the_driver_has_not_heard_of_cancel_out),
          console_test(test_port_plugged_in_before_the_driver_came_is_found),
          console_test(test_terminal_is_told_its_size_and_each_change),
          console_test(test_driver_that_does_not_know_sizes_hears_of_none),
          console_test(test_driver_without_ports_finds_the_size_in_config_space),
          console_test(test_wrong_changes_are_refused))
