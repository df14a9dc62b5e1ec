/* x86 with AVX-512 and VNNI: thirty-two columns in a register, multiplied and summed by one instruction; the
 * columns that are left are loaded under a mask. What gains nothing is that of AVX2. */
#include "kernels_tables.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include <immintrin.h>
#include <stddef.h>

static inline __m512i load(const int8_t *w, __mmask32 some)
{
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, w));
}

static inline __mmask32 first_of(uint32_t n)
{
    return n >= 32u ? 0xFFFFFFFFu : (1u << n) - 1u;
}

/* The sums of four registers. */
static inline __m128i sum16x4(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* One row: whole registers, then the rest under a mask. */
static __m512i dot(const int8_t *w, const int16_t *x, uint32_t cols)
{
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < cols; i += 32u) {
        __mmask32 some = first_of(cols - i);
        sum = _mm512_dpwssd_epi32(sum, load(w + i, some), _mm512_maskz_loadu_epi16(some, x + i));
    }
    return sum;
}

static inline __m512i load_all(const int8_t *w)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)w));
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t whole = cols & ~31u;
    uint32_t r = 0;
    for (; r + 4u <= rows; r += 4u, w += (size_t)4u * stride) {
        const int8_t *a = w, *b = a + stride, *c = b + stride, *d = c + stride;
        __m512i s0 = dot(a + whole, x + whole, cols - whole), s1 = dot(b + whole, x + whole, cols - whole);
        __m512i s2 = dot(c + whole, x + whole, cols - whole), s3 = dot(d + whole, x + whole, cols - whole);
        for (size_t i = 0; i < whole; i += 32u) {
            __m512i v = _mm512_loadu_si512(x + i);
            s0 = _mm512_dpwssd_epi32(s0, load_all(a + i), v);
            s1 = _mm512_dpwssd_epi32(s1, load_all(b + i), v);
            s2 = _mm512_dpwssd_epi32(s2, load_all(c + i), v);
            s3 = _mm512_dpwssd_epi32(s3, load_all(d + i), v);
        }
        _mm_storeu_si128((__m128i *)(void *)(acc + r), sum16x4(s0, s1, s2, s3));
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = _mm512_reduce_add_epi32(dot(w, x, cols));
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        __m512i sum = _mm512_setzero_si512();
        for (uint32_t i = 0; i < cols; i += 32u) {
            __mmask32 some = first_of(cols - i);
            sum = _mm512_dpwssd_epi32(sum, load(w + i, some), load(x + i, some));
        }
        acc[r] = _mm512_reduce_add_epi32(sum);
    }
}

/* Two rows at a time: each lane multiplies a pair of values by a pair of weights. A weight of 2^15 has no place in
 * 16 bits, so weights enter negated. */
static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    for (uint32_t c = 0; c < cols; c += 16u) {
        uint32_t n = cols - c < 16u ? cols - c : 16u;
        __mmask16 some = (__mmask16)((1u << n) - 1u);
        __m512i s = _mm512_setzero_si512();
        const int8_t *at = w + c;
        for (uint32_t r = 0; r < rows; r += 2u, at += (size_t)2u * stride) {
            int32_t second = r + 1u < rows ? weight[r + 1u] : 0;
            const int8_t *next = r + 1u < rows ? at + stride : at;
            uint32_t pair = ((uint32_t)-weight[r] & 0xFFFFu) | (uint32_t)-second << 16;
            __m128i a = _mm_maskz_loadu_epi8(some, at), b = _mm_maskz_loadu_epi8(some, next);
            __m256i pairs = _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b));
            s = _mm512_dpwssd_epi32(s, _mm512_cvtepi8_epi16(pairs), _mm512_set1_epi32((int32_t)pair));
        }
        _mm512_mask_storeu_epi32(acc + c, some, _mm512_sub_epi32(_mm512_setzero_si512(), s));
    }
}

const ehmn_kernels ehmn_kernels_vnni = {
    "vnni",
    matvec_s8,
    matvec_s16,
    ehmn_kernels_avx2_matvec_s4,
    weighted_sum,
    ehmn_kernels_avx2_scale,
    ehmn_kernels_avx2_step_row,
    ehmn_kernels_avx2_exp_sum,
    ehmn_kernels_avx2_soften,
    ehmn_kernels_avx2_gate,
    ehmn_kernels_avx2_fit,
    ehmn_kernels_vnni_matmat_s16,
    ehmn_kernels_vnni_matmat_s4,
};

#endif
