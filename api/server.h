/*
 * The API server: HTTP/1.1 over a Unix stream socket, on the machine's event loop. Several connections, each with
 * keep-alive and pipelining; requests are carried out one at a time, in the order in which their last byte came.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"

struct machine;
struct api_server;

enum { API_MAX_PAYLOAD_DEFAULT = 51200 };

struct api_options {
    const char *socket_path;      /* copied */
    bool has_peer_uid, has_group; /* else everybody who may connect, and nobody but the owner */
    uint32_t peer_uid;            /* who may call */
    uint32_t group;               /* whose members may connect, too */
    const char *app_name;         /* what GET / calls the program, borrowed; NULL: "Mayfly" */
    size_t max_payload;           /* bytes of a request's body; 0: API_MAX_PAYLOAD_DEFAULT */

    /* When the process started, as the caller of this program saw it; 0 where unknown. The server adds its own times
     * and publishes the sums as metrics.start_time_us and start_time_cpu_us with its first reply. */
    uint64_t start_time_us;      /* CLOCK_MONOTONIC */
    uint64_t start_time_cpu_us;  /* this process's CPU clock at its start, normally 0 */
    uint64_t parent_cpu_time_us; /* CPU time of who started us (the jailer), added to the CPU figure */
};

/*
 * Listens on options->socket_path (mode 0600) and serves `machine` from `loop` until api_server_free. A path where
 * somebody listens, or that is no socket, is an ERROR_INPUT; a socket that nobody listens on any more is replaced.
 * Both `loop` and `machine` must outlive the server.
 */
struct error *api_server_new(struct event_loop *loop, struct machine *machine, const struct api_options *options,
                             struct api_server **server);

/* Closes every connection (replies not yet taken by the caller are lost) and unlinks the socket. NULL is fine. */
void api_server_free(struct api_server *server);
