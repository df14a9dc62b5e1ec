/* Several vectors at once with Advanced SIMD: a register holds a column of eight rows, which one lane of a vector
 * multiplies, so that nothing is left to be summed. For this eight rows are laid out anew, 256 columns at a time; the
 * more vectors, the less that matters. */
#include "kernels_blocks.h"

#if defined(EHMN_NEON)

#include <arm_neon.h>
#include <string.h>

#define ROWS 8u /* laid out at a time */
#define COLS 256u
#define TOKENS 8u /* whose sums stay in registers */

/* Eight columns of a row, of which `some` are there, in the lower half. */
static inline int8x16_t load_columns(const int8_t *w, uint32_t some)
{
    int8_t part[8] = {0};
    if (some < 8u) {
        memcpy(part, w, some);
        w = part;
    }
    return vcombine_s8(vld1_s8(w), vdup_n_s8(0));
}

/* Lay out up to eight rows: column[c] holds column c of all of them, zeros beyond rows and columns. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, int16x8_t *column)
{
    for (uint32_t c = 0; c < cols; c += 8u, column += 8) {
        int8x16_t r[ROWS], four[4], two[4], one[4];
        for (uint32_t k = 0; k < ROWS; k++) {
            r[k] = k < rows ? load_columns(w + k * stride + c, cols - c) : vdupq_n_s8(0);
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
}

#define ONE_COLUMN(k)                                                            \
    do {                                                                         \
        int16x8_t w = column[c + (k)];                                           \
        for (uint32_t t = 0; t < TOKENS; t++) {                                  \
            low[t] = vmlal_laneq_s16(low[t], vget_low_s16(w), v[t], (k));        \
            high[t] = vmlal_high_laneq_s16(high[t], w, v[t], (k));               \
        }                                                                        \
    } while (0)

/* low[t], high[t]: eight rows times vector t. */
static inline void multiply(const int16x8_t *column, uint32_t cols, const int16_t *const *x, int32x4_t *low,
                            int32x4_t *high)
{
    for (uint32_t c = 0; c < cols; c += 8u) {
        int16x8_t v[TOKENS];
        for (uint32_t t = 0; t < TOKENS; t++) {
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

static void put(int32x4_t low, int32x4_t high, uint32_t rows, int32_t *acc)
{
    int32_t out[ROWS];
    vst1q_s32(rows == ROWS ? acc : out, low);
    vst1q_s32((rows == ROWS ? acc : out) + 4, high);
    if (rows < ROWS) {
        memcpy(acc, out, 4u * rows);
    }
}

static void get(const int32_t *acc, uint32_t rows, int32x4_t *low, int32x4_t *high)
{
    int32_t in[ROWS] = {0};
    memcpy(in, acc, 4u * rows);
    *low = vld1q_s32(in);
    *high = vld1q_s32(in + 4);
}

/* `add`: to what is there. */
static void rows8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                  size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    int16x8_t column[COLS];
    uint32_t whole = cols & ~7u;
    int16_t rest[TOKENS][8];
    lay_out(w, rows, cols, stride, column);
    for (uint32_t t = 0; t < n; t += TOKENS) {
        const int16_t *v[TOKENS], *end[TOKENS];
        int32x4_t low[TOKENS], high[TOKENS];
        for (uint32_t k = 0; k < TOKENS; k++) {
            uint32_t token = t + k < n ? t + k : t;
            v[k] = x + token * x_stride;
            end[k] = rest[k];
            memset(rest[k], 0, sizeof rest[k]);
            memcpy(rest[k], v[k] + whole, 2u * (cols - whole));
            get(acc + token * acc_stride, add ? rows : 0u, low + k, high + k);
        }
        multiply(column, whole, v, low, high);
        if (whole < cols) {
            multiply(column + whole, 8u, end, low, high);
        }
        for (uint32_t k = 0; k < TOKENS && t + k < n; k++) {
            put(low[k], high[k], rows, acc + (t + k) * acc_stride);
        }
    }
}

void ehmn_kernels_neon_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(rows8, ROWS, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_neon_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * COLS];
    ehmn_matmat_s4(rows8, ROWS, COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

/* Vectors of 8 bits: four rows times four of them, sixteen columns at a time, as in matvec_s8. */
#define TILE 4u

/* sum[t]: four rows times vector t, of `cols` columns, a multiple of 16. */
static inline void tile(const int8_t *const *w, const int8_t *const *x, uint32_t cols, int32x4_t *sum)
{
    int32x4_t s[TILE][TILE];
    for (uint32_t t = 0; t < TILE; t++) {
        s[t][0] = s[t][1] = s[t][2] = s[t][3] = vdupq_n_s32(0);
    }
    for (size_t c = 0; c < cols; c += 16u) {
        int8x16_t row[TILE];
        for (uint32_t r = 0; r < TILE; r++) {
            row[r] = vld1q_s8(w[r] + c);
        }
        for (uint32_t t = 0; t < TILE; t++) {
            int8x16_t v = vld1q_s8(x[t] + c);
            __asm__ volatile("" : "+w"(v)); /* or the compiler begins all vectors first, and runs out of registers */
            for (uint32_t r = 0; r < TILE; r++) {
                int16x8_t two = vmull_s8(vget_low_s8(row[r]), vget_low_s8(v));
                s[t][r] = vpadalq_s16(s[t][r], vmlal_high_s8(two, row[r], v));
            }
        }
    }
    for (uint32_t t = 0; t < TILE; t++) {
        sum[t] = vpaddq_s32(vpaddq_s32(s[t][0], s[t][1]), vpaddq_s32(s[t][2], s[t][3]));
    }
}

/* Add the columns that fill no register. */
static int32x4_t add_rest(int32x4_t sum, const int8_t *const *row, const int8_t *v, uint32_t c, uint32_t cols)
{
    int32_t out[TILE];
    vst1q_s32(out, sum);
    for (; c < cols; c++) {
        for (uint32_t r = 0; r < TILE; r++) {
            out[r] += row[r][c] * v[c];
        }
    }
    return vld1q_s32(out);
}

static void rows4_of_bytes(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                           size_t x_stride, int32_t *acc, size_t acc_stride)
{
    const int8_t *row[TILE], *v[TILE];
    uint32_t whole = cols & ~15u;
    for (uint32_t r = 0; r < TILE; r++) {
        row[r] = w + (r < rows ? r : 0u) * stride;
    }
    for (uint32_t t = 0; t < n; t += TILE) {
        int32x4_t sum[TILE];
        for (uint32_t k = 0; k < TILE; k++) {
            v[k] = x + (t + k < n ? t + k : t) * x_stride;
        }
        tile(row, v, whole, sum);
        for (uint32_t k = 0; k < TILE && t + k < n; k++, acc += acc_stride) {
            int32x4_t out = whole < cols ? add_rest(sum[k], row, v[k], whole, cols) : sum[k];
            if (rows >= TILE) {
                vst1q_s32(acc, out);
                continue;
            }
            int32_t some[TILE];
            vst1q_s32(some, out);
            memcpy(acc, some, 4u * rows);
        }
    }
}

void ehmn_kernels_neon_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    const int8_t *row = w;
    for (uint32_t r = 0; r < rows; r += TILE, row += (size_t)TILE * stride) {
        rows4_of_bytes(row, rows - r, cols, stride, x, n, x_stride, acc + r, acc_stride);
    }
}

#endif
