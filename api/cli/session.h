/*
 * The time between InstanceStart and the result: bytes in, bytes out, signals, and the conversation with the guest's
 * init.
 */
#pragma once

#include "api/cli/configure.h"
#include "api/cli/pump.h"
#include "api/cli/run_mounts.h"
#include "api/cli/run_net.h"
#include "api/cli/tail.h"
#include "api/cli/talk.h"
#include "api/cli/timeline.h"
#include "api/cli/vmm_process.h"

struct session {
    struct vmm_process *process; /* borrowed */
    struct timeline *timeline;   /* borrowed */
    struct run_mounts *mounts;   /* borrowed */
    struct run_net *net;         /* borrowed */
    struct talk talk;
    int ports[RUN_PORT_COUNT];
    int signal_fd;
    int console_fd; /* --console; -1: none */
    struct pump in, out, err;
    struct tail serial, log;
    uint8_t *run_frame; /* NULL once it is among the outgoing */
    size_t run_frame_length;
    uint8_t *outgoing; /* frames for the guest: [outgoing_start, outgoing_end) */
    size_t outgoing_start, outgoing_end;
    uint64_t signals_seen;   /* bit n: signal n came once */
    uint64_t timeout_ms;     /* 0: none */
    uint64_t deadline_us;    /* by CLOCK_MONOTONIC; UINT64_MAX: none */
    uint64_t silence_end_us; /* when to tell that the guest's init was not heard; UINT64_MAX: never */
    bool timed_out;
    bool process_ended;
    bool vmm_failed; /* it said by its exit code that KVM or the guest went wrong */
    bool told_broken_pipe;
    int killed_by; /* the signal that came twice, or before the command ran; else 0 */
};

/*
 * Takes the signals over: from here until the end of the process they arrive in the session. Returns a signalfd.
 * Ignored ones stay ignored.
 */
struct error *session_take_signals(int *signal_fd);

/* A session without ports; `signal_fd` and `console_fd` (-1: none) pass into it. */
void session_init(struct session *session, struct vmm_process *process, struct run_mounts *mounts, struct run_net *net,
                  struct timeline *timeline, int signal_fd, int console_fd);
void session_free(struct session *session);

/*
 * Connects to the guest, runs the command and stores the exit code for this process. With an error there is none of the
 * command's: it is 124 when the time was up, else left as it was.
 */
struct error *session_run(struct session *session, const struct run_options *options, bool has_stdin, int *exit_code);

/* Takes in what the VMM and the serial port have still to say, and shows the end of it on stderr. */
void session_show_last_words(struct session *session);
