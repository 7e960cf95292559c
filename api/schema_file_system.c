/* Directories shared with the guest. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

#include <ctype.h>

static bool is_tag(char *text)
{
    for (; *text != '\0'; text++)
        if (!isgraph((unsigned char)*text))
            return false;
    return true;
}
static const struct field_format tag_format = {is_tag, "no spaces", "^[!-~]+$"};

static const struct field file_system_fields[] = {
    {"fs_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct file_system_config, fs_id), DEVICE_ID,
     DESCRIPTION("The file system's id, the same as in the path.")},
    {"tag", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct file_system_config, tag), .minimum = 1,
     .maximum = FILE_SYSTEM_TAG_MAX, .format = &tag_format,
     DESCRIPTION("What the guest mounts it by: mount -t virtiofs TAG DIRECTORY.")},
    {"socket_path", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct file_system_config, socket_path), SOCKET_PATH,
     DESCRIPTION("The Unix socket of the vhost-user back end that shares the directory: virtiofsd.")},
};
const struct schema file_system_schema = {"FileSystem", SCHEMA(file_system_fields, struct file_system_config),
                                          DESCRIPTION("A directory of the host that the guest can mount.")};
