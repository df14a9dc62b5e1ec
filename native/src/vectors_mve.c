/* Loops over vectors for Helium: see vectors_mve.h. A shift to the right with rounding is the rounding rule itself. */
#include "vectors_mve.h"

#if defined(EHMN_MVE)

#include "fixed.h"

/* Of every byte. */
#define COUNTS_OF_4(n) n, n + 1, n + 1, n + 2
#define COUNTS_OF_16(n) COUNTS_OF_4(n), COUNTS_OF_4(n + 1), COUNTS_OF_4(n + 1), COUNTS_OF_4(n + 2)
#define COUNTS_OF_64(n) COUNTS_OF_16(n), COUNTS_OF_16(n + 1), COUNTS_OF_16(n + 1), COUNTS_OF_16(n + 2)
const uint8_t ehmn_mve_bit_counts[256] = {COUNTS_OF_64(0), COUNTS_OF_64(1), COUNTS_OF_64(1), COUNTS_OF_64(2)};

/* ehmn_add. */
static inline int32x4_t add(int32x4_t a, int32x4_t b)
{
    return vmaxq_s32(vqaddq_s32(a, b), vdupq_n_s32(-INT32_MAX));
}

uint32_t ehmn_mve_max_abs(const int32_t *v, uint32_t n)
{
    uint32_t max = 0;
    for (uint32_t left = n / 4u; left > 0; left--, v += 4) {
        max = vmaxavq_s32(max, vld1q_s32(v));
    }
    return n % 4u ? vmaxavq_p_s32(max, vld1q_s32(v), vctp32q(n % 4u)) : max;
}

void ehmn_mve_shift_into16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    for (uint32_t left = n / 8u; left > 0; left--, v += 8, out += 8) {
        int32x4x2_t two = vld2q_s32(v); /* even ones, odd ones */
        int16x8_t even = vreinterpretq_s16_s32(vrshlq_n_s32(two.val[0], -shift));
        vst1q_s16(out, vmovntq_s32(even, vrshlq_n_s32(two.val[1], -shift)));
    }
    for (uint32_t i = 0; i < n % 8u; i++) {
        out[i] = (int16_t)ehmn_round_rarely(v[i], shift);
    }
}

void ehmn_mve_shift_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    for (uint32_t left = n / 16u; left > 0; left--, v += 16, out += 16) {
        int32x4x4_t four = vld4q_s32(v);
        int16x8_t even = vreinterpretq_s16_s32(vrshlq_n_s32(four.val[0], -shift));
        int16x8_t odd = vreinterpretq_s16_s32(vrshlq_n_s32(four.val[1], -shift));
        even = vmovntq_s32(even, vrshlq_n_s32(four.val[2], -shift));
        odd = vmovntq_s32(odd, vrshlq_n_s32(four.val[3], -shift));
        vst1q_s8(out, vmovntq_s16(vreinterpretq_s8_s16(even), odd));
    }
    for (uint32_t i = 0; i < n % 16u; i++) {
        out[i] = (int8_t)ehmn_round_rarely(v[i], shift);
    }
}

int32_t ehmn_narrow(const int16_t *v, uint32_t n, int8_t *out)
{
    uint32_t max = 0;
    for (uint32_t left = n, i = 0; left > 0; i += 8u) {
        uint32_t count = left < 8u ? left : 8u;
        max = vmaxavq_p_s16((uint16_t)max, vld1q_z_s16(v + i, vctp16q(count)), vctp16q(count));
        left -= count;
    }
    int32_t step = ehmn_step_of(max), reciprocal = EHMN_RECIPROCAL(step);
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, out += 4) {
        vstrbq_s32(out, vrshrq_n_s32(vmulq_n_s32(vldrhq_s32(v), reciprocal), EHMN_RECIPROCAL_FRAC));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        out[i] = (int8_t)((v[i] * reciprocal + EHMN_RECIPROCAL_HALF) >> EHMN_RECIPROCAL_FRAC);
    }
    return step;
}

void ehmn_multiply_all(int32_t *v, uint32_t n, int32_t factor)
{
    for (uint32_t left = n / 4u; left > 0; left--, v += 4) {
        vst1q_s32(v, vmulq_n_s32(vld1q_s32(v), factor));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        v[i] *= factor;
    }
}

uint64_t ehmn_mve_square(const int32_t *v, uint32_t n, int32_t shift, int32_t *out)
{
    int64_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, out += 4) {
        int32x4_t q = vrshlq_n_s32(vld1q_s32(v), -shift);
        sum = vmlaldavaq_s32(sum, q, q);
        vst1q_s32(out, vshlq_n_s32(q, 16));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        int32_t q = ehmn_round_rarely(v[i], shift);
        sum += (int64_t)q * q;
        out[i] = q * 65536;
    }
    return (uint64_t)sum;
}

void ehmn_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, more += 4) {
        vst1q_s32(v, add(vld1q_s32(v), vld1q_s32(more)));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        v[i] = ehmn_add(v[i], more[i]);
    }
}

void ehmn_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out)
{
    const int32x4_t least = vdupq_n_s32(-INT32_MAX);
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, less += 4, out += 4) {
        vst1q_s32(out, vmaxq_s32(vqsubq_s32(vld1q_s32(v), vld1q_s32(less)), least));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        out[i] = ehmn_subtract(v[i], less[i]);
    }
}

static int32_t spare_bits(uint32_t magnitude)
{
    return __builtin_clz(magnitude | 1u) - 1; /* by which it can be shifted to the left within 31 */
}

void ehmn_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    int32_t spare = spare_bits(ehmn_abs(factor)); /* bits: a larger factor takes less of a product */
    uint32_t left = shift >= 2 && shift + spare <= 62 ? n / 4u : 0u;
    n -= 4u * left;
    if (shift + spare > 32) { /* the upper halves of the products are enough */
        const int32x4_t factors = vdupq_n_s32((int32_t)((uint32_t)factor << spare));
        for (; left > 0; left--, v += 4, out += 4) {
            vst1q_s32(out, vrshlq_n_s32(vmulhq_s32(vld1q_s32(v), factors), 32 - shift - spare));
        }
    }
    for (; left > 0; left--, v += 4, out += 4) {
        vst1q_s32(out, ehmn_mve_multiply_round(vld1q_s32(v), vdupq_n_s32(factor), shift));
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_rarely((int64_t)v[i] * factor, shift);
    }
}

/* Of round(a b / 2^shift): the bits by which b is shifted up, as many as it has spare; those that are left for a, so
 * that the rounded upper half of the doubled product is the result. */
static int32_t lift_of(int32_t shift, uint32_t b, int32_t *left)
{
    int32_t lift = 31 - shift, spare = spare_bits(b), of_b = lift < spare ? lift : spare;
    *left = lift - of_b;
    return of_b;
}

void ehmn_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    int32_t lift, of_scale = lift_of(shift, (uint32_t)scale, &lift);
    if (shift <= 31 && lift <= 17) { /* no product leaves 31 bits: it has 13 before it is shifted */
        int32_t factors = factor * (1 << lift);
        for (uint32_t left = n / 4u; left > 0; left--, v += 4, w += 4) {
            int32x4_t a = vmulq_n_s32(vldrbq_s32(w), factors);
            vst1q_s32(v, vqrdmlahq_n_s32(vld1q_s32(v), a, scale << of_scale));
        }
        n %= 4u;
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_add(v[i], ehmn_round_rarely((int64_t)(w[i] * factor) * scale, shift));
    }
}

/* Those saturate at -2^31. */
void ehmn_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    ehmn_add_weights_within(v, w, n, factor, scale, shift);
    for (uint32_t left = n / 4u; left > 0; left--, v += 4) {
        vst1q_s32(v, vmaxq_s32(vld1q_s32(v), vdupq_n_s32(-INT32_MAX)));
    }
}

void ehmn_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain)
{
    int32_t lift, up = lift_of(15, (uint32_t)gain, &lift);
    for (uint32_t left = lift < 15 ? n / 4u : 0u; left > 0; left--, v += 4, z += 4, n -= 4u) {
        int32x4_t sum = vqrdmlahq_n_s32(vld1q_s32(v), vmulq_n_s32(vldrhq_s32(z), 1 << lift), gain << up);
        vst1q_s32(v, vmaxq_s32(sum, vdupq_n_s32(-INT32_MAX)));
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_add(v[i], ehmn_round_rarely((int64_t)z[i] * gain, 15));
    }
}

void ehmn_fit_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    const int16x8_t least = vdupq_n_s16(-INT16_MAX);
    for (uint32_t left = n / 8u; left > 0; left--, v += 8, out += 8) {
        int32x4x2_t two = vld2q_s32(v);
        int16x8_t even = vqmovnbq_s32(least, vqrshlq_n_s32(two.val[0], -shift));
        vst1q_s16(out, vmaxq_s16(vqmovntq_s32(even, vqrshlq_n_s32(two.val[1], -shift)), least));
    }
    for (uint32_t i = 0; i < n % 8u; i++) {
        out[i] = ehmn_sat16(ehmn_round_shift32(v[i], shift));
    }
}

int32_t ehmn_largest(const int16_t *v, uint32_t n)
{
    int16_t max = v[0];
    for (uint32_t left = n / 8u; left > 0; left--, v += 8) {
        max = vmaxvq_s16(max, vld1q_s16(v));
    }
    for (uint32_t i = 0; i < n % 8u; i++) {
        max = v[i] > max ? v[i] : max;
    }
    return max;
}

/* Eight at a time, as long as there is enough for all of them. */
EHMN_SMALL uint32_t ehmn_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)
{
    uint64_t left = *ahead;
    uint32_t i = 0, p[8];
    while (i < n) {
        uint32_t count = n - i;
        uint32x4x2_t two;
        int16x8_t some = count >= 8u ? vld1q_s16(logits + i) : vld1q_z_s16(logits + i, vctp16q(count));
        two.val[0] = ehmn_mve_exp2(some, max, &two.val[1]);
        uint32_t sum = vaddvaq_u32(vaddvq_u32(two.val[0]), two.val[1]);
        if (count >= 8u && left >= sum) {
            left -= sum;
            i += 8u;
            continue;
        }
        vst2q_u32(p, two);
        uint32_t most = left > UINT32_MAX ? UINT32_MAX : (uint32_t)left, rest = most;
        const uint32_t *at = p, *end = p + (count < 8u ? count : 8u);
        for (; at < end && rest >= *at; at++) {
            rest -= *at;
        }
        left -= most - rest;
        i += (uint32_t)(at - p);
        break;
    }
    *ahead = left;
    return i;
}

int64_t ehmn_dot_weights(const int8_t *w, const int32_t *v, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, w += 4, v += 4) {
        sum = vmlaldavaq_s32(sum, vldrbq_s32(w), vld1q_s32(v));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        sum += (int64_t)w[i] * v[i];
    }
    return sum;
}

int64_t ehmn_dot_outputs(const int16_t *z, const int32_t *v, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, z += 4, v += 4) {
        sum = vmlaldavaq_s32(sum, vldrhq_s32(z), vld1q_s32(v));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        sum += (int64_t)z[i] * v[i];
    }
    return sum;
}

int64_t ehmn_sum(const int32_t *v, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, v += 4) {
        sum = vaddlvaq_s32(sum, vld1q_s32(v));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        sum += v[i];
    }
    return sum;
}

uint64_t ehmn_limit(int32_t *v, uint32_t n, int32_t most)
{
    uint64_t sum = 0;
    for (uint32_t left = n / 4u; left > 0; left--, v += 4) {
        int32x4_t a = vmaxq_s32(vminq_s32(vld1q_s32(v), vdupq_n_s32(most)), vdupq_n_s32(-most));
        sum = vaddlvaq_u32(sum, vreinterpretq_u32_s32(vabsq_s32(a)));
        vst1q_s32(v, a);
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        v[i] = ehmn_clamp(v[i], -most, most);
        sum += ehmn_abs(v[i]);
    }
    return sum;
}

void ehmn_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out)
{
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, z += 4, out += 4) {
        int32x4_t a = vld1q_s32(v), y = vldrhq_s32(z);
        int32x4_t lacks = vmulq_n_s32(vshrq_n_s32(vmulq_s32(y, y), 15), -65536);
        vst1q_s32(out, vaddq_s32(a, vqrdmulhq_s32(a, lacks)));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        out[i] = ehmn_round_fit((int64_t)v[i] * (32768 - (z[i] * z[i] >> 15)), 15);
    }
}

/* tanh(x) = 2 sigmoid(2x) - 1 */
void ehmn_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z)
{
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, z += 4) {
        int32x4_t x = vqrshlq_n_s32(vld1q_s32(v), -shift);
        uint32x4_t magnitude = vqshlq_n_u32(vreinterpretq_u32_s32(vqabsq_s32(x)), 1);
        int32x4_t y = vsubq_n_s32(vreinterpretq_s32_u32(ehmn_mve_sigmoid_of(magnitude)), 32768);
        int32x4_t sign = vshrq_n_s32(x, 31);
        vstrhq_s32(z, vsubq_s32(veorq_s32(y, sign), sign));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        z[i] = (int16_t)ehmn_tanh(ehmn_round_shift32(v[i], shift));
    }
}

/* round(difference rate / 2^16) is the upper half of 2 difference (2^15 rate), rounded; a rate of
 * one has no such factor. */
void ehmn_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    const int32x4_t least = vdupq_n_s32(-INT32_MAX);
    for (uint32_t left = n / 4u; left > 0; left--, mean += 4, v += 4) {
        int32x4_t before = vld1q_s32(mean);
        int32x4_t difference = vmaxq_s32(vqsubq_s32(vld1q_s32(v), before), least);
        if (rate < 65536) {
            difference = vqrdmulhq_n_s32(difference, rate * 32768);
        }
        vst1q_s32(mean, add(before, difference));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        mean[i] = ehmn_follow_value(mean[i], v[i], rate);
    }
}

/* Sixteen at a time: a lane has sums of one to four values, each its own in one of four registers; the sum before each
 * lane is made in core registers. */
void ehmn_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign)
{
    uint32_t sum = 0, a, b, c, d;
    __asm__ volatile("wls lr, %[sixteens], 2f\n"
                     "1:\n"
                     "vldrb.8 q4, [%[v]], #16\n"
                     "vabs.s8 q5, q4\n"
                     "vsub.i8 q4, q4, %[one]\n"
                     "vshr.s8 q4, q4, #7\n"
                     "vstrb.8 q4, [%[sign]], #16\n"
                     "vshl.i16 q4, q5, #8\n"
                     "vadd.i8 q4, q4, q5\n" /* odd bytes: with the one before */
                     "vmovlt.u8 q5, q4\n"
                     "vmovlb.u8 q4, q4\n"
                     "vshl.i32 q6, q5, #16\n"
                     "vadd.i16 q4, q4, q6\n" /* sums of one and of three */
                     "vadd.i16 q5, q5, q6\n" /* of two and of four */
                     "vmovlt.u16 q3, q5\n"
                     "vmov %[a], %[c], q3[2], q3[0]\n" /* the lower lane to the first */
                     "vmov %[b], %[d], q3[3], q3[1]\n"
                     "add %[a], %[a], %[sum]\n"
                     "add %[b], %[b], %[a]\n"
                     "add %[c], %[c], %[b]\n"
                     "vmov q6[2], q6[0], %[sum], %[b]\n"
                     "vmov q6[3], q6[1], %[a], %[c]\n"
                     "add %[sum], %[c], %[d]\n"
                     "vmovlb.u16 q0, q4\n"
                     "vmovlb.u16 q1, q5\n"
                     "vmovlt.u16 q2, q4\n"
                     "vadd.i32 q0, q0, q6\n"
                     "vadd.i32 q1, q1, q6\n"
                     "vadd.i32 q2, q2, q6\n"
                     "vadd.i32 q3, q3, q6\n"
                     "vst40.32 {q0, q1, q2, q3}, [%[edge]]\n"
                     "vst41.32 {q0, q1, q2, q3}, [%[edge]]\n"
                     "vst42.32 {q0, q1, q2, q3}, [%[edge]]\n"
                     "vst43.32 {q0, q1, q2, q3}, [%[edge]]!\n"
                     "le lr, 1b\n"
                     "2:\n"
                     : [v] "+&r"(v), [edge] "+&r"(edge), [sign] "+&r"(sign), [sum] "+&r"(sum), [a] "=&r"(a),
                       [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d)
                     : [sixteens] "r"(n / 16u), [one] "r"(1)
                     : "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "memory");
    for (uint32_t i = 0; i < n % 16u; i++) {
        sum += ehmn_abs(v[i]);
        edge[i] = sum;
        sign[i] = (int8_t)((v[i] - 1) >> 8);
    }
}

void ehmn_mve_spread(const int8_t *v, uint32_t n, int8_t *out, uint32_t stride)
{
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), stride);
    for (uint32_t left = n / 4u; left > 0; left--, v += 4, out += 4u * stride) {
        vstrbq_scatter_offset_s32(out, at, vldrbq_s32(v));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        out[i * stride] = v[i];
    }
}

const int16_t *ehmn_mve_negate16(int32_t *weights, uint32_t n)
{
    int16_t *out = (int16_t *)(void *)weights, *end = out + (n & ~7u);
    const int32_t *in = weights;
    for (; out < end; in += 8, out += 8) {
        int32x4x2_t two = vld2q_s32(in);
        int16x8_t even = vreinterpretq_s16_s32(vnegq_s32(two.val[0]));
        vst1q_s16(out, vmovntq_s32(even, vnegq_s32(two.val[1])));
    }
    for (uint32_t i = 0; i < n % 8u; i++) {
        int32_t minus = -in[i];
        __builtin_memcpy(out + i, &minus, 2); /* the lower half */
    }
    return (const int16_t *)(const void *)weights;
}

/* (a c - b s) / 2^15 of numbers below 2^29, which come as high 2^15 + low: no sum of two products leaves 32 bits. */
static inline int32x4_t turn_part(int32x4_t high_c, int32x4_t high_s, int32x4_t low_c, int32x4_t low_s)
{
    return vaddq_s32(vsubq_s32(high_c, high_s), vrshrq_n_s32(vsubq_s32(low_c, low_s), 15));
}

uint32_t ehmn_rotate_some(const int16_t *turn, uint32_t half, int32_t *v)
{
    const int32x4_t low_bits = vdupq_n_s32(32767);
    if (ehmn_mve_max_abs(v, 2u * half) >= 1u << 29) {
        return 0;
    }
    for (uint32_t left = half / 4u; left > 0; left--, turn += 8, v += 4) {
        int16x8_t both = vld1q_s16(turn);
        int32x4_t c = vmovlbq_s16(both), s = vmovltq_s16(both);
        int32x4_t a = vld1q_s32(v), b = vld1q_s32(v + half);
        int32x4_t a_low = vandq_s32(a, low_bits), b_low = vandq_s32(b, low_bits);
        int32x4_t a_high = vshrq_n_s32(a, 15), b_high = vshrq_n_s32(b, 15), minus_s = vnegq_s32(s);
        vst1q_s32(v, turn_part(vmulq_s32(a_high, c), vmulq_s32(b_high, s), vmulq_s32(a_low, c), vmulq_s32(b_low, s)));
        vst1q_s32(v + half, turn_part(vmulq_s32(b_high, c), vmulq_s32(a_high, minus_s), vmulq_s32(b_low, c),
                                      vmulq_s32(a_low, minus_s)));
    }
    return half & ~3u;
}

int32_t ehmn_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to, int32_t *scores)
{
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), stride);
    const int32x4_t up = vdupq_n_s32(to - frac), least = vdupq_n_s32(-INT32_MAX);
    int32_t max = INT32_MIN;
    for (uint32_t left = n / 4u; left > 0; left--, scores += 4, key_frac += 4u * stride) {
        int32x4_t by = vsubq_s32(up, vldrbq_gather_offset_s32(key_frac, at));
        int32x4_t score = vmaxq_s32(vqrshlq_s32(vld1q_s32(scores), by), least);
        max = vmaxvq_s32(max, score);
        vst1q_s32(scores, score);
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        scores[i] = ehmn_round_shift(scores[i], frac + key_frac[i * stride] - to);
        max = scores[i] > max ? scores[i] : max;
    }
    return max;
}

int32_t ehmn_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    const uint16x8_t at8 = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)stride);
    const uint32x4_t at = vmulq_n_u32(vidupq_n_u32(0, 1), stride);
    const int8_t *frac = value_frac;
    int16_t small = INT8_MAX;
    for (uint32_t left = n / 8u; left > 0; left--, frac += 8u * stride) {
        small = vminvq_s16(small, vldrbq_gather_offset_s16(frac, at8));
    }
    int32_t least = small;
    for (uint32_t i = 0; i < n % 8u; i++) {
        least = frac[i * stride] < least ? frac[i * stride] : least;
    }
    const int32x4_t from = vdupq_n_s32(least);
    for (uint32_t left = n / 4u; left > 0; left--, weights += 4, value_frac += 4u * stride) {
        int32x4_t by = vsubq_s32(from, vldrbq_gather_offset_s32(value_frac, at));
        vst1q_s32(weights, vrshlq_s32(vld1q_s32(weights), by));
    }
    for (uint32_t i = 0; i < n % 4u; i++) {
        weights[i] = ehmn_round_shift(weights[i], value_frac[i * stride] - least);
    }
    return least;
}

#endif
