/*
 * Running a command for the host: its stdio over the ports, signals in, its end out.
 */
#pragma once

#include "control.h"
#include "failure.h"
#include "ports.h"

/* How a command ended. */
struct ending {
    int status;            /* as waitpid(2) tells it */
    uint64_t exit_ns;      /* when */
    uint64_t stdout_bytes; /* queued on the stdout port */
    uint64_t stderr_bytes;
};

/*
 * Starts the command of `run`, tells the host that it has STARTED, moves its input and output and
 * hands on signals until it has exited and what it left in its pipes is queued on the ports.
 * Returns 0 with `ending`, or -1 with `failure` when the command could not be started.
 */
int relay_run(struct control *control, const struct ports *ports, const struct run *run, struct ending *ending,
              struct failure *failure);

/* Waits for `pid`, reaping whatever else ends meanwhile; for a command without relay. */
struct ending command_wait(int pid);

/* Kills and reaps every process but init. */
void processes_end(void);
