/*
 * A vhost-user back end of a disk in a process of its own, which serves one front end after the other; or one that
 * misbehaves. Its disk is a file, whose size is the capacity.
 */
#pragma once

#include <sys/types.h>

enum backend_behaviour {
    BACKEND_WORKS,
    BACKEND_STALLS,           /* accepts, and answers nothing */
    BACKEND_STALLS_LATER,     /* at GET_VRING_BASE */
    BACKEND_CLOSES,           /* accepts, and closes */
    BACKEND_ANSWERS_OTHERS,   /* another request's answer */
    BACKEND_ANSWERS_LONG,     /* more than fits any message */
    BACKEND_SPEAKS_VERSION_2, /* of the protocol */
    BACKEND_IS_LEGACY,        /* knows no virtio 1 */
    BACKEND_KEEPS_NO_CONFIG,  /* no protocol feature CONFIG */
    BACKEND_CONFIG_IS_SHORT,
    BACKEND_HAS_NO_QUEUES,
    BACKEND_REFUSES_MEMORY, /* acknowledges SET_MEM_TABLE with a failure */
    BACKEND_DIES_BUSY,      /* takes a request and ends */
};

/* Listens at `path`, serves `disk`. Ends with the test's process at the latest. */
pid_t backend_start(const char *path, const char *disk, enum backend_behaviour behaviour);
/* Tells the front end that the config space has changed. */
void backend_announce(pid_t backend);
/* Kills it, if it has not died by itself, and waits for its end. */
void backend_end(pid_t backend);
