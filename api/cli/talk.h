/*
 * The host's side of rootfs/protocol.h: what the guest says, checked. No I/O. The guest is hostile: every length,
 * number and order is verified, and text from it is made harmless before it is shown.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cli/run_options.h"
#include "rootfs/protocol.h"
#include "vmm/base/error.h"

enum talk_state {
    TALK_EXPECTS_HELLO,
    TALK_EXPECTS_START, /* STARTED or FAILED */
    TALK_EXPECTS_EXIT,  /* EXITED */
    TALK_EXITED,
    TALK_FAILED,
};

/* The longest text of FAILED that is kept; the rest is passed over. */
enum { TALK_FAILED_TEXT_MAX = 1024 };

struct talk {
    enum talk_state state;
    struct protocol_hello hello;     /* valid after TALK_EXPECTS_HELLO */
    struct protocol_started started; /* valid after TALK_EXPECTS_START, unless TALK_FAILED */
    struct protocol_exited exited;   /* valid in TALK_EXITED */
    struct protocol_failed failed;   /* valid in TALK_FAILED */
    char failed_text[TALK_FAILED_TEXT_MAX + 1];

    /* The frame that is coming in. */
    struct protocol_header header;
    size_t header_bytes;
    uint8_t payload[sizeof(struct protocol_failed) + TALK_FAILED_TEXT_MAX];
    size_t payload_bytes; /* that have come, those not kept included */
};

/*
 * Takes bytes from the control port, up to the end of a frame; stores how many in *taken. The caller looks at the state
 * after each call and hands in the rest. An error means that the guest broke the protocol: do not call again.
 */
struct error *talk_receive(struct talk *talk, const uint8_t *bytes, size_t length, size_t *taken);

/* Builds the RUN frame; the caller frees it. An error names what does not fit. */
struct error *talk_run_frame(const struct run_options *options, uint32_t flags, uint8_t **frame, size_t *length);

enum { TALK_SIGNAL_FRAME_SIZE = sizeof(struct protocol_header) + sizeof(struct protocol_signal) };
void talk_signal_frame(int signal, uint8_t frame[TALK_SIGNAL_FRAME_SIZE]);
