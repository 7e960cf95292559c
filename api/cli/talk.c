#include "api/cli/talk.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/base/checked.h"
#include "vmm/base/cleanup.h"

enum { EXIT_CODE_MAX = 255, SIGNAL_MAX = 64 };

static struct error *on_hello(struct talk *talk)
{
    memcpy(&talk->hello, talk->payload, sizeof(talk->hello));
    if (talk->hello.version != PROTOCOL_VERSION)
        return error_new(ERROR_HOST, "the guest's init speaks protocol version %u, this mayfly speaks %u",
                         talk->hello.version, PROTOCOL_VERSION);
    talk->state = TALK_EXPECTS_START;
    return NULL;
}

static struct error *on_started(struct talk *talk)
{
    memcpy(&talk->started, talk->payload, sizeof(talk->started));
    talk->state = TALK_EXPECTS_EXIT;
    return NULL;
}

static struct error *on_exited(struct talk *talk)
{
    struct protocol_exited *exited = &talk->exited;

    memcpy(exited, talk->payload, sizeof(*exited));
    if (exited->kind == PROTOCOL_EXIT_CODE && exited->code > EXIT_CODE_MAX)
        return error_new(ERROR_HOST, "the guest broke the protocol: exit code %u, expected at most %d", exited->code,
                         EXIT_CODE_MAX);
    if (exited->kind == PROTOCOL_EXIT_SIGNAL && (exited->code < 1 || exited->code > SIGNAL_MAX))
        return error_new(ERROR_HOST, "the guest broke the protocol: killed by signal %u, expected 1 to %d",
                         exited->code, SIGNAL_MAX);
    if (exited->kind > PROTOCOL_EXIT_SIGNAL)
        return error_new(ERROR_HOST, "the guest broke the protocol: exit of kind %u, expected 0 or 1", exited->kind);
    talk->state = TALK_EXITED;
    return NULL;
}

/* Control characters would let the guest drive the user's terminal. */
static struct error *on_failed(struct talk *talk)
{
    size_t length = talk->header.length - sizeof(talk->failed);

    memcpy(&talk->failed, talk->payload, sizeof(talk->failed));
    if (length > TALK_FAILED_TEXT_MAX)
        length = TALK_FAILED_TEXT_MAX;
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = talk->payload[sizeof(talk->failed) + i];

        talk->failed_text[i] = byte < 0x20 || byte == 0x7f ? '?' : (char)byte;
    }
    talk->failed_text[length] = '\0';
    if (talk->failed.exit_code < 125 || talk->failed.exit_code > 127)
        talk->failed.exit_code = 125;
    talk->state = TALK_FAILED;
    return NULL;
}

/* What may come, and when. */
static const struct frame_kind {
    uint32_t type;
    const char *name;
    size_t size;
    bool has_text; /* more may follow */
    unsigned states;
    struct error *(*handle)(struct talk *talk);
} frame_kinds[] = {
    {PROTOCOL_HELLO, "HELLO", sizeof(struct protocol_hello), false, 1u << TALK_EXPECTS_HELLO, on_hello},
    {PROTOCOL_STARTED, "STARTED", sizeof(struct protocol_started), false, 1u << TALK_EXPECTS_START, on_started},
    {PROTOCOL_EXITED, "EXITED", sizeof(struct protocol_exited), false, 1u << TALK_EXPECTS_EXIT, on_exited},
    {PROTOCOL_FAILED, "FAILED", sizeof(struct protocol_failed), true, 1u << TALK_EXPECTS_START, on_failed},
};

static struct error *check_header(const struct talk *talk, const struct frame_kind **kind)
{
    const struct protocol_header *header = &talk->header;

    for (size_t i = 0; i < array_length(frame_kinds); i++) {
        const struct frame_kind *known = &frame_kinds[i];

        if (known->type != header->type)
            continue;
        if ((known->states & 1u << talk->state) == 0)
            return error_new(ERROR_HOST, "the guest broke the protocol: %s at the wrong moment", known->name);
        if (header->length > PROTOCOL_PAYLOAD_MAX || header->length < known->size ||
            (header->length > known->size && !known->has_text))
            return error_new(ERROR_HOST, "the guest broke the protocol: %s of %u bytes, expected %zu", known->name,
                             header->length, known->size);
        *kind = known;
        return NULL;
    }
    return error_new(ERROR_HOST, "the guest broke the protocol: no frame has type 0x%x", header->type);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct error *talk_receive(struct talk *talk, const uint8_t *bytes, size_t length, size_t *taken)
{
    const struct frame_kind *kind;
    struct error *error;
    size_t part = smaller(length, sizeof(talk->header) - talk->header_bytes);

    memcpy((uint8_t *)&talk->header + talk->header_bytes, bytes, part);
    talk->header_bytes += part;
    *taken = part;
    if (talk->header_bytes < sizeof(talk->header))
        return NULL;
    error = check_header(talk, &kind);
    if (error != NULL)
        return error;
    part = smaller(length - *taken, talk->header.length - talk->payload_bytes);
    if (talk->payload_bytes < sizeof(talk->payload))
        memcpy(talk->payload + talk->payload_bytes, bytes + *taken,
               smaller(part, sizeof(talk->payload) - talk->payload_bytes));
    talk->payload_bytes += part;
    *taken += part;
    if (talk->payload_bytes < talk->header.length)
        return NULL;
    error = kind->handle(talk);
    talk->header_bytes = 0;
    talk->payload_bytes = 0;
    return error;
}

static uint8_t *append(uint8_t *at, const char *text)
{
    size_t size = strlen(text) + 1;

    memcpy(at, text, size);
    return at + size;
}

struct error *talk_run_frame(const struct run_options *options, uint32_t flags, uint8_t **frame, size_t *length)
{
    const char *cwd = options->cwd != NULL ? options->cwd : "";
    const char *hostname = options->hostname != NULL ? options->hostname : "";
    size_t payload = sizeof(struct protocol_run) + strlen(cwd) + 1 + strlen(hostname) + 1;
    uint8_t *at;

    for (size_t i = 0; i < options->command_count; i++)
        payload += strlen(options->command[i]) + 1;
    for (size_t i = 0; i < options->environment_count; i++)
        payload += strlen(options->environment[i]) + 1;
    if (payload > PROTOCOL_PAYLOAD_MAX)
        return error_new(ERROR_INPUT, "the command and its environment have %zu bytes, expected at most %u", payload,
                         PROTOCOL_PAYLOAD_MAX);

    struct protocol_header header = {PROTOCOL_RUN, (uint32_t)payload};
    struct protocol_run run = {(uint32_t)options->command_count, (uint32_t)options->environment_count, flags};

    *length = sizeof(header) + payload;
    *frame = malloc(*length);
    if (*frame == NULL)
        abort();
    memcpy(*frame, &header, sizeof(header));
    memcpy(*frame + sizeof(header), &run, sizeof(run));
    at = *frame + sizeof(header) + sizeof(run);
    at = append(at, cwd);
    at = append(at, hostname);
    for (size_t i = 0; i < options->command_count; i++)
        at = append(at, options->command[i]);
    for (size_t i = 0; i < options->environment_count; i++)
        at = append(at, options->environment[i]);
    return NULL;
}

void talk_signal_frame(int signal, uint8_t frame[TALK_SIGNAL_FRAME_SIZE])
{
    struct protocol_header header = {PROTOCOL_SIGNAL, sizeof(struct protocol_signal)};
    struct protocol_signal payload = {(uint32_t)signal};

    memcpy(frame, &header, sizeof(header));
    memcpy(frame + sizeof(header), &payload, sizeof(payload));
}
