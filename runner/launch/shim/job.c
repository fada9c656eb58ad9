#define _GNU_SOURCE
#include "job.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAGIC = 0x314a4e43,
    MAX_JOB = 8 << 20, /* exec itself takes at most 6 MiB of arguments and variables */
};

/* Takes the next string; NULL when it is not ended. */
static char *next_string(char **place, const char *end)
{
    char *start = *place, *zero = memchr(start, 0, (size_t)(end - start));
    if (zero) *place = zero + 1;
    return zero ? start : NULL;
}

int parse_job(int fd, uint32_t ports, struct job *job)
{
    struct stat about;
    size_t size = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) ? (size_t)about.st_size : 0;
    if (size < sizeof(struct header) || size > MAX_JOB) return EINVAL;
    const struct header *header = job->header = malloc(size);
    if (!header) return ENOMEM;
    /* no mmap: a file that is cut short meanwhile would raise SIGBUS */
    if (pread(fd, job->header, size, 0) != (ssize_t)size) return EINVAL;
    if (header->magic != MAGIC || header->flags & ~(uint32_t)KNOWN_FLAGS) return EINVAL;
    if (header->uid < -1 || header->gid < -1) return EINVAL;
    if (header->ports != ports || header->limits > RLIM_NLIMITS || header->arguments < 1) return EINVAL;
    /* each string takes a byte at least, which bounds what is allocated below */
    uint64_t strings = 1 + (uint64_t)header->arguments + header->variables;
    if (sizeof *header + 4ull * ports + sizeof(struct limit) * header->limits + strings > size) return EINVAL;
    job->target = (uint32_t *)(job->header + 1);
    job->limit = (struct limit *)(job->target + ports);
    char *at = (char *)(job->limit + header->limits), *end = (char *)job->header + size;
    fd_set taken;
    FD_ZERO(&taken);
    for (uint32_t i = 0; i < ports; i++) {
        if (job->target[i] >= FD_SETSIZE || FD_ISSET(job->target[i], &taken)) return EINVAL;
        FD_SET(job->target[i], &taken);
    }
    for (uint32_t i = 0; i < header->limits; i++)
        if (job->limit[i].resource >= RLIM_NLIMITS || job->limit[i].zero != 0) return EINVAL;
    if (!(job->arguments = calloc(strings + 1, sizeof(char *)))) return ENOMEM; /* room for two closing NULLs */
    if (!(job->folder = next_string(&at, end))) return EINVAL;
    job->variables = job->arguments + header->arguments + 1;
    for (uint32_t i = 0; i < header->arguments; i++)
        if (!(job->arguments[i] = next_string(&at, end))) return EINVAL;
    for (uint32_t i = 0; i < header->variables; i++) {
        char *variable = job->variables[i] = next_string(&at, end);
        if (!variable || variable[0] == '=' || !strchr(variable, '=')) return EINVAL;
    }
    return at == end ? 0 : EINVAL;
}

void free_job(struct job *job)
{
    free(job->header);
    free(job->arguments);
}
