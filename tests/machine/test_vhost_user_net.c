/* Networks that another process serves: tests/machine/fake_backend.c sends back what it gets. */
#include "tests/machine/one_backend.h"

static void start_backend(struct vm *vm, enum backend_behaviour behaviour)
{
    one_backend_start(vm, BACKEND_NET, behaviour);
}

/* A VM with an interface that is a back end's. */
static struct vm *start(enum backend_behaviour behaviour)
{
    struct vm *vm = vm_start();

    start_backend(vm, behaviour);
    vm_put(vm, "/network-interfaces/eth0",
           "{\"iface_id\":\"eth0\",\"backend\":{\"type\":\"vhost-user\",\"socket_path\":\"%s\"},"
           "\"guest_mac\":\"06:00:ac:10:00:02\",\"mtu\":1400}",
           vm_path(vm, "b.sock"));
    return vm;
}

static void test_frames_pass_to_a_back_end_and_back(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "net", NULL);
    vm_expect(vm, "mac 0600ac100002\nmtu 578\nsent\n");
    for (int i = 0; i < 6; i++)
        vm_expect(vm, "frame 40\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_network_goes_on_when_its_back_end_restarts(void **state)
{
    struct vm *vm = start(BACKEND_DIES_BUSY);

    (void)state;
    /* It dies of the guest's first frame. */
    vm_boot(vm, "net", "blind");
    vm_await_log(vm, "is lost: ");
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "frame 40\n");
    vm_expect(vm, "waiting\n");
    /* The guest sends while nobody is there. */
    one_backend_end();
    vm_await_log(vm, "is lost: it closed the connection");
    vm_say(vm, "x");
    vm_put(vm, "/actions", "{\"action_type\":\"FlushMetrics\"}");
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_two_pairs_of_queues_go_to_the_back_end(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_put(vm, "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":2}");
    vm_refuses(vm, "PUT", "/mayfly/network-interfaces/eth0", "{\"iface_id\":\"eth0\",\"queues\":5}",
               "it has fewer queues than the device");
    vm_boot(vm, "net", "pairs");
    vm_expect(vm, "pairs 0\nsent\n");
    vm_expect(vm, "pair 0\n");
    vm_expect(vm, "pair 1\n");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_pause_and_resume_lose_no_frame(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "net", "held");
    vm_expect(vm, "sent\n");
    for (int i = 0; i < 6; i++) {
        vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
        vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
        vm_expect(vm, "frame 40\n");
    }
    vm_say(vm, "x");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

static void test_back_end_that_stalls_leaves_the_rest_running(void **state)
{
    struct vm *vm = start(BACKEND_STALLS_AT_START);

    (void)state;
    vm_boot(vm, "net", NULL);
    vm_expect(vm, "mac ");
    free(vm_get(vm, "/vm/config"));
    vm_await_log(vm, "is lost: it does not answer");
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

TEST_MAIN(one_backend_test(test_frames_pass_to_a_back_end_and_back),
          one_backend_test(test_network_goes_on_when_its_back_end_restarts),
          one_backend_test(test_two_pairs_of_queues_go_to_the_back_end),
          one_backend_test(test_pause_and_resume_lose_no_frame),
          one_backend_test(test_back_end_that_stalls_leaves_the_rest_running))
