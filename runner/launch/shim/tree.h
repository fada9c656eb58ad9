/* Killing everything below a process. */
#ifndef TREE_H
#define TREE_H
#include <sys/types.h>

/* One pass over all descendants of `root`, which is the shim itself (and lives) or a child of it (and dies with them).
 * To be called again until they are reaped, as one may be out of reach for a moment. `group` is the process group to
 * kill where no descendants can be found, as there is no /proc; 0: none. */
void kill_tree(pid_t root, pid_t group);

#endif
