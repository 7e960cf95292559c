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

/* The files that were asked for; -1: not. */
struct files {
    int console, timeline, json;
};

static struct error *open_file(const char *option, const char *path, mode_t mode, int *fd)
{
    if (path == NULL)
        return NULL;
    *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    return *fd >= 0 ? NULL : error_errno(errno, "%s%s", option, path);
}

/* Before anything is started: a command that ran for an hour is no time to learn of a wrong path. */
static struct error *open_files(const struct run_options *options, struct files *files)
{
    struct error *error = open_file("--console ", options->console_path, 0600, &files->console);

    if (error == NULL)
        error = open_file("--timeline=", options->timeline_path, 0666, &files->timeline);
    if (error == NULL)
        error = open_file("--json=", options->json_path, 0666, &files->json);
    return error;
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
    error = run_jail_explain(&process->jail, error);
    if (error == NULL)
        timeline_end(timeline, STAGE_VCPU_RUNNING);
    api_client_free(client);
    located_free(&located);
    return error;
}

/* One line: {"exit_code": ..., "error": ..., "timeline": [...], "total_us": ...} */
static struct error *write_json(const struct timeline *timeline, int fd, int exit_code, const char *failure)
{
    struct body *body = body_new();
    const char *text;
    size_t length;
    int written;

    body_integer(body, "exit_code", (uint64_t)exit_code);
    body_string(body, "error", failure);
    timeline_add_to(timeline, body);
    text = body_text(body, &length);
    written = dprintf(fd, "%s\n", text != NULL ? text : "{}");
    body_free(body);
    return written >= 0 ? NULL : error_errno(errno, "--json: cannot write");
}

static void tell(struct error *error)
{
    if (error != NULL)
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
    error_free(error);
}

/* What was asked for besides the command's own output. A report that cannot be written is said, and changes no code. */
static void report(const struct run_options *options, const struct files *files, const struct timeline *timeline,
                   int exit_code, const char *failure)
{
    if (options->timeline && options->timeline_path == NULL)
        timeline_print(timeline, STDERR_FILENO);
    if (files->timeline >= 0)
        tell(timeline_write_svg(timeline, files->timeline));
    if (options->json && options->json_path == NULL)
        tell(write_json(timeline, STDERR_FILENO, exit_code, failure));
    if (files->json >= 0)
        tell(write_json(timeline, files->json, exit_code, failure));
}

/* Why there is no result, if there is none: `error`, and what VMM and guest said. */
static void tell_failure(struct session *session, const struct run_options *options, bool started,
                         const struct error *error)
{
    bool came_up = session->talk.state != TALK_EXPECTS_HELLO;

    if (error != NULL)
        dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
    /* A refusal has said it all: the log repeats it. A guest that did not come up may have said why. */
    if (error != NULL && !session->timed_out ? error->kind != ERROR_INPUT : !came_up)
        session_show_last_words(session);
    if (started && session->vmm_failed && !came_up)
        dprintf(STDERR_FILENO, "mayfly: \"mayfly doctor --check kvm\" tells whether KVM can run Linux here\n");
    if (started && !came_up && options->kernel != NULL && options->initrd == NULL)
        dprintf(STDERR_FILENO, "mayfly: --kernel was given without an --initrd, which holds Mayfly's init\n");
}

static int run(const struct run_options *options, struct timeline *timeline, bool has_stdin)
{
    struct vmm_process process;
    struct run_mounts mounts;
    struct run_net net;
    struct session session;
    struct files files = {-1, -1, -1};
    int signal_fd = -1, exit_code = EXIT_MAYFLY_FAILED;
    bool started;
    struct error *error;

    vmm_process_init(&process);
    run_mounts_init(&mounts);
    run_net_init(&net);
    error = session_take_signals(&signal_fd);
    if (error == NULL)
        error = open_files(options, &files);
    session_init(&session, &process, &mounts, &net, timeline, signal_fd, files.console);
    if (error == NULL)
        error = start(&process, &mounts, &net, options, timeline, &session.log);
    started = error == NULL;
    if (started)
        error = session_run(&session, options, has_stdin, &exit_code);
    tell_failure(&session, options, started, error);
    run_net_tell(&net);
    report(options, &files, timeline, exit_code, error != NULL ? error->message : NULL);
    error_free(error);
    fd_close(&files.timeline);
    fd_close(&files.json);
    vmm_process_end(&process);
    run_mounts_end(&mounts);
    run_net_end(&net);
    session_free(&session);
    return exit_code;
}

/* A script that wants JSON gets it of wrong options, too. */
static void tell_wrong_options(const struct run_options *options, const struct timeline *timeline,
                               const struct error *error)
{
    struct files files = {-1, -1, -1};

    dprintf(STDERR_FILENO, "mayfly: %s\n", error->message);
    tell(open_file("--json=", options->json_path, 0666, &files.json));
    report(&(struct run_options){.json = options->json, .json_path = options->json_path}, &files, timeline,
           EXIT_MAYFLY_FAILED, error->message);
    fd_close(&files.json);
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
        tell_wrong_options(&options, &timeline, error);
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
