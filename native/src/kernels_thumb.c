/* Cortex-M without the DSP extension (M3): four rows share each input, and no register is spilled, which compilers
 * do not manage. The rest is plain C. */
#include "kernels_tables.h"

#include <stddef.h>

#if defined(EHMN_THUMB)

/* clang-format off */
#define COLUMN(load) \
    load "\n"                               \
    "ldrsb %[w], [%[a]], #1\n"              \
    "mla %[s0], %[w], %[v], %[s0]\n"        \
    "ldrsb %[w], [%[b]], #1\n"              \
    "mla %[s1], %[w], %[v], %[s1]\n"        \
    "ldrsb %[w], [%[c]], #1\n"              \
    "mla %[s2], %[w], %[v], %[s2]\n"        \
    "ldrsb %[w], [%[d]], #1\n"              \
    "mla %[s3], %[w], %[v], %[s3]\n"
#define EIGHT_COLUMNS(load) \
    COLUMN(load) COLUMN(load) COLUMN(load) COLUMN(load) COLUMN(load) COLUMN(load) COLUMN(load) COLUMN(load)

/* Rows a, b, c, d, eight columns at a time, at least eight. */
#define FOUR_ROWS(load) \
    __asm__ volatile(                                                                                    \
        "1:\n" EIGHT_COLUMNS(load)                                                                       \
        "cmp %[x], %[end]\n"                                                                             \
        "bne 1b\n"                                                                                       \
        : [a] "+&r"(a), [b] "+&r"(b), [c] "+&r"(c), [d] "+&r"(d), [x] "+&r"(in), [s0] "+&r"(s0),         \
          [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [v] "=&r"(v), [w] "=&r"(s)                     \
        : [end] "r"(end)                                                                                 \
        : "cc", "memory")
/* clang-format on */

static int32_t one_row8(const int8_t *w, const int8_t *x, uint32_t cols)
{
    int32_t sum = 0;
    for (uint32_t c = 0; c < cols; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

static int32_t one_row16(const int8_t *w, const int16_t *x, uint32_t cols)
{
    int32_t sum = 0;
    for (uint32_t c = 0; c < cols; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

static void four_rows8(const int8_t *a, uint32_t stride, const int8_t *x, uint32_t cols, int32_t *acc)
{
    const int8_t *b = a + stride, *c = b + stride, *d = c + stride;
    const int8_t *in = x, *end = x + cols;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, v, s;
    FOUR_ROWS("ldrsb %[v], [%[x]], #1");
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}

static void four_rows16(const int8_t *a, uint32_t stride, const int16_t *x, uint32_t cols, int32_t *acc)
{
    const int8_t *b = a + stride, *c = b + stride, *d = c + stride;
    const int16_t *in = x, *end = x + cols;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, v, s;
    FOUR_ROWS("ldrsh %[v], [%[x]], #2");
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    uint32_t whole = cols & ~7u;
    uint32_t r = 0;
    for (; whole > 0 && r + 4u <= rows; r += 4u) {
        four_rows8(w + r * stride, stride, x, whole, acc + r);
    }
    uint32_t begun = r;
    for (r = whole < cols ? 0u : begun; r < rows; r++) {
        const int8_t *row = w + r * stride;
        acc[r] = r < begun ? acc[r] + one_row8(row + whole, x + whole, cols - whole) : one_row8(row, x, cols);
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t whole = cols & ~7u;
    uint32_t r = 0;
    for (; whole > 0 && r + 4u <= rows; r += 4u) {
        four_rows16(w + r * stride, stride, x, whole, acc + r);
    }
    uint32_t begun = r;
    for (r = whole < cols ? 0u : begun; r < rows; r++) {
        const int8_t *row = w + r * stride;
        acc[r] = r < begun ? acc[r] + one_row16(row + whole, x + whole, cols - whole) : one_row16(row, x, cols);
    }
}

const ehmn_kernels ehmn_kernels_thumb = {
    "thumb",
    matvec_s8,
    matvec_s16,
    ehmn_kernels_rows_matvec_s4,
    ehmn_kernels_rows_weighted_sum,
    ehmn_kernels_rows_scale,
    ehmn_kernels_rows_step_row,
    ehmn_kernels_rows_exp_sum,
    ehmn_kernels_rows_soften,
    ehmn_kernels_rows_gate,
    ehmn_kernels_rows_fit,
    NULL,
    NULL,
};

#endif
