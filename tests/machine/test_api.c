/* The API of the real VMM: what its document says, its states, and callers that misbehave. */
#include "tests/machine/jailed.h"
#include "tests/machine/machine.h"

#include "vmm/backend/unix_socket.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char *read_document(void)
{
    FILE *in = fopen("api/openapi.yaml", "r");
    char *text = calloc(1, 256 * 1024);

    assert_non_null(in);
    assert_true(fread(text, 1, 256 * 1024 - 1, in) > 0);
    fclose(in);
    return text;
}

static void assert_contains(struct vm *vm, const char *path, const char *part)
{
    cleanup_free char *body = vm_get(vm, path);

    if (strstr(body, part) == NULL)
        vm_fail(vm, "GET %s: %s, expected \"%s\"", path, body, part);
}

/* Asks for an operation with an empty object, which it may refuse, but must know. */
static void assert_known(struct vm *vm, const char *method, const char *path)
{
    struct api_response response;
    bool get = strcmp(method, "GET") == 0;

    assert_no_error(api_client_request(vm->api, method, path, get ? NULL : "{}", get ? 0 : 2, &response));
    if (response.status == 404 || response.status == 405 || response.status >= 500 ||
        strstr(response.body, "no such path") != NULL || strstr(response.body, "no such method") != NULL)
        vm_fail(vm, "%s %s: %u %s", method, path, response.status, response.body);
    api_response_free(&response);
}

static void test_every_operation_of_the_document_is_served(void **state)
{
    cleanup_free char *text = read_document();
    struct vm *vm = vm_start();
    char path[128] = "/";
    size_t operations = 0;

    (void)state;
    for (char *line = strtok(strstr(text, "\npaths:\n") + 8, "\n"); strcmp(line, "components:") != 0;
         line = strtok(NULL, "\n")) {
        char method[8];

        if (strncmp(line, "  /", 3) == 0) {
            snprintf(path, sizeof(path), "%.*s", (int)strcspn(line + 2, ":"), line + 2);
        } else if (strncmp(line, "    ", 4) == 0 && islower((unsigned char)line[4])) {
            snprintf(method, sizeof(method), "%.*s", (int)strcspn(line + 4, ":"), line + 4);
            for (char *c = method; *c != '\0'; c++)
                *c = (char)toupper((unsigned char)*c);
            assert_known(vm, method, path);
            operations++;
        }
    }
    assert_true(operations > 15);
}

static void put_machine_value(struct vm *vm, const char *field, uint64_t value, bool fits)
{
    char body[160];

    snprintf(body, sizeof(body), "{\"%s\": %" PRIu64 "}", field, value);
    if (fits)
        vm_patch(vm, "/machine-config", "%s", body);
    else
        vm_refuses(vm, "PATCH", "/machine-config", body, field);
}

static void test_bounds_of_the_document_are_those_of_the_server(void **state)
{
    cleanup_free char *text = read_document();
    struct vm *vm = vm_start();
    char field[64] = "";
    size_t bounds = 0;

    (void)state;
    strtok(strstr(text, "\n    MachineConfigurationUpdate:\n") + 1, "\n");
    for (char *line = strtok(NULL, "\n"); isspace((unsigned char)line[4]); line = strtok(NULL, "\n")) {
        uint64_t bound;

        if (strncmp(line, "        ", 8) == 0 && line[8] != ' ')
            snprintf(field, sizeof(field), "%.*s", (int)strcspn(line + 8, ":"), line + 8);
        if (sscanf(line, "          minimum: %" SCNu64, &bound) == 1) {
            put_machine_value(vm, field, bound, true);
            put_machine_value(vm, field, bound - 1, false);
            bounds++;
        } else if (sscanf(line, "          maximum: %" SCNu64, &bound) == 1) {
            put_machine_value(vm, field, bound + 1, false);
            bounds++;
        }
    }
    assert_int_equal(bounds, 4);
}

static void test_state_follows_the_life_of_the_guest(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    assert_contains(vm, "/", "\"state\":\"Not started\"");
    vm_refuses(vm, "PATCH", "/vm", "{\"state\": \"Paused\"}", "not supported before starting the microVM");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\": \"SendCtrlAltDel\"}", "has not started");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\": \"InstanceStart\"}", "boot");
    vm_boot(vm, "spin", NULL);
    vm_expect(vm, "spinning\n");
    assert_contains(vm, "/", "\"state\":\"Running\"");
    vm_refuses(vm, "PUT", "/machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 128}", "is running");
    vm_refuses(vm, "PUT", "/actions", "{\"action_type\": \"InstanceStart\"}", "is running");
    vm_patch(vm, "/vm", "{\"state\": \"Paused\"}");
    assert_contains(vm, "/", "\"state\":\"Paused\"");
    vm_refuses(vm, "PUT", "/entropy", "{}", "is paused");
    vm_patch(vm, "/vm", "{\"state\": \"Paused\"}");
    vm_patch(vm, "/vm", "{\"state\": \"Resumed\"}");
    vm_patch(vm, "/vm", "{\"state\": \"Resumed\"}");
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_configuration_is_shown_as_it_was_put(void **state)
{
    struct vm *vm = vm_start();
    const char *first = vm_file(vm, "first", 1 << 20, 'a'), *second = vm_file(vm, "second", 2 << 20, 'b');
    char expected[2048];

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 64, \"cpu_template\": \"None\"}");
    assert_contains(vm, "/machine-config",
                    "{\"vcpu_count\":1,\"mem_size_mib\":64,\"smt\":false,\"track_dirty_pages\":false,\"huge_pages\":"
                    "\"None\"}");
    vm_drive(vm, "d1", first, ", \"rate_limiter\": {\"ops\": {\"size\": 9, \"refill_time\": 8}, \"bandwidth\": null}");
    vm_put(vm, "/entropy", "{}");
    vm_boot(vm, "spin", "quiet");
    vm_expect(vm, "spinning\n");
    vm_patch(
        vm, "/drives/d1",
        "{\"drive_id\": \"d1\", \"path_on_host\": \"%s\", \"rate_limiter\": {\"ops\": {\"size\": 0, \"refill_time\": "
        "0}, \"bandwidth\": {\"size\": 5, \"refill_time\": 6, \"one_time_burst\": 7}}}",
        second);
    snprintf(expected, sizeof(expected), "\"path_on_host\":\"%s\"", second);
    assert_contains(vm, "/vm/config", expected);
    assert_contains(
        vm, "/vm/config",
        "\"rate_limiter\":{\"bandwidth\":{\"size\":5,\"one_time_burst\":7,\"refill_time\":6},\"ops\":null}");
    assert_contains(vm, "/vm/config", "\"initrd_path\":null,\"boot_args\":\"quiet\"}");
    assert_contains(vm, "/vm/config", "\"entropy\":{\"rate_limiter\":null}}");
    assert_contains(vm, "/vm/config", "{\"balloon\":null,\"drives\":[{\"drive_id\":\"d1\",\"partuuid\":null,");
}

/* What each object alone does not show to be wrong, and what one request must not leave behind. */
static void test_contradictions_are_named_and_change_nothing(void **state)
{
    static const struct {
        const char *path, *json, *fault;
    } wrong[] = {
        {"/drives/b", "{\"drive_id\":\"b\",\"is_root_device\":true,\"path_on_host\":\"/dev/null\"}", "'a' is the root"},
        {"/drives/b", "{\"drive_id\":\"a\",\"is_root_device\":false,\"path_on_host\":\"/d\"}", "expected \"b\" as in"},
        {"/drives/b", "{\"drive_id\":\"b\",\"is_root_device\":false,\"path_on_host\":\"/proc\"}", "path_on_host"},
        {"/drives/b:c", "{\"drive_id\":\"b:c\",\"is_root_device\":false,\"path_on_host\":\"/d\"}", "letters, digits"},
        {"/network-interfaces/m", "{\"iface_id\":\"m\",\"host_dev_name\":\"no_such_tap0\"}", "no_such_tap0"},
        {"/network-interfaces/m", "{\"iface_id\":\"m\",\"host_dev_name\":\"x\",\"guest_mac\":\"06:00:ac:10:00:0g\"}",
         "guest_mac"},
        {"/network-interfaces/m", "{\"iface_id\":\"m\",\"host_dev_name\":\"x\",\"guest_mac\":\"06:00:ac:10:00\"}",
         "guest_mac"},
        {"/vsock", "{\"guest_cid\":2,\"uds_path\":\"/v\"}", "guest_cid"},
        {"/vsock", "{\"guest_cid\":4294967296,\"uds_path\":\"/v\"}", "guest_cid"},
        {"/machine-config", "{\"vcpu_count\":3,\"mem_size_mib\":128,\"smt\":true}", "vcpu_count"},
        {"/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":129,\"huge_pages\":\"2M\"}", "mem_size_mib"},
        {"/metrics", "{\"metrics_path\":\"/dev/null\"}", "already set"},
        {"/logger", "{\"log_path\":\"/nonexistent/log\",\"level\":\"Off\"}", "/nonexistent/log"},
        {"/serial", "{\"rate_limiter\":{\"size\":1}}", "rate_limiter.refill_time"},
    };
    struct vm *vm = vm_start();

    (void)state;
    const char *disk = vm_path(vm, "disk");
    cleanup_fd int fd = open(disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 4096), 0);
    vm_put(vm, "/drives/a", "{\"drive_id\":\"a\",\"is_root_device\":true,\"path_on_host\":\"%s\"}", disk);
    vm_put(vm, "/vsock", "{\"guest_cid\":3,\"uds_path\":\"%s\"}", vm_path(vm, "v"));
    vm_put(vm, "/metrics", "{\"metrics_path\":\"%s\"}", vm_path(vm, "metrics"));
    cleanup_free char *before = vm_get(vm, "/vm/config");
    for (size_t i = 0; i < array_length(wrong); i++) {
        vm_refuses(vm, "PUT", wrong[i].path, wrong[i].json, wrong[i].fault);

        cleanup_free char *after = vm_get(vm, "/vm/config");
        assert_string_equal(after, before);
    }
}

/* Addresses are the same whatever the case of their digits; whoever has one may be put again with it. */
static void test_two_interfaces_of_one_address_are_refused(void **state)
{
    static const char interface[] = "{\"iface_id\":\"%s\",\"guest_mac\":\"%s\","
                                    "\"backend\":{\"type\":\"stream\",\"socket_path\":\"%s\"}}";
    struct vm *vm = vm_start();
    const char *path = vm_path(vm, "peer.sock");
    struct unix_socket_file file;
    cleanup_fd int peer = -1;
    char json[256];

    (void)state;
    assert_no_error(unix_socket_listen(path, SOCK_STREAM, 4, &peer, &file));
    vm_put(vm, "/network-interfaces/a", interface, "a", "06:00:ac:10:00:0b", path);
    vm_put(vm, "/network-interfaces/b", interface, "b", "06:00:ac:10:00:0c", path);
    vm_put(vm, "/network-interfaces/a", interface, "a", "06:00:AC:10:00:0B", path);
    cleanup_free char *before = vm_get(vm, "/vm/config");
    snprintf(json, sizeof(json), interface, "b", "06:00:ac:10:00:0b", path);
    vm_refuses(vm, "PUT", "/network-interfaces/b", json, "is the address of interface 'a' already");
    snprintf(json, sizeof(json), interface, "c", "06:00:aC:10:00:0C", path);
    vm_refuses(vm, "PUT", "/network-interfaces/c", json, "is the address of interface 'b' already");
    cleanup_free char *after = vm_get(vm, "/vm/config");
    assert_string_equal(after, before);
}

static void test_files_that_are_not_there_are_named(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    vm_refuses(vm, "PUT", "/boot-source", "{\"kernel_image_path\": \"/nonexistent/kernel\"}", "/nonexistent/kernel");
    vm_refuses(vm, "PUT", "/drives/a",
               "{\"drive_id\": \"a\", \"is_root_device\": false, \"path_on_host\": \"/nonexistent/disk\"}",
               "/nonexistent/disk");
    vm_refuses(vm, "PUT", "/logger", "{\"log_path\": \"/nonexistent/log\"}", "/nonexistent/log");
    vm_refuses(vm, "PUT", "/metrics", "{\"metrics_path\": \"/nonexistent/metrics\"}", "/nonexistent/metrics");
    assert_contains(vm, "/vm/config", "\"drives\":[],\"boot-source\":{\"kernel_image_path\":\"\"");
}

static void test_all_requests_may_come_at_once(void **state)
{
    struct vm *vm = vm_start();
    char boot[512], text[2048];
    int fd = vm_dial(vm);

    (void)state;
    snprintf(boot, sizeof(boot), "{\"kernel_image_path\": \"%s\"}", guest_image("hello"));
    snprintf(text, sizeof(text),
             "PUT /machine-config HTTP/1.1\r\nContent-Length: 38\r\n\r\n{\"vcpu_count\": 1, \"mem_size_mib\": 128}"
             "PUT /boot-source HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s"
             "PUT /actions HTTP/1.1\r\nContent-Length: 32\r\n\r\n{\"action_type\": \"InstanceStart\"}",
             strlen(boot), boot);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
    close(fd);
}

static void test_caller_may_leave_in_the_middle_of_a_request(void **state)
{
    static const char text[] = "PUT /machine-config HTTP/1.1\r\nContent-Length: 38\r\n\r\n"
                               "{\"vcpu_count\": 1, \"mem_size_mib\": 128}GET /vm/config HTTP/1.1\r\n\r\n";
    struct vm *vm = vm_start();

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) {
        int fd = vm_dial(vm);

        assert_int_equal(send(fd, text, i, MSG_NOSIGNAL), i);
        close(fd);
        assert_contains(vm, "/", "\"state\":\"Not started\"");
    }
}

/* Sends what HTTP refuses and reads to the end: the caller must get the reply, whole. */
static void assert_refused_by_http(struct vm *vm, const char *text, const char *reason)
{
    char reply[1024] = "";
    size_t length = 0;
    ssize_t count;
    int fd = vm_dial(vm);

    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    while ((count = recv(fd, reply + length, sizeof(reply) - 1 - length, 0)) > 0)
        length += (size_t)count;
    close(fd);
    if (strncmp(reply, "HTTP/1.1 400 ", 13) != 0 || strstr(reply, "\r\n\r\n{\"error\":\"") == NULL ||
        strstr(reply, reason) == NULL)
        fail_msg("%s: %s, expected 400 with \"%s\"", text, reply, reason);
}

static void test_what_http_refuses_harms_nobody(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    for (int started = 0; started < 2; started++) {
        assert_refused_by_http(vm, "HEAD / HTTP/1.1\r\n\r\n", "method HEAD");
        assert_refused_by_http(vm, "nonsense\r\n\r\n", "not HTTP");
        assert_refused_by_http(vm, "PUT /entropy HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", "at most 51200");
        assert_contains(vm, "/", started ? "\"state\":\"Running\"" : "\"state\":\"Not started\"");
        if (!started)
            vm_boot(vm, "spin", NULL);
    }
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

/* Of all sizes: the allocator gives pages back when it pleases, which the filters must let it do. */
static void refuse_large_bodies(struct vm *vm, const char *method)
{
    char *body = malloc(51200);

    for (size_t length = 2000; length < 51000; length += 3000) {
        sprintf(body, "{\"drive_id\": \"a\", \"path_on_host\": \"%0*d\"}", (int)length - 50, 0);
        vm_refuses(vm, method, "/drives/a", body, length < 4000 ? "" : "path_on_host");
    }
    free(body);
}

static void test_large_bodies_are_answered_before_and_after_the_start(void **state)
{
    struct vm *vm = vm_start();

    (void)state;
    refuse_large_bodies(vm, "PUT");
    vm_boot(vm, "spin", NULL);
    refuse_large_bodies(vm, "PATCH");
    vm_say(vm, "q");
    vm_expect_exit(vm, 0);
}

static void test_patch_that_changes_nothing_succeeds(void **state)
{
    struct vm *vm = vm_start();
    const char *file = vm_file(vm, "disk", 1 << 20, 'a');
    char expected[200];

    (void)state;
    vm_drive(vm, "d1", file, "");
    vm_boot(vm, "spin", NULL);
    vm_patch(vm, "/drives/d1", "{\"drive_id\": \"d1\"}");
    snprintf(expected, sizeof(expected), "\"path_on_host\":\"%s\",\"rate_limiter\":null", file);
    assert_contains(vm, "/vm/config", expected);
    vm_refuses(vm, "PATCH", "/drives/d2", "{\"drive_id\": \"d2\"}", "drive_id: 'd2', expected");
    vm_refuses(vm, "PUT", "/drives/d2", "{}",
               "PUT /drives/d2: not supported after starting the microVM: it is running");
}

static void test_socket_of_a_living_vm_is_left_alone(void **state)
{
    struct vm *vm = vm_start();
    const char *arguments[] = {"--api-sock", vm->api_path, NULL};
    struct vm *other = vm_start_with(&(struct machine_options){.arguments = arguments, .no_api = true});

    (void)state;
    vm_expect_exit(other, 1);
    vm_expect_log(other, vm->api_path);
    assert_contains(vm, "/", "\"state\":\"Not started\"");
}

static void write_config(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void test_configuration_file_starts_the_guest(void **state)
{
    char path[] = "/tmp/mayfly-config-XXXXXX", text[512];
    const char *arguments[] = {"--no-api", "--config-file", path, NULL};

    (void)state;
    close(mkstemp(path));
    snprintf(
        text, sizeof(text),
        "{\"boot-source\": {\"kernel_image_path\": \"%s\", \"initrd_path\": null}, \"drives\": [], \"balloon\": null,"
        " \"machine-config\": {\"vcpu_count\": 1, \"mem_size_mib\": 64}}",
        guest_image("hello"));
    write_config(path, text);

    const struct machine_options options = {.name = "/usr/bin/firecracker", .arguments = arguments, .no_api = true};
    struct vm *vm = vm_start_with(&options);
    vm_expect(vm, "hello\n");
    vm_expect_exit(vm, 0);
    vm_expect_log(vm, "Successfully started microvm that was configured from one single json\n");
    write_config(path, "{\"machine-config\": {\"vcpu_count\": 99, \"mem_size_mib\": 64}}");
    vm = vm_start_with(&options);
    vm_expect_exit(vm, 1);
    vm_expect_log(vm, "machine-config.vcpu_count: 99 given");
    vm_expect_log(vm, "Firecracker exiting with error. exit_code=1\n");
    unlink(path);
}

/* What GET /vm/config shows is a configuration file; the API goes on beside one. */
static void test_shown_configuration_makes_the_same_vm_again(void **state)
{
    struct vm *vm = vm_start();
    const char *disk = vm_file(vm, "disk", 1 << 20, 'a'), *path = vm_path(vm, "config");

    (void)state;
    vm_put(vm, "/machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 64, \"huge_pages\": \"Transparent\"}");
    vm_drive(vm, "d1", disk,
             ", \"cache_type\": \"Writeback\", \"rate_limiter\": {\"ops\": {\"size\": 9, \"refill_time\": 8}}");
    vm_put(vm, "/entropy",
           "{\"rate_limiter\": {\"bandwidth\": {\"size\": 5, \"refill_time\": 6, \"one_time_burst\": 7}}}");
    vm_boot_source(vm, "spin", "quiet");
    cleanup_free char *shown = vm_get(vm, "/vm/config");
    write_config(path, shown);

    const char *arguments[] = {"--config-file", path, NULL};
    struct vm *again = vm_start_with(&(struct machine_options){.arguments = arguments, .shows = vm->directory});
    vm_expect(again, "spinning\n");
    assert_contains(again, "/", "\"state\":\"Running\"");
    cleanup_free char *shown_again = vm_get(again, "/vm/config");
    assert_string_equal(shown_again, shown);
    vm_refuses(again, "PUT", "/actions", "{\"action_type\": \"InstanceStart\"}", "is running");
    vm_say(again, "q");
    vm_expect_exit(again, 0);
}

static void assert_socket(const struct vm *vm, mode_t mode, gid_t gid)
{
    struct stat status;

    assert_int_equal(stat(vm->api_path, &status), 0);
    assert_int_equal(status.st_mode & 0777, mode);
    assert_int_equal(status.st_gid, gid);
}

static void test_socket_is_its_owners_alone_or_a_groups(void **state)
{
    /* In a jail the group is the jail's; the folder that the jail shows gives it back to the folder's owner. */
    gid_t group = geteuid() != 0 ? getegid() : machine_is_jailed() ? JAILED_GID : 64321;
    char number[16];
    const char *const arguments[] = {"--api-sock-group", number, NULL};

    (void)state;
    assert_socket(vm_start(), 0600, getegid());
    snprintf(number, sizeof(number), "%u", group);
    assert_socket(vm_start_with(&(struct machine_options){.arguments = arguments}), 0660,
                  machine_is_jailed() ? getegid() : group);
}

static void test_callers_of_another_user_are_turned_away(void **state)
{
    char number[16];
    const char *const arguments[] = {"--api-peer-uid", number, NULL};
    struct api_response response;
    struct vm *vm;

    (void)state;
    snprintf(number, sizeof(number), "%u", geteuid());
    vm = vm_start_with(&(struct machine_options){.arguments = arguments});
    free(vm_get(vm, "/"));
    vm_boot(vm, "spin", NULL); /* the narrower filter knows the question, too */
    api_client_free(vm->api);
    vm->api = NULL;
    assert_no_error(api_client_connect(vm->api_path, vm->process_fd, MACHINE_PATIENCE_MS, &vm->api));
    free(vm_get(vm, "/"));

    snprintf(number, sizeof(number), "%u", geteuid() + 1);
    vm = vm_start_with(&(struct machine_options){.arguments = arguments});
    cleanup_error struct error *error = api_client_request(vm->api, "GET", "/", NULL, 0, &response);
    assert_non_null(error);
    vm_expect_log(vm, "called the API");
}

TEST_MAIN(machine_test(test_socket_is_its_owners_alone_or_a_groups),
          machine_test(test_callers_of_another_user_are_turned_away),
          machine_test(test_every_operation_of_the_document_is_served),
          machine_test(test_bounds_of_the_document_are_those_of_the_server),
          machine_test(test_state_follows_the_life_of_the_guest),
          machine_test(test_configuration_is_shown_as_it_was_put),
          machine_test(test_contradictions_are_named_and_change_nothing),
          machine_test(test_two_interfaces_of_one_address_are_refused),
          machine_test(test_files_that_are_not_there_are_named), machine_test(test_all_requests_may_come_at_once),
          machine_test(test_caller_may_leave_in_the_middle_of_a_request),
          machine_test(test_what_http_refuses_harms_nobody),
          machine_test(test_large_bodies_are_answered_before_and_after_the_start),
          machine_test(test_patch_that_changes_nothing_succeeds),
          machine_test(test_socket_of_a_living_vm_is_left_alone),
          machine_test(test_configuration_file_starts_the_guest),
          machine_test(test_shown_configuration_makes_the_same_vm_again))
