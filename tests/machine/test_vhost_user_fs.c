/* File systems that another process serves: tests/machine/fake_backend.c, and what becomes of them without it. */
#include "tests/machine/one_backend.h"

#include "vmm/base/cleanup.h"

#include <signal.h>
#include <sys/socket.h>

static void start_backend(struct vm *vm, enum backend_behaviour behaviour)
{
    one_backend_start(vm, BACKEND_FILES, behaviour);
}

static struct vm *start(enum backend_behaviour behaviour)
{
    struct vm *vm = vm_start();

    start_backend(vm, behaviour);
    vm_put(vm, "/mayfly/file-systems/share", "{\"fs_id\":\"share\",\"tag\":\"share\",\"socket_path\":\"%s\"}",
           vm_path(vm, "b.sock"));
    return vm;
}

static void lose_backend(struct vm *vm)
{
    one_backend_end();
    vm_await_log(vm, "fails with EIO until it mounts again");
}

static void test_requests_fail_when_the_back_end_is_gone_and_a_mount_takes_the_next(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "fs", "ops=i,g,f,m,l,p,L,g,m,f,i,p,g,i,g,f,m");
    vm_expect(vm, "init 0\nattributes 0\nforget 0\nmany 0\nlocking\nwaiting\n");
    lose_backend(vm);
    vm_say(vm, "x");
    /* The lock that was asked for fails, and all that comes; so does a mount while nobody is there. */
    vm_expect(vm, "lock 5\nattributes 5\nmany 5\nforget 0\ninit 5\nwaiting\n");
    start_backend(vm, BACKEND_WORKS);
    vm_await_log(vm, "is there again");
    /* What is still of the session before fails on. */
    vm_say(vm, "x");
    vm_expect(vm, "attributes 5\ninit 0\nattributes 0\nforget 0\nmany 0\ndone\n");
    vm_expect_log(vm, "the guest mounts it again");
    vm_expect_exit(vm, 0);
}

static void test_back_end_after_back_end_is_mounted(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "fs", "ops=i,p,g,p,i,g,p,g,R,i,g");
    vm_expect(vm, "init 0\nwaiting\n");
    lose_backend(vm);
    vm_say(vm, "x");
    vm_expect(vm, "attributes 5\nwaiting\n");
    start_backend(vm, BACKEND_WORKS);
    vm_await_log(vm, "is there again");
    vm_say(vm, "x");
    vm_expect(vm, "init 0\nattributes 0\nwaiting\n");
    /* Gone and there again while the guest does nothing; then it resets the device. */
    one_backend_end();
    vm_await_log(vm, "is lost: ");
    start_backend(vm, BACKEND_WORKS);
    vm_say(vm, "x");
    vm_expect(vm, "attributes 5\nreopened\ninit ");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_requests_fail_after_a_pause_in_which_the_back_end_went(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "fs", "ops=i,p,g,p,g,R,g");
    vm_expect(vm, "init 0\nwaiting\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    one_backend_end();
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "x");
    vm_expect(vm, "attributes 5\nwaiting\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_say(vm, "x");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_expect(vm, "attributes 5\nreopened\nattributes 5\ndone\n");
    vm_expect_exit(vm, 0);
}

/* The VMM stands still meanwhile, and so hears of the end only when it hands over the queues. */
static void test_requests_fail_when_the_back_end_is_gone_just_as_a_pause_ends(void **state)
{
    static const char resume[] = "PATCH /vm HTTP/1.1\r\nContent-Length: 19\r\n\r\n{\"state\":\"Resumed\"}";
    struct vm *vm = start(BACKEND_WORKS);
    cleanup_fd int fd = vm_dial(vm);

    (void)state;
    vm_boot(vm, "fs", "ops=i,p,g,m");
    vm_expect(vm, "init 0\nwaiting\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    assert_int_equal(kill(vm->pid, SIGSTOP), 0);
    assert_int_equal(send(fd, resume, sizeof(resume) - 1, MSG_NOSIGNAL), sizeof(resume) - 1);
    one_backend_end();
    assert_int_equal(kill(vm->pid, SIGCONT), 0);
    vm_await_log(vm, "fails with EIO until it mounts again");
    vm_say(vm, "x");
    vm_expect(vm, "attributes 5\nmany 5\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_requests_fail_when_the_back_end_dies_of_one(void **state)
{
    struct vm *vm = start(BACKEND_DIES_BUSY);

    (void)state;
    vm_boot(vm, "fs", "ops=g,m,f");
    vm_expect(vm, "attributes 5\nmany 5\nforget 0\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_requests_fail_when_the_back_end_stalls_or_refuses(void **state)
{
    static const enum backend_behaviour behaviours[] = {BACKEND_STALLS_AT_START, BACKEND_REFUSES_MEMORY};

    (void)state;
    for (size_t i = 0; i < array_length(behaviours); i++) {
        struct vm *vm = start(behaviours[i]);

        vm_boot(vm, "fs", "ops=p,g,m,f");
        vm_await_log(vm, "fails with EIO until it mounts again");
        vm_say(vm, "x");
        vm_expect(vm, "attributes 5\nmany 5\nforget 0\ndone\n");
        vm_expect_exit(vm, 0);
    }
}

static void test_broken_queue_without_a_back_end_stops_the_device_until_reset(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "fs", "ops=i,p,b,R,g,p,i,g");
    vm_expect(vm, "init 0\nwaiting\n");
    lose_backend(vm);
    vm_say(vm, "x");
    vm_expect(vm, "broken\nreopened\nattributes 5\nwaiting\n");
    start_backend(vm, BACKEND_WORKS);
    vm_await_log(vm, "is there again");
    vm_say(vm, "x");
    vm_expect(vm, "init 0\nattributes 0\ndone\n");
    vm_expect_log(vm, "a queue is broken");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(one_backend_test(test_requests_fail_when_the_back_end_is_gone_and_a_mount_takes_the_next),
          one_backend_test(test_back_end_after_back_end_is_mounted),
          one_backend_test(test_requests_fail_after_a_pause_in_which_the_back_end_went),
          one_backend_test(test_requests_fail_when_the_back_end_is_gone_just_as_a_pause_ends),
          one_backend_test(test_requests_fail_when_the_back_end_dies_of_one),
          one_backend_test(test_requests_fail_when_the_back_end_stalls_or_refuses),
          one_backend_test(test_broken_queue_without_a_back_end_stops_the_device_until_reset))
