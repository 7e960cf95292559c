/* Inside the decoder: what it has opened, and its refusals. */
#pragma once

#include "api/schema.h"

enum { PATH_TEXT_MAX = 256 };

enum frame_kind { FRAME_OBJECT, FRAME_ARRAY, FRAME_MAP };

/* Something that has been opened and not yet closed. */
struct frame {
    enum frame_kind kind;
    const struct schema *schema; /* objects: what is being filled */
    char *object;                /* objects: the struct; arrays and maps: the struct that has them */
    const struct field *field;   /* objects: the field whose value comes next; arrays and maps: their own */
    schema_given seen;           /* objects: fields met, to tell the second time */
    schema_given given;          /* objects: fields met that were not null */
    char *name;                  /* maps: the name whose value comes next, owned */
};

struct decoder {
    const struct schema *schema;
    void *object;
    bool partial;
    schema_given given;
    struct frame frames[SCHEMA_DEPTH_MAX];
    size_t depth;
    struct error *error;
};

/* What the last value was, for messages. */
struct value {
    const char *text; /* in words ("null", "an object") or, with a length, as given */
    size_t length;
    bool is_string;
};

static inline struct frame *decoder_top(struct decoder *decoder)
{
    return &decoder->frames[decoder->depth - 1];
}

/* "rate_limiter.ops.size", "ports[1].name"; "" for the outermost object. Returns `text`. */
const char *decoder_path(const struct decoder *decoder, char text[PATH_TEXT_MAX]);

/*
 * Each sets decoder->error, with the path to where the decoder stands, and returns 0, which is how a callback tells
 * yajl to stop.
 */
int decoder_refuse(struct decoder *decoder, struct value value);
/* The value in words: "an array". */
int decoder_refuse_named(struct decoder *decoder, const char *what);
int decoder_refuse_unknown(struct decoder *decoder, const char *key, size_t length);
int decoder_refuse_missing(struct decoder *decoder, const struct field *field);
/* The field that the decoder stands at. */
int decoder_refuse_twice(struct decoder *decoder);
