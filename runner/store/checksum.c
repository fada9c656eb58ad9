/*
 * CRC-32 as zlib has it (polynomial 0xEDB88320, least significant bit first), by the instructions that the processor has
 * for it; see checksum.py, which loads this and works without it. It needs no C library.
 *
 * On x86_64: V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel,
 * 2009. Four registers of 16 bytes are each multiplied by what moves them 64 bytes on, then made one, then reduced.
 */
#include <stddef.h>
#include <stdint.h>

static uint32_t bytewise(uint32_t state, const uint8_t *data, size_t length) {
    for (; length > 0; length--, data++) {
        state ^= *data;
        for (int bit = 0; bit < 8; bit++)
            state = (state >> 1) ^ (0xEDB88320u & (0u - (state & 1)));
    }
    return state;
}

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define WITH_CLMUL __attribute__((target("sse4.1,pclmul")))

enum { WORD = 16, STRIDE = 4 * WORD };

/* What moves a register 64 bytes on, 16 bytes on, and 8 bytes on; then the polynomial and its inverse. */
static const uint64_t BY_64[2] = {0x154442bd4, 0x1c6e41596};
static const uint64_t BY_16[2] = {0x1751997d0, 0x0ccaa009e};
static const uint64_t BY_8[2] = {0x163cd6124, 0};
static const uint64_t REDUCE[2] = {0x1db710641, 0x1f7011641};

WITH_CLMUL static inline __m128i at(const void *place) {
    return _mm_loadu_si128((const __m128i *)place);
}

WITH_CLMUL static inline __m128i folded(__m128i value, __m128i by, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(value, by, 0x00), high = _mm_clmulepi64_si128(value, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* `length` is a multiple of 16 and at least 64. */
WITH_CLMUL static uint32_t blocks(uint32_t state, const uint8_t *data, size_t length) {
    __m128i one = _mm_xor_si128(at(data), _mm_cvtsi32_si128((int)state));
    __m128i two = at(data + WORD), three = at(data + 2 * WORD), four = at(data + 3 * WORD);
    __m128i by = at(BY_64);
    for (data += STRIDE, length -= STRIDE; length >= STRIDE; data += STRIDE, length -= STRIDE) {
        one = folded(one, by, at(data));
        two = folded(two, by, at(data + WORD));
        three = folded(three, by, at(data + 2 * WORD));
        four = folded(four, by, at(data + 3 * WORD));
    }
    by = at(BY_16);
    one = folded(folded(folded(one, by, two), by, three), by, four);
    for (; length >= WORD; data += WORD, length -= WORD)
        one = folded(one, by, at(data));
    const __m128i words = _mm_setr_epi32(-1, 0, -1, 0);
    one = _mm_xor_si128(_mm_srli_si128(one, 8), _mm_clmulepi64_si128(one, by, 0x10));
    two = _mm_srli_si128(one, 4);
    one = _mm_xor_si128(_mm_clmulepi64_si128(_mm_and_si128(one, words), at(BY_8), 0x00), two);
    by = at(REDUCE);
    two = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(one, words), by, 0x10), words);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(one, _mm_clmulepi64_si128(two, by, 0x00)), 1);
}

int connector_crc32_usable(unsigned long capabilities) {
    unsigned int a, b, c, d;
    (void)capabilities;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_PCLMUL) && (c & bit_SSE4_1);
}

uint32_t connector_crc32(const uint8_t *data, size_t length, uint32_t before) {
    uint32_t state = ~before;
    if (length >= STRIDE) {
        size_t whole = length & ~(size_t)(WORD - 1);
        state = blocks(state, data, whole);
        data += whole;
        length -= whole;
    }
    return ~bytewise(state, data, length);
}

#elif defined(__aarch64__)

enum { WORD = 8, HWCAP_CRC32_BIT = 7 };

__attribute__((target("+crc"))) static uint32_t blocks(uint32_t state, const uint8_t *data, size_t length) {
    for (; length >= WORD; data += WORD, length -= WORD) {
        uint64_t word;
        __builtin_memcpy(&word, data, WORD);
        __asm__("crc32x %w0, %w0, %x1" : "+r"(state) : "r"(word));
    }
    return state;
}

int connector_crc32_usable(unsigned long capabilities) {
    return capabilities >> HWCAP_CRC32_BIT & 1;
}

uint32_t connector_crc32(const uint8_t *data, size_t length, uint32_t before) {
    size_t whole = length & ~(size_t)(WORD - 1);
    return ~bytewise(blocks(~before, data, whole), data + whole, length - whole);
}

#else

int connector_crc32_usable(unsigned long capabilities) {
    (void)capabilities;
    return 0;
}

uint32_t connector_crc32(const uint8_t *data, size_t length, uint32_t before) {
    return ~bytewise(~before, data, length);
}

#endif
