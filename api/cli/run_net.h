/*
 * The network of one `mayfly run` (--net). With a tap there is nothing to do but to name it. Without root there is
 * passt: a process of ours, unprivileged and in a sandbox that it makes itself, that speaks for the guest through
 * ordinary sockets of the host.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "api/cli/run_net_options.h"
#include "api/cli/vmm_process.h"
#include "api/client/client.h"

enum { RUN_NET_PATH_SIZE = 64, RUN_NET_POLL_COUNT = 2 };

struct run_net {
    const struct run_net_options *options; /* borrowed; NULL: no network, or nothing to do for it */
    char *program;
    char directory[RUN_NET_PATH_SIZE]; /* with the FIFO "ready"; "" when there is none */
    int directory_fd;                  /* holds its lock */
    int ready_fd;                      /* the FIFO that passt writes its pid into when it is up */
    int filler_fd;                     /* its other end, of our own: without a writer poll(2) would tell of an end */
    bool held;                         /* the FIFO is full: passt has its ports, and waits */
    bool awaited;                      /* passt was started and is not up yet */
    uint64_t deadline_us;              /* until when it is waited for, by CLOCK_MONOTONIC; UINT64_MAX: no matter */
    int words_fd;                      /* what it says; non-blocking */
    pid_t pid;                         /* 0: none */
    int process_fd;                    /* pidfd of it */
};

/* A state that run_net_end accepts. */
void run_net_init(struct run_net *net);

/* Finds out, before anything is started, whether there is a passt. */
struct error *run_net_prepare(struct run_net *net, const struct run_net_options *options);

/*
 * Puts the interface. With passt: listens for the VMM where its sockets are, has it connect, and hands that connection
 * to a passt that ends with it: when the VMM ends, however it does. Does not wait until passt is up; that is `awaited`.
 */
struct error *run_net_configure(struct run_net *net, struct api_client *client, const struct vmm_process *process,
                                const struct run_net_options *options);

/* The guest has its network from here on. Where ports are published passt, with them bound, waits for that. */
struct error *run_net_let_go(struct run_net *net);

/* What tells that passt is up, or that it never will be; nothing (-1) when it is not awaited. */
void run_net_poll(const struct run_net *net, struct pollfd wait[RUN_NET_POLL_COUNT]);

/* After poll(2) with `wait`, or when the deadline has passed: it may be that passt is no longer awaited. The error is
 * its own. */
struct error *run_net_check(struct run_net *net, const struct pollfd wait[RUN_NET_POLL_COUNT]);

/* Says on stderr when passt failed before its guest did. To be called while the VMM lives. */
void run_net_tell(struct run_net *net);

/* Ends passt, and waits for that: its ports are free for the next. */
void run_net_end(struct run_net *net);
