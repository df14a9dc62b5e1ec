/* aarch64 with dot products of bytes (FEAT_DotProd: A76, A78, Neoverse): an instruction multiplies sixteen bytes.
 * Inputs of 16 bits are split, x = 256 high + low, both bytes with a sign. What gains nothing is that of NEON. */
#include "fixed.h"
#include "kernels_tables.h"

#if defined(EHMN_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include "kernels_dot.h"
#include "vectors_neon_add.h"

#define COLS 512u /* split at a time */

/* Where less than sixteen columns are left, the last sixteen are taken once more, times zeros
 * where they were before. */

/* acc[r] += fewer columns than fill a register. */
RARE void add_few8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < cols; c++) {
            acc[r] += w[r * stride + c] * x[c];
        }
    }
}

RARE void add_few16(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < cols; c++) {
            acc[r] += w[r * stride + c] * x[c];
        }
    }
}

/* sum[r]: `rows` rows, at most 8, of `cols` columns, at least 16; last: the last sixteen of x that are left. */
static inline void products8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x,
                             int8x16_t last, int32x4_t *sum)
{
    const int8_t *row[8], *end = x + (cols & ~63u);
    uint32_t left = cols & 63u;
    for (uint32_t r = 0; r < rows; r++) {
        row[r] = w + r * stride;
        sum[r] = vdupq_n_s32(0);
    }
    for (; x < end; x += 64) {
        int8x16x4_t a = vld1q_s8_x4(x);
        for (uint32_t r = 0; r < rows; r++) {
            int8x16x4_t v = vld1q_s8_x4(row[r]);
            row[r] += 64;
            EHMN_KEEP_POINTER(row[r]);
            for (uint32_t k = 0; k < 4u; k++) {
                sum[r] = vdotq_s32(sum[r], v.val[k], a.val[k]);
            }
        }
    }
    for (uint32_t c = 0; c + 16u <= left; c += 16u) {
        int8x16_t a = vld1q_s8(x + c);
        for (uint32_t r = 0; r < rows; r++) {
            sum[r] = vdotq_s32(sum[r], vld1q_s8(row[r] + c), a);
        }
    }
    for (uint32_t r = 0; left % 16u != 0 && r < rows; r++) {
        sum[r] = vdotq_s32(sum[r], vld1q_s8(row[r] + left - 16), last);
    }
}

/* The same of at most 4 rows; x has the last sixteen, too, and low[r] and high[r] are to be put together. */
static inline void products16(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const bytes16 *x,
                              int32x4_t *low, int32x4_t *high)
{
    const int8_t *row[4];
    const bytes16 *end = x + cols / 64u * 4u;
    for (uint32_t r = 0; r < rows; r++) {
        row[r] = w + r * stride;
        low[r] = vdupq_n_s32(0);
        high[r] = vdupq_n_s32(0);
    }
    for (; x < end; x += 4) {
        for (uint32_t r = 0; r < rows; r++) {
            int8x16x4_t v = vld1q_s8_x4(row[r]);
            row[r] += 64;
            EHMN_KEEP_POINTER(row[r]);
            for (uint32_t k = 0; k < 4u; k++) {
                low[r] = vdotq_s32(low[r], v.val[k], x[k].low);
                high[r] = vdotq_s32(high[r], v.val[k], x[k].high);
            }
        }
    }
    uint32_t left = cols & 63u;
    for (uint32_t c = 0; c < left; c += 16u, x++) {
        uint32_t at = c + 16u <= left ? c : left - 16u;
        for (uint32_t r = 0; r < rows; r++) {
            int8x16_t v = vld1q_s8(row[r] + (int32_t)at);
            low[r] = vdotq_s32(low[r], v, x->low);
            high[r] = vdotq_s32(high[r], v, x->high);
        }
    }
}

static inline int32x4_t sum4(const int32x4_t *s)
{
    return vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3]));
}

static inline int32x4_t put_together(const int32x4_t *low, const int32x4_t *high)
{
    return vaddq_s32(sum4(low), vshlq_n_s32(sum4(high), 8));
}

/* Rows that follow each other, of 64 n columns, which stay in registers. Returns how many: all whole eights. */
static inline uint32_t multiply_contiguous(const int8_t *w, uint32_t rows, const uint32_t n, const int8_t *x,
                                           int32_t *acc)
{
    int8x16x4_t v[4];
    for (uint32_t c = 0; c < n; c++) {
        v[c] = vld1q_s8_x4(x + 64u * c);
    }
    for (const int32_t *end = acc + (rows & ~7u); acc < end; acc += 8) {
        int32x4_t s[8];
        for (uint32_t k = 0; k < 8u; k++) {
            s[k] = vdupq_n_s32(0);
            for (uint32_t c = 0; c < n; c++) {
                int8x16x4_t row = vld1q_s8_x4(w);
                w += 64;
                EHMN_KEEP_POINTER(w);
                for (uint32_t i = 0; i < 4u; i++) {
                    s[k] = vdotq_s32(s[k], row.val[i], v[c].val[i]);
                }
            }
        }
        vst1q_s32(acc, sum4(s));
        vst1q_s32(acc + 4, sum4(s + 4));
    }
    return rows & ~7u;
}

/* Rows of any number of columns from 16 on, wherever they lie. Apart: it has much more in hand than
 * what comes before it. */
static __attribute__((noinline)) void multiply_others(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride,
                                                      const int8_t *x, int32_t *acc)
{
    uint32_t rest = cols % 16u, r = 0;
    int8_t some[16] = {0};
    int32x4_t s[8];
    memcpy(some + 16u - rest, x + cols - rest, rest);
    const int8x16_t last = vld1q_s8(some);
    for (; r + 8u <= rows; r += 8u, w += 8u * stride) {
        products8(w, 8u, cols, stride, x, last, s);
        vst1q_s32(acc + r, sum4(s));
        vst1q_s32(acc + r + 4u, sum4(s + 4));
    }
    for (; r < rows; r++, w += stride) {
        products8(w, 1u, cols, stride, x, last, s);
        acc[r] = vaddvq_s32(s[0]);
    }
}

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, int32_t *acc)
{
    uint32_t r = 0;
    if (cols < 16u) {
        memset(acc, 0, 4u * (size_t)rows);
        add_few8(w, rows, cols, stride, x, acc);
        return;
    }
    if (cols == 128u && stride == 128u) {
        r = multiply_contiguous(w, rows, 2u, x, acc);
    } else if (cols == 256u && stride == 256u) {
        r = multiply_contiguous(w, rows, 4u, x, acc);
    }
    if (r < rows) {
        multiply_others(w + (size_t)r * stride, rows - r, cols, stride, x, acc + r);
    }
}

/* Four rows at a time of few columns, which stay in registers, as those of a head's keys do: first the high bytes, then
 * the low ones. Returns how many rows. */
static inline uint32_t multiply_short(const int8_t *w, uint32_t rows, const uint32_t sixteens, size_t stride,
                                      const bytes16 *x, int32_t *acc)
{
    bytes16 v[4];
    for (uint32_t c = 0; c < sixteens; c++) {
        v[c] = x[c];
    }
    for (const int32_t *end = acc + (rows & ~3u); acc < end; acc += 4) {
        int8x16_t row[4][4];
        int32x4_t s[4];
        for (uint32_t k = 0; k < 4u; k++, w += stride) {
            s[k] = vdupq_n_s32(0);
            for (uint32_t c = 0; c < sixteens; c++) {
                row[k][c] = vld1q_s8(w + 16u * c);
                s[k] = vdotq_s32(s[k], row[k][c], v[c].high);
            }
        }
        for (uint32_t k = 0; k < 4u; k++) {
            s[k] = vshlq_n_s32(s[k], 8);
            for (uint32_t c = 0; c < sixteens; c++) {
                s[k] = vdotq_s32(s[k], row[k][c], v[c].low);
            }
        }
        vst1q_s32(acc, sum4(s));
    }
    return rows & ~3u;
}

/* Rows of 128 columns, one behind the other, which stay in registers. Returns how many: all whole fours. */
static uint32_t multiply_128(const int8_t *w, uint32_t rows, const bytes16 *in, int32_t *acc)
{
    int8x16_t low[8], high[8];
    for (uint32_t k = 0; k < 8u; k++) {
        low[k] = in[k].low;
        high[k] = in[k].high;
    }
    for (const int32_t *end = acc + (rows & ~3u); acc < end; acc += 4) { /* high bytes first, times 256 */
        int32x4_t s[4];
        for (uint32_t r = 0; r < 4u; r++) {
            int8x16x4_t a = vld1q_s8_x4(w);
            w += 64;
            EHMN_KEEP_POINTER(w);
            int8x16x4_t b = vld1q_s8_x4(w);
            w += 64;
            EHMN_KEEP_POINTER(w);
            s[r] = vdupq_n_s32(0);
            for (uint32_t k = 0; k < 4u; k++) {
                s[r] = vdotq_s32(vdotq_s32(s[r], a.val[k], high[k]), b.val[k], high[k + 4u]);
            }
            s[r] = vshlq_n_s32(s[r], 8);
            for (uint32_t k = 0; k < 4u; k++) {
                s[r] = vdotq_s32(vdotq_s32(s[r], a.val[k], low[k]), b.val[k], low[k + 4u]);
            }
        }
        vst1q_s32(acc, sum4(s));
    }
    return rows & ~3u;
}

/* acc = or += rows of `cols` columns, at least 16. */
static void multiply_rows(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const bytes16 *x, int add,
                          int32_t *acc)
{
    int32x4_t low[4], high[4];
    uint32_t r = 0;
    if (cols == 32u && !add) {
        r = multiply_short(w, rows, 2u, stride, x, acc);
    } else if (cols == 64u && !add) {
        r = multiply_short(w, rows, 4u, stride, x, acc);
    } else if (cols == 128u && stride == 128u && !add) {
        r = multiply_128(w, rows, x, acc);
    }
    for (w += r * stride; r + 4u <= rows; r += 4u, w += 4u * stride) {
        products16(w, 4u, cols, stride, x, low, high);
        int32x4_t sum = put_together(low, high);
        vst1q_s32(acc + r, add ? vaddq_s32(vld1q_s32(acc + r), sum) : sum);
    }
    for (; r < rows; r++, w += stride) {
        products16(w, 1u, cols, stride, x, low, high);
        int32_t sum = vaddvq_s32(low[0]) + vaddvq_s32(high[0]) * 256;
        acc[r] = add ? acc[r] + sum : sum;
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, int32_t *acc)
{
    bytes16 bytes[COLS / 16u];
    for (uint32_t first = 0; first < cols; first += COLS) {
        uint32_t count = cols - first < COLS ? cols - first : COLS;
        const int8_t *part = w + first;
        if (count < 16u) {
            memset(acc, 0, first == 0 ? 4u * (size_t)rows : 0u);
            add_few16(part, rows, count, stride, x + first, acc);
            return;
        }
        int beyond = split(x + first, count, bytes);
        multiply_rows(part, rows, count, stride, bytes, first != 0, acc);
        if (beyond) {
            mend(part, rows, count, stride, x + first, acc);
        }
    }
}

/* Four rows of weights of 4 bits at a time, as bytes. */
static void matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, int32_t *acc)
{
    int8_t part[4u * COLS];
    int32_t out[4];
    for (uint32_t r = 0; r < rows; r += 4u) {
        uint32_t some = rows - r < 4u ? rows - r : 4u;
        for (uint32_t first = 0; first < cols; first += COLS) {
            uint32_t count = cols - first < COLS ? cols - first : COLS;
            ehmn_unpack_s4(w + (size_t)r * stride + first / 2u, some, count, stride, part, COLS);
            matvec_s16(part, some, count, COLS, x + first, out);
            for (uint32_t i = 0; i < some; i++) {
                acc[r + i] = first == 0 ? out[i] : acc[r + i] + out[i];
            }
        }
    }
}

/* l0..l3 and h0..h3 += weights 4 `lane` to 4 `lane` + 3 times sixteen values of four rows, whose
 * columns become words. */
#define ADD_FOUR(r0, r1, r2, r3, l0, l1, l2, l3, h0, h1, h2, h3, lane)                    \
    do {                                                                                  \
        int8x16_t even = vzip1q_s8(r0, r2), odd = vzip1q_s8(r1, r3);                      \
        int8x16_t even2 = vzip2q_s8(r0, r2), odd2 = vzip2q_s8(r1, r3);                    \
        int8x16_t c0 = vzip1q_s8(even, odd), c1 = vzip2q_s8(even, odd);                   \
        int8x16_t c2 = vzip1q_s8(even2, odd2), c3 = vzip2q_s8(even2, odd2);               \
        l0 = vdotq_laneq_s32(l0, c0, f.low, lane);                                        \
        h0 = vdotq_laneq_s32(h0, c0, f.high, lane);                                       \
        l1 = vdotq_laneq_s32(l1, c1, f.low, lane);                                        \
        h1 = vdotq_laneq_s32(h1, c1, f.high, lane);                                       \
        l2 = vdotq_laneq_s32(l2, c2, f.low, lane);                                        \
        h2 = vdotq_laneq_s32(h2, c2, f.high, lane);                                       \
        l3 = vdotq_laneq_s32(l3, c3, f.low, lane);                                        \
        h3 = vdotq_laneq_s32(h3, c3, f.high, lane);                                       \
        EHMN_NOT_BEFORE(h3);                                                              \
    } while (0)

/* Both halves of the next row. */
static inline int8x16x2_t next_row(const int8_t **w, size_t stride)
{
    int8x16x2_t row = vld1q_s8_x2(*w);
    *w += stride;
    EHMN_KEEP_POINTER(*w);
    return row;
}

#define ADD_ROWS(lane)                                                                    \
    do {                                                                                  \
        int8x16x2_t a = next_row(&w, stride), b = next_row(&w, stride);                   \
        int8x16x2_t c = next_row(&w, stride), d = next_row(&w, stride);                   \
        ADD_FOUR(a.val[0], b.val[0], c.val[0], d.val[0], l0, l1, l2, l3, h0, h1, h2, h3, lane); \
        ADD_FOUR(a.val[1], b.val[1], c.val[1], d.val[1], l4, l5, l6, l7, h4, h5, h6, h7, lane); \
    } while (0)

static inline void store_sum(int32_t *acc, int32x4_t low, int32x4_t high)
{
    vst1q_s32(acc, vnegq_s32(vaddq_s32(low, vshlq_n_s32(high, 8))));
}

/* Thirty-two columns of rows, sixteen of them at a time. Weights enter negated, since 2^15 has no place in 16
 * bits, and as two bytes. */
static void sum_columns(const int8_t *w, uint32_t rows, size_t stride, const int32_t *weight, int32_t *acc)
{
    int32x4_t l0 = vdupq_n_s32(0), l1 = l0, l2 = l0, l3 = l0, l4 = l0, l5 = l0, l6 = l0, l7 = l0;
    int32x4_t h0 = l0, h1 = l0, h2 = l0, h3 = l0, h4 = l0, h5 = l0, h6 = l0, h7 = l0;
    int32_t last_weights[16];
    int8_t last[16u * 32u];
    for (uint32_t left = rows; left > 0; left = left > 16u ? left - 16u : 0u) {
        if (left < 16u) { /* with zeros they are sixteen, too */
            memset(last, 0, sizeof last);
            memset(last_weights, 0, sizeof last_weights);
            for (uint32_t r = 0; r < left; r++) {
                memcpy(last + 32u * r, w + r * stride, 32);
            }
            w = last;
            stride = 32;
            weight = memcpy(last_weights, weight, 4u * (size_t)left);
        }
        int16x8_t first = vmovn_high_s32(vmovn_s32(vnegq_s32(vld1q_s32(weight))), vnegq_s32(vld1q_s32(weight + 4)));
        int16x8_t then = vmovn_high_s32(vmovn_s32(vnegq_s32(vld1q_s32(weight + 8))), vnegq_s32(vld1q_s32(weight + 12)));
        bytes16 f = bytes_of(first, then);
        ADD_ROWS(0);
        ADD_ROWS(1);
        ADD_ROWS(2);
        ADD_ROWS(3);
        weight += 16;
    }
    store_sum(acc, l0, h0);
    store_sum(acc + 4, l1, h1);
    store_sum(acc + 8, l2, h2);
    store_sum(acc + 12, l3, h3);
    store_sum(acc + 16, l4, h4);
    store_sum(acc + 20, l5, h5);
    store_sum(acc + 24, l6, h6);
    store_sum(acc + 28, l7, h7);
}

static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    uint32_t c = 0;
    for (; c + 32u <= cols; c += 32u) {
        sum_columns(w + c, rows, stride, weight, acc + c);
    }
    if (c < cols) {
        ehmn_kernels_rows_weighted_sum(w + c, rows, cols - c, stride, weight, acc + c);
    }
}

/* Those of NEON, with an instruction that these processors have, too. */
static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    if (n < 32u || bias == NULL) {
        return ehmn_kernels_neon_fit(v, bias, gain, n, max, out);
    }
    int32_t most = ehmn_neon_fit(v, bias, 1, gain, n, out);
    return most > max ? most : max;
}

static void sum_rows(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count)
{
    ehmn_neon_sum_all_rows(v, n, rows, count);
}

#define TABLE_OF_ONE_VECTOR                                                                                   \
    .matvec_s8 = matvec_s8, .matvec_s16 = matvec_s16, .matvec_s4 = matvec_s4,                                 \
    .weighted_sum = weighted_sum, .scale = ehmn_kernels_neon_scale,                                           \
    .scale_steps = ehmn_neon_scale_steps, .step_row = ehmn_kernels_neon_step_row, .few_steps = 3u,            \
    .exp_sum = ehmn_kernels_neon_exp_sum, .soften = ehmn_kernels_neon_soften, .gate = ehmn_kernels_neon_gate, \
    .fit = fit, .nearest = ehmn_kernels_neon_nearest, .sum_rows = sum_rows

const ehmn_kernels ehmn_kernels_dot = {
    .name = "dot",
    TABLE_OF_ONE_VECTOR,
    .matmat_s16 = ehmn_kernels_dot_matmat_s16,
    .matmat_s4 = ehmn_kernels_dot_matmat_s4,
    .matmat_s8 = ehmn_kernels_dot_matmat_s8,
};

#if defined(EHMN_I8MM)
const ehmn_kernels ehmn_kernels_mmla = {
    .name = "mmla",
    TABLE_OF_ONE_VECTOR,
    .matmat_s16 = ehmn_kernels_mmla_matmat_s16,
    .matmat_s4 = ehmn_kernels_mmla_matmat_s4,
    .matmat_s8 = ehmn_kernels_mmla_matmat_s8,
};
#endif

#endif
