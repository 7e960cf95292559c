/*
 * What the files of virtio-vsock share; nobody else needs it.
 *
 *   vsock.c             the device: its queues, what the guest sends, its operations
 *   vsock_receive.c     what the guest receives
 *   vsock_connection.c  one connection: its place in the table, its host socket, its end
 *   vsock_output.c      bytes and messages on their way to a host socket
 *   vsock_listener.c    host peers that come and say where they want to go
 *
 * A connection stands on `pending` exactly while it has something for the guest. Its host socket is watched only for
 * what can be handled when it comes: input while the guest has credit and nothing read is waiting, output while
 * something waits for it. So a guest without buffers or a host peer that does not read costs nothing.
 */
#pragma once

#include <linux/virtio_vsock.h>

#include "vmm/backend/unix_socket.h"
#include "vmm/base/byte_ring.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/list.h"
#include "vmm/config.h"
#include "vmm/virtio/device.h"

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUE_COUNT };

enum {
    VSOCK_HEADER_SIZE = sizeof(struct virtio_vsock_hdr),
    VSOCK_HOST_CID = 2,
    VSOCK_PAYLOAD_MAX = 64 << 10, /* of one packet, either way */
    VSOCK_CONNECTIONS_MAX = 1024, /* with those that are coming or going; what is above is refused, or waits */
    VSOCK_BUCKETS = 512,
    VSOCK_REFUSALS_MAX = 128,
    VSOCK_LINE_SIZE = 32,          /* "CONNECT <port>\n" and some blanks */
    VSOCK_MESSAGE_MAX = 256 << 10, /* bytes in a message from the host */
    /*
     * What the guest may send ahead of its host peer. When the large buffers are given away, later connections get
     * small ones. Memory is used only for what a host peer did not take. A message goes into a Unix socket whole, whose
     * buffer has 208 KiB by default.
     */
    VSOCK_BUFFER_LARGE = 256 << 10,
    VSOCK_BUFFER_SMALL = 16 << 10,
    VSOCK_BUFFER_MESSAGES = 128 << 10,
    VSOCK_BUFFERS_BUDGET = 16 << 20,
    VSOCK_KEPT_MAX = 64 << 20, /* a connection that would keep more than this ends */
};
/* How long the guest may take to answer a request or a shutdown (Linux' own limit), and a host peer to say CONNECT when
 * others want its place. */
#define VSOCK_PATIENCE_US 8000000ull

enum vsock_state {
    VSOCK_GREETING,   /* a host peer has not yet said where it wants to go; unknown to the guest */
    VSOCK_REQUESTED,  /* the guest has been asked, or is about to be */
    VSOCK_CONNECTING, /* the guest asked, the host listener's backlog is full */
    VSOCK_ESTABLISHED,
    VSOCK_CLOSING, /* the host peer is gone, the guest knows or is about to, and has to agree */
    VSOCK_DEAD,    /* nothing is left but to send RST */
};

/* Packets to the guest, in the order in which they are sent: data comes after VSOCK_OWES_RESPONSE. */
enum {
    VSOCK_OWES_RST = 1 << 0,
    VSOCK_OWES_REQUEST = 1 << 1,
    VSOCK_OWES_RESPONSE = 1 << 2,
    VSOCK_OWES_SHUTDOWN = 1 << 3,
    VSOCK_OWES_CREDIT = 1 << 4,         /* to tell how much the guest may send */
    VSOCK_OWES_CREDIT_REQUEST = 1 << 5, /* to ask how much it takes */
};

struct vsock_connection {
    struct vsock *vsock;
    struct list all;     /* in vsock->connections */
    struct list pending; /* in vsock->pending */
    struct list waiting; /* in vsock->expiring, vsock->connecting or vsock->greeting */
    struct vsock_connection *next_in_bucket;
    bool in_table;
    uint16_t type; /* VIRTIO_VSOCK_TYPE_* */
    uint32_t guest_port;
    uint32_t host_port;
    enum vsock_state state;
    uint8_t owes;
    bool request_sent;
    uint64_t deadline_us; /* while on one of these */

    struct event_source socket; /* fd -1: none */
    bool hung_up;
    bool input_ends; /* the end of the peer's output is in the socket, if it was not read yet */
    bool readable;   /* there may be input: who reads it finds out */
    /* Directions that are over. */
    bool host_sends_no_more;
    bool host_takes_no_more;
    bool guest_sends_no_more;
    bool guest_takes_no_more;
    bool host_told_end;    /* SHUT_WR was called */
    bool host_told_close;  /* SHUT_RD was called */
    uint8_t told_shutdown; /* VIRTIO_VSOCK_SHUTDOWN_* that the guest has been sent */

    /* Credit (5.10.6.3). Counters wrap. */
    uint32_t buffer_size; /* what we advertise */
    uint32_t received;    /* bytes from the guest */
    uint32_t forwarded;   /* of those: passed on or dropped */
    uint32_t told_forwarded;
    uint32_t guest_buffer_size;
    uint32_t guest_forwarded;
    uint32_t sent;
    bool asked_for_credit; /* since the guest last gave some */
    uint32_t next_length;  /* of the message that waits in the host socket for credit; else 0 */
    uint8_t batch;         /* receive buffers to fill in one read */

    struct byte_ring output;
    uint32_t
        open_message; /* bytes so far of the message at the end of `output`; its head is there when message_is_open */
    bool message_is_open;
    uint8_t line_length;
    uint8_t early; /* where the bytes in `line` begin that came with it and are the guest's, and how many they are */
    uint8_t early_length;
    char line[VSOCK_LINE_SIZE];
};

/* An RST to somebody who has no connection. */
struct vsock_refusal {
    uint32_t guest_port;
    uint32_t host_port;
    uint16_t type;
};

/* A message from a SOCK_SEQPACKET peer that is being sent to the guest: one at a time, as receive buffers are common.
 */
struct vsock_message {
    struct vsock_connection *connection; /* NULL: none */
    uint8_t *data;                       /* VSOCK_MESSAGE_MAX bytes, once there was one */
    uint32_t length;
    uint32_t sent;
};

enum { VSOCK_STREAMS, VSOCK_MESSAGES, VSOCK_LISTENERS };

struct vsock_listener {
    struct event_source source; /* fd -1: none */
    struct unix_socket_file file;
    char *path; /* owned; NULL: none */
    uint16_t type;
    struct vsock *vsock;
};

struct vsock {
    struct virtio_device device;
    struct virtio_vsock_config config;
    const char *uds_path; /* of the streams' listener; what the guest connects to is called after it */
    struct vsock_listener listeners[VSOCK_LISTENERS];
    bool listener_failed; /* accept failed: until the retry timer */
    uint32_t next_host_port;

    struct event_timer turn;     /* set to the next turn of the loop: looks at everything */
    struct event_timer patience; /* for the first of `expiring`, and of `greeting` when no more connections fit */
    struct event_timer retry;    /* for `connecting` and the listener */
    uint64_t paused_us;

    size_t connection_count;
    size_t buffers_given; /* of VSOCK_BUFFERS_BUDGET */
    size_t kept;          /* of VSOCK_KEPT_MAX */
    struct list connections;
    struct list pending;
    struct list expiring;
    struct list connecting;
    struct list greeting; /* host peers that have not said yet where they want to go */
    struct vsock_message message;
    struct vsock_connection *called; /* whose socket is being served: what is watched there is settled after; or NULL */

    uint16_t refusal_first;
    uint16_t refusal_count;
    bool transmit_blocked; /* too many refusals wait for receive buffers */
    struct virtqueue queues[VSOCK_QUEUE_COUNT];
    struct vsock_refusal refusals[VSOCK_REFUSALS_MAX];
    struct vsock_connection *buckets[VSOCK_BUCKETS];
};

/* vsock.c */

/* Whether packets may move now. */
bool vsock_is_running(const struct vsock *vsock);
/* Looks at everything on the loop's next turn. */
void vsock_turn_later(struct vsock *vsock);
/* The guest broke the device: its connections end on the loop's next turn. */
void vsock_fail(struct vsock *vsock, const char *reason);
/* Notes an RST to be sent to a port that has no connection; there must be room. */
void vsock_refuse(struct vsock *vsock, uint32_t guest_port, uint32_t host_port, uint16_t type);

/* vsock_receive.c */

/*
 * Sends what is pending, as far as the guest has given buffers, and interrupts for both queues: whoever has taken
 * packets calls it. May free connections.
 */
void vsock_receive(struct vsock *vsock);
/* What the guest may still be sent on this connection. */
uint32_t vsock_credit(const struct vsock_connection *connection);

/* vsock_connection.c */

/* Makes a connection without ports; NULL when there are too many already, or without memory. */
struct vsock_connection *vsock_connection_new(struct vsock *vsock, uint16_t type, enum vsock_state state);
void vsock_connection_free(struct vsock_connection *connection);
struct vsock_connection *vsock_connection_find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port);
/* Enters it into the table under its ports. */
void vsock_connection_enter(struct vsock_connection *connection, uint32_t guest_port, uint32_t host_port);
/* Takes `fd` over. False, and the descriptor closed, when it cannot be watched. */
bool vsock_connection_attach(struct vsock_connection *connection, int fd);
/* The guest asked to be connected to a host port; answers, now or later. */
void vsock_connection_request(struct vsock *vsock, const struct virtio_vsock_hdr *header);
/* Tries again to reach listeners whose backlog was full. */
void vsock_connections_retry(struct vsock *vsock);
/* Ends it with an RST; its host peer sees the end, what waited for it is dropped. */
void vsock_connection_abort(struct vsock_connection *connection);
/* Draws the consequences of what has changed: ends, what is owed, what is watched. May free the connection. */
void vsock_connection_settle(struct vsock_connection *connection);
/* Whether there may be input that the guest takes now. */
bool vsock_connection_has_input(const struct vsock_connection *connection);
/* Gives the guest, or in VSOCK_GREETING the host peer, until VSOCK_PATIENCE_US from now. */
void vsock_connection_expect(struct vsock_connection *connection);
/* Ends those that the guest has forgotten, and host peers that keep others from coming. */
void vsock_connections_expire(struct vsock *vsock);
void vsock_connections_free(struct vsock *vsock);

/* vsock_output.c */

/* Passes `length` bytes of a packet's payload on, or keeps them. False when there is no memory, or no sense in it. */
bool vsock_output(struct vsock_connection *connection, const struct virtqueue_chain *chain, uint32_t length,
                  bool ends_message);
/* Passes on what was kept. False when the peer cannot take a message at all. */
bool vsock_output_flush(struct vsock_connection *connection);
/* Drops what was kept; it counts as forwarded. */
void vsock_output_drop(struct vsock_connection *connection);
/* Whether bytes wait that could be passed on. */
bool vsock_output_waits(const struct vsock_connection *connection);

/* vsock_listener.c */

struct error *vsock_listener_open(struct vsock_listener *listener, struct event_loop *loop);
void vsock_listener_close(struct vsock_listener *listener);
/* Watches for host peers, or no longer: while the guest's driver is away, or no more connections fit, they wait. */
void vsock_listeners_update(struct vsock *vsock);
/* Reads what a host peer says before it is connected. May free the connection. */
void vsock_greeting_read(struct vsock_connection *connection);
/* Tells the host peer that it is connected. False when it does not want to know. */
bool vsock_greeting_answer(struct vsock_connection *connection);
