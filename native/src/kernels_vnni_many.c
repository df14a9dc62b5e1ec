/* Several vectors at once with AVX-512 and VNNI: a register holds sixteen rows and a pair of columns, so that a pair of
 * a vector's values, spread over all lanes, is multiplied by all of them and nothing is left to be summed. For this
 * sixteen rows are laid out anew, 256 columns at a time; the more vectors, the less that matters. */
#include "kernels_blocks.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include <immintrin.h>
#include <string.h>

#define ROWS 16u /* laid out at a time */
#define COLS 256u
#define TOKENS 8u /* whose sums stay in registers */

/* Four registers whose 32-bit lanes are rows' columns, transposed within each 128 bits. */
static inline void transpose4(__m512i v[4])
{
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(a, c);
    v[1] = _mm512_unpackhi_epi64(a, c);
    v[2] = _mm512_unpacklo_epi64(b, d);
    v[3] = _mm512_unpackhi_epi64(b, d);
}

/* Sixteen columns of four rows that lie four apart, one in each 128 bits. */
static inline __m512i load_rows(const int8_t *w, size_t stride, uint32_t rows, __mmask16 some)
{
    __m128i r[4];
    for (uint32_t k = 0; k < 4u; k++) {
        r[k] = 4u * k < rows ? _mm_maskz_loadu_epi8(some, w + 4u * k * stride) : _mm_setzero_si128();
    }
    __m512i v = _mm512_castsi128_si512(r[0]);
    v = _mm512_inserti32x4(v, r[1], 1);
    v = _mm512_inserti32x4(v, r[2], 2);
    return _mm512_inserti32x4(v, r[3], 3);
}

/* Lay out up to sixteen rows: pair[p] holds columns 2 p and 2 p + 1 of all of them, zeros beyond rows and columns. Lane
 * 4 i + j is row 4 i + j: a register of four rows that lie four apart has row 4 i + j in its 128 bits i. */
static void lay_out(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, __m512i *pair)
{
    const __m512i low = _mm512_set4_epi32((int32_t)0x0D800C80, (int32_t)0x09800880, (int32_t)0x05800480,
                                          (int32_t)0x01800080);
    const __m512i high = _mm512_set4_epi32((int32_t)0x0F800E80, (int32_t)0x0B800A80, (int32_t)0x07800680,
                                           (int32_t)0x03800280);
    for (uint32_t c = 0; c < cols; c += 16u, pair += 8) {
        __mmask16 some = (__mmask16)(cols - c >= 16u ? 0xFFFFu : (1u << (cols - c)) - 1u);
        __m512i v[4];
        for (uint32_t k = 0; k < 4u; k++) {
            v[k] = k < rows ? load_rows(w + c + k * stride, stride, rows - k, some) : _mm512_setzero_si512();
        }
        transpose4(v); /* v[k]: columns 4 k to 4 k + 3, one row in each lane */
        for (uint32_t k = 0; k < 4u; k++) {
            pair[2u * k] = _mm512_srai_epi16(_mm512_shuffle_epi8(v[k], low), 8);
            pair[2u * k + 1u] = _mm512_srai_epi16(_mm512_shuffle_epi8(v[k], high), 8);
        }
    }
}

static inline __m512i spread(const int16_t *x)
{
    int32_t two;
    memcpy(&two, x, sizeof two);
    return _mm512_set1_epi32(two);
}

/* Sixteen rows times `n` vectors, TOKENS at most, each `pairs` pairs of columns long. */
static inline void multiply(const __m512i *pair, uint32_t pairs, const int16_t *x, size_t x_stride, uint32_t n,
                            __m512i *sum)
{
    const int16_t *v[TOKENS];
    __m512i s[TOKENS];
    for (uint32_t t = 0; t < TOKENS; t++) {
        v[t] = x + (t < n ? t : 0u) * x_stride;
        s[t] = sum[t];
    }
    for (uint32_t p = 0; p < pairs; p++) {
        __m512i w = pair[p];
        for (uint32_t t = 0; t < TOKENS; t++) {
            s[t] = _mm512_dpwssd_epi32(s[t], w, spread(v[t] + 2u * p));
        }
    }
    for (uint32_t t = 0; t < TOKENS; t++) {
        sum[t] = s[t];
    }
}

/* Columns that are left of an odd number. */
static inline __m512i last_column(__m512i w, int16_t x)
{
    return _mm512_dpwssd_epi32(_mm512_setzero_si512(), w, _mm512_set1_epi32((uint16_t)x));
}

/* `add`: to what is there. */
static void rows16(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __mmask16 some = (__mmask16)((1u << rows) - 1u);
    __m512i pair[COLS / 2u];
    lay_out(w, rows, cols, stride, pair);
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        const int16_t *v = x + t * x_stride;
        int32_t *out = acc + t * acc_stride;
        __m512i sum[TOKENS];
        for (uint32_t k = 0; k < TOKENS; k++) {
            sum[k] = add && k < tokens ? _mm512_maskz_loadu_epi32(some, out + k * acc_stride) : _mm512_setzero_si512();
        }
        multiply(pair, cols / 2u, v, x_stride, tokens, sum);
        for (uint32_t k = 0; k < tokens; k++) {
            if (cols % 2u) {
                sum[k] = _mm512_add_epi32(sum[k], last_column(pair[cols / 2u], v[k * x_stride + cols - 1u]));
            }
            _mm512_mask_storeu_epi32(out + k * acc_stride, some, sum[k]);
        }
    }
}

void ehmn_kernels_vnni_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(rows16, ROWS, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_vnni_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * COLS];
    ehmn_matmat_s4(rows16, ROWS, COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

/* ---- Vectors of 8 bits: a register holds sixteen rows and four columns. The instruction takes one factor without a
 * sign: weights enter plus 128, and 128 times the sum of the vector leaves. */

#define ROWS8 64u /* laid out at a time */

static void lay_out8(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, __m512i *four)
{
    for (uint32_t c = 0; c < cols; c += 16u, four += 4) {
        __mmask16 some = (__mmask16)(cols - c >= 16u ? 0xFFFFu : (1u << (cols - c)) - 1u);
        __m512i v[4];
        for (uint32_t k = 0; k < 4u; k++) {
            v[k] = k < rows ? load_rows(w + c + k * stride, stride, rows - k, some) : _mm512_setzero_si512();
        }
        transpose4(v);
        for (uint32_t k = 0; k < 4u; k++) {
            four[k] = _mm512_xor_si512(v[k], _mm512_set1_epi8(-128));
        }
    }
}

/* -128 times the sum of a vector, in every lane. */
static inline __m512i lowered(const int8_t *x, uint32_t cols)
{
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t c = 0; c < cols; c += 64u) {
        __mmask64 some = cols - c >= 64u ? ~(__mmask64)0 : ((__mmask64)1 << (cols - c)) - 1u;
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), _mm512_maskz_loadu_epi8(some, x + c));
    }
    return _mm512_set1_epi32(-_mm512_reduce_add_epi32(sum));
}

/* `count` columns, four at most, in every lane. */
static inline __m512i spread8(const int8_t *x, uint32_t count)
{
    int32_t four = 0;
    memcpy(&four, x, count);
    return _mm512_set1_epi32(four);
}

/* Sixteen rows times TOKENS vectors, to what is in s. */
static inline void multiply8(const __m512i *four, uint32_t cols, const int8_t *const *x, __m512i *sum)
{
    __m512i s[TOKENS];
    uint32_t c = 0;
    memcpy(s, sum, sizeof s);
    for (; c + 4u <= cols; c += 4u) {
        __m512i w = *four++;
        for (uint32_t t = 0; t < TOKENS; t++) {
            s[t] = _mm512_dpbusd_epi32(s[t], w, spread8(x[t] + c, 4u));
        }
    }
    for (uint32_t t = 0; t < TOKENS && c < cols; t++) {
        s[t] = _mm512_dpbusd_epi32(s[t], *four, spread8(x[t] + c, cols - c));
    }
    memcpy(sum, s, sizeof s);
}

static void rows64(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m512i four[ROWS8 / 16u][COLS / 4u];
    for (uint32_t r = 0; r < rows; r += 16u) {
        lay_out8(w + r * stride, rows - r < 16u ? rows - r : 16u, cols, stride, four[r / 16u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        const int8_t *v[TOKENS];
        __m512i begin[TOKENS];
        for (uint32_t k = 0; k < TOKENS; k++) {
            v[k] = x + (t + (k < tokens ? k : 0u)) * x_stride;
            begin[k] = lowered(v[k], cols);
        }
        for (uint32_t r = 0; r < rows; r += 16u) {
            __mmask16 some = (__mmask16)(rows - r < 16u ? (1u << (rows - r)) - 1u : 0xFFFFu);
            int32_t *out = acc + t * acc_stride + r;
            __m512i sum[TOKENS];
            memcpy(sum, begin, sizeof sum);
            multiply8(four[r / 16u], cols, v, sum);
            for (uint32_t k = 0; k < tokens; k++, out += acc_stride) {
                __m512i s = add ? _mm512_add_epi32(sum[k], _mm512_maskz_loadu_epi32(some, out)) : sum[k];
                _mm512_mask_storeu_epi32(out, some, s);
            }
        }
    }
}

void ehmn_kernels_vnni_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(rows64, ROWS8, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

#endif
