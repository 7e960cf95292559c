/*
 * Writing JSON: a yajl generator behind calls that cannot fail halfway; running out of memory is told once, at the end.
 * And reading it, with yajl's own callbacks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yajl/yajl_parse.h>

#include "api/bytes.h"
#include "vmm/base/error.h"

struct json_writer {
    struct yajl_gen_t *generator;
    struct bytes text;
    bool failed;
};

/* Keeps a pointer to `writer`, which must stay in place; always to be closed with json_writer_free. */
void json_writer_init(struct json_writer *writer);
void json_writer_free(struct json_writer *writer);

void json_open_object(struct json_writer *writer);
void json_close_object(struct json_writer *writer);
void json_open_array(struct json_writer *writer);
void json_close_array(struct json_writer *writer);
void json_null(struct json_writer *writer);
void json_bool(struct json_writer *writer, bool value);
void json_integer(struct json_writer *writer, uint64_t value);
void json_raw(struct json_writer *writer, const char *text, size_t length); /* a JSON value; NULL: no memory */
void json_string(struct json_writer *writer, const char *value);            /* also for keys; bad UTF-8 becomes '?' */

/* The text so far; borrowed until the next call on the writer. NULL after a failure. */
const char *json_text(struct json_writer *writer, size_t *length);

/* Whether text[0..length) is well-formed UTF-8: no surrogates, nothing overlong, nothing above U+10FFFF. */
bool json_is_utf8(const char *text, size_t length);

/* Calls `callbacks` with `context`. NULL, too, when one of them wanted no more: it knows why. */
struct error *json_parse(const yajl_callbacks *callbacks, void *context, const char *text, size_t length);
