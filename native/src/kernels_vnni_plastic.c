/* What learning alone has of the tables for AVX-512: the steps of a row, and the nearest of keys. */
#include "kernels_tables.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include "avx512.h"

#include <string.h>

/* As for AVX2, thirty-two columns at a time. */
void ehmn_kernels_vnni_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                                uint32_t rate, uint32_t at)
{
    const __m512i r = _mm512_set1_epi32((int32_t)rate), u = _mm512_set1_epi32((int32_t)at);
    const __m256i turn = _mm256_set1_epi8((int8_t)flip);
    __m256i before = _mm256_setzero_si256(); /* its last byte: the steps up to here, modulo 256 */
    for (uint32_t j = 0; j < n; j += 32u) {
        __mmask32 some = first_of(n - j);
        __m512i a = _mm512_maskz_loadu_epi32((__mmask16)some, edge + j);
        __m512i b = _mm512_maskz_loadu_epi32((__mmask16)(some >> 16), edge + j + (n - j > 16u ? 16u : 0u));
        a = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_mullo_epi32(r, a)), 24);
        b = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_mullo_epi32(r, b)), 24);
        __m256i now = _mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a));
        __m256i shifted = _mm256_alignr_epi8(now, _mm256_permute2x128_si256(before, now, 0x21), 15);
        __m256i steps = _mm256_sub_epi8(now, shifted);
        __m256i down = _mm256_xor_si256(_mm256_maskz_loadu_epi8(some, sign + j), turn);
        __m256i moved = _mm256_adds_epi8(_mm256_maskz_loadu_epi8(some, w + j), _mm256_xor_si256(steps, down));
        _mm256_mask_storeu_epi8(w + j, some, _mm256_sub_epi8(moved, down));
        before = now;
    }
}

#define COUNTS_BITS __attribute__((target("avx512vpopcntdq")))

/* In how many bits eight keys of four words differ from `own`, which has the key four times, each in 64 bits: in turn
 * one of the first four and one of the others. */
COUNTS_BITS static inline __m512i differing_bits(const uint32_t *keys, __m512i own)
{
    __m512i a = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(keys), own));
    __m512i b = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(keys + 16), own));
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

_Static_assert(EHMN_RECALLED == 16u, "what was found fills a register");

#define KEYS 1024u /* whose distances are held at a time */

/* 2^16 distance + index of keys of four words, up to KEYS from index `first` on; beyond the last what is never
 * near. Returns a number that at least sixteen of them do not exceed, if there are so many: the largest of the
 * least ones of each lane. */
COUNTS_BITS static uint32_t distances(const uint32_t *keys, uint32_t n, uint32_t first, __m512i own, uint32_t *item)
{
    const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15);
    __m512i least = _mm512_set1_epi32(-1);
    uint32_t rest[64] = {0};
    for (uint32_t i = 0; i < n; i += 16u, keys += 64) {
        if (n - i < 16u) {
            memcpy(rest, keys, (size_t)(n - i) * 16u);
            keys = rest;
        }
        __mmask16 beyond = _mm512_cmpge_epu32_mask(order, _mm512_set1_epi32((int32_t)(n - i)));
        __m512i a = differing_bits(keys, own), b = differing_bits(keys + 32, own);
        __m512i items = _mm512_or_si512(_mm512_slli_epi64(a, 16), _mm512_slli_epi64(b, 48));
        items = _mm512_or_si512(items, _mm512_add_epi32(order, _mm512_set1_epi32((int32_t)(first + i))));
        items = _mm512_mask_mov_epi32(items, beyond, _mm512_set1_epi32(-1));
        least = _mm512_min_epu32(least, items);
        _mm512_storeu_si512(item + i, items);
    }
    return _mm512_reduce_max_epu32(least);
}

/* Of keys of four words. Which of them are near is known only after all, so that nothing branches on it: those below a
 * bound that few others stay below are put in order one by one. */
COUNTS_BITS static void nearest_of_four(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t *found)
{
    const __m512i own = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)key));
    __m512i all = _mm512_set1_epi32(-1);
    uint32_t item[KEYS], near[KEYS + 16u];
    for (uint32_t first = 0; first < n; first += KEYS) {
        uint32_t some = n - first < KEYS ? n - first : KEYS, count = 0;
        uint32_t bound = distances(keys + 4u * (size_t)first, some, first, own, item);
        const __m512i most = _mm512_set1_epi32((int32_t)bound);
        const __m512i last = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), all);
        for (uint32_t i = 0; i < some; i += 16u) {
            __m512i items = _mm512_loadu_si512(item + i);
            __mmask16 below = _mm512_mask_cmplt_epu32_mask(_mm512_cmple_epu32_mask(items, most), items, last);
            _mm512_storeu_si512(near + count, _mm512_maskz_compress_epi32(below, items));
            count += (uint32_t)__builtin_popcount(below);
        }
        for (uint32_t i = 0; i < count; i++) { /* the largest of all falls out */
            __m512i by = _mm512_set1_epi32((int32_t)near[i]);
            __m512i before = _mm512_alignr_epi32(all, _mm512_setzero_si512(), 15);
            all = _mm512_max_epu32(before, _mm512_min_epu32(all, by));
        }
    }
    _mm512_storeu_si512(found, all);
}

/* Not all processors with VNNI count the bits of a vector. */
void ehmn_kernels_vnni_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found)
{
    if (words == 4u && __builtin_cpu_supports("avx512vpopcntdq")) {
        nearest_of_four(keys, n, key, found);
    } else {
        ehmn_kernels_avx2_nearest(keys, n, key, words, found);
    }
}

#endif
