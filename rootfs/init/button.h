/*
 * The power button. The kernel tells process 1 by a signal (CONFIG_ACPI_TINY_POWER_BUTTON_SIGNAL).
 */
#pragma once

#include <stdbool.h>

/*
 * From now on, when the button is pressed, every process but init is asked to end (SIGTERM); those that are still there
 * some seconds later are killed. So whatever init waits for comes.
 */
void button_watch(void);

bool button_was_pressed(void);
