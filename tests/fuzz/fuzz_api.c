/*
 * Requests as the schema tables shape them, and not quite: the input chooses a route, a state, and for each field of
 * its body whether it is there, and whether its value is right, at a bound, beyond it, of another type, or raw bytes.
 */
#include "tests/fuzz/fuzz.h"

#include "tests/unit/fake_machine.h"

#include "api/routes.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { BODY_SIZE = 16 * 1024, ELEMENTS_MAX = 3 };

struct body {
    char text[BODY_SIZE];
    size_t length;
};

static void put(struct body *body, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct body *body, const char *format, ...)
{
    size_t room = sizeof(body->text) - body->length;
    va_list args;

    va_start(args, format);
    int wanted = vsnprintf(body->text + body->length, room, format, args);
    va_end(args);
    body->length += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

static void put_raw(struct body *body, struct fuzz_input *input)
{
    char bytes[64];
    size_t length = fuzz_bytes(input, bytes, fuzz_u8(input) % sizeof(bytes));

    if (body->length + length < sizeof(body->text)) {
        memcpy(body->text + body->length, bytes, length);
        body->length += length;
    }
}

static void put_object(struct body *body, struct fuzz_input *input, const struct schema *schema);

static void put_integer(struct body *body, struct fuzz_input *input, const struct field *field)
{
    switch (fuzz_u8(input) % 6) {
    case 0:
        put(body, "%u", field->minimum);
        break;
    case 1:
        put(body, "%" PRIu64, field->maximum);
        break;
    case 2:
        put(body, "%" PRIu64, field->maximum + 1);
        break;
    case 3:
        put(body, "-%u", field->minimum);
        break;
    case 4:
        put(body, "%" PRIu64, fuzz_u64(input));
        break;
    default:
        put(body, "%u", fuzz_u8(input));
        break;
    }
}

static void put_name(struct body *body, struct fuzz_input *input, const char *const *names)
{
    size_t count = 0;

    while (names[count] != NULL)
        count++;
    put(body, "\"%s\"", names[fuzz_u8(input) % count]);
}

static void put_string(struct body *body, struct fuzz_input *input)
{
    uint8_t length = fuzz_u8(input);

    put(body, "\"");
    for (unsigned i = 0; i < length && input->left > 0; i++) {
        uint8_t byte = fuzz_u8(input);

        put(body, byte < 0x20 || byte == '"' || byte == '\\' ? "\\u%04x" : "%c", byte);
    }
    put(body, "\"");
}

static void put_array(struct body *body, struct fuzz_input *input, const struct field *field)
{
    unsigned count = fuzz_u8(input) % (ELEMENTS_MAX + 1);

    put(body, "[");
    for (unsigned i = 0; i < count; i++) {
        put(body, i == 0 ? "" : ",");
        put_object(body, input, field->object);
    }
    put(body, "]");
}

static void put_right_value(struct body *body, struct fuzz_input *input, const struct field *field)
{
    switch (field->type) {
    case FIELD_BOOL:
        put(body, fuzz_u8(input) & 1 ? "true" : "false");
        break;
    case FIELD_INTEGER:
        put_integer(body, input, field);
        break;
    case FIELD_WORD:
    case FIELD_ENUM:
        put_name(body, input, field->names);
        break;
    case FIELD_STRING:
        put_string(body, input);
        break;
    case FIELD_OBJECT:
        put_object(body, input, field->object);
        break;
    case FIELD_ARRAY:
    case FIELD_HEAP_ARRAY:
        if (field->object != NULL)
            put_array(body, input, field);
        else
            put(body, "[]");
        break;
    case FIELD_STRING_LIST:
        put(body, "[");
        put_string(body, input);
        put(body, "]");
        break;
    case FIELD_STRING_MAP:
        put(body, "{\"a\":\"b\"}");
        break;
    default:
        put(body, "null");
        break;
    }
}

static void put_value(struct body *body, struct fuzz_input *input, const struct field *field)
{
    static const char *const others[] = {"null", "true", "0",  "\"\"", "[]",
                                         "{}",   "1.5",  "-1", "1e99", "[[[[[[[[[[]]]]]]]]]]"};
    uint8_t how = fuzz_u8(input);

    if (how < 0xd0)
        put_right_value(body, input, field);
    else if (how < 0xf0)
        put(body, "%s", others[how % array_length(others)]);
    else
        put_raw(body, input);
}

static void put_object(struct body *body, struct fuzz_input *input, const struct schema *schema)
{
    bool first = true;

    put(body, "{");
    for (size_t i = 0; i < schema->field_count; i++) {
        uint8_t how = fuzz_u8(input);

        /* Left out, once, or twice. */
        for (unsigned times = how < 0x50 ? 0 : how < 0xf8 ? 1 : 2; times > 0; times--) {
            put(body, "%s\"%s\":", first ? "" : ",", schema->fields[i].name);
            put_value(body, input, &schema->fields[i]);
            first = false;
        }
    }
    if (fuzz_u8(input) > 0xf0)
        put_raw(body, input);
    put(body, "}");
}

static void exchange(const struct route *route, struct fuzz_input *input)
{
    static const char *const method_names[] = {[API_GET] = "GET", [API_PUT] = "PUT", [API_PATCH] = "PATCH"};
    static struct body body;
    struct api_context context = {.machine = &fake_machine, .app_name = "Mayfly"};
    struct api_request request = {
        .method = route->method, .method_name = method_names[route->method], .path = route->path};
    struct api_reply reply;

    body.length = 0;
    if (route->body != NULL)
        put_object(&body, input, route->body);
    request.body = body.text;
    request.body_length = body.length;
    api_handle(&context, &request, &reply);
    fuzz_require(reply.status >= 200 && reply.status < 500);
    api_reply_free(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};

    log_set_level(LOG_LEVEL_OFF);
    fake_machine_reset();
    while (input.left > 0) {
        fake_machine.state = fuzz_u8(&input) % (MACHINE_PAUSED + 1);
        exchange(&routes[fuzz_u8(&input) % route_count], &input);
    }
    fake_machine_reset();
    return 0;
}
