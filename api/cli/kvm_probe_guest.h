/* What the probe and its guest agree on. Included from assembly too. */
#pragma once

#define PORT_STEP 0x10
#define VECTOR_INTERRUPT 0x40
#define GUEST_XSAVE 0xb000 /* zeroed and 64-byte aligned */
#define SPEED_INSTRUCTIONS 200000

#define STEP_ENTERED 1
#define STEP_LOOPED 2
#define STEP_EXCEPTION 3
#define STEP_BREAKPOINT 4
#define STEP_STATE_SAVED 5
#define STEP_USER_MODE 6
#define STEP_SELF_IPI 7
#define STEP_TIMER 8
#define STEP_WANT_MESSAGE 9
#define STEP_DONE 10

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_USER_DATA 0x18
#define SELECTOR_USER_CODE 0x20
