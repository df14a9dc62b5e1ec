/* Several vectors at once with dot products of bytes on aarch64: a register holds four columns of four rows, a lane of
 * another four values of a vector. Of values of 16 bits the high bytes are multiplied first, then the low ones. */
#include "kernels_blocks.h"

#if defined(EHMN_NEON) && defined(__ARM_FEATURE_DOTPROD)

#include "kernels_dot.h"
#include "kernels_neon_blocks.h"

typedef struct {
    int8x16_t upper; /* four columns of rows 0 to 3 */
    int8x16_t lower; /* of rows 4 to 7 */
} columns4;

typedef columns4 columns_of_rows[SOME_COLS / 4u];

/* out[0], out[2], ...: columns 0 to 3, 4 to 7, ... of four rows. */
static inline void transpose(const int8_t *w, size_t stride, int8x16_t *out)
{
    int32x4_t v[4];
    for (uint32_t k = 0; k < 4u; k++, w += stride) {
        v[k] = vreinterpretq_s32_s8(vld1q_s8(w));
    }
    int64x2_t a = vreinterpretq_s64_s32(vtrn1q_s32(v[0], v[1])), b = vreinterpretq_s64_s32(vtrn2q_s32(v[0], v[1]));
    int64x2_t d = vreinterpretq_s64_s32(vtrn1q_s32(v[2], v[3])), e = vreinterpretq_s64_s32(vtrn2q_s32(v[2], v[3]));
    out[0] = vreinterpretq_s8_s64(vtrn1q_s64(a, d));
    out[2] = vreinterpretq_s8_s64(vtrn1q_s64(b, e));
    out[4] = vreinterpretq_s8_s64(vtrn2q_s64(a, d));
    out[6] = vreinterpretq_s8_s64(vtrn2q_s64(b, e));
}

/* Sixteen columns of eight rows. */
static inline void lay_out16(const int8_t *w, size_t stride, columns4 *part)
{
    int8x16_t v[8];
    transpose(w, stride, v);
    transpose(w + 4u * stride, stride, v + 1);
    for (uint32_t k = 0; k < 4u; k++) {
        part[k] = (columns4){v[2u * k], v[2u * k + 1u]};
    }
}

/* Eight rows, of which `rows` are there: part[c / 4] holds columns c to c + 3 of them, zeros beyond. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, columns4 *part)
{
    for (; rows >= 8u && cols >= 16u; cols -= 16u, w += 16, part += 4) {
        lay_out16(w, stride, part);
    }
    while (cols > 0) {
        int8_t some[8][16] = {{0}};
        uint32_t count = cols < 16u ? cols : 16u;
        for (uint32_t r = 0; r < 8u && r < rows; r++) {
            memcpy(some[r], w + r * stride, count);
        }
        lay_out16(some[0], 16u, part);
        cols -= count;
        w += count;
        part += 4;
    }
}

/* Sixteen columns of the vectors, which lie beside each other. */
typedef struct {
    int8x16_t of[TOKENS];
} columns16;

typedef columns16 columns_of_vectors[SOME_COLS / 16u];

/* Vector t as split makes it, the low bytes and the high ones apart; returns whether one exceeds MOST_WHOLE. */
static inline int lay_out_one(const int16_t *x, uint32_t cols, uint32_t t, columns16 *low, columns16 *high)
{
    int16x8_t most = vdupq_n_s16(INT16_MIN);
    int16_t rest[16] = {0};
    for (; cols >= 16u; cols -= 16u, x += 16, low++, high++) {
        bytes16 v = split16(x, &most);
        low->of[t] = v.low;
        high->of[t] = v.high;
    }
    if (cols > 0) {
        memcpy(rest, x, 2u * cols);
        bytes16 v = split16(rest, &most);
        low->of[t] = v.low;
        high->of[t] = v.high;
    }
    return vmaxvq_s16(most) > MOST_WHOLE;
}

/* All vectors; where there is none, the first again. */
static inline int lay_out_words(const int16_t *x, uint32_t tokens, uint32_t cols, size_t x_stride, columns16 *low,
                                columns16 *high)
{
    int beyond = 0;
    for (uint32_t t = 0; t < TOKENS; t++) {
        beyond |= lay_out_one(x + (t < tokens ? t : 0u) * x_stride, cols, t, low, high);
    }
    return beyond;
}

static inline void lay_out_one8(const int8_t *x, uint32_t cols, uint32_t t, columns16 *out)
{
    int8_t rest[16] = {0};
    for (; cols >= 16u; cols -= 16u, x += 16, out++) {
        out->of[t] = vld1q_s8(x);
    }
    if (cols > 0) {
        memcpy(rest, x, cols);
        out->of[t] = vld1q_s8(rest);
    }
}

static inline void lay_out_bytes(const int8_t *x, uint32_t tokens, uint32_t cols, size_t x_stride, columns16 *out)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        lay_out_one8(x + (t < tokens ? t : 0u) * x_stride, cols, t, out);
    }
}

#define FOUR_COLUMNS(k)                                                     \
    do {                                                                    \
        columns4 w = part[k];                                               \
        for (uint32_t t = 0; t < most; t++) {                               \
            s[t][0] = vdotq_laneq_s32(s[t][0], w.upper, v.of[t], (k));      \
            s[t][1] = vdotq_laneq_s32(s[t][1], w.lower, v.of[t], (k));      \
        }                                                                   \
    } while (0)

/* s[t] += eight rows times vector t, of `cols` columns, a multiple of 16. */
EHMN_INTO static inline void tile(const columns4 *part, uint32_t cols, const columns16 *x, const uint32_t most,
                                  int32x4_t (*s)[2])
{
    for (const columns4 *end = part + cols / 4u; part < end; part += 4) {
        const columns16 v = *x++;
        FOUR_COLUMNS(0);
        FOUR_COLUMNS(1);
        FOUR_COLUMNS(2);
        FOUR_COLUMNS(3);
    }
}

/* Rows that are laid out times up to `most` vectors of bytes, whose high bytes, unless NULL, count 256. */
EHMN_INTO static inline void tiles_of(columns_of_rows *part, uint32_t rows, uint32_t cols, const columns16 *x,
                                      const columns16 *high, uint32_t tokens, const uint32_t most, int add,
                                      int32_t *acc, size_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += 8u, part++) {
        int32x4_t s[TOKENS][2];
        for (uint32_t t = 0; t < most; t++) {
            s[t][0] = s[t][1] = vdupq_n_s32(0);
        }
        if (high != NULL) {
            tile(*part, cols, high, most, s);
            for (uint32_t t = 0; t < most; t++) {
                s[t][0] = vshlq_n_s32(s[t][0], 8);
                s[t][1] = vshlq_n_s32(s[t][1], 8);
            }
        }
        tile(*part, cols, x, most, s);
        put_eights(s, tokens, most, rows - r, add, acc + r, acc_stride);
    }
}

#include "kernels_dot_blocks.h"

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

void ehmn_kernels_dot_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(block8, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

#endif
