/* The inner loops: one table of functions per instruction set, all of them the same bits as the reference. */
#ifndef EHMN_KERNELS_H
#define EHMN_KERNELS_H

#include <stdint.h>

typedef struct {
    /* acc[r] = sum over c of w[r * stride + c] * x[c]. No partial sum exceeds 32 bits: the image validator and
     * the limits on d_head see to it. */
    void (*matvec_s8)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc);
    void (*matvec_s16)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc);
    /* The same with weights of 4 bits, -7..7, two in a byte, the even column in the low half; stride in bytes. */
    void (*matvec_s4)(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc);
    /* acc[c] = sum over r of weight[r] * w[r * stride + c], weights at most 2^15, at most 512 rows. */
    void (*weighted_sum)(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc);
} ehmn_kernels;

extern const ehmn_kernels ehmn_kernels_ref;

#endif
