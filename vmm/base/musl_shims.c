/*
 * Debian's static archives were compiled against glibc with fortification: these are the checked variants they call.
 * musl has none; each does what the unchecked function does, and __memcpy_chk keeps its check.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

int __asprintf_chk(char **text, int flag, const char *format, ...);
int __fprintf_chk(FILE *file, int flag, const char *format, ...);
int __printf_chk(int flag, const char *format, ...);
int __snprintf_chk(char *text, size_t size, int flag, size_t room, const char *format, ...);
int __sprintf_chk(char *text, int flag, size_t room, const char *format, ...);
void __syslog_chk(int priority, int flag, const char *format, ...);
void *__memcpy_chk(void *to, const void *from, size_t length, size_t room);

int __asprintf_chk(char **text, int flag, const char *format, ...)
{
    va_list args;

    (void)flag;
    va_start(args, format);
    int length = vasprintf(text, format, args);
    va_end(args);
    return length;
}

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
    va_list args;

    (void)flag;
    va_start(args, format);
    int length = vfprintf(file, format, args);
    va_end(args);
    return length;
}

int __printf_chk(int flag, const char *format, ...)
{
    va_list args;

    (void)flag;
    va_start(args, format);
    int length = vprintf(format, args);
    va_end(args);
    return length;
}

int __snprintf_chk(char *text, size_t size, int flag, size_t room, const char *format, ...)
{
    va_list args;

    (void)flag;
    if (size > room)
        abort();
    va_start(args, format);
    int length = vsnprintf(text, size, format, args);
    va_end(args);
    return length;
}

int __sprintf_chk(char *text, int flag, size_t room, const char *format, ...)
{
    va_list args;

    (void)flag;
    va_start(args, format);
    int length = vsnprintf(text, room, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= room)
        abort();
    return length;
}

void __syslog_chk(int priority, int flag, const char *format, ...)
{
    va_list args;

    (void)flag;
    va_start(args, format);
    vsyslog(priority, format, args);
    va_end(args);
}

void *__memcpy_chk(void *to, const void *from, size_t length, size_t room)
{
    if (length > room)
        abort();
    return memcpy(to, from, length);
}
