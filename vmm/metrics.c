#include "vmm/metrics.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/config.h"
#include "vmm/metrics_table.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct metrics metrics;

enum {
    METRIC_TEXT_MAX = 144, /* of one row: a group's head, a key, 3 * 20 digits, punctuation */
    DEVICE_METRICS_MAX = 32,
    DEVICE_TEXT_MAX = ID_LENGTH_MAX + (1 + DEVICE_METRICS_MAX) * METRIC_TEXT_MAX,
    LINE_SIZE = 64 + METRICS_MAX * METRIC_TEXT_MAX + VIRTIO_DEVICES_MAX * DEVICE_TEXT_MAX,
};

/*
 * What metrics_write keeps from line to line. A pipe may take only the first part of a line: the rest goes out before
 * the next one, so that a reader never sees two lines mixed. What is large comes from the heap, and only when lines are
 * wanted; of a line's room a page is used only once a line comes so far.
 */
struct line {
    struct metrics told;
    char text[];
};

static struct {
    int busy; /* a signal handler must not write over the line that it interrupted, nor read a list half changed */
    int fd;   /* that the unwritten part belongs to */
    size_t start, end;
    struct device_metrics *devices; /* in the order in which they came */
    char *members;                  /* of every line; NULL: none */
    struct line *line;              /* NULL until metrics_prepare */
} writer;

/*
 * A device comes or goes under the event loop's lock, as lines are written. Only the handler of a deadly signal on
 * another thread may be at the list; then this process ends soon.
 */
static void devices_lock(void)
{
    while (__atomic_exchange_n(&writer.busy, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void devices_unlock(void)
{
    __atomic_store_n(&writer.busy, 0, __ATOMIC_RELEASE);
}

void metrics_device_add(struct device_metrics *device, enum metric_group_name group, const char *prefix, const char *id,
                        const void *counters, void *told)
{
    struct device_metrics **end = &writer.devices;

    devices_lock();
    while (*end != NULL)
        end = &(*end)->next;
    *device = (struct device_metrics){
        .link = end, .group = group, .prefix = prefix, .id = id, .counters = counters, .told = told};
    *end = device;
    devices_unlock();
}

void latency_add(struct latency *latency, uint64_t duration_us)
{
    COUNTER_ADD(latency->sum_us, duration_us);
    if (latency->min_us == 0 || duration_us < latency->min_us)
        COUNTER_SET(latency->min_us, duration_us);
    if (duration_us > latency->max_us)
        COUNTER_SET(latency->max_us, duration_us);
}

static uint64_t load(const char *counter)
{
    return __atomic_load_n((const uint64_t *)(const void *)counter, __ATOMIC_RELAXED);
}

/* Where `metric` is in the counters that each device of its group has of its own. */
static size_t device_offset(const struct metric *metric)
{
    return metric->offset - metric_groups[metric->group].offset;
}

void metrics_device_remove(struct device_metrics *device)
{
    if (device->link == NULL)
        return;
    devices_lock();
    *device->link = device->next;
    if (device->next != NULL)
        device->next->link = device->link;
    for (size_t i = 0; i < metric_count; i++) {
        const struct metric *metric = &metric_table[i];

        if (metric->group == device->group && metric->kind == METRIC_COUNTER)
            COUNTER_ADD(*(uint64_t *)(void *)((char *)&metrics + metric->offset),
                        load(device->counters + device_offset(metric)));
    }
    device->link = NULL;
    devices_unlock();
}

/* Of all devices, those that are gone included. */
static uint64_t total(const struct metric *metric)
{
    uint64_t sum = load((const char *)&metrics + metric->offset);

    for (const struct device_metrics *device = writer.devices; device != NULL; device = device->next)
        if (device->group == metric->group)
            sum += load(device->counters + device_offset(metric));
    return sum;
}

uint64_t metrics_total(const uint64_t *counter)
{
    size_t offset = (size_t)((const char *)counter - (const char *)&metrics);

    for (size_t i = 0; i < metric_count; i++)
        if (metric_table[i].offset == offset && metric_table[i].kind < METRIC_NEVER)
            return total(&metric_table[i]);
    return load((const char *)counter);
}

/* No printf: this may run in a signal handler. */
static char *put_text(char *at, const char *text)
{
    size_t length = strlen(text);

    memcpy(at, text, length);
    return at + length;
}

static char *put_number(char *at, uint64_t number)
{
    char digits[20];
    size_t count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static char *put_key(char *at, const char *key)
{
    *at++ = '"';
    at = put_text(at, key);
    return put_text(at, "\":");
}

static uint64_t wall_clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* `*told` is what the last line told. */
static char *put_value(char *at, const struct metric *metric, uint64_t value, char *told)
{
    uint64_t *last = (uint64_t *)(void *)told;

    at = put_number(at, metric->kind == METRIC_COUNTER ? value - *last : value);
    *last = value;
    return at;
}

static char *put_latency(char *at, const struct metric *metric)
{
    const struct latency *latency = (const void *)((const char *)&metrics + metric->offset);
    struct latency *told = (void *)((char *)&writer.line->told + metric->offset);
    uint64_t sum_us = __atomic_load_n(&latency->sum_us, __ATOMIC_RELAXED);

    at = put_text(at, "{\"min_us\":");
    at = put_number(at, __atomic_load_n(&latency->min_us, __ATOMIC_RELAXED));
    at = put_text(at, ",\"max_us\":");
    at = put_number(at, __atomic_load_n(&latency->max_us, __ATOMIC_RELAXED));
    at = put_text(at, ",\"sum_us\":");
    at = put_number(at, sum_us - told->sum_us);
    told->sum_us = sum_us;
    *at++ = '}';
    return at;
}

/* The object of a group, or of one `device` of it. */
static char *put_object(char *at, enum metric_group_name group, struct device_metrics *device)
{
    char separator = '{';

    for (size_t i = 0; i < metric_count; i++) {
        const struct metric *metric = &metric_table[i];

        if (metric->group != group)
            continue;
        *at++ = separator;
        separator = ',';
        at = put_key(at, metric->key);
        if (metric->kind == METRIC_NEVER)
            *at++ = '0';
        else if (metric->kind == METRIC_UNTIMED)
            at = put_text(at, "{\"min_us\":0,\"max_us\":0,\"sum_us\":0}");
        else if (metric->kind == METRIC_LATENCY)
            at = put_latency(at, metric);
        else if (device == NULL)
            at = put_value(at, metric, total(metric), (char *)&writer.line->told + metric->offset);
        else
            at = put_value(at, metric, load(device->counters + device_offset(metric)),
                           device->told + device_offset(metric));
    }
    *at++ = '}';
    return at;
}

static char *put_device(char *at, struct device_metrics *device)
{
    at = put_text(at, ",\"");
    at = put_text(at, device->prefix);
    *at++ = '_';
    at = put_text(at, device->id);
    at = put_text(at, "\":");
    return put_object(at, device->group, device);
}

/* Fills writer.line and remembers what it told. */
static void format_line(void)
{
    char *at = writer.line->text;
    size_t devices = 0;

    *at++ = '{';
    at = put_key(at, "utc_timestamp_ms");
    at = put_number(at, wall_clock_ms());
    if (writer.members != NULL) {
        *at++ = ',';
        at = put_text(at, writer.members);
    }
    for (enum metric_group_name group = 0; group < METRICS_GROUPS; group++) {
        *at++ = ',';
        at = put_key(at, metric_groups[group].name);
        at = put_object(at, group, NULL);
    }
    for (struct device_metrics *device = writer.devices; device != NULL; device = device->next)
        if (devices++ < VIRTIO_DEVICES_MAX && strlen(device->id) <= ID_LENGTH_MAX)
            at = put_device(at, device);
    at = put_text(at, "}\n");
    writer.start = 0;
    writer.end = (size_t)(at - writer.line->text);
}

/* False, with errno, when there is still something left. */
static bool write_rest(int fd)
{
    while (writer.start < writer.end) {
        ssize_t written = write(fd, writer.line->text + writer.start, writer.end - writer.start);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        writer.start += (size_t)written;
    }
    return true;
}

/* 0, or an errno: a full pipe's EAGAIN is none. */
static int write_line(int fd)
{
    int code = 0;

    if (writer.line == NULL || __atomic_exchange_n(&writer.busy, 1, __ATOMIC_ACQUIRE))
        return 0;
    if (writer.fd != fd)
        writer.start = writer.end;
    writer.fd = fd;
    __atomic_store_n(&metrics.logger.missed_log_count, log_dropped(), __ATOMIC_RELAXED);
    __atomic_store_n(&metrics.logger.rate_limited_log_count, log_suppressed(), __ATOMIC_RELAXED);

    bool complete = write_rest(fd);
    if (complete) {
        format_line();
        complete = write_rest(fd);
    }
    if (!complete && errno == EAGAIN) {
        METRIC_INCREMENT(logger.missed_metrics_count);
    } else if (!complete) {
        METRIC_INCREMENT(logger.metrics_fails);
        code = errno;
        writer.start = writer.end;
    }
    __atomic_store_n(&writer.busy, 0, __ATOMIC_RELEASE);
    return code;
}

struct error *metrics_write(int fd)
{
    int code = write_line(fd);

    return code == 0 ? NULL : error_errno(code, "metrics_path: cannot write the metrics");
}

void metrics_write_at_end(int fd)
{
    write_line(fd);
}

bool metrics_prepare(const char *members)
{
    size_t room = LINE_SIZE + (members == NULL ? 0 : 1 + strlen(members));
    struct line *line = calloc(1, sizeof(*line) + room);
    char *copy = members == NULL ? NULL : strdup(members);

    if (line == NULL || (copy == NULL && members != NULL)) {
        free(line);
        free(copy);
        return false;
    }
    if (writer.line != NULL)
        line->told = writer.line->told;
    free(writer.members);
    free(writer.line);
    writer.members = copy;
    writer.line = line;
    writer.start = writer.end = 0;
    return true;
}
