/* Between fork and exec: how a child of the shim becomes the program of a job. */
#ifndef PROGRAM_H
#define PROGRAM_H
#include "job.h"
#include <sys/types.h>

/* Why it was not started; as it lies in `F`. */
struct failure { uint32_t error; char stage; } __attribute__((packed));

/* Never returns. `source` are the ports' descriptors; `status` gets a failure, or ends by exec; `parent` is who forked:
 * with it the program dies. The caller has given it its session. */
void become_program(struct job *job, int *source, int status, pid_t parent) __attribute__((noreturn));
void give_up(int status, char stage, int error) __attribute__((noreturn));

void close_from(int first);
void default_signals(void);

#endif
