/* Loops over vectors for Helium: see kernels_mve_vectors.h. A shift to the right with rounding is the rounding rule itself. */
#include "kernels_mve_vectors.h"

#if defined(EHMN_MVE)

#include "edgehmn.h"
#include "fixed.h"

uint32_t ehmn_mve_max_abs(const int32_t *v, uint32_t n)
{
    uint32_t max = 0;
    for (uint32_t left = n / 4u; left > 0; left--, v += 4) {
        max = vmaxavq_s32(max, vld1q_s32(v));
    }
    return n % 4u ? vmaxavq_p_s32(max, vld1q_s32(v), vctp32q(n % 4u)) : max;
}

void ehmn_mve_narrow16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    for (uint32_t left = n / 8u; left > 0; left--, v += 8, out += 8) {
        int32x4x2_t two = vld2q_s32(v); /* even ones, odd ones */
        int16x8_t even = vreinterpretq_s16_s32(vrshlq_n_s32(two.val[0], -shift));
        vst1q_s16(out, vmovntq_s32(even, vrshlq_n_s32(two.val[1], -shift)));
    }
    for (uint32_t i = 0; i < n % 8u; i++) {
        out[i] = (int16_t)ehmn_round_shift(v[i], shift);
    }
}

void ehmn_mve_narrow8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    for (uint32_t left = n / 16u; left > 0; left--, v += 16, out += 16) {
        int32x4x4_t four = vld4q_s32(v);
        int16x8_t even = vreinterpretq_s16_s32(vrshlq_n_s32(four.val[0], -shift));
        int16x8_t odd = vreinterpretq_s16_s32(vrshlq_n_s32(four.val[1], -shift));
        even = vmovntq_s32(even, vrshlq_n_s32(four.val[2], -shift));
        odd = vmovntq_s32(odd, vrshlq_n_s32(four.val[3], -shift));
        vst1q_s8(out, vmovntq_s16(vreinterpretq_s8_s16(even), odd));
    }
    for (uint32_t i = 0; i < n % 16u; i++) {
        out[i] = (int8_t)ehmn_round_shift(v[i], shift);
    }
}

uint64_t ehmn_mve_squares(const int32_t *v, uint32_t n, int32_t shift, int32_t *out)
{
    int64_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, out += 4) {
        int32x4_t q = vrshlq_n_s32(vld1q_s32(v), -shift);
        sum = vmlaldavaq_s32(sum, q, q);
        vst1q_s32(out, vshlq_n_s32(q, 16));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        int32_t q = ehmn_round_shift(v[i], shift);
        sum += (int64_t)q * q;
        out[i] = q * 65536;
    }
    return (uint64_t)sum;
}

void ehmn_mve_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    const int32x4_t factors = vdupq_n_s32(factor);
    if (shift > 32) { /* the upper halves of the products are enough */
        for (uint32_t left = n / 4u; left > 0; left--, v += 4, out += 4) {
            vst1q_s32(out, vrshlq_n_s32(vmulhq_s32(vld1q_s32(v), factors), 32 - shift));
        }
    } else {
        for (uint32_t left = n / 4u; left > 0; left--, v += 4, out += 4) {
            vst1q_s32(out, ehmn_mve_multiply_round(vld1q_s32(v), factors, shift));
        }
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        out[i] = ehmn_mul(v[i], factor, shift);
    }
}

void ehmn_mve_add(int32_t *sum, const int32_t *v, uint32_t n)
{
    const int32x4_t least = vdupq_n_s32(-INT32_MAX);
    for (uint32_t left = n / 4u; left > 0; left--, sum += 4, v += 4) {
        vst1q_s32(sum, vmaxq_s32(vqaddq_s32(vld1q_s32(sum), vld1q_s32(v)), least));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        sum[i] = ehmn_add(sum[i], v[i]);
    }
}

/* (a c - b s) / 2^15 of numbers below 2^29, which come as high 2^15 + low: no sum of two products leaves 32 bits. */
static inline int32x4_t turn_part(int32x4_t high_c, int32x4_t high_s, int32x4_t low_c, int32x4_t low_s)
{
    return vaddq_s32(vsubq_s32(high_c, high_s), vrshrq_n_s32(vsubq_s32(low_c, low_s), 15));
}

uint32_t ehmn_mve_rotate(const int16_t *turn, uint32_t half, int32_t *v)
{
    const int32x4_t low_bits = vdupq_n_s32(32767);
    if (ehmn_mve_max_abs(v, 2u * half) >= 1u << 29) {
        return 0;
    }
    for (uint32_t left = half / 4u; left > 0; left--, turn += 8, v += 4) {
        int16x8_t both = vld1q_s16(turn);
        int32x4_t c = vmovlbq_s16(both), s = vmovltq_s16(both);
        int32x4_t a = vld1q_s32(v), b = vld1q_s32(v + half);
        int32x4_t a_low = vandq_s32(a, low_bits), b_low = vandq_s32(b, low_bits);
        int32x4_t a_high = vshrq_n_s32(a, 15), b_high = vshrq_n_s32(b, 15), minus_s = vnegq_s32(s);
        vst1q_s32(v, turn_part(vmulq_s32(a_high, c), vmulq_s32(b_high, s), vmulq_s32(a_low, c), vmulq_s32(b_low, s)));
        vst1q_s32(v + half, turn_part(vmulq_s32(b_high, c), vmulq_s32(a_high, minus_s), vmulq_s32(b_low, c),
                                      vmulq_s32(a_low, minus_s)));
    }
    return half & ~3u;
}

int32_t ehmn_mve_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t *scores)
{
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), stride);
    const int32x4_t up = vdupq_n_s32(EHMN_LOGIT_FRAC - frac), least = vdupq_n_s32(-INT32_MAX);
    int32_t max = INT32_MIN;
    for (uint32_t left = n / 4u; left > 0; left--, scores += 4, key_frac += 4u * stride) {
        int32x4_t by = vsubq_s32(up, vldrbq_gather_offset_s32(key_frac, at));
        int32x4_t score = vmaxq_s32(vqrshlq_s32(vld1q_s32(scores), by), least);
        max = vmaxvq_s32(max, score);
        vst1q_s32(scores, score);
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        scores[i] = ehmn_round_shift(scores[i], frac + key_frac[i * stride] - EHMN_LOGIT_FRAC);
        max = scores[i] > max ? scores[i] : max;
    }
    return max;
}

int32_t ehmn_mve_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    const uint16x8_t at8 = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)stride);
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), stride);
    const int8_t *frac = value_frac;
    int16_t small = INT8_MAX;
    for (uint32_t left = n / 8u; left > 0; left--, frac += 8u * stride) {
        small = vminvq_s16(small, vldrbq_gather_offset_s16(frac, at8));
    }
    int32_t least = small;
    for (uint32_t i = 0; i < n % 8u; i++) {
        least = frac[i * stride] < least ? frac[i * stride] : least;
    }
    const int32x4_t from = vdupq_n_s32(least);
    for (uint32_t left = n / 4u; left > 0; left--, weights += 4, value_frac += 4u * stride) {
        int32x4_t by = vsubq_s32(from, vldrbq_gather_offset_s32(value_frac, at));
        vst1q_s32(weights, vrshlq_s32(vld1q_s32(weights), by));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        weights[i] = ehmn_round_shift(weights[i], value_frac[i * stride] - least);
    }
    return least;
}

#endif
