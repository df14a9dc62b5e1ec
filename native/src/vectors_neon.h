/* Parts of vectors.c and encoder.c for aarch64, whose every processor has Advanced SIMD. */
#ifndef EHMN_VECTORS_NEON_H
#define EHMN_VECTORS_NEON_H

#include <stdint.h>

#if defined(__aarch64__) && defined(__ARM_NEON)
#define EHMN_NEON

#include "fixed.h"
#include "kernels.h"

#include <arm_neon.h>
#include <string.h>

extern const uint8_t ehmn_exp2_bytes_table[512]; /* the low bytes of 2^15 and ehmn_exp2_table, then the high ones */

/* out[k] = what a table of 256 bytes has at at[k], for n vectors, 1 or 2. */
static inline void ehmn_neon_look_up(const uint8_t *table, const uint8x16_t *at, uint32_t n, uint8x16_t *out)
{
    for (uint32_t quarter = 0; quarter < 4u; quarter++) {
        /* its registers are loaded one quarter after the other: they have no room together */
        __asm__ volatile("" : "+r"(table));
        uint8x16x4_t part = vld1q_u8_x4(table);
        table += 64;
        for (uint32_t k = 0; k < n; k++) {
            uint8x16_t place = vsubq_u8(at[k], vdupq_n_u8((uint8_t)(64u * quarter)));
            out[k] = quarter == 0 ? vqtbl4q_u8(part, place) : vqtbx4q_u8(out[k], part, place);
        }
    }
}

/* 2^(y / 256) as Q24 of n times sixteen y <= 0, n 1 or 2: ehmn_exp2_neg(-y). The table's entry for the low byte of y is
 * shifted by the rest, to the left, or to the right with rounding; of a shift only the low byte counts. */
static inline void ehmn_neon_exp2(const int16x8_t *y, uint32_t n, uint32x4_t *out)
{
    static const uint8_t places[64] = {
        0, 16, 99, 99, 1, 17, 99, 99, 2, 18, 99, 99, 3, 19, 99, 99, 4, 20, 99, 99, 5, 21, 99, 99,
        6, 22, 99, 99, 7, 23, 99, 99, 8, 24, 99, 99, 9, 25, 99, 99, 10, 26, 99, 99, 11, 27, 99, 99,
        12, 28, 99, 99, 13, 29, 99, 99, 14, 30, 99, 99, 15, 31, 99, 99,
    }; /* of the two bytes of each of sixteen words of 32 bits */
    const uint8x16x4_t place = vld1q_u8_x4(places);
    uint8x16_t at[2], low[2], high[2];
    for (uint32_t k = 0; k < n; k++) {
        at[k] = vuzp1q_u8(vreinterpretq_u8_s16(y[2u * k]), vreinterpretq_u8_s16(y[2u * k + 1u]));
    }
    ehmn_neon_look_up(ehmn_exp2_bytes_table, at, n, low);
    ehmn_neon_look_up(ehmn_exp2_bytes_table + 256, at, n, high);
    for (uint32_t k = 0; k < n; k++) {
        const uint8x16x2_t entry = {{low[k], high[k]}};
        uint8x16_t by = vuzp2q_u8(vreinterpretq_u8_s16(y[2u * k]), vreinterpretq_u8_s16(y[2u * k + 1u]));
        by = vaddq_u8(by, vdupq_n_u8(9));
        for (uint32_t i = 0; i < 4u; i++) {
            uint32x4_t value = vreinterpretq_u32_u8(vqtbl2q_u8(entry, place.val[i]));
            *out++ = vrshlq_u32(value, vreinterpretq_s32_u8(vqtbl1q_u8(by, place.val[i])));
        }
    }
}

/* ehmn_sigmoid of four values: one read brings an entry of the table and the next. */
static inline int32x4_t ehmn_neon_sigmoid(int32x4_t x)
{
    uint32x4_t a = vreinterpretq_u32_s32(vabsq_s32(x)); /* -2^31 stays, and lies beyond the table */
    uint32x4_t beyond = vcgtq_u32(a, vdupq_n_u32((1u << 20) - 1u));
    uint32_t index[4], word[4];
    vst1q_u32(index, vminq_u32(vshrq_n_u32(a, 11), vdupq_n_u32(511)));
    for (uint32_t k = 0; k < 4u; k++) {
        memcpy(word + k, ehmn_sigmoid_table + index[k], sizeof word[k]);
    }
    uint32x4_t both = vld1q_u32(word), low = vandq_u32(both, vdupq_n_u32(65535));
    uint32x4_t step = vsubq_u32(vshrq_n_u32(both, 16), low);
    uint32x4_t y = vrsraq_n_u32(low, vmulq_u32(step, vandq_u32(a, vdupq_n_u32(2047))), 11);
    y = vbslq_u32(beyond, vdupq_n_u32(65535), y);
    y = vbslq_u32(vcltzq_s32(x), vsubq_u32(vdupq_n_u32(65536), y), y);
    return vreinterpretq_s32_u32(y);
}

/* An entry of the table and the next, by bytes from its beginning. */
static inline uint32x2_t ehmn_neon_entry(uint32_t offset)
{
    uint32_t two;
    memcpy(&two, (const uint8_t *)ehmn_sigmoid_table + offset, sizeof two);
    return vcreate_u32(two);
}

/* The same of eight values, 1..65535, in 16 bits, whose products with rounding halve a doubled upper half: step is at
 * most 2^9, and 2^4 times the distance from the entry fits, too. The table's last entries are alike, so that what lies
 * beyond may become the last within. */
static inline uint16x8_t ehmn_neon_sigmoid8(int32x4_t x0, int32x4_t x1)
{
    const uint32x4_t last = vdupq_n_u32((1u << 20) - 1u);
    uint32x4_t a0 = vminq_u32(vreinterpretq_u32_s32(vabsq_s32(x0)), last);
    uint32x4_t a1 = vminq_u32(vreinterpretq_u32_s32(vabsq_s32(x1)), last);
    uint16x8_t at = vbicq_u16(vshrn_high_n_u32(vshrn_n_u32(a0, 10), a1, 10), vdupq_n_u16(1)); /* in bytes */
    uint32x2_t e0 = vzip1_u32(ehmn_neon_entry(vgetq_lane_u16(at, 0)), ehmn_neon_entry(vgetq_lane_u16(at, 1)));
    uint32x2_t e1 = vzip1_u32(ehmn_neon_entry(vgetq_lane_u16(at, 2)), ehmn_neon_entry(vgetq_lane_u16(at, 3)));
    uint32x2_t e2 = vzip1_u32(ehmn_neon_entry(vgetq_lane_u16(at, 4)), ehmn_neon_entry(vgetq_lane_u16(at, 5)));
    uint32x2_t e3 = vzip1_u32(ehmn_neon_entry(vgetq_lane_u16(at, 6)), ehmn_neon_entry(vgetq_lane_u16(at, 7)));
    uint32x4_t w0 = vcombine_u32(e0, e1), w1 = vcombine_u32(e2, e3);
    uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(w0), vreinterpretq_u16_u32(w1));
    uint16x8_t next = vuzp2q_u16(vreinterpretq_u16_u32(w0), vreinterpretq_u16_u32(w1));
    uint16x8_t part = vshlq_n_u16(vuzp1q_u16(vreinterpretq_u16_u32(a0), vreinterpretq_u16_u32(a1)), 4);
    part = vandq_u16(part, vdupq_n_u16(32767));
    int16x8_t step = vreinterpretq_s16_u16(vsubq_u16(next, low));
    uint16x8_t y = vaddq_u16(low, vreinterpretq_u16_s16(vqrdmulhq_s16(step, vreinterpretq_s16_u16(part))));
    uint16x8_t minus = vcltzq_s16(vuzp2q_s16(vreinterpretq_s16_s32(x0), vreinterpretq_s16_s32(x1)));
    return vsubq_u16(veorq_u16(y, minus), minus); /* 2^16 - y */
}

/* out[i] = v[i * stride] for i < n, in the order of i; no byte beyond the last of them is read. */
void ehmn_neon_collect(const int8_t *v, uint32_t stride, uint32_t n, int8_t *out);

/* Bits by which a number of this magnitude can be shifted to the left within 31. */
static inline int32_t ehmn_neon_spare_bits(uint32_t magnitude)
{
    return __builtin_clz(magnitude | 1u) - 1;
}

/* For the compiler memory may change when v is there: where all at once has no room in the registers, what comes
 * next is not read before. */
#define EHMN_NOT_BEFORE(v) __asm__ volatile("" : : "w"(v) : "memory")

/* -2^31 becomes -2^31 + 1. */
static inline int32x4_t ehmn_neon_symmetric(int32x4_t v)
{
    return vmaxq_s32(v, vdupq_n_s32(-INT32_MAX));
}

/* v[0..7] += round(a factor 2^(down - 15)), saturated; down: below zero, in every lane. Upper
 * halves of doubled products. */
static inline void ehmn_neon_add_scaled(int32_t *v, int16x8_t a, int32x4_t factor, int32x4_t down)
{
    int32x4x2_t sum = vld1q_s32_x2(v);
    int32x4_t low = vrshlq_s32(vqdmulhq_s32(vshll_n_s16(vget_low_s16(a), 16), factor), down);
    int32x4_t high = vrshlq_s32(vqdmulhq_s32(vshll_high_n_s16(a, 16), factor), down);
    sum.val[0] = ehmn_neon_symmetric(vqaddq_s32(sum.val[0], low));
    sum.val[1] = ehmn_neon_symmetric(vqaddq_s32(sum.val[1], high));
    vst1q_s32_x2(v, sum);
}

/* A row that gives ehmn_mul(w[i] factor, scale, shift), for factors within +-64 and scales that are not
 * negative; 0 if there is none. */
static inline int ehmn_neon_make_row(ehmn_row *row, const int8_t *w, int32_t factor, int32_t scale, int32_t shift)
{
    int32_t up = 31 - shift, right = 0; /* all to the left if there is room */
    if (up < 0 || up > 14 || ehmn_abs(factor) << up > INT16_MAX) {
        int32_t spare = ehmn_neon_spare_bits((uint32_t)scale);
        right = up < spare ? up : spare;
        up -= right;
        if (right < 0 || up > 14 || ehmn_abs(factor) << up > INT16_MAX) {
            return 0;
        }
    }
    row->w = w;
    row->left = factor * (1 << up);
    row->right = (int32_t)((uint32_t)scale << right);
    return 1;
}

/* As in kernels.h. */
void ehmn_neon_sum_rows(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count);

/* ehmn_rms_normalise, and ehmn_shift_all by `down`. */
void ehmn_neon_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                         const int32_t *down, int32_t *out);

/* v[i] = ehmn_mul(v[i] * step, scale[i], shift), where v[i] * step fits. */
void ehmn_neon_scale_steps(int32_t *v, const int32_t *scale, uint32_t n, int32_t step, int32_t shift);

/* As in encoder.c. Returns how many pairs were rotated, from the first on: all whole fours. */
uint32_t ehmn_rotate_some(const int16_t *turn, uint32_t half, int32_t *v);

#endif

#endif
