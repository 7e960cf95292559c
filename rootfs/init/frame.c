#include "frame.h"

#include <stdlib.h>
#include <string.h>

#define RUN_FLAGS_KNOWN ((uint32_t)(PROTOCOL_RUN_NO_STDIN | PROTOCOL_RUN_MERGE_STDERR))
#define SIGNAL_MAX 64

enum frame_status frame_find(struct frame *frame, const unsigned char *bytes, size_t length)
{
    struct protocol_header header;

    if (length < sizeof(header)) {
        return FRAME_INCOMPLETE;
    }
    memcpy(&header, bytes, sizeof(header));
    if (header.length > PROTOCOL_PAYLOAD_MAX) {
        return FRAME_BROKEN;
    }
    if (length - sizeof(header) < header.length) {
        return FRAME_INCOMPLETE;
    }
    *frame = (struct frame){header.type, header.length, bytes + sizeof(header)};
    return FRAME_COMPLETE;
}

/* Takes one NUL-terminated string from *text, which has *left bytes; NULL when there is none. */
static char *string_take(const char **text, size_t *left)
{
    const char *start = *text;
    const char *end = *left > 0 ? memchr(start, '\0', *left) : NULL;

    if (end == NULL) {
        return NULL;
    }
    *left -= (size_t)(end - start) + 1;
    *text = end + 1;
    return (char *)(uintptr_t)start;
}

const char *run_decode(struct run *run, const struct frame *frame)
{
    struct protocol_run head;
    const char *text = (const char *)frame->payload + sizeof(head);
    size_t left;
    size_t count;
    char **strings;

    if (frame->length < sizeof(head)) {
        return "RUN: the payload is too short";
    }
    memcpy(&head, frame->payload, sizeof(head));
    left = frame->length - sizeof(head);
    if (head.argc < 1) {
        return "RUN: argc is 0, expected at least 1";
    }
    if ((head.flags & ~RUN_FLAGS_KNOWN) != 0) {
        return "RUN: unknown flags";
    }
    /* Each string takes a byte at least: no count beyond that is honest, and the sum cannot wrap. */
    if (head.argc > left || head.envc > left) {
        return "RUN: argc and envc are more than the payload holds";
    }
    run->directory = string_take(&text, &left);
    run->hostname = string_take(&text, &left);
    if (run->directory == NULL || run->hostname == NULL) {
        return "RUN: strings are missing";
    }
    count = (size_t)head.argc + head.envc;
    strings = calloc(count + 2, sizeof(*strings));
    if (strings == NULL) {
        return "RUN: out of memory";
    }
    for (size_t i = 0; i < count; i++) {
        /* The slot after argv's last is its NULL. */
        char **slot = &strings[i < head.argc ? i : i + 1];

        *slot = string_take(&text, &left);
        if (*slot == NULL) {
            free(strings);
            return "RUN: strings are missing";
        }
    }
    if (left != 0) {
        free(strings);
        return "RUN: bytes are left after the last string";
    }
    run->arguments = strings;
    run->environment = strings + head.argc + 1;
    run->flags = head.flags;
    return NULL;
}

int signal_decode(const struct frame *frame)
{
    struct protocol_signal payload;

    if (frame->length != sizeof(payload)) {
        return 0;
    }
    memcpy(&payload, frame->payload, sizeof(payload));
    return payload.signo >= 1 && payload.signo <= SIGNAL_MAX ? (int)payload.signo : 0;
}
