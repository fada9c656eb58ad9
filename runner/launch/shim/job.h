/* The job: what a runner asks to be started, as it lies in a memfd (PROTOCOL.md). */
#ifndef JOB_H
#define JOB_H
#include <stdint.h>

enum { INHERIT_ENVIRONMENT = 1, KNOWN_FLAGS = 1 };

/* x86_64 and aarch64 are little-endian. */
struct header { uint32_t magic, flags; int32_t uid, gid; uint32_t ports, limits, arguments, variables; };
struct limit { uint32_t resource, zero; uint64_t value; } __attribute__((packed));
struct job {
    struct header *header; /* also the start of what was allocated */
    uint32_t *target;
    struct limit *limit;
    char *folder, **arguments, **variables;
};

/* 0, or the errno that says why this is no job. Nothing in it is believed before it is checked. To be freed in both
 * cases. */
int parse_job(int fd, uint32_t ports, struct job *job);
void free_job(struct job *job);

#endif
