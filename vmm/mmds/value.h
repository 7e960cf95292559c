/*
 * The metadata as a tree: what JSON can say, and nothing of JSON's grammar. api/mmds_json.c makes one from text. Not
 * NUL-terminated anywhere: JSON strings may have any character.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vmm/base/error.h"

enum mmds_type { MMDS_NULL, MMDS_FALSE, MMDS_TRUE, MMDS_NUMBER, MMDS_STRING, MMDS_ARRAY, MMDS_OBJECT };

enum { MMDS_DEPTH_MAX = 100 }; /* of objects and arrays in each other; whoever makes a tree keeps to it */

struct mmds_text {
    char *bytes;
    size_t length;
};

struct mmds_value {
    enum mmds_type type;
    struct mmds_text name;       /* in an object */
    struct mmds_text text;       /* of a string; of a number as it was written */
    struct mmds_value **members; /* of an object, in the order of their names; of an array */
    size_t count;
    size_t room;
};

/* A value without members; `text` (copied) is that of a number or a string. NULL without memory. */
struct mmds_value *mmds_value_new(enum mmds_type type, const char *text, size_t length);
void mmds_value_free(struct mmds_value *value); /* NULL is fine */
struct mmds_value *mmds_value_clone(const struct mmds_value *value);

/* Takes `member`, also on failure (no memory), and replaces one of the same name. */
bool mmds_object_set(struct mmds_value *object, const char *name, size_t length, struct mmds_value *member);
bool mmds_array_add(struct mmds_value *array, struct mmds_value *item);
/* Borrowed; NULL when there is none. */
struct mmds_value *mmds_object_get(const struct mmds_value *object, const char *name, size_t length);

/* RFC 7396: applies `patch`, an object, to `object`. False without memory: `object` is then changed in part. */
bool mmds_value_merge(struct mmds_value *object, const struct mmds_value *patch);

/* Writes the value as JSON without white space to `to`, unless that is NULL; returns the length, without a NUL. */
size_t mmds_value_json(const struct mmds_value *value, char *to);
