/* From the options of `mayfly run` to the requests that make the machine. */
#pragma once

#include "api/cli/locate.h"
#include "api/cli/run_net.h"
#include "api/cli/vmm_process.h"
#include "api/client/client.h"

/* The console's ports, by number; rootfs/protocol.h wants control last. */
enum run_port { RUN_PORT_STDIN, RUN_PORT_STDOUT, RUN_PORT_STDERR, RUN_PORT_CONTROL, RUN_PORT_COUNT };

/* Every request but InstanceStart. */
struct error *configure(struct api_client *client, const struct run_options *options, const struct located *located,
                        struct vmm_process *process, struct run_net *net);

/* Connects to the ports' sockets, once InstanceStart has been answered. Stores descriptors that the caller owns. */
struct error *configure_connect_ports(struct vmm_process *process, int fds[RUN_PORT_COUNT]);
