/* Several vectors at once with AMX: a tile of sixteen vectors' bytes, 64 columns of each, times a tile of sixteen rows
 * of weights is a tile of sums. A vector of words is two of bytes, 256 high + low, the low ones without a sign, so that
 * both are exact; sums are taken modulo 2^32. All else is AVX-512's. */
#include "kernels_tables.h"

#if defined(__AMX_INT8__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#include "avx512.h"

#include <stddef.h>

#define TILE 16u     /* vectors or rows of one */
#define TILE_COLS 64u
#define COLS 256u    /* laid out at a time */
#define VECTORS 64u  /* whose bytes are held at a time */
#define FEW 8u       /* so many vectors and more are worth the layout */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config;

static const tile_config FULL_TILES = {
    1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/* The bytes of up to VECTORS vectors, zeros beyond them and beyond their columns. */
typedef int8_t plane[VECTORS][COLS] __attribute__((aligned(64)));

/* Where sums go: of `n` vectors, acc_stride apart, `rows` of each; `add`: to what is there. */
typedef struct {
    int32_t *acc;
    size_t acc_stride;
    uint32_t n, rows;
    int add;
} place;

static inline __mmask64 first_bytes(uint32_t n)
{
    return n >= 64u ? ~(__mmask64)0 : ((__mmask64)1 << n) - 1u;
}

/* Sums of one tile, 256 times the second added unless it is NULL. */
static void put(const int32_t *sums, const int32_t *high, const place *to, uint32_t first)
{
    __mmask16 some = (__mmask16)first_of(to->rows < TILE ? to->rows : TILE), from = to->add ? some : 0;
    for (uint32_t t = 0; t < TILE && first + t < to->n; t++) {
        int32_t *at = to->acc + (first + t) * to->acc_stride;
        __m512i sum = _mm512_loadu_si512(sums + t * TILE);
        if (high != NULL) {
            sum = _mm512_add_epi32(sum, _mm512_slli_epi32(_mm512_loadu_si512(high + t * TILE), 8));
        }
        _mm512_mask_storeu_epi32(at, some, _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(from, at)));
    }
}

/* The rows that come next, while these are multiplied. */
static inline void ask_for(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride)
{
    for (uint32_t r = 0; r < rows && r < TILE; r++) {
        for (uint32_t c = 0; c < cols; c += 64u) {
            _mm_prefetch((const char *)((uintptr_t)w + r * stride + c), _MM_HINT_T0);
        }
    }
}

/* Two tiles of vectors times sixteen rows; high NULL: vectors of bytes. */
static void multiply(const __m512i *four, uint32_t tiles, plane low, plane high, const place *to)
{
    int32_t sums[4][TILE * TILE] __attribute__((aligned(64)));
    for (uint32_t first = 0; first < to->n; first += 2u * TILE) {
        _tile_zero(0);
        _tile_zero(1);
        if (high == NULL) {
            for (uint32_t k = 0; k < tiles; k++) {
                _tile_loadd(4, four + k * TILE, 64);
                _tile_loadd(5, low[first] + k * TILE_COLS, COLS);
                _tile_loadd(6, low[first + TILE] + k * TILE_COLS, COLS);
                _tile_dpbssd(0, 5, 4);
                _tile_dpbssd(1, 6, 4);
            }
        } else {
            _tile_zero(2);
            _tile_zero(3);
            for (uint32_t k = 0; k < tiles; k++) {
                _tile_loadd(4, four + k * TILE, 64);
                _tile_loadd(5, low[first] + k * TILE_COLS, COLS);
                _tile_loadd(6, low[first + TILE] + k * TILE_COLS, COLS);
                _tile_dpbusd(0, 5, 4);
                _tile_dpbusd(1, 6, 4);
                _tile_loadd(5, high[first] + k * TILE_COLS, COLS);
                _tile_loadd(6, high[first + TILE] + k * TILE_COLS, COLS);
                _tile_dpbssd(2, 5, 4);
                _tile_dpbssd(3, 6, 4);
            }
            _tile_stored(2, sums[2], 64);
            _tile_stored(3, sums[3], 64);
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        put(sums[0], high != NULL ? sums[2] : NULL, to, first);
        put(sums[1], high != NULL ? sums[3] : NULL, to, first + TILE);
    }
}

/* All rows times the columns that the planes hold. */
static void rows_of(const int8_t *w, uint32_t rows, uint32_t cols, size_t stride, plane low, plane high, place to)
{
    __m512i four[COLS / 4u];
    uint32_t tiles = (cols + TILE_COLS - 1u) / TILE_COLS;
    for (uint32_t j = cols / 16u * 4u; j < tiles * TILE; j++) {
        four[j] = _mm512_setzero_si512();
    }
    for (uint32_t r = 0; r < rows; r += TILE, to.acc += TILE) {
        to.rows = rows - r;
        lay_out_bytes(w + r * stride, to.rows < TILE ? to.rows : TILE, cols, stride, 0, four);
        if (to.rows > TILE) {
            ask_for(w + (r + TILE) * stride, to.rows - TILE, cols, stride);
        }
        __asm__ volatile("" ::: "memory"); /* what tiles read is written */
        multiply(four, tiles, low, high, &to);
    }
}

static void fill_bytes(const int8_t *x, uint32_t n, uint32_t cols, size_t stride, plane low)
{
    for (uint32_t t = 0; t < (n + 2u * TILE - 1u) / (2u * TILE) * (2u * TILE); t++) {
        for (uint32_t c = 0; c < cols; c += 64u) {
            __mmask64 some = t < n ? first_bytes(cols - c) : 0;
            _mm512_store_si512(low[t] + c, _mm512_maskz_loadu_epi8(some, x + (t < n ? t : 0u) * stride + c));
        }
    }
}

static void fill_words(const int16_t *x, uint32_t n, uint32_t cols, size_t stride, plane low, plane high)
{
    for (uint32_t t = 0; t < (n + 2u * TILE - 1u) / (2u * TILE) * (2u * TILE); t++) {
        for (uint32_t c = 0; c < (cols + 63u) / 64u * 64u; c += 32u) {
            uint32_t left = c < cols && t < n ? cols - c : 0u;
            __m512i v = _mm512_maskz_loadu_epi16((__mmask32)first_of(left), x + (left > 0 ? t * stride + c : 0u));
            _mm256_store_si256((__m256i *)(void *)(low[t] + c), _mm512_cvtepi16_epi8(v));
            _mm256_store_si256((__m256i *)(void *)(high[t] + c), _mm512_cvtepi16_epi8(_mm512_srai_epi16(v, 8)));
        }
    }
}

void ehmn_kernels_amx_matmat_s8(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                                uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    if (n < FEW) {
        ehmn_kernels_vnni_matmat_s8(w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
        return;
    }
    plane low;
    _tile_loadconfig(&FULL_TILES);
    for (uint32_t t = 0; t < n; t += VECTORS) {
        for (uint32_t c = 0; c < cols; c += COLS) {
            uint32_t some = cols - c < COLS ? cols - c : COLS;
            place to = {acc + (size_t)t * acc_stride, acc_stride, n - t < VECTORS ? n - t : VECTORS, rows, c > 0};
            fill_bytes(x + (size_t)t * x_stride + c, to.n, some, x_stride, low);
            rows_of((const int8_t *)w + c, rows, some, stride, low, NULL, to);
        }
    }
    _tile_release();
}

void ehmn_kernels_amx_matmat_s16(const void *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                                 uint32_t n, uint32_t x_stride, int32_t *acc, uint32_t acc_stride)
{
    if (n < FEW) {
        ehmn_kernels_vnni_matmat_s16(w, rows, cols, stride, x, n, x_stride, acc, acc_stride);
        return;
    }
    plane low, high;
    _tile_loadconfig(&FULL_TILES);
    for (uint32_t t = 0; t < n; t += VECTORS) {
        for (uint32_t c = 0; c < cols; c += COLS) {
            uint32_t some = cols - c < COLS ? cols - c : COLS;
            place to = {acc + (size_t)t * acc_stride, acc_stride, n - t < VECTORS ? n - t : VECTORS, rows, c > 0};
            fill_words(x + (size_t)t * x_stride + c, to.n, some, x_stride, low, high);
            rows_of((const int8_t *)w + c, rows, some, stride, low, high, to);
        }
    }
    _tile_release();
}

#endif
