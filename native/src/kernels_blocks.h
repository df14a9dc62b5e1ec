/* Several vectors at once, block by block: how the tables that lay weights out anew walk over a matrix. */
#ifndef EHMN_KERNELS_BLOCKS_H
#define EHMN_KERNELS_BLOCKS_H

#include "kernels_tables.h"

#include <stddef.h>

/* acc[t * acc_stride + r] of one block of weights for all t < n; `add`: to what is there. */
typedef void ehmn_block(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                        size_t x_stride, int add, int32_t *acc, size_t acc_stride);
typedef void ehmn_block8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                         size_t x_stride, int add, int32_t *acc, size_t acc_stride);

/* Into the table's function, so that the compiler sees which block it is: called by a pointer it costs 8 % more. */
#define EHMN_INTO __attribute__((always_inline))

/* matmat_s16 of a table, by blocks of at most `most_rows` and `most_cols`. */
EHMN_INTO static inline void ehmn_matmat_s16(ehmn_block *block, uint32_t most_rows, uint32_t most_cols, const void *w,
                                   uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x, uint32_t n,
                                   uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += most_rows) {
        const int8_t *part = (const int8_t *)w + (size_t)r * stride;
        uint32_t count = rows - r < most_rows ? rows - r : most_rows;
        for (uint32_t c = 0; c < cols; c += most_cols) {
            uint32_t some = cols - c < most_cols ? cols - c : most_cols;
            block(part + c, count, some, stride, x + c, n, x_stride, c != 0, acc + r, acc_stride);
        }
    }
}

EHMN_INTO static inline void ehmn_matmat_s8(ehmn_block8 *block, uint32_t most_rows, uint32_t most_cols, const void *w,
                                  uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x, uint32_t n,
                                  uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += most_rows) {
        const int8_t *part = (const int8_t *)w + (size_t)r * stride;
        uint32_t count = rows - r < most_rows ? rows - r : most_rows;
        for (uint32_t c = 0; c < cols; c += most_cols) {
            uint32_t some = cols - c < most_cols ? cols - c : most_cols;
            block(part + c, count, some, stride, x + c, n, x_stride, c != 0, acc + r, acc_stride);
        }
    }
}

/* matmat_s4 in the same way: the weights of a block become bytes in `part`, which has room for most_rows *
 * most_cols. */
EHMN_INTO static inline void ehmn_matmat_s4(ehmn_block *block, uint32_t most_rows, uint32_t most_cols, int8_t *part,
                                  const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += most_rows) {
        uint32_t count = rows - r < most_rows ? rows - r : most_rows;
        for (uint32_t c = 0; c < cols; c += most_cols) {
            uint32_t some = cols - c < most_cols ? cols - c : most_cols;
            ehmn_unpack_s4((const uint8_t *)w + (size_t)r * stride + c / 2u, count, some, stride, part, most_cols);
            block(part, count, some, most_cols, x + c, n, x_stride, c != 0, acc + r, acc_stride);
        }
    }
}

#endif
