/*
 * The log: one line a message, "<time> [<instance id>:<thread>[:<level>][:<file>:<line>]] <text>". A line is formatted
 * on the stack and leaves in one write(2): no lock, no allocation, so a signal handler may log. A destination that is
 * full (a FIFO or a stderr that nobody reads) never blocks: the line is dropped and counted in log_dropped().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_OFF, LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_LEVEL_TRACE };

/* One place in the source that logs; counts how often it did in the current period so that a guest cannot flood. */
struct log_site {
    const char *file;
    int line;
    enum log_level level;
    uint64_t period; /* the one that `lines` counts in */
    uint32_t lines;
    uint32_t suppressed;
    bool unlimited; /* says what the host asked for, which no guest can repeat */
};

/* What an instance is called in every line; kept by pointer, must outlive the log. Default "anonymous-instance". */
void log_set_instance(const char *id);

/* Names the calling thread in its lines ("main", "fc_vcpu 0"); kept by pointer. */
void log_set_thread(const char *name);

/* Lines above `level` are not written. Default LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/* Whether lines carry their level, and the file and line they come from. Default neither. */
void log_set_format(bool show_level, bool show_origin);

/* Only lines whose source path starts with `prefix` ("vmm/virtio") are written; NULL: all. Copied, at most 127 bytes.
 */
void log_set_module(const char *prefix);

/* Sends lines to `fd` from now on (the log owns it and closes the one before unless that is stderr). */
void log_set_fd(int fd);

/* Whether lines go to stderr, as they do at first. */
bool log_is_stderr(void);

/* Lines dropped because their destination failed or was full; lines suppressed because a site repeated itself. */
uint64_t log_dropped(void);
uint64_t log_suppressed(void);

bool log_enabled(enum log_level level);
void log_write(struct log_site *site, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum { LOG_LINE_USUAL_BYTES = 384 };

/* A line that waits for the next one, and room for that. */
struct log_held {
    char text[2 * LOG_LINE_USUAL_BYTES];
    size_t used;
};

/*
 * As log_write, but the line may stay in `held`, to leave with this thread's next one in a single write(2): before it,
 * with the time that it was made at. A thread holds one line at a time; `held` must stay until log_release. A line that
 * a signal handler on this thread writes takes it along, too; one of another thread's does not.
 */
void log_hold(struct log_site *site, struct log_held *held, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Writes what this thread holds, if it still does. */
void log_release(void);

/*
 * A site writes at most LOG_LINES_PER_PERIOD lines in LOG_PERIOD_SECONDS; its first line after that says how many more
 * there were. A guest that makes us complain all day fills 26 MB of a log. The `_unlimited` ones, for requests of the
 * host, write every line, and so does log_info_held, by log_hold.
 */
enum { LOG_LINES_PER_PERIOD = 10, LOG_PERIOD_SECONDS = 5 };

#define log_by(write_, level_, unlimited_, ...)                                                                        \
    do {                                                                                                               \
        if (log_enabled(level_)) {                                                                                     \
            static struct log_site log_site_ = {__FILE__, __LINE__, (level_), 0, 0, 0, (unlimited_)};                  \
            write_(&log_site_, __VA_ARGS__);                                                                           \
        }                                                                                                              \
    } while (0)

#define log_error(...) log_by(log_write, LOG_LEVEL_ERROR, false, __VA_ARGS__)
#define log_warning(...) log_by(log_write, LOG_LEVEL_WARNING, false, __VA_ARGS__)
#define log_info(...) log_by(log_write, LOG_LEVEL_INFO, false, __VA_ARGS__)
#define log_debug(...) log_by(log_write, LOG_LEVEL_DEBUG, false, __VA_ARGS__)
#define log_error_unlimited(...) log_by(log_write, LOG_LEVEL_ERROR, true, __VA_ARGS__)
#define log_info_unlimited(...) log_by(log_write, LOG_LEVEL_INFO, true, __VA_ARGS__)
#define log_info_held(...) log_by(log_hold, LOG_LEVEL_INFO, true, __VA_ARGS__) /* held, format, ... */
