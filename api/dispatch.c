/* Carrying a request out: finding its route, decoding its body, answering what was wrong. Knows no route by itself. */
#include "api/routes.h"

#include "api/schema_objects.h"
#include "vmm/base/cleanup.h"
#include "vmm/base/http_text.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"

#include <stdio.h>
#include <string.h>

/* Room for the decoded body of any request. */
union request_body {
    struct machine_config machine_config;
    struct boot_source_config boot_source;
    struct drive_config drive;
    struct drive_update drive_update;
    struct network_interface_config network_interface;
    struct network_interface_update network_interface_update;
    struct entropy_config entropy;
    struct mmds_config mmds;
    struct balloon_config balloon;
    struct balloon_update balloon_update;
    struct balloon_statistics_update balloon_statistics_update;
    struct balloon_hinting_start balloon_hinting_start;
    struct memory_hotplug_config memory_hotplug;
    struct memory_hotplug_update memory_hotplug_update;
    struct serial_config serial;
    struct console_config console;
    struct logger_config logger;
    struct metrics_config metrics;
    struct action_info action;
    struct vm_update vm;
};

static const char *const state_texts[] = {
    [MACHINE_NOT_STARTED] = "has not started", [MACHINE_RUNNING] = "is running", [MACHINE_PAUSED] = "is paused"};

struct error *api_check_state(const struct machine *machine, unsigned states, const char *what)
{
    enum machine_state state = machine_state(machine);

    if (states >> state & 1)
        return NULL;
    /* Clients that repeat a request look for these words, up to the colon. */
    return error_new(ERROR_STATE, "%s: not supported %s starting the microVM: it %s", what,
                     states == WHEN_NOT_STARTED ? "after" : "before", state_texts[state]);
}

/* Callers join a base that ends in a slash and a path that begins with one. */
static const char *path_start(const char *path)
{
    while (path[0] == '/' && path[1] == '/')
        path++;
    return path;
}

bool api_path_is_ours(const char *path)
{
    return strncmp(path_start(path), "/mayfly/", strlen("/mayfly/")) == 0;
}

/* The segment of a path that stands for the one in braces; `length` 0 and `text` NULL without one. */
struct path_id {
    const char *text;
    size_t length;
};

/* Whether `path` is one of `pattern`'s; slashes too many before it, and one behind it, count for nothing. */
static bool path_matches(const char *pattern, const char *path, struct path_id *id)
{
    const char *brace = strchr(pattern, '{');
    size_t fixed = brace == NULL ? strlen(pattern) : (size_t)(brace - pattern);

    path = path_start(path);
    *id = (struct path_id){0};
    if (strncmp(pattern, path, fixed) != 0)
        return false;

    const char *rest = path + fixed;
    if (brace != NULL) {
        *id = (struct path_id){rest, strcspn(rest, "/")};
        rest += id->length;
    }
    return rest[0] == '\0' || (strcmp(rest, "/") == 0 && fixed > 1);
}

static struct error *check_identity(const struct route *route, const void *body, const struct path_id *id)
{
    const char *given = id->text == NULL ? NULL : schema_identity(route->body, body);

    if (given == NULL || (strlen(given) == id->length && memcmp(given, id->text, id->length) == 0))
        return NULL;
    return error_new(ERROR_INPUT, "\"%s\" given in the body, expected \"%.*s\" as in the path", given, (int)id->length,
                     id->text);
}

static struct error *carry_out(const struct api_context *context, const struct route *route, const struct path_id *id,
                               const struct api_request *request, struct api_reply *reply)
{
    union request_body body;
    schema_given given = 0;
    char what[160];
    struct error *error;

    snprintf(what, sizeof(what), "%s %.128s", request->method_name, request->path);
    error = api_check_state(context->machine, route->states, what);
    if (error != NULL)
        return error;
    if (route->body == NULL) {
        if (request->body_length > 0)
            return error_new(ERROR_INPUT, "a GET with a body of %zu bytes, expected none", request->body_length);
        return route->handle(context, NULL, &reply->body);
    }
    if (route->body->open)
        return route->handle(context, &(struct api_text){request->body, request->body_length}, &reply->body);
    if (route->current != 0)
        memcpy(&body, (const char *)machine_configuration(context->machine) + route->current - 1, route->body->size);
    bool empty = route->body_optional && request->body_length == 0;
    error = schema_decode(route->body, empty ? "{}" : request->body, empty ? 2 : request->body_length,
                          route->current != 0, &body, &given);
    if (error != NULL)
        return error;
    const char *deprecated = schema_deprecated(route->body, &body, given);
    reply->deprecation = deprecated != NULL;
    if (deprecated != NULL) {
        METRIC_INCREMENT(deprecated.http_calls);
        log_warning("%s %s: %s is deprecated", request->method_name, route->path, deprecated);
    }
    error = check_identity(route, &body, id);
    if (error == NULL)
        error = route->handle(context, &body, &reply->body);
    schema_free(route->body, &body);
    return error;
}

static void refuse(struct api_reply *reply, unsigned status, struct error *error)
{
    log_error_unlimited("Received Error. Status code: %u %s. Message: %s", status, http_reason(status), error->message);
    reply->status = status;
    json_writer_free(&reply->body);
    json_writer_init(&reply->body);
    json_open_object(&reply->body);
    json_string(&reply->body, "fault_message");
    json_string(&reply->body, error->message);
    json_close_object(&reply->body);
    METRIC_INCREMENT(api_server.fails);
    error_free(error);
}

static const char *const method_names[] = {[API_GET] = "GET", [API_PUT] = "PUT", [API_PATCH] = "PATCH"};

const char *api_methods_text(unsigned methods, char text[API_METHODS_TEXT])
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < array_length(method_names); i++)
        if (methods >> i & 1)
            used +=
                (size_t)snprintf(text + used, API_METHODS_TEXT - used, "%s%s", used == 0 ? "" : ", ", method_names[i]);
    return text;
}

static bool is_snapshot_path(const char *path)
{
    struct path_id id;

    return path_matches("/snapshot/create", path, &id) || path_matches("/snapshot/load", path, &id);
}

/* `methods`: those that the path has, none when there is no such path. */
static void refuse_route(const struct api_request *request, unsigned methods, struct api_reply *reply)
{
    bool ours = api_path_is_ours(request->path);
    char known[API_METHODS_TEXT];

    if (methods == 0) {
        refuse(reply, ours ? 404 : 400,
               error_new(ERROR_INPUT, "%s %.128s: %s", request->method_name, request->path,
                         is_snapshot_path(request->path) ? "there are no snapshots in this version" : "no such path"));
        return;
    }
    reply->allow = ours ? methods : 0;
    refuse(reply, ours ? 405 : 400,
           error_new(ERROR_INPUT, "%s %.128s: no such method, expected %s", request->method_name, request->path,
                     api_methods_text(methods, known)));
}

static void count(enum api_method method)
{
    if (method == API_GET)
        METRIC_INCREMENT(api_server.get_count);
    else if (method == API_PUT)
        METRIC_INCREMENT(api_server.put_count);
    else if (method == API_PATCH)
        METRIC_INCREMENT(api_server.patch_count);
}

static const struct route *find_route(const struct api_request *request, struct path_id *id, unsigned *methods)
{
    *methods = 0;
    for (size_t i = 0; i < route_count; i++) {
        if (!path_matches(routes[i].path, request->path, id))
            continue;
        if (routes[i].method == request->method)
            return &routes[i];
        *methods |= 1u << routes[i].method;
    }
    return NULL;
}

static struct request_metrics *counts_of(const struct route *route)
{
    return (struct request_metrics *)(void *)((char *)&metrics + route->counts);
}

static unsigned status_of(const struct error *error)
{
    return error->kind == ERROR_INTERNAL ? 500 : error->kind == ERROR_TOO_LARGE ? 413 : 400;
}

static const char *const method_log_names[] = {
    [API_GET] = "Get", [API_PUT] = "Put", [API_PATCH] = "Patch", [API_OTHER_METHOD] = "foreign"};

static void handle(const struct api_context *context, const struct api_request *request, struct api_reply *reply)
{
    struct path_id id;
    unsigned methods;

    count(request->method);
    *reply = (struct api_reply){.status = 204};

    const struct route *route = find_route(request, &id, &methods);
    if (route == NULL) {
        refuse_route(request, methods, reply);
        return;
    }
    if (route->reply != NULL) {
        reply->status = 200;
        json_writer_init(&reply->body);
    }
    __atomic_fetch_add(&counts_of(route)->count, 1, __ATOMIC_RELAXED);
    struct error *error = carry_out(context, route, &id, request, reply);
    if (error == NULL) {
        log_info_unlimited("The request was executed successfully. Status code: %u %s.", reply->status,
                           http_reason(reply->status));
        return;
    }
    __atomic_fetch_add(&counts_of(route)->fails, 1, __ATOMIC_RELAXED);
    refuse(reply, status_of(error), error);
}

void api_handle(const struct api_context *context, const struct api_request *request, struct api_reply *reply)
{
    struct log_held received;

    /* Without the body: it may hold what is not for the log. */
    log_info_held(&received, "The API server received a %s request on \"%s\".", method_log_names[request->method],
                  request->path);
    /*
     * A GET only reads and is done at once: its line leaves with the outcome's, in one system call. What changes
     * something may take its time, send the log elsewhere or be the last that the process does, and is told before.
     */
    if (request->method != API_GET)
        log_release();
    handle(context, request, reply);
    log_release();
}

void api_reply_free(struct api_reply *reply)
{
    json_writer_free(&reply->body);
}
