/* Several vectors at once with products of matrices of bytes on aarch64 (FEAT_I8MM: Neoverse V1 and N2, A510, A710,
 * X2): an instruction multiplies two rows by two vectors, eight columns of each. Rows and vectors are laid out in
 * pairs. Of values of 16 bits the high bytes are multiplied first, then the low ones. */
#include "kernels_blocks.h"

#if defined(EHMN_NEON) && defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)

#include "kernels_dot.h"
#include "kernels_neon_blocks.h"

/* Eight columns of eight rows or vectors: of the first two, the next two, ... */
typedef struct {
    int8x16_t pair[4];
} columns8;

typedef columns8 columns_of_rows[SOME_COLS / 8u], columns_of_vectors[SOME_COLS / 8u];

/* Sixteen columns of two rows in their place. */
static inline void put_pair(int8x16_t a, int8x16_t b, uint32_t pair, columns8 *out)
{
    int64x2_t v = vreinterpretq_s64_s8(a), w = vreinterpretq_s64_s8(b);
    out[0].pair[pair] = vreinterpretq_s8_s64(vtrn1q_s64(v, w));
    out[1].pair[pair] = vreinterpretq_s8_s64(vtrn2q_s64(v, w));
}

/* Eight rows, of which `rows` are there, with zeros beyond rows and columns, up to whole sixteens of columns. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, columns8 *part)
{
    for (; rows >= 8u && cols >= 16u; cols -= 16u, w += 16, part += 2) {
        const int8_t *row = w;
        for (uint32_t p = 0; p < 4u; p++, row += 2u * stride) {
            put_pair(vld1q_s8(row), vld1q_s8(row + stride), p, part);
        }
    }
    while (cols > 0) {
        int8_t some[8][16] = {{0}};
        uint32_t count = cols < 16u ? cols : 16u;
        for (uint32_t r = 0; r < 8u && r < rows; r++) {
            memcpy(some[r], w + r * stride, count);
        }
        for (uint32_t p = 0; p < 4u; p++) {
            put_pair(vld1q_s8(some[2u * p]), vld1q_s8(some[2u * p + 1u]), p, part);
        }
        cols -= count;
        w += count;
        part += 2;
    }
}

static inline void put_split(const int16_t *a, const int16_t *b, uint32_t pair, int16x8_t *most, columns8 *low,
                             columns8 *high)
{
    bytes16 v = split16(a, most), w = split16(b, most);
    put_pair(v.low, w.low, pair, low);
    put_pair(v.high, w.high, pair, high);
}

/* Two vectors of 16 bits, as their low bytes and their high ones; returns whether one exceeds MOST_WHOLE. */
static inline int lay_out_split(const int16_t *a, const int16_t *b, uint32_t cols, uint32_t pair, columns8 *low,
                                columns8 *high)
{
    int16x8_t most = vdupq_n_s16(INT16_MIN);
    for (; cols >= 16u; cols -= 16u, low += 2, high += 2, a += 16, b += 16) {
        put_split(a, b, pair, &most, low, high);
    }
    if (cols > 0) {
        int16_t some[2][16] = {{0}};
        memcpy(some[0], a, 2u * cols);
        memcpy(some[1], b, 2u * cols);
        put_split(some[0], some[1], pair, &most, low, high);
    }
    return vmaxvq_s16(most) > MOST_WHOLE;
}

/* All vectors; where there is none, the first again. */
static inline int lay_out_words(const int16_t *x, uint32_t tokens, uint32_t cols, size_t x_stride, columns8 *low,
                                columns8 *high)
{
    int beyond = 0;
    for (uint32_t t = 0; t < TOKENS; t += 2u) {
        const int16_t *a = x + (t < tokens ? t : 0u) * x_stride, *b = x + (t + 1u < tokens ? t + 1u : 0u) * x_stride;
        beyond |= lay_out_split(a, b, cols, t / 2u, low, high);
    }
    return beyond;
}

static inline void lay_out_bytes(const int8_t *x, uint32_t tokens, uint32_t cols, size_t x_stride, columns8 *out)
{
    lay_out(x, tokens, cols, x_stride, out);
}

/* s[p][q] += row pair q times vector pair p, of `cols` columns, a multiple of 16. */
EHMN_INTO static inline void tile(const columns8 *part, const columns8 *x, uint32_t cols, const uint32_t most,
                                  int32x4_t (*s)[4])
{
    for (const columns8 *end = part + cols / 8u; part < end; part += 2, x += 2) {
        for (uint32_t k = 0; k < 2u; k++) {
            columns8 a = x[k], b = part[k];
            for (uint32_t p = 0; p < most / 2u; p++) {
                for (uint32_t q = 0; q < 4u; q++) {
                    s[p][q] = vmmlaq_s32(s[p][q], a.pair[p], b.pair[q]);
                    __asm__("" : "+w"(s[p][q])); /* it stays in its register */
                }
            }
        }
    }
}

/* Four sums of a vector, the first or the second of its pair. */
static inline int32x4_t four_of(int32x4_t a, int32x4_t b, uint32_t second)
{
    int64x2_t v = vreinterpretq_s64_s32(a), w = vreinterpretq_s64_s32(b);
    return vreinterpretq_s32_s64(second ? vtrn2q_s64(v, w) : vtrn1q_s64(v, w));
}

/* Rows that are laid out times up to `most` vectors of bytes, whose high bytes, unless NULL, count 256. */
EHMN_INTO static inline void tiles_of(columns_of_rows *part, uint32_t rows, uint32_t cols, const columns8 *x,
                                      const columns8 *high, uint32_t tokens, const uint32_t most, int add, int32_t *acc,
                                      size_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += 8u, part++) {
        int32x4_t s[TOKENS / 2u][4];
        for (uint32_t p = 0; p < most / 2u; p++) {
            s[p][0] = s[p][1] = s[p][2] = s[p][3] = vdupq_n_s32(0);
        }
        if (high != NULL) {
            tile(*part, high, cols, most, s);
            for (uint32_t p = 0; p < most / 2u; p++) {
                for (uint32_t q = 0; q < 4u; q++) {
                    s[p][q] = vshlq_n_s32(s[p][q], 8);
                }
            }
        }
        tile(*part, x, cols, most, s);
        int32x4_t of[TOKENS][2];
        for (uint32_t t = 0; t < most; t++) {
            of[t][0] = four_of(s[t / 2u][0], s[t / 2u][1], t % 2u);
            of[t][1] = four_of(s[t / 2u][2], s[t / 2u][3], t % 2u);
        }
        put_eights(of, tokens, most, rows - r, add, acc + r, acc_stride);
    }
}

#include "kernels_dot_blocks.h"

void ehmn_kernels_mmla_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(block, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_mmla_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * SOME_COLS];
    ehmn_matmat_s4(block, ROWS, SOME_COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_mmla_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(block8, ROWS, SOME_COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

#endif
