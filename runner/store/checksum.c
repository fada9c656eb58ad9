/*
 * CRC-32 as zlib has it (polynomial 0xEDB88320, least significant bit first), by the instructions that the processor has
 * for it; see checksum.py, which loads this and works without it. It needs no C library.
 *
 * On x86_64: V. Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel,
 * 2009. Four registers of 16 bytes are each multiplied by what moves them 64 bytes on, then made one, then reduced. Newer
 * processors multiply two such registers at once (VPCLMULQDQ): four of 32 bytes, moved 128 bytes on.
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

/* Which pulls in malloc, and with it a C library that need not be here (the ziglang package brings none). */
#define _MM_MALLOC_H_INCLUDED /* gcc's mm_malloc.h */
#define __MM_MALLOC_H         /* clang's */
#include <cpuid.h>
#include <immintrin.h>

#define WITH_CLMUL __attribute__((target("sse4.1,pclmul")))

#define WITH_WIDE_CLMUL __attribute__((target("sse4.1,pclmul,avx2,vpclmulqdq")))

enum { WORD = 16, STRIDE = 4 * WORD, WIDE = 32, WIDE_STRIDE = 4 * WIDE, WORTH_WIDE = 2 * WIDE_STRIDE };

static int wide; /* whether the processor and the system have what `wide_blocks` takes; set by connector_crc32_usable */

/* What moves a register 128, 64, 16 and 8 bytes on; then the polynomial and its inverse. For n bits these are
 * x^(n+32) and x^(n-32) modulo the polynomial, reflected, times 2. */
static const uint64_t BY_128[4] = {0x1e88ef372, 0x14a7fe880, 0x1e88ef372, 0x14a7fe880};
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

/* The state after `one` and the `length` bytes, a multiple of 16, behind it. */
WITH_CLMUL static uint32_t reduced(__m128i one, const uint8_t *data, size_t length) {
    __m128i by = at(BY_16), two;
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

WITH_WIDE_CLMUL static inline __m256i wide_at(const void *place) {
    return _mm256_loadu_si256((const __m256i *)place);
}

WITH_WIDE_CLMUL static inline __m256i wide_folded(__m256i value, __m256i by, const uint8_t *next) {
    __m256i low = _mm256_clmulepi64_epi128(value, by, 0x00), high = _mm256_clmulepi64_epi128(value, by, 0x11);
    return _mm256_xor_si256(_mm256_xor_si256(low, high), wide_at(next));
}

/* `length` is a multiple of 16 and at least 128. */
WITH_WIDE_CLMUL static uint32_t wide_blocks(uint32_t state, const uint8_t *data, size_t length) {
    __m256i one = _mm256_xor_si256(wide_at(data), _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)state)));
    __m256i two = wide_at(data + WIDE), three = wide_at(data + 2 * WIDE), four = wide_at(data + 3 * WIDE);
    __m256i by = wide_at(BY_128);
    for (data += WIDE_STRIDE, length -= WIDE_STRIDE; length >= WIDE_STRIDE; data += WIDE_STRIDE, length -= WIDE_STRIDE) {
        one = wide_folded(one, by, data);
        two = wide_folded(two, by, data + WIDE);
        three = wide_folded(three, by, data + 2 * WIDE);
        four = wide_folded(four, by, data + 3 * WIDE);
    }
    __m256i all[4] = {one, two, three, four};
    __m128i sum = _mm256_castsi256_si128(one);
    for (size_t word = 1; word < WIDE_STRIDE / WORD; word++)
        sum = folded(sum, at(BY_16), at((const uint8_t *)all + word * WORD));
    return reduced(sum, data, length);
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
    return reduced(folded(folded(folded(one, by, two), by, three), by, four), data, length);
}

static int has_wide(void) {
    unsigned int a, b, c, d, enabled, above;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(enabled), "=d"(above) : "c"(0));
    if ((enabled & 6) != 6) /* the system keeps the registers of 32 bytes */
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2) && (c & bit_VPCLMULQDQ);
}

int connector_crc32_usable(unsigned long capabilities) {
    unsigned int a, b, c, d;
    (void)capabilities;
    wide = has_wide();
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_PCLMUL) && (c & bit_SSE4_1);
}

uint32_t connector_crc32(const uint8_t *data, size_t length, uint32_t before) {
    uint32_t state = ~before;
    if (length >= STRIDE) {
        size_t whole = length & ~(size_t)(WORD - 1);
        state = wide && whole >= WORTH_WIDE ? wide_blocks(state, data, whole) : blocks(state, data, whole);
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
