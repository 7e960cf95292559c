/*
 * The schema: one table of fields for each API object. A table says how JSON maps onto a struct of vmm/config.h, and
 * everything about the object follows from it: decoding with its error messages, defaults, encoding, freeing, the
 * OpenAPI document. A new field is one line in schema_objects.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/json.h"
#include "vmm/base/error.h"

/*
 * What only the OpenAPI document says stands last in a row of a table, so that it can be left out of the program that
 * only serves the API: each pointer in a table is a relocation, and each page with one is the process's own.
 */
#ifdef MAYFLY_WITHOUT_OPENAPI
#define DESCRIPTION(text)
#define SUMMARY(text)
#else
#define DESCRIPTION(text) .description = text
#define SUMMARY(text) .summary = text
#endif

enum field_type {
    FIELD_BOOL,        /* bool */
    FIELD_INTEGER,     /* uint32_t or uint64_t, as `size` says */
    FIELD_ENUM,        /* an enum whose values index `names` */
    FIELD_STRING,      /* char *, owned; as `format` says, if there is one */
    FIELD_WORD,        /* char *, owned: one of `names` */
    FIELD_STRING_MAP,  /* struct string_map */
    FIELD_STRING_LIST, /* struct string_list: `minimum` to `maximum` ids; a size_t at `count` */
    FIELD_OBJECT,      /* a struct described by `object` */
    FIELD_ARRAY,       /* structs described by `object`, in place: room for `maximum`, a size_t at `count` */
    FIELD_HEAP_ARRAY,  /* a pointer to such structs, owned; at most `maximum`, a size_t at `count` */
    FIELD_UNSUPPORTED, /* of a device that is not there: null (or [] with FIELD_LIST) is taken, anything else refused */
};

enum field_flags {
    FIELD_REQUIRED = 1 << 0,
    FIELD_NULLABLE = 1 << 1,    /* null means: not given */
    FIELD_ZERO_NULL = 1 << 2,   /* 0 is how the struct says: not given; encoded as null */
    FIELD_SHOW_NULL = 1 << 3,   /* encoded as null whatever it holds */
    FIELD_HIDDEN = 1 << 4,      /* not encoded */
    FIELD_SHOW_ALWAYS = 1 << 5, /* a nested object that is encoded even when it was never given */
    FIELD_DEPRECATED = 1 << 6,  /* a request that gives it is answered with "Deprecation: true" */
    FIELD_IGNORE_CASE = 1 << 7, /* of `names` */
    FIELD_LIST = 1 << 8,        /* FIELD_UNSUPPORTED only: it is an array */
    FIELD_IDENTIFIES = 1 << 9,  /* must equal the id in the request's path */
    FIELD_OMIT = 1 << 10, /* not encoded when not given: a string, an enum, an object, an integer with a presence */
};

enum { SCHEMA_DEPTH_MAX = 8 };

/* What the text of a string must look like. */
struct field_format {
    bool (*fits)(char *text); /* may put the text into its canonical form, never longer */
    const char *expected;     /* in words: "letters, digits, _, - and ." */
    const char *pattern;      /* as a regular expression, for the OpenAPI document */
};

struct schema;

/* Small, as there are hundreds: five pointers' room (and one for the document). */
struct field {
    const char *name;
    enum field_type type : 8;
    unsigned flags : 16;
    uint16_t offset;   /* of the value in the struct */
    uint16_t size;     /* of the value */
    uint16_t presence; /* offset + 1 of a bool that says whether it was given; 0: there is none */
    uint16_t count;    /* arrays: offset of their length */
    uint16_t initial;  /* what a bool, an integer or an enum is when not given */
    uint16_t minimum;  /* integers: the bounds; strings: of the length in bytes; arrays and maps: of their number */
    uint64_t maximum;
    union {
        const char *const *names;          /* FIELD_ENUM, FIELD_WORD; ends with NULL */
        const struct field_format *format; /* FIELD_STRING: NULL: any text */
        const struct schema *object;       /* FIELD_OBJECT and arrays */
    };
#ifndef MAYFLY_WITHOUT_OPENAPI
    const char *description;
#endif
};

struct schema {
    const char *name; /* in the OpenAPI document */
    const struct field *fields;
    uint16_t field_count;
    bool open;     /* any fields may be given: this is for the OpenAPI document, and nothing is decoded */
    uint32_t size; /* of the struct */
#ifndef MAYFLY_WITHOUT_OPENAPI
    const char *description;
#endif
    /* Checks fields against each other when all are decoded; the message names the field. NULL: nothing to check. */
    struct error *(*check)(const void *object);
    /* Whether the object says nothing and is encoded as null. NULL: it never does. */
    bool (*is_empty)(const void *object);
    /* What in the object is deprecated besides fields with FIELD_DEPRECATED, or NULL. NULL: nothing is. */
    const char *(*deprecated)(const void *object);
};

/* The fields that a request gave: bit i is set for fields[i] of the outermost object. */
typedef uint64_t schema_given;

/* What describes the object, or each of the objects, that the field holds; NULL when it holds none. */
const struct schema *field_object(const struct field *field);

/*
 * Decodes the JSON object text[0..length) into `object`. Without `partial`, `object` starts out with the defaults and
 * required fields must be there; with it, `object` holds values already, only the fields given change (null is
 * not given), and at least one must be given.
 *
 * Errors are ERROR_INPUT and name the field by its path ("rate_limiter.ops.size", "ports[1].name"), the value and
 * what was expected. After an error `object` owns nothing and is zeroed, but with `partial` it is as far as decoding
 * came: decode into a copy. `given` may be NULL.
 */
struct error *schema_decode(const struct schema *schema, const char *text, size_t length, bool partial, void *object,
                            schema_given *given);

/* Zeroes `object` and sets the defaults. */
void schema_defaults(const struct schema *schema, void *object);

/* Writes `object` as a JSON object with the fields that a GET shows. */
void schema_encode(const struct schema *schema, const void *object, struct json_writer *writer);

/* Frees what the object owns and zeroes it. */
void schema_free(const struct schema *schema, void *object);

/* The value of the string field with FIELD_IDENTIFIES, or NULL when the schema has none. */
const char *schema_identity(const struct schema *schema, const void *object);

/* What is deprecated of `object`, of which the fields in `given` were given; NULL when nothing is. */
const char *schema_deprecated(const struct schema *schema, const void *object, schema_given given);
