/* Loops that learning alone has, for aarch64: what leads to the steps of vectors_neon_steps.c. */
#include "vectors_neon.h"

#if defined(EHMN_NEON)

#include "kernels_tables.h"
#include "random.h"
#include "vectors_neon_add.h"

#include <stddef.h>

/* Bit k: v[k] is above zero, k below 32. */
static inline uint32_t signs_of(const int32_t *v)
{
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bits[2];
    for (uint32_t k = 0; k < 2u; k++, v += 16) {
        uint32x4_t a = vcgtzq_s32(vld1q_s32(v)), b = vcgtzq_s32(vld1q_s32(v + 4));
        uint32x4_t c = vcgtzq_s32(vld1q_s32(v + 8)), d = vcgtzq_s32(vld1q_s32(v + 12));
        uint8x16_t low = vreinterpretq_u8_u16(vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b)));
        uint8x16_t high = vreinterpretq_u8_u16(vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d)));
        bits[k] = vandq_u8(vuzp1q_u8(low, high), vld1q_u8(places));
    }
    uint8x16_t all = vpaddq_u8(bits[0], bits[1]);
    all = vpaddq_u8(all, all);
    return vgetq_lane_u32(vreinterpretq_u32_u8(vpaddq_u8(all, all)), 0);
}

void ehmn_signs(const int32_t *v, uint32_t n, uint32_t *bits)
{
    for (; n >= 32u; n -= 32u, v += 32) {
        *bits++ = signs_of(v);
    }
    if (n > 0) {
        int32_t some[32] = {0};
        *bits = signs_of(memcpy(some, v, 4u * (size_t)n));
    }
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

int64_t ehmn_sum_products(const int32_t *v, const int32_t *w, uint32_t n, int32_t shift,
                          void (*scale)(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift,
                                        int32_t *out),
                          int32_t *room)
{
    (void)scale;
    (void)room;
    const int64x2_t right = vdupq_n_s64(-shift);
    int64x2_t sum = vdupq_n_s64(0);
    for (; shift >= 1 && shift <= 62 && n >= 8u; n -= 8u, v += 8, w += 8) {
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

/* round(v (2^15 - q) / 2^15) = v + round(2 v (-2^16 q) / 2^32), q the upper half of the doubled square. */
void ehmn_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out)
{
    for (; n >= 8u; n -= 8u, v += 8, z += 8, out += 8) {
        int16x8_t a = vld1q_s16(z), less = vnegq_s16(vqdmulhq_s16(a, a));
        int32x4_t b = vld1q_s32(v), c = vld1q_s32(v + 4);
        vst1q_s32(out, vaddq_s32(b, vqrdmulhq_s32(b, vshll_n_s16(vget_low_s16(less), 16))));
        vst1q_s32(out + 4, vaddq_s32(c, vqrdmulhq_s32(c, vshll_high_n_s16(less, 16))));
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_fit((int64_t)v[i] * (32768 - (z[i] * z[i] >> 15)), 15);
    }
}

/* round(2 (2^left v) (2^right factor) / 2^32), left only what right has no room for: 2^right factor is then 2^30 or
 * more, and where v does not fit, all that comes out is beyond what is allowed. */
uint64_t ehmn_scale_within(int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t most)
{
    if (factor < 0 || shift > 31 || -shift > ehmn_neon_spare_bits((uint32_t)factor)) {
        ehmn_scale_all(v, n, factor, shift, v);
        return ehmn_limit(v, n, most);
    }
    int32_t spare = ehmn_neon_spare_bits((uint32_t)factor), up = 31 - shift, right = up < spare ? up : spare;
    const int32x4_t factors = vdupq_n_s32(factor * (1 << right)), left = vdupq_n_s32(up - right);
    const int32x4_t high = vdupq_n_s32(most), low = vdupq_n_s32(-most), zero = vdupq_n_s32(0);
    int32x4_t sum = zero, also = zero;
    for (; n >= 8u; n -= 8u, v += 8) {
        int32x4_t a = vqrdmulhq_s32(vqshlq_s32(vld1q_s32(v), left), factors);
        int32x4_t b = vqrdmulhq_s32(vqshlq_s32(vld1q_s32(v + 4), left), factors);
        a = vmaxq_s32(vminq_s32(a, high), low);
        b = vmaxq_s32(vminq_s32(b, high), low);
        sum = vabaq_s32(sum, a, zero);
        also = vabaq_s32(also, b, zero);
        vst1q_s32(v, a);
        vst1q_s32(v + 4, b);
    }
    uint64_t all = vaddlvq_u32(vreinterpretq_u32_s32(vaddq_s32(sum, also)));
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_clamp(ehmn_mul(v[i], factor, shift), -most, most);
        all += ehmn_abs(v[i]);
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

/* One row after the other. */
static void add_each(int32_t *v, const ehmn_rows *of, uint32_t token, uint32_t many, const uint32_t *drawn, uint32_t n)
{
    memset(v, 0, 4u * (size_t)of->n);
    ehmn_add_weights(v, of->w + (size_t)token * of->n, of->n, (int32_t)many, of->scale[token], of->shift);
    for (const uint32_t *end = drawn + n; drawn < end; drawn++) {
        uint32_t row = ehmn_drawn_token(*drawn);
        int32_t factor = -ehmn_drawn_times(*drawn);
        ehmn_add_weights(v, of->w + (size_t)row * of->n, of->n, factor, of->scale[row], of->shift);
    }
}

/* All at once, unless something could saturate or has too many fractional bits. */
void ehmn_sum_rows(int32_t *v, const ehmn_rows *of, uint32_t token, uint32_t many, const uint32_t *drawn, uint32_t n)
{
    ehmn_row rows[EHMN_MAX_NEGATIVES + 1u];
    int32_t shift = of->shift, within = shift > 0;
    uint64_t most = (uint64_t)many * (uint32_t)of->scale[token]; /* before the shift, of weights of 1 */
    within &= ehmn_neon_make_row(rows, of->w + (size_t)token * of->n, (int32_t)many, of->scale[token], shift);
    for (uint32_t s = 0; s < n; s++) {
        uint32_t row = ehmn_drawn_token(drawn[s]);
        int32_t times = ehmn_drawn_times(drawn[s]), scale = of->scale[row];
        most += (uint64_t)(uint32_t)times * (uint32_t)scale;
        within &= ehmn_neon_make_row(rows + 1 + s, of->w + (size_t)row * of->n, -times, scale, shift);
    }
    if (within && 127u * most >> shift < 1u << 30) {
        (of->sum_rows != NULL ? of->sum_rows : ehmn_neon_sum_rows)(v, of->n, rows, n + 1u);
    } else {
        add_each(v, of, token, many, drawn, n);
    }
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

/* The last logits, fewer than sixteen. Those after them change nothing: no quantile lies there. */
static __attribute__((noinline)) const int16_t *fill_up(const int16_t *logits, uint32_t n, int16_t *last)
{
    for (uint32_t i = 0; i < 16u; i++) {
        last[i] = i < n ? logits[i] : INT16_MIN;
    }
    return last;
}

/* As in plastic_loops.c, sixteen tokens at a time. */
uint32_t ehmn_find_quantiles(const ehmn_probabilities *of, uint64_t ahead, uint64_t step, uint32_t n, uint32_t *drawn)
{
    const int16x8_t most = vdupq_n_s16((int16_t)of->max);
    const uint32_t *sum = of->sums;
    const uint32_t whole = of->n & ~15u;
    uint32_t found = UINT32_MAX, entry = UINT32_MAX; /* of which there is none yet */
    int16_t last[16];
    uint64_t rest = sum != NULL ? 0u : of->mass;
    uint32_t k = 0, next = 0;
    for (;;) {
        if (ahead >= rest) {
            for (ahead -= rest; ahead >= *sum; next += of->block) {
                ahead -= *sum++;
            }
            rest = *sum++;
            k = next;
            next += of->block;
        }
        uint32x4_t p[4], sums[4];
        const int16_t *logits = k < whole ? of->logits + k : fill_up(of->logits + k, of->n - k, last);
        const int16x8_t y[2] = {vqsubq_s16(vld1q_s16(logits), most), vqsubq_s16(vld1q_s16(logits + 8), most)};
        ehmn_neon_exp2(y, 1, p);
        uint32_t all = vaddvq_u32(vaddq_u32(vaddq_u32(p[0], p[1]), vaddq_u32(p[2], p[3])));
        if (ahead < all) {
            sum_up(p, sums);
            do {
                uint32_t token = k + count_up_to(sums, (uint32_t)ahead);
                int same = token == ehmn_drawn_token(entry);
                found += !same;
                entry = (same ? entry : token) + EHMN_DRAWN_ONCE;
                drawn[found] = entry;
                ahead += step;
                if (--n == 0) {
                    return found + 1u;
                }
            } while (ahead < all);
        }
        ahead -= all;
        rest -= all;
        k += 16;
    }
}

/* The upper words of products. */
static inline uint32x4_t upper(uint32x4_t v, uint32x4_t factor)
{
    uint64x2_t low = vmull_u32(vget_low_u32(v), vget_low_u32(factor)), high = vmull_high_u32(v, factor);
    return vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high));
}

/* A stream in each lane. */
void ehmn_random_firsts(uint64_t seed, uint32_t stream, uint64_t counter, uint32_t out[4])
{
    static const uint32_t lanes[4] = {0, 1, 2, 3};
    const uint32x4_t by_a = vdupq_n_u32(EHMN_MULTIPLIER_A), by_b = vdupq_n_u32(EHMN_MULTIPLIER_B);
    const uint32x4_t step0 = vdupq_n_u32(EHMN_KEY_STEP_0), step1 = vdupq_n_u32(EHMN_KEY_STEP_1);
    uint32x4_t key0 = vdupq_n_u32((uint32_t)seed), key1 = vdupq_n_u32((uint32_t)(seed >> 32));
    uint32x4_t w0 = vdupq_n_u32((uint32_t)counter), w1 = vdupq_n_u32((uint32_t)(counter >> 32));
    uint32x4_t w2 = vaddq_u32(vdupq_n_u32(stream), vld1q_u32(lanes)), w3 = vdupq_n_u32(0);
    for (int round = 0; round < 10; round++) {
        uint32x4_t a = vmulq_u32(w0, by_a), b = vmulq_u32(w2, by_b), above = upper(w0, by_a);
        w0 = veorq_u32(veorq_u32(upper(w2, by_b), w1), key0);
        w2 = veorq_u32(veorq_u32(above, w3), key1);
        w1 = b;
        w3 = a;
        __asm__("" : "+w"(key0), "+w"(key1)); /* no constants of all rounds */
        key0 = vaddq_u32(key0, step0);
        key1 = vaddq_u32(key1, step1);
    }
    vst1q_u32(out, w0);
}

#endif
