/*
 * Builds the JSON body of a request:
 *
 *     struct body *body = body_new();
 *     body_string(body, "kernel_image_path", path);
 *     body_string(body, "boot_args", NULL);          // NULL: left out
 *     api_client_put(client, "/boot-source", body);  // frees it
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct body;

/* An open object. */
struct body *body_new(void);
void body_free(struct body *body);

/* Members of the object (or, with a NULL name, elements of the array) that is open. */
void body_string(struct body *body, const char *name, const char *value);
void body_integer(struct body *body, const char *name, uint64_t value);
void body_boolean(struct body *body, const char *name, bool value);
void body_open_object(struct body *body, const char *name);
void body_close_object(struct body *body);
void body_open_array(struct body *body, const char *name);
void body_close_array(struct body *body);

/* Closes the outer object and returns the text: owned by `body`, NUL-terminated. NULL when a string was not UTF-8. */
const char *body_text(struct body *body, size_t *length);
