/* A line of metrics, parsed. */
#pragma once

#include <stdbool.h>

#include <yajl/yajl_tree.h>

/* Has a line written and parses it; fails the test when it is no JSON. The caller frees it with yajl_tree_free. */
yajl_val metrics_line(void);
/* The number at group.key; the test fails when there is none. */
long long metrics_line_number(yajl_val line, const char *group, const char *key);
/* Whether there is an object of this name. */
bool metrics_line_has(yajl_val line, const char *group);
/* A number of a fresh line. */
long long metrics_line_next(const char *group, const char *key);
