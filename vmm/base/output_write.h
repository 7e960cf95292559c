/*
 * Writing to a descriptor that somebody else made. stdout and stderr come as they are: O_NONBLOCK would change them for
 * everybody who shares them, and without it a pipe that others write to as well may fill up between a poll and a write,
 * and hold the whole VMM until somebody reads.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/*
 * As write(2) of at most PIPE_BUF bytes to a descriptor of any flags, but never waits: EAGAIN where it would. (On pipes
 * of kernels before 6.5, and on terminals, which know no RWF_NOWAIT, that rests on a poll right before it.) No lock, no
 * allocation: a signal handler may call it.
 */
ssize_t output_write(int fd, const void *data, size_t length);
