/* A group of cgroup version 2 that belongs to JAIL_UID, with this process in it, as systemd delegates one. */
#pragma once

#include <stdbool.h>

/* False when no version 2 is mounted. */
bool delegated_make(void);
/* Takes this process back to where it was. */
void delegated_end(void);

/* Removes what jailers left in it; or fails the test when there is anything. Without a delegated group: nothing. */
void delegated_empty(void);
void assert_delegated_is_empty(void);
