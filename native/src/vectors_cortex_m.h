/* The first values of loops (vectors_first.h) on Cortex-M with Thumb-2, and those on processors without the DSP
 * extension. */
#ifndef EHMN_VECTORS_CORTEX_M_H
#define EHMN_VECTORS_CORTEX_M_H

#include "kernels_tables.h"

#if defined(EHMN_ARM_DSP) || defined(EHMN_THUMB)
#define EHMN_CORTEX_M

/* v[i] *= factor */
static inline uint32_t ehmn_first_multiply(int32_t *v, uint32_t n, int32_t factor)
{
    for (int32_t *end = v + (n & ~7u); v < end;) {
        __asm__ volatile("ldmia %[v], {r3, r4, r5, r6, r8, r9, r10, r12}\n"
                         "mul r3, r3, %[factor]\n"
                         "mul r4, r4, %[factor]\n"
                         "mul r5, r5, %[factor]\n"
                         "mul r6, r6, %[factor]\n"
                         "mul r8, r8, %[factor]\n"
                         "mul r9, r9, %[factor]\n"
                         "mul r10, r10, %[factor]\n"
                         "mul r12, r12, %[factor]\n"
                         "stmia %[v]!, {r3, r4, r5, r6, r8, r9, r10, r12}\n"
                         : [v] "+r"(v)
                         : [factor] "r"(factor)
                         : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r12", "memory");
    }
    return n & ~7u;
}

/* clang-format off */
#define EHMN_LARGER(v) \
    "eor " v ", " v ", " v ", asr #31\n"    \
    "cmp " v ", %[max]\n"                   \
    "it hi\n"                               \
    "movhi %[max], " v "\n"
/* clang-format on */

/* *max: the largest of v and of -v - 1. */
static inline uint32_t ehmn_first_max(const int32_t *v, uint32_t n, uint32_t *max)
{
    uint32_t fours = n & ~3u, most = *max;
    const int32_t *end = v + fours;
    if (v < end) {
        __asm__("1:\n\tldmia %[v]!, {r4, r5, r6, r8}\n" EHMN_LARGER("r4") EHMN_LARGER("r5") EHMN_LARGER("r6")
                    EHMN_LARGER("r8") "cmp %[v], %[end]\n\tbne 1b\n"
                : [v] "+r"(v), [max] "+r"(most)
                : [end] "r"(end)
                : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    *max = most;
    return fours;
}

/* clang-format off */
#define EHMN_ANY(v) "eor " v ", " v ", " v ", asr #31\n\t" "orr %[any], %[any], " v "\n\t"
/* clang-format on */

/* *any: the bits that are set in any of v, or in its complement where it is negative. */
static inline uint32_t ehmn_first_any(const int32_t *v, uint32_t n, uint32_t *any)
{
    uint32_t fours = n & ~3u, found = 0;
    for (const int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[v]!, {r4, r5, r6, r8}\n\t" EHMN_ANY("r4") EHMN_ANY("r5") EHMN_ANY("r6") EHMN_ANY("r8")
                : [v] "+r"(v), [any] "+r"(found)
                :
                : "r4", "r5", "r6", "r8", "memory");
    }
    *any = found;
    return fours;
}

/* v[i] >>= shift[i], 0..31 bits. */
static inline uint32_t ehmn_first_shift(int32_t *v, const int32_t *shift, uint32_t n)
{
    uint32_t fours = n & ~3u;
    for (const int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[v], {r4, r5, r6, r8}\n\t"
                "ldmia %[shift]!, {r3, r9, r10, r12}\n\t"
                "asr r4, r4, r3\n\t"
                "asr r5, r5, r9\n\t"
                "asr r6, r6, r10\n\t"
                "asr r8, r8, r12\n\t"
                "stmia %[v]!, {r4, r5, r6, r8}"
                : [v] "+r"(v), [shift] "+r"(shift)
                :
                : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r12", "memory");
    }
    return fours;
}

/* clang-format off */
#define EHMN_FIT_SCORE(v, by) \
    "add " by ", " by ", %[beyond]\n\t"    \
    "asrs " v ", " v ", " by "\n\t"        \
    "adc " v ", " v ", #0\n\t"             \
    "cmp " v ", %[max]\n\t"                \
    "it gt\n\t"                            \
    "movgt %[max], " v "\n\t"
/* clang-format on */

/* ehmn_fit_scores of whole fours, up to one that would not be shifted to the right; moves both pointers on, and returns
 * the largest. The last bit that leaves comes in again as a carry. */
static inline int32_t ehmn_first_fit_scores(const int8_t **key_frac, uint32_t stride, int32_t **scores, uint32_t n,
                                            int32_t beyond)
{
    int32_t max = INT32_MIN;
    int32_t *at = *scores;
    const int8_t *frac = *key_frac;
    if (beyond > 0 && beyond < 128 && n >= 4u) {
        __asm__ volatile("1:\n\t"
                         "ldrsb r4, [%[frac]]\n\t"
                         "ldrsb r5, [%[frac], %[stride]]\n\t"
                         "ldrsb r6, [%[frac], %[stride], lsl #1]\n\t"
                         "ldrsb r8, [%[frac], %[thrice]]\n\t"
                         "orr r9, r4, r5\n\t"
                         "orr r10, r6, r8\n\t"
                         "orrs r9, r9, r10\n\t"
                         "bmi 2f\n\t"
                         "ldrd r9, r10, [%[at]]\n\t" EHMN_FIT_SCORE("r9", "r4") EHMN_FIT_SCORE("r10", "r5")
                         "strd r9, r10, [%[at]], #8\n\t"
                         "ldrd r9, r10, [%[at]]\n\t" EHMN_FIT_SCORE("r9", "r6") EHMN_FIT_SCORE("r10", "r8")
                         "strd r9, r10, [%[at]], #8\n\t"
                         "add %[frac], %[frac], %[stride], lsl #2\n\t"
                         "cmp %[at], %[end]\n\t"
                         "bne 1b\n"
                         "2:"
                         : [frac] "+r"(frac), [at] "+r"(at), [max] "+r"(max)
                         : [stride] "r"(stride), [thrice] "r"(3u * stride), [beyond] "r"(beyond),
                           [end] "r"(at + (n & ~3u))
                         : "r4", "r5", "r6", "r8", "r9", "r10", "cc", "memory");
    }
    *scores = at;
    *key_frac = frac;
    return max;
}

/* ehmn_align_weights to the exponent `least`, 0..15: a weight is multiplied by 2^16 / 2^(its bits more), which is a
 * single shift of 2^(16 + least). */
static inline uint32_t ehmn_first_align(const int8_t **value_frac, uint32_t stride, uint32_t n, int32_t least,
                                        int32_t *weights)
{
    uint32_t fours = least >= 0 && least < 16 ? n & ~3u : 0u;
    const int8_t *frac = *value_frac;
    for (int32_t *end = weights + fours; weights < end;) {
        __asm__("ldrb r4, [%[frac]]\n\t"
                "ldrb r5, [%[frac], %[stride]]\n\t"
                "ldrd r6, r8, [%[weights]]\n\t"
                "lsr r4, %[one], r4\n\t"
                "lsr r5, %[one], r5\n\t"
                "mla r6, r6, r4, %[half]\n\t"
                "mla r8, r8, r5, %[half]\n\t"
                "ldrb r4, [%[frac], %[stride], lsl #1]\n\t"
                "ldrb r5, [%[frac], %[thrice]]\n\t"
                "lsr r6, r6, #16\n\t"
                "lsr r8, r8, #16\n\t"
                "strd r6, r8, [%[weights]], #8\n\t"
                "ldrd r6, r8, [%[weights]]\n\t"
                "lsr r4, %[one], r4\n\t"
                "lsr r5, %[one], r5\n\t"
                "mla r6, r6, r4, %[half]\n\t"
                "mla r8, r8, r5, %[half]\n\t"
                "add %[frac], %[frac], %[stride], lsl #2\n\t"
                "lsr r6, r6, #16\n\t"
                "lsr r8, r8, #16\n\t"
                "strd r6, r8, [%[weights]], #8\n\t"
                : [frac] "+r"(frac), [weights] "+r"(weights)
                : [stride] "r"(stride), [thrice] "r"(3u * stride), [one] "r"(1u << (16 + least)), [half] "r"(1u << 15)
                : "r4", "r5", "r6", "r8", "memory");
    }
    *value_frac = frac;
    return fours;
}

/* clang-format off */
#if defined(EHMN_ARM_DSP)
#define EHMN_TAKEN (-1) /* SMMLSR subtracts */
#define EHMN_TAKE_FOUR \
    "ldr r5, [%[w]], #4\n\t"                           \
    "ldmia %[v], {r6, r8, r9, r10}\n\t"                \
    "sxtb16 r11, r5, ror #8\n\t"                       \
    "sxtb16 r5, r5\n\t"                                \
    "smulbb r4, r5, %[factor]\n\t"                     \
    "smultb r5, r5, %[factor]\n\t"                     \
    "smmlsr r6, r4, %[scale], r6\n\t"                  \
    "smulbb r4, r11, %[factor]\n\t"                    \
    "smultb r11, r11, %[factor]\n\t"                   \
    "smmlsr r8, r4, %[scale], r8\n\t"                  \
    "smmlsr r9, r5, %[scale], r9\n\t"                  \
    "smmlsr r10, r11, %[scale], r10\n\t"               \
    "stmia %[v]!, {r6, r8, r9, r10}\n\t"
#else
#define EHMN_TAKEN 1
#define EHMN_TAKE_WEIGHT(v) \
    "ldrsb r4, [%[w]], #1\n\t"                         \
    "mov r5, #0x80000000\n\t"                          \
    "mul r4, r4, %[factor]\n\t"                        \
    "smlal r5, " v ", r4, %[scale]\n\t"
#define EHMN_TAKE_FOUR \
    "ldmia %[v], {r6, r8, r9, r10}\n\t"                \
    EHMN_TAKE_WEIGHT("r6") EHMN_TAKE_WEIGHT("r8") EHMN_TAKE_WEIGHT("r9") EHMN_TAKE_WEIGHT("r10") \
    "stmia %[v]!, {r6, r8, r9, r10}\n\t"
#endif
/* clang-format on */

/* v[i] += round(w[i] factor scale / 2^shift), within 32 bits, of a scale with `spare` bits to spare: where the factor
 * keeps 16 bits when the upper half of a product is to be the sum. */
static inline uint32_t ehmn_first_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale,
                                              int32_t shift, int32_t spare)
{
    int32_t lift = 32 - shift, of_scale = spare < lift ? spare : lift;
    lift -= of_scale;
    if (shift > 32 || lift >= 16 || !ehmn_in_range(-factor * (1 << lift), INT16_MIN, INT16_MAX)) {
        return 0;
    }
    factor *= EHMN_TAKEN * (1 << lift);
    scale <<= of_scale;
    uint32_t eights = n & ~7u;
    for (const int32_t *end = v + eights; v < end;) {
        __asm__(EHMN_TAKE_FOUR EHMN_TAKE_FOUR
                : [w] "+r"(w), [v] "+r"(v)
                : [factor] "r"(factor), [scale] "r"(scale)
                : "r4", "r5", "r6", "r8", "r9", "r10", "r11", "memory");
    }
    return eights;
}

#endif

#if defined(EHMN_THUMB)

/* clang-format off */
#define EHMN_SHIFT_INTO8(v) \
    "asrs " v ", " v ", %[by]\n\t"                     \
    "adc " v ", " v ", #0\n\t"                         \
    "strb " v ", [%[out]], #1\n\t"
/* clang-format on */

/* round(v[i] / 2^shift), shifts of 1..31, which fits a byte. */
static inline uint32_t ehmn_first_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    uint32_t fours = n & ~3u;
    for (const int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[v]!, {r4, r5, r6, r8}\n\t" EHMN_SHIFT_INTO8("r4") EHMN_SHIFT_INTO8("r5")
                    EHMN_SHIFT_INTO8("r6") EHMN_SHIFT_INTO8("r8")
                : [v] "+r"(v), [out] "+r"(out)
                : [by] "r"(shift)
                : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    return fours;
}

/* clang-format off */
#define EHMN_NARROW(v) \
    "asrs " v ", " v ", %[by]\n\t"                     \
    "adc " v ", " v ", #0\n\t"                         \
    "mla " v ", " v ", %[reciprocal], %[half]\n\t"     \
    "asr " v ", " v ", #22\n\t"                        \
    "strb " v ", [%[out]], #1\n\t"
/* clang-format on */

/* round(v[i] / 2^shift), shifts of 1..31, times a reciprocal, as in ehmn_narrow. */
static inline uint32_t ehmn_first_narrow(const int32_t *v, uint32_t n, int32_t shift, int32_t reciprocal, int8_t *out)
{
    uint32_t fours = shift > 0 ? n & ~3u : 0u;
    for (const int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[v]!, {r4, r5, r6, r8}\n\t" EHMN_NARROW("r4") EHMN_NARROW("r5") EHMN_NARROW("r6")
                    EHMN_NARROW("r8")
                : [v] "+r"(v), [out] "+r"(out)
                : [by] "r"(shift), [reciprocal] "r"(reciprocal), [half] "r"(EHMN_RECIPROCAL_HALF)
                : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    return fours;
}

#endif

#endif
