/* Those of the functions of vectors.c that gain most, for AVX-512: sixteen values at a time, the last ones under a
 * mask. What is rare is left to plain C. */
#include "vectors_x86.h"

#if defined(EHMN_ASK_X86)

#include "avx512.h"

#include <stddef.h>

static inline __mmask16 first16(uint32_t n)
{
    return (__mmask16)first_of(n);
}

static inline __m512i all(int32_t v)
{
    return _mm512_set1_epi32(v);
}

/* By how much v is shifted to fit `bits` bits. */
static int32_t fitting(const int32_t *v, uint32_t n, int32_t bits)
{
    __m512i most = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 16u) {
        most = _mm512_max_epu32(most, _mm512_abs_epi32(_mm512_maskz_loadu_epi32(first16(n - i), v + i)));
    }
    uint32_t max = _mm512_reduce_max_epu32(most);
    return max != 0 ? ehmn_fitting_shift(max, bits) : 0;
}

/* A shift by which values are brought to fewer bits, rounded, or to more. Counts are in every lane: that takes half the
 * work of a count for all. */
typedef struct {
    __m512i right; /* but one bit, if there is a bit to go */
    __m512i left;
    __m512i one; /* that is added before the last bit goes; 0 if none goes, by `last` */
    __m512i last;
} rounding;

static inline rounding round_by(int32_t shift)
{
    rounding r = {all(shift > 0 ? shift - 1 : 0), all(shift < 0 ? -shift : 0), all(shift > 0), all(shift > 0)};
    return r;
}

static inline __m512i rounded(__m512i v, const rounding *by)
{
    v = _mm512_srav_epi32(_mm512_sllv_epi32(v, by->left), by->right);
    return _mm512_srav_epi32(_mm512_add_epi32(v, by->one), by->last);
}

int32_t ehmn_avx512_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out)
{
    int32_t shift = fitting(v, n, 8);
    const rounding by = round_by(shift);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        _mm512_mask_cvtepi32_storeu_epi8(out + i, some, rounded(_mm512_maskz_loadu_epi32(some, v + i), &by));
    }
    return frac - shift;
}

int32_t ehmn_avx512_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out)
{
    int32_t shift = fitting(v, n, (int32_t)bits);
    const rounding by = round_by(shift);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        _mm512_mask_cvtepi32_storeu_epi16(out + i, some, rounded(_mm512_maskz_loadu_epi32(some, v + i), &by));
    }
    return frac - shift;
}

int32_t ehmn_avx512_narrow(const int16_t *v, uint32_t n, int8_t *out)
{
    __m512i most = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 32u) {
        most = _mm512_max_epu16(most, _mm512_abs_epi16(_mm512_maskz_loadu_epi16(first_of(n - i), v + i)));
    }
    most = _mm512_max_epu32(_mm512_and_si512(most, all(0xFFFF)), _mm512_srli_epi32(most, 16));
    int32_t step = ehmn_step_of(_mm512_reduce_max_epu32(most));
    __m512i reciprocal = all(EHMN_RECIPROCAL(step));
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i x = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(some, v + i));
        x = _mm512_add_epi32(_mm512_mullo_epi32(x, reciprocal), all(EHMN_RECIPROCAL_HALF));
        _mm512_mask_cvtepi32_storeu_epi8(out + i, some, _mm512_srai_epi32(x, EHMN_RECIPROCAL_FRAC));
    }
    return step;
}

/* Where all but one bit goes by a shift and the largest magnitude says how far; else in plain C. */
int32_t ehmn_avx512_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step)
{
    __m512i most = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 16u) {
        __m512i x = _mm512_maskz_loadu_epi32(first16(n - i), v + i);
        most = _mm512_max_epu32(most, _mm512_xor_si512(x, _mm512_srai_epi32(x, 31)));
    }
    uint32_t max = _mm512_reduce_max_epu32(most); /* of a negative value one less: it rounds alike */
    int32_t shift = ehmn_fitting_shift(max, 16);
    if (shift < 1 || shift != ehmn_fitting_shift(max + 1u, 16)) {
        return ehmn_plain_quantise_narrow(v, n, frac, out, step);
    }
    *step = ehmn_step_of(((max >> (shift - 1)) + 1u) >> 1);
    const __m512i but_one = all(shift - 1), one = all(1), reciprocal = all(EHMN_RECIPROCAL(*step));
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i x = _mm512_srav_epi32(_mm512_maskz_loadu_epi32(some, v + i), but_one);
        x = _mm512_srai_epi32(_mm512_add_epi32(x, one), 1);
        x = _mm512_add_epi32(_mm512_mullo_epi32(x, reciprocal), all(EHMN_RECIPROCAL_HALF));
        _mm512_mask_cvtepi32_storeu_epi8(out + i, some, _mm512_srai_epi32(x, EHMN_RECIPROCAL_FRAC));
    }
    return frac - shift;
}

void ehmn_avx512_multiply_all(int32_t *v, uint32_t n, int32_t factor)
{
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i x = _mm512_mullo_epi32(_mm512_maskz_loadu_epi32(some, v + i), all(factor));
        _mm512_mask_storeu_epi32(v + i, some, x);
    }
}

/* ehmn_add of sixteen values. */
static inline __m512i add(__m512i a, __m512i b)
{
    __m512i sum = _mm512_add_epi32(a, b);
    __m512i over = _mm512_ternarylogic_epi32(a, b, sum, 0x42); /* a and b have one sign and the sum has the other */
    __m512i limit = _mm512_xor_si512(_mm512_srai_epi32(a, 31), all(INT32_MAX));
    sum = _mm512_mask_mov_epi32(sum, _mm512_cmplt_epi32_mask(over, _mm512_setzero_si512()), limit);
    return _mm512_max_epi32(sum, all(-INT32_MAX));
}

void ehmn_avx512_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i sum = add(_mm512_maskz_loadu_epi32(some, v + i), _mm512_maskz_loadu_epi32(some, more + i));
        _mm512_mask_storeu_epi32(v + i, some, sum);
    }
}

/* `within`: no sum leaves 31 bits. */
static inline __attribute__((always_inline)) void add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor,
                                                              int32_t scale, int32_t shift, int within)
{
    int32_t spare = 31 - ehmn_bit_length((uint32_t)scale);
    int32_t beyond = shift + spare + 17 - 32; /* as in plain C */
    if (beyond < 1 || beyond > 30) {
        ehmn_plain_add_weights(v, w, n, factor, scale, shift);
        return;
    }
    const __m512i half = all(1 << (beyond - 1)), f = all(factor * (1 << 17)),
                  s = all((int32_t)((uint32_t)scale << spare));
    const __m512i count = all(beyond);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i weights = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(some, w + i));
        __m512i high = _mm512_add_epi32(upper(_mm512_mullo_epi32(weights, f), s), half);
        __m512i sum = _mm512_maskz_loadu_epi32(some, v + i), more = _mm512_srav_epi32(high, count);
        _mm512_mask_storeu_epi32(v + i, some, within ? _mm512_add_epi32(sum, more) : add(sum, more));
    }
}

void ehmn_avx512_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    add_weights(v, w, n, factor, scale, shift, 0);
}

void ehmn_avx512_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale,
                                    int32_t shift)
{
    add_weights(v, w, n, factor, scale, shift, 1);
}

/* Whether v can be shifted to the left by `up` bits. */
static int has_room(const int32_t *v, uint32_t n, int32_t up)
{
    __m512i any = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 16u) {
        __m512i x = _mm512_maskz_loadu_epi32(first16(n - i), v + i);
        any = _mm512_or_si512(any, _mm512_xor_si512(x, _mm512_srai_epi32(x, 31)));
    }
    return _mm512_test_epi32_mask(any, all((int32_t)(UINT32_MAX << (31 - up)))) == 0;
}

void ehmn_avx512_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    int32_t spare = 31 - ehmn_bit_length(ehmn_abs(factor) | 1u);
    int32_t up = 33 - (shift + spare); /* as in plain C */
    if (shift < 1 || shift + spare > 62 || (up > 0 && (up > 30 || !has_room(v, n, up)))) {
        ehmn_plain_scale_all(v, n, factor, shift, out);
        return;
    }
    const int32_t left = up > 0 ? up : 0, right = up > 0 ? 1 : shift + spare - 32;
    const __m512i half = all((int32_t)(1u << (right - 1))), f = all((int32_t)((uint32_t)factor << spare));
    const __m512i rise = all(left), count = all(right);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i high = upper(_mm512_sllv_epi32(_mm512_maskz_loadu_epi32(some, v + i), rise), f);
        _mm512_mask_storeu_epi32(out + i, some, _mm512_srav_epi32(_mm512_add_epi32(high, half), count));
    }
}

void ehmn_avx512_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                               int32_t *out)
{
    int32_t shift = fitting(v, n, 16), down;
    const rounding by = round_by(shift);
    __m512i squares = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i q = rounded(_mm512_maskz_loadu_epi32(some, v + i), &by), odd = odd_lanes(q);
        squares = _mm512_add_epi64(squares, _mm512_mul_epi32(q, q));
        squares = _mm512_add_epi64(squares, _mm512_mul_epi32(odd, odd));
        _mm512_mask_storeu_epi32(out + i, some, _mm512_slli_epi32(q, 16));
    }
    uint64_t sum = ehmn_scaled_eps(eps_mantissa, eps_shift - 2 * (frac - shift));
    int32_t factor = ehmn_rms_factor(sum + (uint64_t)_mm512_reduce_add_epi64(squares), n, &down);
    ehmn_avx512_scale_all(out, n, factor, down, out);
}

/* Sixteen bytes that stand `stride` apart, from v[first * stride] on. The first are read with three bytes more behind
 * each, the others, of which there may be less, with three before. */
static inline __m512i bytes_apart(const int8_t *v, uint32_t stride, uint32_t first, __mmask16 some)
{
    const int8_t *from = v + (size_t)first * stride - (first > 0 ? 3 : 0);
    __m512i words;
    if (stride == 4u) {
        words = _mm512_maskz_loadu_epi32(some, from);
    } else {
        const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        __m512i places = _mm512_mullo_epi32(count, all((int32_t)stride));
        words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), some, places, from, 1);
    }
    return _mm512_srai_epi32(first > 0 ? words : _mm512_slli_epi32(words, 24), 24);
}

#define LEAST_APART 19u /* bytes: the first sixteen, and three more behind them */

/* Sixteen at a time, where each shift is between 1 and 31. */
int32_t ehmn_avx512_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to,
                               int32_t *scores)
{
    __m512i most = all(INT32_MIN);
    int32_t max = INT32_MIN;
    if (n < LEAST_APART) {
        return ehmn_plain_fit_scores(key_frac, stride, n, frac, to, scores);
    }
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i but_one = _mm512_add_epi32(bytes_apart(key_frac, stride, i, some), all(frac - to - 1));
        if (_mm512_mask_cmpge_epu32_mask(some, but_one, all(31)) != 0) {
            uint32_t count = n - i < 16u ? n - i : 16u;
            int32_t found = ehmn_plain_fit_scores(key_frac + (size_t)i * stride, stride, count, frac, to, scores + i);
            max = found > max ? found : max;
            continue;
        }
        __m512i s = _mm512_srav_epi32(_mm512_maskz_loadu_epi32(some, scores + i), but_one);
        s = _mm512_srai_epi32(_mm512_add_epi32(s, all(1)), 1);
        most = _mm512_mask_max_epi32(most, some, most, s);
        _mm512_mask_storeu_epi32(scores + i, some, s);
    }
    int32_t found = _mm512_reduce_max_epi32(most);
    return found > max ? found : max;
}

int32_t ehmn_avx512_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    __m512i low = all(127);
    if (n < LEAST_APART) {
        return ehmn_plain_align_weights(value_frac, stride, n, weights);
    }
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        low = _mm512_mask_min_epi32(low, some, low, bytes_apart(value_frac, stride, i, some));
    }
    int32_t least = _mm512_reduce_min_epi32(low);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i shift = _mm512_sub_epi32(bytes_apart(value_frac, stride, i, some), all(least));
        __m512i w = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(some, weights + i), 1);
        w = _mm512_srlv_epi32(w, shift); /* nothing is left beyond 31 */
        _mm512_mask_storeu_epi32(weights + i, some, _mm512_srli_epi32(_mm512_add_epi32(w, all(1)), 1));
    }
    return least;
}

/* Even lanes of a x - b y, or a x + b y, rounded, and odd ones, in their places; no result leaves 32 bits. */
static inline __m512i turned(__m512i a, __m512i x, __m512i b, __m512i y, int plus)
{
    const __m512i half = _mm512_set1_epi64(1 << 14);
    __m512i p = _mm512_add_epi64(_mm512_mul_epi32(a, x), half), q = _mm512_mul_epi32(b, y);
    __m512i even = plus ? _mm512_add_epi64(p, q) : _mm512_sub_epi64(p, q);
    p = _mm512_mul_epi32(odd_lanes(a), odd_lanes(x));
    q = _mm512_mul_epi32(odd_lanes(b), odd_lanes(y));
    p = _mm512_add_epi64(p, half);
    __m512i odd = plus ? _mm512_add_epi64(p, q) : _mm512_sub_epi64(p, q);
    return _mm512_mask_blend_epi32(0xAAAAu, _mm512_srli_epi64(even, 15), _mm512_slli_epi64(odd, 17));
}

/* Sixteen pairs at a time, as long as none is so large that it might have to be saturated. */
uint32_t ehmn_avx512_rotate(const int16_t *turn, uint32_t half, int32_t *v)
{
    for (uint32_t i = 0; i < half; i += 16u) {
        __mmask16 some = first16(half - i);
        __m512i both = _mm512_maskz_loadu_epi32(some, turn + 2u * i);
        __m512i c = _mm512_srai_epi32(_mm512_slli_epi32(both, 16), 16), s = _mm512_srai_epi32(both, 16);
        __m512i a = _mm512_maskz_loadu_epi32(some, v + i), b = _mm512_maskz_loadu_epi32(some, v + i + half);
        __m512i large = _mm512_or_si512(_mm512_xor_si512(a, _mm512_srai_epi32(a, 31)),
                                        _mm512_xor_si512(b, _mm512_srai_epi32(b, 31)));
        if (_mm512_test_epi32_mask(large, all((int32_t)0xC0000000)) != 0) {
            return i;
        }
        _mm512_mask_storeu_epi32(v + i, some, turned(a, c, b, s, 0));
        _mm512_mask_storeu_epi32(v + i + half, some, turned(b, c, a, s, 1));
    }
    return half;
}

void ehmn_avx512_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z)
{
    const __m512i most = all(8 << 16), least = all(-(8 << 16)); /* beyond, nothing changes */
    if (shift < -10 || shift > 31) {
        ehmn_plain_tanh_all(v, n, shift, z);
        return;
    }
    const rounding by = round_by(shift);
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = first16(n - i);
        __m512i x = _mm512_maskz_loadu_epi32(some, v + i);
        if (shift < 2) { /* so that nothing leaves 32 bits */
            x = _mm512_max_epi32(_mm512_min_epi32(x, all(1 << 20)), all(-(1 << 20)));
        }
        x = rounded(x, &by);
        x = _mm512_slli_epi32(_mm512_max_epi32(_mm512_min_epi32(x, most), least), 1);
        __m512i y = _mm512_sub_epi32(sigmoid(x), all(32768));
        y = _mm512_max_epi32(_mm512_min_epi32(y, all(INT16_MAX)), all(-INT16_MAX));
        _mm512_mask_cvtepi32_storeu_epi16(z + i, some, y);
    }
}

/* The sums of the first lanes up to each. */
static inline __m512i sums_up_to(__m512i v)
{
    const __m512i none = _mm512_setzero_si512();
    v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, none, 15));
    v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, none, 14));
    v = _mm512_add_epi32(v, _mm512_alignr_epi32(v, none, 12));
    return _mm512_add_epi32(v, _mm512_alignr_epi32(v, none, 8));
}

/* Thirty-two at a time, up to those of which one is where it ends: as many are passed as have sums that are there. */
uint32_t ehmn_avx512_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)
{
    uint64_t left = *ahead;
    for (uint32_t i = 0; i < n; i += 32u) {
        __m512i p, q;
        uint32_t sum[33] = {0};
        exp2_below(logits + i, n - i, max, &p, &q);
        p = sums_up_to(p);
        q = _mm512_add_epi32(sums_up_to(q), _mm512_permutexvar_epi32(all(15), p));
        _mm512_storeu_si512(sum + 1, p);
        _mm512_storeu_si512(sum + 17, q);
        if (left >= sum[32]) {
            left -= sum[32];
            continue;
        }
        const __m512i most = all((int32_t)left);
        uint32_t passed = (uint32_t)__builtin_popcount(_mm512_cmple_epu32_mask(p, most))
                          + (uint32_t)__builtin_popcount(_mm512_cmple_epu32_mask(q, most));
        *ahead = left - sum[passed];
        return i + passed;
    }
    *ahead = left;
    return n;
}

#endif
