/*
 * Resources that give themselves back at the end of their scope. `take_*` moves a value out so that the cleanup
 * does nothing: `return take_fd(&fd);`.
 */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define cleanup_fd __attribute__((cleanup(fd_cleanup)))
#define cleanup_free __attribute__((cleanup(free_cleanup)))

/* The struct of `type` whose field `member` is at `pointer`. */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - __builtin_offsetof(type, member)))
#define array_length(array) (sizeof(array) / sizeof((array)[0]))

/* Closes *fd when it is not negative and makes it -1. errno is left as it was. */
void fd_close(int *fd);

static inline void fd_cleanup(int *fd)
{
    fd_close(fd);
}

static inline int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* `pointer` is the address of a pointer of any object type. */
static inline void free_cleanup(void *pointer)
{
    free(*(void **)pointer);
}

static inline void *take_pointer(void *pointer)
{
    void *taken = *(void **)pointer;

    *(void **)pointer = NULL;
    return taken;
}
