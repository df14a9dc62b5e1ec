/* aarch64 with Advanced SIMD, which every such processor has: eight rows at a time, sixteen columns in a register. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(EHMN_NEON)

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

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    const int16_t *end = x + (cols & ~15u);
    uint32_t r = 0, rest = cols & 15u;
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

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    const int8_t *end = x + (cols & ~15u);
    uint32_t r = 0, rest = cols & 15u;
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

/* Of four products. */
static inline int32x4_t upper_halves(int32x4_t a, int32x4_t b)
{
    int64x2_t low = vmull_s32(vget_low_s32(a), vget_low_s32(b));
    return vuzp2q_s32(vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(vmull_high_s32(a, b)));
}

void ehmn_kernels_neon_scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    uint32_t i = 0;
    const int64x2_t right = vdupq_n_s64(-shift);
    for (; shift >= 1 && shift <= 32 && i + 4u <= n; i += 4u) {
        int32x4_t a = vld1q_s32(v + i), f = vld1q_s32(factor + i);
        int64x2_t low = vrshlq_s64(vmull_s32(vget_low_s32(a), vget_low_s32(f)), right);
        int64x2_t high = vrshlq_s64(vmull_high_s32(a, f), right);
        vst1q_s32(out + i, vmaxq_s32(vqmovn_high_s64(vqmovn_s64(low), high), vdupq_n_s32(-INT32_MAX)));
    }
    if (shift >= 33 && shift <= 62) { /* the upper halves of the products are enough */
        int32x4_t down = vdupq_n_s32(32 - shift);
        for (; i + 8u <= n; i += 8u) {
            int32x4_t a = vld1q_s32(v + i), b = vld1q_s32(v + i + 4);
            int32x4_t f = vld1q_s32(factor + i), g = vld1q_s32(factor + i + 4);
            vst1q_s32(out + i, vrshlq_s32(upper_halves(a, f), down));
            vst1q_s32(out + i + 4, vrshlq_s32(upper_halves(b, g), down));
        }
    }
    ehmn_kernels_rows_scale(v + i, factor + i, n - i, shift, out + i);
}

void ehmn_kernels_neon_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    const int8x16_t most = vdupq_n_s8(127), least = vdupq_n_s8(-127), turn = vdupq_n_s8((int8_t)flip);
    uint32x4_t u = vdupq_n_u32(at);
    uint8x16_t before = vdupq_n_u8(0); /* its last byte: the steps up to here, modulo 256 */
    uint32_t j = 0;
    for (; j + 16u <= n; j += 16u) {
        uint32x4_t p0 = vmlaq_n_u32(u, vld1q_u32(edge + j), rate), p1 = vmlaq_n_u32(u, vld1q_u32(edge + j + 4u), rate);
        uint32x4_t p2 = vmlaq_n_u32(u, vld1q_u32(edge + j + 8u), rate);
        uint32x4_t p3 = vmlaq_n_u32(u, vld1q_u32(edge + j + 12u), rate);
        uint16x8_t q0 = vuzp2q_u16(vreinterpretq_u16_u32(p0), vreinterpretq_u16_u32(p1));
        uint16x8_t q1 = vuzp2q_u16(vreinterpretq_u16_u32(p2), vreinterpretq_u16_u32(p3));
        uint8x16_t now = vuzp2q_u8(vreinterpretq_u8_u16(q0), vreinterpretq_u8_u16(q1));
        int8x16_t steps = vreinterpretq_s8_u8(vsubq_u8(now, vextq_u8(before, now, 15)));
        int8x16_t down = veorq_s8(vld1q_s8(sign + j), turn);
        steps = vsubq_s8(veorq_s8(steps, down), down);
        vst1q_s8(w + j, vmaxq_s8(vminq_s8(vqaddq_s8(vld1q_s8(w + j), steps), most), least));
        before = now;
    }
    uint32_t last = vgetq_lane_u8(before, 15);
    for (; j < n; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t count = (int32_t)((now - last) & 255u);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -count : count), -127, 127);
        last = now;
    }
}

#define FAR (25u * 256u + 1u) /* from here on, 2^-(x / 256) counts as nothing */

/* ehmn_exp2_neg of eight values, at most FAR: only the table is read one by one. */
static inline void exp2_neg(uint16x8_t x, uint32x4_t *low, uint32x4_t *high)
{
    uint16x8_t whole = vshrq_n_u16(vaddq_u16(x, vdupq_n_u16(255)), 8);
    uint16_t index[8], entry[8];
    vst1q_u16(index, vsubq_u16(vshlq_n_u16(whole, 8), x));
    for (uint32_t k = 0; k < 8u; k++) {
        entry[k] = ehmn_exp2_table[index[k] & 255u];
    }
    uint16x8_t mantissa = vaddq_u16(vld1q_u16(entry), vdupq_n_u16(32768));
    int16x8_t right = vnegq_s16(vreinterpretq_s16_u16(whole));
    uint16x8_t near = vcltq_u16(x, vdupq_n_u16(FAR));
    mantissa = vandq_u16(mantissa, near);
    *low = vrshlq_u32(vshll_n_u16(vget_low_u16(mantissa), 9), vmovl_s16(vget_low_s16(right)));
    *high = vrshlq_u32(vshll_high_n_u16(mantissa, 9), vmovl_high_s16(right));
}

uint32_t ehmn_kernels_neon_exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    const uint16x8_t most = vdupq_n_u16((uint16_t)max), far = vdupq_n_u16(FAR);
    uint32x4_t sum = vdupq_n_u32(0), p, q;
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        uint16x8_t below = vminq_u16(vsubq_u16(most, vreinterpretq_u16_s16(vld1q_s16(logits + i))), far);
        exp2_neg(below, &p, &q);
        sum = vaddq_u32(sum, vaddq_u32(p, q));
    }
    return vaddvq_u32(sum) + ehmn_kernels_rows_exp_sum(logits + i, n - i, max);
}

uint32_t ehmn_kernels_neon_soften(int32_t *scores, uint32_t n, int32_t max)
{
    const int32x4_t most = vdupq_n_s32(max);
    const uint32x4_t far = vdupq_n_u32(FAR);
    uint32x4_t sum = vdupq_n_u32(0), p, q;
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        uint32x4_t a = vreinterpretq_u32_s32(vsubq_s32(most, vld1q_s32(scores + i)));
        uint32x4_t b = vreinterpretq_u32_s32(vsubq_s32(most, vld1q_s32(scores + i + 4)));
        exp2_neg(vmovn_high_u32(vmovn_u32(vminq_u32(a, far)), vminq_u32(b, far)), &p, &q);
        p = vrshrq_n_u32(p, 9);
        q = vrshrq_n_u32(q, 9);
        sum = vaddq_u32(sum, vaddq_u32(p, q));
        vst1q_s32(scores + i, vreinterpretq_s32_u32(p));
        vst1q_s32(scores + i + 4, vreinterpretq_s32_u32(q));
    }
    return vaddvq_u32(sum) + ehmn_kernels_rows_soften(scores + i, n - i, max);
}

/* ehmn_sigmoid of four values: one read brings an entry of the table and the next. */
static inline int32x4_t sigmoid(int32x4_t x)
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

/* Four at a time where each has 16 fractional bits. */
void ehmn_kernels_neon_gate(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac)
{
    uint32_t i = 0;
    for (; frac == 16 && i + 4u <= n; i += 4u) {
        int32x4_t g = vld1q_s32(gate + i), open = sigmoid(g), u = vld1q_s32(up + i);
        int32x2_t low = vrshrn_n_s64(vmull_s32(vget_low_s32(g), vget_low_s32(open)), 16);
        int32x4_t opened = vrshrn_high_n_s64(low, vmull_high_s32(g, open), 16);
        low = vqrshrn_n_s64(vmull_s32(vget_low_s32(opened), vget_low_s32(u)), 16);
        int32x4_t y = vqrshrn_high_n_s64(low, vmull_high_s32(opened, u), 16);
        vst1q_s32(up + i, vmaxq_s32(y, vdupq_n_s32(-INT32_MAX)));
    }
    ehmn_kernels_rows_gate(gate + i, up + i, n - i, frac);
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

/* Of keys of four words, four at a time: their counts are summed side by side. */
uint32_t ehmn_kernels_neon_find_near(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words,
                                     uint32_t limit, uint32_t *bits)
{
    if (words % 4u != 0) {
        return ehmn_kernels_rows_find_near(keys, n, key, words, limit, bits);
    }
    const uint32x4_t own = vld1q_u32(key), limits = vdupq_n_u32(limit);
    uint32_t i = 0;
    for (; words == 4u && i + 4u <= n; i += 4u) {
        uint8x16_t count[4];
        for (uint32_t k = 0; k < 4u; k++) {
            count[k] = vcntq_u8(vreinterpretq_u8_u32(veorq_u32(vld1q_u32(keys + 4u * (i + k)), own)));
        }
        uint8x16_t fours = vpaddq_u8(vpaddq_u8(count[0], count[1]), vpaddq_u8(count[2], count[3]));
        if (vmaxvq_u32(vcltq_u32(vpaddlq_u16(vpaddlq_u8(fours)), limits)) != 0) {
            break;
        }
    }
    for (; i < n; i++) {
        uint32_t differ = differences_of(keys + (size_t)i * words, key, words);
        if (differ < limit) {
            *bits = differ;
            break;
        }
    }
    return i;
}

const ehmn_kernels ehmn_kernels_neon = {
    .name = "neon",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_rows_matvec_s4,
    .weighted_sum = ehmn_kernels_neon_weighted_sum,
    .scale = ehmn_kernels_neon_scale,
    .step_row = ehmn_kernels_neon_step_row,
    .few_steps = 3u,
    .exp_sum = ehmn_kernels_neon_exp_sum,
    .soften = ehmn_kernels_neon_soften,
    .gate = ehmn_kernels_neon_gate,
    .fit = ehmn_kernels_rows_fit,
    .find_near = ehmn_kernels_neon_find_near,
    .matmat_s16 = ehmn_kernels_neon_matmat_s16,
    .matmat_s4 = ehmn_kernels_neon_matmat_s4,
    .matmat_s8 = ehmn_kernels_neon_matmat_s8,
};

#endif
