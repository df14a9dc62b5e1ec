/* Several vectors at once with AVX2: a register holds eight rows and a pair of columns, so that a pair of a vector's
 * values, spread over all lanes, is multiplied by all of them and nothing is left to be summed. For this sixteen rows
 * are laid out anew, 256 columns at a time; the more vectors, the less that matters. */
#include "kernels_blocks.h"

#if defined(__AVX2__)

#include <immintrin.h>
#include <string.h>

#define ROWS 16u /* laid out at a time */
#define COLS 256u
#define TOKENS 4u /* whose sums stay in registers */

/* Sixteen columns of a row, of which `some` are there. */
static inline __m128i load_columns(const int8_t *w, uint32_t some)
{
    int8_t part[16] = {0};
    if (some >= 16u) {
        return _mm_loadu_si128((const __m128i *)(const void *)w);
    }
    memcpy(part, w, some);
    return _mm_loadu_si128((const __m128i *)(void *)part);
}

/* Sixteen columns of rows k and k + 4. */
static inline __m256i load_rows(const int8_t *w, size_t stride, uint32_t rows, uint32_t k, uint32_t some)
{
    __m128i a = k < rows ? load_columns(w + k * stride, some) : _mm_setzero_si128();
    __m128i b = k + 4u < rows ? load_columns(w + (k + 4u) * stride, some) : _mm_setzero_si128();
    return _mm256_set_m128i(b, a);
}

/* Lay out up to eight rows: pair[2 p] holds columns 2 p and 2 p + 1 of all of them, zeros beyond rows and columns. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, __m256i *pair)
{
    const __m128i low = _mm_set_epi32((int32_t)0x0D800C80, (int32_t)0x09800880, (int32_t)0x05800480,
                                      (int32_t)0x01800080);
    const __m128i high = _mm_set_epi32((int32_t)0x0F800E80, (int32_t)0x0B800A80, (int32_t)0x07800680,
                                       (int32_t)0x03800280);
    const __m256i lows = _mm256_broadcastsi128_si256(low), highs = _mm256_broadcastsi128_si256(high);
    for (uint32_t c = 0; c < cols; c += 16u, pair += 16) {
        __m256i v[4], four[4];
        for (uint32_t k = 0; k < 4u; k++) {
            v[k] = load_rows(w + c, stride, rows, k, cols - c);
        }
        __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
        __m256i d = _mm256_unpacklo_epi32(v[2], v[3]), e = _mm256_unpackhi_epi32(v[2], v[3]);
        four[0] = _mm256_unpacklo_epi64(a, d); /* columns 0 to 3, one row in each lane */
        four[1] = _mm256_unpackhi_epi64(a, d);
        four[2] = _mm256_unpacklo_epi64(b, e);
        four[3] = _mm256_unpackhi_epi64(b, e);
        for (uint32_t k = 0; k < 4u; k++) {
            pair[4u * k] = _mm256_srai_epi16(_mm256_shuffle_epi8(four[k], lows), 8);
            pair[4u * k + 2u] = _mm256_srai_epi16(_mm256_shuffle_epi8(four[k], highs), 8);
        }
    }
}

/* sum[2 t], sum[2 t + 1]: sixteen rows times vector t. x: a pair of columns for each pair that is laid out. */
static inline void multiply(const __m256i *pair, uint32_t pairs, const int16_t *const *x, __m256i *sum)
{
    __m256i s[2u * TOKENS];
    memcpy(s, sum, sizeof s);
    for (uint32_t p = 0; p < pairs; p++) {
        __m256i a = pair[2u * p], b = pair[2u * p + 1u];
        for (uint32_t t = 0; t < TOKENS; t++) {
            int32_t two;
            memcpy(&two, x[t] + 2u * p, sizeof two);
            __m256i v = _mm256_set1_epi32(two);
            s[2u * t] = _mm256_add_epi32(s[2u * t], _mm256_madd_epi16(a, v));
            s[2u * t + 1u] = _mm256_add_epi32(s[2u * t + 1u], _mm256_madd_epi16(b, v));
        }
    }
    memcpy(sum, s, sizeof s);
}

static void put(const __m256i *sum, uint32_t rows, int add, int32_t *acc)
{
    int32_t out[ROWS];
    memcpy(out, sum, sizeof out);
    for (uint32_t r = 0; r < rows; r++) {
        acc[r] = add ? acc[r] + out[r] : out[r];
    }
}

static void put16(const __m256i *sum, int add, int32_t *acc)
{
    __m256i *out = (__m256i *)(void *)acc;
    _mm256_storeu_si256(out, add ? _mm256_add_epi32(_mm256_loadu_si256(out), sum[0]) : sum[0]);
    _mm256_storeu_si256(out + 1, add ? _mm256_add_epi32(_mm256_loadu_si256(out + 1), sum[1]) : sum[1]);
}

/* Rows that are laid out times all vectors; `add`: to what is there. */
static void multiply_all(const __m256i *pair, uint32_t rows, uint32_t cols, const int16_t *x, uint32_t n,
                         size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    for (uint32_t t = 0; t < n; t += TOKENS) {
        const int16_t *v[TOKENS];
        __m256i sum[2u * TOKENS];
        for (uint32_t k = 0; k < TOKENS; k++) {
            uint32_t last = cols % 2u ? (uint16_t)x[(t + k < n ? t + k : t) * x_stride + cols - 1u] : 0u;
            __m256i odd = _mm256_set1_epi32((int32_t)last); /* its pair of columns, if their number is odd */
            v[k] = x + (t + k < n ? t + k : t) * x_stride;
            sum[2u * k] = _mm256_setzero_si256();
            sum[2u * k + 1u] = _mm256_setzero_si256();
            if (cols % 2u) {
                sum[2u * k] = _mm256_madd_epi16(pair[cols - 1u], odd);
                sum[2u * k + 1u] = _mm256_madd_epi16(pair[cols], odd);
            }
        }
        multiply(pair, cols / 2u, v, sum);
        for (uint32_t k = 0; k < TOKENS && t + k < n; k++) {
            if (rows == ROWS) {
                put16(sum + 2u * k, add, acc + (t + k) * acc_stride);
            } else {
                put(sum + 2u * k, rows, add, acc + (t + k) * acc_stride);
            }
        }
    }
}

static void rows16(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m256i pair[COLS + 16u];
    lay_out(w, rows < 8u ? rows : 8u, cols, stride, pair);
    lay_out(w + (rows < 8u ? 0u : 8u) * stride, rows < 8u ? 0u : rows - 8u, cols, stride, pair + 1);
    multiply_all(pair, rows, cols, x, n, x_stride, add, acc, acc_stride);
}

void ehmn_kernels_avx2_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(rows16, ROWS, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_avx2_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * COLS];
    ehmn_matmat_s4(rows16, ROWS, COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

/* Vectors of 8 bits become those of 16, some at a time: multiplying bytes takes as many instructions here. */
#define WIDENED 16u

static void rows16_of_bytes(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                            size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m256i pair[COLS + 16u];
    int16_t wide[WIDENED][COLS];
    lay_out(w, rows < 8u ? rows : 8u, cols, stride, pair);
    lay_out(w + (rows < 8u ? 0u : 8u) * stride, rows < 8u ? 0u : rows - 8u, cols, stride, pair + 1);
    for (uint32_t t = 0; t < n; t += WIDENED) {
        uint32_t some = n - t < WIDENED ? n - t : WIDENED;
        for (uint32_t k = 0; k < some; k++) {
            const int8_t *from = x + (t + k) * x_stride;
            for (uint32_t c = 0; c < cols; c++) {
                wide[k][c] = from[c];
            }
        }
        multiply_all(pair, rows, cols, wide[0], some, COLS, add, acc + t * acc_stride, acc_stride);
    }
}

void ehmn_kernels_avx2_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(rows16_of_bytes, ROWS, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

#endif
