/*
 * How often a byte is in a block of memory: the one loop of the data path that Python cannot do at memory speed (see
 * counting.py, which loads this and works without it). It needs no C library.
 */
#include <stddef.h>

enum { LANES = 16, ROUNDS = 255 }; /* a lane is one byte wide and must not overflow */

size_t connector_count(const unsigned char *data, size_t length, unsigned char wanted) {
    size_t total = 0;
    while (length >= LANES * ROUNDS) {
        unsigned char lanes[LANES] = {0};
        for (int round = 0; round < ROUNDS; round++, data += LANES)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] += (unsigned char)(data[lane] == wanted);
        for (int lane = 0; lane < LANES; lane++)
            total += lanes[lane];
        length -= LANES * ROUNDS;
    }
    for (size_t at = 0; at < length; at++)
        total += data[at] == wanted;
    return total;
}
