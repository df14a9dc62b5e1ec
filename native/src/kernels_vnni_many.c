/* Several vectors at once with AVX-512 and VNNI: a register holds sixteen rows and a pair of columns, so that a pair of
 * a vector's values, spread over all lanes, is multiplied by all of them and nothing is left to be summed. For this
 * sixteen rows are laid out anew, 256 columns at a time; the more vectors, the less that matters. */
#include "kernels_blocks.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#include "avx512.h"

#include <string.h>

#define ROWS 32u /* laid out at a time */
#define COLS 256u
#define TOKENS 8u /* whose sums stay in registers: each has a name, since of arrays gcc 12 keeps a copy in memory */
#define EACH_TOKEN(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)

/* Ask for a part of as many rows as are laid out at a time, `ahead` bytes from here, with the group of vectors that
 * begins at t of n: they come while these are multiplied. */
static inline void ask_for(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, size_t ahead, uint32_t t,
                           uint32_t n)
{
    uint32_t share = (rows * TOKENS + n - 1u) / n, first = t / TOKENS * share;
    for (uint32_t r = first; r < rows && r < first + share; r++) {
        uintptr_t at = (uintptr_t)w + r * stride + ahead;
        for (uint32_t c = 0; c < cols; c += 64u) {
            _mm_prefetch((const char *)(at + c), _MM_HINT_T0);
        }
    }
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

/* Where sums go: of `tokens` vectors, acc_stride apart, `rows` of each; `add`: to what is there. */
typedef struct {
    int32_t *acc;
    size_t acc_stride;
    uint32_t tokens;
    uint32_t rows;
    int add;
} place;

/* One vector's sums of sixteen rows, the second sixteen if `k` is 1. */
EHMN_INTO static inline void put(const place *to, uint32_t t, uint32_t k, __m512i sum)
{
    const __mmask16 some = (__mmask16)first_of(to->rows - 16u * k), from = to->add ? some : 0;
    if (t < to->tokens) {
        int32_t *at = to->acc + t * to->acc_stride + 16u * k;
        _mm512_mask_storeu_epi32(at, some, _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(from, at)));
    }
}

#define BEGIN(t) __m512i a##t = _mm512_setzero_si512(), b##t = a##t;
#define ADD(t)                                                                                                         \
    v = spread(x[t] + 2u * p);                                                                                         \
    a##t = dot_words(a##t, first, v);                                                                                  \
    b##t = two ? dot_words(b##t, second, v) : b##t;
#define ADD_LAST(t)                                                                                                    \
    v = _mm512_set1_epi32((uint16_t)x[t][cols - 1u]);                                                                  \
    a##t = dot_words(a##t, pair[0][cols / 2u], v);                                                                     \
    b##t = two ? dot_words(b##t, pair[1][cols / 2u], v) : b##t;
#define PUT(t) put(to, t, 0, a##t);
#define PUT_SECOND(t) put(to, t, 1u, b##t);

/* Sixteen rows, or twice as many, of `cols` columns times TOKENS vectors. */
EHMN_INTO static inline void multiply(__m512i (*pair)[COLS / 2u], const int two, uint32_t cols, const int16_t *const *x,
                                      const place *to)
{
    __m512i v;
    EACH_TOKEN(BEGIN)
    for (size_t p = 0; p < cols / 2u; p++) {
        __m512i first = pair[0][p], second = two ? pair[1][p] : first;
        EACH_TOKEN(ADD)
    }
    if (cols % 2u != 0) {
        EACH_TOKEN(ADD_LAST)
    }
    EACH_TOKEN(PUT)
    if (two) {
        EACH_TOKEN(PUT_SECOND)
    }
}

static void rows32(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int16_t *x, uint32_t n,
                   size_t x_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m512i pair[2][COLS / 2u];
    lay_out(w, rows < 16u ? rows : 16u, cols, stride, pair[0]);
    if (rows > 16u) {
        lay_out(w + 16u * stride, rows - 16u, cols, stride, pair[1]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS) {
        const place to = {acc + t * acc_stride, acc_stride, n - t < TOKENS ? n - t : TOKENS, rows, add};
        const int16_t *v[TOKENS];
        ask_for(w, rows, cols, stride, ROWS * stride, t, n);
        for (uint32_t k = 0; k < TOKENS; k++) {
            v[k] = x + (t + (k < to.tokens ? k : 0u)) * x_stride;
        }
        if (rows > 16u) {
            multiply(pair, 1, cols, v, &to);
        } else {
            multiply(pair, 0, cols, v, &to);
        }
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

/* ---- Sums of rows: a register holds sixteen columns and a pair of rows, both with the other sign, since a weight may
 * be 2^15: -2^15 fits a word. */

static inline void lay_out_columns(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, __m512i *pair)
{
    const __mmask16 some = (__mmask16)(cols >= 16u ? 0xFFFFu : (1u << cols) - 1u);
    for (uint32_t r = 0; r < rows; r += 2u, w += 2u * stride) {
        __m128i a = _mm_maskz_loadu_epi8(some, w);
        __m128i b = r + 1u < rows ? _mm_maskz_loadu_epi8(some, w + stride) : _mm_setzero_si128();
        __m256i both = _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b));
        pair[r / 2u] = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_cvtepi8_epi16(both));
    }
}

/* Weights with the other sign, in words. */
static inline void negate(const int32_t *weight, uint32_t n, int16_t *out)
{
    for (uint32_t i = 0; i < n; i += 16u) {
        __mmask16 some = (__mmask16)first_of(n - i);
        __m512i v = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_maskz_loadu_epi32(some, weight + i));
        _mm512_mask_cvtepi32_storeu_epi16(out + i, some, v);
    }
}

/* Up to COLS rows and 32 columns. */
static void columns32(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int32_t *weight, uint32_t n,
                      size_t weight_stride, int add, int32_t *acc, size_t acc_stride)
{
    __m512i pair[2][COLS / 2u];
    int16_t x[TOKENS][COLS];
    const int16_t *v[TOKENS];
    lay_out_columns(w, rows, cols, stride, pair[0]);
    if (cols > 16u) {
        lay_out_columns(w + 16, rows, cols - 16u, stride, pair[1]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS) {
        const place to = {acc + t * acc_stride, acc_stride, n - t < TOKENS ? n - t : TOKENS, cols, add};
        for (uint32_t k = 0; k < TOKENS; k++) {
            v[k] = x[k < to.tokens ? k : 0u];
            if (k < to.tokens) {
                negate(weight + (t + k) * weight_stride, rows, x[k]);
            }
        }
        if (cols > 16u) {
            multiply(pair, 1, rows, v, &to);
        } else {
            multiply(pair, 0, rows, v, &to);
        }
    }
}

void ehmn_kernels_vnni_weighted_sums(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                     const int32_t *weight, uint32_t n, uint32_t weight_stride, int add, int32_t *acc,
                                     uint32_t acc_stride)
{
    for (uint32_t r = 0; r < rows; r += COLS) {
        const int8_t *row = w + (size_t)r * stride;
        uint32_t some = rows - r < COLS ? rows - r : COLS;
        for (uint32_t c = 0; c < cols; c += 32u) {
            columns32(row + c, some, cols - c < 32u ? cols - c : 32u, stride, weight + r, n, weight_stride,
                      add || r != 0, acc + c, acc_stride);
        }
    }
}

/* ---- Vectors of 8 bits: a register holds sixteen rows and four columns. The instruction takes one factor without a
 * sign: weights enter plus 128, and 128 times the sum of the vector leaves. */

#define ROWS8 64u /* laid out at a time */
#define MOST_LOWERED 128u /* vectors whose sums are kept */

/* -128 times the sum of a vector. */
static inline int32_t lowered(const int8_t *x, uint32_t cols)
{
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t c = 0; c < cols; c += 64u) {
        __mmask64 some = cols - c >= 64u ? ~(__mmask64)0 : ((__mmask64)1 << (cols - c)) - 1u;
        sum = dot_bytes(sum, _mm512_set1_epi8(-128), _mm512_maskz_loadu_epi8(some, x + c));
    }
    return -_mm512_reduce_add_epi32(sum);
}

/* `count` columns, four at most, in every lane. */
static inline __m512i spread8(const int8_t *x, uint32_t count)
{
    int32_t four = 0;
    memcpy(&four, x, count);
    return _mm512_set1_epi32(four);
}

#define BEGIN8(t) __m512i a##t = _mm512_set1_epi32(begin[t]), b##t = a##t;
#define ADD8(t)                                                                                                        \
    v = spread8(x[t] + 4u * p, 4u);                                                                                    \
    a##t = dot_bytes(a##t, first, v);                                                                                  \
    b##t = two ? dot_bytes(b##t, second, v) : b##t;
#define ADD_LAST8(t)                                                                                                   \
    v = spread8(x[t] + (cols & ~3u), cols % 4u);                                                                       \
    a##t = dot_bytes(a##t, four[0][cols / 4u], v);                                                                     \
    b##t = two ? dot_bytes(b##t, four[1][cols / 4u], v) : b##t;

/* Sixteen rows, or twice as many, times TOKENS vectors; each sum begins as `begin` says for its vector. */
EHMN_INTO static inline void multiply8(__m512i (*four)[COLS / 4u], const int two, uint32_t cols, const int8_t *const *x,
                                       const int32_t *begin, const place *to)
{
    __m512i v;
    EACH_TOKEN(BEGIN8)
    for (size_t p = 0; p < cols / 4u; p++) {
        __m512i first = four[0][p], second = two ? four[1][p] : first;
        EACH_TOKEN(ADD8)
    }
    if (cols % 4u != 0) {
        EACH_TOKEN(ADD_LAST8)
    }
    EACH_TOKEN(PUT)
    if (two) {
        EACH_TOKEN(PUT_SECOND)
    }
}

/* `low`: of each vector what `lowered` says, of all columns: there the sums of its first
 * columns begin; NULL: others. */
static void rows64(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, const int8_t *x, uint32_t n,
                   size_t x_stride, const int32_t *low, int32_t *acc, size_t acc_stride)
{
    __m512i four[ROWS8 / 16u][COLS / 4u];
    for (uint32_t r = 0; r < rows; r += 16u) {
        lay_out_bytes(w + r * stride, rows - r < 16u ? rows - r : 16u, cols, stride, -128, four[r / 16u]);
    }
    for (uint32_t t = 0; t < n; t += TOKENS) {
        uint32_t tokens = n - t < TOKENS ? n - t : TOKENS;
        const int8_t *v[TOKENS];
        int32_t begin[TOKENS];
        ask_for(w, rows, cols, stride, ROWS8 * stride, t, n);
        for (uint32_t k = 0; k < TOKENS; k++) {
            uint32_t token = t + (k < tokens ? k : 0u);
            v[k] = x + token * x_stride;
            begin[k] = low != NULL ? low[token] : 0;
        }
        for (uint32_t r = 0; r < rows; r += 32u) {
            const place to = {acc + t * acc_stride + r, acc_stride, tokens, rows - r, low == NULL};
            if (rows - r > 16u) {
                multiply8(four + r / 16u, 1, cols, v, begin, &to);
            } else {
                multiply8(four + r / 16u, 0, cols, v, begin, &to);
            }
        }
    }
}

void ehmn_kernels_vnni_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    int32_t low[MOST_LOWERED];
    for (uint32_t t = 0; t < n; t += MOST_LOWERED, x += (size_t)MOST_LOWERED * x_stride) {
        uint32_t count = n - t < MOST_LOWERED ? n - t : MOST_LOWERED;
        int32_t *out = acc + (size_t)t * acc_stride;
        for (uint32_t k = 0; k < count; k++) {
            low[k] = lowered(x + (size_t)k * x_stride, cols);
        }
        for (uint32_t r = 0; r < rows; r += ROWS8) {
            const int8_t *part = (const int8_t *)w + (size_t)r * stride;
            uint32_t some = rows - r < ROWS8 ? rows - r : ROWS8;
            for (uint32_t c = 0; c < cols; c += COLS) {
                rows64(part + c, some, cols - c < COLS ? cols - c : COLS, stride, x + c, count, x_stride,
                       c == 0 ? low : NULL, out + r, acc_stride);
            }
        }
    }
}

#endif
