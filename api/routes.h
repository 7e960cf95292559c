/* The routes: which request does what, and in which states. One table (routes.c) that the OpenAPI document also reads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/json.h"
#include "api/schema.h"
#include "vmm/control.h"
#include "vmm/metrics.h"

/* The version of Firecracker whose API this is, as `GET /version` and `GET /` say: clients compare it. */
#define API_COMPATIBLE_VERSION "1.17.0"

enum api_method { API_GET, API_PUT, API_PATCH, API_OTHER_METHOD };

/* Bits of struct route's states. */
enum route_states {
    WHEN_NOT_STARTED = 1 << MACHINE_NOT_STARTED,
    WHEN_RUNNING = 1 << MACHINE_RUNNING,
    WHEN_PAUSED = 1 << MACHINE_PAUSED,
    WHEN_STARTED = WHEN_RUNNING | WHEN_PAUSED,
    WHEN_ANY = WHEN_NOT_STARTED | WHEN_STARTED,
};

/* Everything that does not come from the request. */
struct api_context {
    struct machine *machine;
    const char *app_name; /* what GET / calls the program */
};

/*
 * `body` is the decoded request, NULL when the route has none, a struct api_text when its schema is an open one; what
 * it owns is freed afterwards, so a handler that gives it away leaves it zeroed (as the calls of vmm/control.h do).
 * `reply` takes one JSON value when the route has a reply.
 */
typedef struct error *route_handler(const struct api_context *context, void *body, struct json_writer *reply);

/* A body that no table describes. */
struct api_text {
    const char *text;
    size_t length;
};

struct route {
    const char *path; /* a segment in braces matches any, and must equal the body's identifying field */
    enum api_method method : 8;
    unsigned states : 8;
    route_handler *handle;
    const struct schema *body;  /* of the request, or NULL */
    const struct schema *reply; /* of a 200, or NULL: success is a 204 */
    uint16_t counts;            /* offset of its struct request_metrics in the metrics */
    uint16_t current;           /* offset + 1 in struct vm_config: fields not given keep these values; 0: defaults */
    bool body_optional;         /* none at all counts as {} */
#ifndef MAYFLY_WITHOUT_OPENAPI
    const char *summary;
#endif
};

/* Refuses `what` unless the machine's state is one of `states` (bits of enum route_states). */
struct error *api_check_state(const struct machine *machine, unsigned states, const char *what);

extern const struct route routes[];
extern const size_t route_count;

struct api_request {
    enum api_method method;
    const char *method_name; /* "PUT" */
    const char *path;
    const char *body;
    size_t body_length;
};

struct api_reply {
    unsigned status;
    unsigned allow;          /* of a 405: bits of 1 << enum api_method */
    bool deprecation;        /* the request used a field that is going away */
    struct json_writer body; /* empty for a 204 */
};

/* Carries `request` out. Never fails: `reply` says how it went, and is to be closed with api_reply_free. */
void api_handle(const struct api_context *context, const struct api_request *request, struct api_reply *reply);
void api_reply_free(struct api_reply *reply);

/* "GET, PUT" for bits of 1 << enum api_method. Returns `text`. */
enum { API_METHODS_TEXT = 24 };
const char *api_methods_text(unsigned methods, char text[API_METHODS_TEXT]);

/* Whether `path` is one of our own, where the status codes are HTTP's; elsewhere every refusal is a 400. */
bool api_path_is_ours(const char *path);
