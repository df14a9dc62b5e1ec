/* Arithmetic on whole vectors. These loops are a good part of a small processor's work: each has a short body for the
 * usual case, and the general one out of its way. */
#include "vectors.h"

#if !defined(EHMN_MVE) && !defined(EHMN_NEON)

/* Bits by which a number of this magnitude can be shifted to the left within 31; 30 for zero, which none changes. */
static int32_t spare_bits(uint32_t magnitude)
{
    return __builtin_clz(magnitude | 1u) - 1;
}

void ehmn_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    for (uint32_t i = ehmn_first_add(v, more, n); i < n; i++) {
        v[i] = ehmn_add(v[i], more[i]);
    }
}

void ehmn_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_subtract(v[i], less[i]);
    }
}

/* The bits that are set in any of v, or in its complement where it is negative. */
static uint32_t any_bits(const int32_t *v, uint32_t n)
{
    uint32_t any = 0, i = ehmn_first_any(v, n, &any);
    UNROLLED_BUT_CORTEX_M
    for (; i < n; i++) {
        any |= (uint32_t)(v[i] ^ v[i] >> 31);
    }
    return any;
}

RARE void scale_slowly(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_rarely((int64_t)v[i] * factor, shift);
    }
}

void ehmn_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    int32_t spare = spare_bits(ehmn_abs(factor)); /* bits: the larger the factor, the less of a product counts */
    int32_t up = 33 - (shift + spare); /* by which v is shifted, too, if there is room */
    if (shift < 1 || shift + spare > 62 || (up > 0 && (up > 31 || any_bits(v, n) >> (31 - up) != 0))) {
        scale_slowly(v, n, factor, shift, out);
        return;
    }
    factor = (int32_t)((uint32_t)factor << spare);
    shift += spare;
    up = up > 0 ? up : 0;
    shift += up;
    int32_t half = (int32_t)(1u << (shift - 33)); /* the upper halves of the products are enough */
    uint32_t i = ehmn_first_scale(v, n, up, factor, half, shift - 32, out);
    UNROLLED_BUT_DSP
    for (; i < n; i++) {
        out[i] = ((int32_t)(((int64_t)(int32_t)((uint32_t)v[i] << up) * factor) >> 32) + half) >> (shift - 32);
    }
}

void ehmn_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    int32_t spare = spare_bits((uint32_t)scale);
    int32_t beyond = shift + spare + 17 - 32; /* bits of the upper half of a product that are rounded away */
    if (beyond < 1 || beyond > 30) {
        for (uint32_t i = 0; i < n; i++) {
            v[i] = ehmn_add(v[i], ehmn_round_rarely((int64_t)(w[i] * factor) * scale, shift));
        }
        return;
    }
    int32_t half = 1 << (beyond - 1);
    factor *= 1 << 17;
    scale = (int32_t)((uint32_t)scale << spare);
    for (uint32_t i = 0; i < n; i++) {
        int32_t high = (int32_t)(((int64_t)(w[i] * factor) * scale) >> 32);
        v[i] = ehmn_add(v[i], (high + half) >> beyond);
    }
}

#if !defined(EHMN_ASK_X86)

void ehmn_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    int32_t spare = spare_bits((uint32_t)scale);
    int32_t beyond = shift + spare + 17 - 32;
    if (beyond < 1 || beyond > 30) {
        ehmn_add_weights(v, w, n, factor, scale, shift);
        return;
    }
    uint32_t i = ehmn_first_add_weights(v, w, n, factor, scale, shift, spare);
    scale = (int32_t)((uint32_t)scale << spare);
    int32_t half = 1 << (beyond - 1);
    factor *= 1 << 17;
    for (; i < n; i++) {
        v[i] += ((int32_t)(((int64_t)(w[i] * factor) * scale) >> 32) + half) >> beyond;
    }
}

#endif

void ehmn_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain)
{
    int32_t spare = spare_bits((uint32_t)gain);
    int32_t beyond = 15 + 15 + spare - 32;
    if (beyond < 1 || beyond > 30) {
        for (uint32_t i = 0; i < n; i++) {
            v[i] = ehmn_add(v[i], ehmn_round_rarely((int64_t)z[i] * gain, 15));
        }
        return;
    }
    int32_t half = 1 << (beyond - 1);
    gain = (int32_t)((uint32_t)gain << spare);
    for (uint32_t i = 0; i < n; i++) {
        int32_t high = (int32_t)(((int64_t)(z[i] * (1 << 15)) * gain) >> 32);
        v[i] = ehmn_add(v[i], (high + half) >> beyond);
    }
}

void ehmn_fit_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_sat16(ehmn_round_shift32(v[i], shift));
    }
}

/* tanh(x) = 2 sigmoid(2x) - 1. Beyond 8 the sigmoid is what it is just below. */
void ehmn_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z)
{
    int32_t last = shift > 0 ? shift - 1 : 0, down = shift > 0;
    for (uint32_t i = 0; i < n; i++) {
        int32_t x = (uint32_t)shift < 32u ? (v[i] >> shift) + (v[i] >> last & down) : ehmn_round_rarely(v[i], shift);
        uint32_t a = ehmn_abs(x);
        a = a < 1u << 19 ? a : (1u << 19) - 1u;
        const uint16_t *at = ehmn_sigmoid_table + (a >> 10);
        int32_t y = at[0] - 32768 + (int32_t)(((uint32_t)(at[1] - at[0]) * (a & 1023u) + 512u) >> 10);
        z[i] = (int16_t)(x < 0 ? -y : y);
    }
}

RARE int32_t follow_rarely(int32_t mean, int32_t value, int32_t rate)
{
    return ehmn_follow_value(mean, value, rate);
}

void ehmn_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    for (uint32_t i = ehmn_first_follow(mean, v, n, rate); i < n; i++) {
        int32_t m = mean[i];
        uint32_t a = (uint32_t)m, b = (uint32_t)v[i];
        if (FEW_LEFT || ((a ^ a << 1) | (b ^ b << 1)) >> 31 != 0) {
            mean[i] = follow_rarely(m, v[i], rate);
        } else { /* the usual case: no difference leaves 32 bits, and what lies between two numbers neither */
            mean[i] = m + ehmn_round_fit((int64_t)(v[i] - m) * rate, 16);
        }
    }
}

void ehmn_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign)
{
    uint32_t sum = 0;
    for (uint32_t i = ehmn_first_running_sums(&v, n, &edge, &sign, &sum); i < n; i++) {
        int32_t value = *v++; /* read once: for all that the compiler knows, edge and sign may be the same memory */
        sum += (uint32_t)((value ^ value >> 31) - (value >> 31));
        *edge++ = sum;
        *sign++ = (int8_t)((value - 1) >> 8);
    }
}

/* Not within another function, where no register would be left for what comes first on Arm. */
__attribute__((noinline)) int32_t ehmn_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac,
                                                  int32_t to, int32_t *scores)
{
    int32_t *end = scores + n, max = ehmn_first_fit_scores(&key_frac, stride, &scores, n, frac - to);
    for (int32_t *at = scores; at < end; at++, key_frac += stride) {
        int32_t but_one = frac + *key_frac - to - 1; /* of the bits that are rounded away */
        int32_t score = (uint32_t)but_one < 31u ? ((*at >> but_one) + 1) >> 1 : ehmn_round_rarely(*at, but_one + 1);
        max = score > max ? score : max;
        *at = score;
    }
    return max;
}

int32_t ehmn_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    const int8_t *frac = value_frac;
    int32_t least = *value_frac;
    uint32_t i = ehmn_first_least(&frac, stride, n, &least);
    UNROLLED_BUT_DSP
    for (; i < n; i++, frac += stride) {
        least = *frac < least ? *frac : least;
    }
    frac = value_frac;
    i = ehmn_first_align(&frac, stride, n, least, weights);
    UNROLLED_BUT_CORTEX_M
    for (; i < n; i++, frac += stride) {
        uint32_t shift = (uint32_t)(*frac - least);
        shift = shift < 31u ? shift : 31u; /* which leaves nothing */
        weights[i] = (int32_t)((((uint32_t)weights[i] << 1 >> shift) + 1u) >> 1);
    }
    return least;
}

EHMN_SMALL int32_t ehmn_largest(const int16_t *v, uint32_t n)
{
    int32_t max = v[0];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; i++) {
        max = v[i] > max ? v[i] : max;
    }
    return max;
}

#if !defined(__thumb2__) /* see kernels_cortex_m.c */
uint32_t ehmn_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)
{
    uint64_t left = *ahead;
    uint32_t i = 0;
    for (; i < n; i++) {
        uint32_t p = ehmn_exp2_neg((uint32_t)(max - logits[i]));
        if (left < p) {
            break;
        }
        left -= p;
    }
    *ahead = left;
    return i;
}
#endif

#endif
