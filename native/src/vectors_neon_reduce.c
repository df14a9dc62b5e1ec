/* Functions of vectors_reduce.c for aarch64, and what follows products of bytes. A shift with rounding to the right by
 * a negative number is one to the left. */
#include "vectors_neon.h"

#if defined(EHMN_NEON)

#include <stddef.h>

static uint32_t max_abs(const int32_t *v, uint32_t n)
{
    uint32x4_t most = vdupq_n_u32(0), others = most;
    for (; n >= 16u; n -= 16u, v += 16) {
        uint32x4_t a = vreinterpretq_u32_s32(vabsq_s32(vld1q_s32(v)));
        uint32x4_t b = vreinterpretq_u32_s32(vabsq_s32(vld1q_s32(v + 4)));
        uint32x4_t c = vreinterpretq_u32_s32(vabsq_s32(vld1q_s32(v + 8)));
        uint32x4_t d = vreinterpretq_u32_s32(vabsq_s32(vld1q_s32(v + 12)));
        most = vmaxq_u32(most, vmaxq_u32(a, b));
        others = vmaxq_u32(others, vmaxq_u32(c, d));
        __asm__("" : "+w"(most), "+w"(others)); /* which stay where they are */
    }
    uint32_t max = vmaxvq_u32(vmaxq_u32(most, others));
    for (uint32_t i = 0; i < n; i++) {
        max = ehmn_abs(v[i]) > max ? ehmn_abs(v[i]) : max;
    }
    return max;
}

static int32_t fitting_all(const int32_t *v, uint32_t n, int32_t bits, uint32_t *max)
{
    *max = max_abs(v, n);
    return *max != 0 ? ehmn_fitting_shift(*max, bits) : 0;
}

/* round(v / 2^shift), which fits. */
static inline int32_t rounded(int32_t v, int32_t shift)
{
    return shift <= 0 ? v * (1 << -shift) : ((v >> (shift - 1)) + 1) >> 1;
}

/* Eight values that fit, in 16 bits. */
static inline int16x8_t rounded8(const int32_t *v, int32x4_t left)
{
    int32x4_t a = vrshlq_s32(vld1q_s32(v), left), b = vrshlq_s32(vld1q_s32(v + 4), left);
    return vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
}

int32_t ehmn_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out)
{
    uint32_t max;
    int32_t shift = fitting_all(v, n, 8, &max);
    const int32x4_t left = vdupq_n_s32(-shift);
    for (; n >= 16u; n -= 16u, v += 16, out += 16) {
        int16x8_t a = rounded8(v, left), b = rounded8(v + 8, left);
        vst1q_s8(out, vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b)));
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int8_t)rounded(v[i], shift);
    }
    return frac - shift;
}

int32_t ehmn_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out)
{
    uint32_t max;
    int32_t shift = fitting_all(v, n, (int32_t)bits, &max);
    const int32x4_t left = vdupq_n_s32(-shift);
    for (; n >= 16u; n -= 16u, v += 16, out += 16) {
        int16x8_t a = rounded8(v, left), b = rounded8(v + 8, left);
        vst1q_s16(out, a);
        vst1q_s16(out + 8, b);
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int16_t)rounded(v[i], shift);
    }
    return frac - shift;
}

static int32_t largest(const int32_t *v, uint32_t n)
{
    int32x4_t most = vdupq_n_s32(INT32_MIN);
    for (; n >= 8u; n -= 8u, v += 8) {
        most = vmaxq_s32(most, vmaxq_s32(vld1q_s32(v), vld1q_s32(v + 4)));
    }
    int32_t max = vmaxvq_s32(most);
    for (uint32_t i = 0; i < n; i++) {
        max = v[i] > max ? v[i] : max;
    }
    return max;
}

/* The largest mantissa is that of the largest value, but for a half, which is rounded up: less far if it is negative.
 * round(m reciprocal / 2^22) = round(m (2^9 reciprocal) / 2^31); the step is 1 for a zero vector alone. */
int32_t ehmn_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step)
{
    uint32_t max;
    int32_t shift = fitting_all(v, n, 16, &max);
    if (shift > 0 && (max & ((1u << shift) - 1u)) == 1u << (shift - 1) && largest(v, n) != (int32_t)max) {
        max--;
    }
    max = shift > 0 ? ((max >> (shift - 1)) + 1u) >> 1 : max << -shift;
    *step = ehmn_step_of(max);
    const int32_t reciprocal = *step > 1 ? EHMN_RECIPROCAL(*step) : 0;
    const int32x4_t left = vdupq_n_s32(-shift), factor = vdupq_n_s32(reciprocal * (1 << (31 - EHMN_RECIPROCAL_FRAC)));
    for (; n >= 16u; n -= 16u, v += 16, out += 16) {
        int32x4_t a[4];
        for (uint32_t k = 0; k < 4u; k++) {
            a[k] = vqrdmulhq_s32(vrshlq_s32(vld1q_s32(v + 4u * k), left), factor);
        }
        int16x8_t low = vuzp1q_s16(vreinterpretq_s16_s32(a[0]), vreinterpretq_s16_s32(a[1]));
        int16x8_t high = vuzp1q_s16(vreinterpretq_s16_s32(a[2]), vreinterpretq_s16_s32(a[3]));
        vst1q_s8(out, vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high)));
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int8_t)((rounded(v[i], shift) * reciprocal + EHMN_RECIPROCAL_HALF) >> EHMN_RECIPROCAL_FRAC);
    }
    return frac - shift;
}

/* The sum of the squares of mantissas, each at most 2^15 - 1. */
static uint64_t sum_of_squares(const int32_t *v, uint32_t n, int32_t shift)
{
    const int32x4_t left = vdupq_n_s32(-shift);
    uint64x2_t all = vdupq_n_u64(0);
    for (; n >= 8u; n -= 8u, v += 8) {
        int16x8_t q = rounded8(v, left);
        uint32x4_t two = vreinterpretq_u32_s32(vmull_s16(vget_low_s16(q), vget_low_s16(q)));
        two = vaddq_u32(two, vreinterpretq_u32_s32(vmull_high_s16(q, q)));
        all = vpadalq_u32(all, two);
    }
    uint64_t sum = vaddvq_u64(all);
    for (uint32_t i = 0; i < n; i++) {
        int64_t q = rounded(v[i], shift);
        sum += (uint64_t)(q * q);
    }
    return sum;
}

/* By `down` to the right in the end, unless that is NULL. */
static inline __attribute__((always_inline)) void normalise(const int32_t *v, uint32_t n, int32_t frac,
                                                            int32_t eps_mantissa, int32_t eps_shift,
                                                            const int32_t *down, int32_t *out)
{
    uint32_t max, i = 0;
    int32_t shift = fitting_all(v, n, 16, &max), by;
    uint64_t sum = ehmn_scaled_eps(eps_mantissa, eps_shift - 2 * (frac - shift)) + sum_of_squares(v, n, shift);
    int32_t factor = ehmn_rms_factor(sum, n, &by), spare = ehmn_neon_spare_bits((uint32_t)factor);
    if (by + spare >= 32 && by + spare <= 62) { /* as in ehmn_scale_all */
        const int32x4_t left = vdupq_n_s32(-shift), factors = vdupq_n_s32((int32_t)((uint32_t)factor << spare));
        const int32x4_t rest = vdupq_n_s32(31 - by - spare);
        for (const int32_t *end = v + (n & ~7u); v < end; i += 8u, v += 8, out += 8) {
            int32x4_t a[2];
            for (uint32_t k = 0; k < 2u; k++) {
                a[k] = vshlq_n_s32(vrshlq_s32(vld1q_s32(v + 4u * k), left), 16);
                a[k] = vrshlq_s32(vqdmulhq_s32(a[k], factors), rest);
                a[k] = down != NULL ? vshlq_s32(a[k], vnegq_s32(vld1q_s32(down + 4u * k))) : a[k];
            }
            vst1q_s32(out, a[0]);
            vst1q_s32(out + 4, a[1]);
            down = down != NULL ? down + 8 : NULL;
        }
    }
    for (n -= i, i = 0; i < n; i++) {
        out[i] = ehmn_round_rarely((int64_t)rounded(v[i], shift) * 65536 * factor, by) >> (down != NULL ? down[i] : 0);
    }
}

void ehmn_neon_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                         const int32_t *down, int32_t *out)
{
    normalise(v, n, frac, eps_mantissa, eps_shift, down, out);
}

void ehmn_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                        int32_t *out)
{
    normalise(v, n, frac, eps_mantissa, eps_shift, NULL, out);
}

static __attribute__((noinline)) void scale_any_steps(int32_t *v, const int32_t *scale, uint32_t n, int32_t step,
                                                      int32_t shift)
{
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_round_rarely((int64_t)(v[i] * step) * scale[i], shift);
    }
}

/* As scale of kernels_neon.c, with the step before. */
void ehmn_neon_scale_steps(int32_t *v, const int32_t *scale, uint32_t n, int32_t step, int32_t shift)
{
    if (shift >= 32 && shift <= 62) {
        const int32x4_t steps = vdupq_n_s32(step), down = vdupq_n_s32(31 - shift);
        for (; n >= 16u; n -= 16u, v += 16, scale += 16) {
            int32x4_t a[4];
            for (uint32_t k = 0; k < 4u; k++) {
                a[k] = vqdmulhq_s32(vmulq_s32(vld1q_s32(v + 4u * k), steps), vld1q_s32(scale + 4u * k));
            }
            for (uint32_t k = 0; k < 4u; k++) {
                vst1q_s32(v + 4u * k, vrshlq_s32(a[k], down));
            }
        }
        for (; n >= 4u; n -= 4u, v += 4, scale += 4) {
            vst1q_s32(v, vrshlq_s32(vqdmulhq_s32(vmulq_s32(vld1q_s32(v), steps), vld1q_s32(scale)), down));
        }
    }
    if (n > 0) {
        scale_any_steps(v, scale, n, step, shift);
    }
}

#endif
