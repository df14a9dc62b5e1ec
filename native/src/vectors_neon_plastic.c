/* Loops that learning alone has, for aarch64: the steps of rows of weights, and what leads to them. */
#include "vectors_neon.h"

#if defined(EHMN_NEON)

#include "kernels_tables.h"
#include "vectors_neon_add.h"

#include <stddef.h>

/* A row of weights that is to be stepped: of those that go against the direction, rate and place are complements, which
 * turns the differences of places around. */
typedef struct {
    int8_t *w;
    uint32_t rate;
    uint32_t at;
} row_steps;

static inline row_steps steps_of(int8_t *w, int32_t rate, uint32_t at)
{
    row_steps row = {w, (uint32_t)rate, at ^ (uint32_t)(rate >> 31)};
    return row;
}

/* The last weights of a row of n, less than sixteen. */
static void step_rest(row_steps row, const uint32_t *edge, const int8_t *sign, uint32_t n)
{
    int8_t *w = row.w + (n & ~15u);
    uint32_t last = (row.at + (n >= 16u ? row.rate * edge[-1] : 0u)) >> 24;
    for (uint32_t i = 0; i < (n & 15u); i++) {
        uint32_t now = (row.at + row.rate * edge[i]) >> 24;
        int32_t steps = (int8_t)(now - last);
        w[i] = (int8_t)ehmn_clamp(w[i] + (sign[i] < 0 ? -steps : steps), -127, 127);
        last = now;
    }
}

/* Sixteen weights w: the upper bytes of their places on the line, less those of the weights before, of which the last
 * is in `before`, and then the last of these. An addition that keeps upper halves brings what is added and the first half
 * of the way to the bytes. `way`: 1 or -1. */
static inline uint8x16_t step_some(int8_t *w, uint32x4x4_t edge, int8x16_t way, uint32x4_t rate, uint32x4_t at,
                                   uint8x16_t before)
{
    uint16x8_t low = vaddhn_high_u32(vaddhn_u32(vmulq_u32(edge.val[0], rate), at), vmulq_u32(edge.val[1], rate), at);
    uint16x8_t high = vaddhn_high_u32(vaddhn_u32(vmulq_u32(edge.val[2], rate), at), vmulq_u32(edge.val[3], rate), at);
    uint8x16_t now = vuzp2q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    int8x16_t steps = vreinterpretq_s8_u8(vsubq_u8(now, vextq_u8(before, now, 15)));
    vst1q_s8(w, vmaxq_s8(vqaddq_s8(vld1q_s8(w), vmulq_s8(steps, way)), vdupq_n_s8(-127)));
    return now;
}

/* Sixteen weights from `j` on of `count` rows, 1 or 4. */
static inline __attribute__((always_inline)) void step_block(int8_t *const *w, uint32_t count, size_t j,
                                                             const uint32_t *edge, const int8_t *sign,
                                                             const uint32x4_t *rate, const uint32x4_t *at,
                                                             const uint8x16_t *before, uint8x16_t *now)
{
    uint32x4x4_t e = vld1q_u32_x4(edge + j);
    int8x16_t way = vorrq_s8(vld1q_s8(sign + j), vdupq_n_s8(1));
    now[0] = step_some(w[0] + j, e, way, rate[0], at[0], before[0]);
    if (count > 1u) {
        now[1] = step_some(w[1] + j, e, way, rate[1], at[1], before[1]);
        now[2] = step_some(w[2] + j, e, way, rate[2], at[2], before[2]);
        now[3] = step_some(w[3] + j, e, way, rate[3], at[3], before[3]);
    }
}

static inline __attribute__((always_inline)) void step_rows(const row_steps *row, uint32_t count, const uint32_t *edge,
                                                            const int8_t *sign, uint32_t n)
{
    uint32x4_t rate[4], at[4];
    uint8x16_t before[4], now[4];
    size_t j = 0;
    for (uint32_t k = 0; k < count; k++) {
        rate[k] = vdupq_n_u32(row[k].rate);
        at[k] = vdupq_n_u32(row[k].at);
        before[k] = vdupq_n_u8((uint8_t)(row[k].at >> 24));
    }
    int8_t *const w[4] = {row[0].w, row[count > 1u].w, row[count > 1u ? 2 : 0].w, row[count > 1u ? 3 : 0].w};
    if (n & 16u) {
        step_block(w, count, j, edge, sign, rate, at, before, before);
        j += 16u;
    }
    for (; j + 32u <= n; j += 32u) {
        step_block(w, count, j, edge, sign, rate, at, before, now);
        step_block(w, count, j + 16u, edge, sign, rate, at, now, before);
    }
    for (uint32_t k = 0; j < n && k < count; k++) {
        step_rest(row[k], edge + j, sign + j, n);
    }
}

void ehmn_kernels_neon_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                                uint32_t rate, uint32_t at)
{
    row_steps row = {w, flip ? 0u - rate : rate, at ^ (uint32_t)flip};
    step_rows(&row, 1, edge, sign, n);
}

static void step_four(const row_steps *row, const ehmn_direction *along)
{
    step_rows(row, 4, along->edge, along->sign, along->n);
}

/* Of sixteen values, bits 4 i where v[i] is not zero; of the last ones, those that are there. */
static inline uint64_t which_count(const int32_t *v, uint32_t n)
{
    uint64_t bits = 0;
    if (n >= 16u) {
        int32x4x4_t a = vld1q_s32_x4(v);
        uint32x4_t b[4];
        for (uint32_t k = 0; k < 4u; k++) {
            b[k] = vtstq_s32(a.val[k], a.val[k]);
        }
        uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(b[0]), vreinterpretq_u16_u32(b[1]));
        uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(b[2]), vreinterpretq_u16_u32(b[3]));
        uint8x16_t all = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
        uint8x8_t fours = vshrn_n_u16(vreinterpretq_u16_u8(all), 4);
        return vget_lane_u64(vreinterpret_u64_u8(fours), 0) & 0x1111111111111111u;
    }
    for (uint32_t i = 0; i < n; i++) {
        bits |= (uint64_t)(v[i] != 0) << 4u * i;
    }
    return bits;
}

/* Most rows are closed, none knows which: they are found by bits, not by branches. The others are stepped four at a time. */
uint32_t ehmn_neon_draw_rows(int8_t *w, const ehmn_direction *along, const int32_t *rates, uint32_t *passed)
{
    const uint32_t n = along->n, length = along->length, few = along->few;
    uint32_t from = *passed, writes = 0, count = 0;
    row_steps row[4];
    for (uint32_t first = 0; first < n; first += 16u) {
        for (uint64_t open = which_count(rates + first, n - first); open != 0; open &= open - 1u) {
            uint32_t r = first + (uint32_t)__builtin_ctzll(open) / 4u;
            uint64_t end = (uint64_t)ehmn_abs(rates[r]) * length + from;
            uint32_t some = (uint32_t)(end >> EHMN_EVENT_FRAC);
            int8_t *at = w + (size_t)r * n;
            writes += some;
            if (some > few) {
                row[count++] = steps_of(at, rates[r], from);
                if (count == 4u) {
                    step_four(row, along);
                    count = 0;
                }
            } else {
                ehmn_step_few(at, along, rates[r], from, some);
            }
            from = (uint32_t)end & ((1u << EHMN_EVENT_FRAC) - 1u);
        }
    }
    if (count > 0) {
        for (; count < 4u; count++) {
            row[count] = steps_of(row[0].w, 0, 0); /* which stays as it is */
        }
        step_four(row, along);
    }
    *passed = from;
    return writes;
}

uint32_t ehmn_length(const int8_t *w, uint32_t n)
{
    uint32x4_t sum = vdupq_n_u32(0);
    for (; n >= 16u; n -= 16u, w += 16) {
        sum = vpadalq_u16(sum, vpaddlq_u8(vreinterpretq_u8_s8(vabsq_s8(vld1q_s8(w)))));
    }
    uint32_t all = vaddvq_u32(sum);
    for (uint32_t i = 0; i < n; i++) {
        all += ehmn_abs(w[i]);
    }
    return all;
}

int64_t ehmn_neon_sum_products(const int32_t *v, const int32_t *w, uint32_t n, int32_t shift)
{
    const int64x2_t right = vdupq_n_s64(-shift);
    int64x2_t sum = vdupq_n_s64(0);
    for (; n >= 8u; n -= 8u, v += 8, w += 8) {
        for (uint32_t k = 0; k < 8u; k += 4u) {
            int32x4_t a = vld1q_s32(v + k), b = vld1q_s32(w + k);
            int64x2_t low = vrshlq_s64(vmull_s32(vget_low_s32(a), vget_low_s32(b)), right);
            int64x2_t high = vrshlq_s64(vmull_high_s32(a, b), right);
            sum = vpadalq_s32(sum, ehmn_neon_symmetric(vqmovn_high_s64(vqmovn_s64(low), high)));
        }
    }
    int64_t all = vaddvq_s64(sum);
    for (uint32_t i = 0; i < n; i++) {
        all += ehmn_mul(v[i], w[i], shift);
    }
    return all;
}

uint64_t ehmn_limit(int32_t *v, uint32_t n, int32_t most)
{
    const int32x4_t high = vdupq_n_s32(most), low = vdupq_n_s32(-most);
    uint64x2_t sum = vdupq_n_u64(0);
    for (; n >= 16u; n -= 16u, v += 16) {
        int32x4x4_t a = vld1q_s32_x4(v);
        for (uint32_t k = 0; k < 4u; k++) {
            a.val[k] = vmaxq_s32(vminq_s32(a.val[k], high), low);
            sum = vpadalq_u32(sum, vreinterpretq_u32_s32(vabsq_s32(a.val[k])));
        }
        vst1q_s32_x4(v, a);
    }
    uint64_t all = vaddvq_u64(sum);
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_clamp(v[i], -most, most);
        all += ehmn_abs(v[i]);
    }
    return all;
}

void ehmn_drop_below(int32_t *v, uint32_t n, uint32_t least)
{
    const uint32x4_t by = vdupq_n_u32(least);
    for (; n >= 16u; n -= 16u, v += 16) {
        int32x4x4_t a = vld1q_s32_x4(v);
        for (uint32_t k = 0; k < 4u; k++) {
            uint32x4_t stays = vcgeq_u32(vreinterpretq_u32_s32(vabsq_s32(a.val[k])), by);
            a.val[k] = vandq_s32(a.val[k], vreinterpretq_s32_u32(stays));
        }
        vst1q_s32_x4(v, a);
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_abs(v[i]) < least ? 0 : v[i];
    }
}

/* round(v (2^15 - q) / 2^15) = v + round(2 v (-2^16 q) / 2^32), q the upper half of the doubled square: v[8] of z[8]. */
static inline int32x4x2_t times_slope(const int32_t *v, const int16_t *z)
{
    int16x8_t a = vld1q_s16(z), less = vnegq_s16(vqdmulhq_s16(a, a));
    int32x4x2_t b = {{vld1q_s32(v), vld1q_s32(v + 4)}};
    b.val[0] = vaddq_s32(b.val[0], vqrdmulhq_s32(b.val[0], vshll_n_s16(vget_low_s16(less), 16)));
    b.val[1] = vaddq_s32(b.val[1], vqrdmulhq_s32(b.val[1], vshll_high_n_s16(less, 16)));
    return b;
}

void ehmn_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out)
{
    for (; n >= 8u; n -= 8u, v += 8, z += 8, out += 8) {
        int32x4x2_t b = times_slope(v, z);
        vst1q_s32(out, b.val[0]);
        vst1q_s32(out + 4, b.val[1]);
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_fit((int64_t)v[i] * (32768 - (z[i] * z[i] >> 15)), 15);
    }
}

/* round(2 (2^left v) (2^right rate) / 2^32), left only what right has no room for: 2^right rate is then 2^30 or more, and
 * where v does not fit, all that comes out is beyond what is allowed. */
uint64_t ehmn_neon_make_rates(const int32_t *v, const int16_t *z, uint32_t n, int32_t rate, int32_t shift, int32_t most,
                              int32_t *rates)
{
    int32_t spare = ehmn_neon_spare_bits((uint32_t)rate), up = 31 - shift, right = up < spare ? up : spare;
    const int32x4_t factor = vdupq_n_s32(rate * (1 << right)), left = vdupq_n_s32(up - right);
    const int32x4_t high = vdupq_n_s32(most), low = vdupq_n_s32(-most), zero = vdupq_n_s32(0);
    int32x4_t sum = zero, also = zero;
    for (; n >= 8u; n -= 8u, v += 8, z += 8, rates += 8) {
        int32x4x2_t a = times_slope(v, z);
        a.val[0] = vmaxq_s32(vminq_s32(vqrdmulhq_s32(vqshlq_s32(a.val[0], left), factor), high), low);
        a.val[1] = vmaxq_s32(vminq_s32(vqrdmulhq_s32(vqshlq_s32(a.val[1], left), factor), high), low);
        sum = vabaq_s32(sum, a.val[0], zero);
        also = vabaq_s32(also, a.val[1], zero);
        vst1q_s32(rates, a.val[0]);
        vst1q_s32(rates + 4, a.val[1]);
    }
    uint64_t all = vaddlvq_u32(vreinterpretq_u32_s32(vaddq_s32(sum, also)));
    for (uint32_t i = 0; i < n; i++) {
        int32_t sloped = ehmn_round_fit((int64_t)v[i] * (32768 - (z[i] * z[i] >> 15)), 15);
        rates[i] = ehmn_clamp(ehmn_mul(sloped, rate, shift), -most, most);
        all += ehmn_abs(rates[i]);
    }
    return all;
}

void ehmn_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    int32_t spare = ehmn_neon_spare_bits((uint32_t)scale), beyond = shift + spare + 16 - 31;
    const int32x4_t scales = vdupq_n_s32((int32_t)((uint32_t)scale << spare)), down = vdupq_n_s32(-beyond);
    for (; beyond >= 1 && n >= 8u; n -= 8u, v += 8, w += 8) {
        ehmn_neon_add_scaled(v, vmulq_n_s16(vmovl_s8(vld1_s8(w)), (int16_t)factor), scales, down);
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_add(v[i], ehmn_round_rarely((int64_t)(w[i] * factor) * scale, shift));
    }
}

void ehmn_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    ehmn_row row;
    if (!ehmn_neon_make_row(&row, w, factor, scale, shift)) {
        ehmn_add_weights(v, w, n, factor, scale, shift);
        return;
    }
    const int16x8_t left = vdupq_n_s16((int16_t)row.left);
    const int32x4_t right = vdupq_n_s32(row.right);
    for (; n >= 16u; n -= 16u, v += 16, w += 16) {
        int32x4x4_t sum = vld1q_s32_x4(v);
        ehmn_neon_add_sixteen(sum.val, w, left, right);
        vst1q_s32_x4(v, sum);
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] += ehmn_round_rarely((int64_t)(w[i] * factor) * scale, shift);
    }
}

void ehmn_neon_sum_rows(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count)
{
    ehmn_neon_sum_all_rows(v, n, rows, count);
}

/* sums[k] = p[0] + ... + p[k] of sixteen, four in each register. */
static inline void sum_up(const uint32x4_t *p, uint32x4_t *sums)
{
    const uint32x4_t zero = vdupq_n_u32(0);
    for (uint32_t k = 0; k < 4u; k++) {
        uint32x4_t sum = vaddq_u32(p[k], vextq_u32(zero, p[k], 3));
        sums[k] = vaddq_u32(sum, vextq_u32(zero, sum, 2));
    }
    sums[1] = vaddq_u32(sums[1], vdupq_laneq_u32(sums[0], 3));
    sums[2] = vaddq_u32(sums[2], vdupq_laneq_u32(sums[1], 3));
    sums[3] = vaddq_u32(sums[3], vdupq_laneq_u32(sums[2], 3));
}

/* How many of sixteen are at most `v`. */
static inline uint32_t count_up_to(const uint32x4_t *sums, uint32_t v)
{
    const uint32x4_t most = vdupq_n_u32(v);
    uint32x4_t low = vaddq_u32(vcleq_u32(sums[0], most), vcleq_u32(sums[1], most));
    uint32x4_t high = vaddq_u32(vcleq_u32(sums[2], most), vcleq_u32(sums[3], most));
    return 0u - vaddvq_u32(vaddq_u32(low, high));
}

/* Probabilities of sixteen tokens, of which `left` are there; the others have none. */
static inline void probabilities(const int16_t *logits, uint32_t left, int32_t max, uint32x4_t *p)
{
    int16_t some[16];
    int16x8_t most = vdupq_n_s16((int16_t)max);
    if (left < 16u) {
        for (uint32_t i = 0; i < 16u; i++) {
            some[i] = (int16_t)(i < left && logits[i] - max > INT16_MIN ? logits[i] - max : INT16_MIN);
        }
        logits = some;
        most = vdupq_n_s16(0);
    }
    const int16x8_t y[2] = {vqsubq_s16(vld1q_s16(logits), most), vqsubq_s16(vld1q_s16(logits + 8), most)};
    ehmn_neon_exp2(y, 1, p);
}

void ehmn_neon_find_quantiles(const int16_t *logits, uint32_t first, uint32_t end, int32_t max, uint64_t rest,
                              ehmn_quantiles *q)
{
    uint64_t ahead = q->ahead;
    for (uint32_t k = first; ahead < rest && q->found < q->n; k += 16u) {
        uint32x4_t p[4], sums[4];
        probabilities(logits + k, end - k, max, p);
        uint32_t sum = vaddvq_u32(vaddq_u32(vaddq_u32(p[0], p[1]), vaddq_u32(p[2], p[3])));
        if (ahead < sum) {
            sum_up(p, sums);
            for (; ahead < sum && q->found < q->n; ahead += q->step) {
                q->tokens[q->found++] = k + count_up_to(sums, (uint32_t)ahead);
            }
        }
        ahead -= sum;
        rest -= sum;
    }
    q->ahead = ahead - rest;
}

#endif
