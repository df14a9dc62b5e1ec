/* Reference kernels: the definition. Never optimised by hand. */
#include "kernels.h"

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; c++) {
            sum += w[c] * x[c];
        }
        acc[r] = sum;
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; c++) {
            sum += w[c] * x[c];
        }
        acc[r] = sum;
    }
}

static void matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; c++) {
            int32_t half = w[c / 2u] >> 4u * (c % 2u) & 15;
            sum += (half < 8 ? half : half - 16) * x[c];
        }
        acc[r] = sum;
    }
}

static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    for (uint32_t c = 0; c < cols; c++) {
        acc[c] = 0;
    }
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        for (uint32_t c = 0; c < cols; c++) {
            acc[c] += weight[r] * w[c];
        }
    }
}

const ehmn_kernels ehmn_kernels_ref = {matvec_s8, matvec_s16, matvec_s4, weighted_sum};
