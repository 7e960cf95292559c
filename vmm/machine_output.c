/* Where the log and the metrics go. */
#include "vmm/machine_parts.h"

#include "vmm/base/cleanup.h"
#include "vmm/base/log.h"
#include "vmm/metrics.h"
#include "vmm/output.h"
#include "vmm/signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* --- The log --- */

static struct error *level_parse(const char *text, enum log_level *level)
{
    static const struct {
        char name[8]; /* no pointer: CONTRIBUTING.md tells why */
        enum log_level level;
    } levels[] = {{"Off", LOG_LEVEL_OFF},      {"Error", LOG_LEVEL_ERROR}, {"Warning", LOG_LEVEL_WARNING},
                  {"Warn", LOG_LEVEL_WARNING}, {"Info", LOG_LEVEL_INFO},   {"Debug", LOG_LEVEL_DEBUG},
                  {"Trace", LOG_LEVEL_TRACE}};

    for (size_t i = 0; i < array_length(levels); i++) {
        if (strcasecmp(text, levels[i].name) == 0) {
            *level = levels[i].level;
            return NULL;
        }
    }
    return error_new(ERROR_INPUT, "level: '%s', expected Off, Error, Warning, Info, Debug or Trace", text);
}

struct error *machine_put_logger(struct machine *machine, struct logger_config *config)
{
    struct logger_config *logger = &machine->config.logger;
    enum log_level level = LOG_LEVEL_INFO;
    int fd;

    if (config->level != NULL) {
        struct error *error = level_parse(config->level, &level);

        if (error != NULL)
            return error;
    }
    if (config->log_path != NULL) {
        /* The filters let nothing be made once the guest runs. */
        struct error *error = machine->state == MACHINE_NOT_STARTED
                                  ? output_open("log_path", config->log_path, &fd)
                                  : output_open_existing("log_path", config->log_path, &fd);

        if (error != NULL)
            return error;
        log_set_fd(fd);
        free(logger->log_path);
        logger->log_path = take_pointer(&config->log_path);
    }
    if (config->level != NULL) {
        log_set_level(level);
        free(logger->level);
        logger->level = take_pointer(&config->level);
    }
    if (config->module != NULL) {
        log_set_module(config->module);
        free(logger->module);
        logger->module = take_pointer(&config->module);
    }
    if (config->has_show_level) {
        logger->has_show_level = true;
        logger->show_level = config->show_level;
    }
    if (config->has_show_log_origin) {
        logger->has_show_log_origin = true;
        logger->show_log_origin = config->show_log_origin;
    }
    log_set_format(logger->show_level, logger->show_log_origin);
    logger_config_free(config);
    return NULL;
}

/* --- The metrics --- */

static void put_json_string(FILE *to, const char *text)
{
    fputc('"', to);
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;

        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20)
            fprintf(to, "\\u%04x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

/* The JSON members that `config` wants in every line; *text is heap-allocated, NULL for none. */
static struct error *members_of(const struct machine *machine, const struct metrics_config *config, char **text)
{
    size_t size;
    FILE *to;

    *text = NULL;
    if (!config->emit_id && config->properties.count == 0)
        return NULL;
    to = open_memstream(text, &size);
    if (to == NULL)
        return error_errno(errno, "properties: cannot keep them");
    if (config->emit_id) {
        fputs("\"id\":", to);
        put_json_string(to, machine->options.id);
    }
    for (size_t i = 0; i < config->properties.count; i++) {
        if (i > 0 || config->emit_id)
            fputc(',', to);
        if (i == 0)
            fputs("\"properties\":{", to);
        put_json_string(to, config->properties.pairs[i].name);
        fputc(':', to);
        put_json_string(to, config->properties.pairs[i].value);
    }
    if (config->properties.count > 0)
        fputc('}', to);
    if (fclose(to) != 0)
        return error_errno(errno, "properties: cannot keep them");
    return NULL;
}

struct error *machine_put_metrics(struct machine *machine, struct metrics_config *config)
{
    cleanup_free char *members = NULL;
    cleanup_fd int fd = -1;
    struct error *error;

    if (machine->metrics_fd >= 0)
        return error_new(ERROR_STATE, "metrics_path: already set to '%s'", machine->config.metrics.metrics_path);
    if (config->metrics_path == NULL)
        return error_new(ERROR_INPUT, "metrics_path: missing, expected a path");
    error = members_of(machine, config, &members);
    if (error == NULL)
        error = output_open("metrics_path", config->metrics_path, &fd);
    if (error == NULL && !metrics_prepare(members))
        error = error_errno(ENOMEM, "properties: cannot keep them");
    if (error != NULL)
        return error;

    machine->metrics_fd = take_fd(&fd);
    signals_set_metrics_fd(machine->metrics_fd);
    metrics_config_free(&machine->config.metrics);
    machine->config.metrics = *config;
    memset(config, 0, sizeof(*config));
    return NULL;
}
