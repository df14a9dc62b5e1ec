/* Several vectors at once with Advanced SIMD: a register holds a column of eight rows, which one lane of a vector
 * multiplies, so that nothing is left to be summed. For this rows are laid out anew, 256 columns at a time; the more
 * vectors, the less that matters. */
#include "kernels_blocks.h"

#if defined(EHMN_NEON)

#include "kernels_neon_blocks.h"

#include <string.h>

#define ROWS 32u /* at a time, while their weights are near */
#define COLS 256u

/* column[0..7]: eight columns of eight rows. */
static inline void lay_out8(const int8_t *w, size_t stride, int16x8_t *column)
{
    int8x16_t r[8], four[4], two[4], one[4];
    for (uint32_t k = 0; k < 8u; k++, w += stride) {
        r[k] = vcombine_s8(vld1_s8(w), vdup_n_s8(0));
    }
    for (uint32_t k = 0; k < 4u; k++) {
        four[k] = vzip1q_s8(r[k], r[k + 4u]); /* rows k and k + 4, column by column */
    }
    two[0] = vzip1q_s8(four[0], four[2]);
    two[1] = vzip2q_s8(four[0], four[2]);
    two[2] = vzip1q_s8(four[1], four[3]);
    two[3] = vzip2q_s8(four[1], four[3]);
    one[0] = vzip1q_s8(two[0], two[2]);
    one[1] = vzip2q_s8(two[0], two[2]);
    one[2] = vzip1q_s8(two[1], two[3]);
    one[3] = vzip2q_s8(two[1], two[3]);
    for (uint32_t k = 0; k < 4u; k++) {
        column[2u * k] = vmovl_s8(vget_low_s8(one[k]));
        column[2u * k + 1u] = vmovl_high_s8(one[k]);
    }
}

/* Eight rows, of which `rows` are there: column[c] holds column c of all of them, zeros beyond rows and columns. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, int16x8_t *column)
{
    for (; rows >= 8u && cols >= 8u; cols -= 8u, w += 8, column += 8) {
        lay_out8(w, stride, column);
    }
    while (cols > 0) {
        int8_t some[8][8] = {{0}};
        uint32_t count = cols < 8u ? cols : 8u;
        for (uint32_t r = 0; r < 8u && r < rows; r++) {
            memcpy(some[r], w + r * stride, count);
        }
        lay_out8(some[0], 8u, column);
        cols -= count;
        w += count;
        column += 8;
    }
}

#define ONE_COLUMN(k)                                                               \
    do {                                                                            \
        int16x8_t w = column[k];                                                    \
        for (uint32_t t = 0; t < most; t++) {                                       \
            s[t][0] = vmlal_laneq_s16(s[t][0], vget_low_s16(w), v[t], (k));         \
            s[t][1] = vmlal_high_laneq_s16(s[t][1], w, v[t], (k));                  \
        }                                                                           \
    } while (0)

/* s[t] += eight rows times vector t, of `cols` columns, a multiple of eight. */
EHMN_INTO static inline void multiply(const int16x8_t *column, uint32_t cols, const int16_t *const *x,
                                      const uint32_t most,
                                      int32x4_t (*s)[2])
{
    for (uint32_t c = 0; c < cols; c += 8u, column += 8) {
        int16x8_t v[TOKENS];
        for (uint32_t t = 0; t < most; t++) {
            v[t] = vld1q_s16(x[t] + c);
        }
        ONE_COLUMN(0);
        ONE_COLUMN(1);
        ONE_COLUMN(2);
        ONE_COLUMN(3);
        ONE_COLUMN(4);
        ONE_COLUMN(5);
        ONE_COLUMN(6);
        ONE_COLUMN(7);
    }
}

/* Rows that are laid out times up to `most` vectors; `add`: to what is there. */
EHMN_INTO static inline void multiply_rows(int16x8_t (*column)[COLS], uint32_t rows, uint32_t cols,
                                           const int16_t *const *x, uint32_t tokens, const uint32_t most, int add,
                                           int32_t *acc, size_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += 8u, column++) {
        int32x4_t s[TOKENS][2];
        for (uint32_t t = 0; t < most; t++) {
            s[t][0] = s[t][1] = vdupq_n_s32(0);
        }
        multiply(*column, cols, x, most, s);
        put_eights(s, tokens, most, rows - r, add, acc + r, acc_stride);
    }
}

/* Up to ROWS rows and COLS columns. Vectors of whole eights are read where they are. */
static void block(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                  size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    int16x8_t column[ROWS / 8u][COLS];
    int16_t padded[TOKENS][COLS];
    const int16_t *v[TOKENS];
    uint32_t whole = (cols + 7u) & ~7u;
    for (uint32_t r = 0; r < rows; r += 8u) {
        lay_out(w + r * stride, rows - r, cols, stride, column[r / 8u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS, x += TOKENS * x_stride, acc += TOKENS * acc_stride) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        for (uint32_t k = 0; k < TOKENS; k++) {
            v[k] = x + (k < tokens ? k : 0u) * x_stride;
            if (whole > cols) {
                memset(padded[k] + whole - 8u, 0, 16u);
                v[k] = memcpy(padded[k], v[k], 2u * cols);
            }
        }
        if (tokens > TOKENS / 2u) {
            multiply_rows(column, rows, whole, v, tokens, TOKENS, add, acc, acc_stride);
        } else {
            multiply_rows(column, rows, whole, v, tokens, TOKENS / 2u, add, acc, acc_stride);
        }
    }
}

void ehmn_kernels_neon_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(block, ROWS, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_neon_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * COLS];
    ehmn_matmat_s4(block, ROWS, COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

/* Vectors of 8 bits: four rows times four of them, sixteen columns at a time, as in matvec_s8. */
#define TILE 4u
#define ROWS8 64u

/* sum[t]: four rows times vector t, of `cols` columns, a multiple of 16; the first stands in
 * for those beyond `rows`. */
static inline void tile(const int8_t *w, uint32_t rows, size_t stride, const int8_t *const *x, uint32_t cols,
                        int32x4_t *sum)
{
    const int8_t *w1 = w + (rows > 1u ? stride : 0u), *w2 = w + (rows > 2u ? 2u * stride : 0u);
    const int8_t *w3 = w + (rows > 3u ? 3u * stride : 0u);
    int32x4_t s[TILE][TILE];
    for (uint32_t t = 0; t < TILE; t++) {
        s[t][0] = s[t][1] = s[t][2] = s[t][3] = vdupq_n_s32(0);
    }
    for (size_t c = 0; c < cols; c += 16u) {
        int8x16_t row[TILE] = {vld1q_s8(w + c), vld1q_s8(w1 + c), vld1q_s8(w2 + c), vld1q_s8(w3 + c)};
        for (uint32_t t = 0; t < TILE; t++) {
            int8x16_t v = vld1q_s8(x[t] + c);
            __asm__ volatile("" : "+w"(v)); /* or the compiler begins all vectors first, and runs out of registers */
            for (uint32_t r = 0; r < TILE; r++) {
                int16x8_t two = vmull_s8(vget_low_s8(row[r]), vget_low_s8(v));
                __asm__("" : "+w"(two)); /* it becomes the next one in its place */
                s[t][r] = vpadalq_s16(s[t][r], vmlal_high_s8(two, row[r], v));
            }
        }
    }
    for (uint32_t t = 0; t < TILE; t++) {
        sum[t] = vpaddq_s32(vpaddq_s32(s[t][0], s[t][1]), vpaddq_s32(s[t][2], s[t][3]));
    }
}

/* acc += the columns from c on, which fill no register. */
static __attribute__((noinline)) void add_rest(const int8_t *w, uint32_t rows, size_t stride, const int8_t *const *x,
                                               uint32_t tokens, uint32_t c, uint32_t cols, int32_t *acc,
                                               size_t acc_stride)
{
    for (uint32_t t = 0; t < tokens; t++, acc += acc_stride) {
        for (uint32_t r = 0; r < rows; r++) {
            for (uint32_t i = c; i < cols; i++) {
                acc[r] += w[r * stride + i] * x[t][i];
            }
        }
    }
}

/* Up to ROWS8 rows of a width that single vectors stay in registers for, which is still better. */
static void one_by_one(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, uint32_t n,
                       size_t x_stride, int32_t *acc, size_t acc_stride)
{
    for (uint32_t t = 0; t < n; t++, x += x_stride, acc += acc_stride) {
        ehmn_kernels_neon.matvec_s8(w, rows, cols, stride, x, acc);
    }
}

/* Up to ROWS8 rows. */
static void rows_of_bytes(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                          size_t x_stride, int32_t *acc, size_t acc_stride)
{
    uint32_t whole = cols & ~15u;
    for (uint32_t t = 0; t < n; t += TILE, x += TILE * x_stride, acc += TILE * acc_stride) {
        uint32_t tokens = n - t < TILE ? n - t : TILE;
        const int8_t *v[TILE], *at = w;
        for (uint32_t k = 0; k < TILE; k++) {
            v[k] = x + (k < tokens ? k : 0u) * x_stride;
        }
        for (uint32_t r = 0; r < rows; r += TILE, at += TILE * stride) {
            int32x4_t sum[TILE];
            tile(at, rows - r, stride, v, whole, sum);
            if (tokens == TILE && rows - r >= TILE) {
                int32_t *out = acc + r;
                for (uint32_t k = 0; k < TILE; k++, out += acc_stride) {
                    vst1q_s32(out, sum[k]);
                }
                continue;
            }
            int32_t some[TILE * TILE];
            for (uint32_t k = 0; k < TILE; k++) {
                vst1q_s32(some + TILE * k, sum[k]);
            }
            put_some(some, TILE, tokens, rows - r, 0, acc + r, acc_stride);
        }
        if (whole < cols) {
            add_rest(w, rows, stride, v, tokens, whole, cols, acc, acc_stride);
        }
    }
}

void ehmn_kernels_neon_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    const int8_t *row = w;
    for (uint32_t r = 0; r < rows; r += ROWS8, row += (size_t)ROWS8 * stride) {
        uint32_t some = rows - r < ROWS8 ? rows - r : ROWS8;
        if (cols == 128u && stride == 128u) {
            one_by_one(row, some, cols, stride, x, n, x_stride, acc + r, acc_stride);
        } else {
            rows_of_bytes(row, some, cols, stride, x, n, x_stride, acc + r, acc_stride);
        }
    }
}

#endif
