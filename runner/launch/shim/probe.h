/* The prober: checks made by the shim's own code, for where there is no program to make them (PROTOCOL.md). */
#ifndef PROBE_H
#define PROBE_H

#define PROBER "connector-probe"
#define PROBE_S 5 /* at most, from the command line */

/* `arguments` as of a main, the first being PROBER. 0: it passes; 1: it does not; 2: it was asked wrongly. Waits for as
 * long as it takes: who asks kills it. */
int run_prober(char **arguments);

#endif
