/* Running a guest_driver's loop until nothing is left to do. */
#pragma once

#include "tests/unit/guest_ring.h"

/*
 * Returns when nothing is ready and no timer is due; fails the test when that does not come, as when a descriptor is
 * watched that nobody can serve: a loop that spins never settles.
 */
void guest_driver_settle(struct guest_driver *driver);
