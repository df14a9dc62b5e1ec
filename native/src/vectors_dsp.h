/* The first values of loops (vectors_first.h) on Cortex-M with the DSP extension. */
#ifndef EHMN_VECTORS_DSP_H
#define EHMN_VECTORS_DSP_H

#include "kernels_tables.h"

#if defined(EHMN_ARM_DSP)

/* clang-format off */
#define EHMN_UPPER(v) \
    "lsl " v ", " v ", %[up]\n\t"                    \
    "smmla " v ", " v ", %[factor], %[half]\n\t"     \
    "asr " v ", " v ", %[by]\n\t"
/* clang-format on */

/* clang-format off */
/* Twice a mean and twice its distance from a value: the flag Q tells where either leaves 32 bits. */
#define EHMN_FOLLOW_BY(mean, v) \
    "qadd r11, " mean ", " mean "\n\t"                 \
    "qsub " v ", " v ", " mean "\n\t"                  \
    "qadd " v ", " v ", " v "\n\t"                     \
    "smmlar " mean ", " v ", %[rate], " mean "\n\t"
#define EHMN_REPLACE_BY(mean, v) \
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

/* ehmn_follow_all, at the rate one by itself, of whole fours up to one that holds a number which is not within 2^30 or
 * has a distance that is not. */
static inline uint32_t ehmn_first_follow(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    const int32_t *first = mean;
    if (rate < 65536) {
        EHMN_FOLLOW_FOURS(EHMN_FOLLOW_BY);
    } else {
        rate = 0;
        EHMN_FOLLOW_FOURS(EHMN_REPLACE_BY);
    }
    return (uint32_t)(mean - first);
}

/* out[i] = (floor(v[i] 2^up factor / 2^32) + half) / 2^by, rounded down. */
static inline uint32_t ehmn_first_scale(const int32_t *v, uint32_t n, int32_t up, int32_t factor, int32_t half,
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
static inline uint32_t ehmn_first_least(const int8_t **from, uint32_t stride, uint32_t n, int32_t *least)
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
static inline uint32_t ehmn_first_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    uint32_t fours = shift > 1 ? n & ~3u : 0u;
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
static inline uint32_t ehmn_first_narrow(const int32_t *v, uint32_t n, int32_t shift, int32_t reciprocal, int8_t *out)
{
    uint32_t eights = shift > 1 ? n & ~7u : 0u;
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
static inline uint32_t ehmn_first_into16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    uint32_t eights = shift > 1 ? n & ~7u : 0u;
    for (const int32_t *end = v + eights; v < end;) {
        __asm__(EHMN_SHIFT4_INTO16 EHMN_SHIFT4_INTO16
                : [v] "+r"(v), [out] "+r"(out)
                : [by] "r"(1 << (32 - shift))
                : "r4", "r5", "r6", "r8", "memory");
    }
    return eights;
}

/* As square() of vectors.c, added to *sum. */
static inline uint32_t ehmn_first_square(const int32_t *v, uint32_t n, int32_t shift, int32_t *out, uint64_t *sum)
{
    uint32_t fours = shift > 1 ? n & ~3u : 0u;
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

static inline uint32_t ehmn_first_add(int32_t *v, const int32_t *more, uint32_t n)
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

/* ehmn_running_sums; moves the pointers on. A flag of each byte says whether it is not positive. */
static inline uint32_t ehmn_first_running_sums(const int8_t **v, uint32_t n, uint32_t **edge, int8_t **sign,
                                               uint32_t *sum)
{
    const int8_t *from = *v;
    uint32_t *to = *edge, all = *sum;
    int8_t *signs = *sign;
    for (const int8_t *end = from + (n & ~3u); from < end;) {
        __asm__ volatile("ldr r4, [%[v]], #4\n"
                         "mov r5, #0\n"
                         "ssub8 r6, r5, r4\n"
                         "sel r4, r6, r4\n"
                         "sel r5, %[ones], r5\n"
                         "str r5, [%[sign]], #4\n"
                         "uxtab r5, %[sum], r4\n"
                         "uxtab r6, r5, r4, ror #8\n"
                         "uxtab r8, r6, r4, ror #16\n"
                         "uxtab %[sum], r8, r4, ror #24\n"
                         "stmia %[edge]!, {r5, r6, r8}\n"
                         "str %[sum], [%[edge]], #4\n"
                         : [v] "+r"(from), [sum] "+r"(all), [edge] "+r"(to), [sign] "+r"(signs)
                         : [ones] "r"(UINT32_MAX)
                         : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    *v = from;
    *edge = to;
    *sign = signs;
    *sum = all;
    return n & ~3u;
}

#endif

#endif
