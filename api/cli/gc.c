/*
 * `mayfly gc`: removes what VMs that died left behind, when whoever had started them could not: jails below the base
 * folders, and the socket folders of unjailed runs. Safe beside everything that lives: see jailer/README.md.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cli/commands.h"
#include "api/cli/jail_remove.h"
#include "api/cli/option_next.h"
#include "api/cli/run_jail_defaults.h"
#include "api/cli/run_leftover.h"
#include "api/client/body.h"
#include "vmm/base/cleanup.h"

enum { BASES_MAX = 32 };

static const char gc_help[] =
    "Usage: mayfly gc [--dry-run] [--json] [--base DIR]...\n"
    "\n"
    "Removes what microVMs that ended left on the host because whoever had started them was\n"
    "killed, too: jails (folder and cgroups) and folders of sockets; and the cgroups of jails\n"
    "whose folder was removed by hand. Those that live, that are being built, or that\n"
    "mayfly-jailer has not made are left alone: it may run at any time.\n"
    "Whatever is in a dead jail's root goes with it.\n"
    "\n"
    "  --base DIR         folder of jails; may be repeated (default /run/mayfly and\n"
    "                     /srv/jailer; an ordinary user's $XDG_RUNTIME_DIR/mayfly)\n"
    "  --dry-run          only says what would be removed\n"
    "  --json             prints one line of JSON\n"
    "  -h, --help         prints this text\n"
    "\n"
    "Exit code: 0; 1 when something dead could not be removed; 125 for a wrong option.\n";

struct gc {
    bool dry_run;
    bool json;
    bool help;
    const char *bases[BASES_MAX];
    size_t base_count;
    struct body *body; /* --json: its array "removed" is open */
    unsigned alive, building, removed_count, error_count;
};

static void note_removed(struct gc *gc, const char *path)
{
    gc->removed_count++;
    if (gc->json)
        body_string(gc->body, NULL, path);
    else
        printf("%s %s\n", gc->dry_run ? "would remove" : "removed", path);
}

static void note_error(struct gc *gc, const char *where, struct error *error)
{
    gc->error_count++;
    fprintf(stderr, "mayfly: %s: %s\n", where, error->message);
    error_free(error);
}

/* Calls `each` for every folder in `parent` that is none of "." and "..". */
static void for_each_folder(struct gc *gc, int parent, const char *path,
                            void (*each)(struct gc *gc, int parent, const char *path, const char *name))
{
    int copy = fcntl(parent, F_DUPFD_CLOEXEC, 3);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    while (directory != NULL && (entry = readdir(directory)) != NULL)
        if (entry->d_name[0] != '.' && (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN))
            each(gc, parent, path, entry->d_name);
    if (directory != NULL)
        closedir(directory);
    else
        fd_close(&copy);
}

/* `path` is <base>/<exec name>. */
static void look_at_jail(struct gc *gc, int parent, const char *path, const char *id)
{
    enum jail_state state;
    cleanup_free char *full = NULL;
    struct error *error = jail_remove(parent, strrchr(path, '/') + 1, id, gc->dry_run, &state);

    if (error != NULL) {
        note_error(gc, path, error);
        return;
    }
    gc->alive += state == JAIL_ALIVE;
    gc->building += state == JAIL_BUILDING;
    if (state == JAIL_DEAD && asprintf(&full, "%s/%s", path, id) > 0)
        note_removed(gc, full);
}

/* `path` is the base. Folders that are empty now are taken back, too; who is about to use one makes it again. */
static void look_at_exec(struct gc *gc, int parent, const char *path, const char *name)
{
    cleanup_free char *full = NULL;
    cleanup_fd int exec = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (exec < 0 || asprintf(&full, "%s/%s", path, name) < 0)
        return;
    for_each_folder(gc, exec, full, look_at_jail);
    if (gc->dry_run)
        return;
    unlinkat(parent, name, AT_REMOVEDIR);
    jail_remove_parent_cgroups(name);
}

static void look_at_base(struct gc *gc, const char *path)
{
    cleanup_fd int base = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (base >= 0)
        for_each_folder(gc, base, path, look_at_exec);
    else if (errno != ENOENT)
        note_error(gc, path, error_errno(errno, "cannot open it"));
}

static void look_at_run(struct gc *gc, int parent, const char *path, const char *name)
{
    cleanup_free char *full = NULL;

    if (run_leftover_remove(parent, name, gc->dry_run) && asprintf(&full, "%s/%s", path, name) > 0)
        note_removed(gc, full);
}

static void look_at_runs(struct gc *gc, const char *path)
{
    cleanup_fd int folder = path == NULL ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (folder >= 0)
        for_each_folder(gc, folder, path, look_at_run);
}

static struct error *parse(struct gc *gc, int argc, char **argv)
{
    static const struct option options[] = {
        {"base", required_argument, NULL, 'b'},
        {"dry-run", no_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct error *error = NULL;
    int option;

    opterr = 0;
    optind = 0;
    while ((option = option_next("mayfly gc", argc, argv, "+:h", options, &error)) != -1) {
        if (error != NULL)
            return error;
        if (option == 'b' && gc->base_count == BASES_MAX)
            return error_new(ERROR_INPUT, "--base: given more than %d times", BASES_MAX);
        if (option == 'b')
            gc->bases[gc->base_count++] = optarg;
        gc->dry_run = gc->dry_run || option == 'd';
        gc->json = gc->json || option == 'j';
        gc->help = gc->help || option == 'h';
    }
    if (optind < argc)
        return error_new(ERROR_INPUT, "\"%s\": expected no further words; see mayfly gc --help", argv[optind]);
    return NULL;
}

static void note_group(void *context, const char *group)
{
    note_removed(context, group);
}

static void look_at_groups(struct gc *gc, const char *base)
{
    cleanup_free char *real = base == NULL ? NULL : realpath(base, NULL);

    if (base == NULL || real != NULL)
        jail_remove_orphan_cgroups(real, gc->dry_run, note_group, gc);
}

static void look_everywhere(struct gc *gc)
{
    const char *const usual[] = {run_jail_base(), "/srv/jailer"};
    size_t usual_count = geteuid() == 0 ? 2 : 1;

    for (size_t i = 0; i < gc->base_count; i++) {
        look_at_groups(gc, gc->bases[i]);
        look_at_base(gc, gc->bases[i]);
    }
    if (gc->base_count == 0)
        look_at_groups(gc, NULL);
    for (size_t i = 0; gc->base_count == 0 && i < usual_count; i++)
        look_at_base(gc, usual[i]);
    look_at_runs(gc, getenv("XDG_RUNTIME_DIR"));
    look_at_runs(gc, getenv("TMPDIR"));
    look_at_runs(gc, "/tmp");
}

/* {"dry_run": ..., "removed": [...], "alive": ..., "building": ..., "errors": ...} */
static void print_json(struct gc *gc)
{
    const char *text;
    size_t length;

    body_close_array(gc->body);
    body_integer(gc->body, "alive", gc->alive);
    body_integer(gc->body, "building", gc->building);
    body_integer(gc->body, "errors", gc->error_count);
    text = body_text(gc->body, &length);
    printf("%s\n", text != NULL ? text : "{}");
}

int command_gc(int argc, char **argv)
{
    struct gc gc = {0};
    struct error *error = parse(&gc, argc, argv);

    if (error != NULL) {
        fprintf(stderr, "mayfly: %s\n", error->message);
        error_free(error);
        return EXIT_MAYFLY_FAILED;
    }
    if (gc.help) {
        fputs(gc_help, stdout);
        return 0;
    }
    gc.body = body_new();
    body_boolean(gc.body, "dry_run", gc.dry_run);
    body_open_array(gc.body, "removed");
    look_everywhere(&gc);
    if (gc.json)
        print_json(&gc);
    body_free(gc.body);
    return gc.error_count > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
