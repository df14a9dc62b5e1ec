/* Parts of vectors.c for Cortex-M with Thumb-2, and for those of them with the DSP extension. Each does whole fours or
 * eights, and returns how many values that were. */
#ifndef EHMN_VECTORS_CORTEX_M_H
#define EHMN_VECTORS_CORTEX_M_H

#include "kernels_tables.h"

#if defined(EHMN_ARM_DSP) || defined(EHMN_THUMB)
#define EHMN_CORTEX_M

/* clang-format off */
#define EHMN_LARGER(v) \
    "eor " v ", " v ", " v ", asr #31\n"    \
    "cmp " v ", %[max]\n"                   \
    "it hi\n"                               \
    "movhi %[max], " v "\n"
/* clang-format on */

/* The largest of v and of -v - 1. */
static inline uint32_t ehmn_cortex_m_max(const int32_t *v, uint32_t n, uint32_t *max)
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

/* The bits that are set in any of v, or in its complement where it is negative. */
static inline uint32_t ehmn_cortex_m_any(const int32_t *v, uint32_t n, uint32_t *any)
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
static inline uint32_t ehmn_cortex_m_shift(int32_t *v, const int32_t *shift, uint32_t n)
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
static inline int32_t ehmn_cortex_m_fit_scores(const int8_t **key_frac, uint32_t stride, int32_t **scores, uint32_t n,
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
static inline uint32_t ehmn_cortex_m_align(const int8_t **value_frac, uint32_t stride, uint32_t n, int32_t least,
                                           int32_t *weights)
{
    uint32_t fours = n & ~3u;
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

/* v[i] += round(-w[i] factor scale / 2^32), within 32 bits; the factor has 16. */
static inline uint32_t ehmn_cortex_m_take_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor,
                                                  int32_t scale)
{
#if !defined(EHMN_ARM_DSP)
    factor = -factor;
#endif
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
static inline uint32_t ehmn_thumb_shift_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
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
static inline uint32_t ehmn_thumb_narrow(const int32_t *v, uint32_t n, int32_t shift, int32_t reciprocal, int8_t *out)
{
    uint32_t fours = n & ~3u;
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

#if defined(EHMN_ARM_DSP)

/* clang-format off */
#define EHMN_UPPER(v) \
    "lsl " v ", " v ", %[up]\n\t"                    \
    "smmla " v ", " v ", %[factor], %[half]\n\t"     \
    "asr " v ", " v ", %[by]\n\t"
/* clang-format on */

/* clang-format off */
/* Twice a mean and twice its distance from a value: the flag Q tells where either leaves 32 bits. */
#define EHMN_FOLLOW(mean, v) \
    "qadd r11, " mean ", " mean "\n\t"                 \
    "qsub " v ", " v ", " mean "\n\t"                  \
    "qadd " v ", " v ", " v "\n\t"                     \
    "smmlar " mean ", " v ", %[rate], " mean "\n\t"
#define EHMN_REPLACE(mean, v) \
    "qadd r11, " mean ", " mean "\n\t"                 \
    "qsub r11, " v ", " mean "\n\t"                    \
    "qadd r11, r11, r11\n\t"                           \
    "mov " mean ", " v "\n\t"
#define EHMN_FOLLOW_FOURS(follow) \
    __asm__ volatile("mov r4, #0\n\t"                                                                 \
                     "msr apsr_nzcvq, r4\n"                                                           \
                     "1:\n\t"                                                                         \
                     "cmp %[mean], %[end]\n\t"                                                        \
                     "beq 2f\n\t"                                                                     \
                     "ldmia %[v]!, {r4, r5, r6, r8}\n\t"                                              \
                     "ldmia %[mean], {r3, r9, r10, r12}\n\t"                                          \
                     follow("r3", "r4") follow("r9", "r5") follow("r10", "r6") follow("r12", "r8")     \
                     "mrs r11, apsr\n\t"                                                              \
                     "lsls r11, r11, #4\n\t"                                                          \
                     "bmi 2f\n\t"                                                                     \
                     "stmia %[mean]!, {r3, r9, r10, r12}\n\t"                                         \
                     "b 1b\n"                                                                         \
                     "2:"                                                                              \
                     : [mean] "+r"(mean), [v] "+r"(v)                                                  \
                     : [end] "r"(first + (n & ~3u)), [rate] "r"(rate * (1 << 15))                      \
                     : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "cc", "memory")
/* clang-format on */

/* ehmn_follow_all at a rate below one, and at the rate one, of whole fours up to one that holds a number which is not
 * within 2^30 or has a distance that is not. */
static inline uint32_t ehmn_dsp_follow(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    const int32_t *first = mean;
    EHMN_FOLLOW_FOURS(EHMN_FOLLOW);
    return (uint32_t)(mean - first);
}

static inline uint32_t ehmn_dsp_replace(int32_t *mean, const int32_t *v, uint32_t n)
{
    const int32_t *first = mean;
    int32_t rate = 0;
    EHMN_FOLLOW_FOURS(EHMN_REPLACE);
    return (uint32_t)(mean - first);
}

/* out[i] = (floor(v[i] 2^up factor / 2^32) + half) / 2^by, rounded down. */
static inline uint32_t ehmn_dsp_scale(const int32_t *v, uint32_t n, int32_t up, int32_t factor, int32_t half,
                                      int32_t by, int32_t *out)
{
    uint32_t fours = n & ~3u;
    for (const int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[v]!, {r4, r5, r6, r8}\n\t" EHMN_UPPER("r4") EHMN_UPPER("r5") EHMN_UPPER("r6") EHMN_UPPER("r8")
                "stmia %[out]!, {r4, r5, r6, r8}"
                : [v] "+r"(v), [out] "+r"(out)
                : [up] "r"(up), [factor] "r"(factor), [half] "r"(half), [by] "r"(by)
                : "r4", "r5", "r6", "r8", "memory");
    }
    return fours;
}

/* The least of *least and four times as many bytes as are whole fours; moves the pointer on. */
static inline uint32_t ehmn_dsp_least(const int8_t **from, uint32_t stride, uint32_t n, int32_t *least)
{
    uint32_t fours = n & ~3u, each = (uint32_t)(uint8_t)*least * 0x01010101u;
    const int8_t *frac = *from;
    for (uint32_t left = fours; left > 0; left -= 4u) {
        __asm__("ldrb r4, [%[frac]]\n\t"
                "ldrb r5, [%[frac], %[stride]]\n\t"
                "ldrb r6, [%[frac], %[stride], lsl #1]\n\t"
                "ldrb r8, [%[frac], %[thrice]]\n\t"
                "add %[frac], %[frac], %[stride], lsl #2\n\t"
                "orr r4, r4, r5, lsl #8\n\t"
                "orr r6, r6, r8, lsl #8\n\t"
                "orr r4, r4, r6, lsl #16\n\t"
                "ssub8 r5, %[each], r4\n\t"
                "sel %[each], r4, %[each]\n\t"
                : [frac] "+r"(frac), [each] "+r"(each)
                : [stride] "r"(stride), [thrice] "r"(3u * stride)
                : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    for (uint32_t i = 0; i < 4u; i++) {
        int32_t v = (int8_t)(each >> 8u * i);
        *least = v < *least ? v : *least;
    }
    *from = frac;
    return fours;
}

/* clang-format off */
/* Four values as 16 bits, then as bytes: each of them times the reciprocal has its byte from bit 16 on. SEL takes bytes
 * 0 and 2 of one word and 1 and 3 of the other. */
#define EHMN_SHIFT4 \
    "ldmia %[v]!, {r4, r5, r6, r8}\n\t"                \
    "smmulr r4, r4, %[down]\n\t"                      \
    "smmulr r5, r5, %[down]\n\t"                      \
    "smmulr r6, r6, %[down]\n\t"                      \
    "smmulr r8, r8, %[down]\n\t"
#define EHMN_STORE4 \
    "lsl r5, r5, #8\n\t"                              \
    "sel r4, r4, r5\n\t"                              \
    "str r4, [%[out]], #4\n\t"
#define EHMN_SHIFT4_INTO8 \
    EHMN_SHIFT4                                        \
    "pkhbt r4, r4, r6, lsl #16\n\t"                   \
    "pkhbt r5, r5, r8, lsl #16\n\t" EHMN_STORE4
#define EHMN_NARROW4 \
    EHMN_SHIFT4                                        \
    "smlawb r4, %[by], r4, %[half]\n\t"               \
    "smlawb r5, %[by], r5, %[half]\n\t"               \
    "smlawb r6, %[by], r6, %[half]\n\t"               \
    "smlawb r8, %[by], r8, %[half]\n\t"               \
    "pkhtb r4, r6, r4, asr #16\n\t"                   \
    "pkhtb r5, r8, r5, asr #16\n\t" EHMN_STORE4
/* clang-format on */

/* round(v[i] / 2^shift), shifts of 2..31, which fits a byte. */
static inline uint32_t ehmn_dsp_shift_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    uint32_t fours = n & ~3u;
    const int32_t *end = v + fours;
    if (fours > 0) {
        __asm__ volatile("uadd8 r4, %[odd], %[odd]\n" /* sets the flags that SEL takes */
                         "1:\n\t" EHMN_SHIFT4_INTO8
                         "cmp %[v], %[end]\n\t"
                         "bne 1b"
                         : [v] "+r"(v), [out] "+r"(out)
                         : [end] "r"(end), [down] "r"(1 << (32 - shift)), [odd] "r"(0x00FF00FFu)
                         : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    return fours;
}

/* round(v[i] / 2^shift), shifts of 2..31, times a reciprocal below 2^15, as in ehmn_narrow. */
static inline uint32_t ehmn_dsp_narrow(const int32_t *v, uint32_t n, int32_t shift, int32_t reciprocal, int8_t *out)
{
    uint32_t eights = n & ~7u;
    const int32_t *end = v + eights;
    if (eights > 0) {
        __asm__ volatile("uadd8 r4, %[odd], %[odd]\n" /* sets the flags that SEL takes */
                "1:\n\t" EHMN_NARROW4 EHMN_NARROW4
                "cmp %[v], %[end]\n\t"
                "bne 1b"
                : [v] "+r"(v), [out] "+r"(out)
                : [end] "r"(end), [down] "r"(1 << (32 - shift)), [by] "r"(reciprocal * (1 << 10)), [half] "r"(1 << 15),
                  [odd] "r"(0x00FF00FFu)
                : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    return eights;
}

/* clang-format off */
#define EHMN_SHIFT4_INTO16 \
    "ldmia %[v]!, {r4, r5, r6, r8}\n"       \
    "smmulr r4, r4, %[by]\n"                \
    "smmulr r5, r5, %[by]\n"                \
    "smmulr r6, r6, %[by]\n"                \
    "smmulr r8, r8, %[by]\n"                \
    "pkhbt r4, r4, r5, lsl #16\n"           \
    "pkhbt r6, r6, r8, lsl #16\n"           \
    "str r4, [%[out]], #4\n"                \
    "str r6, [%[out]], #4\n"
/* clang-format on */

/* round(v[i] / 2^shift), shifts of 2..31, as the upper half of a product. */
static inline uint32_t ehmn_dsp_shift_into16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    uint32_t eights = n & ~7u;
    for (const int32_t *end = v + eights; v < end;) {
        __asm__(EHMN_SHIFT4_INTO16 EHMN_SHIFT4_INTO16
                : [v] "+r"(v), [out] "+r"(out)
                : [by] "r"(1 << (32 - shift))
                : "r4", "r5", "r6", "r8", "memory");
    }
    return eights;
}

/* As square() of vectors.c, added to *sum. */
static inline uint32_t ehmn_dsp_square(const int32_t *v, uint32_t n, int32_t shift, int32_t *out, uint64_t *sum)
{
    uint32_t fours = n & ~3u;
    uint64_t all = *sum;
    for (const int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[v]!, {r4, r5, r6, r8}\n\t"
                "smmulr r4, r4, %[by]\n\t"
                "smmulr r5, r5, %[by]\n\t"
                "smmulr r6, r6, %[by]\n\t"
                "smmulr r8, r8, %[by]\n\t"
                "smlal %Q[sum], %R[sum], r4, r4\n\t"
                "smlal %Q[sum], %R[sum], r5, r5\n\t"
                "smlal %Q[sum], %R[sum], r6, r6\n\t"
                "smlal %Q[sum], %R[sum], r8, r8\n\t"
                "lsl r4, r4, #16\n\t"
                "lsl r5, r5, #16\n\t"
                "lsl r6, r6, #16\n\t"
                "lsl r8, r8, #16\n\t"
                "stmia %[out]!, {r4, r5, r6, r8}\n\t"
                : [v] "+r"(v), [out] "+r"(out), [sum] "+r"(all)
                : [by] "r"(1 << (32 - shift))
                : "r4", "r5", "r6", "r8", "memory");
    }
    *sum = all;
    return fours;
}

/* clang-format off */
/* Sums that saturate, of which -2^31 becomes -(2^31 - 1): it is the only one that the last two move. */
#define EHMN_ADD2(a, b) \
    "ldrd r8, r9, [%[v]]\n"                 \
    "qadd " a ", " a ", r8\n"               \
    "qadd " b ", " b ", r9\n"               \
    "qsub " a ", " a ", %[one]\n"           \
    "qsub " b ", " b ", %[one]\n"           \
    "qadd " a ", " a ", %[one]\n"           \
    "qadd " b ", " b ", %[one]\n"           \
    "strd " a ", " b ", [%[v]], #8\n"
/* clang-format on */

static inline uint32_t ehmn_dsp_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    uint32_t fours = n & ~3u;
    for (int32_t *end = v + fours; v < end;) {
        __asm__("ldmia %[more]!, {r4, r5, r6, r10}\n\t" EHMN_ADD2("r4", "r5") EHMN_ADD2("r6", "r10")
                : [v] "+r"(v), [more] "+r"(more)
                : [one] "r"(1)
                : "r4", "r5", "r6", "r8", "r9", "r10", "memory");
    }
    return fours;
}

#endif

#endif
