/* The inner loops: one table of functions per instruction set, all of them the same bits as the reference. */
#ifndef EHMN_KERNELS_H
#define EHMN_KERNELS_H

#include "edgehmn_image.h"

#include <stdint.h>

/* A row of weights, and factors of what it gives: `left` within 16 bits, `right` not negative. */
typedef struct {
    const int8_t *w;
    int32_t left;
    int32_t right;
} ehmn_row;

/* Rows of n weights, each with a scale, whose products with it have `shift` fractional bits too many. */
typedef struct {
    const int8_t *w;
    const int32_t *scale;
    uint32_t n;
    int32_t shift;
    void (*sum_rows)(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count); /* below */
} ehmn_rows;

/* plastic_loops.c, and vectors_neon_plastic.c on aarch64: v = many times row `token`, less the rows drawn[n], as many
 * times as they were: each times its scale and rounded. */
void ehmn_sum_rows(int32_t *v, const ehmn_rows *of, uint32_t token, uint32_t many, const uint32_t *drawn, uint32_t n);

typedef struct {
    const char *name;
    /* acc[r] = sum over c of w[r * stride + c] * x[c]. No partial sum exceeds 32 bits: the image validator and
     * the limits on d_head see to it. */
    void (*matvec_s8)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc);
    void (*matvec_s16)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc);
    /* The same with weights of 4 bits, -7..7, two in a byte, the even column in the low half; stride in bytes. */
    void (*matvec_s4)(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc);
    /* acc[c] = sum over r of weight[r] * w[r * stride + c], weights at most 2^15, at most 512 rows. NULL where values
     * lie by columns (values.h): nobody asks for it. */
    void (*weighted_sum)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc);
    /* out[i] = ehmn_mul(v[i], scale[i], shift); out may be v. */
    void (*scale)(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift, int32_t *out);
    /* NULL, or v[i] = ehmn_mul(v[i] * step, scale[i], shift), where v[i] * step fits: scale after a multiplication. */
    void (*scale_steps)(int32_t *v, const int32_t *scale, uint32_t n, int32_t step, int32_t shift);
    /* Steps of one row of weights: with s_j = floor((at + rate * edge[j]) / 2^24) and s_-1 = 0, w[j] moves by s_j -
     * s_(j-1), up where sign[j] ^ flip is 0, down where it is -1, and stays within +-127. at < 2^24, rate (edge[j]
     * - edge[j-1]) <= 2^27 - 2^20; sums are taken modulo 2^32, as only differences count. */
    void (*step_row)(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at);
    /* Up to how many steps of a row of 128 weights are found sooner one by one. */
    uint32_t few_steps;
    /* Sum of ehmn_exp2_neg(max - logits[i]), n at most 128. */
    uint32_t (*exp_sum)(const int16_t *logits, uint32_t n, int32_t max);
    /* scores[i] = round(ehmn_exp2_neg(max - scores[i]) / 2^9), at most 2^15; returns their sum. max is the largest.
     * */
    uint32_t (*soften)(int32_t *scores, uint32_t n, int32_t max);
    /* up[i] = round(silu(gate[i]) up[i]), saturated; all have `frac` fractional bits, 8..16. */
    void (*gate)(const int32_t *gate, int32_t *up, uint32_t n, int32_t frac);
    /* out[i] = v[i] + round(bias[i] gain / 2^20), saturated to 16 bits, symmetric; gain 0..2^20; bias NULL: out[i] =
     * v[i], saturated. Returns the largest of them all and max. */
    int32_t (*fit)(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out);
    /* found holds EHMN_RECALLED times UINT32_MAX, and then the smallest of 2^16 d_i + i for i < n <= 2^16, in order:
     * d_i < 2^16 is in how many bits keys[i * words .. i * words + words - 1] differ from key[0 .. words - 1]. */
    void (*nearest)(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found);
    /* NULL, or several vectors at once: acc[t * acc_stride + r] = sum over c of w[r * stride + c] * x[t * x_stride + c]
     * for t < n, strides of x and acc in values; what matvec_s16 and matvec_s4 give for each of them. */
    void (*matmat_s16)(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                       uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
    void (*matmat_s4)(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                      uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
    /* What matvec_s8 gives for each of them; a table has all three or none. */
    void (*matmat_s8)(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, uint32_t n,
                      uint32_t x_stride, int32_t *acc, uint32_t acc_stride);
    /* NULL, or weighted_sum for several vectors of weights: acc[t * acc_stride + c], c < cols, for t < n; `add`: to
     * what is there. */
    void (*weighted_sums)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                          uint32_t n, uint32_t weight_stride, int add, int32_t *acc, uint32_t acc_stride);
    /* Both NULL, or matvec_s8 and matvec_s16 where -pairs[r] is known: the sum over even c of w[r * stride + c] *
     * w[r * stride + c + 1]. No x is beyond +-EHMN_MOST_PAIRED, so that a weight can be added to it in 16 bits. */
    void (*matvec_s8_paired)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                             const int32_t *pairs, int32_t *acc);
    void (*matvec_s16_paired)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                              const int32_t *pairs, int32_t *acc);
    /* NULL, or v[i] = the sum over `count` rows of round(2 w[i] left right / 2^32); no sum of
     * magnitudes reaches 2^31. */
    void (*sum_rows)(int32_t *v, uint32_t n, const ehmn_row *rows, uint32_t count);
} ehmn_kernels;

#define EHMN_MOST_PAIRED (32767 - 127)

extern const ehmn_kernels ehmn_kernels_ref;
extern const ehmn_kernels ehmn_kernels_rows; /* plain C, several rows at a time */

/* The tables that this build has and this processor can run, the slowest first: 0 is the reference. NULL beyond. */
const ehmn_kernels *ehmn_kernel_table(uint32_t index);

/* The fastest of them. */
const ehmn_kernels *ehmn_best_kernels(void);

#endif
