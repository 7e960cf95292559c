#include "tests/unit/harness.h"

#include "vmm/metrics.h"
#include "vmm/serial.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct fixture {
    struct event_loop *loop;
    struct serial serial;
    struct event_task stop;
    int saved_stdin, saved_stdout;
    int typing;  /* write here to type on stdin */
    int reading; /* read here what the guest printed */
    char directory[64];
    uint8_t ring[SERIAL_RING_SIZE];
};

static struct fixture fixture;

static void stop(struct event_task *task)
{
    (void)task;
    event_loop_stop(fixture.loop);
}

/* Serves what is ready now. A stopped loop is done for: the next turn needs another, with the same sources. */
static void turn(void)
{
    struct event_loop *old = fixture.loop;

    fixture.stop.run = stop;
    event_loop_when_idle(old, &fixture.stop);
    assert_no_error(event_loop_run(old));

    bool input = fixture.serial.input.loop != NULL;
    bool output = fixture.serial.output.loop != NULL;
    uint32_t events = fixture.serial.output.events;
    event_timer_cancel(&fixture.serial.flush_timer);
    event_source_remove(&fixture.serial.input);
    event_source_remove(&fixture.serial.output);
    event_loop_free(old);
    assert_no_error(event_loop_new(&fixture.loop));
    fixture.serial.loop = fixture.loop;
    if (input)
        assert_no_error(event_source_add(fixture.loop, &fixture.serial.input, EPOLLIN));
    if (output)
        assert_no_error(event_source_add(fixture.loop, &fixture.serial.output, events));
}

static int setup(void **state)
{
    int in[2], out[2];

    (void)state;
    memset(&fixture, 0, sizeof(fixture));
    fixture.saved_stdin = dup(STDIN_FILENO);
    fixture.saved_stdout = dup(STDOUT_FILENO);
    fflush(stdout);
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    close(in[0]);
    close(out[1]);
    fixture.typing = in[1];
    fixture.reading = out[0];
    fcntl(fixture.reading, F_SETFL, O_NONBLOCK);
    strcpy(fixture.directory, "/tmp/mayfly-serial-XXXXXX");
    assert_non_null(mkdtemp(fixture.directory));

    assert_no_error(event_loop_new(&fixture.loop));
    serial_init(&fixture.serial, fixture.loop, fixture.ring);
    fixture.serial.irq_fd = eventfd(0, EFD_NONBLOCK);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    serial_close(&fixture.serial);
    event_loop_free(fixture.loop);
    close(fixture.serial.irq_fd);
    if (fixture.typing >= 0)
        close(fixture.typing);
    if (fixture.reading >= 0)
        close(fixture.reading);
    dup2(fixture.saved_stdin, STDIN_FILENO);
    dup2(fixture.saved_stdout, STDOUT_FILENO);
    close(fixture.saved_stdin);
    close(fixture.saved_stdout);
    snprintf(command, sizeof(command), "rm -r %s", fixture.directory);
    return system(command);
}

static void open_standard(void)
{
    struct serial_config config = {0};

    assert_no_error(serial_open(&fixture.serial, &config));
}

static uint8_t get(uint64_t offset)
{
    uint8_t byte = 0;

    serial_bus_ops.read(&fixture.serial, offset, &byte, 1);
    return byte;
}

static void put(uint64_t offset, uint8_t byte)
{
    serial_bus_ops.write(&fixture.serial, offset, &byte, 1);
}

static void put_text(const char *text)
{
    while (*text != '\0')
        put(DATA, (uint8_t)*text++);
}

static uint64_t interrupts(void)
{
    eventfd_t count;

    return eventfd_read(fixture.serial.irq_fd, &count) == 0 ? count : 0;
}

/* What the guest printed so far. */
static const char *printed(void)
{
    static char text[4096];
    ssize_t count = read(fixture.reading, text, sizeof(text) - 1);

    text[count > 0 ? count : 0] = '\0';
    return text;
}

static void test_output_arrives_in_one_write_per_line(void **state)
{
    (void)state;
    open_standard();
    turn();
    put(DATA, 'a'); /* the first after a pause leaves at once */
    turn();
    assert_string_equal(printed(), "a");
    put_text("bc");
    put_text("d\n");
    uint64_t before = metrics.uart.flush_count;
    turn();
    assert_string_equal(printed(), "bcd\n");
    assert_int_equal(metrics.uart.flush_count, before + 1);
}

static void test_close_writes_what_is_left(void **state)
{
    (void)state;
    open_standard();
    put_text("last words");
    serial_close(&fixture.serial);
    assert_string_equal(printed(), "last words");
}

static void test_full_pipe_drops_and_counts_and_never_blocks(void **state)
{
    uint64_t before = metrics.uart.missed_write_count;

    (void)state;
    open_standard();
    for (int i = 0; i < 100; i++) {
        for (int j = 0; j < 4096; j++)
            put(DATA, 'x');
        turn();
    }
    assert_true(metrics.uart.missed_write_count > before);
    assert_int_equal(fixture.serial.ring_count, SERIAL_RING_SIZE);
    while (printed()[0] != '\0')
        turn();
    put_text("room again\n");
    turn();
    assert_string_equal(printed(), "room again\n");
}

static void test_reader_that_left_ends_the_output_not_the_guest(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    open_standard();
    close(fixture.reading);
    fixture.reading = -1;
    put_text("nobody\n");
    turn();
    put_text("nobody\n");
    turn();
    assert_int_equal(fixture.serial.ring_count, 0);
    assert_null(fixture.serial.output.loop);
}

static void test_typed_bytes_reach_the_guest_with_an_interrupt(void **state)
{
    (void)state;
    open_standard();
    put(IER, 0x01);
    assert_int_equal(get(LSR) & 1, 0);
    assert_int_equal(write(fixture.typing, "hi", 2), 2);
    turn();
    assert_int_equal(interrupts(), 1);
    assert_int_equal(get(IIR) & 0x0f, 0x04);
    assert_int_equal(get(LSR) & 1, 1);
    assert_int_equal(get(DATA), 'h');
    assert_int_equal(get(DATA), 'i');
    assert_int_equal(get(LSR) & 1, 0);
    assert_int_equal(get(IIR) & 0x0f, 0x01);
}

static void test_input_waits_while_the_fifo_is_full(void **state)
{
    char bytes[100];

    (void)state;
    open_standard();
    memset(bytes, 'z', sizeof(bytes));
    assert_int_equal(write(fixture.typing, bytes, sizeof(bytes)), sizeof(bytes));
    turn();
    assert_int_equal(fixture.serial.receive_count, SERIAL_FIFO_SIZE);
    assert_null(fixture.serial.input.loop);
    for (int i = 0; i < SERIAL_FIFO_SIZE; i++)
        assert_int_equal(get(DATA), 'z');
    assert_non_null(fixture.serial.input.loop);
    turn();
    assert_int_equal(fixture.serial.receive_count, 100 - SERIAL_FIFO_SIZE);
}

static void test_end_of_input_is_looked_at_once(void **state)
{
    (void)state;
    open_standard();
    close(fixture.typing);
    fixture.typing = -1;
    turn();
    assert_null(fixture.serial.input.loop);
    get(DATA);
    assert_null(fixture.serial.input.loop);
}

static void test_null_device_as_stdin_is_no_input(void **state)
{
    int fd = open("/dev/null", O_RDONLY);

    (void)state;
    dup2(fd, STDIN_FILENO);
    close(fd);
    open_standard();
    assert_null(fixture.serial.input.loop);
    put_text("still prints\n");
    turn();
    assert_string_equal(printed(), "still prints\n");
}

static void test_transmitter_interrupt_comes_and_is_cleared_by_reading_iir(void **state)
{
    (void)state;
    open_standard();
    assert_int_equal(interrupts(), 0);
    put(IER, 0x02);
    assert_int_equal(interrupts(), 1);
    assert_int_equal(get(IIR) & 0x0f, 0x02);
    assert_int_equal(get(IIR) & 0x0f, 0x01);
    put(DATA, 'x');
    assert_int_equal(interrupts(), 1);
    assert_int_equal(get(IIR) & 0x0f, 0x02);
    assert_int_equal(get(LSR) & 0x60, 0x60);
}

static void test_loopback_echoes_data_and_modem_lines(void **state)
{
    (void)state;
    open_standard();
    put(MCR, 0x1a);
    assert_int_equal(get(MSR) & 0xf0, 0x90);
    put(DATA, 'L');
    assert_int_equal(get(DATA), 'L');
    put(MCR, 0x08);
    assert_int_equal(get(MSR) & 0xf0, 0xb0);
    turn();
    assert_string_equal(printed(), "");
}

static void test_loopback_overrun_is_bounded(void **state)
{
    (void)state;
    put(MCR, 0x10);
    for (int i = 0; i < 1000; i++)
        put(DATA, (uint8_t)i);
    assert_int_equal(fixture.serial.receive_count, SERIAL_FIFO_SIZE);
    put(IIR, 0x03);
    assert_int_equal(fixture.serial.receive_count, 0);
}

static void test_registers_read_back(void **state)
{
    (void)state;
    put(SCR, 0xa5);
    assert_int_equal(get(SCR), 0xa5);
    put(LCR, 0x83);
    put(DATA, 0x34);
    put(IER, 0x12);
    assert_int_equal(get(DATA), 0x34);
    assert_int_equal(get(IER), 0x12);
    assert_int_equal(fixture.serial.divisor, 0x1234);
    put(LCR, 0x03);
    put(IER, 0xff);
    assert_int_equal(get(IER), 0x0f);
    assert_int_equal(get(IIR) & 0xc0, 0);
    put(IIR, 0x01);
    assert_int_equal(get(IIR) & 0xc0, 0xc0);
}

static void test_wide_access_reads_ones_and_writes_nothing(void **state)
{
    uint8_t data[4] = {0};

    (void)state;
    open_standard();
    serial_bus_ops.read(&fixture.serial, DATA, data, 4);
    assert_int_equal(data[0], 0xff);
    serial_bus_ops.write(&fixture.serial, DATA, data, 2);
    assert_int_equal(fixture.serial.ring_count, 0);
}

static void test_output_path_gets_the_output_and_stdin_is_left_alone(void **state)
{
    char path[128], text[32] = {0};
    struct serial_config config = {.serial_out_path = path};
    struct stat status;

    (void)state;
    snprintf(path, sizeof(path), "%s/out", fixture.directory);
    assert_no_error(serial_open(&fixture.serial, &config));
    put_text("to the file\n");
    turn();
    assert_string_equal(printed(), "");
    assert_null(fixture.serial.input.loop);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);

    int fd = open(path, O_RDONLY);
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    assert_string_equal(text, "to the file\n");
}

static void test_regular_file_stops_growing_at_its_limit(void **state)
{
    char path[128];
    struct serial_config config = {.serial_out_path = path};
    uint64_t before = metrics.uart.missed_write_count;
    struct stat status;

    (void)state;
    snprintf(path, sizeof(path), "%s/out", fixture.directory);
    assert_no_error(serial_open(&fixture.serial, &config));
    assert_int_equal(fixture.serial.file_room, SERIAL_FILE_MAX);
    fixture.serial.file_room = 10;
    put_text("0123456789abcdef\n");
    put_text("more\n");
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 10);
    assert_int_equal(metrics.uart.missed_write_count - before, 12);
}

static void test_fifo_without_a_reader_keeps_a_pipe_full(void **state)
{
    char path[128], text[32] = {0};
    struct serial_config config = {.serial_out_path = path};

    (void)state;
    snprintf(path, sizeof(path), "%s/fifo", fixture.directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_no_error(serial_open(&fixture.serial, &config));
    put_text("early\n");
    turn();

    int fd = open(path, O_RDONLY | O_NONBLOCK);
    assert_int_equal(read(fd, text, sizeof(text)), 6);
    close(fd);
    assert_string_equal(text, "early\n");
}

static void test_output_path_that_cannot_be_opened_is_named(void **state)
{
    struct serial_config config = {.serial_out_path = fixture.directory};

    (void)state;
    assert_error(serial_check(&config), ERROR_HOST, "serial_out_path: cannot open '/tmp/mayfly-serial-");
    assert_error(serial_open(&fixture.serial, &config), ERROR_HOST, "Is a directory");
}

static void test_rate_limiter_drops_what_is_over_the_budget(void **state)
{
    struct serial_config config = {.rate_limiter = {.present = true, .size = 4, .refill_time = 3600000}};
    uint64_t before = metrics.uart.rate_limiter_dropped_bytes;

    (void)state;
    assert_no_error(serial_open(&fixture.serial, &config));
    put_text("0123456789");
    serial_close(&fixture.serial);
    assert_string_equal(printed(), "0123");
    assert_int_equal(metrics.uart.rate_limiter_dropped_bytes - before, 6);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

TEST_MAIN(TEST(test_output_arrives_in_one_write_per_line), TEST(test_close_writes_what_is_left),
          TEST(test_full_pipe_drops_and_counts_and_never_blocks),
          TEST(test_reader_that_left_ends_the_output_not_the_guest),
          TEST(test_typed_bytes_reach_the_guest_with_an_interrupt), TEST(test_input_waits_while_the_fifo_is_full),
          TEST(test_end_of_input_is_looked_at_once), TEST(test_null_device_as_stdin_is_no_input),
          TEST(test_transmitter_interrupt_comes_and_is_cleared_by_reading_iir),
          TEST(test_loopback_echoes_data_and_modem_lines), TEST(test_loopback_overrun_is_bounded),
          TEST(test_registers_read_back), TEST(test_wide_access_reads_ones_and_writes_nothing),
          TEST(test_output_path_gets_the_output_and_stdin_is_left_alone),
          TEST(test_regular_file_stops_growing_at_its_limit), TEST(test_fifo_without_a_reader_keeps_a_pipe_full),
          TEST(test_output_path_that_cannot_be_opened_is_named), TEST(test_rate_limiter_drops_what_is_over_the_budget))
