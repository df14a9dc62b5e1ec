/* Cortex-M without the DSP extension (M3): six rows share each input, eight columns each weight, and no register is
 * spilled, which compilers do not manage. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(EHMN_THUMB)

#define MOST_COLS 384u /* inputs of 8 bits that are made longer on the stack */
#define UNUSED __attribute__((unused))

static inline uint32_t load(const void *p)
{
    uint32_t v;
    __builtin_memcpy(&v, p, 4); /* one instruction at any address, in freestanding code, too */
    return v;
}

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

/* acc[0..5] of six rows at a time, up to acc_end: r0, r2, r4 are every other row, r1 the stride, r3 the inputs, r5 to r10
 * the sums. Sixteen columns between two looks at x_end; odd: the first round has eight. */
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

/* Four weights at a time, as bytes of a word, with 128 added so that none borrows from the next. A word in which a weight
 * is so large that a step might carry it beyond 127 is done byte by byte. */
static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    const uint32_t middle = 0x80808080u;
    uint32_t before = 0, fours = n & ~3u;
    if (n == 0 || (uint64_t)rate * edge[n - 1u] + at > UINT32_MAX || fours == 0) {
        ehmn_kernels_rows_step_row(w, edge, sign, flip, n, rate, at);
        return;
    }
    for (uint32_t j = 0; j < fours; j += 4u) {
        uint32_t p0 = at + rate * edge[j], p1 = at + rate * edge[j + 1u];
        uint32_t p2 = at + rate * edge[j + 2u], p3 = at + rate * edge[j + 3u];
        uint32_t now = p0 >> 24 | (p1 >> 24) << 8 | (p2 >> 24) << 16 | (p3 & 0xFF000000u);
        uint32_t steps = now - (now << 8 | before);
        uint32_t down = steps & (load(sign + j) ^ (uint32_t)flip);
        uint32_t four = load(w + j) ^ middle;
        before = now >> 24;
        if ((((four ^ four << 1) | (four ^ four << 2)) & middle) == middle) { /* all within 32..223 */
            four = (four + steps - 2u * down) ^ middle;
            __builtin_memcpy(w + j, &four, 4);
            continue;
        }
        for (uint32_t k = 0; k < 4u; k++, steps >>= 8, down >>= 8) {
            w[j + k] = (int8_t)ehmn_clamp(w[j + k] + (int32_t)(steps & 255u) - 2 * (int32_t)(down & 255u), -127, 127);
        }
    }
    if (fours < n) { /* counted from where the last four ended */
        ehmn_kernels_rows_step_row(w + fours, edge + fours, sign + fours, flip, n - fours, rate, at - (before << 24));
    }
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
    .fit = ehmn_kernels_cortex_m_fit,
    .find_near = ehmn_kernels_cortex_m_find_near,
};

#endif
