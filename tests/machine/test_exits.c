/* Every way in which a microVM ends, and what nobody may end it with. */
#include "tests/machine/machine.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_reset_ends_with_code_0(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "hello", NULL);
    vm_expect_exit(vm, 0);
    vm_expect_log(vm, "exit code 0");
}

static void test_triple_fault_ends_with_code_1_and_is_logged(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "triple_fault", NULL);
    vm_expect(vm, "falling\n");
    vm_expect_exit(vm, 1);
    vm_expect_log(vm, "triple fault");
}

static void test_sigterm_ends_the_vm_at_any_time(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGQUIT};

    (void)state;
    for (size_t i = 0; i < 2 * array_length(signals); i++) {
        struct vm *vm = vm_start();

        if (i % 2 == 0) {
            vm_boot(vm, "spin", NULL);
            vm_expect(vm, "spinning\n");
        }
        kill(vm->pid, signals[i / 2]);
        vm_expect_killed(vm, signals[i / 2]);
        if (i % 2 == 0) {
            char words[32];

            snprintf(words, sizeof(words), "terminated by signal %d", signals[i / 2]);
            vm_expect_log(vm, words);
        }
        machine_teardown(NULL);
    }
}

/* While it reads its command line, prepares, starts the guest, runs it: always the signal's own death. */
static void test_sigterm_ends_a_vm_that_is_starting(void **state)
{
    char path[] = "/tmp/mayfly-test-config-XXXXXX";
    cleanup_fd int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    dprintf(
        fd,
        "{\"boot-source\":{\"kernel_image_path\":\"%s\"},\"machine-config\":{\"vcpu_count\":4,\"mem_size_mib\":64}}",
        guest_image("spin"));
    for (unsigned round = 0; round < 25; round++) {
        struct vm *vm = vm_start_with(&(struct machine_options){
            .no_api = true, .arguments = (const char *[]){"--no-api", "--config-file", path, NULL}});

        for (unsigned i = 0; i < round * 40; i++)
            sched_yield();
        kill(vm->pid, SIGTERM);
        vm_expect_killed(vm, SIGTERM);
        machine_teardown(NULL);
    }
    unlink(path);
}

static void test_ctrl_alt_del_reaches_the_keyboard_controller(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_boot(vm, "ctrl_alt_del", NULL);
    vm_expect(vm, "waiting\n");
    vm_action(vm, "SendCtrlAltDel");
    vm_expect(vm, "key ");
    vm_expect(vm, "key ");
    vm_expect(vm, "key ");
    vm_expect_exit(vm, 0);
}

static void test_guest_cannot_harm_the_vm_by_hammering(void **state)
{
    static const char *const cmdlines[] = {"what=ports count=500", "what=mmio count=500", "what=control count=500",
                                           "what=config count=500", "what=notify count=500"};

    (void)state;
    for (size_t i = 0; i < array_length(cmdlines); i++) {
        struct vm *vm = vm_start();
        struct stat status;

        vm_put(vm, "/entropy", "{}");
        vm_boot(vm, "hammer", cmdlines[i]);
        vm_expect(vm, "survived\n");
        vm_expect_exit(vm, 0);
        assert_int_equal(stat(vm_path(vm, "log"), &status), 0);
        if (status.st_size > 16384)
            vm_fail(vm, "\"%s\" filled the log with %lld bytes", cmdlines[i], (long long)status.st_size);
        machine_teardown(NULL);
    }
}

/* Its vCPU is in a device nearly all the time, with the lock that everybody needs. */
static void test_guest_that_keeps_a_device_busy_leaves_others_their_turn(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_put(vm, "/balloon",
           "{\"amount_mib\":0,\"deflate_on_oom\":true,\"free_page_reporting\":true,\"free_page_hinting\":true}");
    vm_boot(vm, "hammer", "what=report for_ever");
    vm_expect(vm, "hammering\n");
    for (int round = 0; round < 100; round++)
        free(vm_get(vm, "/"));
    kill(vm->pid, SIGTERM);
    vm_expect_killed(vm, SIGTERM);
}

static void test_guest_that_does_not_end_can_be_killed_while_it_hammers(void **state)
{
    static const char *const cmdlines[] = {"what=ports for_ever", "what=notify for_ever"};

    (void)state;
    for (size_t i = 0; i < array_length(cmdlines); i++) {
        struct vm *vm = vm_start();

        vm_put(vm, "/entropy", "{}");
        vm_boot(vm, "hammer", cmdlines[i]);
        vm_expect(vm, "hammering\n");
        for (int round = 0; round < 20; round++)
            free(vm_get(vm, "/"));
        kill(vm->pid, SIGTERM);
        vm_expect_killed(vm, SIGTERM);
        machine_teardown(NULL);
    }
}

static void test_wrong_command_lines_end_with_code_153(void **state)
{
    static const char *const wrong[][3] = {{"--no-such-option", NULL},
                                           {"--id", "not/valid", NULL},
                                           {"--http-api-max-payload-size", "x", NULL},
                                           {"stray", NULL}};

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        struct vm *vm = vm_start_with(&(struct machine_options){.no_api = true, .arguments = wrong[i]});

        vm_expect_exit(vm, 153);
        machine_teardown(NULL);
    }
}

/* With an API and without, refused as a whole or by the start. */
static void test_configuration_file_that_is_refused_ends_with_code_1(void **state)
{
    static const char *const wrong[][2] = {
        {"{", "not JSON"},
        {"{\"machine-config\": {\"vcpu_count\": 1}}", "machine-config.mem_size_mib: missing"},
        {"{\"boot-source\": {\"kernel_image_path\": \"/no/such/kernel\"}}", "/no/such/kernel"},
        {"{}", "no kernel_image_path"}};
    char path[] = "/tmp/mayfly-config-XXXXXX", folder[] = "/tmp/mayfly-unused-XXXXXX", socket[64];

    (void)state;
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_non_null(mkdtemp(folder));
    snprintf(socket, sizeof(socket), "--api-sock=%s/socket", folder);
    for (size_t i = 0; i < 2 * array_length(wrong); i++) {
        const char *const arguments[] = {"--config-file", path, i % 2 == 0 ? "--no-api" : socket, NULL};

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, wrong[i / 2][0], strlen(wrong[i / 2][0]), 0), strlen(wrong[i / 2][0]));
        struct vm *vm =
            vm_start_with(&(struct machine_options){.no_api = true, .arguments = arguments, .shows = folder});
        vm_expect_exit(vm, 1);
        vm_expect_log(vm, wrong[i / 2][1]);
        machine_teardown(NULL);
    }
    unlink(path);
    assert_int_equal(rmdir(folder), 0); /* no socket is left */
}

TEST_MAIN(machine_test(test_reset_ends_with_code_0), machine_test(test_triple_fault_ends_with_code_1_and_is_logged),
          machine_test(test_sigterm_ends_the_vm_at_any_time), machine_test(test_sigterm_ends_a_vm_that_is_starting),
          machine_test(test_ctrl_alt_del_reaches_the_keyboard_controller),
          machine_test(test_guest_cannot_harm_the_vm_by_hammering),
          machine_test(test_guest_that_keeps_a_device_busy_leaves_others_their_turn),
          machine_test(test_guest_that_does_not_end_can_be_killed_while_it_hammers),
          machine_test(test_wrong_command_lines_end_with_code_153),
          machine_test(test_configuration_file_that_is_refused_ends_with_code_1))
