#include "api/cli/locate.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/base/cleanup.h"

static char *join(const char *directory, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        abort();
    return path;
}

static char *copy(const char *text)
{
    char *made = strdup(text);

    if (made == NULL)
        abort();
    return made;
}

/* `directory`/`name` when `mode` (access(2)) is allowed there; else NULL. */
static char *find(const char *directory, const char *name, int mode)
{
    char *path = join(directory, name);

    if (access(path, mode) == 0)
        return path;
    free(path);
    return NULL;
}

/* The directory that this program is in; "." when the kernel does not tell. */
static void own_directory(char directory[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", directory, PATH_MAX - 1);
    char *slash;

    directory[length > 0 ? length : 0] = '\0';
    slash = strrchr(directory, '/');
    if (slash == NULL)
        strcpy(directory, ".");
    else
        *slash = '\0';
}

static char *find_on_path(const char *name)
{
    const char *path = getenv("PATH");

    while (path != NULL && *path != '\0') {
        size_t length = strcspn(path, ":");
        cleanup_free char *directory = strndup(path, length);
        char *found = length == 0 || directory == NULL ? NULL : find(directory, name, X_OK);

        if (found != NULL)
            return found;
        path += length;
        path += *path == ':';
    }
    return NULL;
}

/* The first line of a small file, or NULL. */
static char *read_line(const char *directory, const char *name)
{
    cleanup_free char *path = join(directory, name);
    FILE *file = fopen(path, "re");
    char line[2048];
    char *text = NULL;

    if (file == NULL)
        return NULL;
    if (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        text = copy(line);
    }
    fclose(file);
    return text;
}

static struct error *locate_vmm(struct located *located, const struct run_options *options, const char *own)
{
    located->vmm = options->vmm != NULL ? copy(options->vmm) : find(own, "mayfly-vmm", X_OK);
    if (located->vmm == NULL)
        located->vmm = find_on_path("mayfly-vmm");
    if (located->vmm == NULL)
        return error_new(ERROR_INPUT, "mayfly-vmm is neither in %s nor on PATH; --vmm names another place", own);
    return NULL;
}

static void locate_jailer(struct located *located, const char *own)
{
    located->jailer = find(own, "mayfly-jailer", X_OK);
    if (located->jailer == NULL)
        located->jailer = find_on_path("mayfly-jailer");
}

/* Looks for the kernel; the other files are taken from where it is. */
static struct error *locate_guest(struct located *located, const char *own)
{
    const char *named = getenv("MAYFLY_GUEST");
    cleanup_free char *installed = join(own, "../share/mayfly");
    cleanup_free char *built = join(own, "../guest");
    const char *const places[] = {named != NULL ? named : installed, named != NULL ? NULL : built};
    const char *place = NULL;

    for (size_t i = 0; i < array_length(places) && located->kernel == NULL && places[i] != NULL; i++) {
        place = places[i];
        located->kernel = find(place, "vmlinux", R_OK);
    }
    if (located->kernel == NULL && named != NULL)
        return error_new(ERROR_INPUT, "no kernel: there is no vmlinux in $MAYFLY_GUEST, %s", named);
    if (located->kernel == NULL)
        return error_new(ERROR_INPUT,
                         "no kernel: there is no vmlinux in %s or %s; \"make guest\" builds one there, --kernel or "
                         "$MAYFLY_GUEST names one elsewhere",
                         installed, built);
    if (located->initrd == NULL)
        located->initrd = find(place, "initramfs.cpio", R_OK);
    if (located->rootfs == NULL)
        located->rootfs = find(place, "rootfs.erofs", R_OK);
    located->cmdline = read_line(place, "cmdline");
    return NULL;
}

struct error *locate(struct located *located, const struct run_options *options)
{
    char own[PATH_MAX];
    struct error *error;

    *located = (struct located){0};
    own_directory(own);
    error = locate_vmm(located, options, own);
    if (error != NULL)
        return error;
    locate_jailer(located, own);
    if (options->initrd != NULL)
        located->initrd = copy(options->initrd);
    if (options->rootfs != NULL)
        located->rootfs = copy(options->rootfs);
    if (options->kernel == NULL)
        return locate_guest(located, own);
    located->kernel = copy(options->kernel);
    return NULL;
}

char *locate_virtiofsd(void)
{
    static const char *const places[] = {"/usr/lib/qemu", "/usr/libexec"};
    char *found = find_on_path("virtiofsd");

    for (size_t i = 0; found == NULL && i < array_length(places); i++)
        found = find(places[i], "virtiofsd", X_OK);
    return found;
}

char *locate_passt(void)
{
    return find_on_path("passt");
}

void located_free(struct located *located)
{
    free(located->vmm);
    free(located->jailer);
    free(located->kernel);
    free(located->initrd);
    free(located->rootfs);
    free(located->cmdline);
    *located = (struct located){0};
}
