/* The metadata service. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

#include <arpa/inet.h>

enum { ADDRESS_MIN = 11, ADDRESS_MAX = 15 }; /* characters of a link-local address */

static bool is_link_local(char *text)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        return false;
    uint32_t value = ntohl(address.s_addr);
    return value >> 16 == 0xa9fe && (value >> 8 & 0xff) != 0 && (value >> 8 & 0xff) != 255;
}
static const struct field_format address_format = {is_link_local, "169.254.1.0 to 169.254.254.255",
                                                   "^169[.]254[.][0-9]+[.][0-9]+$"};

static const char *const version_names[] = {[MMDS_V1] = "V1", [MMDS_V2] = "V2", NULL};

static const struct field mmds_config_fields[] = {
    {"version", FIELD_ENUM, FIELD_NULLABLE, MEMBER(struct mmds_config, version), .names = version_names,
     DESCRIPTION("V2 answers only who sends a token, V1 (deprecated) everybody.")},
    {"network_interfaces", FIELD_STRING_LIST, FIELD_REQUIRED, MEMBER(struct mmds_config, network_interfaces),
     .count = offsetof(struct mmds_config, network_interfaces.count), .minimum = 1, .maximum = VIRTIO_DEVICES_MAX,
     DESCRIPTION("The ids of the interfaces that lead to the service; they are configured already.")},
    {"ipv4_address", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct mmds_config, ipv4_address), .minimum = ADDRESS_MIN,
     .maximum = ADDRESS_MAX, .format = &address_format,
     DESCRIPTION("The service's address, a link-local one; 169.254.169.254 when not given.")},
    {"imds_compat", FIELD_BOOL, 0, MEMBER(struct mmds_config, imds_compat),
     DESCRIPTION("Whether answers are never JSON, whatever the guest accepts, as EC2's service has it.")},
};

/* V1 is what a request that names no version gets, so that no field tells it. */
static const char *mmds_config_deprecated(const void *object)
{
    const struct mmds_config *config = object;

    return config->version == MMDS_V1 ? "version V1" : NULL;
}
const struct schema mmds_config_schema = {"MmdsConfig", SCHEMA(mmds_config_fields, struct mmds_config),
                                          .deprecated = mmds_config_deprecated,
                                          DESCRIPTION("How the guest reaches the metadata service.")};

const struct schema mmds_contents_schema = {"MmdsContentsObject", .open = true,
                                            DESCRIPTION("The metadata: any JSON object.")};
