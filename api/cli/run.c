/* `mayfly run`: one command in one microVM. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/cli/commands.h"
#include "api/cli/configure.h"
#include "api/cli/locate.h"
#include "api/cli/run_mounts.h"
#include "api/cli/run_net.h"
#include "api/cli/run_options.h"
#include "api/cli/session.h"
#include "api/cli/timeline.h"
#include "api/cli/vmm_process.h"
#include "vmm/base/cleanup.h"

enum { API_TIMEOUT_MS = 10000 };

/*
 * A standard descriptor that is closed would become the first file that we open: put /dev/null there. Returns whether
 * there was a stdin.
 */
static bool fill_standard_descriptors(void)
{
    bool has_stdin = fcntl(STDIN_FILENO, F_GETFD) >= 0;
    int fd;

    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    fd_close(&fd);
    return has_stdin;
}

static struct error *open_console(const char *path, int *fd)
{
    if (path == NULL)
        return NULL;
    *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return *fd >= 0 ? NULL : error_errno(errno, "--console %s", path);
}

/* From nothing to an API that takes requests. */
static struct error *start_process(struct vmm_process *process, const struct located *located,
                                   struct timeline *timeline, struct tail *log, struct api_client **client)
{
    uint64_t stands_us;
    int fd = -1;
    struct error *error = vmm_process_start(process, located);

    if (error != NULL)
        return error;
    timeline_end(timeline, STAGE_PROCESS_START);
    if (process->jail.used) {
        error = run_jail_await(process->log_fd, process->process_fd, log, &stands_us);
        if (error != NULL)
            return error;
        timeline_end_at(timeline, STAGE_JAIL, stands_us);
    }
    error = vmm_process_connect(process, "api", API_TIMEOUT_MS, &fd);
    if (error != NULL) {
        fd_close(&fd);
        return error_wrap(error, "%s", located->vmm);
    }
    *client = api_client_new(fd);
    timeline_end(timeline, STAGE_API_READY);
    return NULL;
}

/* From there to a running vCPU. */
static struct error *start(struct vmm_process *process, struct run_mounts *mounts, struct run_net *net,
                           const struct run_options *options, struct timeline *timeline, struct tail *log)
{
    struct located located;
    struct api_client *client = NULL;
    struct error *error = locate(&located, options);

    if (error == NULL)
        error = run_net_prepare(net, &options->net);
    if (error == NULL)
        error = run_mounts_start(mounts, options);
    if (mounts->directory[0] != '\0')
        process->mounts_directory = process->jail.mounts = mounts->directory;
    if (error == NULL)
        error = run_jail_prepare(&process->jail, options, &located);
    if (error == NULL)
        error = start_process(process, &located, timeline, log, &client);
    if (error == NULL)
        error = run_mounts_explain(mounts, configure(client, options, &located, process, net));
    if (error == NULL) {
        timeline_end(timeline, STAGE_CONFIGURED);
        error = api_client_action(client, "InstanceStart");
    }
    if (error == NULL)
        timeline_end(timeline, STAGE_VCPU_RUNNING);
    if (error == NULL && options->net.wanted) {
        error = run_net_await(net);
        timeline_end(timeline, STAGE_NETWORK);
    }
    api_client_free(client);
    located_free(&located);
    return error;
}

/* One line: {"exit_code": ..., "error": ..., "timeline": [...], "total_us": ...} */
static struct error *write_json(const struct timeline *timeline, const char *path, int exit_code, const char *failure)
{
    struct body *body = body_new();
    cleanup_fd int opened = -1;
    const char *text;
    size_t length;

    body_integer(body, "exit_code", (uint64_t)exit_code);
    body_string(body, "error", failure);
    timeline_add_to(timeline, body);
    text = body_text(body, &length);
    if (path != NULL)
        opened = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (path != NULL && opened < 0) {
        body_free(body);
        return error_errno(errno, "--json=%s", path);
    }
    dprintf(path != NULL ? opened : STDERR_FILENO, "%s\n", text != NULL ? text : "{}");
    body_free(body);
    return NULL;
}

/* What was asked for besides the command's own output. A report that cannot be written is said, and changes no code. */
static void report(const struct run_options *options, const struct timeline *timeline, int exit_code,
                   const char *failure)
{
    struct error *error = NULL;

    if (options->timeline && options->timeline_path == NULL)
        timeline_print(timeline, STDERR_FILENO);
    if (options->timeline && options->timeline_path != NULL)
        error = timeline_write_svg(timeline, options->timeline_path);
    if (error != NULL)
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
    error_free(error);
    error = options->json ? write_json(timeline, options->json_path, exit_code, failure) : NULL;
    if (error != NULL)
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
    error_free(error);
}

static int run(const struct run_options *options, struct timeline *timeline, bool has_stdin)
{
    struct vmm_process process;
    struct run_mounts mounts;
    struct run_net net;
    struct session session;
    int signal_fd = -1, console_fd = -1, exit_code = EXIT_MAYFLY_FAILED;
    struct error *error;

    vmm_process_init(&process);
    run_mounts_init(&mounts);
    run_net_init(&net);
    error = session_take_signals(&signal_fd);
    if (error == NULL)
        error = open_console(options->console_path, &console_fd);
    session_init(&session, &process, timeline, signal_fd, console_fd);
    if (error == NULL)
        error = start(&process, &mounts, &net, options, timeline, &session.log);
    if (error == NULL)
        error = session_run(&session, options, has_stdin, &exit_code);
    if (error != NULL) {
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
        session_show_last_words(&session);
    }
    run_net_tell(&net);
    report(options, timeline, exit_code, error != NULL ? error->message : NULL);
    error_free(error);
    vmm_process_end(&process);
    run_mounts_end(&mounts);
    run_net_end(&net);
    session_free(&session);
    return exit_code;
}

int command_run(int argc, char **argv)
{
    struct run_options options;
    struct timeline timeline;
    bool has_stdin = fill_standard_descriptors();
    struct error *error;
    int exit_code;

    timeline_begin(&timeline);
    error = run_options_parse(&options, argc, argv);
    if (error != NULL) {
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
        exit_code = EXIT_MAYFLY_FAILED;
        error_free(error);
    } else if (options.help) {
        fputs(run_help, stdout);
        exit_code = 0;
    } else {
        exit_code = run(&options, &timeline, has_stdin);
    }
    run_options_free(&options);
    return exit_code;
}
