/* The VMM's seccomp filters: its own, the caller's, none. Rules are taken from vmm/vmm.rules and compiled here. */
#include "tests/machine/jailed.h"
#include "tests/machine/machine.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/base/seccomp.h"

extern char **environ;

enum { FILE_SIZE_MAX = 65536 };

static char directory[] = "/tmp/mayfly-filters-XXXXXX";
static char rules_path[64], filter_path[64];

static int make_directory(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(rules_path, sizeof(rules_path), "%s/rules", directory);
    snprintf(filter_path, sizeof(filter_path), "%s/filter", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(rules_path);
    unlink(filter_path);
    return rmdir(directory);
}

/* glibc and the sanitizers' run times make system calls of their own: those builds have no filters. */
static void need_filters(void)
{
    const char *vmm = getenv("MAYFLY_VMM");

    if (vmm != NULL && strstr(vmm, "/release/") == NULL) {
        print_message("skipped: only the release build runs under filters\n");
        skip();
    }
}

/* Copies the VMM's rules to `rules_path` but for the lines that are `without` (NULL: none). */
static void write_rules(const char *without)
{
    FILE *from = fopen("vmm/vmm.rules", "re");
    FILE *to = fopen(rules_path, "we");
    unsigned dropped = 0;
    char line[512];

    assert_non_null(from);
    assert_non_null(to);
    while (fgets(line, sizeof(line), from) != NULL) {
        size_t length = strcspn(line, "\n");

        if (without != NULL && length == strlen(without) && strncmp(line, without, length) == 0)
            dropped++;
        else
            fputs(line, to);
    }
    fclose(from);
    assert_int_equal(fclose(to), 0);
    assert_true(without == NULL || dropped > 0);
}

static void compile(const char *action)
{
    const char *build = getenv("MAYFLY_BUILD");
    char compiler[256];
    char *arguments[] = {compiler, (char *)"--action", (char *)(uintptr_t)action, rules_path, filter_path, NULL};
    int status;
    pid_t pid;

    snprintf(compiler, sizeof(compiler), "%s/mayfly-seccomp-compiler", build != NULL ? build : "build");
    assert_int_equal(posix_spawn(&pid, compiler, NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static struct vm *start_with_filter(void)
{
    return vm_start_with(
        &(struct machine_options){.arguments = (const char *[]){"--seccomp-filter", filter_path, NULL}});
}

/* --- What the filters do --- */

static void test_forbidden_call_of_the_main_thread_is_named(void **state)
{
    (void)state;
    need_filters();
    write_rules("accept4");
    compile("trap");

    struct vm *vm = start_with_filter();
    vm_expect_exit(vm, 148);
    vm_expect_log(vm, "[test:main] SIGSYS: system call 288 (accept4)");
}

static void test_forbidden_call_of_a_vcpu_is_named(void **state)
{
    (void)state;
    need_filters();
    write_rules("ioctl arg1 == KVM_RUN");
    compile("trap");

    static const char start[] = "{\"action_type\":\"InstanceStart\"}";
    struct vm *vm = start_with_filter();
    struct api_response response;

    vm_boot_source(vm, "hello", NULL);
    /* The thread may end the process before the start is answered. */
    cleanup_error struct error *error = api_client_request(vm->api, "PUT", "/actions", start, strlen(start), &response);
    if (error == NULL)
        api_response_free(&response);
    vm_expect_exit(vm, 148);
    vm_expect_log(vm, "[test:fc_vcpu 0] SIGSYS: system call 16 (ioctl)");
}

static void test_logged_filter_lets_everything_pass(void **state)
{
    (void)state;
    need_filters();
    write_rules("accept4");
    compile("log");

    struct vm *vm = start_with_filter();
    vm_boot(vm, "hello", NULL);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
}

static void test_killing_filter_says_nothing(void **state)
{
    (void)state;
    need_filters();
    write_rules("accept4");
    compile("kill");

    struct vm *vm = start_with_filter();
    vm_expect_killed(vm, SIGSYS);
}

/* --- Which threads have which --- */

/* The number behind "<name>:" in a status file of proc(5). */
static int status_number(struct vm *vm, const char *path, const char *name)
{
    FILE *file = fopen(path, "re");
    char line[256];
    int value = -1;

    if (file == NULL)
        vm_fail(vm, "cannot read %s", path);
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            value = atoi(line + strlen(name) + 1);
    fclose(file);
    return value;
}

/* How many vCPUs' threads (the kernel may have others in the process) have this many filters. */
static unsigned vcpus_with_filters(struct vm *vm, int filters)
{
    char path[128];
    unsigned count = 0;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/task", vm->pid);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        cleanup_fd int fd = -1;
        char name[16] = "";

        snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", vm->pid, atoi(entry->d_name));
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, name, sizeof(name) - 1) < 0 || strncmp(name, "fc_vcpu", 7) != 0)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%d/status", vm->pid, atoi(entry->d_name));
        if (status_number(vm, path, "Seccomp_filters") == filters)
            count++;
    }
    closedir(tasks);
    return count;
}

/* A thread names itself and takes its filters when it first gets to run: those of a second processor, at any time. */
static void await_vcpus_with_filters(struct vm *vm, unsigned count, int filters)
{
    uint64_t deadline = clock_monotonic_us() + MACHINE_PATIENCE_MS * 1000ull;

    while (vcpus_with_filters(vm, filters) != count)
        if (clock_monotonic_us() > deadline)
            vm_fail(vm, "%u of %u vCPUs have %d filters", vcpus_with_filters(vm, filters), count, filters);
}

/* The jailer's filter lies under the VMM's. */
static int base_filters(void)
{
    return machine_is_jailed() ? 1 : 0;
}

static void check_two_filters(struct vm *vm, const char *status_path)
{
    assert_int_equal(status_number(vm, status_path, "Seccomp"), 2);
    assert_int_equal(status_number(vm, status_path, "Seccomp_filters"), base_filters() + 2);
}

static void check_no_filter(struct vm *vm, const char *status_path)
{
    assert_int_equal(status_number(vm, status_path, "Seccomp_filters"), base_filters());
}

static void test_every_thread_has_its_filters_by_default(void **state)
{
    struct vm *vm = vm_start();
    char path[64];

    (void)state;
    need_filters();
    snprintf(path, sizeof(path), "/proc/%d/status", vm->pid);
    free(vm_get(vm, "/"));
    assert_int_equal(status_number(vm, path, "NoNewPrivs"), 1);
    assert_int_equal(status_number(vm, path, "Seccomp"), 2);
    assert_int_equal(status_number(vm, path, "Seccomp_filters"), base_filters() + 1);
    vm_put(vm, "/machine-config", "{\"vcpu_count\":3,\"mem_size_mib\":64}");
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    check_two_filters(vm, path);
    /* Those that wait for the first processor's call are under theirs as well. */
    await_vcpus_with_filters(vm, 3, base_filters() + 2);
}

static void test_no_seccomp_loads_none(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.arguments = (const char *[]){"--no-seccomp", NULL}});
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "/proc/%d/status", vm->pid);
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    check_no_filter(vm, path);
    assert_int_equal(status_number(vm, path, "NoNewPrivs"), 1);
    await_vcpus_with_filters(vm, 1, base_filters());
}

/* --- Files that are refused --- */

static void start_is_refused(const char *path, const char *reason)
{
    struct vm *vm = vm_start_with(&(struct machine_options){
        .no_api = true, .no_log_path = true, .arguments = (const char *[]){"--seccomp-filter", path, NULL}});

    vm_expect_exit(vm, 1);
    vm_expect_log(vm, "--seccomp-filter: ");
    vm_expect_log(vm, path);
    vm_expect_log(vm, reason);
    machine_teardown(NULL);
}

static void write_filter(const void *bytes, size_t size)
{
    cleanup_fd int fd = open(filter_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
}

static void test_files_that_are_no_filters_are_refused(void **state)
{
    (void)state;
    start_is_refused("/no/such/filter", "No such file");
    start_is_refused("/tmp", "is not a regular file");
    write_filter("", 0);
    start_is_refused(filter_path, "not a compiled seccomp filter");
    write_filter("{\"vcpu\": {\"default_action\": \"trap\"}}", 36);
    start_is_refused(filter_path, "not a compiled seccomp filter");
}

static void test_broken_filter_files_are_refused(void **state)
{
    static uint8_t whole[FILE_SIZE_MAX], changed[FILE_SIZE_MAX + 1];
    struct seccomp_file *header = (struct seccomp_file *)changed;
    ssize_t size;

    (void)state;
    write_rules(NULL);
    compile("trap");
    cleanup_fd int fd = open(filter_path, O_RDONLY | O_CLOEXEC);
    size = read(fd, whole, sizeof(whole));
    assert_true(size > 1000);

    write_filter(whole, (size_t)size - 1);
    start_is_refused(filter_path, "ends within filter 3 of 3");
    memcpy(changed, whole, (size_t)size);
    write_filter(changed, (size_t)size + 1);
    start_is_refused(filter_path, "1 bytes after its last filter");
    header->version = 7;
    write_filter(changed, (size_t)size);
    start_is_refused(filter_path, "of version 7; expected 1");
    memcpy(changed, whole, (size_t)size);
    header->arch = 0x40000028;
    write_filter(changed, (size_t)size);
    start_is_refused(filter_path, "for architecture 0x40000028");
}

static void test_filter_file_without_a_thread_is_refused(void **state)
{
    FILE *rules = fopen(rules_path, "we");

    (void)state;
    assert_non_null(rules);
    fputs("filter main_start\nread\nfilter main_run\nread\n", rules);
    fclose(rules);
    compile("trap");
    start_is_refused(filter_path, "has no filter \"vcpu\"");
}

static void test_filter_and_no_filter_contradict(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){
        .no_api = true,
        .no_log_path = true,
        .arguments = (const char *[]){"--no-seccomp", "--seccomp-filter", "/no/such/filter", NULL}});

    (void)state;
    vm_expect_exit(vm, 153);
    vm_expect_log(vm, "--no-seccomp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        machine_test(test_forbidden_call_of_the_main_thread_is_named),
        machine_test(test_forbidden_call_of_a_vcpu_is_named),
        machine_test(test_logged_filter_lets_everything_pass),
        machine_test(test_killing_filter_says_nothing),
        machine_test(test_every_thread_has_its_filters_by_default),
        machine_test(test_no_seccomp_loads_none),
        machine_test(test_files_that_are_no_filters_are_refused),
        machine_test(test_broken_filter_files_are_refused),
        machine_test(test_filter_file_without_a_thread_is_refused),
        machine_test(test_filter_and_no_filter_contradict),
    };

    test_filter_from_environment();
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
