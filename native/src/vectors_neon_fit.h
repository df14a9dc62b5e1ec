/* Logits made of sums and biases, sixteen at a time: what the tables for aarch64 share. */
#ifndef EHMN_VECTORS_NEON_FIT_H
#define EHMN_VECTORS_NEON_FIT_H

#include "fixed.h"
#include "kernels_tables.h"

#include <arm_neon.h>

/* v + round(bias gain / 2^20), saturated: round(2 (2^11 bias) gain / 2^32), in one instruction where there is one. */
static inline int32x4_t ehmn_neon_add_bias(int32x4_t v, int32x4_t bias, int32x4_t gain)
{
#if defined(__ARM_FEATURE_QRDMX)
    return vqrdmlahq_s32(v, bias, gain);
#else
    return vqaddq_s32(v, vqrdmulhq_s32(bias, gain));
#endif
}

/* Eight values as logits. */
static inline int16x8_t ehmn_neon_fit8(const int32_t *v, const int16_t *bias, int32x4_t gain)
{
    int32x4_t low = vld1q_s32(v), high = vld1q_s32(v + 4);
    if (bias != NULL) {
        int16x8_t b = vld1q_s16(bias);
        low = ehmn_neon_add_bias(low, vshll_n_s16(vget_low_s16(b), 11), gain);
        high = ehmn_neon_add_bias(high, vshll_high_n_s16(b, 11), gain);
    }
    return vmaxq_s16(vqmovn_high_s32(vqmovn_s32(low), high), vdupq_n_s16(-INT16_MAX));
}

/* What a table's `fit` does with n values, at least 16: the first ones twice if they are no whole sixteens. */
static inline __attribute__((always_inline)) int32_t ehmn_neon_fit(const int32_t *v, const int16_t *bias, int32_t gain,
                                                                   uint32_t n, int16_t *out)
{
    const int32x4_t gains = vdupq_n_s32(gain);
    const int16_t *end = out + n;
    int16x8_t most = ehmn_neon_fit8(v, bias, gains), also = ehmn_neon_fit8(v + 8, bias != NULL ? bias + 8 : NULL, gains);
    uint32_t first = n % 16u != 0 ? n % 16u : 16u;
    vst1q_s16(out, most);
    vst1q_s16(out + 8, also);
    v += first;
    bias += bias != NULL ? first : 0u;
    for (out += first; out < end; out += 16, v += 16) {
        int16x8_t a = ehmn_neon_fit8(v, bias, gains), b = ehmn_neon_fit8(v + 8, bias != NULL ? bias + 8 : NULL, gains);
        bias += bias != NULL ? 16 : 0;
        vst1q_s16(out, a);
        vst1q_s16(out + 8, b);
        most = vmaxq_s16(most, a);
        also = vmaxq_s16(also, b);
    }
    return vmaxvq_s16(vmaxq_s16(most, also));
}

#endif
