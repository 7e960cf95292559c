/*
 * The protocol between the host (`mayfly run`) and the guest's init.
 *
 * It runs over one virtio-console device with multiport, on four named ports. The guest finds a
 * port by its name in /sys/class/virtio-ports/<vportNpM>/name:
 *
 *   mayfly.control   both ways       frames, described below
 *   mayfly.stdin     host to guest   raw bytes; the host closing the port (PORT_OPEN = 0) is the
 *                                    end of input: the guest reads what is left, then 0
 *   mayfly.stdout    guest to host   raw bytes
 *   mayfly.stderr    guest to host   raw bytes
 *
 * The device opens its ports (PORT_OPEN = 1) in the order of their numbers, control having the
 * highest, so that when control is open all are. It holds back what is for the guest until the guest
 * has opened the port (Linux drops what comes earlier), and puts the last bytes of stdin into the
 * used ring before it closes the port.
 *
 * A frame is a struct protocol_header followed by `length` bytes of payload, all little-endian,
 * packed and unaligned. Frames follow each other without padding. Either side ends the conversation
 * on a frame that breaks the rules below; the guest is untrusted, so the host checks every length
 * and every string.
 *
 *   host                          guest
 *                  <--  HELLO     as soon as the control port is open
 *   RUN            -->            exactly one; may be sent before HELLO has arrived
 *                  <--  STARTED   the command has been executed: execve has succeeded
 *   SIGNAL         -->            any number, after RUN (kept until the command runs)
 *                  <--  EXITED    the command is over, every file system is clean; or
 *                  <--  FAILED    the command was not executed; nothing comes after either
 *   BYE            -->            the host has all it wants; the guest resets the machine
 *
 * Ports are separate queues, so EXITED may overtake output that the device has not taken yet.
 * EXITED therefore says how many bytes each output port carried; the host reads on until it has
 * them, then sends BYE (or closes the control port, which means the same, or simply ends the VMM:
 * nothing in the guest needs the time any more).
 *
 * This header is shared by the host and the guest and needs nothing but <stdint.h>.
 */
#pragma once

#include <stdint.h>

/* Told in HELLO. A host that meets another version refuses it, with both numbers in the message. */
#define PROTOCOL_VERSION 1u

#define PROTOCOL_PORT_CONTROL "mayfly.control"
#define PROTOCOL_PORT_STDIN "mayfly.stdin"
#define PROTOCOL_PORT_STDOUT "mayfly.stdout"
#define PROTOCOL_PORT_STDERR "mayfly.stderr"

/* The longest payload of any frame, in bytes (the header not counted). */
#define PROTOCOL_PAYLOAD_MAX (1u << 20)

/* What a frame is. Host-to-guest types are below 0x100, guest-to-host types from 0x100 on. */
enum protocol_type {
    PROTOCOL_RUN = 0x001,     /* struct protocol_run, then its strings */
    PROTOCOL_SIGNAL = 0x002,  /* struct protocol_signal */
    PROTOCOL_BYE = 0x003,     /* no payload */
    PROTOCOL_HELLO = 0x100,   /* struct protocol_hello */
    PROTOCOL_STARTED = 0x101, /* struct protocol_started */
    PROTOCOL_EXITED = 0x102,  /* struct protocol_exited */
    PROTOCOL_FAILED = 0x103,  /* struct protocol_failed, then its text */
};

/* Ahead of every payload. */
struct protocol_header {
    uint32_t type;   /* enum protocol_type */
    uint32_t length; /* bytes of payload after this header; at most PROTOCOL_PAYLOAD_MAX */
} __attribute__((packed));

/* In struct protocol_run, `flags`. Bits not named here must be zero. */
enum protocol_run_flags {
    /* The command's stdin is /dev/null: the guest never opens the stdin port. */
    PROTOCOL_RUN_NO_STDIN = 1u << 0,
    /* stderr goes where stdout goes, in the order written: nothing comes on the stderr port. */
    PROTOCOL_RUN_MERGE_STDERR = 1u << 1,
};

/*
 * RUN: the command. After the struct come exactly 2 + argc + envc strings, each ended by a NUL
 * byte, and nothing else:
 *
 *   cwd          the working directory; empty for the default, "/"
 *   hostname     the host name to set; empty leaves it alone
 *   argv[argc]   argv[0] is looked up in PATH unless it has a slash
 *   envp[envc]   "NAME=value"; PATH, HOME and TERM have defaults that these override
 */
struct protocol_run {
    uint32_t argc;  /* at least 1 */
    uint32_t envc;  /* may be 0 */
    uint32_t flags; /* enum protocol_run_flags */
} __attribute__((packed));

/* SIGNAL: sent to the command's process group. */
struct protocol_signal {
    uint32_t signo; /* Linux x86-64 signal number, 1 to 64; others are ignored */
} __attribute__((packed));

/* HELLO: the guest is up. Times are nanoseconds of its CLOCK_BOOTTIME: since early kernel boot. */
struct protocol_hello {
    uint32_t version;       /* PROTOCOL_VERSION of the guest */
    uint64_t init_start_ns; /* at init's first instructions */
    uint64_t hello_ns;      /* when this frame was made: file systems are mounted by then */
} __attribute__((packed));

/* STARTED: execve of the command has succeeded. */
struct protocol_started {
    uint32_t pid;     /* the command's process id in the guest */
    uint64_t time_ns; /* guest's CLOCK_BOOTTIME */
} __attribute__((packed));

/* In struct protocol_exited, `kind`. */
enum protocol_exit_kind {
    PROTOCOL_EXIT_CODE = 0,   /* the command returned: `code` is its exit code, 0 to 255 */
    PROTOCOL_EXIT_SIGNAL = 1, /* a signal killed it: `code` is its number (a shell says 128 + it) */
};

/* EXITED: the command is over and all its output is in the ports' queues. */
struct protocol_exited {
    uint32_t kind;         /* enum protocol_exit_kind */
    uint32_t code;         /* see there */
    uint64_t stdout_bytes; /* in all, written to mayfly.stdout */
    uint64_t stderr_bytes; /* in all, written to mayfly.stderr */
    uint64_t exit_ns;      /* guest's CLOCK_BOOTTIME when the command's exit was noticed */
    uint64_t time_ns;      /* and when this frame was made: output drained, file systems clean */
} __attribute__((packed));

/* FAILED: the command never ran. After the struct comes a message of
 * length - sizeof(struct protocol_failed) bytes of UTF-8, without a NUL and without a newline, for
 * the user: it names the thing and the reason. */
struct protocol_failed {
    uint32_t exit_code; /* for the host to exit with: 127 not found, 126 not executable, 125 else */
    uint64_t time_ns;   /* guest's CLOCK_BOOTTIME */
} __attribute__((packed));
