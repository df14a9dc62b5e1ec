/* Loops over vectors that learning alone has, for AVX2: see vectors_x86.h. Each ends in plain C. */
#include "vectors_x86.h"

#if defined(EHMN_ASK_X86) && defined(__AVX2__)

#include "avx2.h"

static inline __m256i all(int32_t v)
{
    return _mm256_set1_epi32(v);
}

static inline __m256i load(const int32_t *v)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)v);
}

static inline void store(int32_t *v, __m256i x)
{
    _mm256_storeu_si256((__m256i *)(void *)v, x);
}

static inline __m256i load8(const int8_t *v)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)v));
}

static inline __m256i load16(const int16_t *v)
{
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)v));
}

static inline __m256i odd(__m256i v)
{
    return _mm256_srli_epi64(v, 32);
}

/* sum + a b, of even and of odd lanes. */
static inline __m256i dot(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi64(_mm256_add_epi64(sum, _mm256_mul_epi32(a, b)), _mm256_mul_epi32(odd(a), odd(b)));
}

static inline int64_t total(__m256i v)
{
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

int64_t ehmn_avx2_dot_weights(const int8_t *w, const int32_t *v, uint32_t n)
{
    __m256i sum = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        sum = dot(sum, load8(w + i), load(v + i));
    }
    return total(sum) + ehmn_plain_dot_weights(w + i, v + i, n - i);
}

int64_t ehmn_avx2_dot_outputs(const int16_t *z, const int32_t *v, uint32_t n)
{
    __m256i sum = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        sum = dot(sum, load16(z + i), load(v + i));
    }
    return total(sum) + ehmn_plain_dot_outputs(z + i, v + i, n - i);
}

int64_t ehmn_avx2_sum(const int32_t *v, uint32_t n)
{
    __m256i sum = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 4u <= n; i += 4u) {
        sum = _mm256_add_epi64(sum, _mm256_cvtepi32_epi64(_mm_loadu_si128((const __m128i *)(const void *)(v + i))));
    }
    return total(sum) + ehmn_plain_sum(v + i, n - i);
}

uint64_t ehmn_avx2_limit(int32_t *v, uint32_t n, int32_t most)
{
    const __m256i low = all(-most), high = all(most);
    __m256i sum = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i a = _mm256_max_epi32(_mm256_min_epi32(load(v + i), high), low), magnitude = _mm256_abs_epi32(a);
        sum = _mm256_add_epi64(sum, _mm256_blend_epi32(magnitude, _mm256_setzero_si256(), 0xAA));
        sum = _mm256_add_epi64(sum, odd(magnitude));
        store(v + i, a);
    }
    return (uint64_t)total(sum) + ehmn_plain_limit(v + i, n - i, most);
}

uint32_t ehmn_avx2_length(const int8_t *w, uint32_t n)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum = zero;
    uint32_t i = 0;
    for (; i + 32u <= n; i += 32u) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(w + i));
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_abs_epi8(a), zero));
    }
    return (uint32_t)total(sum) + ehmn_plain_length(w + i, n - i);
}

/* The products fit 2^47: what is rounded away of them leaves 32 bits. */
void ehmn_avx2_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out)
{
    const __m256i half = _mm256_set1_epi64x(1 << 14);
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i a = load(v + i), y = load16(z + i);
        __m256i slope = _mm256_sub_epi32(all(32768), _mm256_srli_epi32(_mm256_mullo_epi32(y, y), 15));
        __m256i p = _mm256_add_epi64(_mm256_mul_epi32(a, slope), half);
        __m256i q = _mm256_add_epi64(_mm256_mul_epi32(odd(a), odd(slope)), half);
        store(out + i, _mm256_blend_epi32(_mm256_srli_epi64(p, 15), _mm256_slli_epi64(q, 17), 0xAA));
    }
    ehmn_plain_times_slope(v + i, z + i, n - i, out + i);
}

/* Without a carry a difference leaves 32 bits where its sign is not v's, and v's is not what is taken from it. */
void ehmn_avx2_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out)
{
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i a = load(v + i), b = load(less + i), d = _mm256_sub_epi32(a, b);
        __m256i beyond = _mm256_srai_epi32(_mm256_and_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(a, d)), 31);
        __m256i limit = _mm256_xor_si256(_mm256_srai_epi32(a, 31), all(INT32_MAX));
        store(out + i, _mm256_max_epi32(_mm256_blendv_epi8(d, limit, beyond), all(-INT32_MAX)));
    }
    ehmn_plain_subtract_all(v + i, less + i, n - i, out + i);
}

/* tanh(x) = 2 sigmoid(2x) - 1. One read brings an entry of the table and the next. */
void ehmn_avx2_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z)
{
    uint32_t i = 0;
    const __m128i but_one = _mm_cvtsi32_si128(shift - 1), up = _mm_cvtsi32_si128(-shift);
    for (; shift >= -10 && shift <= 31 && i + 8u <= n; i += 8u) {
        __m256i x = load(v + i);
        if (shift > 0) {
            x = _mm256_sra_epi32(x, but_one);
            x = _mm256_add_epi32(_mm256_srai_epi32(x, 1), _mm256_and_si256(x, all(1)));
        } else { /* beyond 2^20 nothing changes */
            x = _mm256_sll_epi32(_mm256_max_epi32(_mm256_min_epi32(x, all(1 << 20)), all(-(1 << 20))), up);
        }
        __m256i a = _mm256_min_epu32(_mm256_abs_epi32(x), all((1 << 19) - 1));
        const int *table = (const int *)(const void *)ehmn_sigmoid_table;
        __m256i word = _mm256_i32gather_epi32(table, _mm256_srli_epi32(a, 10), 2);
        __m256i low = _mm256_and_si256(word, all(65535)), step = _mm256_sub_epi32(_mm256_srli_epi32(word, 16), low);
        __m256i part = _mm256_mullo_epi32(step, _mm256_and_si256(a, all(1023)));
        part = _mm256_srli_epi32(_mm256_add_epi32(part, all(512)), 10);
        __m256i y = _mm256_add_epi32(_mm256_sub_epi32(low, all(32768)), part);
        y = _mm256_sign_epi32(y, x); /* zero where x is: so is y */
        __m128i fits = _mm_packs_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
        _mm_storeu_si128((__m128i *)(void *)(z + i), fits);
    }
    ehmn_plain_tanh_all(v + i, n - i, shift, z + i);
}

/* Eight at a time up to those of which one is where it ends. */
uint32_t ehmn_avx2_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)
{
    uint64_t left = *ahead;
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        __m256i p = exp2_neg(_mm256_sub_epi32(all(max), load16(logits + i)));
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(p), _mm256_extracti128_si256(p, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
        uint32_t sum = (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
        if (left < sum) {
            uint32_t each[8], k = 0;
            _mm256_storeu_si256((__m256i *)(void *)each, p);
            for (; left >= each[k]; k++) {
                left -= each[k];
            }
            *ahead = left;
            return i + k;
        }
        left -= sum;
    }
    *ahead = left;
    return i + ehmn_plain_pass_over(logits + i, n - i, max, ahead);
}

#endif
