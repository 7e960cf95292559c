/* Taps of the kernel's, for tests, in the network namespace that the process is in. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Makes the tap `name`, or opens it; `flags` beside IFF_TAP and IFF_NO_PI. One that is persistent stays when its
 * descriptor is closed. Returns the descriptor, -1 (and errno) when there is none to be had.
 */
int host_tap_open(const char *name, int flags, bool persistent);

/* Sets a network interface up or down; fails the test when it cannot. */
void host_link_set(const char *name, bool up);

/*
 * Waits until the kernel has noticed that somebody opened the tap: a worker does that, when it comes to it. What is
 * sent before is lost, and nobody is told.
 */
void host_tap_await(const char *name);

/* Deletes the tap under whoever has it open. */
void host_tap_delete(const char *name);

/* The host's end of the wire: a packet socket on `name` for frames of one type (ETH_P_ALL: all). */
int host_packet_socket(const char *name, uint16_t ethertype);
