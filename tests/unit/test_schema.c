/* What holds for every field of every object. */
#include "tests/unit/schema_fixture.h"

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

TEST_MAIN(cmocka_unit_test(test_every_object_is_encoded_as_it_was_decoded),
          cmocka_unit_test(test_every_field_refuses_values_of_other_types),
          cmocka_unit_test(test_every_integer_is_held_to_its_bounds),
          cmocka_unit_test(test_every_string_is_held_to_its_length),
          cmocka_unit_test(test_every_name_of_an_enumeration_is_taken_and_no_other),
          cmocka_unit_test(test_required_fields_and_no_others_must_be_there),
          cmocka_unit_test(test_every_field_may_be_given_only_once),
          cmocka_unit_test(test_every_object_refuses_unknown_fields),
          cmocka_unit_test(test_no_object_is_taken_when_its_text_ends_early))
