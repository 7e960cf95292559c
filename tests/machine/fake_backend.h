/*
 * A vhost-user back end in a process of its own, which serves one front end after the other; or one that misbehaves.
 * Written against the protocol's specification; fake_backend_devices.c has what its queues do.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum backend_device {
    BACKEND_DISK,  /* a file, whose size is the capacity */
    BACKEND_NET,   /* sends each frame back; the sixth with 'q' as the first byte of its payload */
    BACKEND_FILES, /* FUSE of a kind: says nothing but that all went well, but to one request: see the guest "fs" */
};

enum backend_behaviour {
    BACKEND_WORKS,
    BACKEND_STALLS,           /* accepts, and answers nothing */
    BACKEND_STALLS_LATER,     /* at GET_VRING_BASE */
    BACKEND_STALLS_AT_START,  /* at SET_MEM_TABLE */
    BACKEND_CLOSES,           /* accepts, and closes */
    BACKEND_ANSWERS_OTHERS,   /* another request's answer */
    BACKEND_ANSWERS_LONG,     /* more than fits any message */
    BACKEND_ANSWERS_UNASKED,  /* twice */
    BACKEND_ANSWERS_HALF,     /* a message's first bytes */
    BACKEND_SPEAKS_VERSION_2, /* of the protocol */
    BACKEND_IS_LEGACY,        /* knows no virtio 1 */
    BACKEND_KEEPS_NO_CONFIG,  /* no protocol feature CONFIG */
    BACKEND_CONFIG_IS_SHORT,
    BACKEND_HAS_NO_QUEUES,
    BACKEND_REFUSES_MEMORY,    /* acknowledges SET_MEM_TABLE with a failure */
    BACKEND_DIES_BUSY,         /* takes a request and ends */
    BACKEND_GIVES_DESCRIPTORS, /* with every answer */
    BACKEND_NAMES_OTHER_RING,  /* in its answer to GET_VRING_BASE */
    BACKEND_SHOUTS,            /* tells of changes without end */
    BACKEND_KEEPS_COUNT,       /* of requests in flight, in memory that outlives it: INFLIGHT_SHMFD */
    BACKEND_DIES_IN_DISORDER,  /* the same; does requests in the wrong order, and dies after every twentieth */
    BACKEND_DIES_FORGETFUL,    /* does them in the wrong order, counts nowhere, and dies after the second */
    BACKEND_COUNTS_NOWHERE,    /* offers INFLIGHT_SHMFD and gives no memory */
};

/* Listens at `path`, serves `disk`. Ends with the test's process at the latest. */
pid_t backend_start(const char *path, const char *disk, enum backend_behaviour behaviour);
/* The same for any device; `disk` may then be NULL. */
pid_t backend_start_as(enum backend_device device, const char *path, const char *disk,
                       enum backend_behaviour behaviour);
/* Tells the front end that the config space has changed. */
void backend_announce(pid_t backend);
/* Kills it, if it has not died by itself, and waits for its end. */
void backend_end(pid_t backend);
/* Whether it has died by itself; it is then gone. */
bool backend_has_died(pid_t backend);
