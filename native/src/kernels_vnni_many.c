/* Several vectors at once with AVX-512 and VNNI: a register holds sixteen rows and a pair of columns, so that a pair of
 * a vector's values, spread over all lanes, is multiplied by all of them and nothing is left to be summed. For this
 * sixteen rows are laid out anew, 256 columns at a time; the more vectors, the less that matters. */
#include "kernels_blocks.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include "avx512.h"

#include <string.h>

#define ROWS 32u /* laid out at a time */
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

/* Ask for as many rows as are laid out at a time, `ahead` bytes from here: they come while these are multiplied. */
static inline void ask_for(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, size_t ahead)
{
    for (uint32_t r = 0; r < rows; r++) {
        uintptr_t at = (uintptr_t)w + r * stride + ahead;
        for (uint32_t c = 0; c < cols; c += 64u) {
            _mm_prefetch((const char *)(at + c), _MM_HINT_T0);
        }
    }
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

/* `blocks` times sixteen rows, one or two, times TOKENS vectors, each `pairs` pairs of columns long and perhaps one column
 * more. */
EHMN_INTO static inline void multiply(__m512i (*pair)[COLS / 2u], uint32_t blocks, uint32_t cols, const int16_t *const *x,
                                      __m512i (*sum)[TOKENS])
{
    __m512i s[2][TOKENS];
    for (uint32_t t = 0; t < TOKENS; t++) {
        s[0][t] = s[1][t] = _mm512_setzero_si512();
    }
    for (uint32_t p = 0; p < cols / 2u; p++) {
        for (uint32_t t = 0; t < TOKENS; t++) {
            __m512i v = spread(x[t] + 2u * p);
            for (uint32_t k = 0; k < blocks; k++) {
                s[k][t] = dot_words(s[k][t], pair[k][p], v);
            }
        }
    }
    for (uint32_t t = 0; t < TOKENS && cols % 2u; t++) {
        for (uint32_t k = 0; k < blocks; k++) {
            s[k][t] = dot_words(s[k][t], pair[k][cols / 2u], _mm512_set1_epi32((uint16_t)x[t][cols - 1u]));
        }
    }
    memcpy(sum, s, blocks * sizeof s[0]);
}

/* `add`: to what is there. */
static inline void put(const __m512i *sum, uint32_t tokens, uint32_t rows, int add, int32_t *out, size_t acc_stride)
{
    __mmask16 some = (__mmask16)(rows < 16u ? (1u << rows) - 1u : 0xFFFFu);
    for (uint32_t k = 0; k < tokens; k++, out += acc_stride) {
        __m512i s = add ? _mm512_add_epi32(sum[k], _mm512_maskz_loadu_epi32(some, out)) : sum[k];
        _mm512_mask_storeu_epi32(out, some, s);
    }
}

static void rows32(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m512i pair[2][COLS / 2u];
    uint32_t first = rows < 16u ? rows : 16u;
    lay_out(w, first, cols, stride, pair[0]);
    if (rows > 16u) {
        lay_out(w + 16u * stride, rows - 16u, cols, stride, pair[1]);
    }
    ask_for(w, rows, cols, stride, ROWS * stride);
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        const int16_t *v[TOKENS];
        int32_t *out = acc + t * acc_stride;
        __m512i sum[2][TOKENS];
        for (uint32_t k = 0; k < TOKENS; k++) {
            v[k] = x + (t + (k < tokens ? k : 0u)) * x_stride;
        }
        if (rows > 16u) {
            multiply(pair, 2u, cols, v, sum);
            put(sum[1], tokens, rows - 16u, add, out + 16, acc_stride);
        } else {
            multiply(pair, 1u, cols, v, sum);
        }
        put(sum[0], tokens, first, add, out, acc_stride);
    }
}

void ehmn_kernels_vnni_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                  uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s16(rows32, ROWS, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

void ehmn_kernels_vnni_matmat_s4(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int8_t part[ROWS * COLS];
    ehmn_matmat_s4(rows32, ROWS, COLS, part, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
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
        sum = dot_bytes(sum, _mm512_set1_epi8(-128), _mm512_maskz_loadu_epi8(some, x + c));
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

/* `blocks` times sixteen rows, one or two, times TOKENS vectors; each sum begins as `begin` says for its vector. */
EHMN_INTO static inline void multiply8(__m512i (*four)[COLS / 4u], uint32_t blocks, uint32_t cols,
                                const int8_t *const *x, const __m512i *begin, __m512i (*sum)[TOKENS])
{
    __m512i s[2][TOKENS];
    uint32_t c = 0;
    for (uint32_t t = 0; t < TOKENS; t++) {
        s[0][t] = s[1][t] = begin[t];
    }
    for (; c + 4u <= cols; c += 4u) {
        for (uint32_t t = 0; t < TOKENS; t++) {
            __m512i v = spread8(x[t] + c, 4u);
            for (uint32_t k = 0; k < blocks; k++) {
                s[k][t] = dot_bytes(s[k][t], four[k][c / 4u], v);
            }
        }
    }
    for (uint32_t t = 0; t < TOKENS && c < cols; t++) {
        for (uint32_t k = 0; k < blocks; k++) {
            s[k][t] = dot_bytes(s[k][t], four[k][c / 4u], spread8(x[t] + c, cols - c));
        }
    }
    memcpy(sum, s, blocks * sizeof s[0]);
}

static void rows64(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m512i four[ROWS8 / 16u][COLS / 4u];
    for (uint32_t r = 0; r < rows; r += 16u) {
        lay_out8(w + r * stride, rows - r < 16u ? rows - r : 16u, cols, stride, four[r / 16u]);
    }
    ask_for(w, rows, cols, stride, ROWS8 * stride);
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        const int8_t *v[TOKENS];
        __m512i begin[TOKENS];
        for (uint32_t k = 0; k < TOKENS; k++) {
            v[k] = x + (t + (k < tokens ? k : 0u)) * x_stride;
            begin[k] = lowered(v[k], cols);
        }
        for (uint32_t r = 0; r < rows; r += 32u) {
            int32_t *out = acc + t * acc_stride + r;
            __m512i sum[2][TOKENS];
            if (rows - r > 16u) {
                multiply8(four + r / 16u, 2u, cols, v, begin, sum);
                put(sum[1], tokens, rows - r - 16u, add, out + 16, acc_stride);
            } else {
                multiply8(four + r / 16u, 1u, cols, v, begin, sum);
            }
            put(sum[0], tokens, rows - r, add, out, acc_stride);
        }
    }
}

void ehmn_kernels_vnni_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    ehmn_matmat_s8(rows64, ROWS8, COLS, w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
}

#endif
