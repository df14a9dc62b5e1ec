/* Blocks of a matrix times several vectors, with dot products or products of matrices of bytes: how either walks over
 * rows and vectors. Each file that includes this lays them out in its own way, and has before it
 *   columns_of_rows     eight rows, SOME_COLS columns of them, and lay_out, which fills it
 *   columns_of_vectors  as many columns of TOKENS vectors; lay_out_words and lay_out_bytes, which fill it
 *   tiles_of            all rows times up to so many of these vectors. */
#ifndef EHMN_KERNELS_DOT_BLOCKS_H
#define EHMN_KERNELS_DOT_BLOCKS_H

/* All rows times these vectors; where there are few, in half the registers. */
EHMN_INTO static inline void tiles(columns_of_rows *part, uint32_t rows, uint32_t cols, const columns_of_vectors x,
                                   const columns_of_vectors high, uint32_t tokens, int add, int32_t *acc,
                                   size_t acc_stride)
{
    if (tokens > TOKENS / 2u) {
        tiles_of(part, rows, cols, x, high, tokens, TOKENS, add, acc, acc_stride);
    } else {
        tiles_of(part, rows, cols, x, high, tokens, TOKENS / 2u, add, acc, acc_stride);
    }
}

/* Up to ROWS rows and SOME_COLS columns. */
static void block(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                  size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    columns_of_rows part[ROWS / 8u];
    columns_of_vectors low, high;
    uint32_t whole = (cols + 15u) & ~15u;
    for (uint32_t r = 0; r < rows; r += 8u) {
        lay_out(w + r * stride, rows - r, cols, stride, part[r / 8u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS, x += TOKENS * x_stride, acc += TOKENS * acc_stride) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        int beyond = lay_out_words(x, tokens, cols, x_stride, low, high);
        tiles(part, rows, whole, low, high, tokens, add, acc, acc_stride);
        for (uint32_t k = 0; beyond && k < tokens; k++) {
            mend(w, rows, cols, stride, x + k * x_stride, acc + k * acc_stride);
        }
    }
}

/* The same with vectors of bytes. */
static void block8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    columns_of_rows part[ROWS / 8u];
    columns_of_vectors v;
    uint32_t whole = (cols + 15u) & ~15u;
    for (uint32_t r = 0; r < rows; r += 8u) {
        lay_out(w + r * stride, rows - r, cols, stride, part[r / 8u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS, x += TOKENS * x_stride, acc += TOKENS * acc_stride) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        lay_out_bytes(x, tokens, cols, x_stride, v);
        tiles(part, rows, whole, v, NULL, tokens, add, acc, acc_stride);
    }
}

#endif
