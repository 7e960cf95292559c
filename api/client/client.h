/*
 * A client of the API: HTTP/1.1 over a Unix socket, one request at a time on one kept-alive connection. Calls block,
 * each no longer than the client's timeout.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "api/client/body.h"
#include "vmm/base/error.h"

struct api_client;

struct api_response {
    unsigned status; /* HTTP status code */
    size_t length;
    char *body; /* `length` bytes and a NUL; never NULL after a success; free with api_response_free */
};

enum { API_CLIENT_TIMEOUT_MS = 10000 };

/* Takes over a connected stream socket. */
struct api_client *api_client_new(int fd);
/* Connects to `path` as soon as `process_fd` (a pidfd; -1: none) listens there; see socket_connect_when_ready. */
struct error *api_client_connect(const char *path, int process_fd, unsigned timeout_ms, struct api_client **client);
void api_client_free(struct api_client *client); /* NULL is fine */

/* How long each later call may take. Default API_CLIENT_TIMEOUT_MS. */
void api_client_set_timeout(struct api_client *client, unsigned timeout_ms);

/*
 * Sends a request and reads the whole answer, whatever its status. `body` may be NULL (none). After an error the
 * connection is of no more use. The caller frees the response.
 */
struct error *api_client_request(struct api_client *client, const char *method, const char *path, const char *body,
                                 size_t body_length, struct api_response *response);
void api_response_free(struct api_response *response);

/*
 * The same for a request that must succeed: an answer other than 2xx is an error of kind ERROR_INPUT which says
 * "<method> <path>: <the server's message>". Frees `body`.
 */
struct error *api_client_put(struct api_client *client, const char *path, struct body *body);
struct error *api_client_patch(struct api_client *client, const char *path, struct body *body);
/* PUT /actions with that action_type. */
struct error *api_client_action(struct api_client *client, const char *action_type);
/* PATCH /vm with that state: "Paused" or "Resumed". */
struct error *api_client_set_state(struct api_client *client, const char *state);

/* The text of the member "fault_message" (or "error") of an error's body; NULL when there is none. The caller frees it.
 */
char *api_response_fault(const struct api_response *response);
