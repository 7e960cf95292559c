/* What drives can beyond the reference. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

static const struct field drive_options_fields[] = {
    {"drive_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct drive_options, drive_id), DEVICE_ID,
     DESCRIPTION("The id of a drive that was put before.")},
    {"direct", FIELD_BOOL, 0, MEMBER(struct drive_options, direct),
     DESCRIPTION("Whether its file is read and written around the host's page cache (O_DIRECT).")},
    {"queues", FIELD_INTEGER, 0, MEMBER(struct drive_options, queue_count), .minimum = 1, .maximum = DRIVE_QUEUES_MAX,
     .initial = 1, DESCRIPTION("How many queues the guest may use: one for each of its vCPUs, as a rule.")},
};
const struct schema drive_options_schema = {"DriveOptions", SCHEMA(drive_options_fields, struct drive_options),
                                            DESCRIPTION("What else a drive can.")};
