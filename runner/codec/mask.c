/*
 * Copies bytes and lays a key of four bytes over them, as websockets do (RFC 6455, 5.3): one pass in place of a copy and
 * an XOR (see masking.py, which loads this and works without it). It needs no C library.
 */
#include <stddef.h>
#include <stdint.h>

void connector_mask(unsigned char *restrict to, const unsigned char *restrict from, size_t length, const unsigned char *key) {
    size_t at = 0;
    uint32_t word;
    __builtin_memcpy(&word, key, sizeof word);
    for (; length - at >= sizeof word; at += sizeof word) {
        uint32_t next;
        __builtin_memcpy(&next, from + at, sizeof next);
        next ^= word;
        __builtin_memcpy(to + at, &next, sizeof next);
    }
    for (size_t over = 0; at < length; at++, over++)
        to[at] = from[at] ^ key[over];
}
