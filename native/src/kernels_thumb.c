/* Cortex-M without the DSP extension (M3): six rows share each input, eight columns each weight, and no register is
 * spilled, which compilers do not manage. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_THUMB)

#define MOST_COLS 384u /* inputs of 8 bits that are made longer on the stack */
#define UNUSED __attribute__((unused))

/* clang-format off */
/* Two rows, at `row` and at the stride behind it: the one behind comes first, before `row` moves on. */
#define TWO_ROWS(row, sum, sum_behind) \
    "ldrsb r12, [" row ", r1]\n"                           \
    "mla " sum_behind ", r12, r11, " sum_behind "\n"       \
    "ldrsb r12, [" row "], #1\n"                           \
    "mla " sum ", r12, r11, " sum "\n"
#define COLUMN \
    "ldrsh r11, [r3], #2\n" TWO_ROWS("r0", "r5", "r6") TWO_ROWS("r2", "r7", "r8") TWO_ROWS("r4", "r9", "r10")
#define EIGHT_COLUMNS COLUMN COLUMN COLUMN COLUMN COLUMN COLUMN COLUMN COLUMN

/* acc[0..5] of six rows at a time, up to acc_end: r0, r2, r4 are every other row, r1 the stride, r3 the inputs, r5 to
 * r10 the sums. Sixteen columns between two looks at x_end; odd: the first round has eight. */
__attribute__((naked, noinline)) static void
dot_rows(const int8_t *w UNUSED, uint32_t stride UNUSED, const int16_t *x UNUSED, const int16_t *x_end UNUSED,
         int32_t *acc UNUSED, int32_t *acc_end UNUSED, uint32_t odd UNUSED)
{
    __asm__ volatile(
        "push {r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
        "1:\n"
        "ldr r0, [sp]\n"
        "ldrd r1, r3, [sp, #4]\n"
        "add r2, r0, r1, lsl #1\n"
        "add r4, r2, r1, lsl #1\n"
        "add r5, r4, r1, lsl #1\n"
        "str r5, [sp]\n"
        "ldr lr, [sp, #12]\n"
        "ldr r11, [sp, #60]\n"
        "mov r5, #0\n"
        "mov r6, #0\n"
        "mov r7, #0\n"
        "mov r8, #0\n"
        "mov r9, #0\n"
        "mov r10, #0\n"
        "cmp r11, #0\n"
        "bne 3f\n"
        "2:\n" EIGHT_COLUMNS "3:\n" EIGHT_COLUMNS
        "cmp r3, lr\n"
        "bne 2b\n"
        "ldrd r11, r12, [sp, #52]\n"
        "stmia r11!, {r5, r6, r7, r8, r9, r10}\n"
        "str r11, [sp, #52]\n"
        "cmp r11, r12\n"
        "bne 1b\n"
        "add sp, sp, #16\n"
        "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}

#define WEIGHT(column, sum) "ldrsb lr, [r0, #" column "]\n" "mla " sum ", lr, r12, " sum "\n"
#define ROW \
    "ldr r12, [r2], #4\n"                                                                   \
    WEIGHT("0", "r4") WEIGHT("1", "r5") WEIGHT("2", "r6") WEIGHT("3", "r7")                 \
    WEIGHT("4", "r8") WEIGHT("5", "r9") WEIGHT("6", "r10") WEIGHT("7", "r11")               \
    "add r0, r0, r1\n"

/* acc[0..7] of eight columns, for factors from `factor` to `end`, at least one. */
__attribute__((naked, noinline)) static void
sum_eight(const int8_t *w UNUSED, uint32_t stride UNUSED, const int32_t *factor UNUSED, const int32_t *end UNUSED,
          int32_t *acc UNUSED)
{
    __asm__ volatile(
        "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
        "sub r12, r3, r2\n"
        "mov r4, #0\n"
        "mov r5, #0\n"
        "mov r6, #0\n"
        "mov r7, #0\n"
        "mov r8, #0\n"
        "mov r9, #0\n"
        "mov r10, #0\n"
        "mov r11, #0\n"
        "tst r12, #4\n" /* an odd number begins in the middle */
        "bne 3f\n"
        "2:\n" ROW "3:\n" ROW
        "cmp r2, r3\n"
        "bne 2b\n"
        "ldr r12, [sp, #36]\n"
        "stmia r12, {r4, r5, r6, r7, r8, r9, r10, r11}\n"
        "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n");
}
/* clang-format on */

/* Two rows by plain C, added to acc; the second may be the first once more. */
static void dot_two(const int8_t *w, const int8_t *second, const int16_t *x, uint32_t cols, int32_t *acc)
{
    int32_t s0 = 0, s1 = 0;
    for (const int16_t *end = x + cols; x < end; x++) {
        s0 += *w++ * *x;
        s1 += *second++ * *x;
    }
    acc[0] += s0;
    acc[1] += s1;
}

/* What six rows at a time do not cover: columns beyond a multiple of eight, and rows beyond one of six. */
static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t whole = cols & ~7u, sixes = whole > 0 ? rows / 6u * 6u : 0u;
    if (sixes > 0) {
        dot_rows(w, stride, x, x + whole, acc, acc + sixes, whole & 8u);
    }
    for (uint32_t r = whole < cols ? 0u : sixes; r < rows; r += 2u) {
        uint32_t done = r < sixes ? whole : 0u, last = r + 1u == rows;
        int32_t sum[2] = {done > 0 ? acc[r] : 0, done > 0 && !last ? acc[r + 1u] : 0};
        const int8_t *row = w + r * stride + done;
        dot_two(row, last ? row : row + stride, x + done, cols - done, sum);
        acc[r] = sum[0];
        if (!last) {
            acc[r + 1u] = sum[1];
        }
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    int16_t longer[MOST_COLS];
    if (cols > MOST_COLS) {
        ehmn_kernels_rows_matvec_s8(w, rows, cols, stride, x, acc);
        return;
    }
    for (uint32_t c = 0; c < cols; c++) {
        longer[c] = x[c];
    }
    matvec_s16(w, rows, cols, stride, longer, acc);
}

static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint32_t c = 0;
    for (; c + 8u <= cols && rows > 0; c += 8u) {
        sum_eight(w + c, stride, weight, weight + rows, acc + c);
    }
    ehmn_kernels_rows_weighted_sum(w + c, rows, cols - c, stride, weight, acc + c);
}

/* clang-format off */
/* Four weights at a time up to `end`, as bytes of a word, with 128 added so that none borrows from the next: steps are
 * the upper bytes of their places on the line, less those of the weights before. Ends at a word in which a weight is
 * not within -96..95, so that a step might carry it beyond 127. */
#define STEP_FOURS(which) \
    __asm__ volatile("1:\n\t"                                                                          \
                     "ldmia %[edge]!, {r4, r5, r6, r8}\n\t"                                            \
                     "mla r4, r4, %[rate], %[at]\n\t"                                                  \
                     "mla r5, r5, %[rate], %[at]\n\t"                                                  \
                     "mla r6, r6, %[rate], %[at]\n\t"                                                  \
                     "mla r8, r8, %[rate], %[at]\n\t"                                                  \
                     "lsr r4, r4, #24\n\t"                                                             \
                     "lsr r5, r5, #24\n\t"                                                             \
                     "lsr r6, r6, #24\n\t"                                                             \
                     "lsr r8, r8, #24\n\t"                                                             \
                     "orr r4, r4, r5, lsl #8\n\t"                                                      \
                     "orr r4, r4, r6, lsl #16\n\t"                                                     \
                     "orr r4, r4, r8, lsl #24\n\t"                                                     \
                     "orr r5, %[before], r4, lsl #8\n\t"                                               \
                     "mov %[before], r8\n\t"                                                           \
                     "sub %[steps], r4, r5\n\t"                                                        \
                     "ldr r4, [%[sign]], #4\n\t"                                                       \
                     "ldr r5, [%[w]]\n\t"                                                              \
                     which " %[down], %[steps], r4\n\t"                                                \
                     "eor r5, r5, #0x80808080\n\t"                                                     \
                     "eor r4, r5, r5, lsl #1\n\t"                                                      \
                     "eor r6, r5, r5, lsl #2\n\t"                                                      \
                     "orr r4, r4, r6\n\t"                                                              \
                     "mvn r4, r4\n\t"                                                                  \
                     "tst r4, #0x80808080\n\t"                                                         \
                     "bne 2f\n\t"                                                                      \
                     "add r5, r5, %[steps]\n\t"                                                        \
                     "sub r5, r5, %[down], lsl #1\n\t"                                                 \
                     "eor r5, r5, #0x80808080\n\t"                                                     \
                     "str r5, [%[w]], #4\n\t"                                                          \
                     "cmp %[w], %[end]\n\t"                                                            \
                     "bne 1b\n"                                                                        \
                     "2:"                                                                              \
                     : [w] "+r"(w), [edge] "+r"(edge), [sign] "+r"(sign), [before] "+r"(before),       \
                       [steps] "=&r"(steps), [down] "=&r"(down)                                        \
                     : [rate] "r"(rate), [at] "r"(at), [end] "r"(end)                                  \
                     : "r4", "r5", "r6", "r8", "cc", "memory")
/* clang-format on */

static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    uint32_t before = 0, steps, down, fours = n & ~3u;
    if (n == 0 || (uint64_t)rate * edge[n - 1u] + at > UINT32_MAX) {
        fours = 0;
    }
    for (const int8_t *end = w + fours; w < end;) {
        if (flip == 0) {
            STEP_FOURS("and");
        } else {
            STEP_FOURS("bic");
        }
        for (uint32_t k = 0; k < 4u && w < end; k++, w++, steps >>= 8, down >>= 8) { /* byte by byte */
            *w = (int8_t)ehmn_clamp(*w + (int32_t)(steps & 255u) - 2 * (int32_t)(down & 255u), -127, 127);
        }
    }
    /* from where the fours ended */
    ehmn_kernels_rows_step_row(w, edge, sign, flip, n - fours, rate, at - (before << 24));
}

/* clang-format off */
/* SSAT sets the flag Q where a value is beyond +-2^14. */
#define FIT(v, add_bias) \
    "ssat " v ", #15, " v "\n\t"               \
    add_bias(v)                                 \
    "cmp " v ", %[max]\n\t"                    \
    "it gt\n\t"                                \
    "movgt %[max], " v "\n\t"                  \
    "strh " v ", [%[out]], #2\n\t"
#define NO_BIAS(v)
#define ADD_BIAS(v) /* times the gain, rounded: the upper word takes it and the carry of the half in the lower one */ \
    "ldrsh r6, [%[bias]], #2\n\t"              \
    "mov r8, #0x80000000\n\t"                  \
    "smlal r8, " v ", r6, %[gain]\n\t"
#define FIT_ALL(add_bias) \
    __asm__ volatile("msr apsr_nzcvq, %[flags]\n"                                                       \
                     "1:\n\t"                                                                           \
                     "ldrd r4, r5, [%[v]], #8\n\t" FIT("r4", add_bias) FIT("r5", add_bias)              \
                     "ldrd r4, r5, [%[v]], #8\n\t" FIT("r4", add_bias) FIT("r5", add_bias)              \
                     "cmp %[v], %[end]\n\t"                                                             \
                     "bne 1b\n\t"                                                                       \
                     "mrs %[flags], apsr"                                                               \
                     : [v] "+r"(v), [bias] "+r"(bias), [out] "+r"(out), [max] "+r"(largest),            \
                       [flags] "+r"(flags)                                                              \
                     : [end] "r"(v + (n & ~3u)), [gain] "r"(gain * (1 << 12))                           \
                     : "r4", "r5", "r6", "r8", "cc", "memory")
/* clang-format on */

/* Without a look at the limits of 16 bits: a value within 2^14 and a bias times less than a quarter stay far from them.
 * Where that does not hold, all is done once more. */
static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    const int32_t *first = v;
    const int16_t *first_bias = bias;
    int16_t *first_out = out;
    int32_t largest = max;
    uint32_t flags = 0;
    if (n < 4u || gain >= 1 << 18) {
        return ehmn_kernels_cortex_m_fit(v, bias, gain, n, max, out);
    }
    if (bias == NULL) {
        FIT_ALL(NO_BIAS);
    } else {
        FIT_ALL(ADD_BIAS);
    }
    if ((flags >> 27 & 1u) != 0) {
        return ehmn_kernels_cortex_m_fit(first, first_bias, gain, n, max, first_out);
    }
    return ehmn_kernels_cortex_m_fit(v, bias, gain, n & 3u, largest, out);
}

const ehmn_kernels ehmn_kernels_thumb = {
    .name = "thumb",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_rows_matvec_s4,
    .weighted_sum = weighted_sum,
    .scale = ehmn_kernels_cortex_m_scale,
    .step_row = step_row,
    .few_steps = 8u,
    .exp_sum = ehmn_kernels_cortex_m_exp_sum,
    .soften = ehmn_kernels_cortex_m_soften,
    .gate = ehmn_kernels_cortex_m_gate,
    .fit = fit,
    .nearest = ehmn_kernels_cortex_m_nearest,
};

#endif
