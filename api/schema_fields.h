/* The words in which the tables of fields are written, and the objects that stand in several others. For
 * api/schema_*.c. */
#pragma once

#include "api/schema.h"
#include "vmm/base/cleanup.h"
#include "vmm/config.h"

#include <limits.h>
#include <stddef.h>
#include <sys/un.h>

extern const struct field_format device_id_format;
extern const struct schema token_bucket_schema;
extern const struct schema rate_limiter_schema;

#define MEMBER(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)NULL)->member)
#define PRESENCE(type, member) .presence = offsetof(type, member) + 1
#define PATH .minimum = 1, .maximum = PATH_MAX - 1
#define SOCKET_PATH .minimum = 1, .maximum = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1
#define UNSIGNED_64 .minimum = 0, .maximum = UINT64_MAX
#define SCHEMA(fields_, type) .fields = (fields_), .field_count = array_length(fields_), .size = sizeof(type)
#define DEVICE_ID .minimum = 1, .maximum = ID_LENGTH_MAX, .format = &device_id_format
#define RATE_LIMITER(type, member)                                                                                     \
    FIELD_OBJECT, FIELD_NULLABLE, MEMBER(type, member), PRESENCE(type, member.present), .object = &rate_limiter_schema
