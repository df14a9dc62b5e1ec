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

/* A score shifted to the right by 1 bit and more, where the last bit that leaves comes in again as a carry. */
static inline int32_t ehmn_cortex_m_fit_score(int32_t *score, int32_t by, int32_t max)
{
    int32_t v = *score;
    __asm__("asrs %0, %0, %1\n\tadc %0, %0, #0" : "+r"(v) : "r"(by) : "cc");
    *score = v;
    return v > max ? v : max;
}

/* ehmn_fit_scores of whole fours, up to one that would not be shifted to the right; moves both pointers on, and returns
 * the largest. */
static inline int32_t ehmn_cortex_m_fit_scores(const int8_t **key_frac, uint32_t stride, int32_t **scores, uint32_t n,
                                               int32_t beyond)
{
    int32_t max = INT32_MIN;
    int32_t *at = *scores;
    const int8_t *frac = *key_frac;
    if (beyond > 0 && beyond < 128) {
        for (int32_t *end = at + (n & ~3u); at < end; at += 4) {
            int32_t a = frac[0], b = frac[stride], c = frac[2u * stride], d = frac[3u * stride];
            if ((a | b | c | d) < 0) {
                break;
            }
            max = ehmn_cortex_m_fit_score(at, a + beyond, max);
            max = ehmn_cortex_m_fit_score(at + 1, b + beyond, max);
            max = ehmn_cortex_m_fit_score(at + 2, c + beyond, max);
            max = ehmn_cortex_m_fit_score(at + 3, d + beyond, max);
            frac += 4u * stride;
        }
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

#endif

#if defined(EHMN_ARM_DSP)

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
#define EHMN_WIDEN16(two) \
    "ssub16 r8, " two ", %[high]\n"         \
    "sel %[high], " two ", %[high]\n"       \
    "ssub16 r8, %[low], " two "\n"          \
    "sel %[low], " two ", %[low]\n"
/* clang-format on */

/* The largest magnitude of 16 bits. */
static inline uint32_t ehmn_dsp_max16(const int16_t *v, uint32_t n, uint32_t *max)
{
    uint32_t eights = n & ~7u, high = 0, low = 0;
    for (const int16_t *end = v + eights; v < end;) {
        __asm__("ldr r4, [%[v]], #4\n\t"
                "ldr r5, [%[v]], #4\n\t"
                "ldr r6, [%[v]], #4\n\t" EHMN_WIDEN16("r4") EHMN_WIDEN16("r5")
                "ldr r4, [%[v]], #4\n\t" EHMN_WIDEN16("r6") EHMN_WIDEN16("r4")
                : [v] "+r"(v), [high] "+r"(high), [low] "+r"(low)
                :
                : "r4", "r5", "r6", "r8", "cc", "memory");
    }
    int32_t up = (int16_t)high > (int32_t)high >> 16 ? (int16_t)high : (int32_t)high >> 16;
    int32_t down = (int16_t)low < (int32_t)low >> 16 ? (int16_t)low : (int32_t)low >> 16;
    *max = (uint32_t)(up > -down ? up : -down);
    return eights;
}

/* clang-format off */
/* Four values of 16 bits as bytes: each times the reciprocal has its byte from bit 16 on. */
#define EHMN_NARROW4 \
    "ldr r4, [%[v]], #4\n"                              \
    "ldr r5, [%[v]], #4\n"                              \
    "smlawb r6, %[by], r4, %[half]\n"                   \
    "smlawt r4, %[by], r4, %[half]\n"                   \
    "smlawb r8, %[by], r5, %[half]\n"                   \
    "smlawt r5, %[by], r5, %[half]\n"                   \
    "pkhtb r6, r8, r6, asr #16\n"                       \
    "pkhtb r4, r5, r4, asr #16\n"                       \
    "lsl r4, r4, #8\n"                                  \
    "sel r6, r6, r4\n"                                  \
    "str r6, [%[out]], #4\n"
/* clang-format on */

/* ehmn_narrow by a reciprocal below 2^15. SEL takes bytes 0 and 2 of one word and 1 and 3 of the other. */
static inline uint32_t ehmn_dsp_narrow(const int16_t *v, uint32_t n, int32_t reciprocal, int8_t *out)
{
    uint32_t eights = n & ~7u, t;
    for (const int16_t *end = v + eights; v < end;) {
        __asm__("uadd8 %[t], %[odd], %[odd]\n\t" EHMN_NARROW4 EHMN_NARROW4
                : [v] "+r"(v), [out] "+r"(out), [t] "=&r"(t)
                : [by] "r"(reciprocal * (1 << 10)), [half] "r"(1 << 15), [odd] "r"(0x00FF00FFu)
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
