#include "tests/unit/harness.h"

#include "vmm/i8042.h"

#include <sys/eventfd.h>
#include <unistd.h>

enum { DATA = 0, COMMAND = 4 };

static struct i8042 i8042;
static int resets;

static void count_reset(void *owner)
{
    assert_ptr_equal(owner, &i8042);
    resets++;
}

static int setup(void **state)
{
    (void)state;
    resets = 0;
    i8042_init(&i8042, count_reset, &i8042);
    i8042.irq_fd = eventfd(0, EFD_NONBLOCK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(i8042.irq_fd);
    return 0;
}

static uint8_t get(uint64_t offset)
{
    uint8_t byte = 0xee;

    i8042_bus_ops.read(&i8042, offset, &byte, 1);
    return byte;
}

static void put(uint64_t offset, uint8_t byte)
{
    i8042_bus_ops.write(&i8042, offset, &byte, 1);
}

/* How many times the interrupt was raised since the last call. */
static uint64_t interrupts(void)
{
    eventfd_t count;

    return eventfd_read(i8042.irq_fd, &count) == 0 ? count : 0;
}

static void test_reset_command_resets(void **state)
{
    (void)state;
    put(COMMAND, 0xfe);
    assert_int_equal(resets, 1);
}

static void test_output_port_with_bit_0_clear_resets(void **state)
{
    (void)state;
    put(COMMAND, 0xd1);
    put(DATA, 0x01);
    assert_int_equal(resets, 0);
    put(COMMAND, 0xd1);
    put(DATA, 0x02);
    assert_int_equal(resets, 1);
}

static void test_controller_passes_its_test(void **state)
{
    (void)state;
    put(COMMAND, 0xaa);
    assert_int_equal(get(COMMAND) & 1, 1);
    assert_int_equal(get(DATA), 0x55);
    assert_int_equal(get(COMMAND) & 1, 0);
    put(COMMAND, 0xab);
    assert_int_equal(get(DATA), 0x00);
    assert_int_equal(interrupts(), 0);
}

static void test_control_byte_reads_back(void **state)
{
    (void)state;
    put(COMMAND, 0x60);
    put(DATA, 0x74);
    put(COMMAND, 0x20);
    assert_int_equal(get(DATA), 0x74);
}

static void test_keyboard_answers_and_interrupts(void **state)
{
    (void)state;
    put(DATA, 0xf2);
    assert_int_equal(interrupts(), 1);
    assert_int_equal(get(DATA), 0xfa);
    assert_int_equal(interrupts(), 1);
    assert_int_equal(get(DATA), 0xab);
    assert_int_equal(get(DATA), 0x83);
    put(DATA, 0xff);
    assert_int_equal(get(DATA), 0xfa);
    assert_int_equal(get(DATA), 0xaa);
    put(DATA, 0xed);
    assert_int_equal(get(DATA), 0xfa);
}

static void test_mouse_does_not_answer(void **state)
{
    (void)state;
    put(COMMAND, 0xd4);
    put(DATA, 0xff);
    assert_int_equal(get(COMMAND) & 1, 0);
    assert_int_equal(interrupts(), 0);
}

static void test_ctrl_alt_del_types_make_codes(void **state)
{
    static const uint8_t keys[] = {0x14, 0x11, 0xe0, 0x71};

    (void)state;
    assert_no_error(i8042_send_ctrl_alt_del(&i8042));
    for (size_t i = 0; i < sizeof(keys); i++) {
        assert_int_equal(interrupts(), 1);
        assert_int_equal(get(DATA), keys[i]);
    }
    assert_int_equal(interrupts(), 0);
    assert_int_equal(get(DATA), 0);
}

static void test_ctrl_alt_del_needs_the_keyboards_interrupt(void **state)
{
    (void)state;
    put(COMMAND, 0x60);
    put(DATA, 0x00);
    assert_error(i8042_send_ctrl_alt_del(&i8042), ERROR_STATE, "SendCtrlAltDel");
    assert_int_equal(get(COMMAND) & 1, 0);
}

static void test_ctrl_alt_del_needs_room(void **state)
{
    (void)state;
    for (int i = 0; i < I8042_BUFFER_SIZE / 4; i++)
        assert_no_error(i8042_send_ctrl_alt_del(&i8042));
    assert_error(i8042_send_ctrl_alt_del(&i8042), ERROR_STATE, "not read");
    get(DATA);
    assert_error(i8042_send_ctrl_alt_del(&i8042), ERROR_STATE, "not read");
}

static void test_guest_cannot_overfill_the_buffer(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        put(DATA, 0xff);
    assert_int_equal(i8042.buffer_count, I8042_BUFFER_SIZE);
    for (int i = 0; i < I8042_BUFFER_SIZE; i++)
        get(DATA);
    assert_int_equal(get(COMMAND) & 1, 0);
}

static void test_wide_and_odd_accesses_do_nothing(void **state)
{
    uint8_t data[4] = {0xfe, 0xfe, 0xfe, 0xfe};

    (void)state;
    i8042_bus_ops.write(&i8042, COMMAND, data, 2);
    i8042_bus_ops.write(&i8042, 1, data, 1);
    assert_int_equal(resets, 0);
    i8042_bus_ops.read(&i8042, DATA, data, 4);
    assert_int_equal(data[3], 0);
    i8042_bus_ops.read(&i8042, 2, data, 1);
    assert_int_equal(data[0], 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(test_reset_command_resets), TEST(test_output_port_with_bit_0_clear_resets),
          TEST(test_controller_passes_its_test), TEST(test_control_byte_reads_back),
          TEST(test_keyboard_answers_and_interrupts), TEST(test_mouse_does_not_answer),
          TEST(test_ctrl_alt_del_types_make_codes), TEST(test_ctrl_alt_del_needs_the_keyboards_interrupt),
          TEST(test_ctrl_alt_del_needs_room), TEST(test_guest_cannot_overfill_the_buffer),
          TEST(test_wide_and_odd_accesses_do_nothing))
