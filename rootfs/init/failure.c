#include "failure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int failure_set(struct failure *failure, int exit_code, const char *format, ...)
{
    va_list arguments;

    failure->exit_code = exit_code;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof(failure->text), format, arguments);
    va_end(arguments);
    return -1;
}

int failure_errno(struct failure *failure, const char *format, ...)
{
    int code = errno;
    size_t used;
    va_list arguments;

    failure->exit_code = FAILURE_OTHER;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof(failure->text), format, arguments);
    va_end(arguments);
    used = strlen(failure->text);
    snprintf(failure->text + used, sizeof(failure->text) - used, ": %s", strerror(code));
    return -1;
}

void console_say(const char *text)
{
    int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0) {
        dprintf(fd, "init: %s\n", text);
    } else {
        /* "<2>": critical, so that it passes `quiet` and reaches an early console. */
        fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
        if (fd < 0) {
            return;
        }
        dprintf(fd, "<2>init: %s\n", text);
    }
    close(fd);
}
