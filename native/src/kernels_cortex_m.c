/* Cortex-M, with the DSP extension and without: sums, weights and gates that no compiler makes of C as short. */
#include "fixed.h"
#include "kernels_tables.h"
#include "vectors_first.h"

#include <stddef.h>

#if defined(EHMN_ARM_DSP) || defined(EHMN_THUMB)

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

/* Below, ehmn_exp2_neg of what `beyond` exceeds 511 by: 2^-(x / 256) is a table's value, at least one, shifted right
 * by a whole number of bits, which is x / 256 rounded up, and one more because the table's value has a bit more. The
 * last bit that is shifted out comes in again as a carry. */

/* sum + ehmn_exp2_neg(max - logit), where top is max + 511: the sum takes in the bit that rounds. */
static inline uint32_t add_power(uint32_t sum, int32_t logit, uint32_t top)
{
    uint32_t beyond = top - (uint32_t)logit, at, twice;
    __asm__("bic %0, %1, %2" : "=r"(at) : "r"(255), "r"(beyond));
    __asm__("add %0, %1, %2, lsl #10" : "=r"(twice) : "r"(32768u << 10), "r"((uint32_t)ehmn_exp2_table[at]));
    __asm__("lsrs %1, %1, %2\n\tadc %0, %0, %1" : "+r"(sum), "+r"(twice) : "r"(to_shift(beyond)) : "cc");
    return sum;
}

/* clang-format off */
#if defined(EHMN_ARM_DSP)
/* The lower and the upper half of a word of two logits' distances. A shift takes the lower byte of its register: by
 * more than 32 bits it leaves nothing. */
#define TWO_POWERS(two) \
    "bic r8, %[byte], " two "\n"                \
    "ubfx r9, " two ", #8, #8\n"                \
    "ldrh r8, [%[table], r8, lsl #1]\n"         \
    "add r8, %[one], r8, lsl #10\n"             \
    "lsrs r8, r8, r9\n"                         \
    "adc %[sum], %[sum], r8\n"                  \
    "bic r8, %[byte], " two ", lsr #16\n"       \
    "lsr r9, " two ", #24\n"                    \
    "ldrh r8, [%[table], r8, lsl #1]\n"         \
    "add r8, %[one], r8, lsl #10\n"             \
    "lsrs r8, r8, r9\n"                         \
    "adc %[sum], %[sum], r8\n"
#define FOUR_POWERS \
    "ldrd r4, r5, [%[logits]], #8\n"            \
    "usub16 r4, %[top], r4\n"                   \
    "usub16 r5, %[top], r5\n"                   \
    TWO_POWERS("r4") TWO_POWERS("r5")
#endif
/* clang-format on */

uint32_t ehmn_kernels_cortex_m_exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    const int16_t *end = logits + n;
    uint32_t sum = 0, top = (uint32_t)max + 511u;
#if defined(EHMN_ARM_DSP)
    if (max <= 32256 && ((uintptr_t)logits & 3u) == 0) { /* no distance and 511 leaves 16 bits */
        for (const int16_t *whole = logits + (n & ~7u); logits < whole;) {
            __asm__(FOUR_POWERS FOUR_POWERS
                    : [logits] "+r"(logits), [sum] "+r"(sum)
                    : [top] "r"(top << 16 | (top & 0xFFFFu)), [byte] "r"(255), [one] "r"(32768u << 10),
                      [table] "r"(ehmn_exp2_table)
                    : "r4", "r5", "r8", "r9", "cc", "memory");
        }
    }
#else
    for (const int16_t *whole = logits + (n & ~3u); logits < whole; logits += 4) {
        sum = add_power(sum, logits[0], top);
        sum = add_power(sum, logits[1], top);
        sum = add_power(sum, logits[2], top);
        sum = add_power(sum, logits[3], top);
    }
#endif
    while (logits < end) {
        sum = add_power(sum, *logits++, top);
    }
    return sum;
}

/* As in vectors.c. What is ahead counts up to 2^32 - 1 for 128 values at a time, whose sum is below. */
EHMN_SMALL uint32_t ehmn_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)
{
    const int16_t *at = logits;
    while (n > 0) {
        uint32_t most = *ahead > UINT32_MAX ? UINT32_MAX : (uint32_t)*ahead;
        uint32_t left = n < 128u ? n : 128u, sum = 0, next;
        n -= left;
        __asm__ volatile("1:\n\t" /* as add_power */
                "ldrsh r4, [%[at]], #2\n\t"
                "sub r4, %[top], r4\n\t"
                "bic r5, %[byte], r4\n\t"
                "usat r4, #5, r4, asr #8\n\t"
                "ldrh r5, [%[table], r5, lsl #1]\n\t"
                "add r5, %[one], r5, lsl #10\n\t"
                "lsrs r5, r5, r4\n\t"
                "adc %[next], %[sum], r5\n\t"
                "cmp %[next], %[most]\n\t"
                "bhi 2f\n\t"
                "mov %[sum], %[next]\n\t"
                "cmp %[at], %[end]\n\t"
                "bne 1b\n"
                "2:"
                : [at] "+&r"(at), [sum] "+&r"(sum), [next] "=&r"(next)
                : [end] "r"(at + left), [top] "r"(max + 511), [byte] "r"(255), [one] "r"(32768u << 10),
                  [table] "r"(ehmn_exp2_table), [most] "r"(most)
                : "r4", "r5", "cc", "memory");
        *ahead -= sum;
        if (next > most) {
            at--;
            break;
        }
    }
    return (uint32_t)(at - logits);
}

/* What a score is below the largest, and 511 more; at most 2^31 - 1, which leaves no weight. */
static inline uint32_t distance(int32_t score, uint32_t top)
{
#if defined(EHMN_ARM_DSP)
    uint32_t out;
    __asm__("qsub %0, %1, %2" : "=r"(out) : "r"(top), "r"(score));
    return out;
#else
    uint32_t beyond = top - (uint32_t)score; /* may take all 32 bits */
    return beyond < 1u << 31 ? beyond : INT32_MAX;
#endif
}

/* Rounded to 24 bits after the point and then to 15: the carry of the first comes in with the half of the second. */
static inline uint32_t soften_one(int32_t *score, uint32_t top)
{
    uint32_t beyond = distance(*score, top), at, weight;
    __asm__("bic %0, %1, %2" : "=r"(at) : "r"(255), "r"(beyond));
    __asm__("add %0, %1, %2, lsl #10" : "=r"(weight) : "r"(32768u << 10), "r"((uint32_t)ehmn_exp2_table[at]));
    __asm__("lsrs %0, %0, %1\n\tadc %0, %0, #256" : "+r"(weight) : "r"(to_shift(beyond)) : "cc");
    weight >>= 9;
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

#if defined(EHMN_ARM_DSP)
/* clang-format off */
/* Of a value in v; r5, r6, r8 and r9 are for what is between: the sigmoid of its magnitude, less one, is the lower half
 * of a word, since it is a half at least; that times the magnitude, with one bit more, and where v is positive v itself
 * added, is what opens `up`. What may leave 32 bits sets the flag Q. */
#define GATE_ONE(v, up) \
    "eor r5, " v ", " v ", asr #31\n"               \
    "sub r5, r5, " v ", asr #31\n"                  \
    "usat r6, #20, r5\n"                            \
    "ubfx r8, r6, #0, #11\n"                        \
    "lsr r6, r6, #11\n"                             \
    "ldr r6, [%[table], r6, lsl #1]\n"              \
    "qadd r5, r5, r5\n"                             \
    "rsb r9, r6, r6, lsr #16\n"                     \
    "smlabb r8, r9, r8, %[half]\n"                  \
    "add r6, r6, r8, lsr #11\n"                     \
    "smlawb r5, r5, r6, %[one]\n"                   \
    "bic " v ", " v ", " v ", asr #31\n"            \
    "add " v ", " v ", r5, asr #1\n"                \
    "smull r5, r6, " v ", " up "\n"                 \
    "ssat r8, #15, r6\n"                            \
    "lsrs " up ", r5, #16\n"                        \
    "adc " up ", " up ", r6, lsl #16\n"
/* clang-format on */

/* As gate_all, of n values, an even number of them but zero; returns how many it did before two that are not right. */
static uint32_t gate_pairs(const int32_t *v, int32_t *up, uint32_t n)
{
    const int32_t *from = up, *end = up + n;
    __asm__ volatile("mov r4, #0\n"
                     "msr apsr_nzcvq, r4\n"
                     "1:\n"
                     "ldr r4, [%[v]], #4\n"
                     "ldr r10, [%[up]]\n" GATE_ONE("r4", "r10")
                     "ldr r4, [%[v]], #4\n"
                     "ldr r11, [%[up], #4]\n" GATE_ONE("r4", "r11")
                     "mrs r4, apsr\n"
                     "lsls r4, r4, #4\n"
                     "bmi 2f\n"
                     "strd r10, r11, [%[up]], #8\n"
                     "cmp %[up], %[end]\n"
                     "bne 1b\n"
                     "2:\n"
                     : [v] "+r"(v), [up] "+r"(up)
                     : [end] "r"(end), [table] "r"(ehmn_sigmoid_table), [half] "r"(1024), [one] "r"(1)
                     : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "cc", "memory");
    return (uint32_t)(up - from);
}
#endif

__attribute__((noinline)) static void gate_all(const int32_t *v, int32_t *up, uint32_t n)
{
    for (int32_t *end = up + n; up < end; up++) {
        *up = gate_one(*v++, *up);
    }
}

void ehmn_kernels_cortex_m_gate(const int32_t *v, int32_t *up, uint32_t n, int32_t frac)
{
    if (frac != 16) {
        ehmn_kernels_rows_gate(v, up, n, frac);
        return;
    }
#if defined(EHMN_ARM_DSP)
    uint32_t i = 0, whole = n & ~1u;
    while (i < whole) {
        i += gate_pairs(v + i, up + i, whole - i);
        if (i < whole) {
            gate_all(v + i, up + i, 2u);
            i += 2u;
        }
    }
    v += whole;
    up += whole;
    n -= whole;
#endif
    gate_all(v, up, n);
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
/* Keys of four words; of other lengths, those of plain rows. Of the key at r0 first three words are compared: every
 * other bit of the second joins each of the counts of pairs of bits of the other two, which then are at most 3, and the
 * sum of both those of fours. The sum of the bytes s - 15 t, t the upper halves of the bytes of s, comes into the upper
 * byte of r8: the mask of t is 15 times the factor that adds bytes. r3: the limit. */
__attribute__((naked)) void
ehmn_kernels_cortex_m_nearest(const uint32_t *keys __attribute__((unused)), uint32_t n __attribute__((unused)),
                              const uint32_t *key __attribute__((unused)), uint32_t words __attribute__((unused)),
                              uint32_t *found __attribute__((unused)))
{
    __asm__ volatile(
        "cmp r3, #4\n"
        "bne ehmn_kernels_rows_nearest\n"
        "ldr r12, [sp]\n"
        "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
        "add r1, r0, r1, lsl #4\n" /* the end */
        "ldmia r2, {r4, r5, r6, r7}\n"
        "add r3, r0, #16\n"
        "push {r3, r12}\n"
        "push {r1, r7}\n"
        "push {r4, r5}\n"
        "mov r1, r6\n"
        "movs r2, #3\n"
        "movs r3, #255\n"
        "mov r4, #0x55555555\n"
        "mov r5, #0x33333333\n"
        "mov r6, #0x0F0F0F0F\n"
        "mov r7, #0x01010101\n"
        "2:\n"
        "ldr r12, [sp, #8]\n"
        "cmp r0, r12\n"
        "beq 4f\n"
        "ldmia r0!, {r8, r9, r10, r11}\n"
        "ldrd r12, lr, [sp]\n"
        "eor r8, r8, r12\n"
        "eor r9, r9, lr\n"
        "eor r10, r10, r1\n"
        "and r12, r4, r8, lsr #1\n"
        "sub r8, r8, r12\n"
        "and r12, r4, r10, lsr #1\n"
        "sub r10, r10, r12\n"
        "and r12, r4, r9\n"
        "add r8, r8, r12\n"
        "and r12, r4, r9, lsr #1\n"
        "add r10, r10, r12\n"
        "and r12, r5, r8, lsr #2\n"
        "and lr, r5, r10, lsr #2\n"
        "add r12, r12, lr\n"
        "add r8, r8, r10\n"
        "mls r8, r12, r2, r8\n"
        "and r12, r6, r8, lsr #4\n"
        "mul r8, r8, r7\n"
        "mls r8, r12, r6, r8\n"
        "cmp r3, r8, lsr #24\n"
        "bls 2b\n"
        "ldr r12, [sp, #12]\n"
        "eor r11, r11, r12\n"
        "and r12, r4, r11, lsr #1\n"
        "sub r11, r11, r12\n"
        "and r12, r5, r11, lsr #2\n"
        "mls r11, r12, r2, r11\n"
        "add r11, r11, r11, lsr #4\n"
        "and r11, r11, r6\n"
        "mla r8, r11, r7, r8\n"
        "cmp r3, r8, lsr #24\n"
        "bls 2b\n"
        /* 2^16 times the distance, plus the index, goes to its place: found moves up by fours and then singly */
        "ldrd r12, r9, [sp, #16]\n"
        "add r9, r9, #60\n"
        "lsr r8, r8, #24\n"
        "sub r12, r0, r12\n"
        "lsr r12, r12, #4\n"
        "orr r12, r12, r8, lsl #16\n"
        "movs r3, #3\n"
        "5:\n"
        "ldmdb r9, {r8, r10, r11, lr}\n"
        "cmp r8, r12\n"
        "bls 6f\n"
        "sub r9, r9, #12\n"
        "stmia r9, {r8, r10, r11, lr}\n"
        "sub r9, r9, #4\n"
        "subs r3, r3, #1\n"
        "bne 5b\n"
        "ldmdb r9, {r10, r11, lr}\n"
        "6:\n"
        "cmp lr, r12\n"
        "itt hi\n"
        "strhi lr, [r9], #-4\n"
        "cmphi r11, r12\n"
        "itt hi\n"
        "strhi r11, [r9], #-4\n"
        "cmphi r10, r12\n"
        "it hi\n"
        "strhi r10, [r9], #-4\n"
        "str r12, [r9]\n"
        "ldr r9, [sp, #20]\n"
        "ldrh r3, [r9, #62]\n"
        "b 2b\n"
        "4:\n"
        "add sp, sp, #24\n"
        "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}
/* clang-format on */

_Static_assert(EHMN_RECALLED == 16u, "what was found moves up by three times four, and three");

/* A value times its factor, the upper half plus `half`: SMMLA where there is one. v0..v3 by f0..f3. */
/* clang-format off */
#if defined(EHMN_ARM_DSP)
#define HIGH(v, f) "smmla " v ", " v ", " f ", %[half]\n"
#else
#define HIGH(v, f) "smull r3, " v ", " v ", " f "\n" "add " v ", " v ", %[half]\n"
#endif
#define SCALE_FOUR \
    "ldmia %[v]!, {r4, r5, r6, r8}\n"           \
    "ldrd r9, r10, [%[factor]], #8\n"           \
    HIGH("r4", "r9") HIGH("r5", "r10")          \
    "ldrd r9, r10, [%[factor]], #8\n"           \
    HIGH("r6", "r9") HIGH("r8", "r10")          \
    "asr r4, r4, %[by]\n"                       \
    "asr r5, r5, %[by]\n"                       \
    "asr r6, r6, %[by]\n"                       \
    "asr r8, r8, %[by]\n"                       \
    "stmia %[out]!, {r4, r5, r6, r8}\n"
/* clang-format on */

/* out = v 2^more, if all of it fits 32 bits. */
static int lengthen(const int32_t *v, uint32_t n, uint32_t more, int32_t *out)
{
    uint32_t any = 0;
    for (uint32_t i = ehmn_first_any(v, n, &any); i < n; i++) {
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
    uint32_t eights = n / 8u * 8u;
    int32_t *end = out + eights;
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
        __asm__ volatile(SCALE_FOUR SCALE_FOUR
                         : [v] "+r"(v), [factor] "+r"(factor), [out] "+r"(out)
                         : [half] "r"(half), [by] "r"(shift - 32)
                         : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "memory");
    }
    ehmn_kernels_rows_scale(v, factor, n - eights, shift, out);
}

#endif
