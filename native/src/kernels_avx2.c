/* x86 with AVX2: four rows at a time, sixteen columns in a register, products summed in pairs. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(__AVX2__)

#include "avx2.h"

#include <stddef.h>
#include <string.h>

#define AHEAD 3072u /* bytes from what is multiplied to what is asked for */

static inline __m256i load16(const int8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline __m256i load32(const void *p)
{
    return _mm256_loadu_si256(p);
}

static inline int32_t sum8(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    return _mm_cvtsi128_si32(s);
}

/* The sums of four registers. */
static inline __m128i sum8x4(__m256i a, __m256i b, __m256i c, __m256i d)
{
    __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

static int32_t dot_tail(const int8_t *w, const int16_t *x, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t c = 0; c < n; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

static int32_t dot(const int8_t *w, const int16_t *x, uint32_t cols)
{
    __m256i sum = _mm256_setzero_si256();
    uint32_t c = 0;
    for (; c + 16u <= cols; c += 16u) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(load16(w + c), load32(x + c)));
    }
    return sum8(sum) + dot_tail(w + c, x + c, cols - c);
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t whole = cols & ~15u;
    uint32_t r = 0;
    for (; r + 4u <= rows; r += 4u, w += (size_t)4u * stride) {
        const int8_t *row[4] = {w, w + stride, w + (size_t)2u * stride, w + (size_t)3u * stride};
        uintptr_t ahead = (uintptr_t)w + AHEAD;
        __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
        for (uint32_t c = 0; c < whole; c += 16u, ahead += 64u) {
            __m256i v = load32(x + c);
            _mm_prefetch((const char *)ahead, _MM_HINT_T0); /* as memory lies; beyond the last it does nothing */
            s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(load16(row[0] + c), v));
            s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(load16(row[1] + c), v));
            s2 = _mm256_add_epi32(s2, _mm256_madd_epi16(load16(row[2] + c), v));
            s3 = _mm256_add_epi32(s3, _mm256_madd_epi16(load16(row[3] + c), v));
        }
        _mm_storeu_si128((__m128i *)(void *)(acc + r), sum8x4(s0, s1, s2, s3));
        for (uint32_t i = 0; i < 4u && whole < cols; i++) {
            acc[r + i] += dot_tail(row[i] + whole, x + whole, cols - whole);
        }
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = dot(w, x, cols);
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    int16_t wide[256];
    for (uint32_t first = 0; first < cols || first == 0; first += 256u) {
        uint32_t n = cols - first < 256u ? cols - first : 256u;
        for (uint32_t c = 0; c < n; c++) {
            wide[c] = x[first + c];
        }
        if (first == 0) {
            matvec_s16(w, rows, n, stride, wide, acc);
            continue;
        }
        for (uint32_t r = 0; r < rows; r++) {
            acc[r] += dot(w + (size_t)r * stride + first, wide, n);
        }
    }
}

/* Thirty-two weights of 4 bits as two registers of 16 in the order of the columns. */
static inline void unpack(const uint8_t *w, __m256i *first, __m256i *second)
{
    __m128i both = _mm_loadu_si128((const __m128i *)(const void *)w);
    __m128i mask = _mm_set1_epi8(15);
    __m128i eight = _mm_set1_epi8(8);
    __m128i even = _mm_sub_epi8(_mm_xor_si128(_mm_and_si128(both, mask), eight), eight);
    __m128i odd = _mm_sub_epi8(_mm_xor_si128(_mm_and_si128(_mm_srli_epi16(both, 4), mask), eight), eight);
    *first = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd));
    *second = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(even, odd));
}

void ehmn_kernels_avx2_matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc)
{
    uint32_t whole = cols & ~31u;
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        __m256i sum = _mm256_setzero_si256();
        for (uint32_t c = 0; c < whole; c += 32u) {
            __m256i first, second;
            unpack(w + c / 2u, &first, &second);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(first, load32(x + c)));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(second, load32(x + c + 16u)));
        }
        int32_t rest = 0;
        if (whole < cols) {
            ehmn_kernels_rows_matvec_s4(w + whole / 2u, 1u, cols - whole, stride, x + whole, &rest);
        }
        acc[r] = sum8(sum) + rest;
    }
}

/* Sixteen columns, two rows at a time: each lane multiplies a pair of values by a pair of weights. A weight of 2^15 has
 * no place in 16 bits, so weights enter negated. */
static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint32_t c = 0;
    for (; c + 16u <= cols; c += 16u) {
        __m256i s0 = _mm256_setzero_si256(), s1 = s0;
        const int8_t *at = w + c;
        for (uint32_t r = 0; r < rows; r += 2u, at += (size_t)2u * stride) {
            int last = r + 1u == rows;
            uint32_t second = last ? 0u : (uint32_t)-weight[r + 1u];
            __m256i f = _mm256_set1_epi32((int32_t)(((uint32_t)-weight[r] & 0xFFFFu) | second << 16));
            __m128i a = _mm_loadu_si128((const __m128i *)(const void *)at);
            __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(last ? at : at + stride));
            s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(f, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b))));
            s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(f, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b))));
        }
        _mm256_storeu_si256((__m256i *)(void *)(acc + c), _mm256_sub_epi32(_mm256_setzero_si256(), s0));
        _mm256_storeu_si256((__m256i *)(void *)(acc + c + 8u), _mm256_sub_epi32(_mm256_setzero_si256(), s1));
    }
    if (c < cols) {
        ehmn_kernels_rows_weighted_sum(w + c, rows, cols - c, stride, weight, acc + c);
    }
}

/* The same where the whole products count, by a shift of 1..32; less than eight values, or where one leaves 32 bits,
 * in plain C. */
static uint32_t scale_whole(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    __m256i half = _mm256_set1_epi64x(1LL << (shift - 1));
    __m128i right = _mm_cvtsi32_si128(shift), left = _mm_cvtsi32_si128(32 - shift), sign = _mm_cvtsi32_si128(shift - 1);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i a = load32(v + i), b = load32(factor + i);
        __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
        __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
        odd = _mm256_add_epi64(odd, half);
        __m256i low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
        __m256i high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
        __m256i y = _mm256_or_si256(_mm256_srl_epi32(low, right), _mm256_sll_epi32(high, left));
        __m256i fits = _mm256_cmpeq_epi32(_mm256_sra_epi32(high, sign), _mm256_srai_epi32(y, 31));
        __m256i least = _mm256_cmpeq_epi32(y, _mm256_set1_epi32(INT32_MIN));
        if (_mm256_movemask_epi8(_mm256_andnot_si256(least, fits)) == -1) {
            _mm256_storeu_si256((__m256i *)(void *)(out + i), y);
        } else {
            ehmn_kernels_rows_scale(v + i, factor + i, 8u, shift, out + i);
        }
    }
    return i;
}

/* The same by a shift of 33..62, where the upper halves of the products are enough, of v times step. */
static inline __attribute__((always_inline)) uint32_t scale_upper(const int32_t *v, const int32_t *factor, uint32_t n,
                                                                  int32_t step, int32_t shift, int32_t *out)
{
    const __m256i half = _mm256_set1_epi32((int32_t)(1u << (shift - 33)));
    const __m128i count = _mm_cvtsi32_si128(shift - 32);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i a = load32(v + i), b = load32(factor + i);
        a = step != 1 ? _mm256_mullo_epi32(a, _mm256_set1_epi32(step)) : a;
        __m256i even = _mm256_srli_epi64(_mm256_mul_epi32(a, b), 32);
        __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
        __m256i high = _mm256_blend_epi32(even, odd, 0xAA);
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_sra_epi32(_mm256_add_epi32(high, half), count));
    }
    return i;
}

static void scale_steps(int32_t *v, const int32_t *factor, uint32_t n, int32_t step, int32_t shift)
{
    uint32_t i = shift >= 33 && shift <= 62 ? scale_upper(v, factor, n, step, shift, v) : 0u;
    ehmn_multiply_all(v + i, n - i, step);
    ehmn_kernels_avx2_scale(v + i, factor + i, n - i, shift, v + i);
}

void ehmn_kernels_avx2_scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    uint32_t i = 0;
    if (shift >= 33 && shift <= 62) {
        i = scale_upper(v, factor, n, 1, shift, out);
    }
    if (shift >= 1 && shift <= 32) {
        i = scale_whole(v, factor, n, shift, out);
    }
    ehmn_kernels_rows_scale(v + i, factor + i, n - i, shift, out + i);
}

/* The upper bytes of (at + rate * edge), eight of them, one in each 32-bit lane. */
static inline __m256i steps_before(const uint32_t *edge, __m256i rate, __m256i at)
{
    return _mm256_srli_epi32(_mm256_add_epi32(at, _mm256_mullo_epi32(rate, load32(edge))), 24);
}

void ehmn_kernels_avx2_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                                uint32_t rate, uint32_t at)
{
    __m256i r = _mm256_set1_epi32((int32_t)rate), u = _mm256_set1_epi32((int32_t)at);
    __m128i turn = _mm_set1_epi8((int8_t)flip);
    __m128i before = _mm_setzero_si128(); /* its last byte: the steps up to here, modulo 256 */
    uint32_t j = 0;
    for (; j + 16u <= n; j += 16u) {
        __m256i words = _mm256_packus_epi32(steps_before(edge + j, r, u), steps_before(edge + j + 8u, r, u));
        words = _mm256_permute4x64_epi64(words, 0xD8);
        __m128i now = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        __m128i steps = _mm_sub_epi8(now, _mm_alignr_epi8(now, before, 15));
        __m128i down = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)(sign + j)), turn);
        __m128i *place = (__m128i *)(void *)(w + j); /* d steps down: - d - 1, with saturation, + 1 */
        __m128i moved = _mm_adds_epi8(_mm_loadu_si128(place), _mm_xor_si128(steps, down));
        _mm_storeu_si128(place, _mm_sub_epi8(moved, down));
        before = now;
    }
    uint32_t last = (uint32_t)_mm_extract_epi8(before, 15);
    for (; j < n; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t count = (int32_t)((now - last) & 255u);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -count : count), -127, 127);
        last = now;
    }
}

uint32_t ehmn_kernels_avx2_exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    __m256i sum = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m128i l = _mm_loadu_si128((const __m128i *)(const void *)(logits + i));
        __m256i below = _mm256_sub_epi32(_mm256_set1_epi32(max), _mm256_cvtepi16_epi32(l));
        sum = _mm256_add_epi32(sum, exp2_neg(below));
    }
    return (uint32_t)sum8(sum) + ehmn_kernels_rows_exp_sum(logits + i, n - i, max);
}

uint32_t ehmn_kernels_avx2_soften(int32_t *scores, uint32_t n, int32_t max)
{
    __m256i sum = _mm256_setzero_si256(), far = _mm256_set1_epi32(25 * 256 + 1);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i below = _mm256_min_epu32(_mm256_sub_epi32(_mm256_set1_epi32(max), load32(scores + i)), far);
        __m256i weight = _mm256_srli_epi32(_mm256_add_epi32(exp2_neg(below), _mm256_set1_epi32(256)), 9);
        sum = _mm256_add_epi32(sum, weight);
        _mm256_storeu_si256((__m256i *)(void *)(scores + i), weight);
    }
    return (uint32_t)sum8(sum) + ehmn_kernels_rows_soften(scores + i, n - i, max);
}

/* ehmn_sigmoid of eight values: one read brings an entry of the table and the next. */
static inline __m256i sigmoid(__m256i x)
{
    __m256i a = _mm256_abs_epi32(x); /* -2^31 stays, and lies beyond the table as an unsigned number */
    __m256i beyond = _mm256_cmpgt_epi32(_mm256_srli_epi32(a, 20), _mm256_setzero_si256());
    __m256i index = _mm256_min_epu32(_mm256_srli_epi32(a, 11), _mm256_set1_epi32(511));
    __m256i word = _mm256_i32gather_epi32((const int *)(const void *)ehmn_sigmoid_table, index, 2);
    __m256i low = _mm256_and_si256(word, _mm256_set1_epi32(65535));
    __m256i step = _mm256_sub_epi32(_mm256_srli_epi32(word, 16), low);
    __m256i part = _mm256_mullo_epi32(step, _mm256_and_si256(a, _mm256_set1_epi32(2047)));
    __m256i y = _mm256_add_epi32(low, _mm256_srli_epi32(_mm256_add_epi32(part, _mm256_set1_epi32(1024)), 11));
    y = _mm256_blendv_epi8(y, _mm256_set1_epi32(65535), beyond);
    return _mm256_blendv_epi8(y, _mm256_sub_epi32(_mm256_set1_epi32(65536), y), _mm256_srai_epi32(x, 31));
}

/* The lower and the upper halves of the eight products of a and b, plus `half`. */
static inline void products(__m256i a, __m256i b, __m256i half, __m256i *low, __m256i *high)
{
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
    __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    odd = _mm256_add_epi64(odd, half);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

/* Eight at a time where no result leaves 32 bits. */
void ehmn_kernels_avx2_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac)
{
    const __m256i most = _mm256_set1_epi32(1 << 21), least = _mm256_set1_epi32(-(1 << 21)); /* all beyond is alike */
    const __m256i half16 = _mm256_set1_epi64x(1 << 15), half = _mm256_set1_epi64x(1LL << (frac - 1));
    const __m128i wider = _mm_cvtsi32_si128(16 - frac), right = _mm_cvtsi32_si128(frac);
    const __m128i left = _mm_cvtsi32_si128(32 - frac), but_one = _mm_cvtsi32_si128(frac - 1);
    __m256i low, high;
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i g = load32(gate + i);
        __m256i x = _mm256_sll_epi32(_mm256_max_epi32(_mm256_min_epi32(g, most), least), wider);
        products(g, sigmoid(x), half16, &low, &high);
        __m256i opened = _mm256_or_si256(_mm256_srli_epi32(low, 16), _mm256_slli_epi32(high, 16));
        products(opened, load32(up + i), half, &low, &high);
        __m256i y = _mm256_or_si256(_mm256_srl_epi32(low, right), _mm256_sll_epi32(high, left));
        __m256i fits = _mm256_cmpeq_epi32(_mm256_sra_epi32(high, but_one), _mm256_srai_epi32(y, 31));
        __m256i below = _mm256_cmpeq_epi32(y, _mm256_set1_epi32(INT32_MIN));
        if (_mm256_movemask_epi8(_mm256_andnot_si256(below, fits)) == -1) {
            _mm256_storeu_si256((__m256i *)(void *)(up + i), y);
        } else {
            ehmn_kernels_rows_gate(gate + i, up + i, 8u, frac);
        }
    }
    ehmn_kernels_rows_gate(gate + i, up + i, n - i, frac);
}

/* Eight values as 16 bits, symmetric. */
static inline __m128i fit_eight(__m256i v)
{
    __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_max_epi16(packed, _mm_set1_epi16(-INT16_MAX));
}

/* The product of a bias and the gain, of at most 35 bits, is taken in two parts: gain = high 2^10 +
 * low, in lower halves. */
int32_t ehmn_kernels_avx2_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                              int16_t *out)
{
    const __m256i most = _mm256_set1_epi32(1 << 25), least = _mm256_set1_epi32(-(1 << 25));
    const __m256i high = _mm256_set1_epi32(gain >> 10), low = _mm256_set1_epi32(gain & 1023);
    __m128i largest = _mm_set1_epi16(-INT16_MAX);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i logit = _mm256_loadu_si256((const __m256i *)(const void *)(v + i));
        if (bias != NULL) {
            __m256i b = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(bias + i)));
            __m256i rest = _mm256_add_epi32(_mm256_madd_epi16(b, low), _mm256_set1_epi32(1 << 19));
            __m256i added = _mm256_add_epi32(_mm256_madd_epi16(b, high), _mm256_srai_epi32(rest, 10));
            logit = _mm256_min_epi32(_mm256_max_epi32(logit, least), most);
            logit = _mm256_add_epi32(logit, _mm256_srai_epi32(added, 10));
        }
        __m128i fitted = fit_eight(logit);
        largest = _mm_max_epi16(largest, fitted);
        _mm_storeu_si128((__m128i *)(void *)(out + i), fitted);
    }
    int16_t lane[8];
    _mm_storeu_si128((__m128i *)(void *)lane, largest);
    for (uint32_t k = 0; k < 8u && i > 0; k++) {
        max = lane[k] > max ? lane[k] : max;
    }
    return ehmn_kernels_rows_fit(v + i, bias != NULL ? bias + i : NULL, gain, n - i, max, out + i);
}

/* Every processor with AVX2 counts bits by an instruction, of two words at a time. */
static inline uint32_t differences_of(const uint32_t *a, const uint32_t *b, uint32_t words)
{
    uint32_t w = 0;
    int64_t sum = 0;
    for (; w + 2u <= words; w += 2u) {
        uint64_t u, v;
        memcpy(&u, a + w, sizeof u);
        memcpy(&v, b + w, sizeof v);
        sum += _mm_popcnt_u64(u ^ v);
    }
    return (uint32_t)sum + (w < words ? (uint32_t)_mm_popcnt_u32(a[w] ^ b[w]) : 0u);
}

/* In how many bits each byte of two keys of four words differs from that of `own`, which has the key twice. */
static inline __m256i differing_bits(const uint32_t *keys, __m256i own)
{
    const __m256i counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i half = _mm256_set1_epi8(15);
    __m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)keys), own);
    __m256i high = _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(v, 4), half));
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, _mm256_and_si256(v, half)), high);
}

/* The counts of four keys, each in 64 bits: the first of a, the first of b, the second of a, the second of b. */
static inline __m256i sums_of_four(__m256i a, __m256i b)
{
    __m256i bytes = _mm256_add_epi8(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    return _mm256_sad_epu8(bytes, _mm256_setzero_si256());
}

/* Sixteen numbers in order, with `item` among them unless all are smaller; the last falls out. */
static inline void insert(__m256i *low, __m256i *high, uint32_t item)
{
    __m256i by = _mm256_set1_epi32((int32_t)item), middle = _mm256_permute2x128_si256(*low, *high, 0x21);
    __m256i first = _mm256_alignr_epi8(*low, _mm256_permute2x128_si256(*low, *low, 0x08), 12);
    __m256i second = _mm256_alignr_epi8(*high, middle, 12);
    *low = _mm256_max_epu32(first, _mm256_min_epu32(*low, by));
    *high = _mm256_max_epu32(second, _mm256_min_epu32(*high, by));
}

/* Of keys of four words, the first whole eights; returns how many. The distances of eight keys stand in this order. */
static uint32_t nearest_eights(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t *found)
{
    const __m256i own = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)key));
    __m256i low = _mm256_set1_epi32(-1), high = low, limit = _mm256_set1_epi32(INT32_MAX);
    __m256i index = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u, keys += 32) {
        __m256i a = sums_of_four(differing_bits(keys, own), differing_bits(keys + 8, own));
        __m256i b = sums_of_four(differing_bits(keys + 16, own), differing_bits(keys + 24, own));
        __m256i items = _mm256_or_si256(_mm256_slli_epi64(a, 16), _mm256_slli_epi64(b, 48));
        items = _mm256_or_si256(items, index);
        index = _mm256_add_epi32(index, _mm256_set1_epi32(8));
        uint32_t near = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, items)));
        if (near != 0) {
            uint32_t item[8];
            _mm256_storeu_si256((__m256i *)(void *)item, items);
            for (; near != 0; near &= near - 1u) {
                insert(&low, &high, item[__builtin_ctz(near)]);
            }
            limit = _mm256_permutevar8x32_epi32(high, _mm256_set1_epi32(7));
            limit = _mm256_min_epu32(limit, _mm256_set1_epi32(INT32_MAX));
        }
    }
    _mm256_storeu_si256((__m256i *)(void *)found, low);
    _mm256_storeu_si256((__m256i *)(void *)(found + 8), high);
    return i;
}

_Static_assert(EHMN_RECALLED == 16u, "what was found fills two registers");

void ehmn_kernels_avx2_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found)
{
    uint32_t i = 0;
    if (words == 4u) {
        i = nearest_eights(keys, n, key, found); /* the usual length */
    }
    for (; i < n; i++) {
        uint32_t item = differences_of(keys + (size_t)i * words, key, words) << 16 | i;
        if (item < found[EHMN_RECALLED - 1u]) {
            ehmn_insert(found, item);
        }
    }
}

const ehmn_kernels ehmn_kernels_avx2 = {
    .name = "avx2",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_avx2_matvec_s4,
    .weighted_sum = weighted_sum,
    .scale = ehmn_kernels_avx2_scale,
    .scale_steps = scale_steps,
    .step_row = ehmn_kernels_avx2_step_row,
    .few_steps = 2u,
    .exp_sum = ehmn_kernels_avx2_exp_sum,
    .soften = ehmn_kernels_avx2_soften,
    .gate = ehmn_kernels_avx2_gate,
    .fit = ehmn_kernels_avx2_fit,
    .nearest = ehmn_kernels_avx2_nearest,
    .matmat_s16 = ehmn_kernels_avx2_matmat_s16,
    .matmat_s4 = ehmn_kernels_avx2_matmat_s4,
    .matmat_s8 = ehmn_kernels_avx2_matmat_s8,
};

#endif
