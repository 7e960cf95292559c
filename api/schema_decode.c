/* JSON into structs: a yajl parser whose callbacks walk the tables of the schema, so that nothing is built twice. */
#include "api/json.h"
#include "api/schema_decoder.h"

#include "vmm/base/cleanup.h"
#include "vmm/config.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int out_of_memory(struct decoder *decoder)
{
    decoder->error = error_new(ERROR_INTERNAL, "out of memory");
    return 0;
}

/* The field that the next value is for; NULL when a plain value cannot be right here. */
static const struct field *field_next(struct decoder *decoder)
{
    return decoder->depth > 0 && decoder_top(decoder)->kind == FRAME_OBJECT ? decoder_top(decoder)->field : NULL;
}

static void mark_given(struct decoder *decoder)
{
    struct frame *frame = decoder_top(decoder);

    frame->given |= (schema_given)1 << (frame->field - frame->schema->fields);
    if (frame->field->presence != 0)
        frame->object[frame->field->presence - 1] = true;
}

static int take_null(void *context)
{
    struct decoder *decoder = context;
    const struct field *field = field_next(decoder);

    bool means_not_given = field != NULL && (field->type == FIELD_UNSUPPORTED || (field->flags & FIELD_NULLABLE) ||
                                             (decoder->partial && decoder->depth == 1));

    if (means_not_given)
        return 1;
    return decoder_refuse_named(decoder, "null");
}

static int take_bool(void *context, int value)
{
    struct decoder *decoder = context;
    const struct field *field = field_next(decoder);

    if (field == NULL || field->type != FIELD_BOOL)
        return decoder_refuse_named(decoder, value ? "true" : "false");
    *(bool *)(decoder_top(decoder)->object + field->offset) = value != 0;
    mark_given(decoder);
    return 1;
}

/* Digits only: a sign, a fraction or an exponent makes it no integer of ours, even where its value would be one. */
static bool parse_integer(const char *text, size_t length, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(text[i] - '0'), value))
            return false;
    }
    return length > 0;
}

static int take_number(void *context, const char *text, size_t length)
{
    struct decoder *decoder = context;
    const struct field *field = field_next(decoder);
    uint64_t value;

    if (field == NULL || field->type != FIELD_INTEGER || !parse_integer(text, length, &value) ||
        value < field->minimum || value > field->maximum)
        return decoder_refuse(decoder, (struct value){.text = text, .length = length});
    /* Little-endian: the low bytes are the value whatever its size. */
    memcpy(decoder_top(decoder)->object + field->offset, &value, field->size);
    mark_given(decoder);
    return 1;
}

/* The index of text[0..length) in `names`, or -1. */
static int name_index(const struct field *field, const char *text, size_t length)
{
    for (int i = 0; field->names[i] != NULL; i++) {
        const char *name = field->names[i];

        if (strlen(name) == length &&
            (field->flags & FIELD_IGNORE_CASE ? strncasecmp(name, text, length) : strncmp(name, text, length)) == 0)
            return i;
    }
    return -1;
}

static int take_name(struct decoder *decoder, struct value value)
{
    const struct field *field = decoder_top(decoder)->field;
    int index = name_index(field, value.text, value.length);

    if (index < 0)
        return decoder_refuse(decoder, value);
    memcpy(decoder_top(decoder)->object + field->offset, &index, sizeof(index));
    mark_given(decoder);
    return 1;
}

static int take_text(struct decoder *decoder, struct value value)
{
    struct frame *frame = decoder_top(decoder);
    const struct field *field = frame->field;
    bool fits = field->type == FIELD_WORD ? name_index(field, value.text, value.length) >= 0
                                          : value.length >= field->minimum && value.length <= field->maximum;

    if (!fits)
        return decoder_refuse(decoder, value);

    char *copy = strndup(value.text, value.length);
    char *old;
    if (copy == NULL)
        return out_of_memory(decoder);
    if (field->type == FIELD_STRING && field->format != NULL && !field->format->fits(copy)) {
        free(copy);
        return decoder_refuse(decoder, value);
    }
    memcpy(&old, frame->object + field->offset, sizeof(old));
    free(old);
    memcpy(frame->object + field->offset, &copy, sizeof(copy));
    mark_given(decoder);
    return 1;
}

static int take_pair(struct decoder *decoder, struct value value)
{
    struct frame *frame = decoder_top(decoder);
    struct string_map *map = (struct string_map *)(void *)(frame->object + frame->field->offset);

    if (map->count == frame->field->maximum)
        return decoder_refuse_named(decoder, "one more string");

    struct string_pair *pairs = realloc(map->pairs, (map->count + 1) * sizeof(*pairs));
    if (pairs == NULL)
        return out_of_memory(decoder);
    map->pairs = pairs;
    pairs[map->count].value = strndup(value.text, value.length);
    if (pairs[map->count].value == NULL)
        return out_of_memory(decoder);
    pairs[map->count++].name = take_pointer(&frame->name);
    return 1;
}

static int take_item(struct decoder *decoder, struct value value)
{
    struct frame *frame = decoder_top(decoder);
    struct string_list *list = (struct string_list *)(void *)(frame->object + frame->field->offset);

    if (list->count == frame->field->maximum || value.length < 1 || value.length > ID_LENGTH_MAX)
        return decoder_refuse(decoder, value);

    char **items = realloc(list->items, (list->count + 1) * sizeof(*items));
    if (items == NULL)
        return out_of_memory(decoder);
    list->items = items;
    items[list->count] = strndup(value.text, value.length);
    if (items[list->count] == NULL)
        return out_of_memory(decoder);
    list->count++;
    return 1;
}

static int take_string(void *context, const unsigned char *bytes, size_t length)
{
    struct decoder *decoder = context;
    struct value value = {.text = (const char *)bytes, .length = length, .is_string = true};
    const struct field *field = field_next(decoder);

    if (memchr(bytes, '\0', length) != NULL)
        return decoder_refuse_named(decoder, "a string with a NUL character");
    if (!json_is_utf8(value.text, length))
        return decoder_refuse_named(decoder, "a string that is not UTF-8");
    if (decoder->depth > 0 && decoder_top(decoder)->kind == FRAME_MAP)
        return take_pair(decoder, value);
    if (decoder->depth > 0 && decoder_top(decoder)->kind == FRAME_ARRAY &&
        decoder_top(decoder)->field->type == FIELD_STRING_LIST)
        return take_item(decoder, value);
    if (field != NULL && field->type == FIELD_ENUM)
        return take_name(decoder, value);
    if (field != NULL && (field->type == FIELD_STRING || field->type == FIELD_WORD))
        return take_text(decoder, value);
    return decoder_refuse(decoder, value);
}

static int push(struct decoder *decoder, struct frame frame)
{
    if (decoder->depth == SCHEMA_DEPTH_MAX) {
        decoder->error = error_new(ERROR_INTERNAL, "the schema is deeper than %d", SCHEMA_DEPTH_MAX);
        return 0;
    }
    decoder->frames[decoder->depth++] = frame;
    return 1;
}

static int open_nested(struct decoder *decoder)
{
    struct frame *frame = decoder_top(decoder);
    const struct field *field = frame->field;
    char *object = frame->object + field->offset;

    schema_free(field->object, object);
    schema_defaults(field->object, object);
    mark_given(decoder);
    return push(decoder, (struct frame){.kind = FRAME_OBJECT, .schema = field->object, .object = object});
}

/* Makes room for one more item, with the defaults; the owner's count includes it at once, so that it is freed. */
static int open_item(struct decoder *decoder)
{
    struct frame *frame = decoder_top(decoder);
    const struct field *field = frame->field;
    size_t size = field->object->size;
    size_t count;
    char *items = frame->object + field->offset;

    memcpy(&count, frame->object + field->count, sizeof(count));
    if (count == field->maximum) {
        decoder->depth--; /* the array itself is what is wrong */
        return decoder_refuse_named(decoder, "one more object");
    }
    if (field->type == FIELD_HEAP_ARRAY) {
        char *old;

        memcpy(&old, items, sizeof(old));
        old = realloc(old, (count + 1) * size);
        if (old == NULL)
            return out_of_memory(decoder);
        memcpy(items, &old, sizeof(old));
        items = old;
    }
    schema_defaults(field->object, items + count * size);
    count++;
    memcpy(frame->object + field->count, &count, sizeof(count));
    return push(decoder,
                (struct frame){.kind = FRAME_OBJECT, .schema = field->object, .object = items + (count - 1) * size});
}

static int open_object(void *context)
{
    struct decoder *decoder = context;
    const struct field *field = field_next(decoder);

    if (decoder->depth == 0)
        return push(decoder,
                    (struct frame){.kind = FRAME_OBJECT, .schema = decoder->schema, .object = decoder->object});
    if (decoder_top(decoder)->kind == FRAME_ARRAY && decoder_top(decoder)->field->object != NULL)
        return open_item(decoder);
    if (field != NULL && field->type == FIELD_OBJECT)
        return open_nested(decoder);
    if (field != NULL && field->type == FIELD_STRING_MAP) {
        string_map_free((struct string_map *)(void *)(decoder_top(decoder)->object + field->offset));
        mark_given(decoder);
        return push(decoder, (struct frame){.kind = FRAME_MAP, .object = decoder_top(decoder)->object, .field = field});
    }
    return decoder_refuse_named(decoder, "an object");
}

static int open_array(void *context)
{
    struct decoder *decoder = context;
    const struct field *field = field_next(decoder);

    if (field != NULL &&
        (field->type == FIELD_ARRAY || field->type == FIELD_HEAP_ARRAY || field->type == FIELD_STRING_LIST ||
         (field->type == FIELD_UNSUPPORTED && (field->flags & FIELD_LIST)))) {
        mark_given(decoder);
        return push(decoder,
                    (struct frame){.kind = FRAME_ARRAY, .object = decoder_top(decoder)->object, .field = field});
    }
    return decoder_refuse_named(decoder, "an array");
}

static int close_array(void *context)
{
    struct decoder *decoder = context;
    const struct field *field = decoder_top(decoder)->field;
    size_t count = 0;

    if (field->type != FIELD_UNSUPPORTED)
        memcpy(&count, decoder_top(decoder)->object + field->count, sizeof(count));
    decoder->depth--;
    if (count < field->minimum)
        return decoder_refuse_named(decoder, count == 0 ? "an empty array" : "too short an array");
    return 1;
}

static int take_map_key(struct decoder *decoder, const char *key, size_t length)
{
    struct frame *frame = decoder_top(decoder);
    const struct string_map *map = (const void *)(frame->object + frame->field->offset);

    for (size_t i = 0; i < map->count; i++) {
        if (strlen(map->pairs[i].name) == length && memcmp(map->pairs[i].name, key, length) == 0) {
            decoder->error = error_new(ERROR_INPUT, "%s: \"%.*s\" given twice", frame->field->name, (int)length, key);
            return 0;
        }
    }
    frame->name = strndup(key, length);
    return frame->name != NULL ? 1 : out_of_memory(decoder);
}

static int take_key(void *context, const unsigned char *bytes, size_t length)
{
    struct decoder *decoder = context;
    struct frame *frame = decoder_top(decoder);
    const char *key = (const char *)bytes;

    if (memchr(bytes, '\0', length) != NULL || !json_is_utf8(key, length)) {
        decoder->error = error_new(ERROR_INPUT, "the name of a field has a NUL character or is not UTF-8");
        return 0;
    }
    if (frame->kind == FRAME_MAP)
        return take_map_key(decoder, key, length);
    for (size_t i = 0; i < frame->schema->field_count; i++) {
        const struct field *field = &frame->schema->fields[i];

        if (strlen(field->name) != length || memcmp(field->name, key, length) != 0)
            continue;
        frame->field = field;
        if (frame->seen >> i & 1)
            return decoder_refuse_twice(decoder);
        frame->seen |= (schema_given)1 << i;
        return 1;
    }
    return decoder_refuse_unknown(decoder, key, length);
}

static int check_object(struct decoder *decoder)
{
    struct frame *frame = decoder_top(decoder);
    char path[PATH_TEXT_MAX];

    frame->field = NULL;
    if (frame->schema->check == NULL)
        return 1;
    decoder->error = frame->schema->check(frame->object);
    if (decoder->error == NULL)
        return 1;
    if (decoder_path(decoder, path)[0] != '\0')
        decoder->error = error_wrap(decoder->error, "%s", path);
    return 0;
}

static int close_object(void *context)
{
    struct decoder *decoder = context;
    struct frame *frame = decoder_top(decoder);
    bool outermost = decoder->depth == 1;

    if (frame->kind == FRAME_OBJECT) {
        for (size_t i = 0; i < frame->schema->field_count && !(outermost && decoder->partial); i++)
            if ((frame->schema->fields[i].flags & FIELD_REQUIRED) && !(frame->given >> i & 1))
                return decoder_refuse_missing(decoder, &frame->schema->fields[i]);
        if (outermost && decoder->partial && frame->given == 0) {
            decoder->error = error_new(ERROR_INPUT, "no field given, expected one at least");
            return 0;
        }
        if (!check_object(decoder))
            return 0;
        if (outermost)
            decoder->given = frame->given;
    }
    decoder->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = take_null,
    .yajl_boolean = take_bool,
    .yajl_number = take_number,
    .yajl_string = take_string,
    .yajl_start_map = open_object,
    .yajl_map_key = take_key,
    .yajl_end_map = close_object,
    .yajl_start_array = open_array,
    .yajl_end_array = close_array,
};

static struct error *parse(struct decoder *decoder, const char *text, size_t length)
{
    struct error *error = json_parse(&callbacks, decoder, text, length);

    for (size_t i = 0; i < decoder->depth; i++)
        free(decoder->frames[i].name);
    if (decoder->error == NULL)
        return error;
    error_free(error);
    return decoder->error;
}

struct error *schema_decode(const struct schema *schema, const char *text, size_t length, bool partial, void *object,
                            schema_given *given)
{
    struct decoder decoder = {.schema = schema, .object = object, .partial = partial};

    if (!partial)
        schema_defaults(schema, object);

    struct error *error =
        length > 0 ? parse(&decoder, text, length) : error_new(ERROR_INPUT, "empty, expected a JSON object");
    if (error != NULL && !partial)
        schema_free(schema, object);
    if (error == NULL && given != NULL)
        *given = decoder.given;
    return error;
}
