/*
 * Signals. Those that mean this process is broken or over a limit are logged and end it with a code of their own
 * (exit_code.h); SIGPIPE is counted and survived; SIGTERM, SIGINT and SIGQUIT become an event once there is
 * something to end in order.
 */
#pragma once

#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"

/* Installs the handlers. Once, before there are threads. */
void signals_install(void);

/* Where a dying process writes its last line of metrics; -1: nowhere. Borrowed. */
void signals_set_metrics_fd(int fd);

/*
 * Turns SIGTERM, SIGINT and SIGQUIT into readiness of source->fd, a signalfd made here; source->ready is the caller's.
 * They are blocked in this thread and in those that it starts from then on.
 */
struct error *signals_termination_watch(struct event_loop *loop, struct event_source *source);

/* Takes the signal from the signalfd; the two below then know which it was. */
void signals_termination_take(int fd);
/* 0 when none was taken. */
int signals_termination(void);

/*
 * Ends the process by the signal taken, so that its parent sees what it asked for. Process 1 of a pid namespace is
 * immune to its own signals: then the exit code is 128 + the signal. Returns when none was taken.
 */
void signals_die_of_termination(void);
