#include "control.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* The longest frame that the guest sends: FAILED with its text. */
#define SEND_MAX 1024

int control_open(struct control *control, const char *path, uint64_t init_start)
{
    struct protocol_hello hello = {.version = PROTOCOL_VERSION, .init_start_ns = init_start};

    control->start = control->end = 0;
    control->closed = false;
    control->fd = open(path, O_RDWR | O_CLOEXEC);
    if (control->fd < 0) {
        return -1;
    }
    hello.hello_ns = clock_boottime();
    control_send(control, PROTOCOL_HELLO, &hello, sizeof(hello), NULL);
    return fcntl(control->fd, F_SETFL, O_RDWR | O_NONBLOCK);
}

/* Reads what is there; returns false when nothing came. */
static bool control_fill(struct control *control)
{
    ssize_t got;

    if (control->closed) {
        return false;
    }
    if (control->start > 0) {
        memmove(control->buffer, control->buffer + control->start, control->end - control->start);
        control->end -= control->start;
        control->start = 0;
    }
    got = read(control->fd, control->buffer + control->end, sizeof(control->buffer) - control->end);
    if (got > 0) {
        control->end += (size_t)got;
        return true;
    }
    control->closed = got == 0 || (errno != EAGAIN && errno != EINTR);
    return false;
}

enum frame_status control_receive(struct control *control, struct frame *frame)
{
    for (;;) {
        enum frame_status status = frame_find(frame, control->buffer + control->start, control->end - control->start);

        if (status == FRAME_COMPLETE) {
            control->start += frame_size(frame);
            return status;
        }
        if (status == FRAME_BROKEN) {
            control->closed = true;
            return status;
        }
        if (!control_fill(control)) {
            return FRAME_INCOMPLETE;
        }
    }
}

bool control_wait(struct control *control, struct frame *frame)
{
    while (control_receive(control, frame) != FRAME_COMPLETE) {
        struct pollfd wait = {.fd = control->fd, .events = POLLIN};

        if (control->closed) {
            return false;
        }
        poll(&wait, 1, -1);
    }
    return true;
}

void control_send(struct control *control, uint32_t type, const void *head, size_t head_size, const char *text)
{
    unsigned char frame[SEND_MAX];
    size_t text_size = text != NULL ? strlen(text) : 0;
    struct protocol_header header = {type, (uint32_t)(head_size + text_size)};
    size_t size = sizeof(header) + header.length;
    size_t sent = 0;

    if (control->fd < 0 || size > sizeof(frame)) {
        return;
    }
    memcpy(frame, &header, sizeof(header));
    memcpy(frame + sizeof(header), head, head_size);
    if (text_size > 0) {
        memcpy(frame + sizeof(header) + head_size, text, text_size);
    }
    while (sent < size && !control->closed) {
        ssize_t put = write(control->fd, frame + sent, size - sent);

        if (put > 0) {
            sent += (size_t)put;
        } else {
            struct pollfd wait = {.fd = control->fd, .events = POLLOUT};

            /* The queue is full, or the host is gone: that reads as a hang-up. */
            poll(&wait, 1, -1);
            control->closed = (wait.revents & POLLHUP) != 0;
        }
    }
}
