#include "tests/unit/harness.h"

#include "tests/unit/fake_machine.h"

#include "api/openapi.h"
#include "api/routes.h"

#include <ctype.h>
#include <stdio.h>

static const char document_path[] = "api/openapi.yaml";

static char *read_document(void)
{
    FILE *in = fopen(document_path, "r");
    char *text = calloc(1, 256 * 1024);

    assert_non_null(in);
    assert_true(fread(text, 1, 256 * 1024 - 1, in) > 0);
    fclose(in);
    return text;
}

static void test_document_is_the_one_that_the_tables_make(void **state)
{
    cleanup_free char *kept = read_document();
    cleanup_free char *made = NULL;
    size_t size;
    FILE *out = open_memstream(&made, &size);

    (void)state;
    api_openapi_write(out);
    fclose(out);
    if (strcmp(kept, made) != 0)
        fail_msg("%s is out of date: run `make openapi`", document_path);
}

/* The only flag that is on unless it is given. */
static void test_default_of_a_flag_is_the_one_that_it_gets(void **state)
{
    cleanup_free char *text = read_document();
    struct balloon_hinting_start start;
    const char *field = strstr(text, "        acknowledge_on_stop:\n");

    (void)state;
    assert_non_null(field);
    const char *said = strstr(field, "          default: ");
    assert_non_null(said);
    schema_defaults(&balloon_hinting_start_schema, &start);
    assert_true(start.acknowledge_on_stop);
    assert_memory_equal(said, "          default: true\n", 24);
}

/* Sends {} (or nothing) to one operation of the document; it must be known, whatever it thinks of {}. */
static void ask(enum api_method method, const char *method_name, const char *path)
{
    struct api_context context = {.machine = &fake_machine, .app_name = "Mayfly"};
    struct api_request request = {.method = method,
                                  .method_name = method_name,
                                  .path = path,
                                  .body = method == API_GET ? NULL : "{}",
                                  .body_length = method == API_GET ? 0 : 2};
    struct api_reply reply;
    size_t length;

    /* What a GET tells may be known of a started machine only. */
    fake_machine.state = method == API_GET ? MACHINE_RUNNING : MACHINE_NOT_STARTED;
    api_handle(&context, &request, &reply);
    if (reply.status == 404 || reply.status == 405 || reply.status >= 500)
        fail_msg("%s %s: %u", method_name, path, reply.status);
    if (reply.status == 400)
        assert_null(strstr(json_text(&reply.body, &length), "no such"));
    if (method == API_GET)
        assert_int_equal(reply.status, 200);
    api_reply_free(&reply);
}

static void test_every_operation_of_the_document_is_served(void **state)
{
    cleanup_free char *text = read_document();
    char *paths = strstr(text, "\npaths:\n") + strlen("\npaths:\n");
    char path[128] = "";
    size_t operations = 0;

    (void)state;
    fake_machine_reset();
    for (char *line = strtok(paths, "\n"); line != NULL && strcmp(line, "components:") != 0;
         line = strtok(NULL, "\n")) {
        char method[8];

        if (sscanf(line, "  /%126[^:]:", path + 1) == 1 || strcmp(line, "  /:") == 0) {
            path[0] = '/';
            if (strcmp(line, "  /:") == 0)
                path[1] = '\0';
        } else if (sscanf(line, "    %5[a-z]:", method) == 1 && line[4] != ' ' && isalpha((unsigned char)line[4])) {
            enum api_method known = strcmp(method, "get") == 0   ? API_GET
                                    : strcmp(method, "put") == 0 ? API_PUT
                                                                 : API_PATCH;

            assert_true(strcmp(method, "get") == 0 || strcmp(method, "put") == 0 || strcmp(method, "patch") == 0);
            ask(known, method, path);
            operations++;
        }
    }
    assert_int_equal(operations, route_count);
    fake_machine_reset();
}

TEST_MAIN(cmocka_unit_test(test_document_is_the_one_that_the_tables_make),
          cmocka_unit_test(test_default_of_a_flag_is_the_one_that_it_gets),
          cmocka_unit_test(test_every_operation_of_the_document_is_served))
