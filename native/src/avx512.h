/* What the files for AVX-512 share: masks, and the functions of tables. */
#ifndef EHMN_AVX512_H
#define EHMN_AVX512_H

#include "fixed.h"

#include <immintrin.h>

static inline __mmask32 first_of(uint32_t n)
{
    return n >= 32u ? 0xFFFFFFFFu : (1u << n) - 1u;
}

#if defined(__AVX512VNNI__)
/* The sums of products by one instruction, written so that each sum stays in its register: of the intrinsics gcc 12
 * makes two copies of a register for each in a loop. Bytes without a sign times bytes with one; words. */
static inline __m512i dot_bytes(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

static inline __m512i dot_words(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
#endif

#if defined(__AVX512BW__)
/* Four registers whose 32-bit lanes are rows' columns, transposed within each 128 bits. */
static inline void transpose4(__m512i v[4])
{
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(a, c);
    v[1] = _mm512_unpackhi_epi64(a, c);
    v[2] = _mm512_unpacklo_epi64(b, d);
    v[3] = _mm512_unpackhi_epi64(b, d);
}

/* Sixteen columns of four rows that lie four apart, one in each 128 bits. */
static inline __m512i load_rows(const int8_t *w, size_t stride, uint32_t rows, __mmask16 some)
{
    __m128i r[4];
    for (uint32_t k = 0; k < 4u; k++) {
        r[k] = 4u * k < rows ? _mm_maskz_loadu_epi8(some, w + 4u * k * stride) : _mm_setzero_si128();
    }
    __m512i v = _mm512_castsi128_si512(r[0]);
    v = _mm512_inserti32x4(v, r[1], 1);
    v = _mm512_inserti32x4(v, r[2], 2);
    return _mm512_inserti32x4(v, r[3], 3);
}

/* The same of whole ones. */
static inline __m512i load_whole(const int8_t *w, size_t stride)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)w));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(w + 4u * stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(w + 8u * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(w + 12u * stride)), 3);
}

/* Lay out up to sixteen rows: four[j] holds columns 4 j to 4 j + 3 of one row in each lane, zeros beyond rows and
 * columns; bits of `flip` are turned in every byte. */
static inline void lay_out_bytes(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, int8_t flip,
                                 __m512i *four)
{
    for (uint32_t c = 0; c < cols; c += 16u, four += 4) {
        __mmask16 some = (__mmask16)(cols - c >= 16u ? 0xFFFFu : (1u << (cols - c)) - 1u);
        __m512i v[4];
        for (uint32_t k = 0; k < 4u; k++) {
            const int8_t *from = w + c + k * stride;
            v[k] = rows >= 16u && some == 0xFFFFu ? load_whole(from, stride)
                   : k < rows                     ? load_rows(from, stride, rows - k, some)
                                                  : _mm512_setzero_si512();
        }
        transpose4(v);
        for (uint32_t k = 0; k < 4u; k++) {
            four[k] = _mm512_xor_si512(v[k], _mm512_set1_epi8(flip));
        }
    }
}
#endif

/* Odd lanes in the places of the even ones too. A shift would wait for the unit that multiplies. */
static inline __m512i odd_lanes(__m512i v)
{
    return _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0xF5);
}

/* The upper halves of sixteen products. */
static inline __m512i upper(__m512i a, __m512i b)
{
    __m512i even = odd_lanes(_mm512_mul_epi32(a, b)), odd = _mm512_mul_epi32(odd_lanes(a), odd_lanes(b));
    return _mm512_mask_blend_epi32(0xAAAAu, even, odd);
}

/* Entries 0..255 of the table of 2^(i / 256), for thirty-two indices: it fills eight registers. */
static inline __m512i exp2_entries(__m512i index)
{
    const uint16_t *table = ehmn_exp2_table;
    __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 32);
    __m512i t2 = _mm512_loadu_si512(table + 64), t3 = _mm512_loadu_si512(table + 96);
    __m512i t4 = _mm512_loadu_si512(table + 128), t5 = _mm512_loadu_si512(table + 160);
    __m512i t6 = _mm512_loadu_si512(table + 192), t7 = _mm512_loadu_si512(table + 224);
    __mmask32 second = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
    __m512i low = _mm512_mask_blend_epi16(second, _mm512_permutex2var_epi16(t0, index, t1),
                                          _mm512_permutex2var_epi16(t2, index, t3));
    __m512i high = _mm512_mask_blend_epi16(second, _mm512_permutex2var_epi16(t4, index, t5),
                                           _mm512_permutex2var_epi16(t6, index, t7));
    return _mm512_mask_blend_epi16(upper, low, high);
}

/* ehmn_exp2_neg of sixteen values: the entries of the table and the whole parts. */
static inline __m512i exp2_neg(__m256i entries, __m256i wholes)
{
    __m512i whole = _mm512_cvtepu16_epi32(wholes), one = _mm512_set1_epi32(1);
    __m512i mantissa = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtepu16_epi32(entries), _mm512_set1_epi32(32768)), 9);
    __m512i half = _mm512_srli_epi32(_mm512_sllv_epi32(one, whole), 1);
    return _mm512_srlv_epi32(_mm512_add_epi32(mantissa, half), whole);
}

/* ehmn_exp2_neg(max - logits[i]) of the first n logits, thirty-two at most, in two registers; zeros beyond. */
static inline void exp2_below(const int16_t *logits, uint32_t n, int32_t max, __m512i *low, __m512i *high)
{
    const __m512i byte = _mm512_set1_epi16(255), least = _mm512_set1_epi16(25 * 256 + 1);
    __mmask32 some = first_of(n);
    __m512i below = _mm512_sub_epi16(_mm512_set1_epi16((int16_t)max), _mm512_maskz_loadu_epi16(some, logits));
    some = _mm512_mask_cmplt_epu16_mask(some, below, least); /* the others are too small to count */
    below = _mm512_maskz_mov_epi16(some, below);
    __m512i whole = _mm512_srli_epi16(_mm512_add_epi16(below, byte), 8);
    __m512i entry = exp2_entries(_mm512_sub_epi16(_mm512_slli_epi16(whole, 8), below));
    __m512i p = exp2_neg(_mm512_castsi512_si256(entry), _mm512_castsi512_si256(whole));
    __m512i q = exp2_neg(_mm512_extracti64x4_epi64(entry, 1), _mm512_extracti64x4_epi64(whole, 1));
    *low = _mm512_maskz_mov_epi32((__mmask16)some, p);
    *high = _mm512_maskz_mov_epi32((__mmask16)(some >> 16), q);
}

/* ehmn_sigmoid of sixteen values: one read brings an entry of the table and the next. */
static inline __m512i sigmoid(__m512i x)
{
    __m512i a = _mm512_abs_epi32(x); /* -2^31 stays, and lies beyond the table as an unsigned number */
    __mmask16 beyond = _mm512_cmpge_epu32_mask(a, _mm512_set1_epi32(1 << 20));
    __m512i index = _mm512_min_epu32(_mm512_srli_epi32(a, 11), _mm512_set1_epi32(511));
    /* Read into zeros, or reading waits for what the register held, the sixteen values before. A compiler that knows
     * the mask to be full leaves the zeros out. */
    __mmask16 full = 0xFFFFu;
    __asm__("" : "+Yk"(full));
    __m512i word = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), full, index,
                                               (const void *)ehmn_sigmoid_table, 2);
    __m512i low = _mm512_and_si512(word, _mm512_set1_epi32(65535));
    __m512i step = _mm512_sub_epi32(_mm512_srli_epi32(word, 16), low);
    __m512i part = _mm512_mullo_epi32(step, _mm512_and_si512(a, _mm512_set1_epi32(2047)));
    __m512i y = _mm512_add_epi32(low, _mm512_srli_epi32(_mm512_add_epi32(part, _mm512_set1_epi32(1024)), 11));
    y = _mm512_mask_mov_epi32(y, beyond, _mm512_set1_epi32(65535));
    return _mm512_mask_sub_epi32(y, _mm512_cmplt_epi32_mask(x, _mm512_setzero_si512()), _mm512_set1_epi32(65536), y);
}

#endif
