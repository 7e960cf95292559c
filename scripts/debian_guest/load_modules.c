/*
 * The first process of a guest with Debian's kernel: loads the modules in /modules, in the order of their names, and
 * becomes /init. The kernel runs it with rdinit=/load-modules.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load(const char *name)
{
    char path[300];

    snprintf(path, sizeof(path), "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
        printf("load-modules: %s: %s\n", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    int count = scandir("/modules", &entries, NULL, alphasort);

    (void)argc;
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.')
            load(entries[i]->d_name);
    }
    argv[0] = "/init";
    execv(argv[0], argv);
    printf("load-modules: /init: %s\n", strerror(errno));
    return 1;
}
