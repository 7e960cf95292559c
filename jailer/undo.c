#include "jailer/undo.h"

#include "vmm/base/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

void undo_push(struct undo *undo, enum undo_kind kind, int directory, const char *name)
{
    if (undo->count == UNDO_MAX)
        return;

    struct undo_entry *entry = &undo->entries[undo->count++];

    entry->kind = kind;
    entry->directory = directory;
    snprintf(entry->name, sizeof(entry->name), "%s", name);
}

void undo_run(struct undo *undo)
{
    undo_run_to(undo, 0);
}

void undo_run_to(struct undo *undo, size_t count)
{
    while (undo->count > count) {
        const struct undo_entry *entry = &undo->entries[--undo->count];

        switch (entry->kind) {
        case UNDO_FILE:
            unlinkat(entry->directory, entry->name, 0);
            break;
        case UNDO_DIRECTORY:
            unlinkat(entry->directory, entry->name, AT_REMOVEDIR);
            break;
        case UNDO_MOUNT: /* by way of the working directory: the path depends on how far pivot_root got */
            if (fchdir(entry->directory) == 0)
                umount2(".", MNT_DETACH);
            break;
        case UNDO_BIND:
            if (fchdir(entry->directory) == 0)
                umount2(entry->name, MNT_DETACH | UMOUNT_NOFOLLOW);
            break;
        case UNDO_LEAVE_CGROUP:
            if (write(entry->directory, "0", 1) < 0)
                perror("mayfly-jailer: cannot leave the cgroup");
            break;
        }
    }
}
