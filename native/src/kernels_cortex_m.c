/* Cortex-M, with the DSP extension and without: sums, weights and gates that no compiler makes of C as short. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_ARM_DSP) || defined(EHMN_THUMB)

/* round(v / 2^by) for 1..31: the last bit that is shifted out comes in again as a carry. */
static inline uint32_t round_right(uint32_t v, uint32_t by)
{
    __asm__("lsrs %0, %0, %1\n\tadc %0, %0, #0" : "+r"(v) : "r"(by) : "cc");
    return v;
}

/* round((high 2^32 + low) / 2^16), the lower half of it. */
static inline int32_t round_16(uint32_t low, int32_t high)
{
    int32_t out;
    __asm__("lsrs %0, %1, #16\n\tadc %0, %0, %2, lsl #16" : "=&r"(out) : "r"(low), "r"(high) : "cc");
    return out;
}

/* The least of v / 256 and 31, for v below 2^31. */
static inline uint32_t to_shift(uint32_t v)
{
    uint32_t out;
    __asm__("usat %0, #5, %1, asr #8" : "=r"(out) : "r"(v));
    return out;
}

/* ehmn_exp2_neg of what `beyond` exceeds 511 by: 2^-(x / 256) is a table's value, at least one, shifted right by a whole
 * number of bits, which is x / 256 rounded up, and one more because the table's value has a bit more. */
static inline uint32_t power(uint32_t beyond, uint32_t shift)
{
    uint32_t at, twice;
    __asm__("bic %0, %1, %2" : "=r"(at) : "r"(255), "r"(beyond));
    __asm__("add %0, %1, %2, lsl #10" : "=r"(twice) : "r"(32768u << 10), "r"((uint32_t)ehmn_exp2_table[at]));
    return round_right(twice, shift);
}

static inline uint32_t add_power(int32_t logit, uint32_t top, int64_t *weighted)
{
    uint32_t beyond = top - (uint32_t)logit;
    uint32_t p = power(beyond, to_shift(beyond));
    *weighted += (int64_t)(int32_t)p * logit;
    return p;
}

uint32_t ehmn_kernels_cortex_m_exp_sum(const int16_t *logits, uint32_t n, int32_t max, uint64_t *spread)
{
    const int16_t *end = logits + n;
    uint32_t sum = 0, top = (uint32_t)max + 511u;
    int64_t weighted = 0; /* by the logits */
    for (uint32_t rest = n & 3u; rest > 0; rest--) {
        sum += add_power(*logits++, top, &weighted);
    }
    while (logits < end) {
        sum += add_power(logits[0], top, &weighted);
        sum += add_power(logits[1], top, &weighted);
        sum += add_power(logits[2], top, &weighted);
        sum += add_power(logits[3], top, &weighted);
        logits += 4;
    }
    *spread += (uint64_t)((int64_t)sum * max - weighted);
    return sum;
}

static inline uint32_t soften_one(int32_t *score, uint32_t top)
{
    uint32_t beyond = top - (uint32_t)*score; /* may take all 32 bits */
    uint32_t weight = round_right(power(beyond, to_shift(beyond < 1u << 31 ? beyond : 1u << 30)), 9u);
    *score = (int32_t)weight;
    return weight;
}

uint32_t ehmn_kernels_cortex_m_soften(int32_t *scores, uint32_t n, int32_t max)
{
    int32_t *end = scores + n;
    uint32_t sum = 0, top = (uint32_t)max + 511u;
    if (max > INT32_MAX - 512) { /* what the scores are below it has no room for 511 more */
        return ehmn_kernels_rows_soften(scores, n, max);
    }
    for (uint32_t rest = n & 3u; rest > 0; rest--) {
        sum += soften_one(scores++, top);
    }
    while (scores < end) {
        sum += soften_one(scores, top);
        sum += soften_one(scores + 1, top);
        sum += soften_one(scores + 2, top);
        sum += soften_one(scores + 3, top);
        scores += 4;
    }
    return sum;
}

/* Of 16 fractional bits. Beyond 16 the sigmoid is what it is just below. */
static inline int32_t gate_one(int32_t v, int32_t up)
{
    uint32_t a;
    __asm__("usat %0, #20, %1" : "=r"(a) : "r"(ehmn_abs(v)));
    const uint16_t *at = ehmn_sigmoid_table + (a >> 11);
    uint32_t open = at[0] + (((uint32_t)(at[1] - at[0]) * (a & 2047u) + 1024u) >> 11);
    int64_t opened = (int64_t)v * (int32_t)(v < 0 ? 65536u - open : open);
    int64_t product = (int64_t)round_16((uint32_t)opened, (int32_t)(opened >> 32)) * up;
    int32_t high = (int32_t)(product >> 32);
    if ((uint32_t)high + (1u << 14) >= 1u << 15) { /* it may leave 32 bits */
        return ehmn_round_rarely(product, 16);
    }
    return round_16((uint32_t)product, high);
}

void ehmn_kernels_cortex_m_gate(const int32_t *v, int32_t *up, uint32_t n, int32_t frac)
{
    if (frac != 16) {
        ehmn_kernels_rows_gate(v, up, n, frac);
        return;
    }
    for (int32_t *end = up + n; up < end; up++) {
        *up = gate_one(*v++, *up);
    }
}

static inline int32_t fit_one(int32_t v, int32_t *max)
{
    int32_t logit;
    __asm__("ssat %0, #16, %1" : "=r"(logit) : "r"(v));
    logit = logit < -INT16_MAX ? -INT16_MAX : logit;
    *max = logit > *max ? logit : *max;
    return logit;
}

/* v[i] comes first within 2^24, which is beyond all that can matter, so that no sum overflows. */
int32_t ehmn_kernels_cortex_m_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                                  int16_t *out)
{
    if (bias == NULL) {
        for (int16_t *end = out + n; out < end; out++) {
            *out = (int16_t)fit_one(*v++, &max);
        }
        return max;
    }
    for (int16_t *end = out + n; out < end; out++) {
        int32_t within, added = (int32_t)(((int64_t)(*bias++ * 8192) * gain) >> 32); /* with one bit more */
        __asm__("ssat %0, #25, %1" : "=r"(within) : "r"(*v++));
        *out = (int16_t)fit_one(within + ((added + 1) >> 1), &max);
    }
    return max;
}

/* clang-format off */
#define PAIRS(v) \
    "and r9, %[pairs], " v ", lsr #1\n"         \
    "sub " v ", " v ", r9\n"
#define FOURS(u, v) \
    "and r9, %[fours], " u ", lsr #2\n"         \
    "and " u ", " u ", %[fours]\n"              \
    "and r10, %[fours], " v ", lsr #2\n"        \
    "and " v ", " v ", %[fours]\n"              \
    "add " u ", " u ", r9\n"                    \
    "add " v ", " v ", r10\n"                   \
    "add " u ", " u ", " v "\n"
/* clang-format on */

/* Four words at a time: counts of pairs of bits, then of fours, then of eights. Here a mask and a shift of what it masks
 * are one instruction. */
void ehmn_kernels_cortex_m_differences(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words,
                                       uint32_t *bits)
{
    if (words % 4u != 0) {
        ehmn_kernels_rows_differences(keys, n, key, words, bits);
        return;
    }
    for (uint32_t *last = bits + n; bits < last; bits++) {
        uint32_t sum = 0;
        const uint32_t *k = key, *end = keys + words;
        do {
            __asm__ volatile("ldmia %[keys]!, {r4, r5, r6, r8}\n"
                             "ldrd r9, r10, [%[k]], #8\n"
                             "eor r4, r4, r9\n"
                             "eor r5, r5, r10\n"
                             "ldrd r9, r10, [%[k]], #8\n"
                             "eor r6, r6, r9\n"
                             "eor r8, r8, r10\n"
                             PAIRS("r4") PAIRS("r5") PAIRS("r6") PAIRS("r8")
                             FOURS("r4", "r5") FOURS("r6", "r8")
                             "and r9, %[eights], r4, lsr #4\n"
                             "and r4, r4, %[eights]\n"
                             "and r10, %[eights], r6, lsr #4\n"
                             "and r6, r6, %[eights]\n"
                             "add r4, r4, r9\n"
                             "add r6, r6, r10\n"
                             "add r4, r4, r6\n"
                             "mul r4, r4, %[ones]\n"
                             "add %[sum], %[sum], r4, lsr #24\n"
                             : [keys] "+r"(keys), [k] "+r"(k), [sum] "+r"(sum)
                             : [pairs] "r"(0x55555555u), [fours] "r"(0x33333333u), [eights] "r"(0x0F0F0F0Fu),
                               [ones] "r"(0x01010101u)
                             : "r4", "r5", "r6", "r8", "r9", "r10", "memory");
        } while (keys < end);
        *bits = sum;
    }
}

/* A value times its factor, the upper half plus `half`: SMMLA where there is one. v0..v3 by f0..f3. */
/* clang-format off */
#if defined(EHMN_ARM_DSP)
#define HIGH(v, f) "smmla " v ", " v ", " f ", %[half]\n"
#else
#define HIGH(v, f) "smull r3, " v ", " v ", " f "\n" "add " v ", " v ", %[half]\n"
#endif
/* clang-format on */

/* out = v 2^more, if all of it fits 32 bits. */
static int lengthen(const int32_t *v, uint32_t n, uint32_t more, int32_t *out)
{
    uint32_t any = 0;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; i++) {
        any |= (uint32_t)(v[i] ^ v[i] >> 31);
    }
    if (any >> (31u - more) != 0) {
        return 0;
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int32_t)((uint32_t)v[i] << more);
    }
    return 1;
}

/* For shifts above 32 the upper halves of the products are enough, and no result leaves 32 bits. For some less, values
 * that have the room are made longer. */
void ehmn_kernels_cortex_m_scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    uint32_t fours = n / 4u * 4u;
    int32_t *end = out + fours;
    if (shift > 24 && shift < 33 && lengthen(v, n, 33u - (uint32_t)shift, out)) {
        v = out;
        shift = 33;
    }
    if (shift < 33 || shift > 62) {
        ehmn_kernels_rows_scale(v, factor, n, shift, out);
        return;
    }
    int32_t half = (int32_t)(1u << (shift - 33));
    while (out < end) {
        __asm__ volatile("ldmia %[v]!, {r4, r5, r6, r8}\n"
                         "ldrd r9, r10, [%[factor]], #8\n"
                         HIGH("r4", "r9") HIGH("r5", "r10")
                         "ldrd r9, r10, [%[factor]], #8\n"
                         HIGH("r6", "r9") HIGH("r8", "r10")
                         "asr r4, r4, %[by]\n"
                         "asr r5, r5, %[by]\n"
                         "asr r6, r6, %[by]\n"
                         "asr r8, r8, %[by]\n"
                         "stmia %[out]!, {r4, r5, r6, r8}\n"
                         : [v] "+r"(v), [factor] "+r"(factor), [out] "+r"(out)
                         : [half] "r"(half), [by] "r"(shift - 32)
                         : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "memory");
    }
    ehmn_kernels_rows_scale(v, factor, n - fours, shift, out);
}

#endif
