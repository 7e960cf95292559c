#include "tests/unit/harness.h"

#include "api/schema_objects.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is done to one field of an otherwise right object. */
struct change {
    const struct field *field;
    const char *value; /* instead of a right one; NULL: the field is left out */
    bool twice;
};

static void write_sample(FILE *out, const struct schema *schema, const struct change *change);

/* A right value. */
static void write_value(FILE *out, const struct field *field)
{
    switch (field->type) {
    case FIELD_BOOL:
        fprintf(out, "true");
        break;
    case FIELD_INTEGER:
        fprintf(out, "%u", field->initial != 0 ? field->initial : field->minimum);
        break;
    case FIELD_ENUM:
    case FIELD_WORD:
        fprintf(out, "\"%s\"", field->names[0]);
        break;
    case FIELD_STRING:
        fprintf(out, "\"%s\"",
                strcmp(field->name, "ipv4_address") == 0 ? "169.254.1.1"
                : field->minimum > 1                     ? "06:00:ac:10:00:02"
                                                         : "x");
        break;
    case FIELD_STRING_MAP:
        fprintf(out, "{\"k\": \"v\"}");
        break;
    case FIELD_STRING_LIST:
        fprintf(out, "[\"s\"]");
        break;
    case FIELD_OBJECT:
        write_sample(out, field->object, NULL);
        break;
    case FIELD_ARRAY:
    case FIELD_HEAP_ARRAY:
        fprintf(out, "[");
        write_sample(out, field->object, NULL);
        fprintf(out, "]");
        break;
    case FIELD_UNSUPPORTED:
        fprintf(out, field->flags & FIELD_LIST ? "[]" : "null");
        break;
    }
}

/* What stands in for another field of its object, and excludes it. */
static bool is_alternative(const struct field *field)
{
    return strcmp(field->name, "output_path") == 0 || strcmp(field->name, "backend") == 0 ||
           strcmp(field->name, "socket") == 0;
}

/* A right object with every field, but for the alternatives. */
static void write_sample(FILE *out, const struct schema *schema, const struct change *change)
{
    const char *separator = "";

    fprintf(out, "{");
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct field *field = &schema->fields[i];
        bool changed = change != NULL && change->field == field;

        if (changed ? change->value == NULL && !change->twice : is_alternative(field))
            continue;
        for (int times = changed && change->twice ? 2 : 1; times > 0; times--) {
            fprintf(out, "%s\"%s\": ", separator, field->name);
            separator = ", ";
            if (changed && change->value != NULL)
                fprintf(out, "%s", change->value);
            else
                write_value(out, field);
        }
    }
    fprintf(out, "}");
}

static char *sample(const struct schema *schema, const struct change *change)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    write_sample(out, schema, change);
    fclose(out);
    return text;
}

static struct error *decode(const struct schema *schema, const char *text, void *object)
{
    return schema_decode(schema, text, strlen(text), false, object, NULL);
}

static void assert_zeroed(const struct schema *schema, const void *object)
{
    for (size_t i = 0; i < schema->size; i++)
        assert_int_equal(((const char *)object)[i], 0);
}

/* The sample with `change` is refused with a message that has both texts, and nothing is left behind. */
static void assert_refused(const struct schema *schema, const struct change *change, const char *expected)
{
    cleanup_free char *text = sample(schema, change);
    cleanup_free void *object = malloc(schema->size);
    struct error *error = decode(schema, text, object);

    if (error == NULL)
        fail_msg("%s took %s", schema->name, text);
    if (strstr(error->message, change->field->name) == NULL)
        fail_msg("%s: \"%s\" does not name %s", schema->name, error->message, change->field->name);
    assert_zeroed(schema, object);
    assert_error(error, ERROR_INPUT, expected);
}

static void assert_taken(const struct schema *schema, const struct change *change)
{
    cleanup_free char *text = sample(schema, change);
    cleanup_free void *object = malloc(schema->size);
    struct error *error = decode(schema, text, object);

    if (error != NULL)
        fail_msg("%s refused %s: %s", schema->name, text, error->message);
    schema_free(schema, object);
    assert_zeroed(schema, object);
}

typedef void schema_visitor(const struct schema *schema);

static void visit(const struct schema *schema, schema_visitor *visitor)
{
    visitor(schema);
    for (size_t i = 0; i < schema->field_count; i++)
        if (field_object(&schema->fields[i]) != NULL)
            visit(field_object(&schema->fields[i]), visitor);
}

static void visit_all(schema_visitor *visitor)
{
    static const struct schema *const requests[] = {&action_info_schema, &vm_update_schema, &drive_update_schema,
                                                    &network_interface_update_schema};

    for (size_t i = 0; i < array_length(requests); i++)
        visit(requests[i], visitor);
    visit(&vm_config_schema, visitor); /* all the others are in it */
}

static void check_round_trip(const struct schema *schema)
{
    cleanup_free char *text = sample(schema, NULL);
    cleanup_free void *object = malloc(schema->size);
    cleanup_free char *first = NULL;
    size_t length;

    for (int round = 0; round < 2; round++) {
        struct json_writer writer;
        struct error *error = decode(schema, round == 0 ? text : first, object);

        /* A hidden field may be required. */
        if (error != NULL && (round == 0 || strstr(error->message, "missing") == NULL))
            fail_msg("%s refused %s: %s", schema->name, round == 0 ? text : first, error->message);
        if (error != NULL) {
            error_free(error);
            return;
        }
        json_writer_init(&writer);
        schema_encode(schema, object, &writer);
        assert_non_null(json_text(&writer, &length));
        if (round == 0)
            first = strdup(json_text(&writer, &length));
        else
            assert_string_equal(first, json_text(&writer, &length));
        json_writer_free(&writer);
        schema_free(schema, object);
    }
}

static void test_every_object_is_encoded_as_it_was_decoded(void **state)
{
    (void)state;
    visit_all(check_round_trip);
}

static bool takes(const struct field *field, const char *value)
{
    if (strcmp(value, "null") == 0)
        return field->type == FIELD_UNSUPPORTED || (field->flags & FIELD_NULLABLE);
    if (strcmp(value, "[]") == 0)
        return field->type == FIELD_ARRAY || (field->type == FIELD_UNSUPPORTED && (field->flags & FIELD_LIST));
    if (strcmp(value, "{}") == 0) /* whether an object may be empty is told elsewhere */
        return field->type == FIELD_OBJECT || field->type == FIELD_STRING_MAP;
    if (strcmp(value, "true") == 0)
        return field->type == FIELD_BOOL;
    if (strcmp(value, "\"true\"") == 0)
        return field->type == FIELD_STRING && field->minimum < 2;
    return false;
}

static void check_wrong_types(const struct schema *schema)
{
    static const char *const values[] = {"null",
                                         "true",
                                         "1.5",
                                         "-1",
                                         "1e3",
                                         "18446744073709551616",
                                         "{}",
                                         "[]",
                                         "[1]",
                                         "-0",
                                         "0.0",
                                         "\"true\"",
                                         "99999999999999999999999999999999999999"};

    for (size_t i = 0; i < schema->field_count; i++) {
        for (size_t j = 0; j < array_length(values); j++) {
            struct change change = {.field = &schema->fields[i], .value = values[j]};

            if (!takes(change.field, values[j]) && strcmp(change.field->name, "output_path") != 0)
                assert_refused(schema, &change, "expected");
        }
    }
}

static void test_every_field_refuses_values_of_other_types(void **state)
{
    (void)state;
    visit_all(check_wrong_types);
}

static void check_bounds(const struct schema *schema)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct field *field = &schema->fields[i];
        char number[32];
        struct change change = {.field = field, .value = number};

        if (field->type != FIELD_INTEGER)
            continue;
        snprintf(number, sizeof(number), "%u", field->minimum);
        assert_taken(schema, &change);
        if (field->minimum > 0) {
            snprintf(number, sizeof(number), "%u", field->minimum - 1);
            assert_refused(schema, &change, " given, expected an integer from ");
        }
        if (field->maximum < UINT64_MAX) {
            snprintf(number, sizeof(number), "%" PRIu64, field->maximum + 1);
            assert_refused(schema, &change, " given, expected an integer from ");
        }
        snprintf(number, sizeof(number), "%" PRIu64, field->maximum);
        assert_taken(schema, &change);
    }
}

static void test_every_integer_is_held_to_its_bounds(void **state)
{
    (void)state;
    visit_all(check_bounds);
}

static void check_lengths(const struct schema *schema)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct field *field = &schema->fields[i];
        cleanup_free char *value = calloc(1, field->type == FIELD_STRING ? field->maximum + 4 : 1);
        struct change change = {.field = field, .value = value};

        if (field->type != FIELD_STRING || strcmp(field->name, "output_path") == 0)
            continue;
        value[0] = '"';
        memset(value + 1, 'a', field->maximum + 1);
        value[field->maximum + 2] = '"';
        assert_refused(schema, &change, "expected a string of ");
        if (field->minimum > 0) {
            strcpy(value, "\"\"");
            assert_refused(schema, &change, "\"\" given, expected a string of ");
        }
    }
}

static void test_every_string_is_held_to_its_length(void **state)
{
    (void)state;
    visit_all(check_lengths);
}

static void check_names(const struct schema *schema)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct field *field = &schema->fields[i];
        char value[64];
        struct change change = {.field = field, .value = value};

        if (field->type != FIELD_ENUM && field->type != FIELD_WORD)
            continue;
        for (size_t j = 0; field->names[j] != NULL; j++) {
            snprintf(value, sizeof(value), "\"%s\"", field->names[j]);
            assert_taken(schema, &change);
            snprintf(value, sizeof(value), "\"%sx\"", field->names[j]);
            assert_refused(schema, &change, field->names[j]);
        }
        assert_refused(schema, &(struct change){.field = field, .value = "\"\""}, field->names[0]);
    }
}

static void test_every_name_of_an_enumeration_is_taken_and_no_other(void **state)
{
    (void)state;
    visit_all(check_names);
}

static void check_missing(const struct schema *schema)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        struct change change = {.field = &schema->fields[i]};

        /* An update that changes nothing, and a port that leads nowhere, have tests of their own. */
        if (schema->fields[i].flags & FIELD_REQUIRED)
            assert_refused(schema, &change, "missing, expected ");
        else if (strcmp(change.field->name, "socket_path") != 0 && strcmp(change.field->name, "host_dev_name") != 0 &&
                 strcmp(change.field->name, "path_on_host") != 0)
            assert_taken(schema, &change);
    }
}

static void assert_encoded(const struct schema *schema, const void *object, const char *expected)
{
    struct json_writer writer;
    size_t length;

    json_writer_init(&writer);
    schema_encode(schema, object, &writer);
    assert_string_equal(json_text(&writer, &length), expected);
    json_writer_free(&writer);
}

static void test_drive_has_a_path_or_a_socket_and_shows_which(void **state)
{
    static const char *const beside_socket[] = {"\"path_on_host\":\"/p\"", "\"is_read_only\":false",
                                                "\"io_engine\":\"Sync\"", "\"rate_limiter\":{}"};
    struct drive_config config;

    (void)state;
    assert_no_error(decode(&drive_schema, "{\"drive_id\":\"a\",\"is_root_device\":false,\"socket\":\"/s\"}", &config));
    assert_encoded(&drive_schema, &config,
                   "{\"drive_id\":\"a\",\"partuuid\":null,\"is_root_device\":false,\"cache_type\":\"Unsafe\","
                   "\"is_read_only\":null,\"path_on_host\":null,\"rate_limiter\":null,\"io_engine\":null,"
                   "\"socket\":\"/s\"}");
    drive_config_free(&config);
    assert_error(decode(&drive_schema, "{\"drive_id\":\"a\",\"is_root_device\":false}", &config), ERROR_INPUT,
                 "path_on_host: missing");
    for (size_t i = 0; i < array_length(beside_socket); i++) {
        char text[160];

        snprintf(text, sizeof(text), "{\"drive_id\":\"a\",\"is_root_device\":false,\"socket\":\"/s\",%s}",
                 beside_socket[i]);
        assert_error(decode(&drive_schema, text, &config), ERROR_INPUT, "given, expected not to be");
    }
}

static void test_interface_has_a_tap_or_a_backend_and_shows_which(void **state)
{
    static const char with_backend[] =
        "{\"iface_id\":\"a\",\"backend\":{\"type\":\"stream\",\"socket_path\":\"/passt\"},\"guest_mac\":null,"
        "\"mtu\":null,\"rx_rate_limiter\":null,\"tx_rate_limiter\":null}";
    static const char with_tap[] = "{\"iface_id\":\"a\",\"host_dev_name\":\"tap0\",\"guest_mac\":null,"
                                   "\"mtu\":null,\"rx_rate_limiter\":null,\"tx_rate_limiter\":null}";
    static const char *const right[] = {with_backend, with_tap};
    struct network_interface_config config;

    (void)state;
    for (size_t i = 0; i < array_length(right); i++) {
        assert_no_error(decode(&network_interface_schema, right[i], &config));
        assert_encoded(&network_interface_schema, &config, right[i]);
        schema_free(&network_interface_schema, &config);
    }
    assert_error(decode(&network_interface_schema, "{\"iface_id\":\"a\"}", &config), ERROR_INPUT,
                 "host_dev_name: missing, expected the name of a tap, or a backend");
    assert_error(decode(&network_interface_schema,
                        "{\"iface_id\":\"a\",\"host_dev_name\":\"tap0\",\"backend\":{\"type\":\"stream\","
                        "\"socket_path\":\"/passt\"}}",
                        &config),
                 ERROR_INPUT, "backend: given beside host_dev_name, expected one of them");
}

static void test_required_fields_and_no_others_must_be_there(void **state)
{
    (void)state;
    visit_all(check_missing);
}

static void check_repeated(const struct schema *schema)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        struct change change = {.field = &schema->fields[i], .twice = true};

        assert_refused(schema, &change, "given twice");
    }
}

static void test_every_field_may_be_given_only_once(void **state)
{
    (void)state;
    visit_all(check_repeated);
}

static void check_unknown(const struct schema *schema)
{
    cleanup_free char *text = sample(schema, NULL);
    cleanup_free void *object = malloc(schema->size);

    strcpy(strrchr(text, '}'), "");
    cleanup_free char *longer = malloc(strlen(text) + 32);
    sprintf(longer, "%s, \"surprise\": 1}", text);
    assert_error(decode(schema, longer, object), ERROR_INPUT, "unknown field \"surprise\", expected one of: ");
    assert_zeroed(schema, object);
}

static void test_every_object_refuses_unknown_fields(void **state)
{
    (void)state;
    visit_all(check_unknown);
}

static void check_truncated(const struct schema *schema)
{
    cleanup_free char *text = sample(schema, NULL);
    cleanup_free void *object = malloc(schema->size);

    for (size_t length = 0; length < strlen(text); length++) {
        struct error *error = schema_decode(schema, text, length, false, object, NULL);
        char where[32];

        assert_non_null(error);
        assert_int_equal(error->kind, ERROR_INPUT);
        snprintf(where, sizeof(where), ", at byte %zu", length);
        /* The rest of a number may have been what was wanted. */
        if (strncmp(error->message, "not JSON", 8) == 0 && strstr(error->message, where) == NULL)
            fail_msg("%.*s: %s, expected \"%s\"", (int)length, text, error->message, where);
        error_free(error);
        assert_zeroed(schema, object);
    }
}

static void test_no_object_is_taken_when_its_text_ends_early(void **state)
{
    (void)state;
    visit_all(check_truncated);
}

static void test_error_names_the_path_to_a_nested_field(void **state)
{
    struct drive_config drive;
    struct console_config console;

    (void)state;
    assert_error(decode(&drive_schema, "{\"rate_limiter\": {\"ops\": {\"size\": \"many\"}}}", &drive), ERROR_INPUT,
                 "rate_limiter.ops.size: \"many\" given, expected an integer from 0 to 18446744073709551615");
    assert_error(decode(&console_schema,
                        "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\"}, {\"name\": \"b/c\"}]}", &console),
                 ERROR_INPUT, "ports[1].name: \"b/c\" given, expected a string of 1 to 64 bytes: letters, digits");
    assert_error(decode(&console_schema, "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\"}, 7]}", &console),
                 ERROR_INPUT, "ports[1]: 7 given, expected an object");
    assert_error(decode(&drive_schema, "{\"rate_limiter\": {\"ops\": {\"size\": 1}}}", &drive), ERROR_INPUT,
                 "rate_limiter.ops.refill_time: missing");
}

static void test_long_values_are_quoted_in_part(void **state)
{
    char text[400];
    struct machine_config config;

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "{\"smt\": \"", 9);
    strcpy(text + sizeof(text) - 3, "\"}");
    assert_error(decode(&machine_config_schema, text, &config), ERROR_INPUT, "aaaa...\" given, expected true or false");
}

static void test_long_names_are_quoted_up_to_a_whole_character(void **state)
{
    char text[300], quoted[120];
    struct machine_config config;

    (void)state;
    snprintf(quoted, sizeof(quoted), "%063d", 0);
    snprintf(text, sizeof(text), "{\"%s\u00e9%s\": 1}", quoted, quoted);
    strcat(quoted, "\", expected one of: vcpu_count");
    assert_error(decode(&machine_config_schema, text, &config), ERROR_INPUT, quoted);
}

static void test_fields_not_given_get_their_defaults(void **state)
{
    struct machine_config config;
    struct drive_config drive;

    (void)state;
    memset(&config, 0xff, sizeof(config));
    assert_no_error(decode(&machine_config_schema, "{\"vcpu_count\": 3, \"mem_size_mib\": 5000}", &config));
    assert_int_equal(config.vcpu_count, 3);
    assert_int_equal(config.mem_size_mib, 5000);
    assert_false(config.smt || config.track_dirty_pages || config.has_cpu_template);
    assert_int_equal(config.huge_pages, HUGE_PAGES_NONE);
    assert_no_error(
        decode(&drive_schema, "{\"drive_id\": \"d\", \"is_root_device\": false, \"path_on_host\": \"/d\"}", &drive));
    assert_int_equal(drive.cache_type, CACHE_TYPE_UNSAFE);
    assert_int_equal(drive.io_engine, IO_ENGINE_SYNC);
    assert_null(drive.partuuid);
    assert_false(drive.rate_limiter.present || drive.has_is_read_only || drive.is_read_only);
    schema_free(&drive_schema, &drive);
}

static void test_every_value_arrives_where_it_belongs(void **state)
{
    struct drive_config drive;
    struct network_interface_config interface;
    schema_given given;
    const char *text = "{\"drive_id\": \"d_1\", \"is_root_device\": true, \"path_on_host\": \"/\\u00e9\\n\", "
                       "\"partuuid\": \"0eaa91a0-01\", \"cache_type\": \"Writeback\", \"io_engine\": \"Async\", "
                       "\"is_read_only\": false, \"rate_limiter\": {\"bandwidth\": {\"size\": 18446744073709551615, "
                       "\"refill_time\": 2, \"one_time_burst\": 3}, \"ops\": null}}";

    (void)state;
    assert_no_error(schema_decode(&drive_schema, text, strlen(text), false, &drive, &given));
    assert_string_equal(drive.drive_id, "d_1");
    assert_string_equal(drive.path_on_host, "/\303\251\n");
    assert_string_equal(drive.partuuid, "0eaa91a0-01");
    assert_true(drive.is_root_device && drive.has_is_read_only && !drive.is_read_only);
    assert_int_equal(drive.cache_type, CACHE_TYPE_WRITEBACK);
    assert_int_equal(drive.io_engine, IO_ENGINE_ASYNC);
    assert_true(drive.rate_limiter.present && drive.rate_limiter.bandwidth.present && !drive.rate_limiter.ops.present);
    assert_true(drive.rate_limiter.bandwidth.size == UINT64_MAX);
    assert_int_equal(drive.rate_limiter.bandwidth.refill_time, 2);
    assert_true(drive.rate_limiter.bandwidth.has_one_time_burst);
    assert_int_equal(drive.rate_limiter.bandwidth.one_time_burst, 3);
    schema_free(&drive_schema, &drive);
    assert_no_error(decode(&network_interface_schema,
                           "{\"iface_id\": \"1\", \"host_dev_name\": \"tap0\", \"guest_mac\": \"06:00:AC:10:00:02\", "
                           "\"mtu\": 1500}",
                           &interface));
    assert_string_equal(interface.guest_mac, "06:00:ac:10:00:02");
    assert_int_equal(interface.mtu, 1500);
    schema_free(&network_interface_schema, &interface);
}

static void test_partial_object_changes_only_what_it_gives(void **state)
{
    struct machine_config config = {.vcpu_count = 4, .mem_size_mib = 512, .smt = true};
    const char *text = "{\"mem_size_mib\": 1024}";

    (void)state;
    assert_no_error(schema_decode(&machine_config_schema, text, strlen(text), true, &config, NULL));
    assert_int_equal(config.vcpu_count, 4);
    assert_int_equal(config.mem_size_mib, 1024);
    assert_true(config.smt);
    assert_error(schema_decode(&machine_config_schema, "{}", 2, true, &config, NULL), ERROR_INPUT, "no field given");
}

static void test_fields_are_checked_against_each_other(void **state)
{
    struct machine_config config;
    struct console_config console;

    (void)state;
    assert_error(decode(&machine_config_schema, "{\"vcpu_count\": 3, \"mem_size_mib\": 128, \"smt\": true}", &config),
                 ERROR_INPUT, "vcpu_count: 3 given, expected 1 or an even number");
    assert_error(
        decode(&machine_config_schema, "{\"vcpu_count\": 1, \"mem_size_mib\": 129, \"huge_pages\": \"2M\"}", &config),
        ERROR_INPUT, "mem_size_mib: 129 given, expected an even number");
    assert_error(decode(&console_schema,
                        "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\", \"output_path\": \"/b\"}]}", &console),
                 ERROR_INPUT, "ports[0]: both given, expected exactly one of socket_path and output_path");
    assert_error(decode(&console_schema, "{\"ports\": [{\"name\": \"a\"}]}", &console), ERROR_INPUT,
                 "ports[0]: neither given");
    assert_error(decode(&console_schema,
                        "{\"ports\": [{\"name\": \"a\", \"socket_path\": \"/a\"}, {\"name\": \"a\", \"socket_path\": "
                        "\"/b\"}]}",
                        &console),
                 ERROR_INPUT, "ports[1].name: \"a\" given, expected another name");
}

static void test_array_takes_no_more_than_its_maximum(void **state)
{
    char text[2048] = "{\"ports\": [";
    struct console_config console;

    (void)state;
    for (int i = 0; i <= CONSOLE_PORTS_MAX; i++)
        sprintf(text + strlen(text), "%s{\"name\": \"p%d\", \"output_path\": \"/p\"}", i == 0 ? "" : ", ", i);
    strcat(text, "]}");
    assert_error(decode(&console_schema, text, &console), ERROR_INPUT,
                 "ports: one more object given, expected an array of 1 to 16 objects");
    assert_error(decode(&console_schema, "{\"ports\": []}", &console), ERROR_INPUT, "ports: an empty array given");
}

static void test_map_keeps_its_pairs_and_refuses_what_is_no_string(void **state)
{
    struct metrics_config config;

    (void)state;
    assert_no_error(
        decode(&metrics_schema, "{\"metrics_path\": \"/m\", \"properties\": {\"a\": \"1\", \"b\": \"\"}}", &config));
    assert_int_equal(config.properties.count, 2);
    assert_string_equal(config.properties.pairs[1].name, "b");
    assert_string_equal(config.properties.pairs[1].value, "");
    schema_free(&metrics_schema, &config);
    assert_error(decode(&metrics_schema, "{\"properties\": {\"a\": \"1\", \"a\": \"2\"}}", &config), ERROR_INPUT,
                 "properties: \"a\" given twice");
    assert_error(decode(&metrics_schema, "{\"properties\": {\"a\": 1}}", &config), ERROR_INPUT,
                 "properties.a: 1 given, expected a string");
    assert_error(decode(&metrics_schema, "{\"properties\": {\"a\": {}}}", &config), ERROR_INPUT,
                 "properties.a: an object given, expected a string");
}

static void test_names_of_things_have_only_their_characters(void **state)
{
    static const struct {
        const struct schema *schema;
        const char *text;
    } wrong[] = {
        {&drive_schema, "{\"drive_id\": \"a-b\"}"},
        {&drive_schema, "{\"drive_id\": \"../a\"}"},
        {&drive_schema, "{\"partuuid\": \"0eaa init=/bin/sh\"}"},
        {&network_interface_schema, "{\"host_dev_name\": \"a/b\"}"},
        {&network_interface_schema, "{\"host_dev_name\": \"..\"}"},
        {&network_interface_schema, "{\"host_dev_name\": \"tap 0\"}"},
        {&network_interface_schema, "{\"guest_mac\": \"06:00:ac:10:00:0g\"}"},
        {&network_interface_schema, "{\"guest_mac\": \"06-00-ac-10-00-02\"}"},
        {&network_interface_schema, "{\"guest_mac\": \"0600ac1000020000f\"}"},
    };
    char object[1024];

    (void)state;
    for (size_t i = 0; i < array_length(wrong); i++)
        assert_error(decode(wrong[i].schema, wrong[i].text, object), ERROR_INPUT, " given, expected a string of ");
    assert_error(decode(&network_interface_schema, "{\"guest_mac\": \"6\"}", object), ERROR_INPUT,
                 "guest_mac: \"6\" given, expected a string of 17 bytes: as in 06:00:ac:10:00:02");
}

static void test_limits_that_do_not_limit_are_shown_as_null(void **state)
{
    struct entropy_config config;
    struct json_writer writer;
    size_t length;

    (void)state;
    assert_no_error(decode(&entropy_schema,
                           "{\"rate_limiter\": {\"bandwidth\": {\"size\": 0, \"refill_time\": 100}, \"ops\": "
                           "{\"size\": 5, \"refill_time\": 0}}}",
                           &config));
    json_writer_init(&writer);
    schema_encode(&entropy_schema, &config, &writer);
    assert_string_equal(json_text(&writer, &length), "{\"rate_limiter\":null}");
    json_writer_free(&writer);
}

static void test_level_is_taken_in_any_case(void **state)
{
    struct logger_config config;

    (void)state;
    assert_no_error(decode(&logger_schema, "{\"level\": \"wArNiNg\"}", &config));
    assert_string_equal(config.level, "wArNiNg");
    schema_free(&logger_schema, &config);
}

TEST_MAIN(cmocka_unit_test(test_every_object_is_encoded_as_it_was_decoded),
          cmocka_unit_test(test_every_field_refuses_values_of_other_types),
          cmocka_unit_test(test_every_integer_is_held_to_its_bounds),
          cmocka_unit_test(test_every_string_is_held_to_its_length),
          cmocka_unit_test(test_every_name_of_an_enumeration_is_taken_and_no_other),
          cmocka_unit_test(test_required_fields_and_no_others_must_be_there),
          cmocka_unit_test(test_drive_has_a_path_or_a_socket_and_shows_which),
          cmocka_unit_test(test_interface_has_a_tap_or_a_backend_and_shows_which),
          cmocka_unit_test(test_every_field_may_be_given_only_once),
          cmocka_unit_test(test_every_object_refuses_unknown_fields),
          cmocka_unit_test(test_no_object_is_taken_when_its_text_ends_early),
          cmocka_unit_test(test_error_names_the_path_to_a_nested_field),
          cmocka_unit_test(test_long_values_are_quoted_in_part),
          cmocka_unit_test(test_long_names_are_quoted_up_to_a_whole_character),
          cmocka_unit_test(test_fields_not_given_get_their_defaults),
          cmocka_unit_test(test_every_value_arrives_where_it_belongs),
          cmocka_unit_test(test_partial_object_changes_only_what_it_gives),
          cmocka_unit_test(test_fields_are_checked_against_each_other),
          cmocka_unit_test(test_array_takes_no_more_than_its_maximum),
          cmocka_unit_test(test_map_keeps_its_pairs_and_refuses_what_is_no_string),
          cmocka_unit_test(test_names_of_things_have_only_their_characters),
          cmocka_unit_test(test_limits_that_do_not_limit_are_shown_as_null),
          cmocka_unit_test(test_level_is_taken_in_any_case))
