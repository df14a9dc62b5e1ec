/* Functions of vectors.c for aarch64. The instructions that shift with rounding, add or narrow with saturation follow
 * the one rounding rule; only their lower limit is one below ours. */
#include "vectors_neon.h"
#include "edgehmn_image.h"
#include "fixed.h"

#if defined(EHMN_NEON)

#include <stddef.h>

void ehmn_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    for (; n >= 16u; n -= 16u, v += 16, more += 16) {
        int32x4_t a[4];
        for (uint32_t k = 0; k < 4u; k++) {
            a[k] = vqaddq_s32(vld1q_s32(v + 4u * k), vld1q_s32(more + 4u * k));
        }
        for (uint32_t k = 0; k < 4u; k++) {
            vst1q_s32(v + 4u * k, ehmn_neon_symmetric(a[k]));
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_add(v[i], more[i]);
    }
}

void ehmn_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out)
{
    for (; n >= 8u; n -= 8u, v += 8, less += 8, out += 8) {
        int32x4x2_t a = vld1q_s32_x2(v), b = vld1q_s32_x2(less);
        a.val[0] = ehmn_neon_symmetric(vqsubq_s32(a.val[0], b.val[0]));
        a.val[1] = ehmn_neon_symmetric(vqsubq_s32(a.val[1], b.val[1]));
        vst1q_s32_x2(out, a);
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_subtract(v[i], less[i]);
    }
}

/* What ehmn_scale_all has no faster way for. Apart: it is rare, and for its calls all others would make room. */
static __attribute__((noinline)) void scale_any(const int32_t *v, uint32_t n, int32_t factor, int32_t shift,
                                                int32_t *out)
{
    const int64x2_t right = vdupq_n_s64(-shift);
    for (; shift >= 1 && shift <= 62 && n >= 4u; n -= 4u, v += 4, out += 4) {
        int32x4_t a = vld1q_s32(v);
        int64x2_t low = vrshlq_s64(vmull_n_s32(vget_low_s32(a), factor), right);
        int64x2_t high = vrshlq_s64(vmull_high_n_s32(a, factor), right);
        vst1q_s32(out, ehmn_neon_symmetric(vqmovn_high_s64(vqmovn_s64(low), high)));
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_rarely((int64_t)v[i] * factor, shift);
    }
}

/* The larger the factor, the less of a doubled product counts: from 31 bits on that are rounded
 * away, its upper half. */
void ehmn_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    int32_t spare = factor != INT32_MIN ? ehmn_neon_spare_bits(ehmn_abs(factor)) : 0;
    if (shift + spare >= 32 && shift + spare <= 62) {
        const int32x4_t factors = vdupq_n_s32((int32_t)((uint32_t)factor << spare)),
                        down = vdupq_n_s32(31 - shift - spare);
        for (; n >= 16u; n -= 16u, v += 16, out += 16) {
            int32x4x4_t a = vld1q_s32_x4(v);
            for (uint32_t k = 0; k < 4u; k++) {
                a.val[k] = vrshlq_s32(vqdmulhq_s32(a.val[k], factors), down);
            }
            vst1q_s32_x4(out, a);
        }
    } else if (shift == 16) { /* of gains, most of which are near one */
        for (; n >= 16u; n -= 16u, v += 16, out += 16) {
            int32x4x4_t a = vld1q_s32_x4(v);
            for (uint32_t k = 0; k < 4u; k++) {
                int32x2_t low = vqrshrn_n_s64(vmull_n_s32(vget_low_s32(a.val[k]), factor), 16);
                a.val[k] = ehmn_neon_symmetric(vqrshrn_high_n_s64(low, vmull_high_n_s32(a.val[k], factor), 16));
            }
            vst1q_s32_x4(out, a);
        }
    }
    if (n > 0) {
        scale_any(v, n, factor, shift, out);
    }
}

static __attribute__((noinline)) void add_any_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain)
{
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_add(v[i], ehmn_round_rarely((int64_t)z[i] * gain, 15));
    }
}

void ehmn_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain)
{
    int32_t spare = ehmn_neon_spare_bits((uint32_t)gain);
    const int32x4_t gains = vdupq_n_s32((int32_t)((uint32_t)gain << spare)), down = vdupq_n_s32(-spare);
    for (; spare >= 1 && n >= 8u; n -= 8u, v += 8, z += 8) {
        ehmn_neon_add_scaled(v, vld1q_s16(z), gains, down);
    }
    if (n > 0) {
        add_any_outputs(v, z, n, gain);
    }
}

void ehmn_fit_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    const int32x4_t by = vdupq_n_s32(-shift);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        int32x4x2_t a = vld1q_s32_x2(v + i);
        int16x8_t fitted = vqmovn_high_s32(vqmovn_s32(vqrshlq_s32(a.val[0], by)), vqrshlq_s32(a.val[1], by));
        vst1q_s16(out + i, vmaxq_s16(fitted, vdupq_n_s16(-INT16_MAX)));
    }
    for (; i < n; i++) {
        out[i] = ehmn_sat16(ehmn_round_shift32(v[i], shift));
    }
}

/* tanh(x) = 2 sigmoid(2x) - 1, in Q15 */
void ehmn_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z)
{
    const int32x4_t by = vdupq_n_s32(-shift);
    for (; n >= 8u; n -= 8u, v += 8, z += 8) {
        int32x4_t low = vqshlq_n_s32(vqrshlq_s32(vld1q_s32(v), by), 1);
        int32x4_t high = vqshlq_n_s32(vqrshlq_s32(vld1q_s32(v + 4), by), 1);
        vst1q_s16(z, vreinterpretq_s16_u16(veorq_u16(ehmn_neon_sigmoid8(low, high), vdupq_n_u16(32768))));
    }
    for (uint32_t i = 0; i < n; i++) {
        z[i] = (int16_t)ehmn_tanh(ehmn_round_shift32(v[i], shift));
    }
}

/* round(difference rate / 2^16) is the upper half of 2 difference (2^15 rate), rounded. */
/* All whole sixteens of ehmn_follow_all: by 2^-31 factor, or `wholly`, by the rate 1. */
static inline __attribute__((always_inline)) void follow(int32_t *mean, const int32_t *v, uint32_t n, int wholly,
                                                         int32_t factor)
{
    for (const int32_t *end = mean + n; mean < end; mean += 16, v += 16) {
        int32x4x4_t m = vld1q_s32_x4(mean), a = vld1q_s32_x4(v);
        for (uint32_t k = 0; k < 4u; k++) {
            int32x4_t difference = ehmn_neon_symmetric(vqsubq_s32(a.val[k], m.val[k]));
            difference = wholly ? difference : vqrdmulhq_n_s32(difference, factor);
            m.val[k] = ehmn_neon_symmetric(vqaddq_s32(m.val[k], difference));
        }
        vst1q_s32_x4(mean, m);
    }
}

void ehmn_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    if (rate < 65536) {
        follow(mean, v, n & ~15u, 0, rate * 32768);
    } else {
        follow(mean, v, n & ~15u, 1, 0);
    }
    for (uint32_t i = n & ~15u; i < n; i++) {
        mean[i] = ehmn_follow_value(mean[i], v[i], rate);
    }
}

/* Sixteen sums at a time: each has the one before added, as bytes, then in 16 bits that two before, that four before
 * and that eight before. */
void ehmn_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign)
{
    const uint16x8_t zero = vdupq_n_u16(0);
    uint32x4_t before = vdupq_n_u32(0);
    for (; n >= 16u; n -= 16u, v += 16, edge += 16, sign += 16) {
        int8x16_t w = vld1q_s8(v);
        uint8x16_t a = vreinterpretq_u8_s8(vabsq_s8(w));
        a = vaddq_u8(a, vextq_u8(vdupq_n_u8(0), a, 15));
        uint16x8_t low = vmovl_u8(vget_low_u8(a)), high = vmovl_high_u8(a);
        high = vaddq_u16(high, vextq_u16(low, high, 6));
        low = vaddq_u16(low, vextq_u16(zero, low, 6));
        high = vaddq_u16(high, vextq_u16(low, high, 4));
        low = vaddq_u16(low, vextq_u16(zero, low, 4));
        high = vaddq_u16(high, low);
        vst1q_u32(edge, vaddw_u16(before, vget_low_u16(low)));
        vst1q_u32(edge + 4, vaddw_high_u16(before, low));
        vst1q_u32(edge + 8, vaddw_u16(before, vget_low_u16(high)));
        before = vaddw_high_u16(before, high);
        vst1q_u32(edge + 12, before);
        before = vdupq_laneq_u32(before, 3);
        vst1q_s8(sign, vreinterpretq_s8_u8(vclezq_s8(w)));
    }
    uint32_t sum = vgetq_lane_u32(before, 0);
    for (uint32_t i = 0; i < n; i++) {
        int32_t value = v[i];
        sum += ehmn_abs(value);
        edge[i] = sum;
        sign[i] = (int8_t)((value - 1) >> 8);
    }
}

int32_t ehmn_largest(const int16_t *v, uint32_t n)
{
    int16x8_t most = vdupq_n_s16(v[0]);
    uint32_t i = 0;
    for (; i + 16u <= n; i += 16u) {
        int16x8x2_t two = vld1q_s16_x2(v + i);
        most = vmaxq_s16(most, vmaxq_s16(two.val[0], two.val[1]));
    }
    int32_t max = vmaxvq_s16(most);
    for (; i < n; i++) {
        max = v[i] > max ? v[i] : max;
    }
    return max;
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

uint32_t ehmn_rotate_some(const int16_t *turn, uint32_t half, int32_t *v)
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
        vst1q_s32(v + i, ehmn_neon_symmetric(vqrshrn_high_n_s64(vqrshrn_n_s64(low, 15), high, 15)));
        vst1q_s32(v + i + half, ehmn_neon_symmetric(vqrshrn_high_n_s64(vqrshrn_n_s64(low2, 15), high2, 15)));
    }
    return i;
}

/* Sixteen at a time, the last of them by the bytes before each. */
#define COLLECT(apart, load)                                                      \
    for (; n > 16u; n -= 16u, v += 16u * (apart), out += 16) {                    \
        vst1q_s8(out, load(v).val[0]);                                            \
    }                                                                             \
    vst1q_s8(out + n - 16u, load(v + (n - 1u) * (apart) + 1u - 16u * (apart)).val[(apart) - 1u]); \
    return

void ehmn_neon_collect(const int8_t *v, uint32_t stride, uint32_t n, int8_t *out)
{
    switch (n > 16u ? stride : 0u) {
    case 1:
        memcpy(out, v, n);
        return;
    case 2:
        COLLECT(2u, vld2q_s8);
    case 3:
        COLLECT(3u, vld3q_s8);
    case 4:
        COLLECT(4u, vld4q_s8);
    default:
        break;
    }
    for (; n > 0; n--, v += stride) {
        *out++ = *v;
    }
}

/* v shifted by as many bits to the left as `bits` says, or rounded to the right. */
static inline int32x4_t shifted(const int32_t *v, int16x4_t bits)
{
    return ehmn_neon_symmetric(vqrshlq_s32(vld1q_s32(v), vmovl_s16(bits)));
}

#define MOST_LEFT 63 /* beyond, either way, it makes no difference */

int32_t ehmn_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to, int32_t *scores)
{
    const int16x8_t left = vdupq_n_s16(ehmn_sat16(to - frac)), up = vdupq_n_s16(MOST_LEFT),
                    down = vdupq_n_s16(-MOST_LEFT);
    int8_t of_key[EHMN_MAX_CTX], *at = of_key;
    int32x4_t most = vdupq_n_s32(INT32_MIN), others = most;
    ehmn_neon_collect(key_frac, stride, n, of_key);
    for (; n >= 8u; n -= 8u, scores += 8, at += 8) {
        int16x8_t bits = vmaxq_s16(vminq_s16(vqsubq_s16(left, vmovl_s8(vld1_s8(at))), up), down);
        int32x4_t a = shifted(scores, vget_low_s16(bits)), b = shifted(scores + 4, vget_high_s16(bits));
        most = vmaxq_s32(most, a);
        others = vmaxq_s32(others, b);
        vst1q_s32(scores, a);
        vst1q_s32(scores + 4, b);
    }
    int32_t max = vmaxvq_s32(vmaxq_s32(most, others));
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = ehmn_round_rarely(scores[i], frac + at[i] - to);
        max = scores[i] > max ? scores[i] : max;
    }
    return max;
}

int32_t ehmn_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    int8_t fracs[EHMN_MAX_CTX], *at = fracs;
    int8x8_t low = vdup_n_s8(127);
    uint32_t whole = n & ~7u;
    ehmn_neon_collect(value_frac, stride, n, fracs);
    for (uint32_t i = 0; i < whole; i += 8u) {
        low = vmin_s8(low, vld1_s8(fracs + i));
    }
    int32_t least = vminv_s8(low);
    for (uint32_t i = whole; i < n; i++) {
        least = fracs[i] < least ? fracs[i] : least;
    }
    const int8x8_t to = vdup_n_s8((int8_t)least);
    for (const int8_t *end = fracs + whole; at < end; at += 8, weights += 8) {
        int16x8_t bits = vmovl_s8(vqsub_s8(to, vld1_s8(at)));
        int32x4_t a = vrshlq_s32(vld1q_s32(weights), vmovl_s16(vget_low_s16(bits)));
        int32x4_t b = vrshlq_s32(vld1q_s32(weights + 4), vmovl_high_s16(bits));
        vst1q_s32(weights, a);
        vst1q_s32(weights + 4, b);
    }
    for (uint32_t i = 0; i < n - whole; i++) {
        weights[i] = ehmn_round_rarely(weights[i], at[i] - least);
    }
    return least;
}

#endif
