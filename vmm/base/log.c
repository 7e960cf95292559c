#include "vmm/base/log.h"

#include "vmm/base/clock.h"
#include "vmm/base/output_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048, MODULE_MAX = 128 };

static struct {
    const char *instance;
    enum log_level level;
    bool show_level;
    bool show_origin;
    int fd;
    char module[MODULE_MAX];
    uint64_t dropped;
    uint64_t suppressed;
} state = {.instance = "anonymous-instance", .level = LOG_LEVEL_INFO, .fd = STDERR_FILENO};

static _Thread_local const char *thread_name = "main";
static _Thread_local struct log_held *held_line;

static const char *const level_names[] = {
    [LOG_LEVEL_OFF] = "OFF",   [LOG_LEVEL_ERROR] = "ERROR", [LOG_LEVEL_WARNING] = "WARN",
    [LOG_LEVEL_INFO] = "INFO", [LOG_LEVEL_DEBUG] = "DEBUG", [LOG_LEVEL_TRACE] = "TRACE",
};

void log_set_instance(const char *id)
{
    state.instance = id;
}

void log_set_thread(const char *name)
{
    thread_name = name;
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&state.level, level, __ATOMIC_RELAXED);
}

void log_set_format(bool show_level, bool show_origin)
{
    __atomic_store_n(&state.show_level, show_level, __ATOMIC_RELAXED);
    __atomic_store_n(&state.show_origin, show_origin, __ATOMIC_RELAXED);
}

/* Byte by byte: another thread that logs meanwhile may see a mixture, but always one that ends. */
void log_set_module(const char *prefix)
{
    for (size_t i = 0; i + 1 < MODULE_MAX; i++) {
        char c = prefix == NULL ? '\0' : prefix[i];

        __atomic_store_n(&state.module[i], c, __ATOMIC_RELAXED);
        if (c == '\0')
            return;
    }
}

static bool module_fits(const char *file)
{
    for (size_t i = 0; i < MODULE_MAX; i++) {
        char c = __atomic_load_n(&state.module[i], __ATOMIC_RELAXED);

        if (c == '\0')
            return true;
        if (file[i] != c)
            return false;
    }
    return true;
}

/*
 * A thread that is about to write may hold the old number: it stays what it is, a log. Closed, the number could be
 * that of a disk by the time the line is written.
 */
void log_set_fd(int fd)
{
    int old = __atomic_load_n(&state.fd, __ATOMIC_ACQUIRE);

    if (old == STDERR_FILENO) {
        __atomic_store_n(&state.fd, fd, __ATOMIC_RELEASE);
    } else if (fd == STDERR_FILENO) {
        __atomic_store_n(&state.fd, fd, __ATOMIC_RELEASE);
        close(old);
    } else {
        dup3(fd, old, O_CLOEXEC);
        close(fd);
    }
}

bool log_is_stderr(void)
{
    return __atomic_load_n(&state.fd, __ATOMIC_RELAXED) == STDERR_FILENO;
}

uint64_t log_dropped(void)
{
    return __atomic_load_n(&state.dropped, __ATOMIC_RELAXED);
}

uint64_t log_suppressed(void)
{
    return __atomic_load_n(&state.suppressed, __ATOMIC_RELAXED);
}

bool log_enabled(enum log_level level)
{
    return level <= __atomic_load_n(&state.level, __ATOMIC_RELAXED);
}

/* Two threads at one site may both reset the window: the count is then a little off, never the memory. */
static bool site_may_write(struct log_site *site, uint32_t *suppressed)
{
    uint64_t now = clock_monotonic_us() / (LOG_PERIOD_SECONDS * 1000000ull);

    *suppressed = 0;
    if (site->unlimited)
        return true;
    if (__atomic_exchange_n(&site->period, now, __ATOMIC_RELAXED) != now) {
        __atomic_store_n(&site->lines, 0, __ATOMIC_RELAXED);
        *suppressed = __atomic_exchange_n(&site->suppressed, 0, __ATOMIC_RELAXED);
    }
    if (__atomic_add_fetch(&site->lines, 1, __ATOMIC_RELAXED) <= LOG_LINES_PER_PERIOD)
        return true;
    __atomic_add_fetch(&site->suppressed, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&state.suppressed, 1, __ATOMIC_RELAXED);
    return false;
}

/* A line in the making; `cut` once something did not fit. */
struct line {
    char *text;
    size_t size;
    size_t used;
    bool cut;
};

static void append_list(struct line *line, const char *format, va_list args)
{
    size_t room = line->size - line->used;
    int wanted = vsnprintf(line->text + line->used, room, format, args);

    if (wanted < 0)
        return;
    line->cut = line->cut || (size_t)wanted >= room;
    line->used += (size_t)wanted < room ? (size_t)wanted : room - 1;
}

static void append(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(struct line *line, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    append_list(line, format, args);
    va_end(args);
}

static void append_prefix(struct line *line, const struct log_site *site)
{
    char now[CLOCK_TEXT_SIZE];

    clock_wall_text(now);
    append(line, "%s [%s:%s", now, state.instance, thread_name);
    if (__atomic_load_n(&state.show_level, __ATOMIC_RELAXED))
        append(line, ":%s", level_names[site->level]);
    if (__atomic_load_n(&state.show_origin, __ATOMIC_RELAXED))
        append(line, ":%s:%d", site->file, site->line);
    append(line, "] ");
}

/* A message may quote what a caller or a guest wrote: control characters must not forge a line. */
static void mask_control_characters(char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7f)
            text[i] = '?';
    }
}

/* Makes the line behind what `line` has. False: it did not fit. */
static bool make_line(struct line *line, const struct log_site *site, uint32_t suppressed, const char *format,
                      va_list args)
{
    append_prefix(line, site);
    size_t start = line->used;

    append_list(line, format, args);
    if (suppressed > 0)
        append(line, " (and %u more like it)", suppressed);
    mask_control_characters(line->text + start, line->used - start);
    line->text[line->used++] = '\n'; /* over the NUL */
    return !line->cut;
}

static ssize_t put(const char *text, size_t length)
{
    return output_write(__atomic_load_n(&state.fd, __ATOMIC_ACQUIRE), text, length);
}

static void put_line(const char *text, size_t length)
{
    if (put(text, length) != (ssize_t)length)
        __atomic_add_fetch(&state.dropped, 1, __ATOMIC_RELAXED);
}

/* Two lines, of which the first has `first` bytes; or one, when that is 0. */
static void put_lines(const char *text, size_t first, size_t length)
{
    if (first > 0) {
        ssize_t written = put(text, length);

        if (written >= 0 || errno != EAGAIN) {
            __atomic_add_fetch(&state.dropped, (written < (ssize_t)first) + (written < (ssize_t)length),
                               __ATOMIC_RELAXED);
            return;
        }
        put_line(text, first); /* where there is no room for both there may be for one */
    }
    put_line(text + first, length - first);
}

/* Apart, so that the usual line does not take the stack of the longest: each page of it stays with the process. */
static __attribute__((noinline)) void write_long_line(const struct log_site *site, uint32_t suppressed,
                                                      const char *format, va_list args)
{
    char text[LINE_MAX_BYTES];
    struct line line = {.text = text, .size = sizeof(text)};

    make_line(&line, site, suppressed, format, args);
    put_line(line.text, line.used);
}

/* A handler of a signal that comes in between finds it or not, never half. */
static struct log_held *take_held(void)
{
    return __atomic_exchange_n(&held_line, NULL, __ATOMIC_RELAXED);
}

void log_write(struct log_site *site, const char *format, ...)
{
    char text[LOG_LINE_USUAL_BYTES];
    struct line line = {.text = text, .size = sizeof(text)};
    int saved = errno;
    uint32_t suppressed;
    va_list args;

    if (!module_fits(site->file))
        return;
    if (!site_may_write(site, &suppressed))
        return;

    struct log_held *held = take_held();
    size_t first = held == NULL ? 0 : held->used;
    if (held != NULL)
        line = (struct line){.text = held->text, .size = sizeof(held->text), .used = first};

    va_start(args, format);
    bool made = make_line(&line, site, suppressed, format, args);
    va_end(args);
    if (made) {
        put_lines(line.text, first, line.used);
    } else {
        if (first > 0)
            put_line(line.text, first);
        va_start(args, format);
        write_long_line(site, suppressed, format, args);
        va_end(args);
    }
    errno = saved;
}

void log_hold(struct log_site *site, struct log_held *held, const char *format, ...)
{
    struct line line = {.text = held->text, .size = LOG_LINE_USUAL_BYTES};
    int saved = errno;
    uint32_t suppressed;
    va_list args;

    log_release();
    if (!module_fits(site->file))
        return;
    if (!site_may_write(site, &suppressed))
        return;

    va_start(args, format);
    bool made = make_line(&line, site, suppressed, format, args);
    va_end(args);
    if (made) {
        held->used = line.used;
        __atomic_store_n(&held_line, held, __ATOMIC_RELEASE);
    } else {
        va_start(args, format);
        write_long_line(site, suppressed, format, args);
        va_end(args);
    }
    errno = saved;
}

void log_release(void)
{
    struct log_held *held = take_held();
    int saved = errno;

    if (held != NULL)
        put_line(held->text, held->used);
    errno = saved;
}
