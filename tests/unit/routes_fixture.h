/* Requests to the API, past HTTP, with a machine that is none. */
#pragma once

#include "tests/unit/harness.h"

#include "tests/unit/fake_machine.h"

#include "api/routes.h"

#include "vmm/base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static struct api_context context = {.machine = &fake_machine, .app_name = "Mayfly"};

static inline int setup(void **state)
{
    (void)state;
    fake_machine_reset();
    memset(&metrics, 0, sizeof(metrics));
    return 0;
}

static const char *const names[] = {
    [API_GET] = "GET", [API_PUT] = "PUT", [API_PATCH] = "PATCH", [API_OTHER_METHOD] = "DELETE"};

/* Carries a request out; returns the status, and in `text` the body. */
static inline unsigned request(enum api_method method, const char *path, const char *body, char text[2048])
{
    struct api_request request = {.method = method,
                                  .method_name = names[method],
                                  .path = path,
                                  .body = body,
                                  .body_length = body == NULL ? 0 : strlen(body)};
    struct api_reply reply;
    size_t length;

    api_handle(&context, &request, &reply);
    text[0] = '\0';
    if (reply.status != 204) {
        const char *json = json_text(&reply.body, &length);

        assert_non_null(json);
        snprintf(text, 2048, "%s", json);
    }
    unsigned status = reply.status;
    api_reply_free(&reply);
    return status;
}

static inline void assert_reply(enum api_method method, const char *path, const char *body, unsigned status,
                                const char *part)
{
    char text[2048];
    unsigned got = request(method, path, body, text);

    if (got != status || strstr(text, part) == NULL)
        fail_msg("%s %s: %u %s, expected %u with \"%s\"", names[method], path, got, text, status, part);
}
