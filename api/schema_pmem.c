/* Files that the guest has as memory. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

static const struct field pmem_fields[] = {
    {"id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct pmem_config, id), DEVICE_ID,
     DESCRIPTION("The device's id, the same as in the path.")},
    {"path_on_host", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct pmem_config, path_on_host), PATH,
     DESCRIPTION("The regular file that is the device's memory; what its size lacks to a multiple of 2 MiB is "
                 "memory that is lost at the end.")},
    {"root_device", FIELD_BOOL, 0, MEMBER(struct pmem_config, root_device),
     DESCRIPTION("Whether the guest's root file system is on this device.")},
    {"read_only", FIELD_BOOL, 0, MEMBER(struct pmem_config, read_only),
     DESCRIPTION("Whether the guest can only read.")},
    {"rate_limiter", RATE_LIMITER(struct pmem_config, rate_limiter),
     DESCRIPTION("Limits of flushes: each is an operation, and as many bytes as the file has.")},
};
const struct schema pmem_schema = {
    "Pmem", SCHEMA(pmem_fields, struct pmem_config),
    DESCRIPTION("A file that the guest has as memory of its own, shared with all others that have it.")};

static const struct field pmem_update_fields[] = {
    {"id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct pmem_update, id), DEVICE_ID,
     DESCRIPTION("The device's id, the same as in the path.")},
    {"rate_limiter", RATE_LIMITER(struct pmem_update, rate_limiter), DESCRIPTION("New limits; others stay.")},
};
const struct schema pmem_update_schema = {"PartialPmem", SCHEMA(pmem_update_fields, struct pmem_update),
                                          DESCRIPTION("What to change of a pmem device.")};
