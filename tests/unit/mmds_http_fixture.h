/* A metadata service and requests to it, without a network. */
#pragma once

#include "tests/unit/harness.h"

#include "api/mmds_json.h"
#include "vmm/metrics.h"
#include "vmm/mmds/mmds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not called: what these tests need of api/mmds_json.c does not ask a machine. */
struct error *machine_put_mmds(struct machine *machine, struct mmds_value *contents)
{
    (void)machine;
    (void)contents;
    return error_new(ERROR_INTERNAL, "there is no machine");
}

static const uint64_t now_us = 1000000;
static struct mmds mmds;
static struct mmds_answer answer;

static inline struct mmds_value *decode(const char *text)
{
    struct mmds_value *value = NULL;

    assert_no_error(mmds_json_decode(text, strlen(text), &value));
    return value;
}

static inline void put(const char *text)
{
    assert_no_error(mmds_put(&mmds, decode(text)));
}

static inline int setup(void **state)
{
    (void)state;
    mmds = (struct mmds){.limit = 51200};
    memset(&metrics.mmds, 0, sizeof(metrics.mmds));
    put("{\"latest\":{\"meta-data\":{\"ami-id\":\"ami-1\",\"mac\":\"02:00\",\"network\":{\"a\":1}},\"user-data\":"
        "\"line "
        "1\\nline "
        "2\"},\"number\":1.50e3,\"list\":[\"zero\",{\"one\":1}],\"a/b\":{\"m~n\":\"escaped\"},\"\":\"empty\",\"yes\":"
        "true}");
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    free(answer.bytes);
    answer = (struct mmds_answer){0};
    mmds_free(&mmds);
    return 0;
}

static inline size_t serve_at(const char *request, uint64_t time_us)
{
    free(answer.bytes);
    return mmds_http_serve(&mmds, request, strlen(request), false, time_us, &answer);
}

static inline void assert_answer(const char *request, unsigned status, const char *body)
{
    char head[32];

    if (serve_at(request, now_us) != strlen(request) || answer.bytes == NULL)
        fail_msg("not all was taken of %s", request);
    snprintf(head, sizeof(head), "HTTP/1.1 %u ", status);
    if (strncmp(answer.bytes, head, strlen(head)) != 0)
        fail_msg("%s: %.*s, expected %u", request, (int)answer.length, answer.bytes, status);
    char *end = strstr(answer.bytes, "\r\n\r\n");
    assert_non_null(end);
    if (body != NULL)
        assert_string_equal(end + 4, body);
}

static inline void assert_get(const char *path, const char *headers, unsigned status, const char *body)
{
    char request[512];

    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n%s\r\n", path, headers);
    assert_answer(request, status, body);
}

#define JSON "Accept: application/json\r\n"

#define mmds_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
