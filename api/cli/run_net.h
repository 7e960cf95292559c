/*
 * The network of one `mayfly run` (--net). With a tap there is nothing to do but to name it. Without root there is
 * passt: a process of ours, unprivileged and in a sandbox that it makes itself, that speaks for the guest through
 * ordinary sockets of the host.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "api/cli/run_net_options.h"
#include "api/cli/vmm_process.h"
#include "api/client/client.h"

enum { RUN_NET_PATH_SIZE = 64 };

struct run_net {
    const struct run_net_options *options; /* borrowed; NULL: no network, or nothing to do for it */
    char *program;
    char directory[RUN_NET_PATH_SIZE]; /* with the FIFO "ready"; "" when there is none */
    int directory_fd;                  /* holds its lock */
    int ready_fd;                      /* the FIFO that passt writes its pid into when it is up */
    bool held;                         /* the FIFO is full: passt has its ports, and waits */
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
 * to a passt that ends with it: when the VMM ends, however it does. Does not wait until passt is up.
 */
struct error *run_net_configure(struct run_net *net, struct api_client *client, const struct vmm_process *process,
                                const struct run_net_options *options);

/*
 * Whether passt, with its ports bound, is kept from serving until run_net_await: where ports are published, which is to
 * be called when the guest has its network.
 */
bool run_net_is_held(const struct run_net *net);

/* Waits until passt is up. The error is its own. */
struct error *run_net_await(struct run_net *net);

/* Says on stderr when passt failed before its guest did. To be called while the VMM lives. */
void run_net_tell(struct run_net *net);

/* Ends passt, and waits for that: its ports are free for the next. */
void run_net_end(struct run_net *net);
