/* The virtio console and its ports. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

#include <string.h>

/* Guests make a file of that name. */
static bool is_port_name(char *text)
{
    return device_id_is_spelled(text) && strchr(text, '/') == NULL;
}
static const struct field_format port_name_format = {is_port_name, "letters, digits, _, - and .", "^[0-9A-Za-z_.-]+$"};

static const struct field console_port_fields[] = {
    {"name", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct console_port_config, name), .minimum = 1,
     .maximum = ID_LENGTH_MAX, .format = &port_name_format, DESCRIPTION("What the guest finds the port by.")},
    {"socket_path", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct console_port_config, socket_path), SOCKET_PATH,
     DESCRIPTION("A Unix socket to listen on; the port is open in the guest while a peer is connected.")},
    {"output_path", FIELD_STRING, FIELD_NULLABLE, MEMBER(struct console_port_config, output_path), PATH,
     DESCRIPTION("A file or FIFO that takes what the guest writes.")},
    {"output_max_mib", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL,
     MEMBER(struct console_port_config, output_max_mib), .minimum = 1, .maximum = UINT32_MAX,
     DESCRIPTION("MiB that a regular file at output_path takes in the microVM's life, 64 by default; the rest is "
                 "dropped.")},
    {"console", FIELD_BOOL, 0, MEMBER(struct console_port_config, console),
     DESCRIPTION("Whether the guest may use the port as a terminal.")},
    {"unplugged", FIELD_BOOL, 0, MEMBER(struct console_port_config, unplugged),
     DESCRIPTION("Whether the guest finds the port only when it is plugged in.")},
    {"columns", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL, MEMBER(struct console_port_config, columns),
     .minimum = 1, .maximum = UINT16_MAX, DESCRIPTION("Width of the terminal's window; goes with rows.")},
    {"rows", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL, MEMBER(struct console_port_config, rows), .minimum = 1,
     .maximum = UINT16_MAX, DESCRIPTION("Height of the terminal's window; goes with columns.")},
};

static struct error *check_console_port(const void *object)
{
    const struct console_port_config *port = object;

    if ((port->socket_path == NULL) == (port->output_path == NULL))
        return error_new(ERROR_INPUT, "%s given, expected exactly one of socket_path and output_path",
                         port->socket_path == NULL ? "neither" : "both");
    return NULL;
}
static const struct schema console_port_schema = {
    "ConsolePort", SCHEMA(console_port_fields, struct console_port_config), .check = check_console_port,
    DESCRIPTION("One port; either socket_path or output_path is given.")};

static const struct field console_fields[] = {
    {"ports", FIELD_HEAP_ARRAY, FIELD_REQUIRED, MEMBER(struct console_config, ports),
     .count = offsetof(struct console_config, port_count), .minimum = 1, .maximum = CONSOLE_PORTS_MAX,
     .object = &console_port_schema, DESCRIPTION("The ports, in the order of their numbers.")},
};

static struct error *check_console(const void *object)
{
    const struct console_config *config = object;

    for (size_t i = 0; i < config->port_count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(config->ports[i].name, config->ports[j].name) == 0)
                return error_new(ERROR_INPUT, "ports[%zu].name: \"%s\" given, expected another name than ports[%zu]'s",
                                 i, config->ports[i].name, j);
    return NULL;
}
const struct schema console_schema = {"Console", SCHEMA(console_fields, struct console_config), .check = check_console,
                                      DESCRIPTION("A virtio console with several ports.")};

static const struct field console_update_fields[] = {
    {"name", FIELD_STRING, FIELD_REQUIRED, MEMBER(struct console_update, name), .minimum = 1, .maximum = ID_LENGTH_MAX,
     .format = &device_id_format, DESCRIPTION("The port.")},
    {"unplugged", FIELD_BOOL, FIELD_NULLABLE, MEMBER(struct console_update, unplugged),
     PRESENCE(struct console_update, has_unplugged), DESCRIPTION("Whether the guest has the port taken away.")},
    {"columns", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL, MEMBER(struct console_update, columns), .minimum = 1,
     .maximum = UINT16_MAX, DESCRIPTION("New width of the terminal's window; goes with rows.")},
    {"rows", FIELD_INTEGER, FIELD_NULLABLE | FIELD_ZERO_NULL, MEMBER(struct console_update, rows), .minimum = 1,
     .maximum = UINT16_MAX, DESCRIPTION("New height of the terminal's window; goes with columns.")},
};
const struct schema console_update_schema = {"ConsoleUpdate", SCHEMA(console_update_fields, struct console_update),
                                             DESCRIPTION("What to change of a console's port.")};
