/* Functions of vectors.c for aarch64. The instructions that shift with rounding, add or narrow with saturation follow
 * the one rounding rule; only their lower limit is one below ours. */
#include "vectors_neon.h"
#include "fixed.h"

#if defined(EHMN_NEON)

#include <arm_neon.h>
#include <stddef.h>

/* -2^31 becomes -2^31 + 1. */
static inline int32x4_t symmetric(int32x4_t v)
{
    return vmaxq_s32(v, vdupq_n_s32(-INT32_MAX));
}

uint32_t ehmn_neon_max_abs(const int32_t *v, uint32_t n)
{
    uint32x4_t most = vdupq_n_u32(0);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        uint32x4_t a = vreinterpretq_u32_s32(vabsq_s32(vld1q_s32(v + i)));
        uint32x4_t b = vreinterpretq_u32_s32(vabsq_s32(vld1q_s32(v + i + 4)));
        most = vmaxq_u32(most, vmaxq_u32(a, b));
    }
    uint32_t max = vmaxvq_u32(most);
    for (; i < n; i++) {
        max = ehmn_abs(v[i]) > max ? ehmn_abs(v[i]) : max;
    }
    return max;
}

void ehmn_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        int32x4_t a = vqaddq_s32(vld1q_s32(v + i), vld1q_s32(more + i));
        int32x4_t b = vqaddq_s32(vld1q_s32(v + i + 4), vld1q_s32(more + i + 4));
        vst1q_s32(v + i, symmetric(a));
        vst1q_s32(v + i + 4, symmetric(b));
    }
    for (; i < n; i++) {
        v[i] = ehmn_add(v[i], more[i]);
    }
}

void ehmn_shift_all(int32_t *v, const int32_t *shift, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 4u <= n; i += 4u) {
        vst1q_s32(v + i, vshlq_s32(vld1q_s32(v + i), vnegq_s32(vld1q_s32(shift + i))));
    }
    for (; i < n; i++) {
        v[i] >>= shift[i];
    }
}

uint32_t ehmn_neon_rotate(const int16_t *turn, uint32_t half, int32_t *v)
{
    uint32_t i = 0;
    for (; i + 4u <= half; i += 4u) {
        int16x4x2_t both = vld2_s16(turn + 2u * i);
        int32x4_t c = vmovl_s16(both.val[0]), s = vmovl_s16(both.val[1]);
        int32x4_t a = vld1q_s32(v + i), b = vld1q_s32(v + i + half);
        int64x2_t low = vmlsl_s32(vmull_s32(vget_low_s32(a), vget_low_s32(c)), vget_low_s32(b), vget_low_s32(s));
        int64x2_t high = vmlsl_high_s32(vmull_high_s32(a, c), b, s);
        int64x2_t low2 = vmlal_s32(vmull_s32(vget_low_s32(b), vget_low_s32(c)), vget_low_s32(a), vget_low_s32(s));
        int64x2_t high2 = vmlal_high_s32(vmull_high_s32(b, c), a, s);
        vst1q_s32(v + i, symmetric(vqrshrn_high_n_s64(vqrshrn_n_s64(low, 15), high, 15)));
        vst1q_s32(v + i + half, symmetric(vqrshrn_high_n_s64(vqrshrn_n_s64(low2, 15), high2, 15)));
    }
    return i;
}

/* Eight bytes that stand `stride` apart. If there are `more`, those up to the ninth may be read. */
static inline int8x8_t apart(const int8_t *v, size_t stride, int more)
{
    switch (more ? stride : 0u) {
    case 1:
        return vld1_s8(v);
    case 2:
        return vld2_s8(v).val[0];
    case 3:
        return vld3_s8(v).val[0];
    case 4:
        return vld4_s8(v).val[0];
    default:
        break;
    }
    int8x8_t out = vdup_n_s8(0);
    out = vld1_lane_s8(v, out, 0);
    out = vld1_lane_s8(v + stride, out, 1);
    out = vld1_lane_s8(v + 2u * stride, out, 2);
    out = vld1_lane_s8(v + 3u * stride, out, 3);
    out = vld1_lane_s8(v + 4u * stride, out, 4);
    out = vld1_lane_s8(v + 5u * stride, out, 5);
    out = vld1_lane_s8(v + 6u * stride, out, 6);
    return vld1_lane_s8(v + 7u * stride, out, 7);
}

/* By as many bits to the left as `bits` says, or rounded to the right; beyond 63 either way it makes no difference. */
static inline int32x4_t shifted(const int32_t *v, int32x4_t bits)
{
    bits = vmaxq_s32(vminq_s32(bits, vdupq_n_s32(63)), vdupq_n_s32(-63));
    return symmetric(vqrshlq_s32(vld1q_s32(v), bits));
}

int32_t ehmn_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to, int32_t *scores)
{
    const int32x4_t left = vdupq_n_s32(to - frac);
    int32x4_t most = vdupq_n_s32(INT32_MIN);
    int32_t max = INT32_MIN;
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u, key_frac += (size_t)8u * stride) {
        int16x8_t of_key = vmovl_s8(apart(key_frac, stride, i + 8u < n));
        int32x4_t a = shifted(scores + i, vsubw_s16(left, vget_low_s16(of_key)));
        int32x4_t b = shifted(scores + i + 4, vsubw_high_s16(left, of_key));
        most = vmaxq_s32(most, vmaxq_s32(a, b));
        vst1q_s32(scores + i, a);
        vst1q_s32(scores + i + 4, b);
    }
    max = vmaxvq_s32(most);
    for (; i < n; i++, key_frac += stride) {
        scores[i] = ehmn_round_rarely(scores[i], frac + *key_frac - to);
        max = scores[i] > max ? scores[i] : max;
    }
    return max;
}

int32_t ehmn_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    const int8_t *frac = value_frac;
    int8x8_t low = vdup_n_s8(127);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u, frac += (size_t)8u * stride) {
        low = vmin_s8(low, apart(frac, stride, i + 8u < n));
    }
    int32_t least = vminv_s8(low);
    for (; i < n; i++, frac += stride) {
        least = *frac < least ? *frac : least;
    }
    frac = value_frac;
    for (i = 0; i + 8u <= n; i += 8u, frac += (size_t)8u * stride) {
        int16x8_t bits = vmovl_s8(vqsub_s8(vdup_n_s8((int8_t)least), apart(frac, stride, i + 8u < n)));
        vst1q_s32(weights + i, vrshlq_s32(vld1q_s32(weights + i), vmovl_s16(vget_low_s16(bits))));
        vst1q_s32(weights + i + 4, vrshlq_s32(vld1q_s32(weights + i + 4), vmovl_high_s16(bits)));
    }
    for (; i < n; i++, frac += stride) {
        weights[i] = ehmn_round_rarely(weights[i], *frac - least);
    }
    return least;
}

#endif
