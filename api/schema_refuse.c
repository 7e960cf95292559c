/* The decoder's refusals: where in the JSON, what was given, what was expected. */
#include "api/schema_decoder.h"
#include "api/schema_text.h"

#include <stdio.h>
#include <string.h>

enum { QUOTE_MAX = 64 };

const char *decoder_path(const struct decoder *decoder, char text[PATH_TEXT_MAX])
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < decoder->depth; i++) {
        const struct frame *frame = &decoder->frames[i];
        const char *name = frame->kind == FRAME_MAP ? frame->name : frame->field != NULL ? frame->field->name : NULL;
        int wanted = 0;

        if (frame->kind == FRAME_ARRAY && frame->field->object != NULL) {
            size_t count;

            /* An item that has been opened is counted already. */
            memcpy(&count, frame->object + frame->field->count, sizeof(count));
            wanted = snprintf(text + used, PATH_TEXT_MAX - used, "[%zu]", i + 1 < decoder->depth ? count - 1 : count);
        } else if (frame->kind != FRAME_ARRAY && name != NULL) {
            wanted = snprintf(text + used, PATH_TEXT_MAX - used, "%s%s", used == 0 ? "" : ".", name);
        }
        used += (size_t)wanted;
        if (used >= PATH_TEXT_MAX)
            return text;
    }
    return text;
}

/* How much of a text is quoted: whole characters, not too many. */
static size_t quote_length(const char *text, size_t length)
{
    if (length <= QUOTE_MAX)
        return length;
    length = QUOTE_MAX;
    while (length > 0 && (text[length] & 0xc0) == 0x80)
        length--;
    return length;
}

int decoder_refuse(struct decoder *decoder, struct value value)
{
    char path[PATH_TEXT_MAX], text[FIELD_EXPECTED_MAX];
    const struct frame *frame = decoder->depth > 0 ? decoder_top(decoder) : NULL;
    const char *expected = "a JSON object";
    const char *quote = value.is_string ? "\"" : "";
    bool cut = value.length > QUOTE_MAX;

    if (frame != NULL)
        expected = frame->kind == FRAME_OBJECT    ? field_expected(frame->field, text)
                   : frame->kind == FRAME_MAP     ? "a string"
                   : frame->field->object == NULL ? field_expected(frame->field, text)
                                                  : "an object";
    value.length = quote_length(value.text, value.length);
    decoder_path(decoder, path);
    decoder->error = error_new(ERROR_INPUT, "%s%s%s%.*s%s%s given, expected %s", path, path[0] == '\0' ? "" : ": ",
                               quote, (int)value.length, value.text, cut ? "..." : "", quote, expected);
    return 0;
}

int decoder_refuse_named(struct decoder *decoder, const char *what)
{
    return decoder_refuse(decoder, (struct value){.text = what, .length = strlen(what)});
}

int decoder_refuse_unknown(struct decoder *decoder, const char *key, size_t length)
{
    struct frame *frame = decoder_top(decoder);
    char path[PATH_TEXT_MAX], known[FIELD_EXPECTED_MAX] = "";
    size_t used = 0;

    frame->field = NULL;
    decoder_path(decoder, path);
    for (size_t i = 0; i < frame->schema->field_count; i++)
        used = text_append(known, used, sizeof(known), "%s%s", i == 0 ? "" : ", ", frame->schema->fields[i].name);
    decoder->error =
        error_new(ERROR_INPUT, "%s%sunknown field \"%.*s\", expected %s%s", path, path[0] == '\0' ? "" : ": ",
                  (int)quote_length(key, length), key, used > 0 ? "one of: " : "none", known);
    return 0;
}

int decoder_refuse_missing(struct decoder *decoder, const struct field *field)
{
    char path[PATH_TEXT_MAX], text[FIELD_EXPECTED_MAX];

    decoder_top(decoder)->field = field;
    decoder->error =
        error_new(ERROR_INPUT, "%s: missing, expected %s", decoder_path(decoder, path), field_expected(field, text));
    return 0;
}

int decoder_refuse_twice(struct decoder *decoder)
{
    char path[PATH_TEXT_MAX];

    decoder->error = error_new(ERROR_INPUT, "%s: given twice", decoder_path(decoder, path));
    return 0;
}
