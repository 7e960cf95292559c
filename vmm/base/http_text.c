#include "vmm/base/http_text.h"

#include <string.h>
#include <strings.h>

const char *http_reason(unsigned status)
{
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Payload Too Large";
    case 501:
        return "Not Implemented";
    default:
        return "Internal Server Error";
    }
}

size_t http_origin_length(const char *target, size_t length)
{
    static const char scheme[] = "http://";
    size_t start = sizeof(scheme) - 1;
    const char *slash;

    if (length < start || strncasecmp(target, scheme, start) != 0)
        return 0;
    slash = memchr(target + start, '/', length - start);
    return slash != NULL ? (size_t)(slash - target) : length;
}
