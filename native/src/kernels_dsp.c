/* Cortex-M with the DSP extension (M4, M7, M33): SMLAD multiplies two pairs of 16 bits and adds both products. A
 * word of four weights becomes two such pairs, of its even and of its odd bytes, so inputs are laid out in that
 * order first. */
#include "fixed.h"
#include "kernels_tables.h"
#include "values.h"

#include <stddef.h>

#if defined(EHMN_ARM_DSP)

#define MOST_COLS 384u /* inputs that are laid out on the stack */
#define UNUSED __attribute__((unused))

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

/* Every input joins the weight of the other column of its pair in the instruction that lengthens that weight. */
#define ONE_ROW_PAIRED(row, sum) \
    "ldrd r8, r9, [" row "], #8\n"           \
    "sxtab16 r10, r5, r8\n"                  \
    "sxtab16 r8, r4, r8, ror #8\n"           \
    "smlad " sum ", r10, r8, " sum "\n"      \
    "sxtab16 r10, r7, r9\n"                  \
    "sxtab16 r9, r6, r9, ror #8\n"           \
    "smlad " sum ", r10, r9, " sum "\n"

#define EIGHT_COLUMNS(one_row) \
    "ldmia r3!, {r4, r5, r6, r7}\n" one_row("r0", "r11") one_row("r1", "r12") one_row("r2", "lr")
#define TWICE(part) part part
#define SIXTY_FOUR_COLUMNS(one_row) TWICE(TWICE(TWICE(EIGHT_COLUMNS(one_row))))

#define FROM_ZERO \
    "mov r11, #0\n" \
    "mov r12, #0\n" \
    "mov lr, #0\n"
#define FROM_BEGIN /* begin[0..2] and what all rows begin with; moves begin on */ \
    "ldrd r4, r5, [sp, #64]\n"      \
    "ldmia r4!, {r11, r12, lr}\n"   \
    "str r4, [sp, #64]\n"           \
    "add r11, r11, r5\n"            \
    "add r12, r12, r5\n"            \
    "add lr, lr, r5\n"

/* acc[0..2] of three rows at a time, up to acc_end: r0, r1, r2 are the rows, r3 the inputs; r11, r12, lr the sums.
 * Eight columns at a time, eight times between two looks at x_end; `first`, 1..8, is how many of the eight the first
 * round has. w and stride are word-aligned; x has for each four columns columns 0 and 2, then 1 and 3. */
#define DOT_ROWS(from, one_row) \
    __asm__ volatile(                                                                               \
        "push {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"                             \
        "adr r4, 2f\n" /* where the first round begins takes the place of `first` */                \
        "adr r5, 3f\n"                                                                              \
        "sub r4, r5, r4\n"                                                                          \
        "lsr r4, r4, #3\n"                                                                          \
        "ldr r6, [sp, #60]\n"                                                                       \
        "mls r4, r4, r6, r5\n"                                                                      \
        "orr r4, r4, #1\n"                                                                          \
        "str r4, [sp, #60]\n"                                                                       \
        "1:\n"                                                                                      \
        from                                                                                        \
        "ldr r0, [sp]\n"                                                                            \
        "ldrd r4, r3, [sp, #4]\n"                                                                   \
        "add r1, r0, r4\n"                                                                          \
        "add r2, r1, r4\n"                                                                          \
        "add r5, r2, r4\n"                                                                          \
        "str r5, [sp]\n"                                                                            \
        "ldr pc, [sp, #60]\n"                                                                       \
        "2:\n"                                                                                      \
        SIXTY_FOUR_COLUMNS(one_row)                                                                 \
        "3:\n"                                                                                      \
        "ldr r4, [sp, #12]\n"                                                                       \
        "cmp r3, r4\n"                                                                              \
        "bne 2b\n"                                                                                  \
        "ldrd r4, r5, [sp, #52]\n"                                                                  \
        "stmia r4!, {r11, r12, lr}\n"                                                               \
        "str r4, [sp, #52]\n"                                                                       \
        "cmp r4, r5\n"                                                                              \
        "bne 1b\n"                                                                                  \
        "add sp, sp, #16\n"                                                                         \
        "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n")

__attribute__((naked, noinline, aligned(4))) static void
dot_rows(const int8_t *w UNUSED, uint32_t stride UNUSED, const uint32_t *x UNUSED, const uint32_t *x_end UNUSED,
         int32_t *acc UNUSED, int32_t *acc_end UNUSED, uint32_t first UNUSED)
{
    DOT_ROWS(FROM_ZERO, ONE_ROW);
}

/* (w0 + x1) (w1 + x0) = w0 x0 + w1 x1 + w0 w1 + x0 x1 for each pair of columns: two multiplications in one. acc gets
 * the sums of all four modulo 2^32, and begin[r] + all. */
__attribute__((naked, noinline, aligned(4))) static void
dot_rows_paired(const int8_t *w UNUSED, uint32_t stride UNUSED, const uint32_t *x UNUSED, const uint32_t *x_end UNUSED,
                int32_t *acc UNUSED, int32_t *acc_end UNUSED, uint32_t first UNUSED, const int32_t *begin UNUSED,
                int32_t all UNUSED)
{
    DOT_ROWS(FROM_BEGIN, ONE_ROW_PAIRED);
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

/* Three rows at a time over laid-out inputs, as far as they go; the last three may have been among those before. pairs:
 * NULL, or what the rows begin with besides `all`. */
static void multiply_rows(const int8_t *w, uint32_t rows, uint32_t stride, const uint32_t *x, uint32_t cols,
                          const int32_t *pairs, int32_t all, int32_t *acc)
{
    uint32_t from = 0, to = rows / 3u * 3u, first = (cols / 8u - 1u) % 8u + 1u;
    const uint32_t *end = x + cols / 2u;
    for (;;) {
        const int8_t *row = w + from * stride;
        if (pairs != NULL) {
            dot_rows_paired(row, stride, x, end, acc + from, acc + to, first, pairs + from, all);
        } else {
            dot_rows(row, stride, x, end, acc + from, acc + to, first);
        }
        if (to == rows) {
            return;
        }
        from = rows - 3u;
        to = rows;
    }
}

static int fits(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride)
{
    return (((uintptr_t)w | stride) & 3u) == 0 && rows >= 3u && cols >= 8u && cols <= MOST_COLS;
}

/* x in the order that the rows are multiplied in, eight inputs at a time. Returns -(the sum of
 * x0 x1) of their pairs. */
static int32_t lay_out(const int16_t *x, uint32_t n, uint32_t *out)
{
    int32_t all = 0;
    for (const int16_t *end = x + n; x < end;) {
        __asm__("ldmia %[x]!, {r4, r5, r6, r8}\n\t"
                "pkhbt r9, r4, r5, lsl #16\n\t"
                "pkhtb r10, r5, r4, asr #16\n\t"
                "pkhbt r4, r6, r8, lsl #16\n\t"
                "pkhtb r5, r8, r6, asr #16\n\t"
                "smlad %[all], r9, r10, %[all]\n\t"
                "smlad %[all], r4, r5, %[all]\n\t"
                "strd r9, r10, [%[out]], #8\n\t"
                "strd r4, r5, [%[out]], #8"
                : [x] "+r"(x), [out] "+r"(out), [all] "+r"(all)
                :
                : "r4", "r5", "r6", "r8", "r9", "r10", "memory");
    }
    return (int32_t)(0u - (uint32_t)all);
}

static void matvec_s16_paired(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                              const int32_t *pairs, int32_t *acc)
{
    uint32_t paired[MOST_COLS / 2u];
    if (!fits(w, rows, cols, stride) || ((uintptr_t)x & 3u) != 0) {
        for (uint32_t r = 0; r < rows; r++, w += stride) {
            acc[r] = dot(w, x, cols);
        }
        return;
    }
    uint32_t whole = cols & ~7u;
    int32_t all = lay_out(x, whole, paired);
    multiply_rows(w, rows, stride, paired, whole, whole == cols ? pairs : NULL, all, acc);
    for (uint32_t r = 0; r < rows && whole < cols; r++) {
        acc[r] += dot(w + r * stride + whole, x + whole, cols - whole);
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    matvec_s16_paired(w, rows, cols, stride, x, NULL, acc);
}

static void matvec_s8_paired(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                             const int32_t *pairs, int32_t *acc)
{
    uint32_t paired[MOST_COLS / 2u];
    int32_t all = 0;
    if (!fits(w, rows, cols, stride) || cols % 8u != 0) {
        ehmn_kernels_rows_matvec_s8(w, rows, cols, stride, x, acc);
        return;
    }
    for (uint32_t *out = paired, *end = paired + cols / 2u; out < end; x += 4, out += 2) {
        uint32_t four = load(x);
        out[0] = even(four);
        out[1] = odd(four);
        all = multiply_add(out[0], out[1], all);
    }
    multiply_rows(w, rows, stride, paired, cols, pairs, -all, acc);
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    matvec_s8_paired(w, rows, cols, stride, x, NULL, acc);
}

const int16_t *ehmn_dsp_negate16(int32_t *weights, uint32_t n)
{
    const int32_t *in = weights, *end = weights + (n & ~7u);
    uint32_t *out = (uint32_t *)(void *)weights;
    while (in < end) { /* each word is read before it is written */
        __asm__("ldmia %[in]!, {r4, r5, r6, r8}\n\t"
                "pkhbt r4, r4, r5, lsl #16\n\t"
                "pkhbt r6, r6, r8, lsl #16\n\t"
                "ldmia %[in]!, {r5, r8, r9, r10}\n\t"
                "pkhbt r5, r5, r8, lsl #16\n\t"
                "pkhbt r9, r9, r10, lsl #16\n\t"
                "ssub16 r4, %[zero], r4\n\t"
                "ssub16 r6, %[zero], r6\n\t"
                "ssub16 r5, %[zero], r5\n\t"
                "ssub16 r9, %[zero], r9\n\t"
                "strd r4, r6, [%[out]], #8\n\t"
                "strd r5, r9, [%[out]], #8\n\t"
                : [in] "+r"(in), [out] "+r"(out)
                : [zero] "r"(0)
                : "r4", "r5", "r6", "r8", "r9", "r10", "cc", "memory");
    }
    for (uint32_t i = 0; i < (n & 7u); i++) {
        int32_t minus = -in[i];
        __builtin_memcpy((int8_t *)out + 2u * i, &minus, 2); /* the lower half */
    }
    return (const int16_t *)(const void *)weights;
}

/* clang-format off */
/* Four values as 16 bits; SSAT sets the flag Q where one is beyond +-2^14. */
#define FIT_FOUR \
    "ldmia %[v]!, {r4, r5, r6, r8}\n"       \
    "ssat r4, #15, r4\n"                    \
    "ssat r5, #15, r5\n"                    \
    "ssat r6, #15, r6\n"                    \
    "ssat r8, #15, r8\n"                    \
    "pkhbt r4, r4, r5, lsl #16\n"           \
    "pkhbt r5, r6, r8, lsl #16\n"
#define ADD_BIAS(two) \
    "ldr r6, [%[bias]], #4\n"               \
    "smlawb r8, %[gain], r6, %[half]\n"     \
    "smlawt r6, %[gain], r6, %[half]\n"     \
    "pkhtb r8, r6, r8, asr #16\n"           \
    "sadd16 " two ", " two ", r8\n"
#define KEEP_LARGER(two) \
    "ssub16 r6, " two ", %[largest]\n"      \
    "sel %[largest], " two ", %[largest]\n"
#define FIT_ALL(add_biases) \
    __asm__ volatile("msr apsr_nzcvq, %[flags]\n"                                                       \
                     "1:\n"                                                                             \
                     FIT_FOUR add_biases KEEP_LARGER("r4") KEEP_LARGER("r5")                            \
                     "strd r4, r5, [%[out]], #8\n"                                                      \
                     "cmp %[v], %[end]\n"                                                               \
                     "bne 1b\n"                                                                         \
                     "mrs %[flags], apsr\n"                                                             \
                     : [v] "+r"(v), [bias] "+r"(bias), [out] "+r"(out), [largest] "+r"(largest),        \
                       [flags] "+r"(flags)                                                              \
                     : [end] "r"(v + (n & ~3u)), [gain] "r"(gain * (1 << 12)), [half] "r"(1 << 15)      \
                     : "r4", "r5", "r6", "r8", "cc", "memory")
/* clang-format on */

/* Without a look at the limits of 16 bits: a value within 2^14 and a bias times less than a quarter stay far from them.
 * Where that does not hold, all is done once more. */
static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    const int32_t *first = v;
    const int16_t *first_bias = bias;
    int16_t *first_out = out;
    uint32_t largest = 0x80008000u, flags = 0;
    if (n < 4u || gain >= 1 << 18 || ((uintptr_t)out & 3u) != 0) {
        return ehmn_kernels_cortex_m_fit(v, bias, gain, n, max, out);
    }
    if (bias == NULL) {
        FIT_ALL("");
    } else {
        FIT_ALL(ADD_BIAS("r4") ADD_BIAS("r5"));
    }
    if ((flags >> 27 & 1u) != 0) {
        return ehmn_kernels_cortex_m_fit(first, first_bias, gain, n, max, first_out);
    }
    int32_t low = (int16_t)largest, high = (int32_t)largest >> 16;
    max = low > max ? low : max;
    max = high > max ? high : max;
    return ehmn_kernels_cortex_m_fit(v, bias, gain, n & 3u, max, out);
}

/* clang-format off */
/* The steps of four weights, into `a`: the upper bytes of their places on the line, less those
 * of the weights before. */
#define FOUR_STEPS(a, b, c, d) \
    "ldmia %[edge]!, {" a ", " b ", " c ", " d "}\n"     \
    "mla " a ", " a ", %[rate], %[at]\n"                 \
    "mla " b ", " b ", %[rate], %[at]\n"                 \
    "mla " c ", " c ", %[rate], %[at]\n"                 \
    "mla " d ", " d ", %[rate], %[at]\n"                 \
    "pkhtb " c ", " c ", " a ", asr #16\n"               \
    "pkhtb " d ", " d ", " b ", asr #16\n"               \
    "bic " d ", " d ", #0x00FF00FF\n"                    \
    "uxtab16 " a ", " d ", " c ", ror #8\n"              \
    "orr " b ", %[before], " a ", lsl #8\n"              \
    "lsr %[before], " a ", #24\n"                        \
    "usub8 " a ", " a ", " b "\n"

/* d steps up, or where the sign is -1 down: -d - 1 is added, with saturation, and then one, so that
 * none goes below -127. */
#define MOVE_FOUR(w, steps, sign) \
    "eor " steps ", " steps ", " sign "\n" \
    "qadd8 " w ", " w ", " steps "\n" \
    "usub8 " w ", " w ", " sign "\n"

#define EIGHT_STEPS(turn) \
    __asm__ volatile(FOUR_STEPS("r4", "r5", "r6", "r8")                                                    \
                     FOUR_STEPS("r5", "r6", "r8", "r9")                                                    \
                     "ldrd r6, r8, [%[sign]], #8\n"                                                        \
                     turn                                                                                   \
                     "ldrd r9, r10, [%[w]]\n"                                                              \
                     MOVE_FOUR("r9", "r4", "r6") MOVE_FOUR("r10", "r5", "r8")                               \
                     "strd r9, r10, [%[w]], #8\n"                                                          \
                     : [w] "+r"(w), [edge] "+r"(edge), [sign] "+r"(sign), [before] "+r"(before)            \
                     : [rate] "r"(rate), [at] "r"(at)                                                       \
                     : "r4", "r5", "r6", "r8", "r9", "r10", "cc", "memory")
/* clang-format on */

static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    uint32_t before = 0, eights = (((uintptr_t)w | (uintptr_t)sign) & 3u) == 0 ? n & ~7u : 0u;
    const int8_t *end = w + eights;
    while (flip == 0 && w < end) {
        EIGHT_STEPS("");
    }
    while (w < end) {
        EIGHT_STEPS("mvn r6, r6\nmvn r8, r8\n");
    }
    if (eights < n) { /* counted from where the eights ended */
        ehmn_kernels_rows_step_row(w, edge, sign, flip, n - eights, rate, at - (before << 24));
    }
}

const ehmn_kernels ehmn_kernels_dsp = {
    .name = "dsp",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_rows_matvec_s4,
    .scale = ehmn_kernels_cortex_m_scale,
    .step_row = step_row,
    .few_steps = 7u,
    .exp_sum = ehmn_kernels_cortex_m_exp_sum,
    .soften = ehmn_kernels_cortex_m_soften,
    .gate = ehmn_kernels_cortex_m_gate,
    .fit = fit,
    .nearest = ehmn_kernels_cortex_m_nearest,
    .matvec_s8_paired = matvec_s8_paired,
    .matvec_s16_paired = matvec_s16_paired,
};

#endif
