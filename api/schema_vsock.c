/* The vsock device. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

static const struct field vsock_fields[] = {
    {"guest_cid", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct vsock_config, guest_cid), .minimum = VSOCK_GUEST_CID_MIN,
     .maximum = VSOCK_GUEST_CID_MAX, DESCRIPTION("The guest's context id: its address for its own sockets.")},
    {"uds_path", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct vsock_config, uds_path), SOCKET_PATH,
     DESCRIPTION("A Unix socket to listen on for host programs that say \"CONNECT <port>\"; what the guest connects "
                 "to on the host is the listener at this path, '_' and the port.")},
    {"vsock_id", FIELD_STRING, FIELD_NULLABLE | FIELD_HIDDEN | FIELD_DEPRECATED, MEMBER(struct vsock_config, vsock_id),
     .maximum = PATH_MAX - 1, DESCRIPTION("Without effect.")},
};
const struct schema vsock_schema = {"Vsock", SCHEMA(vsock_fields, struct vsock_config),
                                    DESCRIPTION("Sockets between the guest and Unix sockets of the host.")};

static const struct field vsock_seqpacket_fields[] = {
    {"uds_path", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct vsock_seqpacket_config, uds_path), SOCKET_PATH,
     DESCRIPTION("A Unix socket, of type SOCK_SEQPACKET, to listen on for host programs that say \"CONNECT <port>\" "
                 "in their first message.")},
};
const struct schema vsock_seqpacket_schema = {"VsockSeqpacket",
                                              SCHEMA(vsock_seqpacket_fields, struct vsock_seqpacket_config),
                                              DESCRIPTION("Messages from host programs to the guest's sockets.")};
