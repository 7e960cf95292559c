/*
 * Speaks rootfs/protocol.h as the guest's init does, without Linux: `mayfly run` can be tested wherever freestanding
 * guests run. The "commands" are built in:
 *
 *   echo ARG...    the arguments on stdout, then a newline
 *   warn ARG...    the same on stderr
 *   env            cwd, hostname and the environment, a line each
 *   cat            stdin to stdout until its end
 *   big N          N times 4 KiB on stdout, each begins with the next letter eight times
 *   exit N         ends with code N
 *   kill N         ends as if signal N had killed it
 *   wait           prints the first signal it is sent, then ends as killed by it
 *   deaf           says that it waits, and of every signal that it is ignored
 *   until_signal   writes the same line again and again until a signal kills it
 *   missing        answers FAILED with 127
 *   panic          says so on the serial port and resets
 *   vanish         resets without a word
 *   long, kind, short, twice, more   frames that break the protocol
 *
 * On the kernel command line: fake=hang never says HELLO, fake=old greets with a protocol version that nobody has.
 *
 * After EXITED or FAILED it waits for BYE, or for the end of the control connection, and resets.
 */
#include "rootfs/protocol.h"
#include "tests/guest/lib/console.h"

enum { ARGUMENTS_MAX = 64, RUN_MAX = 16384 };

static struct console console;
static struct console_port *control, *standard_in, *standard_out, *standard_error;
static uint8_t run_payload[RUN_MAX];
static uint8_t bytes[4096] __attribute__((aligned(4096)));
static const char *arguments[ARGUMENTS_MAX];
static uint32_t argument_count, environment_count, run_flags;
static const char *working_directory, *hostname;
static uint64_t stdout_bytes, stderr_bytes, started_at;

static uint64_t now_ns(void)
{
    return (time_stamp() - started_at) / 2; /* of a processor of 2 GHz: only differences are looked at */
}

static void send_frame(uint32_t type, const void *payload, uint32_t length)
{
    static uint8_t frame[256];
    struct protocol_header header = {type, length};

    guest_expect(sizeof(header) + length <= sizeof(frame), "frame too long");
    memcpy(frame, &header, sizeof(header));
    memcpy(frame + sizeof(header), payload, length);
    console_write(&console, control, frame, (uint32_t)sizeof(header) + length);
}

static void send_header(uint32_t type, uint32_t length)
{
    struct protocol_header header = {type, length};

    console_write(&console, control, &header, sizeof(header));
}

static void send_hello(uint32_t version)
{
    struct protocol_hello hello = {version, 0, now_ns()};

    send_frame(PROTOCOL_HELLO, &hello, sizeof(hello));
}

static void send_started(void)
{
    struct protocol_started started = {42, now_ns()};

    send_frame(PROTOCOL_STARTED, &started, sizeof(started));
}

static void send_exited(uint32_t kind, uint32_t code)
{
    struct protocol_exited exited = {kind, code, stdout_bytes, stderr_bytes, now_ns(), now_ns()};

    send_frame(PROTOCOL_EXITED, &exited, sizeof(exited));
}

/* Fills `to`; false when the host closed the connection first. */
static bool receive(void *to, uint32_t size)
{
    uint8_t *at = to;

    while (size > 0) {
        bool open = control->host_open;
        uint32_t got = console_read(&console, control, at, size);

        if (got == 0 && !open)
            return false;
        at += got;
        size -= got;
        console_poll(&console);
    }
    return true;
}

static void write_out(const void *from, uint32_t size)
{
    console_write(&console, standard_out, from, size);
    stdout_bytes += size;
}

static void write_error(const void *from, uint32_t size)
{
    console_write(&console, standard_error, from, size);
    stderr_bytes += size;
}

static void receive_run(void)
{
    struct protocol_header header;
    struct protocol_run run;
    const char *at = (const char *)run_payload + sizeof(run);

    guest_expect(receive(&header, sizeof(header)), "the host went away before RUN");
    guest_expect(header.type == PROTOCOL_RUN && header.length <= RUN_MAX, "the first frame is not RUN");
    guest_expect(receive(run_payload, header.length), "the host went away within RUN");
    memcpy(&run, run_payload, sizeof(run));
    argument_count = run.argc;
    environment_count = run.envc;
    run_flags = run.flags;
    guest_expect(run.argc >= 1 && run.argc + run.envc <= ARGUMENTS_MAX, "argc");
    working_directory = at;
    at += text_length(at) + 1;
    hostname = at;
    at += text_length(at) + 1;
    for (uint32_t i = 0; i < run.argc + run.envc; i++) {
        arguments[i] = at;
        at += text_length(at) + 1;
    }
    guest_expect(at == (const char *)run_payload + header.length, "RUN has a length of its own");
}

static void write_arguments(void (*write)(const void *, uint32_t))
{
    for (uint32_t i = 1; i < argument_count; i++) {
        if (i > 1)
            write(" ", 1);
        write(arguments[i], (uint32_t)text_length(arguments[i]));
    }
    write("\n", 1);
}

static void write_line(const char *text)
{
    write_out(text, (uint32_t)text_length(text));
    write_out("\n", 1);
}

static uint32_t number_argument(void)
{
    return argument_count > 1 ? (uint32_t)text_number(arguments[1]) : 0;
}

static void command_echo(void)
{
    send_started();
    write_arguments(write_out);
    send_exited(PROTOCOL_EXIT_CODE, 0);
}

static void command_warn(void)
{
    send_started();
    write_arguments(write_error);
    send_exited(PROTOCOL_EXIT_CODE, 0);
}

static void command_env(void)
{
    send_started();
    write_line(working_directory);
    write_line(hostname);
    for (uint32_t i = 0; i < environment_count; i++)
        write_line(arguments[argument_count + i]);
    write_line((run_flags & PROTOCOL_RUN_NO_STDIN) != 0 ? "no stdin" : "stdin");
    send_exited(PROTOCOL_EXIT_CODE, 0);
}

static void command_cat(void)
{
    send_started();
    while ((run_flags & PROTOCOL_RUN_NO_STDIN) == 0) {
        bool open = standard_in->host_open;
        uint32_t got = console_read(&console, standard_in, bytes, sizeof(bytes));

        if (got == 0 && !open)
            break;
        write_out(bytes, got);
        console_poll(&console);
    }
    send_exited(PROTOCOL_EXIT_CODE, 0);
}

static void command_big(void)
{
    uint32_t pages = number_argument();

    send_started();
    memset(bytes, '.', sizeof(bytes));
    for (uint32_t i = 0; i < pages; i++) {
        memset(bytes, 'a' + (int)(i % 26), 8);
        write_out(bytes, sizeof(bytes));
    }
    send_exited(PROTOCOL_EXIT_CODE, 0);
}

static void command_exit(void)
{
    send_started();
    send_exited(PROTOCOL_EXIT_CODE, number_argument());
}

static void command_kill(void)
{
    send_started();
    send_exited(PROTOCOL_EXIT_SIGNAL, number_argument());
}

/* The next SIGNAL's number; 0 when the host is gone. */
static uint32_t receive_signal(void)
{
    struct {
        struct protocol_header header;
        struct protocol_signal signal;
    } __attribute__((packed)) frame;

    if (!receive(&frame, sizeof(frame)))
        return 0;
    guest_expect(frame.header.type == PROTOCOL_SIGNAL && frame.header.length == sizeof(frame.signal), "not a SIGNAL");
    return frame.signal.signo;
}

static void command_wait(void)
{
    uint32_t signo;

    send_started();
    write_line("waiting");
    signo = receive_signal();
    write_line(signo == 15 ? "TERM" : signo == 2 ? "INT" : "another signal");
    send_exited(PROTOCOL_EXIT_SIGNAL, signo);
}

static void command_deaf(void)
{
    send_started();
    write_line("waiting");
    while (receive_signal() != 0)
        write_line("ignored");
}

static void command_until_signal(void)
{
    send_started();
    while (control->unread_length == 0 && !queue_has_used(&console.virtio.queues[2 + 2 * (control - console.ports)])) {
        write_line("more and more");
        console_poll(&console);
    }
    send_exited(PROTOCOL_EXIT_SIGNAL, receive_signal());
}

static void command_missing(void)
{
    static const char text[] = "no-such-command: not found in PATH";
    struct {
        struct protocol_failed failed;
        char text[sizeof(text) - 1];
    } __attribute__((packed)) message = {{127, 0}, {0}};

    memcpy(message.text, text, sizeof(message.text));
    send_frame(PROTOCOL_FAILED, &message, sizeof(message));
}

static void command_panic(void)
{
    send_started();
    serial_puts("Kernel panic - not syncing: a test\n");
    guest_reset();
}

static void command_vanish(void)
{
    guest_reset();
}

static void command_long(void)
{
    send_header(PROTOCOL_STARTED, PROTOCOL_PAYLOAD_MAX + 1);
}

static void command_kind(void)
{
    send_header(0x777, 0);
}

static void command_short(void)
{
    send_started();
    send_frame(PROTOCOL_EXITED, "abc", 3);
}

static void command_twice(void)
{
    send_started();
    send_started();
}

/* Claims more output than there is, and hangs up. */
static void command_more(void)
{
    send_started();
    write_line("less");
    stdout_bytes += 1000;
    send_exited(PROTOCOL_EXIT_CODE, 0);
    guest_reset();
}

static const struct {
    const char *name;
    void (*run)(void);
} commands[] = {
    {"echo", command_echo},   {"warn", command_warn},     {"env", command_env},
    {"cat", command_cat},     {"big", command_big},       {"exit", command_exit},
    {"kill", command_kill},   {"wait", command_wait},     {"deaf", command_deaf},
    {"panic", command_panic}, {"vanish", command_vanish}, {"long", command_long},
    {"kind", command_kind},   {"short", command_short},   {"missing", command_missing},
    {"twice", command_twice}, {"more", command_more},     {"until_signal", command_until_signal},
};

static void run_command(void)
{
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (text_equal(commands[i].name, arguments[0])) {
            commands[i].run();
            return;
        }
    }
    command_missing();
}

/* BYE, or the end of the connection. */
static void await_bye(void)
{
    struct protocol_header header = {0, 0};

    while (header.type != PROTOCOL_BYE && receive(&header, sizeof(header)))
        while (header.length-- > 0 && receive(bytes, 1))
            ;
}

void guest_main(void)
{
    started_at = time_stamp();
    guest_expect(console_open(&console), "no console");
    control = console_find(&console, PROTOCOL_PORT_CONTROL);
    standard_in = console_find(&console, PROTOCOL_PORT_STDIN);
    standard_out = console_find(&console, PROTOCOL_PORT_STDOUT);
    standard_error = console_find(&console, PROTOCOL_PORT_STDERR);
    console_set_open(&console, control, true);
    console_set_open(&console, standard_out, true);
    console_set_open(&console, standard_error, true);
    while (!control->host_open)
        console_poll(&console);
    if (cmdline_has("fake=hang"))
        guest_halt();
    send_hello(cmdline_has("fake=old") ? PROTOCOL_VERSION + 7 : PROTOCOL_VERSION);
    receive_run();
    if ((run_flags & PROTOCOL_RUN_NO_STDIN) == 0)
        console_set_open(&console, standard_in, true);
    run_command();
    await_bye();
}
