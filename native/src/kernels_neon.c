/* aarch64 with Advanced SIMD, which every such processor has: eight rows at a time, sixteen columns in a register. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(EHMN_NEON)

#include "vectors_neon_add.h"

#include <arm_neon.h>
#include <stddef.h>
#include <string.h>

static int32_t dot(const int8_t *w, const int16_t *x, uint32_t cols)
{
    int32x4_t sum = vdupq_n_s32(0);
    uint32_t c = 0;
    for (; c + 8u <= cols; c += 8u) {
        int16x8_t a = vmovl_s8(vld1_s8(w + c)), v = vld1q_s16(x + c);
        sum = vmlal_s16(sum, vget_low_s16(a), vget_low_s16(v));
        sum = vmlal_high_s16(sum, a, v);
    }
    int32_t out = vaddvq_s32(sum);
    for (; c < cols; c++) {
        out += w[c] * x[c];
    }
    return out;
}

/* sum += sixteen weights times v0, v1. */
static inline int32x4_t multiply16(const int8_t *w, int16x8_t v0, int16x8_t v1, int32x4_t sum)
{
    int8x16_t a = vld1q_s8(w);
    int16x8_t low = vmovl_s8(vget_low_s8(a)), high = vmovl_high_s8(a);
    sum = vmlal_s16(sum, vget_low_s16(low), vget_low_s16(v0));
    sum = vmlal_high_s16(sum, low, v0);
    sum = vmlal_s16(sum, vget_low_s16(high), vget_low_s16(v1));
    return vmlal_high_s16(sum, high, v1);
}

static inline int32x4_t sum4(const int32x4_t *s)
{
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
}

/* Rows of 128 columns, one behind the other: the input stays in registers. */
static void multiply16_128(const int8_t *w, uint32_t rows, const int16_t *in, int32_t *acc)
{
    int16x8_t x[16];
    for (uint32_t k = 0; k < 16u; k++) {
        x[k] = vld1q_s16(in + 8u * k);
    }
    for (const int32_t *end = acc + rows; acc < end; acc++) {
        int32x4_t s = vdupq_n_s32(0);
        for (uint32_t k = 0; k < 16u; k += 2u, w += 16) {
            s = multiply16(w, x[k], x[k + 1u], s);
        }
        EHMN_KEEP_POINTER(w);
        *acc = vaddvq_s32(s);
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    const int16_t *end = x + (cols & ~15u);
    uint32_t r = 0, rest = cols & 15u;
    if (cols == 128u && stride == 128u) {
        r = rows;
        multiply16_128(w, r, x, acc);
        w += (size_t)r * stride;
    }
    for (; r + 8u <= rows; r += 8u, w += (size_t)8u * stride) {
        const int8_t *row[8];
        int32x4_t s[8];
        for (uint32_t k = 0; k < 8u; k++) {
            row[k] = w + (size_t)k * stride;
            s[k] = vdupq_n_s32(0);
        }
        for (const int16_t *at = x; at < end; at += 16) {
            int16x8_t v0 = vld1q_s16(at), v1 = vld1q_s16(at + 8);
            for (uint32_t k = 0; k < 8u; k++) {
                s[k] = multiply16(row[k], v0, v1, s[k]);
                row[k] += 16;
                EHMN_KEEP_POINTER(row[k]);
            }
        }
        vst1q_s32(acc + r, sum4(s));
        vst1q_s32(acc + r + 4u, sum4(s + 4));
        for (uint32_t k = 0; rest > 0 && k < 8u; k++) {
            acc[r + k] += dot(w + (size_t)k * stride + (cols - rest), end, rest);
        }
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = dot(w, x, cols);
    }
}

static int32_t dot8(const int8_t *w, const int8_t *x, uint32_t cols)
{
    int32_t sum = 0;
    for (uint32_t c = 0; c < cols; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

/* Products of bytes, at most 127^2, are summed in pairs: 2 * 127^2 fits 16 bits. */
static inline int32x4_t multiply8(const int8_t *w, int8x16_t v, int32x4_t sum)
{
    int8x16_t a = vld1q_s8(w);
    return vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(v)), a, v));
}

/* Rows that follow each other, of 128 columns: the input stays in registers. Four side by side, since not all of
 * these cores put instructions in another order: one by one they are 4 % less instructions and a tenth more
 * cycles. Returns how many. */
static uint32_t multiply_contiguous(const int8_t *w, uint32_t rows, const int8_t *x, int32_t *acc)
{
    int8x16_t v[8];
    uint32_t r = 0;
    for (uint32_t c = 0; c < 8u; c++) {
        v[c] = vld1q_s8(x + 16u * c);
    }
    for (; r + 4u <= rows; r += 4u, w += 512) {
        int32x4_t s[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (uint32_t c = 0; c < 8u; c++) {
            for (uint32_t k = 0; k < 4u; k++) {
                s[k] = multiply8(w + 128u * k + 16u * c, v[c], s[k]);
            }
        }
        vst1q_s32(acc + r, sum4(s));
    }
    return r;
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    const int8_t *end = x + (cols & ~15u);
    uint32_t r = 0, rest = cols & 15u;
    if (cols == 128u && stride == 128u) {
        r = multiply_contiguous(w, rows, x, acc);
        w += (size_t)r * stride;
    }
    for (; r + 8u <= rows; r += 8u, w += (size_t)8u * stride) {
        const int8_t *row[8];
        int32x4_t s[8];
        for (uint32_t k = 0; k < 8u; k++) {
            row[k] = w + (size_t)k * stride;
            s[k] = vdupq_n_s32(0);
        }
        for (const int8_t *at = x; at < end; at += 16) {
            int8x16_t v = vld1q_s8(at);
            for (uint32_t k = 0; k < 8u; k++) {
                s[k] = multiply8(row[k], v, s[k]);
                row[k] += 16;
                EHMN_KEEP_POINTER(row[k]);
            }
        }
        vst1q_s32(acc + r, sum4(s));
        vst1q_s32(acc + r + 4u, sum4(s + 4));
        for (uint32_t k = 0; rest > 0 && k < 8u; k++) {
            acc[r + k] += dot8(w + (size_t)k * stride + (cols - rest), end, rest);
        }
    }
    for (; r < rows; r++, w += stride) {
        int32x4_t sum = vdupq_n_s32(0);
        for (uint32_t c = 0; c < (cols & ~15u); c += 16u) {
            sum = multiply8(w + c, vld1q_s8(x + c), sum);
        }
        acc[r] = vaddvq_s32(sum) + dot8(w + (cols - rest), end, rest);
    }
}

/* s[0..7] += a weight times 32 values of a row. */
#define ADD_ROW(at, weights, lane)                                                  \
    do {                                                                            \
        int8x16_t a = vld1q_s8(at), b = vld1q_s8((at) + 16);                        \
        int16x8_t p = vmovl_s8(vget_low_s8(a)), q = vmovl_high_s8(a);               \
        int16x8_t u = vmovl_s8(vget_low_s8(b)), v = vmovl_high_s8(b);               \
        s0 = vmlal_lane_s16(s0, vget_low_s16(p), weights, lane);                    \
        s1 = vmlal_high_lane_s16(s1, p, weights, lane);                             \
        s2 = vmlal_lane_s16(s2, vget_low_s16(q), weights, lane);                    \
        s3 = vmlal_high_lane_s16(s3, q, weights, lane);                             \
        s4 = vmlal_lane_s16(s4, vget_low_s16(u), weights, lane);                    \
        s5 = vmlal_high_lane_s16(s5, u, weights, lane);                             \
        s6 = vmlal_lane_s16(s6, vget_low_s16(v), weights, lane);                    \
        s7 = vmlal_high_lane_s16(s7, v, weights, lane);                             \
    } while (0)

/* Thirty-two columns at a time; weights enter negated, since 2^15 has no place in 16 bits. */
void ehmn_kernels_neon_weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                    const int32_t *weight, int32_t *acc)
{
    uint32_t c = 0;
    for (; c + 32u <= cols; c += 32u) {
        int32x4_t s0 = vdupq_n_s32(0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
        const int8_t *at = w + c;
        uint32_t r = 0;
        for (; r + 4u <= rows; r += 4u, at += (size_t)4u * stride) {
            int16x4_t f = vmovn_s32(vnegq_s32(vld1q_s32(weight + r)));
            ADD_ROW(at, f, 0);
            ADD_ROW(at + stride, f, 1);
            ADD_ROW(at + (size_t)2u * stride, f, 2);
            ADD_ROW(at + (size_t)3u * stride, f, 3);
        }
        for (; r < rows; r++, at += stride) {
            int16x4_t f = vdup_n_s16((int16_t)-weight[r]);
            ADD_ROW(at, f, 0);
        }
        vst1q_s32(acc + c, vnegq_s32(s0));
        vst1q_s32(acc + c + 4u, vnegq_s32(s1));
        vst1q_s32(acc + c + 8u, vnegq_s32(s2));
        vst1q_s32(acc + c + 12u, vnegq_s32(s3));
        vst1q_s32(acc + c + 16u, vnegq_s32(s4));
        vst1q_s32(acc + c + 20u, vnegq_s32(s5));
        vst1q_s32(acc + c + 24u, vnegq_s32(s6));
        vst1q_s32(acc + c + 28u, vnegq_s32(s7));
    }
    if (c < cols) {
        ehmn_kernels_rows_weighted_sum(w + c, rows, cols - c, stride, weight, acc + c);
    }
}

static inline int32x4_t scale_exactly(int32x4_t v, int32x4_t factor, int64x2_t right)
{
    int64x2_t low = vrshlq_s64(vmull_s32(vget_low_s32(v), vget_low_s32(factor)), right);
    int64x2_t high = vrshlq_s64(vmull_high_s32(v, factor), right);
    return vmaxq_s32(vqmovn_high_s64(vqmovn_s64(low), high), vdupq_n_s32(-INT32_MAX));
}

/* The doubled products' upper halves are enough for shifts above 31. They would not fit for -2^31 times itself alone,
 * and the one less that they become is rounded away. */
void ehmn_kernels_neon_scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    const int64x2_t right = vdupq_n_s64(-shift);
    if (shift >= 32 && shift <= 62) {
        const int32x4_t down = vdupq_n_s32(31 - shift);
        for (; n >= 16u; n -= 16u, v += 16, factor += 16, out += 16) {
            int32x4x4_t a = vld1q_s32_x4(v), f = vld1q_s32_x4(factor);
            for (uint32_t k = 0; k < 4u; k++) {
                a.val[k] = vrshlq_s32(vqdmulhq_s32(a.val[k], f.val[k]), down);
            }
            vst1q_s32_x4(out, a);
        }
    }
    for (; shift >= 1 && shift < 32 && n >= 16u; n -= 16u, v += 16, factor += 16, out += 16) {
        int32x4x4_t a = vld1q_s32_x4(v), f = vld1q_s32_x4(factor);
        for (uint32_t k = 0; k < 4u; k++) {
            a.val[k] = scale_exactly(a.val[k], f.val[k], right);
        }
        vst1q_s32_x4(out, a);
    }
    for (; shift >= 1 && shift <= 62 && n >= 4u; n -= 4u, v += 4, factor += 4, out += 4) {
        vst1q_s32(out, scale_exactly(vld1q_s32(v), vld1q_s32(factor), right));
    }
    if (n > 0) {
        ehmn_kernels_rows_scale(v, factor, n, shift, out);
    }
}

/* Differences saturate: what they stand for is nothing. */
uint32_t ehmn_kernels_neon_exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    const int16x8_t most = vdupq_n_s16((int16_t)max);
    uint32x4_t sum = vdupq_n_u32(0), p[8];
    for (; n >= 32u; n -= 32u, logits += 32) {
        int16x8x4_t y = vld1q_s16_x4(logits);
        for (uint32_t k = 0; k < 4u; k++) {
            y.val[k] = vqsubq_s16(y.val[k], most);
        }
        ehmn_neon_exp2(y.val, 2, p);
        for (uint32_t k = 0; k < 8u; k++) {
            sum = vaddq_u32(sum, p[k]);
        }
    }
    uint32_t all = vaddvq_u32(sum);
    return n > 0 ? all + ehmn_kernels_rows_exp_sum(logits, n, max) : all;
}

/* Sixteen scores, or thirty-two for `n` 2; adds to *sum what they become. */
static inline __attribute__((always_inline)) void soften_some(int32_t *scores, uint32_t n, int32x4_t most,
                                                              uint32x4_t *sum)
{
    int16x8_t y[4];
    uint32x4_t p[8];
    for (uint32_t k = 0; k < 2u * n; k++) {
        int16x4_t low = vqmovn_s32(vqsubq_s32(vld1q_s32(scores + 8u * k), most));
        y[k] = vqmovn_high_s32(low, vqsubq_s32(vld1q_s32(scores + 8u * k + 4u), most));
    }
    ehmn_neon_exp2(y, n, p);
    for (uint32_t k = 0; k < 4u * n; k++) {
        p[k] = vrshrq_n_u32(p[k], 9);
        *sum = vaddq_u32(*sum, p[k]);
        vst1q_s32(scores + 4u * k, vreinterpretq_s32_u32(p[k]));
    }
}

uint32_t ehmn_kernels_neon_soften(int32_t *scores, uint32_t n, int32_t max)
{
    const int32x4_t most = vdupq_n_s32(max);
    uint32x4_t sum = vdupq_n_u32(0);
    for (; n >= 32u; n -= 32u, scores += 32) {
        soften_some(scores, 2, most, &sum);
    }
    if (n >= 16u) {
        soften_some(scores, 1, most, &sum);
        n -= 16u;
        scores += 16;
    }
    return vaddvq_u32(sum) + ehmn_kernels_rows_soften(scores, n, max);
}

void ehmn_kernels_neon_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac)
{
    uint32_t i = 0;
    for (; frac == 16 && n >= 8u; n -= 8u, gate += 8, up += 8) {
        int32x4_t g[2] = {vld1q_s32(gate), vld1q_s32(gate + 4)}, u[2] = {vld1q_s32(up), vld1q_s32(up + 4)};
        uint16x8_t open = ehmn_neon_sigmoid8(g[0], g[1]); /* times 2^15 it has its place in 31 bits */
        g[0] = vqrdmulhq_s32(g[0], vreinterpretq_s32_u32(vshll_n_u16(vget_low_u16(open), 15)));
        g[1] = vqrdmulhq_s32(g[1], vreinterpretq_s32_u32(vshll_high_n_u16(open, 15)));
        for (uint32_t k = 0; k < 2u; k++) {
            int32x2_t low = vqrshrn_n_s64(vmull_s32(vget_low_s32(g[k]), vget_low_s32(u[k])), 16);
            u[k] = vmaxq_s32(vqrshrn_high_n_s64(low, vmull_high_s32(g[k], u[k]), 16), vdupq_n_s32(-INT32_MAX));
        }
        vst1q_s32(up, u[0]);
        vst1q_s32(up + 4, u[1]);
    }
    const int32x4_t most = vdupq_n_s32(1 << 21), least = vdupq_n_s32(-(1 << 21)); /* all beyond is alike */
    for (; frac != 16 && i + 4u <= n; i += 4u) {
        int32x4_t g = vld1q_s32(gate + i), u = vld1q_s32(up + i);
        int32x4_t open = ehmn_neon_sigmoid(vshlq_s32(vmaxq_s32(vminq_s32(g, most), least), vdupq_n_s32(16 - frac)));
        int32x2_t first = vrshrn_n_s64(vmull_s32(vget_low_s32(g), vget_low_s32(open)), 16);
        int32x4_t opened = vrshrn_high_n_s64(first, vmull_high_s32(g, open), 16);
        int64x2_t low = vrshlq_s64(vmull_s32(vget_low_s32(opened), vget_low_s32(u)), vdupq_n_s64(-frac));
        int64x2_t high = vrshlq_s64(vmull_high_s32(opened, u), vdupq_n_s64(-frac));
        vst1q_s32(up + i, vmaxq_s32(vqmovn_high_s64(vqmovn_s64(low), high), vdupq_n_s32(-INT32_MAX)));
    }
    ehmn_kernels_rows_gate(gate + i, up + i, n - i, frac);
}

int32_t ehmn_kernels_neon_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                              int16_t *out)
{
    if (n < 32u) {
        return ehmn_kernels_rows_fit(v, bias, gain, n, max, out);
    }
    int32_t most = bias != NULL ? ehmn_neon_fit(v, bias, 1, gain, n, out) : ehmn_neon_fit(v, NULL, 0, 0, n, out);
    return most > max ? most : max;
}

/* In how many bits words * 4 bytes differ, for words in fours. */
static inline uint32_t differences_of(const uint32_t *a, const uint32_t *b, uint32_t words)
{
    uint32_t sum = 0;
    for (uint32_t w = 0; w < words; w += 4u) {
        uint32x4_t differ = veorq_u32(vld1q_u32(a + w), vld1q_u32(b + w));
        sum += vaddvq_u8(vcntq_u8(vreinterpretq_u8_u32(differ)));
    }
    return sum;
}

/* In how many bits the next four keys of four words differ from `own`, each in four parts. */
static inline uint8x16_t parts_of_four(const uint8_t **keys, uint8x16_t own)
{
    uint8x16x4_t k = vld1q_u8_x4(*keys);
    *keys += 64;
    EHMN_KEEP_POINTER(*keys);
    uint8x16_t a = vpaddq_u8(vcntq_u8(veorq_u8(k.val[0], own)), vcntq_u8(veorq_u8(k.val[1], own)));
    uint8x16_t b = vpaddq_u8(vcntq_u8(veorq_u8(k.val[2], own)), vcntq_u8(veorq_u8(k.val[3], own)));
    return vpaddq_u8(a, b);
}

/* Sixteen numbers in order, with `item` among them unless all are smaller; the last falls out. */
static inline void insert(uint32x4x4_t *found, uint32_t item)
{
    uint32x4_t before = vdupq_n_u32(0), by = vdupq_n_u32(item);
    for (uint32_t k = 0; k < 4u; k++) {
        uint32x4_t v = found->val[k];
        found->val[k] = vmaxq_u32(vextq_u32(before, v, 3), vminq_u32(v, by));
        before = v;
    }
}

_Static_assert(EHMN_RECALLED == 16u, "what was found fills four registers");

#define KEYS 1024u /* whose distances are kept at a time */
#define NONE 255u  /* no distance: there are at most 128 */

/* count[i]: in how many bits keys of four words, n in sixteens, differ from `own`; NONE up to whole groups of 64.
 * Returns how many groups there are. */
static inline uint32_t count_differences(const uint32_t *keys, uint32_t n, uint8x16_t own, uint8_t *count)
{
    const uint8_t *at = (const uint8_t *)keys, *end = at + (size_t)16u * n;
    for (; at < end; count += 16) {
        uint8x16_t first = parts_of_four(&at, own), low = vpaddq_u8(first, parts_of_four(&at, own));
        uint8x16_t third = parts_of_four(&at, own), high = vpaddq_u8(third, parts_of_four(&at, own));
        vst1q_u8(count, vpaddq_u8(low, high));
    }
    for (uint32_t i = n; i % 64u != 0; i += 16u, count += 16) {
        vst1q_u8(count, vdupq_n_u8(NONE));
    }
    return (n + 63u) / 64u;
}

/* A distance that is not below the sixteenth smallest, and not far above it: so many of 64 lanes have seen one
 * that is not above it. */
static inline uint32_t limit_of(const uint8_t *count, uint32_t groups)
{
    uint8x16_t a = vdupq_n_u8(NONE), b = a, c = a, d = a;
    for (const uint8_t *end = count + 64u * groups; count < end; count += 64) {
        a = vminq_u8(a, vld1q_u8(count));
        b = vminq_u8(b, vld1q_u8(count + 16));
        c = vminq_u8(c, vld1q_u8(count + 32));
        d = vminq_u8(d, vld1q_u8(count + 48));
    }
    uint32_t limit = 0;
    for (uint32_t bit = 64; bit > 0; bit >>= 1) { /* to be added if too few lanes are below what it makes */
        uint8x16_t by = vdupq_n_u8((uint8_t)(limit + bit - 1u));
        uint8x16_t low = vaddq_u8(vcleq_u8(a, by), vcleq_u8(b, by));
        uint8x16_t up_to = vaddq_u8(low, vaddq_u8(vcleq_u8(c, by), vcleq_u8(d, by)));
        int32_t less_lanes = vaddvq_s8(vreinterpretq_s8_u8(up_to));
        limit += bit & (uint32_t)((-(int32_t)EHMN_RECALLED - less_lanes) >> 31);
    }
    return limit;
}

/* Put keys whose distance is at most `limit` among those found; `first` is the number of the first of them. */
static inline void find_near(const uint8_t *count, uint32_t groups, uint32_t first, uint32_t limit, uint32x4x4_t *found)
{
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t by = vdupq_n_u8((uint8_t)limit), place = vld1q_u8(places);
    for (const uint8_t *end = count + 64u * groups; count < end; count += 64, first += 64u) {
        uint8x16_t a = vandq_u8(vcleq_u8(vld1q_u8(count), by), place);
        uint8x16_t b = vandq_u8(vcleq_u8(vld1q_u8(count + 16), by), place);
        uint8x16_t c = vandq_u8(vcleq_u8(vld1q_u8(count + 32), by), place);
        uint8x16_t d = vandq_u8(vcleq_u8(vld1q_u8(count + 48), by), place);
        uint8x16_t all = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
        uint64_t near = vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
        for (; near != 0; near &= near - 1u) {
            uint32_t at = (uint32_t)__builtin_ctzll(near);
            insert(found, (uint32_t)count[at] << 16 | (first + at));
        }
    }
}

/* Keys of four words are counted first, which tells up to where a key may be among the nearest: few are then put there
 * that do not stay. */
void ehmn_kernels_neon_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found)
{
    if (words % 4u != 0) {
        ehmn_kernels_rows_nearest(keys, n, key, words, found);
        return;
    }
    const uint32x4_t none = vdupq_n_u32(UINT32_MAX);
    uint32x4x4_t all = {{none, none, none, none}};
    uint32_t i = 0;
    while (words == 4u && i + 16u <= n) {
        uint8_t count[KEYS];
        uint32_t some = n - i < KEYS ? (n - i) & ~15u : KEYS;
        uint32_t groups = count_differences(keys, some, vreinterpretq_u8_u32(vld1q_u32(key)), count);
        find_near(count, groups, i, limit_of(count, groups), &all);
        keys += (size_t)4u * some;
        i += some;
    }
    vst1q_u32_x4(found, all);
    for (; i < n; i++, keys += words) {
        uint32_t item = differences_of(keys, key, words) << 16 | i;
        if (item < found[EHMN_RECALLED - 1u]) {
            ehmn_insert(found, item);
        }
    }
}

const ehmn_kernels ehmn_kernels_neon = {
    .name = "neon",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_rows_matvec_s4,
    .weighted_sum = ehmn_kernels_neon_weighted_sum,
    .scale = ehmn_kernels_neon_scale,
    .scale_steps = ehmn_neon_scale_steps,
    .step_row = ehmn_kernels_neon_step_row,
    .few_steps = 3u,
    .exp_sum = ehmn_kernels_neon_exp_sum,
    .soften = ehmn_kernels_neon_soften,
    .gate = ehmn_kernels_neon_gate,
    .fit = ehmn_kernels_neon_fit,
    .nearest = ehmn_kernels_neon_nearest,
    .matmat_s16 = ehmn_kernels_neon_matmat_s16,
    .matmat_s4 = ehmn_kernels_neon_matmat_s4,
    .matmat_s8 = ehmn_kernels_neon_matmat_s8,
    .sum_rows = ehmn_neon_sum_rows,
};

#endif
