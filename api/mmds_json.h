/* The metadata as JSON text. */
#pragma once

#include <stddef.h>

#include "api/json.h"
#include "vmm/base/error.h"
#include "vmm/control.h"
#include "vmm/mmds/value.h"

/* Makes the tree of a JSON object, at most MMDS_DEPTH_MAX deep. Of a name given twice the last value counts. */
struct error *mmds_json_decode(const char *text, size_t length, struct mmds_value **value);

/* Writes the tree as one JSON value. */
void mmds_json_encode(const struct mmds_value *value, struct json_writer *writer);

/* Puts the metadata that the file has. Errors begin with what is wrong with it. */
struct error *mmds_json_apply_file(const char *path, struct machine *machine);
