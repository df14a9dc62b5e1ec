/* Loops that add rounded products, which some processors do by one instruction: what the tables for aarch64 share. */
#ifndef EHMN_VECTORS_NEON_ADD_H
#define EHMN_VECTORS_NEON_ADD_H

#include "fixed.h"
#include "kernels_tables.h"
#include "vectors_neon.h"

#include <arm_neon.h>

/* v + round(2 a b / 2^32), saturated. */
static inline int32x4_t ehmn_neon_add_product(int32x4_t v, int32x4_t a, int32x4_t b)
{
#if defined(__ARM_FEATURE_QRDMX)
    v = vqrdmlahq_s32(v, a, b);
    __asm__("" : "+w"(v)); /* which stays where it is */
    return v;
#else
    return vqaddq_s32(v, vqrdmulhq_s32(a, b));
#endif
}

/* Sixteen values as logits: round(bias gain / 2^20) = round(2 (2^11 bias) gain / 2^32), where they are `biased`. */
static inline __attribute__((always_inline)) void ehmn_neon_fit16(const int32_t *v, const int16_t *bias, int biased,
                                                                  int32x4_t gain, int16_t *out, int16x8_t *most)
{
    int32x4_t a[4] = {vld1q_s32(v), vld1q_s32(v + 4), vld1q_s32(v + 8), vld1q_s32(v + 12)};
    if (biased) {
        int16x8_t b = vld1q_s16(bias), c = vld1q_s16(bias + 8);
        a[0] = ehmn_neon_add_product(a[0], vshll_n_s16(vget_low_s16(b), 11), gain);
        a[1] = ehmn_neon_add_product(a[1], vshll_high_n_s16(b, 11), gain);
        a[2] = ehmn_neon_add_product(a[2], vshll_n_s16(vget_low_s16(c), 11), gain);
        a[3] = ehmn_neon_add_product(a[3], vshll_high_n_s16(c, 11), gain);
    }
    int16x8_t low = vmaxq_s16(vqmovn_high_s32(vqmovn_s32(a[0]), a[1]), vdupq_n_s16(-INT16_MAX));
    int16x8_t high = vmaxq_s16(vqmovn_high_s32(vqmovn_s32(a[2]), a[3]), vdupq_n_s16(-INT16_MAX));
    vst1q_s16(out, low);
    vst1q_s16(out + 8, high);
    *most = vmaxq_s16(*most, vmaxq_s16(low, high));
}

/* What a table's `fit` does with n values, at least 32: those that are no whole group of 32
 * first, and more with them. */
static inline __attribute__((always_inline)) int32_t ehmn_neon_fit(const int32_t *v, const int16_t *bias, int biased,
                                                                   int32_t gain, uint32_t n, int16_t *out)
{
    const int32x4_t gains = vdupq_n_s32(gain);
    const int16_t *end = out + n;
    int16x8_t most = vdupq_n_s16(INT16_MIN);
    if (n % 32u != 0) {
        ehmn_neon_fit16(v, bias, biased, gains, out, &most);
        ehmn_neon_fit16(v + 16, biased ? bias + 16 : bias, biased, gains, out + 16, &most);
        v += n % 32u;
        bias += biased ? n % 32u : 0u;
        out += n % 32u;
    }
    while (out < end) {
        ehmn_neon_fit16(v, bias, biased, gains, out, &most);
        ehmn_neon_fit16(v + 16, biased ? bias + 16 : bias, biased, gains, out + 16, &most);
        v += 32;
        bias += biased ? 32 : 0;
        out += 32;
        EHMN_KEEP_POINTER(v);
        EHMN_KEEP_POINTER(bias);
    }
    return vmaxvq_s16(most);
}

/* sum[0..3] += what a row gives for sixteen weights. */
static inline void ehmn_neon_add_sixteen(int32x4_t *sum, const int8_t *w, int16x8_t left, int32x4_t right)
{
    int8x16_t a = vld1q_s8(w);
    int16x8_t low = vmovl_s8(vget_low_s8(a)), high = vmovl_high_s8(a);
    sum[0] = ehmn_neon_add_product(sum[0], vmull_s16(vget_low_s16(low), vget_low_s16(left)), right);
    sum[1] = ehmn_neon_add_product(sum[1], vmull_high_s16(low, left), right);
    sum[2] = ehmn_neon_add_product(sum[2], vmull_s16(vget_low_s16(high), vget_low_s16(left)), right);
    sum[3] = ehmn_neon_add_product(sum[3], vmull_high_s16(high, left), right);
}

/* v[0..16 some - 1] of all rows, some 1 or 4. */
static inline __attribute__((always_inline)) void ehmn_neon_sum_some_rows(int32_t *v, uint32_t some,
                                                                          const ehmn_row *rows,
                                                           uint32_t count, size_t from)
{
    int32x4_t sum[16];
    for (uint32_t k = 0; k < 4u * some; k++) {
        sum[k] = vdupq_n_s32(0);
    }
    for (const ehmn_row *row = rows, *end = rows + count; row < end; row++) {
        const int8_t *w = row->w + from;
        int16x8_t left = vdupq_n_s16((int16_t)row->left);
        int32x4_t right = vdupq_n_s32(row->right);
        for (uint32_t k = 0; k < some; k++) {
            ehmn_neon_add_sixteen(sum + 4u * k, w + 16u * k, left, right);
            EHMN_NOT_BEFORE(sum[4u * k + 3u]);
        }
    }
    for (uint32_t k = 0; k < 4u * some; k++) {
        vst1q_s32(v + from + 4u * k, sum[k]);
    }
}

static inline void ehmn_neon_sum_all_rows(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count)
{
    size_t i = 0;
    for (; i + 64u <= n; i += 64u) {
        ehmn_neon_sum_some_rows(v, 4, rows, count, i);
    }
    for (; i + 16u <= n; i += 16u) {
        ehmn_neon_sum_some_rows(v, 1, rows, count, i);
    }
    for (; i < n; i++) {
        v[i] = 0;
        for (const ehmn_row *row = rows, *end = rows + count; row < end; row++) {
            v[i] += ehmn_round_fit((int64_t)(row->w[i] * row->left) * row->right, 31);
        }
    }
}

#endif
