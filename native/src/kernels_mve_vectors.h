/* Loops over vectors that are no kernels of a table, for builds whose every processor has Helium. Each is what the plain
 * C beside its call says. */
#ifndef EHMN_KERNELS_MVE_VECTORS_H
#define EHMN_KERNELS_MVE_VECTORS_H

#include <stdint.h>

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

uint32_t ehmn_mve_max_abs(const int32_t *v, uint32_t n);

/* out[i] = round(v[i] / 2^shift), which fits; a negative shift multiplies. */
void ehmn_mve_narrow8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out);
void ehmn_mve_narrow16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out);

/* out[i] = 2^16 q, where q = round(v[i] / 2^shift) fits 16 bits; the sum of the squares of q. */
uint64_t ehmn_mve_squares(const int32_t *v, uint32_t n, int32_t shift, int32_t *out);

/* out[i] = ehmn_mul(v[i], factor, shift), for shifts of 2..62. */
void ehmn_mve_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out);

/* sum[i] = ehmn_add(sum[i], v[i]). */
void ehmn_mve_add(int32_t *sum, const int32_t *v, uint32_t n);

/* Of encoder.c. Returns how many pairs were rotated, from the first on: all whole fours, or none. */
uint32_t ehmn_mve_rotate(const int16_t *turn, uint32_t half, int32_t *v);
int32_t ehmn_mve_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t *scores);
int32_t ehmn_mve_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights);

#endif

#endif
