/*
 * A shared file system driven by the command line: ops=<op>,<op>,... each prints one line with the error that came (5:
 * EIO). i begins a session (FUSE_INIT), g asks for attributes, f forgets a node (which wants no answer), l asks for a
 * lock and does not wait, L waits for that, m asks several times at once, b makes a descriptor available that is none
 * and waits until the device has had enough, R resets the device and opens it again, p waits for a byte on the serial
 * port.
 */
#include "tests/guest/lib/virtio.h"

enum { FUSE_FORGET = 2, FUSE_GETATTR = 3, FUSE_INIT = 26, FUSE_SETLKW = 33, HIGH_PRIORITY = 0, REQUESTS = 1, MANY = 5 };

struct in_header {
    uint32_t length;
    uint32_t opcode;
    uint64_t unique;
    uint64_t node;
    uint32_t uid, gid, pid, padding;
};

struct out_header {
    uint32_t length;
    int32_t error;
    uint64_t unique;
};

static struct virtio files;
static struct in_header questions[MANY + 1];
static struct out_header answers[MANY + 1];
static uint64_t unique;

static void open_device(void)
{
    guest_expect(virtio_open(&files, VIRTIO_FS, 0, 2), "no file system");
}

static void ask(unsigned slot, uint32_t opcode)
{
    questions[slot] = (struct in_header){.length = sizeof(questions[0]), .opcode = opcode, .unique = ++unique};
    answers[slot] = (struct out_header){0};
    queue_add(&files.queues[REQUESTS],
              (struct buffer[]){{&questions[slot], sizeof(questions[0]), false}, {&answers[slot], 64, true}}, 2);
    virtio_notify(&files, REQUESTS);
}

static void hear(unsigned slot)
{
    const struct out_header *answer = &answers[slot];

    guest_expect(answer->length == sizeof(*answer) && answer->unique == questions[slot].unique, "no answer to that");
}

static void ask_and_hear(const char *name, uint32_t opcode)
{
    ask(0, opcode);
    queue_wait(&files.queues[REQUESTS]);
    hear(0);
    serial_result(name, (uint64_t)-answers[0].error);
}

static void ask_many(void)
{
    uint32_t errors = 0;

    for (unsigned i = 0; i < MANY; i++)
        ask(i, FUSE_GETATTR);
    for (unsigned i = 0; i < MANY; i++)
        queue_wait(&files.queues[REQUESTS]);
    for (unsigned i = 0; i < MANY; i++) {
        hear(i);
        errors |= (uint32_t)-answers[i].error;
    }
    serial_result("many", errors);
}

static void forget(void)
{
    struct buffer buffer = {&questions[0], sizeof(questions[0]), false};

    questions[0] = (struct in_header){.length = sizeof(questions[0]), .opcode = FUSE_FORGET, .unique = ++unique};
    serial_result("forget", virtio_request(&files, HIGH_PRIORITY, &buffer, 1));
}

static void break_queue(void)
{
    struct queue *queue = &files.queues[REQUESTS];

    queue->available.ring[queue->available.index % queue->size] = queue->size;
    queue->available.index++;
    virtio_notify(&files, REQUESTS);
    while ((virtio_read(&files, REG_STATUS) & STATUS_NEEDS_RESET) == 0)
        ;
    serial_puts("broken\n");
}

static void run_op(char op)
{
    switch (op) {
    case 'i':
        ask_and_hear("init", FUSE_INIT);
        break;
    case 'g':
        ask_and_hear("attributes", FUSE_GETATTR);
        break;
    case 'm':
        ask_many();
        break;
    case 'f':
        forget();
        break;
    case 'l':
        ask(MANY, FUSE_SETLKW);
        serial_puts("locking\n");
        break;
    case 'L':
        queue_wait(&files.queues[REQUESTS]);
        hear(MANY);
        serial_result("lock", (uint64_t)-answers[MANY].error);
        break;
    case 'b':
        break_queue();
        break;
    case 'R':
        open_device();
        serial_puts("reopened\n");
        break;
    case 'p':
        serial_puts("waiting\n");
        serial_get();
        break;
    default:
        guest_fail("unknown op");
    }
}

void guest_main(void)
{
    char ops[128];

    guest_expect(cmdline_value("ops", ops, sizeof(ops)), "ops= is missing");
    open_device();
    for (char *op = ops; *op != '\0'; op++)
        if (*op != ',')
            run_op(*op);
    serial_puts("done\n");
}
