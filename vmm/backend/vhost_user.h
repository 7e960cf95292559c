/*
 * The front end of vhost-user: another process, the back end, serves a device's queues in guest memory that it shares.
 * We lead: connect to its socket, agree on features, hand over memory, queues and their eventfds. From then on the
 * guest's notifications and interrupts pass between KVM and the back end, and we see none of it.
 *
 * A back end may die, lie or stall. Whoever asks it something and needs the answer at once (vhost_user_open, _stop,
 * _config_read) waits VHOST_USER_PATIENCE_MS at most; everything else goes by the event loop, under a timer. A
 * connection that broke is made again, and the queues go on where the used rings are, when that can be told: always by
 * a back end that keeps count of what it has in hand where its successor finds it (INFLIGHT_SHMFD). When not, or when
 * what comes back is another back end, the owner hears `failed`.
 *
 * Runs with the event loop's lock held.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/backend/vhost_user_message.h"
#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/metrics.h"

enum {
    VHOST_USER_PATIENCE_MS = 3000,
    VHOST_USER_PATIENCE_MIN_MS = 100,
    VHOST_USER_RETRY_MS = 100,
    VHOST_USER_RINGS_MAX = 64,
    VHOST_USER_RING_SIZE_MAX = 256,
    VHOST_USER_EXPECTED_MAX = 512, /* answers on their way: eight for each ring */
};

struct vring_desc;
struct vring_avail;
struct vring_used;

/* A queue, as the back end is told of it. */
struct vhost_user_ring {
    bool ready;   /* the driver uses it */
    bool enabled; /* and the back end shall serve it */
    uint16_t size;
    uint16_t base; /* the position in the available ring to go on from */
    bool was_idle; /* when its back end vanished, with the used index at `idle_at` */
    uint16_t idle_at;
    const struct vring_desc *descriptors;
    struct vring_avail *available;
    struct vring_used *used;
    int kick_fd, call_fd; /* borrowed */
};

/*
 * How long the owner may have everybody else wait for its back end. A guest can have it stop as often as it likes, and
 * its back end may say nothing each time: what was waited in vain comes back only ten times slower. Zeroed: all of it.
 */
struct vhost_user_patience {
    uint64_t spent_us;
    uint64_t at_us; /* the time of the last look */
};

/* What a device wants of its back end. */
struct vhost_user_needs {
    const char *name; /* of the device, for messages: borrowed, as are the next three */
    const char *id;
    const char *path;                   /* of the back end's socket */
    struct vhost_user_metrics *metrics; /* the device's */
    uint64_t features;                  /* the virtio features that we can pass on */
    size_t config_size;                 /* of the config space that the back end keeps; 0: it keeps none */
    unsigned queue_count;               /* that the device has */
    unsigned queue_size;                /* of the largest */
    bool resumable;                     /* another back end process can go on where the one before ended */
};

struct vhost_user_owner {
    void (*config_changed)(void *owner); /* `config` has been read again and differs */
    /* The queues cannot go on before the guest has reset the device; `reason` is for the log. The connection is closed.
     */
    void (*failed)(void *owner, const char *reason);
};

enum vhost_user_state {
    VHOST_USER_CLOSED,
    VHOST_USER_GREETING, /* connected; features are being agreed on */
    VHOST_USER_READY,    /* agreed; no queues */
    VHOST_USER_COUNTING, /* memory for what the back end has in hand is asked for; then it gets the queues */
    VHOST_USER_RUNNING,  /* the back end has the queues */
};

struct vhost_user {
    struct vhost_user_needs needs;
    const struct vhost_user_owner *owner_ops;
    void *owner;
    struct event_loop *loop;
    const struct guest_memory *memory;

    enum vhost_user_state state;
    bool was_agreed; /* `features` and `agreed_protocol` are those of the first connection: later ones must have them */
    uint64_t features;
    uint64_t agreed_protocol;
    uint64_t protocol_features; /* in force on this connection */
    uint64_t driver_features;
    uint8_t config[VHOST_USER_CONFIG_MAX];

    struct event_source connection; /* fd -1: closed */
    struct event_source channel;    /* our end of SET_BACKEND_REQ_FD; fd -1: none */
    struct event_timer patience;    /* set while answers are awaited by the loop */
    struct vhost_user_patience stopping;
    struct event_timer retry; /* set while a back end is awaited */

    /* The answers that are due, in order. */
    uint8_t expected[VHOST_USER_EXPECTED_MAX];
    unsigned expected_first, expected_count;
    struct vhost_user_message incoming;
    size_t incoming_length;
    int incoming_fd;                /* that came along; -1: none */
    struct vhost_user_message said; /* by the back end on the channel */
    size_t said_length;

    const char *failure; /* why the connection is of no use any more, or the last one was; NULL: it is */
    bool hopeless;       /* and another one would not be either */
    bool wanted;         /* the driver is ready: rings are to run whenever there is a back end */
    bool interrupted;    /* the rings ran when the connection ended: where they are has to be found out */
    bool again;          /* the rings have run before since the driver is ready */
    bool awaited;        /* a back end is looked for without rings, too */
    bool config_asked;   /* the config space is on its way */

    /* Where back ends count what they have in hand, since the driver is ready; fd -1: nowhere. Not for us to look at.
     */
    int in_flight_fd;
    struct vhost_user_inflight in_flight;
    struct vhost_user_ring rings[VHOST_USER_RINGS_MAX];
};

/*
 * Connects and agrees; `features` and `config` are then known. Errors begin with the quoted path. The struct is the
 * caller's, who closes it with vhost_user_close, after an error as well.
 */
struct error *vhost_user_open(struct vhost_user *front, const struct vhost_user_needs *needs, struct event_loop *loop,
                              const struct vhost_user_owner *owner_ops, void *owner);

/*
 * Hands the back end guest memory (which must be shared, see guest_memory_map) and the `rings` (queue_count of them:
 * copied), and lets it run; if it is away, as soon as it is back. Does not wait. False when it can never work.
 */
bool vhost_user_start(struct vhost_user *front, const struct guest_memory *memory, uint64_t driver_features,
                      const struct vhost_user_ring *rings);

/*
 * Takes the rings back and fills in where each is. When the back end does not answer, the connection is closed; where
 * the rings are is then found out when they start again.
 */
void vhost_user_stop(struct vhost_user *front);
/* How long there is patience for now, VHOST_USER_PATIENCE_MS at most; and that so much was waited in vain. */
uint64_t vhost_user_patience_left(struct vhost_user_patience *patience, uint64_t now_us);
void vhost_user_patience_spend(struct vhost_user_patience *patience, uint64_t waited_us);
/* Starts the rings that vhost_user_stop took, as they are. */
void vhost_user_resume(struct vhost_user *front);

/* Has the back end serve ring `index`, which is ready, or leave it alone; now, or when it comes back. */
void vhost_user_enable(struct vhost_user *front, unsigned index, bool enabled);

/* Looks for a back end until there is one again, or vhost_user_stop; see vhost_user_is_there. */
void vhost_user_await(struct vhost_user *front);
/* Whether a back end is connected, agreed with, and has no rings. */
bool vhost_user_is_there(const struct vhost_user *front);

/* Reads the config space again; owner_ops->config_changed is called when it differs. */
struct error *vhost_user_config_read(struct vhost_user *front);

void vhost_user_close(struct vhost_user *front);

/*
 * Rings a bell, an eventfd that a back end has, too: it may have made a write wait, and filled it. One that is full has
 * been rung.
 */
void vhost_user_ring_bell(int fd);

/* The back end has just vanished: notes whether it had anything in hand. */
void vhost_user_ring_lost(struct vhost_user_ring *ring);

/*
 * Where a ring whose back end vanished goes on: at the used index, when it was idle then, or when all that was given
 * back lately came in the order in which it was made available, so that what is left is what stands from there on.
 * False when it cannot be told.
 */
bool vhost_user_ring_recover(const struct vhost_user_ring *ring, uint16_t *base);

/*
 * Which requests such a ring has in flight, whatever the order was: fills in their heads, at most ring->size. False
 * when they cannot be told. Good enough to refuse them, not to do them again: that takes vhost_user_ring_recover.
 */
bool vhost_user_ring_in_flight(const struct vhost_user_ring *ring, uint16_t *heads, unsigned *count);
