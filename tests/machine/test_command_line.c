/* What the options of mayfly-vmm do, seen from outside. */
#include "tests/machine/machine.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/base/clock.h"

#define ARGUMENTS(...) ((const char *[]){__VA_ARGS__, NULL})

static struct vm *start_to_print(const char *name, const char *option)
{
    return vm_start_with(
        &(struct machine_options){.name = name, .arguments = ARGUMENTS(option), .no_api = true, .no_log_path = true});
}

static void test_version_is_the_one_that_callers_of_the_name_look_for(void **state)
{
    struct vm *vm = start_to_print(NULL, "--version");

    (void)state;
    vm_expect(vm, "Mayfly v" MAYFLY_VERSION "\n");
    vm_expect_exit(vm, 0);
    vm = start_to_print("/usr/bin/firecracker", "--version");
    vm_expect(vm, "Firecracker v1.17.0\n\nMayfly v" MAYFLY_VERSION "\n");
    vm_expect_exit(vm, 0);
}

static void test_help_goes_to_stdout(void **state)
{
    struct vm *vm = start_to_print(NULL, "--help");

    (void)state;
    vm_expect(vm, "--api-sock VALUE ");
    vm_expect(vm, "--version ");
    vm_expect_exit(vm, 0);
}

static void test_called_firecracker_its_log_begins_as_that_names_does(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.name = "/usr/bin/firecracker"});
    cleanup_free char *log = vm_log(vm);

    (void)state;
    const char *first = strstr(log, "[test:main] Running Firecracker v1.17.0\n");
    assert_non_null(first);
    /* In a jail the jailer may have said something before. */
    assert_ptr_equal(strstr(log, "[test:main]"), first);
    assert_non_null(strstr(log, "[test:main] in its place: Mayfly v" MAYFLY_VERSION "\n"));
}

static void run_hello(struct vm *vm)
{
    vm_boot(vm, "hello", NULL);
    vm_expect_exit(vm, 0);
}

/* What harnesses wait for, and look for when it is over. */
static void test_called_firecracker_its_log_tells_of_the_api_and_of_the_end(void **state)
{
    static const struct {
        const char *guest;
        int exit_code;
        const char *last;
    } ends[] = {{"hello", 0, "Firecracker exiting successfully. exit_code=0\n"},
                {"triple_fault", 1, "Firecracker exiting with error. exit_code=1\n"}};

    (void)state;
    for (size_t i = 0; i < array_length(ends); i++) {
        struct vm *vm = vm_start_with(
            &(struct machine_options){.name = "firecracker", .unjailed = "there its name is that of its file"});
        char listening[256];

        vm_boot(vm, ends[i].guest, NULL);
        vm_expect_exit(vm, ends[i].exit_code);
        snprintf(listening, sizeof(listening), "[test:main] Listening on API socket (\"%s\").\n", vm->api_path);
        vm_expect_log(vm, listening);
        vm_expect_log(vm, "[test:main] API server started.\n");
        cleanup_free char *log = vm_log(vm);
        const char *last = strstr(log, ends[i].last);
        assert_non_null(last);
        assert_string_equal(last, ends[i].last);
    }
}

static void test_log_lines_carry_what_is_asked_for(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    run_hello(vm);
    vm_expect_log(vm, " [test:main] The API server received a Put request on \"/actions\".\n");
    vm = vm_start_with(
        &(struct machine_options){.arguments = ARGUMENTS("--level", "debug", "--show-level", "--show-log-origin"),
                                  .unjailed = "its root has no /proc, of which a file is taken for a kernel"});
    vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"/proc/self/status\"}");
    vm_expect_log(vm, " [test:main:INFO:api/dispatch.c:");
    vm_await_log(vm, " [test:main:DEBUG:vmm/machine_prepare.c:");
}

static unsigned count_of(const char *text, const char *part)
{
    unsigned count = 0;

    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        count++;
    return count;
}

/* More than a source line may say in its time when a guest can make it. */
static void test_every_request_and_its_outcome_is_in_the_log(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    for (unsigned i = 0; i < 25; i++) {
        vm_put(vm, "/balloon", "{\"amount_mib\":%u,\"deflate_on_oom\":false}", i);
        vm_refuses(vm, "PUT", "/drives/d", "{}", "missing");
    }
    cleanup_free char *log = vm_log(vm);
    assert_int_equal(count_of(log, " The API server received a Put request on \"/balloon\".\n"), 25);
    assert_int_equal(count_of(log, " The request was executed successfully. Status code: 204 No Content.\n"), 25);
    assert_int_equal(count_of(log, " The API server received a Put request on \"/drives/d\".\n"), 25);
    assert_int_equal(count_of(log, " Received Error. Status code: 400 Bad Request. Message: "), 25);
}

static void assert_not_logged(struct vm *vm, const char *text)
{
    cleanup_free char *log = vm_log(vm);

    if (strstr(log, text) != NULL)
        vm_fail(vm, "\"%s\" is in the log", text);
}

static void test_log_has_only_the_level_and_the_module_asked_for(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.arguments = ARGUMENTS("--level=Error")});

    (void)state;
    vm_refuses(vm, "PUT", "/entropy", "[]", "an array given");
    run_hello(vm);
    vm_expect_log(vm, "an array given");
    assert_not_logged(vm, "received a");
    vm = vm_start_with(&(struct machine_options){.arguments = ARGUMENTS("--module", "vmm/")});
    run_hello(vm);
    vm_expect_log(vm, "exit code 0");
    assert_not_logged(vm, "received a");
    vm = vm_start_with(&(struct machine_options){.arguments = ARGUMENTS("--level", "OFF")});
    run_hello(vm);
    assert_not_logged(vm, "[test:");
}

static void test_log_changes_while_the_guest_runs(void **state)
{
    struct vm *vm = vm_start();
    char json[256], path[80], written[4096] = "";

    (void)state;
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning");
    vm_put(vm, "/logger", "{\"level\": \"Off\"}");
    vm_refuses(vm, "PUT", "/entropy", "{}", "not supported after starting the microVM: it is");
    assert_not_logged(vm, "PUT /entropy:");
    vm_put(vm, "/logger", "{\"level\": \"Info\", \"module\": \"api/routes\"}");
    vm_refuses(vm, "PUT", "/vsock", "{}", "not supported after starting the microVM: it is");
    assert_not_logged(vm, "PUT /vsock:");

    /* Another file must be there: nothing is made any more. */
    snprintf(path, sizeof(path), "%s", vm_path(vm, "other-log"));
    snprintf(json, sizeof(json), "{\"log_path\": \"%s\", \"module\": \"api/\", \"show_level\": true}", path);
    vm_refuses(vm, "PUT", "/logger", json, "a microVM that has started makes no files: No such file");
    cleanup_fd int other = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    vm_put(vm, "/logger", "%s", json);
    vm_refuses(vm, "PUT", "/serial", "{}", "not supported after starting the microVM: it is");
    assert_not_logged(vm, "PUT /serial:");
    assert_true(read(other, written, sizeof(written) - 1) > 0);
    assert_non_null(
        strstr(written, ":main:ERROR] Received Error. Status code: 400 Bad Request. Message: PUT /serial:"));
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

/* The number behind the first "<name>": in the metrics' first line. */
static uint64_t metric(const char *path, const char *name)
{
    char line[8192] = "", pattern[64];
    uint64_t value = 0;
    FILE *in = fopen(path, "r");

    assert_non_null(in);
    assert_non_null(fgets(line, sizeof(line), in));
    fclose(in);
    snprintf(pattern, sizeof(pattern), "\"%s\":", name);
    char *found = strstr(line, pattern);
    assert_non_null(found);
    assert_int_equal(sscanf(found + strlen(pattern), "%" SCNu64, &value), 1);
    return value;
}

static void test_start_times_of_the_caller_are_in_the_metrics(void **state)
{
    char start[32], path[] = "/tmp/mayfly-metrics-XXXXXX";

    (void)state;
    close(mkstemp(path));
    snprintf(start, sizeof(start), "%" PRIu64, clock_monotonic_us() - 5000000);
    struct vm *vm = vm_start_with(&(struct machine_options){
        .unjailed = "the jailer gives these options itself",
        .arguments = ARGUMENTS("--metrics-path", path, "--start-time-us", start, "--start-time-cpu-us", "0",
                               "--parent-cpu-time-us", "7000000")});

    run_hello(vm);
    assert_true(metric(path, "process_startup_time_us") >= 5000000);
    assert_true(metric(path, "process_startup_time_cpu_us") > 7000000);
    unlink(path);
}

static void test_fifos_of_log_and_metrics_need_no_reader(void **state)
{
    char directory[] = "/tmp/mayfly-fifos-XXXXXX", log[64], metrics[64];

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(log, sizeof(log), "%s/log", directory);
    snprintf(metrics, sizeof(metrics), "%s/metrics", directory);
    assert_int_equal(mkfifo(log, 0600), 0);
    assert_int_equal(mkfifo(metrics, 0600), 0);
    struct vm *vm = vm_start_with(&(struct machine_options){
        .no_log_path = true, .arguments = ARGUMENTS("--log-path", log, "--metrics-path", metrics)});

    /* More than a pipe holds. */
    for (int i = 0; i < 800; i++)
        free(vm_get(vm, "/machine-config"));
    run_hello(vm);
    unlink(log);
    unlink(metrics);
    rmdir(directory);
}

static void test_limit_of_bodies_is_the_one_given(void **state)
{
    struct vm *vm = vm_start_with(&(struct machine_options){.arguments = ARGUMENTS("--http-api-max-payload-size=40")});
    struct api_response response;

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 64}   ");
    assert_no_error(api_client_request(vm->api, "PUT", "/machine-config",
                                       "{\"vcpu_count\": 1, \"mem_size_mib\": 64}    ", 41, &response));
    assert_int_equal(response.status, 400);
    assert_non_null(strstr(response.body, "{\"error\":\"a body of 41 bytes"));
    api_response_free(&response);
}

static void test_options_that_cannot_be_met_end_with_code_1_and_a_wrong_level_with_152(void **state)
{
    static const struct {
        const char *arguments[3];
        int exit_code;
        const char *text;
    } wrong[] = {
        {{"--level", "loud"}, 152, "level: 'loud', expected Off"},
        {{"--metrics-path", "/nonexistent/metrics"}, 1, "metrics_path: cannot open '/nonexistent/metrics'"},
        {{"--metadata", "/nonexistent/data"}, 1, "--metadata: '/nonexistent/data': cannot open it"},
        {{"--config-file", "/nonexistent/file"}, 1, "--config-file '/nonexistent/file': cannot open it"},
    };

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++) {
        char folder[] = "/tmp/mayfly-unused-XXXXXX", socket[64];

        assert_non_null(mkdtemp(folder));
        snprintf(socket, sizeof(socket), "--api-sock=%s/socket", folder);
        struct vm *vm = vm_start_with(
            &(struct machine_options){.arguments = ARGUMENTS(wrong[i].arguments[0], wrong[i].arguments[1], socket),
                                      .no_api = true,
                                      .shows = folder});

        vm_expect_exit(vm, wrong[i].exit_code);
        vm_expect_log(vm, wrong[i].text);
        assert_int_equal(rmdir(folder), 0); /* nothing was made in it */
    }
}

TEST_MAIN(machine_test(test_version_is_the_one_that_callers_of_the_name_look_for),
          machine_test(test_help_goes_to_stdout),
          machine_test(test_called_firecracker_its_log_begins_as_that_names_does),
          machine_test(test_called_firecracker_its_log_tells_of_the_api_and_of_the_end),
          machine_test(test_log_lines_carry_what_is_asked_for),
          machine_test(test_every_request_and_its_outcome_is_in_the_log),
          machine_test(test_log_has_only_the_level_and_the_module_asked_for),
          machine_test(test_log_changes_while_the_guest_runs),
          machine_test(test_start_times_of_the_caller_are_in_the_metrics),
          machine_test(test_fifos_of_log_and_metrics_need_no_reader),
          machine_test(test_limit_of_bodies_is_the_one_given),
          machine_test(test_options_that_cannot_be_met_end_with_code_1_and_a_wrong_level_with_152))
