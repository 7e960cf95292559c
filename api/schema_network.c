/* Network interfaces. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

#include <ctype.h>
#include <net/if.h>
#include <string.h>

/* Linux' rule (dev_valid_name). */
static bool is_interface_name(char *text)
{
    for (const char *at = text; *at != '\0'; at++)
        if (!isgraph((unsigned char)*at))
            return false;
    return strpbrk(text, "/:") == NULL && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}
static const struct field_format interface_name_format = {is_interface_name, "the name of an interface", "^[^/: ]+$"};

/* Six pairs of hexadecimal digits; canonical in lower case. */
static bool is_mac(char *text)
{
    for (size_t i = 0; text[i] != '\0'; i++) {
        bool right = i % 3 == 2 ? text[i] == ':' : isxdigit((unsigned char)text[i]) != 0;

        if (!right)
            return false;
        text[i] = (char)tolower((unsigned char)text[i]);
    }
    return true;
}
static const struct field_format mac_format = {is_mac, "as in 06:00:ac:10:00:02",
                                               "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"};
enum { MAC_LENGTH = 17 };

static const char *const network_backend_names[] = {
    [NETWORK_BACKEND_STREAM] = "stream", [NETWORK_BACKEND_VHOST_USER] = "vhost-user", NULL};

static const struct field network_backend_fields[] = {
    {"type", FIELD_ENUM, FIELD_REQUIRED, MEMBER(struct network_backend_config, type), .names = network_backend_names,
     DESCRIPTION("stream: frames on a Unix stream socket, each behind its length in 32 bits, big-endian, as passt "
                 "and QEMU have it; a guest_mac that is given is announced to it. vhost-user: a process that the "
                 "interface's queues and guest memory are handed to; "
                 "guest_mac, mtu and limits are then its business.")},
    {"socket_path", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct network_backend_config, socket_path), SOCKET_PATH,
     DESCRIPTION("Where the backend listens.")},
};
static const struct schema network_backend_schema = {"NetworkBackend",
                                                     SCHEMA(network_backend_fields, struct network_backend_config),
                                                     DESCRIPTION("What carries an interface's frames.")};

static const struct field network_interface_fields[] = {
    {"iface_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct network_interface_config, iface_id),
     DEVICE_ID, DESCRIPTION("The interface's id, the same as in the path.")},
    {"host_dev_name", FIELD_STRING, FIELD_OMIT, MEMBER(struct network_interface_config, host_dev_name), .minimum = 1,
     .maximum = IFNAMSIZ - 1, .format = &interface_name_format,
     DESCRIPTION("The tap interface on the host; this or backend is given.")},
    {"backend", FIELD_OBJECT, FIELD_NULLABLE | FIELD_OMIT, MEMBER(struct network_interface_config, backend),
     PRESENCE(struct network_interface_config, backend.present), .object = &network_backend_schema,
     DESCRIPTION("What stands in for a tap; Mayfly's own.")},
    {"guest_mac", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct network_interface_config, guest_mac),
     .minimum = MAC_LENGTH, .maximum = MAC_LENGTH, .format = &mac_format,
     DESCRIPTION("The guest's MAC address; the guest chooses when not given.")},
    {"mtu", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL, MEMBER(struct network_interface_config, mtu),
     .minimum = 68, .maximum = 65535, DESCRIPTION("The MTU that the guest is advised of.")},
    {"rx_rate_limiter", RATE_LIMITER(struct network_interface_config, rx_rate_limiter),
     DESCRIPTION("Limits of what the guest receives.")},
    {"tx_rate_limiter", RATE_LIMITER(struct network_interface_config, tx_rate_limiter),
     DESCRIPTION("Limits of what the guest sends.")},
};

static struct error *check_network_interface(const void *object)
{
    const struct network_interface_config *config = object;

    if (config->host_dev_name != NULL && config->backend.present)
        return error_new(ERROR_INPUT, "backend: given beside host_dev_name, expected one of them");
    if (config->host_dev_name == NULL && !config->backend.present)
        return error_new(ERROR_INPUT, "host_dev_name: missing, expected the name of a tap, or a backend");
    return NULL;
}
const struct schema network_interface_schema = {"NetworkInterface",
                                                SCHEMA(network_interface_fields, struct network_interface_config),
                                                .check = check_network_interface, DESCRIPTION("A network interface.")};

static const struct field network_interface_update_fields[] = {
    {"iface_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct network_interface_update, iface_id),
     DEVICE_ID, DESCRIPTION("The interface's id, the same as in the path.")},
    {"rx_rate_limiter", RATE_LIMITER(struct network_interface_update, rx_rate_limiter),
     DESCRIPTION("New limits of what the guest receives; others stay.")},
    {"tx_rate_limiter", RATE_LIMITER(struct network_interface_update, tx_rate_limiter),
     DESCRIPTION("New limits of what the guest sends; others stay.")},
};
const struct schema network_interface_update_schema = {
    "PartialNetworkInterface", SCHEMA(network_interface_update_fields, struct network_interface_update),
    DESCRIPTION("What to change of a network interface.")};
