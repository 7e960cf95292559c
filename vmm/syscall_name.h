/* Names of system calls, for the log. */
#pragma once

/* The name of system call `number` of this architecture; "unknown" when it has none. Async-signal-safe. */
const char *syscall_name(int number);
