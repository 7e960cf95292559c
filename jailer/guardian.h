/*
 * Clean-up after the point of no return. Once the main thread has given up root it can no longer remove what was made;
 * but credentials, capabilities, Landlock and seccomp belong to a thread, so a second thread that keeps them can. It
 * waits; a successful exec ends it together with the old program.
 */
#pragma once

#include "jailer/undo.h"
#include "vmm/base/error.h"

/* Starts the guardian; it borrows `undo`. After all unsharing, before privileges are dropped. */
struct error *guardian_start(struct undo *undo);

/* Has the guardian run undo_run and waits for it. Without a guardian the caller does it itself. */
void guardian_undo(struct undo *undo);
