/* x86 with AVX-512 and VNNI: thirty-two columns in a register, multiplied and summed by one instruction; the
 * columns that are left are loaded under a mask. What gains nothing is that of AVX2. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include "avx512.h"

#include <stddef.h>
#include <string.h>

#define AHEAD 3072u /* bytes from what is multiplied to what is asked for */

static inline __m512i load(const int8_t *w, __mmask32 some)
{
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, w));
}

static inline __mmask64 first64(uint32_t n)
{
    return n >= 64u ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1u;
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
        sum = dot_words(sum, load(w + i, some), _mm512_maskz_loadu_epi16(some, x + i));
    }
    return sum;
}

static inline __m512i load_all(const int8_t *w)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)w));
}

/* Ask for four lines of weights that come later, in the order of memory though rows are read side by side: what the
 * processor fetches by itself ends with each page. Beyond the last weight this does nothing. */
static inline uintptr_t fetch_four(uintptr_t at)
{
    for (uint32_t k = 0; k < 4u; k++) {
        _mm_prefetch((const char *)(at + 64u * k), _MM_HINT_T0);
    }
    return at + 256u;
}

/* Two rows of thirty-two columns, one in each half. */
static inline __m512i two_rows(const int8_t *w, size_t stride)
{
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)w));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)(w + stride)), 1);
}

/* Thirty-two columns, as heads of attention have them: x = 256 high + low, low without a sign. The instruction's other
 * factor must have one, or none: so weights times low enter as they are, and weights times high plus 128. */
static uint32_t eights_of_32(const int8_t *w, uint32_t rows, size_t stride, const int16_t *x, int32_t *acc)
{
    const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m512i v = _mm512_loadu_si512(x), raise = _mm512_set1_epi8(-128);
    const __m512i low = _mm512_broadcast_i64x4(_mm512_cvtepi16_epi8(v));
    const __m512i high = _mm512_broadcast_i64x4(_mm512_cvtepi16_epi8(_mm512_srai_epi16(v, 8)));
    const int32_t sum = _mm512_reduce_add_epi32(dot_bytes(_mm512_setzero_si512(), _mm512_set1_epi8(1), high)) / 2;
    const __m256i raised = _mm256_set1_epi32(sum * (128 * 256));
    uint32_t r = 0;
    for (; r + 8u <= rows; r += 8u, w += 8u * stride) {
        __m512i s[4];
        for (uint32_t k = 0; k < 4u; k++) {
            __m512i rows2 = two_rows(w + 2u * k * stride, stride);
            s[k] = dot_bytes(_mm512_setzero_si512(), _mm512_xor_si512(rows2, raise), high);
            s[k] = dot_bytes(_mm512_slli_epi32(s[k], 8), low, rows2);
        }
        __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
        __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
        __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        all = _mm512_add_epi32(all, _mm512_shuffle_i64x2(all, all, 0xB1));
        __m256i out = _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, all));
        _mm256_storeu_si256((__m256i *)(void *)(acc + r), _mm256_sub_epi32(out, raised));
    }
    return r;
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    const size_t most = cols & ~63u, whole = cols & ~31u;
    uint32_t r = cols == 32u ? eights_of_32(w, rows, stride, x, acc) : 0u;
    w += (size_t)r * stride;
    for (; r + 4u <= rows; r += 4u, w += (size_t)4u * stride) {
        const int8_t *a = w, *b = a + stride, *c = b + stride, *d = c + stride;
        uintptr_t ahead = (uintptr_t)w + AHEAD;
        __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
        for (size_t i = 0; i < most; i += 64u) {
            __m512i v = _mm512_loadu_si512(x + i), u = _mm512_loadu_si512(x + i + 32u);
            ahead = fetch_four(ahead);
            s0 = dot_words(s0, load_all(a + i), v);
            s1 = dot_words(s1, load_all(b + i), v);
            s2 = dot_words(s2, load_all(c + i), v);
            s3 = dot_words(s3, load_all(d + i), v);
            s0 = dot_words(s0, load_all(a + i + 32u), u);
            s1 = dot_words(s1, load_all(b + i + 32u), u);
            s2 = dot_words(s2, load_all(c + i + 32u), u);
            s3 = dot_words(s3, load_all(d + i + 32u), u);
        }
        if (most < whole) {
            __m512i v = _mm512_loadu_si512(x + most);
            s0 = dot_words(s0, load_all(a + most), v);
            s1 = dot_words(s1, load_all(b + most), v);
            s2 = dot_words(s2, load_all(c + most), v);
            s3 = dot_words(s3, load_all(d + most), v);
        }
        if (whole < cols) {
            s0 = _mm512_add_epi32(s0, dot(a + whole, x + whole, cols & 31u));
            s1 = _mm512_add_epi32(s1, dot(b + whole, x + whole, cols & 31u));
            s2 = _mm512_add_epi32(s2, dot(c + whole, x + whole, cols & 31u));
            s3 = _mm512_add_epi32(s3, dot(d + whole, x + whole, cols & 31u));
        }
        _mm_storeu_si128((__m128i *)(void *)(acc + r), sum16x4(s0, s1, s2, s3));
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = _mm512_reduce_add_epi32(dot(w, x, cols));
    }
}

/* Sixty-four columns of bytes: the instruction takes one factor without a sign, so that weights enter plus 128, and 128
 * times the sum of x leaves in the end. Beyond the columns x is zero, whatever the weights are. */
static inline __m512i add_bytes(__m512i sum, __m512i w, __m512i x)
{
    return dot_bytes(sum, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), x);
}

/* One row: whole registers, then the rest under a mask. */
static inline __m512i dot8(const int8_t *w, const int8_t *x, uint32_t cols)
{
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < cols; i += 64u) {
        __mmask64 some = first64(cols - i);
        sum = add_bytes(sum, _mm512_maskz_loadu_epi8(some, w + i), _mm512_maskz_loadu_epi8(some, x + i));
    }
    return sum;
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    uint32_t r = 0, rest = cols & 63u;
    const size_t whole = cols & ~63u;
    __m512i raise = _mm512_setzero_si512();
    for (uint32_t i = 0; i < cols; i += 64u) {
        raise = dot_bytes(raise, _mm512_set1_epi8(-128), _mm512_maskz_loadu_epi8(first64(cols - i), x + i));
    }
    const int32_t raised = _mm512_reduce_add_epi32(raise);
    for (; r + 4u <= rows; r += 4u, w += (size_t)4u * stride) {
        const int8_t *a = w, *b = a + stride, *c = b + stride, *d = c + stride;
        uintptr_t ahead = (uintptr_t)w + AHEAD;
        __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
        for (size_t i = 0; i < whole; i += 64u) {
            __m512i v = _mm512_loadu_si512(x + i);
            ahead = fetch_four(ahead);
            s0 = add_bytes(s0, _mm512_loadu_si512(a + i), v);
            s1 = add_bytes(s1, _mm512_loadu_si512(b + i), v);
            s2 = add_bytes(s2, _mm512_loadu_si512(c + i), v);
            s3 = add_bytes(s3, _mm512_loadu_si512(d + i), v);
        }
        if (rest != 0) {
            s0 = _mm512_add_epi32(s0, dot8(a + whole, x + whole, rest));
            s1 = _mm512_add_epi32(s1, dot8(b + whole, x + whole, rest));
            s2 = _mm512_add_epi32(s2, dot8(c + whole, x + whole, rest));
            s3 = _mm512_add_epi32(s3, dot8(d + whole, x + whole, rest));
        }
        __m128i sum = _mm_sub_epi32(sum16x4(s0, s1, s2, s3), _mm_set1_epi32(raised));
        _mm_storeu_si128((__m128i *)(void *)(acc + r), sum);
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = (int32_t)((uint32_t)_mm512_reduce_add_epi32(dot8(w, x, cols)) - (uint32_t)raised);
    }
}

#define MOST_ROWS 512u

/* Thirty-two columns of row k in the lower half of a register, and of row k + 4 in the upper; of the rows that are
 * left, fewer than eight perhaps: beyond them the first again. */
static inline __m512i row_and_fourth(const int8_t *w, size_t stride, uint32_t k, uint32_t left, __mmask32 some)
{
    const int8_t *a = w + (k < left ? k : 0u) * stride, *b = w + (k + 4u < left ? k + 4u : 0u) * stride;
    if (some == 0xFFFFFFFFu) {
        __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)a));
        return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)b), 1);
    }
    __m512i v = _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(some, a));
    return _mm512_inserti64x4(v, _mm256_maskz_loadu_epi8(some, b), 1);
}

/* Bytes of the weights of eight rows: the first four in each lane of the lower half, the others in the upper. */
static inline __m512i fours_of(const uint8_t *bytes)
{
    const __m512i places = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    int64_t eight;
    memcpy(&eight, bytes, sizeof eight);
    return _mm512_permutexvar_epi32(places, _mm512_set1_epi64(eight));
}

/* Both halves of low + 2^8 high. */
static inline __m256i fold(__m512i low, __m512i high)
{
    __m512i sum = _mm512_add_epi32(low, _mm512_slli_epi32(high, 8));
    return _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
}

/* Thirty-two columns, eight rows at a time: a lane holds a column's values in four rows, which are multiplied by the
 * lower bytes of their weights and by the upper, 2^7 at most. */
static inline void weigh_columns(const int8_t *w, uint32_t rows, size_t stride, __mmask32 some, const uint8_t *low,
                                 const uint8_t *high, int32_t *acc)
{
    __m512i l0 = _mm512_setzero_si512(), l1 = l0, l2 = l0, l3 = l0, h0 = l0, h1 = l0, h2 = l0, h3 = l0;
    for (uint32_t r = 0; r < rows; r += 8u, w += 8u * stride) {
        uint32_t left = rows - r < 8u ? rows - r : 8u;
        __m512i a = row_and_fourth(w, stride, 0, left, some), b = row_and_fourth(w, stride, 1u, left, some);
        __m512i c = row_and_fourth(w, stride, 2u, left, some), d = row_and_fourth(w, stride, 3u, left, some);
        __m512i l = fours_of(low + r), h = fours_of(high + r);
        __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
        __m512i first = _mm512_unpacklo_epi16(ab, cd), second = _mm512_unpackhi_epi16(ab, cd);
        ab = _mm512_unpackhi_epi8(a, b);
        cd = _mm512_unpackhi_epi8(c, d);
        __m512i third = _mm512_unpacklo_epi16(ab, cd), fourth = _mm512_unpackhi_epi16(ab, cd);
        l0 = dot_bytes(l0, l, first);
        h0 = dot_bytes(h0, h, first);
        l1 = dot_bytes(l1, l, second);
        h1 = dot_bytes(h1, h, second);
        l2 = dot_bytes(l2, l, third);
        h2 = dot_bytes(h2, h, third);
        l3 = dot_bytes(l3, l, fourth);
        h3 = dot_bytes(h3, h, fourth);
    }
    __m256i s0 = fold(l0, h0), s1 = fold(l1, h1), s2 = fold(l2, h2), s3 = fold(l3, h3);
    __m512i sum = _mm512_castsi256_si512(_mm256_permute2x128_si256(s0, s1, 0x20));
    sum = _mm512_inserti64x4(sum, _mm256_permute2x128_si256(s2, s3, 0x20), 1);
    _mm512_mask_storeu_epi32(acc, (__mmask16)some, sum);
    if (some >> 16 != 0) {
        sum = _mm512_castsi256_si512(_mm256_permute2x128_si256(s0, s1, 0x31));
        sum = _mm512_inserti64x4(sum, _mm256_permute2x128_si256(s2, s3, 0x31), 1);
        _mm512_mask_storeu_epi32(acc + 16, (__mmask16)(some >> 16), sum);
    }
}

static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint8_t low[MOST_ROWS + 16u], high[MOST_ROWS + 16u];
    uint32_t c = 0;
    for (uint32_t r = 0; r < rows; r += 16u) { /* zeros beyond the rows */
        __m512i v = _mm512_maskz_loadu_epi32((__mmask16)first_of(rows - r), weight + r);
        _mm_storeu_si128((__m128i *)(void *)(low + r), _mm512_cvtepi32_epi8(v));
        _mm_storeu_si128((__m128i *)(void *)(high + r), _mm512_cvtepi32_epi8(_mm512_srli_epi32(v, 8)));
    }
    for (; c + 32u <= cols; c += 32u) {
        weigh_columns(w + c, rows, stride, 0xFFFFFFFFu, low, high, acc + c);
    }
    if (c < cols) {
        weigh_columns(w + c, rows, stride, first_of(cols - c), low, high, acc + c);
    }
}

static uint32_t exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    __m512i sum = _mm512_setzero_si512(), p, q;
    for (uint32_t i = 0; i < n; i += 32u) {
        exp2_below(logits + i, n - i, max, &p, &q);
        sum = _mm512_add_epi32(sum, _mm512_add_epi32(p, q));
    }
    return (uint32_t)_mm512_reduce_add_epi32(sum);
}

/* What a score is below the largest, at most what is too small to count. */
static inline __m512i below_most(const int32_t *scores, __mmask16 some, __m512i max)
{
    __m512i below = _mm512_sub_epi32(max, _mm512_mask_loadu_epi32(max, some, scores));
    return _mm512_min_epu32(below, _mm512_set1_epi32(25 * 256 + 1));
}

/* A weight; what is not near counts nothing. */
static inline __m512i softened(__m256i entry, __m256i whole, __mmask16 near)
{
    __m512i p = _mm512_add_epi32(exp2_neg(entry, whole), _mm512_set1_epi32(256));
    return _mm512_maskz_srli_epi32(near, p, 9);
}

/* Thirty-two at a time, as many as are looked up at once. */
static uint32_t soften(int32_t *scores, uint32_t n, int32_t max)
{
    const __m512i byte = _mm512_set1_epi16(255), last = _mm512_set1_epi16(25 * 256 + 1), most = _mm512_set1_epi32(max);
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 32u) {
        __mmask32 some = first_of(n - i);
        __mmask16 low = (__mmask16)some, high = (__mmask16)(some >> 16);
        int32_t *first = scores + i, *rest = first + (n - i > 16u ? 16u : 0u);
        __m512i below = _mm512_packus_epi32(below_most(first, low, most), below_most(rest, high, most));
        below = _mm512_permutexvar_epi64(in_order, below);
        __mmask32 near = _mm512_mask_cmplt_epu16_mask(some, below, last);
        __m512i whole = _mm512_srli_epi16(_mm512_add_epi16(below, byte), 8);
        __m512i entry = exp2_entries(_mm512_sub_epi16(_mm512_slli_epi16(whole, 8), below));
        __m512i a = softened(_mm512_castsi512_si256(entry), _mm512_castsi512_si256(whole), (__mmask16)near);
        __m512i b = softened(_mm512_extracti64x4_epi64(entry, 1), _mm512_extracti64x4_epi64(whole, 1),
                             (__mmask16)(near >> 16));
        sum = _mm512_add_epi32(sum, _mm512_add_epi32(a, b));
        _mm512_mask_storeu_epi32(first, low, a);
        _mm512_mask_storeu_epi32(rest, high, b);
    }
    return (uint32_t)_mm512_reduce_add_epi32(sum);
}

/* round(a b / 2^shift), shift 1..62, without its saturation: even and odd lanes, as 64 bits. */
static inline void rounded(__m512i a, __m512i b, uint32_t shift, __m512i *even, __m512i *odd)
{
    const __m512i half = _mm512_set1_epi64(1LL << (shift - 1u));
    __m512i p = _mm512_mul_epi32(a, b), q = _mm512_mul_epi32(odd_lanes(a), odd_lanes(b));
    const __m512i count = _mm512_set1_epi64((int)shift);
    *even = _mm512_srav_epi64(_mm512_add_epi64(p, half), count);
    *odd = _mm512_srav_epi64(_mm512_add_epi64(q, half), count);
}

static inline __m512i together(__m512i even, __m512i odd)
{
    return _mm512_mask_blend_epi32(0xAAAAu, even, _mm512_shuffle_epi32(odd, (_MM_PERM_ENUM)0xA0));
}

static inline __m512i saturated(__m512i even, __m512i odd)
{
    const __m512i places = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    __m512i low = _mm512_castsi256_si512(_mm512_cvtsepi64_epi32(even));
    __m512i high = _mm512_castsi256_si512(_mm512_cvtsepi64_epi32(odd));
    return _mm512_max_epi32(_mm512_permutex2var_epi32(low, places, high), _mm512_set1_epi32(-INT32_MAX));
}

/* The same by a shift of 33..62, where the upper halves of the products are enough and none needs saturation. */
static inline __attribute__((always_inline)) void scale_upper(const int32_t *v, const int32_t *factor, uint32_t n,
                                                              int32_t step, int32_t shift, int32_t *out)
{
    const __m512i half = _mm512_set1_epi32((int32_t)(1u << (shift - 33)));
    const __m512i count = _mm512_set1_epi32(shift - 32);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = (__mmask16)first_of(n - i);
        __m512i a = _mm512_maskz_loadu_epi32(some, v + i), b = _mm512_maskz_loadu_epi32(some, factor + i);
        a = step != 1 ? _mm512_mullo_epi32(a, _mm512_set1_epi32(step)) : a;
        __m512i high = _mm512_add_epi32(upper(a, b), half);
        _mm512_mask_storeu_epi32(out + i, some, _mm512_srav_epi32(high, count));
    }
}

static void scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    __m512i even, odd;
    if (shift >= 33 && shift <= 62) {
        scale_upper(v, factor, n, 1, shift, out);
        return;
    }
    if (shift < 1 || shift > 62) {
        ehmn_kernels_rows_scale(v, factor, n, shift, out);
        return;
    }
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = (__mmask16)first_of(n - i);
        __m512i a = _mm512_maskz_loadu_epi32(some, v + i), b = _mm512_maskz_loadu_epi32(some, factor + i);
        rounded(a, b, (uint32_t)shift, &even, &odd);
        _mm512_mask_storeu_epi32(out + i, some, saturated(even, odd));
    }
}

static void scale_steps(int32_t *v, const int32_t *factor, uint32_t n, int32_t step, int32_t shift)
{
    if (shift >= 33 && shift <= 62) {
        scale_upper(v, factor, n, step, shift, v);
    } else {
        ehmn_multiply_all(v, n, step);
        scale(v, factor, n, shift, v);
    }
}

static void gate(const int32_t *by, int32_t *up, uint32_t n, int32_t frac)
{
    const __m512i most = _mm512_set1_epi32(1 << 21), least = _mm512_set1_epi32(-(1 << 21)); /* all beyond is alike */
    const __m512i wider = _mm512_set1_epi32(16 - frac);
    __m512i even, odd;
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = (__mmask16)first_of(n - i);
        __m512i g = _mm512_maskz_loadu_epi32(some, by + i), u = _mm512_maskz_loadu_epi32(some, up + i);
        __m512i x = _mm512_sllv_epi32(_mm512_max_epi32(_mm512_min_epi32(g, most), least), wider);
        rounded(g, sigmoid(x), 16u, &even, &odd); /* less than g */
        rounded(together(even, odd), u, (uint32_t)frac, &even, &odd);
        _mm512_mask_storeu_epi32(up + i, some, saturated(even, odd));
    }
}

/* As for AVX2: gain = high 2^10 + low, each in the lower half of a lane, as biases are. */
static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    const __m512i most = _mm512_set1_epi32(1 << 25), least = _mm512_set1_epi32(-(1 << 25));
    const __m512i high = _mm512_set1_epi32(gain >> 10), low = _mm512_set1_epi32(gain & 1023);
    __m512i largest = _mm512_set1_epi32(max);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = (__mmask16)first_of(n - i);
        __m512i logit = _mm512_maskz_loadu_epi32(some, v + i);
        if (bias != NULL) {
            __m512i b = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(some, bias + i));
            __m512i rest = _mm512_add_epi32(_mm512_madd_epi16(b, low), _mm512_set1_epi32(1 << 19));
            __m512i added = _mm512_add_epi32(_mm512_madd_epi16(b, high), _mm512_srai_epi32(rest, 10));
            logit = _mm512_min_epi32(_mm512_max_epi32(logit, least), most);
            logit = _mm512_add_epi32(logit, _mm512_srai_epi32(added, 10));
        }
        logit = _mm512_max_epi32(_mm512_min_epi32(logit, _mm512_set1_epi32(INT16_MAX)), _mm512_set1_epi32(-INT16_MAX));
        largest = _mm512_mask_max_epi32(largest, some, largest, logit);
        _mm512_mask_cvtepi32_storeu_epi16(out + i, some, logit);
    }
    return _mm512_reduce_max_epi32(largest);
}

#define TABLE_OF_ONE_VECTOR                                                                         \
    .matvec_s8 = matvec_s8, .matvec_s16 = matvec_s16, .matvec_s4 = ehmn_kernels_avx2_matvec_s4,     \
    .weighted_sum = weighted_sum, .scale = scale, .scale_steps = scale_steps,                       \
    .step_row = ehmn_kernels_vnni_step_row, .few_steps = 1u, .exp_sum = exp_sum,                    \
    .soften = soften, .gate = gate, .fit = fit, .nearest = ehmn_kernels_vnni_nearest

const ehmn_kernels ehmn_kernels_vnni = {
    .name = "vnni",
    TABLE_OF_ONE_VECTOR,
    .matmat_s16 = ehmn_kernels_vnni_matmat_s16,
    .matmat_s4 = ehmn_kernels_vnni_matmat_s4,
    .matmat_s8 = ehmn_kernels_vnni_matmat_s8,
    .weighted_sums = ehmn_kernels_vnni_weighted_sums,
};

#if defined(EHMN_AMX)
const ehmn_kernels ehmn_kernels_amx = {
    .name = "amx",
    TABLE_OF_ONE_VECTOR,
    .matmat_s16 = ehmn_kernels_amx_matmat_s16,
    .matmat_s4 = ehmn_kernels_vnni_matmat_s4,
    .matmat_s8 = ehmn_kernels_amx_matmat_s8,
    .weighted_sums = ehmn_kernels_vnni_weighted_sums,
};
#endif

#endif
