/* The few words of HTTP that whoever answers it needs: the API and the metadata service. */
#pragma once

#include <stddef.h>

/* What follows the status in the first line of a reply. */
const char *http_reason(unsigned status);

/*
 * How many bytes of a request's target come before its path: 0, or those of the "http://localhost" that proxies send.
 * All of it when no path follows.
 */
size_t http_origin_length(const char *target, size_t length);
