#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOUNTS_MAX 256

struct mount_plan {
    const char *type;
    const char *target;
    unsigned long flags;
    const char *options;
};

static int mount_one(const struct mount_plan *plan)
{
    int rc = mount(plan->type, plan->target, plan->type, plan->flags, plan->options);

    if (rc != 0 && errno == ENOENT && mkdir(plan->target, 0755) == 0) {
        rc = mount(plan->type, plan->target, plan->type, plan->flags, plan->options);
    }
    return rc == 0 || errno == EBUSY ? 0 : -1;
}

int mounts_early(struct failure *failure)
{
    static const struct mount_plan plans[] = {
        {"devtmpfs", "/dev", MS_NOSUID, "mode=0755"},
        {"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    };
    int fd;

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        if (mount_one(&plans[i]) != 0) {
            return failure_errno(failure, "cannot mount %s on %s", plans[i].type, plans[i].target);
        }
    }
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0) {
        return failure_errno(failure, "cannot open /dev/null");
    }
    close(fd);
    return 0;
}

void mounts_late(bool in_initramfs, bool root_writable)
{
    static const struct mount_plan plans[] = {
        {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
        {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
        {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"},
        {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"},
    };
    static const struct {
        const char *to;
        const char *name;
    } links[] = {
        {"/proc/self/fd", "/dev/fd"},
        {"fd/0", "/dev/stdin"},
        {"fd/1", "/dev/stdout"},
        {"fd/2", "/dev/stderr"},
    };
    size_t count = sizeof(plans) / sizeof(plans[0]);

    if (in_initramfs) {
        /* Everything is a tmpfs there: plain directories do. */
        count -= 2;
        mkdir("/run", 0755);
        if (mkdir("/tmp", 01777) == 0) {
            chmod("/tmp", 01777);
        }
    } else if (root_writable && access("/tmp", W_OK) == 0) {
        count -= 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (mount_one(&plans[i]) != 0) {
            char text[128];

            snprintf(text, sizeof(text), "no %s on %s: %s", plans[i].type, plans[i].target, strerror(errno));
            console_say(text);
        }
    }
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        /* A kernel or an image that made them already is as good. */
        (void)!symlink(links[i].to, links[i].name);
    }
}

/* Makes the directory at `path` and those above it, as far as they are missing. */
static int directories_make(char *path)
{
    for (char *at = path + 1; *at != '\0'; at++) {
        if (*at != '/') {
            continue;
        }
        *at = '\0';
        (void)mkdir(path, 0755);
        *at = '/';
    }
    return mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : -1;
}

int mount_shared(const char *text, struct failure *failure)
{
    char copy[512];
    char *mode;
    char *target;

    snprintf(copy, sizeof(copy), "%s", text);
    mode = strchr(copy, ':');
    target = mode != NULL ? strchr(mode + 1, ':') : NULL;
    if (target == NULL || target[1] != '/' || strlen(text) >= sizeof(copy)) {
        failure_set(failure, FAILURE_OTHER, "mayfly.mount=%s: expected TAG:ro:PATH or TAG:rw:PATH", text);
        return -1;
    }
    *mode++ = '\0';
    *target++ = '\0';
    if (directories_make(target) != 0) {
        return failure_errno(failure, "cannot make %s to mount a directory of the host on", target);
    }
    if (mount(copy, target, "virtiofs", strcmp(mode, "rw") == 0 ? 0 : MS_RDONLY, NULL) != 0) {
        return failure_errno(failure, "cannot mount the host's directory %s on %s", copy, target);
    }
    return 0;
}

/* Undoes \040 and its like, in place. */
static void field_unescape(char *text)
{
    char *out = text;

    for (const char *in = text; *in != '\0'; in++) {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' && in[3] >= '0' &&
            in[3] <= '7') {
            *out++ = (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0'));
            in += 3;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
}

char *mount_line_take(struct mount_line *line, char *text)
{
    char *fields[4];
    char *end = strchr(text, '\n');

    if (end == NULL) {
        return NULL;
    }
    *end = '\0';
    for (size_t i = 0; i < 4; i++) {
        fields[i] = text != NULL ? strsep(&text, " ") : NULL;
        if (fields[i] == NULL) {
            return NULL;
        }
        field_unescape(fields[i]);
    }
    line->source = fields[0];
    line->target = fields[1];
    line->type = fields[2];
    line->writable = strncmp(fields[3], "rw", 2) == 0 && (fields[3][2] == ',' || !fields[3][2]);
    return end + 1;
}

/* Whether what is written to it outlives the guest. */
static bool mount_is_durable(const struct mount_line *line)
{
    return line->writable && (strncmp(line->source, "/dev/", 5) == 0 || strcmp(line->type, "virtiofs") == 0 ||
                              strncmp(line->type, "fuse", 4) == 0);
}

static void mount_finish(const struct mount_line *line)
{
    if (strcmp(line->target, "/") != 0 && umount2(line->target, 0) == 0) {
        return;
    }
    if (mount(NULL, line->target, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0) {
        char text[256];

        snprintf(text, sizeof(text), "%s on %s stays writable: %s", line->source, line->target, strerror(errno));
        console_say(text);
        sync();
    }
}

void mounts_finish(void)
{
    static char table[64 * 1024];
    static struct mount_line lines[MOUNTS_MAX];
    size_t used = 0;
    size_t count = 0;
    char *next = table;
    int fd = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && used < sizeof(table) - 1) {
        ssize_t got = read(fd, table + used, sizeof(table) - 1 - used);

        if (got <= 0) {
            break;
        }
        used += (size_t)got;
    }
    close(fd);
    while (count < MOUNTS_MAX && (next = mount_line_take(&lines[count], next)) != NULL) {
        if (mount_is_durable(&lines[count])) {
            count++;
        }
    }
    if (fd < 0 || used == sizeof(table) - 1 || count == MOUNTS_MAX) {
        sync();
    }
    /* The last mounted first: what lies on top goes before what it lies on. */
    while (count > 0) {
        mount_finish(&lines[--count]);
    }
}
