/* Cortex-M with the DSP extension (M4, M7, M33): SMLAD multiplies two pairs of 16 bits and adds both products. A
 * word of four weights becomes two such pairs, of its even and of its odd bytes, so inputs are laid out in that
 * order first. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_ARM_DSP)

#define MOST_COLS 384u /* inputs that are laid out on the stack */
#define MOST_ROWS 128u /* weights of a sum that are paired there */

static inline uint32_t load(const void *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, 4); /* one instruction at any address, in freestanding code, too */
    return v;
}

/* Bytes 0 and 2 of v, or 1 and 3, as two numbers of 16 bits. */
static inline uint32_t even(uint32_t v)
{
    uint32_t out;
    __asm__("sxtb16 %0, %1" : "=r"(out) : "r"(v));
    return out;
}

static inline uint32_t odd(uint32_t v)
{
    uint32_t out;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(out) : "r"(v));
    return out;
}

/* The lower, or the upper, halves of a and b side by side, that of a below. */
static inline uint32_t lower(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(out) : "r"(a), "r"(b));
    return out;
}

static inline uint32_t upper(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(out) : "r"(b), "r"(a));
    return out;
}

static inline int32_t multiply_add(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t out;
    __asm__("smlad %0, %1, %2, %3" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}

/* clang-format off */
#define ONE_ROW(row, sum) \
    "ldrd r8, r9, [" row "], #8\n"       \
    "sxtb16 r10, r8\n"                   \
    "smlad " sum ", r10, r4, " sum "\n"  \
    "sxtb16 r8, r8, ror #8\n"            \
    "smlad " sum ", r8, r5, " sum "\n"   \
    "sxtb16 r10, r9\n"                   \
    "smlad " sum ", r10, r6, " sum "\n"  \
    "sxtb16 r9, r9, ror #8\n"            \
    "smlad " sum ", r9, r7, " sum "\n"

#define EIGHT_COLUMNS \
    "ldmia r3!, {r4, r5, r6, r7}\n" \
    ONE_ROW("r0", "r11") ONE_ROW("r1", "r12") ONE_ROW("r2", "lr")

/* acc[0..2] of three rows at a time, up to acc_end: r0, r1, r2 are the rows, r3 the inputs; r11, r12, lr the sums. Eight
 * columns at a time, eight times between two looks at x_end; `first`, 1..8, is how many of the eight the first round has.
 * w and stride are word-aligned; x has for each four columns columns 0 and 2, then 1 and 3. */
__attribute__((naked, noinline)) static void
dot_rows(const int8_t *w __attribute__((unused)), uint32_t stride __attribute__((unused)),
         const uint32_t *x __attribute__((unused)), const uint32_t *x_end __attribute__((unused)),
         int32_t *acc __attribute__((unused)), int32_t *acc_end __attribute__((unused)),
         uint32_t first __attribute__((unused)))
{
    __asm__ volatile(
        "push {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
        "adr r4, 2f\n" /* where the first round begins takes the place of `first` */
        "adr r5, 3f\n"
        "sub r4, r5, r4\n"
        "lsr r4, r4, #3\n"
        "ldr r6, [sp, #60]\n"
        "mls r4, r4, r6, r5\n"
        "orr r4, r4, #1\n"
        "str r4, [sp, #60]\n"
        "1:\n"
        "ldr r0, [sp]\n"
        "ldrd r4, r3, [sp, #4]\n"
        "add r1, r0, r4\n"
        "add r2, r1, r4\n"
        "add r5, r2, r4\n"
        "str r5, [sp]\n"
        "mov r11, #0\n"
        "mov r12, #0\n"
        "mov lr, #0\n"
        "ldr pc, [sp, #60]\n"
        "2:\n"
        EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS EIGHT_COLUMNS
        "3:\n"
        "ldr r4, [sp, #12]\n"
        "cmp r3, r4\n"
        "bne 2b\n"
        "ldrd r4, r5, [sp, #52]\n"
        "stmia r4!, {r11, r12, lr}\n"
        "str r4, [sp, #52]\n"
        "cmp r4, r5\n"
        "bne 1b\n"
        "add sp, sp, #16\n"
        "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}
/* clang-format on */

/* One row over inputs in their own order. */
static int32_t dot(const int8_t *w, const int16_t *x, uint32_t cols)
{
    int32_t sum = 0;
    uint32_t c = 0;
    for (; c + 4u <= cols; c += 4u) {
        uint32_t four = load(w + c), first = load(x + c), second = load(x + c + 2u);
        sum = multiply_add(even(four), lower(first, second), sum);
        sum = multiply_add(odd(four), upper(first, second), sum);
    }
    for (; c < cols; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

/* Three rows at a time over laid-out inputs, as far as they go; the last three may have been among those before. */
static void multiply_rows(const int8_t *w, uint32_t rows, uint32_t stride, const uint32_t *x, uint32_t cols,
                          int32_t *acc)
{
    uint32_t whole = rows / 3u * 3u, first = (cols / 8u - 1u) % 8u + 1u;
    dot_rows(w, stride, x, x + cols / 2u, acc, acc + whole, first);
    if (whole < rows) {
        dot_rows(w + (rows - 3u) * stride, stride, x, x + cols / 2u, acc + rows - 3u, acc + rows, first);
    }
}

static int fits(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride)
{
    return (((uintptr_t)w | stride) & 3u) == 0 && rows >= 3u && cols >= 8u && cols <= MOST_COLS;
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t paired[MOST_COLS / 2u];
    if (!fits(w, rows, cols, stride)) {
        for (uint32_t r = 0; r < rows; r++, w += stride) {
            acc[r] = dot(w, x, cols);
        }
        return;
    }
    uint32_t whole = cols & ~7u;
    const int16_t *in = x;
    for (uint32_t *out = paired, *end = paired + whole / 2u; out < end; in += 8, out += 4) {
        uint32_t a = load(in), b = load(in + 2), c = load(in + 4), d = load(in + 6);
        out[0] = lower(a, b);
        out[1] = upper(a, b);
        out[2] = lower(c, d);
        out[3] = upper(c, d);
    }
    multiply_rows(w, rows, stride, paired, whole, acc);
    for (uint32_t r = 0; r < rows && whole < cols; r++) {
        acc[r] += dot(w + r * stride + whole, x + whole, cols - whole);
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    uint32_t paired[MOST_COLS / 2u];
    if (!fits(w, rows, cols, stride) || cols % 8u != 0) {
        ehmn_kernels_rows_matvec_s8(w, rows, cols, stride, x, acc);
        return;
    }
    for (uint32_t c = 0; c < cols; c += 4u) {
        uint32_t four = load(x + c);
        paired[c / 2u] = even(four);
        paired[c / 2u + 1u] = odd(four);
    }
    multiply_rows(w, rows, stride, paired, cols, acc);
}

/* clang-format off */
/* Rows whose words are in a and b, by a pair of weights. */
#define TWO_ROWS(pair) \
    "pkhbt %[t], %[a], %[b], lsl #16\n"         \
    "pkhtb %[b], %[b], %[a], asr #16\n"         \
    "sxtb16 %[a], %[t]\n"                       \
    "smlad %[s0], %[a], " pair ", %[s0]\n"      \
    "sxtb16 %[t], %[t], ror #8\n"               \
    "smlad %[s1], %[t], " pair ", %[s1]\n"      \
    "sxtb16 %[a], %[b]\n"                       \
    "smlad %[s2], %[a], " pair ", %[s2]\n"      \
    "sxtb16 %[b], %[b], ror #8\n"               \
    "smlad %[s3], %[b], " pair ", %[s3]\n"

#define FOUR_ROWS \
    "ldrd %[f], %[g], [%[pair]], #8\n"          \
    "ldr %[a], [%[w]]\n"                        \
    "ldr %[b], [%[w], %[stride]]\n"             \
    TWO_ROWS("%[f]")                            \
    "add %[w], %[w], %[stride], lsl #1\n"       \
    "ldr %[a], [%[w]]\n"                        \
    "ldr %[b], [%[w], %[stride]]\n"             \
    TWO_ROWS("%[g]")                            \
    "add %[w], %[w], %[stride], lsl #1\n"
/* clang-format on */

/* Four columns of rows at w and w + stride and so on, by pairs of weights, an even number of them, at least two. */
static void sum_four(const int8_t *w, const uint32_t *pair, uint32_t pairs, uint32_t stride, int32_t *acc)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    uint32_t a, b, t, f, g;
    const uint32_t *end = pair + pairs;
    __asm__ volatile("tst %[pairs], #2\n" /* an odd number of fours begins in the middle */
                     "bne 3f\n"
                     "2:\n" FOUR_ROWS "3:\n" FOUR_ROWS
                     "cmp %[pair], %[end]\n"
                     "bne 2b\n"
                     : [w] "+&r"(w), [pair] "+&r"(pair), [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2),
                       [s3] "+&r"(s3), [a] "=&r"(a), [b] "=&r"(b), [t] "=&r"(t), [f] "=&r"(f), [g] "=&r"(g)
                     : [stride] "r"(stride), [end] "r"(end), [pairs] "r"(pairs)
                     : "cc", "memory");
    acc[0] -= s0;
    acc[1] -= s1;
    acc[2] -= s2;
    acc[3] -= s3;
}

/* A weight of 2^15 has no place in 16 bits, so weights are paired negated. */
static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint32_t pair[MOST_ROWS / 2u];
    for (uint32_t c = 0; c < cols; c++) {
        acc[c] = 0;
    }
    uint32_t done = 0;
    while (rows - done >= 4u) {
        uint32_t n = rows - done < MOST_ROWS ? (rows - done) / 4u * 2u : MOST_ROWS / 2u;
        for (uint32_t i = 0; i < n; i++) {
            pair[i] = lower((uint32_t)-weight[done + 2u * i], (uint32_t)-weight[done + 2u * i + 1u]);
        }
        for (uint32_t c = 0; c + 4u <= cols; c += 4u) {
            sum_four(w + done * stride + c, pair, n, stride, acc + c);
        }
        done += 2u * n;
    }
    for (uint32_t c = 0; c < cols; c++) { /* what no four columns and no four rows cover */
        for (uint32_t r = c < (cols & ~3u) ? done : 0u; r < rows; r++) {
            acc[c] += weight[r] * w[r * stride + c];
        }
    }
}

/* Two values as 16 bits, symmetric: -32768 becomes -32767. */
static inline uint32_t fit_two(int32_t a, int32_t b)
{
    uint32_t out, t;
    __asm__("ssat %0, #16, %2\n\tssat %1, #16, %3\n\tpkhbt %0, %0, %1, lsl #16\n\t"
            "qsub16 %0, %0, %4\n\tqadd16 %0, %0, %4"
            : "=&r"(out), "=&r"(t)
            : "r"(a), "r"(b), "r"(0x00010001u));
    return out;
}

/* The larger of the lower, and of the upper halves. */
static inline uint32_t larger(uint32_t a, uint32_t b)
{
    uint32_t out;
    __asm__("ssub16 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(out) : "r"(a), "r"(b) : "cc");
    return out;
}

/* v within 2^24 and round(bias gain / 2^20), of the lower, or of the upper half of `biases`. */
static inline int32_t add_lower(int32_t v, int32_t gain, uint32_t biases)
{
    int32_t t;
    __asm__("ssat %0, #25, %0\n\tsmlawb %1, %2, %3, %4\n\tadd %0, %0, %1, asr #4"
            : "+&r"(v), "=&r"(t)
            : "r"(gain), "r"(biases), "r"(8));
    return v;
}

static inline int32_t add_upper(int32_t v, int32_t gain, uint32_t biases)
{
    int32_t t;
    __asm__("ssat %0, #25, %0\n\tsmlawt %1, %2, %3, %4\n\tadd %0, %0, %1, asr #4"
            : "+&r"(v), "=&r"(t)
            : "r"(gain), "r"(biases), "r"(8));
    return v;
}

static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    uint32_t largest = 0x80008000u;
    uint32_t i = 0;
    for (; bias == NULL && i + 4u <= n; i += 4u) {
        uint32_t a = fit_two(v[i], v[i + 1u]), b = fit_two(v[i + 2u], v[i + 3u]);
        largest = larger(larger(largest, a), b);
        __builtin_memcpy(out + i, &a, 4);
        __builtin_memcpy(out + i + 2u, &b, 4);
    }
    for (; bias != NULL && i + 4u <= n; i += 4u) {
        uint32_t p = load(bias + i), q = load(bias + i + 2u);
        uint32_t a = fit_two(add_lower(v[i], gain, p), add_upper(v[i + 1u], gain, p));
        uint32_t b = fit_two(add_lower(v[i + 2u], gain, q), add_upper(v[i + 3u], gain, q));
        largest = larger(larger(largest, a), b);
        __builtin_memcpy(out + i, &a, 4);
        __builtin_memcpy(out + i + 2u, &b, 4);
    }
    int32_t low = (int16_t)largest, high = (int32_t)largest >> 16;
    max = low > max ? low : max;
    max = high > max ? high : max;
    return ehmn_kernels_cortex_m_fit(v + i, bias != NULL ? bias + i : NULL, gain, n - i, max, out + i);
}

/* clang-format off */
/* Four weights: the upper bytes of their places on the line, less those of the weights before; added, or for the other
 * direction subtracted, where the sign's byte is 0. -128 becomes -127: it is the only value that the last two move. */
#define FOUR_STEPS(add) \
    "ldmia %[edge]!, {r4, r5, r6, r8}\n"        \
    "mla r4, r4, %[rate], %[at]\n"              \
    "mla r5, r5, %[rate], %[at]\n"              \
    "mla r6, r6, %[rate], %[at]\n"              \
    "mla r8, r8, %[rate], %[at]\n"              \
    "pkhtb r6, r6, r4, asr #16\n"               \
    "pkhtb r8, r8, r5, asr #16\n"               \
    "uxtb16 r4, r6, ror #8\n"                   \
    "uxtb16 r5, r8, ror #8\n"                   \
    "orr r4, r4, r5, lsl #8\n"                  \
    "orr r5, %[before], r4, lsl #8\n"           \
    "lsr %[before], r4, #24\n"                  \
    "ldr r6, [%[sign]], #4\n"                   \
    "usub8 r4, r4, r5\n"                        \
    "eor r4, r4, r6\n"                          \
    "usub8 r4, r4, r6\n"                        \
    "ldr r8, [%[w]]\n"                          \
    add " r8, r8, r4\n"                         \
    "qsub8 r8, r8, %[ones]\n"                   \
    "qadd8 r8, r8, %[ones]\n"                   \
    "str r8, [%[w]], #4\n"

#define EIGHT_STEPS(add) \
    __asm__ volatile(FOUR_STEPS(add) FOUR_STEPS(add)                                                       \
                     : [w] "+r"(w), [edge] "+r"(edge), [sign] "+r"(sign), [before] "+r"(before)            \
                     : [rate] "r"(rate), [at] "r"(at), [ones] "r"(0x01010101u)                             \
                     : "r4", "r5", "r6", "r8", "cc", "memory")
/* clang-format on */

static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    uint32_t before = 0;
    const int8_t *end = w + (n & ~7u);
    while (flip == 0 && w < end) {
        EIGHT_STEPS("qadd8");
    }
    while (w < end) {
        EIGHT_STEPS("qsub8");
    }
    if ((n & 7u) != 0) { /* counted from where the eights ended */
        ehmn_kernels_rows_step_row(w, edge, sign, flip, n & 7u, rate, at - (before << 24));
    }
}

const ehmn_kernels ehmn_kernels_dsp = {
    .name = "dsp",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_rows_matvec_s4,
    .weighted_sum = weighted_sum,
    .scale = ehmn_kernels_cortex_m_scale,
    .step_row = step_row,
    .few_steps = 7u,
    .exp_sum = ehmn_kernels_cortex_m_exp_sum,
    .soften = ehmn_kernels_cortex_m_soften,
    .gate = ehmn_kernels_cortex_m_gate,
    .fit = fit,
    .find_near = ehmn_kernels_cortex_m_find_near,
};

#endif
