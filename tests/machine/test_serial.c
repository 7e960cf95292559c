/* The serial port, whoever listens to it or does not. */
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_guest_hears_what_is_typed(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    vm_say(vm, "p");
    vm_expect(vm, "count ");
    vm_say(vm, "pq");
    vm_expect(vm, "count ");
    vm_expect_exit(vm, 0);
}

static void test_output_goes_to_the_file_that_was_asked_for(void **state)
{
    struct vm *vm = vm_start();
    cleanup_free char *text = calloc(1, 4096);
    const char *path = vm_path(vm, "serial");
    cleanup_fd int fd = -1;

    (void)state;
    vm_put(vm, "/serial", "{\"serial_out_path\":\"%s\"}", path);
    vm_boot(vm, "hello", "x");
    vm_expect_exit(vm, 0);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, 4095) > 0);
    assert_non_null(strstr(text, "hello\ncmdline: x"));
    assert_int_equal(vm->output_length, 0);
}

static void test_closed_stdin_is_no_input(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.stdin_closed = true});

    (void)state;
    vm_boot(vm, "hello", NULL);
    vm_expect_exit(vm, 0);
}

static void test_input_that_ends_leaves_the_guest_running(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    vm_say(vm, "p");
    fd_close(&vm->serial_in);
    vm_expect(vm, "count ");
    free(vm_get(vm, "/"));
}

/* A reader that stopped must not stop the guest: what does not fit is dropped. */
static void test_output_that_nobody_reads_does_not_stop_the_guest(void **state)
{
    struct vm *vm = vm_start();
    struct pollfd process = {.fd = vm->process_fd, .events = POLLIN};

    (void)state;
    assert_true(fcntl(vm->serial_out, F_SETPIPE_SZ, 4096) >= 4096);
    vm_boot(vm, "hammer", "what=serial count=40000");
    assert_int_equal(poll(&process, 1, MACHINE_PATIENCE_MS), 1);
    vm_expect_exit(vm, 0);
    assert_true(vm->output_length < 40000);
}

static void test_output_whose_reader_is_gone_does_not_stop_the_guest(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot_source(vm, "hammer", "what=serial count=3000");
    fd_close(&vm->serial_out);
    vm_action(vm, "InstanceStart");
    vm_expect_exit(vm, 0);
}

static void test_api_answers_while_the_guest_floods_the_port(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "hammer", "what=serial for_ever");
    vm_expect(vm, "hammering\n");
    for (int i = 0; i < 100; i++)
        free(vm_get(vm, "/"));
}

TEST_MAIN(machine_test(test_guest_hears_what_is_typed), machine_test(test_output_goes_to_the_file_that_was_asked_for),
          machine_test(test_closed_stdin_is_no_input), machine_test(test_input_that_ends_leaves_the_guest_running),
          machine_test(test_output_that_nobody_reads_does_not_stop_the_guest),
          machine_test(test_output_whose_reader_is_gone_does_not_stop_the_guest),
          machine_test(test_api_answers_while_the_guest_floods_the_port))
