/* Parts of vectors.c and encoder.c for builds whose every processor has Helium. */
#ifndef EHMN_VECTORS_MVE_H
#define EHMN_VECTORS_MVE_H

#include "fixed.h"

#if defined(__ARM_FEATURE_MVE)
#define EHMN_MVE

#include <arm_mve.h>

/* round(a b / 2^shift), saturated, for shifts of 2..32: the upper halves of the products, shifted up, and the lower
 * ones, rounded. */
static inline int32x4_t ehmn_mve_multiply_round(int32x4_t a, int32x4_t b, int32_t shift)
{
    const int32x4_t least = vdupq_n_s32(-INT32_MAX);
    int32x4_t high = vmulhq_s32(a, b);
    uint32x4_t low = vrshlq_n_u32(vreinterpretq_u32_s32(vmulq_s32(a, b)), -shift);
    int32x4_t out = vqaddq_s32(vqshlq_r_s32(high, 32 - shift), vreinterpretq_s32_u32(low));
    int32_t half = (int32_t)(1u << (shift - 1));
    out = vpselq_s32(least, out, vcmpltq_n_s32(high, -half)); /* there the sum began at its limit */
    return vmaxq_s32(out, least);
}

/* 2^(y / 256) as Q24 for y <= 0: 2^15 and the table's entry for the low byte of y, shifted by the rest. */
static inline uint32x4_t ehmn_mve_exp2_of(uint32x4_t entry, int32x4_t rest)
{
    return vrshlq_u32(entry, rest); /* to the left, or to the right with rounding: ehmn_exp2_neg rounds in two parts */
}

/* ehmn_exp2_neg(max - logits) of the even and the odd ones of eight logits, at most max. Differences saturate: what
 * they stand for is zero. Of a shift only the low byte counts. */
static inline uint32x4_t ehmn_mve_exp2(int16x8_t logits, int32_t max, uint32x4_t *odd)
{
    int16x8_t y = vaddq_n_s16(vqsubq_n_s16(logits, (int16_t)max), 9 << 8);
    uint16x8_t at = vandq_u16(vreinterpretq_u16_s16(y), vdupq_n_u16(255));
    uint16x8_t entry = vorrq_n_u16(vldrhq_gather_shifted_offset_u16(ehmn_exp2_table, at), 0x8000);
    int32x4_t two = vreinterpretq_s32_s16(y);
    *odd = ehmn_mve_exp2_of(vmovltq_u16(entry), vshrq_n_s32(two, 24));
    return ehmn_mve_exp2_of(vmovlbq_u16(entry), vshrq_n_s32(two, 8));
}

extern const uint8_t ehmn_mve_bit_counts[256];

/* sigmoid(x) as Q16 of |x| as Q16: ehmn_sigmoid. */
static inline uint32x4_t ehmn_mve_sigmoid_of(uint32x4_t magnitude)
{
    uint32x4_t a = vminq_u32(magnitude, vdupq_n_u32((16u << 16) - 1u)); /* beyond, it is what it is just below */
    uint32x4_t i = vshrq_n_u32(a, 11);
    uint32x4_t low = vldrhq_gather_shifted_offset_u32(ehmn_sigmoid_table, i);
    uint32x4_t step = vsubq_u32(vldrhq_gather_shifted_offset_u32(ehmn_sigmoid_table + 1, i), low);
    return vaddq_u32(low, vrshrq_n_u32(vmulq_u32(step, vandq_u32(a, vdupq_n_u32(2047))), 11));
}

uint32_t ehmn_mve_max_abs(const int32_t *v, uint32_t n);

/* out[i] = round(v[i] / 2^shift), which fits; a negative shift multiplies. */
void ehmn_mve_shift_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out);
void ehmn_mve_shift_into16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out);

/* The sum of the squares of q[i] = round(v[i] / 2^shift), of 16 bits; out[i] = 2^16 q[i]. */
uint64_t ehmn_mve_square(const int32_t *v, uint32_t n, int32_t shift, int32_t *out);

/* out[i * stride] = v[i]. */
void ehmn_mve_spread(const int8_t *v, uint32_t n, int8_t *out, uint32_t stride);

/* The weights of a sum, at most 2^15, negated in 16 bits, where they fit; in the room where they were. */
const int16_t *ehmn_mve_negate16(int32_t *weights, uint32_t n);

/* As in encoder.c. Returns how many pairs were rotated, from the first on: all whole fours, or none. */
uint32_t ehmn_rotate_some(const int16_t *turn, uint32_t half, int32_t *v);

#endif

#endif
