/* Several vectors at once with dot products of bytes on aarch64: a register holds four columns of four rows, a lane of
 * another four values of a vector. */
#include "kernels_blocks.h"

#if defined(EHMN_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include "kernels_dot.h"

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

void ehmn_kernels_dot_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(block, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_dot_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * SOME_COLS];
    ehmn_matmat_s4(block, ROWS, SOME_COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
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

void ehmn_kernels_dot_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(block8, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

#endif
