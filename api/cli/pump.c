#include "api/cli/pump.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void pump_init(struct pump *pump, int from, int to)
{
    struct stat status = {0};

    *pump = (struct pump){.from = from, .to = to, .buffer = malloc(PUMP_BUFFER_SIZE)};
    if (pump->buffer == NULL)
        abort();
    if (to < 0 || fstat(to, &status) != 0)
        return;
    pump->to_socket = S_ISSOCK(status.st_mode);
    pump->to_pieces = !S_ISREG(status.st_mode);
}

void pump_free(struct pump *pump)
{
    free(pump->buffer);
    *pump = (struct pump){.from = -1, .to = -1};
}

bool pump_empty(const struct pump *pump)
{
    return pump->start == pump->end;
}

bool pump_done(const struct pump *pump)
{
    return pump->from < 0 && pump_empty(pump);
}

void pump_poll(const struct pump *pump, struct pollfd wait[2])
{
    bool empty = pump_empty(pump);

    wait[0] = (struct pollfd){.fd = empty ? pump->from : -1, .events = POLLIN};
    wait[1] = (struct pollfd){.fd = empty ? -1 : pump->to, .events = POLLOUT};
}

static void deliver(struct pump *pump)
{
    size_t length = pump->end - pump->start;
    ssize_t written;

    if (pump->to_socket) {
        written = send(pump->to, pump->buffer + pump->start, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        if (pump->to_pieces && length > PIPE_BUF)
            length = PIPE_BUF;
        written = write(pump->to, pump->buffer + pump->start, length);
    }
    if (written >= 0) {
        pump->start += (size_t)written;
    } else if (errno != EAGAIN && errno != EINTR) {
        pump->error = errno;
        pump->to = -1;
        pump->start = pump->end;
    }
}

static void fetch(struct pump *pump)
{
    ssize_t got = read(pump->from, pump->buffer, PUMP_BUFFER_SIZE);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        pump->from = -1;
        return;
    }
    pump->taken += (uint64_t)got;
    pump->start = 0;
    pump->end = pump->to < 0 ? 0 : (size_t)got;
    /* Most often there is room: try at once. A pipe or terminal must be asked first. */
    if (!pump_empty(pump) && (pump->to_socket || !pump->to_pieces))
        deliver(pump);
}

void pump_run(struct pump *pump, const struct pollfd wait[2])
{
    if (wait[1].fd >= 0 && wait[1].revents != 0)
        deliver(pump);
    else if (wait[0].fd >= 0 && wait[0].revents != 0)
        fetch(pump);
}
