/* What the files for AVX2 share. */
#ifndef EHMN_AVX2_H
#define EHMN_AVX2_H

#include "fixed.h"

#include <immintrin.h>

/* ehmn_exp2_neg of eight values, 0..2^17. The table has 16-bit entries: the last is read as the upper half of a
 * word. */
static inline __m256i exp2_neg(__m256i x)
{
    const __m256i last = _mm256_set1_epi32(254), byte = _mm256_set1_epi32(255), one = _mm256_set1_epi32(1);
    __m256i whole = _mm256_srli_epi32(_mm256_add_epi32(x, byte), 8);
    __m256i index = _mm256_sub_epi32(_mm256_slli_epi32(whole, 8), x);
    __m256i word = _mm256_i32gather_epi32((const int *)(const void *)ehmn_exp2_table, _mm256_min_epi32(index, last), 2);
    __m256i high = _mm256_slli_epi32(_mm256_cmpgt_epi32(index, last), 4); /* -16 where the upper half is meant */
    word = _mm256_srlv_epi32(word, _mm256_sub_epi32(_mm256_setzero_si256(), high));
    word = _mm256_and_si256(word, _mm256_set1_epi32(65535));
    __m256i mantissa = _mm256_slli_epi32(_mm256_add_epi32(word, _mm256_set1_epi32(32768)), 9);
    __m256i half = _mm256_srli_epi32(_mm256_sllv_epi32(one, whole), 1);
    __m256i y = _mm256_srlv_epi32(_mm256_add_epi32(mantissa, half), whole);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(x, _mm256_set1_epi32(25 * 256)), y);
}

#endif
