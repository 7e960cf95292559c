/*
 * HTTP/1.1 on one connected stream socket: bytes in, requests carried out one after the other, replies in their order.
 *
 * Nothing blocks. A caller that does not take its replies is not read from any more, so neither requests nor replies
 * pile up. What HTTP itself refuses (bad syntax, HEAD, a body over the limit) is answered with {"error": ...}, and the
 * connection ends: the sending side is shut, and what the caller still sends is thrown away, so that the answer is
 * not lost to a reset.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "api/routes.h"
#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"

enum { HTTP_INPUT_SIZE = 16 * 1024, HTTP_OUTPUT_SIZE = 2048, HTTP_HEADER_MAX = 16 * 1024, HTTP_PATH_MAX = 1024 };

struct http_connection;

/* What the connections of a server share. */
struct http_host {
    struct event_loop *loop;
    struct api_context context;
    size_t max_payload;
    void (*served)(struct http_host *host); /* after each reply has left or been queued; may be NULL */
    void (*closed)(struct http_host *host); /* after a connection has ended; may be NULL */
    struct http_connection *connections;
    size_t connection_count;
    /* Of the connection being served; what it cannot send at once moves to memory of its own. */
    char output[HTTP_OUTPUT_SIZE];
    size_t output_length;
    char input[HTTP_INPUT_SIZE];
};

/*
 * Serves `fd`, a non-blocking stream socket that the connection takes over, even on failure. A request that has
 * arrived already is carried out before this returns.
 */
struct error *http_connection_open(struct http_host *host, int fd);

/* Ends every connection at once. */
void http_close_all(struct http_host *host);
