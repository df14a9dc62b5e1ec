/* aarch64 with dot products of bytes (FEAT_DotProd: A76, A78, Neoverse): an instruction multiplies sixteen bytes. Inputs
 * of 16 bits are split, x = 256 high + low, both bytes with a sign. What gains nothing is that of NEON. */
#include "fixed.h"
#include "kernels_blocks.h"
#include "kernels_tables.h"

#if defined(EHMN_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include <arm_neon.h>
#include <string.h>

#define COLS 512u        /* split at a time */
#define MOST_WHOLE 32639 /* 127 * 256 + 127: beyond, the high byte would be 128 */

typedef struct {
    int8x16_t low;
    int8x16_t high;
} bytes16;

/* Sixteen values as bytes. */
static inline bytes16 bytes_of(int16x8_t a, int16x8_t b)
{
    bytes16 out;
    out.low = vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
    out.high = vuzp2q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
    out.high = vsubq_s8(out.high, vreinterpretq_s8_u8(vcltzq_s8(out.low))); /* plus one where low is negative */
    return out;
}

/* The same; *most becomes the largest of them and of what it was. */
static inline bytes16 split16(const int16_t *x, int16x8_t *most)
{
    int16x8_t a = vld1q_s16(x), b = vld1q_s16(x + 8);
    *most = vmaxq_s16(*most, vmaxq_s16(a, b));
    return bytes_of(a, b);
}

/* Split `cols` values, with zeros up to a multiple of 16. Returns whether one exceeds MOST_WHOLE: its high byte is
 * -128. */
static int split(const int16_t *x, uint32_t cols, bytes16 *out)
{
    int16x8_t most = vdupq_n_s16(INT16_MIN);
    int16_t rest[16] = {0};
    for (; cols >= 16u; cols -= 16u, x += 16) {
        *out++ = split16(x, &most);
    }
    if (cols > 0) {
        memcpy(rest, x, 2u * cols);
        *out = split16(rest, &most);
    }
    return vmaxvq_s16(most) > MOST_WHOLE;
}

/* acc[r] += 2^16 w[r][c] for every value that exceeds MOST_WHOLE. */
static void mend(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, int32_t *acc)
{
    for (uint32_t c = 0; c < cols; c++) {
        for (uint32_t r = 0; x[c] > MOST_WHOLE && r < rows; r++) {
            acc[r] += w[r * stride + c] * 65536;
        }
    }
}

/* acc[r] += some columns that fill no register. */
static void add_rest8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < cols; c++) {
            acc[r] += w[r * stride + c] * x[c];
        }
    }
}

static void add_rest16(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t c = 0; c < cols; c++) {
            acc[r] += w[r * stride + c] * x[c];
        }
    }
}

/* sum[r]: `rows` rows, at most 8, of `cols` columns, a multiple of 16. */
static inline void products8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x,
                             int32x4_t *sum)
{
    const int8_t *row[8], *end = x + (cols & ~63u);
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
    for (uint32_t c = 0; c < (cols & 63u); c += 16u) {
        int8x16_t a = vld1q_s8(x + c);
        for (uint32_t r = 0; r < rows; r++) {
            sum[r] = vdotq_s32(sum[r], vld1q_s8(row[r] + c), a);
        }
    }
}

/* The same of at most 4 rows; low[r] and high[r] are to be put together. */
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
    for (uint32_t c = 0; c < (cols & 63u); c += 16u, x++) {
        for (uint32_t r = 0; r < rows; r++) {
            int8x16_t v = vld1q_s8(row[r] + c);
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

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, int32_t *acc)
{
    uint32_t whole = cols & ~15u, r = 0;
    int32x4_t s[8];
    for (const int8_t *at = w; r + 8u <= rows; r += 8u, at += (size_t)8u * stride) {
        products8(at, 8u, whole, stride, x, s);
        vst1q_s32(acc + r, sum4(s));
        vst1q_s32(acc + r + 4u, sum4(s + 4));
    }
    for (; r < rows; r++) {
        products8(w + (size_t)r * stride, 1u, whole, stride, x, s);
        acc[r] = vaddvq_s32(s[0]);
    }
    add_rest8(w + whole, rows, cols - whole, stride, x + whole, acc);
}

/* acc = or += rows of `whole` columns, a multiple of 16. */
static void multiply_whole(const int8_t *w, uint32_t rows, uint32_t whole, size_t stride, const bytes16 *x, int add,
                           int32_t *acc)
{
    int32x4_t low[4], high[4];
    uint32_t r = 0;
    for (; r + 4u <= rows; r += 4u, w += 4u * stride) {
        products16(w, 4u, whole, stride, x, low, high);
        int32x4_t sum = put_together(low, high);
        vst1q_s32(acc + r, add ? vaddq_s32(vld1q_s32(acc + r), sum) : sum);
    }
    for (; r < rows; r++, w += stride) {
        products16(w, 1u, whole, stride, x, low, high);
        int32_t sum = vaddvq_s32(low[0]) + vaddvq_s32(high[0]) * 256;
        acc[r] = add ? acc[r] + sum : sum;
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, int32_t *acc)
{
    bytes16 bytes[COLS / 16u];
    for (uint32_t first = 0; first < cols; first += COLS) {
        uint32_t count = cols - first < COLS ? cols - first : COLS, whole = count & ~15u;
        const int8_t *part = w + first;
        int beyond = split(x + first, count, bytes);
        multiply_whole(part, rows, whole, stride, bytes, first != 0, acc);
        if (beyond) {
            mend(part, rows, whole, stride, x + first, acc);
        }
        add_rest16(part + whole, rows, count - whole, stride, x + first + whole, acc);
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

/* ---- Several vectors at once: a register holds four columns of four rows, a lane of another four values of a vector */

#define ROWS 64u       /* laid out at a time, */
#define SOME_COLS 256u /* so many columns of them */
#define TOKENS 4u      /* whose sums stay in registers */

typedef struct {
    int8x16_t upper; /* four columns of rows 0 to 3 */
    int8x16_t lower; /* of rows 4 to 7 */
} columns4;

/* Sixteen columns of a row, of which `some` are there. */
static inline int8x16_t load_columns(const int8_t *w, uint32_t some)
{
    int8_t part[16] = {0};
    if (some < 16u) {
        memcpy(part, w, some);
        w = part;
    }
    return vld1q_s8(w);
}

/* out[0..3]: columns 0 to 3, 4 to 7, ... of four rows, zeros beyond rows and columns. */
static inline void transpose(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, int8x16_t out[4])
{
    int32x4_t v[4];
    for (uint32_t k = 0; k < 4u; k++) {
        v[k] = k < rows ? vreinterpretq_s32_s8(load_columns(w + k * stride, cols)) : vdupq_n_s32(0);
    }
    int64x2_t a = vreinterpretq_s64_s32(vtrn1q_s32(v[0], v[1])), b = vreinterpretq_s64_s32(vtrn2q_s32(v[0], v[1]));
    int64x2_t d = vreinterpretq_s64_s32(vtrn1q_s32(v[2], v[3])), e = vreinterpretq_s64_s32(vtrn2q_s32(v[2], v[3]));
    out[0] = vreinterpretq_s8_s64(vtrn1q_s64(a, d));
    out[1] = vreinterpretq_s8_s64(vtrn1q_s64(b, e));
    out[2] = vreinterpretq_s8_s64(vtrn2q_s64(a, d));
    out[3] = vreinterpretq_s8_s64(vtrn2q_s64(b, e));
}

/* Eight rows: part[c / 4] holds columns c to c + 3 of them. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, columns4 *part)
{
    for (uint32_t c = 0; c < cols; c += 16u, part += 4) {
        int8x16_t upper[4], lower[4];
        transpose(w + c, rows, cols - c, stride, upper);
        transpose(w + c + (rows > 4u ? 4u : 0u) * stride, rows > 4u ? rows - 4u : 0u, cols - c, stride, lower);
        for (uint32_t k = 0; k < 4u; k++) {
            part[k].upper = upper[k];
            part[k].lower = lower[k];
        }
    }
}

#define FOUR_COLUMNS(k)                                                      \
    do {                                                                     \
        columns4 w = part[k];                                                \
        for (uint32_t t = 0; t < TOKENS; t++) {                              \
            s[t][0] = vdotq_laneq_s32(s[t][0], w.upper, v[t].low, (k));      \
            s[t][1] = vdotq_laneq_s32(s[t][1], w.lower, v[t].low, (k));      \
            s[t][2] = vdotq_laneq_s32(s[t][2], w.upper, v[t].high, (k));     \
            s[t][3] = vdotq_laneq_s32(s[t][3], w.lower, v[t].high, (k));     \
        }                                                                    \
    } while (0)

/* Eight rows times TOKENS vectors. */
static inline void eight_rows(const columns4 *part, uint32_t cols, bytes16 (*x)[TOKENS], int32x4_t (*out)[2])
{
    int32x4_t s[TOKENS][4];
    for (uint32_t t = 0; t < TOKENS; t++) {
        s[t][0] = s[t][1] = s[t][2] = s[t][3] = vdupq_n_s32(0);
    }
    for (uint32_t c = 0; c < cols; c += 16u, part += 4) {
        bytes16 v[TOKENS];
        for (uint32_t t = 0; t < TOKENS; t++) {
            v[t] = x[c / 16u][t];
        }
        FOUR_COLUMNS(0);
        FOUR_COLUMNS(1);
        FOUR_COLUMNS(2);
        FOUR_COLUMNS(3);
    }
    for (uint32_t t = 0; t < TOKENS; t++) {
        out[t][0] = vaddq_s32(s[t][0], vshlq_n_s32(s[t][2], 8));
        out[t][1] = vaddq_s32(s[t][1], vshlq_n_s32(s[t][3], 8));
    }
}

static inline void put(const int32x4_t sum[2], uint32_t rows, int add, int32_t *acc)
{
    int32_t values[8];
    if (rows >= 8u) {
        vst1q_s32(acc, add ? vaddq_s32(vld1q_s32(acc), sum[0]) : sum[0]);
        vst1q_s32(acc + 4, add ? vaddq_s32(vld1q_s32(acc + 4), sum[1]) : sum[1]);
        return;
    }
    vst1q_s32(values, sum[0]);
    vst1q_s32(values + 4, sum[1]);
    for (uint32_t i = 0; i < rows; i++) {
        acc[i] = add ? acc[i] + values[i] : values[i];
    }
}

/* Eight rows' sums of `tokens` vectors, `most` at most, of which `rows` are there; `add`: to what is there. */
EHMN_INTO static inline void put_all(int32x4_t (*sum)[2], const uint32_t most, uint32_t tokens, uint32_t rows, int add,
                                     int32_t *acc, size_t acc_stride)
{
    if (tokens == most && rows >= 8u && !add) { /* the usual case: straight from registers */
#pragma GCC unroll 8
        for (uint32_t k = 0; k < most; k++) {
            vst1q_s32(acc + k * acc_stride, sum[k][0]);
            vst1q_s32(acc + k * acc_stride + 4, sum[k][1]);
        }
        return;
    }
    int32x4_t some[8][2];
    memcpy(some, sum, most * sizeof some[0]);
    for (uint32_t k = 0; k < tokens; k++) {
        put(some[k], rows, add, acc + k * acc_stride);
    }
}

/* Rows that are laid out times the bytes of some vectors, TOKENS at most; `add`: to what is there. */
static inline void multiply(columns4 (*part)[SOME_COLS / 4u], uint32_t rows, uint32_t cols, bytes16 (*bytes)[TOKENS],
                            uint32_t tokens, int add, int32_t *acc, size_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += 8u) {
        int32x4_t sum[TOKENS][2];
        eight_rows(part[r / 8u], cols, bytes, sum);
        put_all(sum, TOKENS, tokens, rows - r, add, acc + r, acc_stride);
    }
}

/* Up to ROWS rows and SOME_COLS columns. */
static void block(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                  size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    columns4 part[ROWS / 8u][SOME_COLS / 4u];
    bytes16 bytes[SOME_COLS / 16u][TOKENS], one[SOME_COLS / 16u];
    for (uint32_t r = 0; r < rows; r += 8u) {
        lay_out(w + r * stride, rows - r, cols, stride, part[r / 8u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        int beyond = 0;
        for (uint32_t k = 0; k < TOKENS; k++) {
            beyond |= split(x + (t + (k < tokens ? k : 0u)) * x_stride, cols, one);
            for (uint32_t c = 0; c < (cols + 15u) / 16u; c++) {
                bytes[c][k] = one[c];
            }
        }
        multiply(part, rows, cols, bytes, tokens, add, acc + t * acc_stride, acc_stride);
        for (uint32_t k = 0; beyond && k < tokens; k++) {
            mend(w, rows, cols, stride, x + (t + k) * x_stride, acc + (t + k) * acc_stride);
        }
    }
}

static void matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                       uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(block, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

static void matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                      uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * SOME_COLS];
    ehmn_matmat_s4(block, ROWS, SOME_COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

/* ---- Sums of rows: columns take the part of rows. Both factors have the other sign, since a weight may be 2^15. */

/* part[0]: columns 0 to 7 of up to SOME_COLS rows, part[1]: 8 to 15; zeros beyond, up to a multiple of sixteen rows. */
static inline void lay_out_columns(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride,
                                   columns4 (*part)[SOME_COLS / 4u])
{
    for (uint32_t r = 0; r < ((rows + 15u) & ~15u); r += 4u) {
        int8x16_t v[4];
        for (uint32_t k = 0; k < 4u; k++) {
            v[k] = r + k < rows ? vnegq_s8(load_columns(w + (r + k) * stride, cols)) : vdupq_n_s8(0);
        }
        int16x8_t a = vreinterpretq_s16_s8(vzip1q_s8(v[0], v[1])), b = vreinterpretq_s16_s8(vzip2q_s8(v[0], v[1]));
        int16x8_t d = vreinterpretq_s16_s8(vzip1q_s8(v[2], v[3])), e = vreinterpretq_s16_s8(vzip2q_s8(v[2], v[3]));
        part[0][r / 4u].upper = vreinterpretq_s8_s16(vzip1q_s16(a, d));
        part[0][r / 4u].lower = vreinterpretq_s8_s16(vzip2q_s16(a, d));
        part[1][r / 4u].upper = vreinterpretq_s8_s16(vzip1q_s16(b, e));
        part[1][r / 4u].lower = vreinterpretq_s8_s16(vzip2q_s16(b, e));
    }
}

static inline int16x8_t negated(const int32_t *v)
{
    return vnegq_s16(vuzp1q_s16(vreinterpretq_s16_s32(vld1q_s32(v)), vreinterpretq_s16_s32(vld1q_s32(v + 4))));
}

/* Up to SOME_COLS rows and ROWS columns. */
static void columns(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int32_t *weight, uint32_t n,
                    size_t weight_stride, int add, int32_t *acc, size_t acc_stride)
{
    columns4 part[ROWS / 8u][SOME_COLS / 4u];
    bytes16 bytes[SOME_COLS / 16u][TOKENS];
    for (uint32_t c = 0; c < cols; c += 16u) {
        lay_out_columns(w + c, rows, cols - c, stride, part + c / 8u);
    }
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        for (uint32_t k = 0; k < TOKENS; k++) {
            const int32_t *v = weight + (t + (k < tokens ? k : 0u)) * weight_stride;
            int32_t rest[16] = {0};
            memcpy(rest, v + (rows & ~15u), 4u * (rows & 15u));
            for (uint32_t r = 0; r < rows; r += 16u) {
                const int32_t *from = rows - r < 16u ? rest : v + r;
                bytes[r / 16u][k] = bytes_of(negated(from), negated(from + 8));
            }
        }
        multiply(part, cols, rows, bytes, tokens, add, acc + t * acc_stride, acc_stride);
    }
}

static void weighted_sums(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                          uint32_t n, uint32_t weight_stride, int add, int32_t *acc, uint32_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += SOME_COLS) {
        const int8_t *row = w + (size_t)r * stride;
        uint32_t some = rows - r < SOME_COLS ? rows - r : SOME_COLS;
        for (uint32_t c = 0; c < cols; c += ROWS) {
            columns(row + c, some, cols - c < ROWS ? cols - c : ROWS, stride, weight + r, n, weight_stride,
                    add || r != 0, acc + c, acc_stride);
        }
    }
}

#define TOKENS8 8u /* vectors of 8 bits, whose sums stay in registers */

#define FOUR_COLUMNS8(k)                                                    \
    do {                                                                    \
        columns4 w = part[k];                                               \
        for (uint32_t t = 0; t < TOKENS8; t++) {                            \
            s[t][0] = vdotq_laneq_s32(s[t][0], w.upper, v[t], (k));         \
            s[t][1] = vdotq_laneq_s32(s[t][1], w.lower, v[t], (k));         \
        }                                                                   \
    } while (0)

/* Eight rows times TOKENS8 vectors of `cols` columns, a multiple of 16. */
static inline void eight_rows8(const columns4 *part, uint32_t cols, const int8_t *const *x, int32x4_t (*sum)[2])
{
    int32x4_t s[TOKENS8][2];
    for (uint32_t t = 0; t < TOKENS8; t++) {
        s[t][0] = s[t][1] = vdupq_n_s32(0);
    }
    for (uint32_t c = 0; c < cols; c += 16u, part += 4) {
        int8x16_t v[TOKENS8];
        for (uint32_t t = 0; t < TOKENS8; t++) {
            v[t] = vld1q_s8(x[t] + c);
        }
        FOUR_COLUMNS8(0);
        FOUR_COLUMNS8(1);
        FOUR_COLUMNS8(2);
        FOUR_COLUMNS8(3);
    }
    memcpy(sum, s, sizeof s);
}

static void block8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    columns4 part[ROWS / 8u][SOME_COLS / 4u];
    uint32_t whole = cols & ~15u;
    for (uint32_t r = 0; r < rows; r += 8u) {
        lay_out(w + r * stride, rows - r, cols, stride, part[r / 8u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS8) {
        const int8_t *v[TOKENS8], *end[TOKENS8];
        int8_t rest[TOKENS8][16];
        uint32_t tokens = n - t < TOKENS8 ? n - t : TOKENS8;
        for (uint32_t k = 0; k < TOKENS8; k++) {
            v[k] = x + (t + k < n ? t + k : t) * x_stride;
            end[k] = rest[k];
            if (whole < cols) {
                memset(rest[k], 0, sizeof rest[k]);
                memcpy(rest[k], v[k] + whole, cols - whole);
            }
        }
        for (uint32_t r = 0; r < rows; r += 8u) {
            int32x4_t sum[TOKENS8][2];
            eight_rows8(part[r / 8u], whole, v, sum);
            put_all(sum, TOKENS8, tokens, rows - r, add, acc + t * acc_stride + r, acc_stride);
            if (whole < cols) {
                eight_rows8(part[r / 8u] + whole / 4u, 16u, end, sum);
                put_all(sum, TOKENS8, tokens, rows - r, 1, acc + t * acc_stride + r, acc_stride);
            }
        }
    }
}

static void matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, uint32_t n,
                      uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(block8, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

const ehmn_kernels ehmn_kernels_dot = {
    .name = "dot",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = matvec_s4,
    .weighted_sum = ehmn_kernels_neon_weighted_sum,
    .scale = ehmn_kernels_neon_scale,
    .step_row = ehmn_kernels_neon_step_row,
    .few_steps = 3u,
    .exp_sum = ehmn_kernels_neon_exp_sum,
    .soften = ehmn_kernels_neon_soften,
    .gate = ehmn_kernels_neon_gate,
    .fit = ehmn_kernels_neon_fit,
    .nearest = ehmn_kernels_neon_nearest,
    .matmat_s16 = matmat_s16,
    .matmat_s4 = matmat_s4,
    .matmat_s8 = matmat_s8,
    .weighted_sums = weighted_sums,
};

#endif
