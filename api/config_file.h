/*
 * --config-file: one JSON object whose keys name the API's objects ("machine-config", "boot-source", "drives", ...),
 * with the same schema as the requests.
 */
#pragma once

#include "vmm/base/error.h"

struct machine;

/*
 * Reads the file at `path` and puts every object in it to `machine`, which must not have started; the caller starts
 * it. The whole file is decoded before the first object is put. An ERROR_INPUT names the key, the field, the value and
 * what was expected, not the file: the caller adds that; the machine may then hold the objects before the refused one.
 */
struct error *api_config_file_apply(const char *path, struct machine *machine);
