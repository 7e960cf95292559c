/* What network interfaces can beyond the reference. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

static const struct field network_interface_options_fields[] = {
    {"iface_id", FIELD_STRING, FIELD_REQUIRED | FIELD_IDENTIFIES, MEMBER(struct network_interface_options, iface_id),
     DEVICE_ID, DESCRIPTION("The id of an interface that was put before.")},
    {"queues", FIELD_INTEGER, 0, MEMBER(struct network_interface_options, queue_count), .minimum = 1,
     .maximum = NETWORK_QUEUES_MAX, .initial = 1,
     DESCRIPTION(
         "How many pairs of queues the guest may use: one for each of its vCPUs, as a rule. More than one takes "
         "a tap made with several queues, or a vhost-user back end that has them.")},
    {"vhost", FIELD_BOOL, 0, MEMBER(struct network_interface_options, vhost),
     DESCRIPTION("Has the host's kernel move the frames between the guest's queues and the tap (/dev/vhost-net): fewer "
                 "system calls and more of the host's kernel within the guest's reach. Such an interface has no rate "
                 "limiters and does not lead to the metadata service.")},
};
const struct schema network_interface_options_schema = {
    "NetworkInterfaceOptions", SCHEMA(network_interface_options_fields, struct network_interface_options),
    DESCRIPTION("What else a network interface can.")};
