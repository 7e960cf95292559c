/* Devices that another process serves: tests/machine/fake_backend.c, which may misbehave. */
#include "tests/machine/one_backend.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DISK_SIZE = 1 << 20, SECTOR = 512 };

static void start_backend(struct vm *vm, enum backend_behaviour behaviour)
{
    one_backend_start(vm, BACKEND_DISK, behaviour);
}

static void put_disk(struct vm *vm)
{
    vm_put(vm, "/drives/disk",
           "{\"drive_id\":\"disk\",\"is_root_device\":false,\"cache_type\":\"Writeback\",\"socket\":\"%s\"}",
           vm_path(vm, "b.sock"));
}

/* A VM whose disk is a back end's. */
static struct vm *start(enum backend_behaviour behaviour)
{
    struct vm *vm = vm_start();

    vm_file(vm, "disk", DISK_SIZE, 0);
    start_backend(vm, behaviour);
    put_disk(vm);
    return vm;
}

static char byte_of(struct vm *vm, off_t offset)
{
    cleanup_fd int fd = open(vm_path(vm, "disk"), O_RDONLY | O_CLOEXEC);
    char byte;

    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    return byte;
}

static void test_disk_of_a_back_end_reads_writes_and_flushes(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    /* Once more: the back end serves one front end at a time. */
    put_disk(vm);
    vm_refuses(vm, "PUT", "/drives/disk", "{\"drive_id\":\"disk\",\"is_root_device\":false,\"socket\":\"/no\"}", "/no");
    vm_boot(vm, "block", "ops=c,r3,w3:A,r3,w2047:Z,f,L0,m,R,r3");
    vm_expect(vm, "capacity 800\nread 0 0 0\nwrite 0\nread 0 41 41\nwrite 0\nflush 0\nlarge 0 0 same\nmany 0\n");
    vm_expect(vm, "reopened\nread 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
    assert_int_equal(byte_of(vm, 3 * SECTOR), 'A');
    assert_int_equal(byte_of(vm, DISK_SIZE - 1), 'Z');
}

static void test_disk_of_a_back_end_has_several_queues_if_asked(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_put(vm, "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"queues\":4}");
    vm_refuses(vm, "PUT", "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"queues\":20}",
               "it has fewer queues than the device");
    vm_refuses(vm, "PUT", "/mayfly/drives/disk", "{\"drive_id\":\"disk\",\"direct\":true}",
               "direct: true, but drive 'disk' is a vhost-user back end's");
    vm_boot(vm, "block", "ops=F,r3,w3:A,r3");
    vm_expect(vm, "features 130001200\nread 0 0 0\nwrite 0\nread 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_memory_is_shared_only_with_a_back_end(void **state)
{
    struct vm *vm = vm_start();
    char maps[1 << 16];

    (void)state;
    vm_file(vm, "disk", DISK_SIZE, 0);
    vm_put(vm, "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64}");
    start_backend(vm, BACKEND_WORKS);
    put_disk(vm);
    vm_drive(vm, "disk", vm_path(vm, "disk"), "");
    for (int shared = 0; shared <= 1; shared++) {
        if (shared)
            put_disk(vm);
        vm_boot_source(vm, "block", "ops=r1,p,w2:A");
        /* What is prepared before the start and what the start leaves is the same. */
        if (shared)
            vm_action(vm, "InstanceStart");
        if (shared)
            vm_expect(vm, "read 0 0 0\n");
        cleanup_fd int fd = open(vm_proc(vm, "maps"), O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        ssize_t length = 0, got;
        while ((got = read(fd, maps + length, sizeof(maps) - 1 - (size_t)length)) > 0)
            length += got;
        maps[length] = '\0';
        assert_int_equal(strstr(maps, "memfd:guest memory") != NULL, shared);
    }
    vm_say(vm, "x");
    vm_expect(vm, "write 0\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_back_end_that_is_of_no_use_is_refused_and_named(void **state)
{
    static const struct {
        enum backend_behaviour behaviour;
        const char *why;
    } cases[] = {
        {BACKEND_STALLS, "it does not answer"},
        {BACKEND_CLOSES, "it closed the connection"},
        {BACKEND_ANSWERS_OTHERS, "it answered what it was not asked"},
        {BACKEND_ANSWERS_LONG, "a message of it is longer than any"},
        {BACKEND_ANSWERS_UNASKED, "it answered what it was not asked"},
        {BACKEND_ANSWERS_HALF, "it does not answer"},
        {BACKEND_SPEAKS_VERSION_2, "it speaks another protocol"},
        {BACKEND_IS_LEGACY, "it does not know virtio 1"},
        {BACKEND_KEEPS_NO_CONFIG, "it keeps no config space"},
        {BACKEND_CONFIG_IS_SHORT, "its config space is shorter"},
        {BACKEND_HAS_NO_QUEUES, "it has fewer queues"},
    };
    struct vm *vm = vm_start();
    char body[256];

    (void)state;
    vm_file(vm, "disk", DISK_SIZE, 0);
    snprintf(body, sizeof(body), "{\"drive_id\":\"disk\",\"is_root_device\":false,\"socket\":\"%s\"}",
             vm_path(vm, "b.sock"));
    vm_refuses(vm, "PUT", "/drives/disk", body, "the back end cannot be used: No such file");
    for (size_t i = 0; i < array_length(cases); i++) {
        start_backend(vm, cases[i].behaviour);
        vm_refuses(vm, "PUT", "/drives/disk", body, cases[i].why);
    }
    start_backend(vm, BACKEND_WORKS);
    put_disk(vm);
    vm_boot(vm, "block", "ops=c");
    vm_expect(vm, "capacity 800\ndone\n");
    vm_expect_exit(vm, 0);
}

/* The back end is lost for this reason when the guest starts; another disk is read all the same. */
static void rest_runs_without(enum backend_behaviour behaviour, const char *why)
{
    struct vm *vm = start(behaviour);

    vm_drive(vm, "other", vm_file(vm, "other", DISK_SIZE, 'o'), "");
    vm_boot(vm, "block", "ops=p,D1,r0");
    vm_await_log(vm, why);
    vm_say(vm, "x");
    vm_expect(vm, "read 0 6f 6f\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_back_end_that_refuses_memory_leaves_the_rest_running(void **state)
{
    (void)state;
    rest_runs_without(BACKEND_REFUSES_MEMORY, "it refused what it was told");
}

static void test_back_end_that_counts_nowhere_leaves_the_rest_running(void **state)
{
    (void)state;
    rest_runs_without(BACKEND_COUNTS_NOWHERE, "it gave no memory for requests in flight");
}

static void test_disk_goes_on_when_its_back_end_restarts(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,p,r3,w4:B,p,r4");
    vm_expect(vm, "write 0\n");
    one_backend_end();
    vm_await_log(vm, "is lost: it closed the connection");
    start_backend(vm, BACKEND_WORKS);
    vm_say(vm, "x");
    vm_expect(vm, "read 0 41 41\nwrite 0\n");
    /* The guest asks while nobody is there. */
    one_backend_end();
    vm_say(vm, "x");
    vm_put(vm, "/actions", "{\"action_type\":\"FlushMetrics\"}");
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "read 0 42 42\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_request_that_a_back_end_died_of_is_done_by_the_next(void **state)
{
    struct vm *vm = start(BACKEND_DIES_BUSY);

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,r3");
    vm_await_log(vm, "is lost: ");
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "write 0\nread 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
}

/* Each back end does what it finds in the wrong order and dies after twenty: ten do all two hundred, each once. */
static void test_requests_in_disorder_are_neither_lost_nor_doubled_when_back_ends_die(void **state)
{
    struct vm *vm = start(BACKEND_DIES_IN_DISORDER);
    unsigned deaths = 0;

    (void)state;
    vm_boot(vm, "block", "ops=E,S200,p");
    vm_expect(vm, "streaming\n");
    for (unsigned life = 0; life < 10; life++) {
        one_backend_await_death(vm);
        deaths++;
        start_backend(vm, BACKEND_DIES_IN_DISORDER);
    }
    vm_expect(vm, "streamed c8\nwaiting\n");
    assert_int_equal(deaths, 10);
    vm_expect_log(vm, "is back");
    vm_say(vm, "x");
    vm_expect(vm, "done\n");
    vm_expect_exit(vm, 0);
}

/* Nobody can tell which requests such a one had in hand: the guest and whoever reads the log hear of it. */
static void test_disorder_that_nobody_counted_breaks_the_disk_until_it_is_reset(void **state)
{
    struct vm *vm = start(BACKEND_DIES_FORGETFUL);

    (void)state;
    vm_expect_log(vm, "block \"disk\": the back end keeps no count of requests in flight (protocol feature "
                      "INFLIGHT_SHMFD): should it end with some, the device may stop until the guest reboots");
    vm_boot(vm, "block", "ops=b,R,w3:A,r3");
    one_backend_await_death(vm);
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "broken 2 2\nreopened\nwrite 0\nread 0 41 41\ndone\n");
    vm_expect_log(vm, "block \"disk\" stops until the guest resets it: a back end ended with requests in hand, which "
                      "it did out of order and counted nowhere (protocol feature INFLIGHT_SHMFD): reboot the guest");
    vm_expect_exit(vm, 0);
}

static unsigned open_descriptors(const struct vm *vm)
{
    unsigned count = 0;

    DIR *directory = opendir(vm_proc(vm, "fd"));
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void test_descriptors_that_nobody_asked_for_are_not_kept(void **state)
{
    struct vm *vm = start(BACKEND_KEEPS_COUNT);

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,p,r3");
    vm_expect(vm, "waiting\n");
    const unsigned before = open_descriptors(vm);
    start_backend(vm, BACKEND_GIVES_DESCRIPTORS);
    vm_await_log(vm, "it came back with fewer features");
    assert_true(open_descriptors(vm) <= before);
}

static void test_back_end_that_counts_loses_no_request_over_a_pause(void **state)
{
    struct vm *vm = start(BACKEND_KEEPS_COUNT);

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,p,r3,w4:B,p,r4");
    vm_expect(vm, "write 0\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "x");
    vm_expect(vm, "read 0 41 41\nwrite 0\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    one_backend_end();
    start_backend(vm, BACKEND_KEEPS_COUNT);
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "x");
    vm_expect(vm, "read 0 42 42\ndone\n");
    vm_expect_exit(vm, 0);
}

/* It is dropped for this reason when the machine is paused, which resumes with the next one. */
static void pause_drops(enum backend_behaviour behaviour, const char *why)
{
    struct vm *vm = start(behaviour);

    vm_boot(vm, "block", "ops=w3:A,p,r3");
    vm_expect(vm, "write 0\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_await_log(vm, why);
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    start_backend(vm, BACKEND_WORKS);
    vm_say(vm, "x");
    vm_expect(vm, "read 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_back_end_that_takes_back_other_rings_is_dropped(void **state)
{
    (void)state;
    pause_drops(BACKEND_NAMES_OTHER_RING, "is lost: it answered what it was not asked");
}

static void test_back_end_that_stalls_stops_neither_pause_nor_api(void **state)
{
    (void)state;
    pause_drops(BACKEND_STALLS_LATER, "is lost: it does not answer");
}

static char state_of(const struct vm *vm)
{
    char text[64], *end;
    cleanup_fd int fd = open(vm_proc(vm, "stat"), O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, text, sizeof(text) - 1);

    text[length > 0 ? length : 0] = '\0';
    end = strrchr(text, ')');
    return end == NULL ? 'X' : end[2];
}

/* As a debugger does, or who freezes the VMM. */
static void stop_and_continue(const struct vm *vm)
{
    assert_int_equal(kill(vm->pid, SIGSTOP), 0);
    while (strchr("TtZX", state_of(vm)) == NULL)
        sched_yield();
    assert_int_equal(kill(vm->pid, SIGCONT), 0);
    while (state_of(vm) == 'T')
        sched_yield();
    if (strchr("ZX", state_of(vm)) != NULL)
        fail_msg("the VMM is dead");
}

static bool has_logged(const struct vm *vm, const char *text)
{
    cleanup_free char *log = vm_log(vm);

    return strstr(log, text) != NULL;
}

/* The kernel goes on with such a wait by a system call of its own (restart_syscall). */
static void test_vmm_that_is_stopped_while_it_waits_for_a_back_end_goes_on(void **state)
{
    static const char request[] = "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}";
    struct vm *vm = start(BACKEND_STALLS_LATER);
    char answer[12] = "";

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,R,r3,p,r3");
    vm_expect(vm, "write 0\n");
    while (!has_logged(vm, "is lost: it does not answer")) /* a vCPU waits */
        stop_and_continue(vm);
    start_backend(vm, BACKEND_STALLS_LATER);
    vm_expect(vm, "reopened\nread 0 41 41\n");

    cleanup_fd int fd = vm_dial(vm);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    while (recv(fd, answer, sizeof(answer), MSG_PEEK | MSG_DONTWAIT) <= 0) /* the main thread does */
        stop_and_continue(vm);
    assert_int_equal(read(fd, answer, sizeof(answer)), sizeof(answer));
    assert_memory_equal(answer, "HTTP/1.1 204", sizeof(answer));
    start_backend(vm, BACKEND_WORKS);
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "x");
    vm_expect(vm, "read 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_back_end_that_shouts_keeps_nobody_waiting(void **state)
{
    struct vm *vm = start(BACKEND_SHOUTS);

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,p,r3");
    vm_expect(vm, "write 0\n");
    assert_int_equal(truncate(vm_path(vm, "disk"), 2 * DISK_SIZE), 0);
    vm_await_log(vm, "has changed its config space");
    vm_say(vm, "x");
    vm_expect(vm, "read 0 41 41\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_new_size_is_read_on_request_and_when_announced(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "block", "ops=c,p,c,p,c,p,c");
    vm_expect(vm, "capacity 800\n");
    assert_int_equal(truncate(vm_path(vm, "disk"), 2 * DISK_SIZE), 0);
    vm_say(vm, "x");
    vm_expect(vm, "capacity 800\n");
    vm_patch(vm, "/drives/disk", "{\"drive_id\":\"disk\"}");
    vm_say(vm, "x");
    vm_expect(vm, "capacity 1000\n");
    vm_refuses(vm, "PATCH", "/drives/disk", "{\"drive_id\":\"disk\",\"path_on_host\":\"/x\"}",
               "path_on_host: given, but");
    assert_int_equal(truncate(vm_path(vm, "disk"), 4 * DISK_SIZE), 0);
    one_backend_announce();
    /* After the PATCH, and now. */
    vm_await_log_times(vm, "has changed its config space", 2);
    vm_say(vm, "x");
    vm_expect(vm, "capacity 2000\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_pause_takes_the_queues_back_and_resume_gives_them(void **state)
{
    struct vm *vm = start(BACKEND_WORKS);

    (void)state;
    vm_boot(vm, "block", "ops=w3:A,p,r3,w4:B,p,r4");
    vm_expect(vm, "write 0\n");
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    vm_say(vm, "x");
    vm_expect(vm, "read 0 41 41\nwrite 0\n");
    /* The back end goes while the machine is paused. */
    vm_patch(vm, "/vm", "{\"state\":\"Paused\"}");
    one_backend_end();
    vm_say(vm, "x");
    vm_patch(vm, "/vm", "{\"state\":\"Resumed\"}");
    start_backend(vm, BACKEND_WORKS);
    vm_expect(vm, "read 0 42 42\ndone\n");
    vm_expect_exit(vm, 0);
}

static void test_file_systems_and_networks_are_taken_and_their_mistakes_refused(void **state)
{
    struct vm *vm = vm_start();
    char body[256];

    (void)state;
    vm_file(vm, "disk", DISK_SIZE, 0);
    start_backend(vm, BACKEND_KEEPS_NO_CONFIG);
    vm_put(vm, "/mayfly/file-systems/a", "{\"fs_id\":\"a\",\"tag\":\"share\",\"socket_path\":\"%s\"}",
           vm_path(vm, "b.sock"));
    vm_put(vm, "/mayfly/file-systems/a", "{\"fs_id\":\"a\",\"tag\":\"share\",\"socket_path\":\"%s\"}",
           vm_path(vm, "b.sock"));
    snprintf(body, sizeof(body), "{\"fs_id\":\"b\",\"tag\":\"share\",\"socket_path\":\"%s\"}", vm_path(vm, "b.sock"));
    vm_refuses(vm, "PUT", "/mayfly/file-systems/b", body, "tag: 'share' is the tag of file system 'a' already");
    start_backend(vm, BACKEND_KEEPS_NO_CONFIG);
    snprintf(body, sizeof(body),
             "{\"iface_id\":\"n\",\"backend\":{\"type\":\"vhost-user\",\"socket_path\":\"%s\"},"
             "\"rx_rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":1}}}",
             vm_path(vm, "b.sock"));
    vm_refuses(vm, "PUT", "/network-interfaces/n", body, "rx_rate_limiter: given");
    vm_put(vm, "/network-interfaces/n",
           "{\"iface_id\":\"n\",\"backend\":{\"type\":\"vhost-user\",\"socket_path\":\"%s\"},"
           "\"guest_mac\":\"06:00:ac:10:00:02\"}",
           vm_path(vm, "b.sock"));
}

TEST_MAIN(one_backend_test(test_disk_of_a_back_end_reads_writes_and_flushes),
          one_backend_test(test_disk_of_a_back_end_has_several_queues_if_asked),
          one_backend_test(test_memory_is_shared_only_with_a_back_end),
          one_backend_test(test_back_end_that_is_of_no_use_is_refused_and_named),
          one_backend_test(test_back_end_that_refuses_memory_leaves_the_rest_running),
          one_backend_test(test_disk_goes_on_when_its_back_end_restarts),
          one_backend_test(test_request_that_a_back_end_died_of_is_done_by_the_next),
          one_backend_test(test_requests_in_disorder_are_neither_lost_nor_doubled_when_back_ends_die),
          one_backend_test(test_disorder_that_nobody_counted_breaks_the_disk_until_it_is_reset),
          one_backend_test(test_descriptors_that_nobody_asked_for_are_not_kept),
          one_backend_test(test_back_end_that_counts_nowhere_leaves_the_rest_running),
          one_backend_test(test_back_end_that_counts_loses_no_request_over_a_pause),
          one_backend_test(test_back_end_that_takes_back_other_rings_is_dropped),
          one_backend_test(test_back_end_that_shouts_keeps_nobody_waiting),
          one_backend_test(test_new_size_is_read_on_request_and_when_announced),
          one_backend_test(test_pause_takes_the_queues_back_and_resume_gives_them),
          one_backend_test(test_vmm_that_is_stopped_while_it_waits_for_a_back_end_goes_on),
          one_backend_test(test_back_end_that_stalls_stops_neither_pause_nor_api),
          one_backend_test(test_file_systems_and_networks_are_taken_and_their_mistakes_refused))
