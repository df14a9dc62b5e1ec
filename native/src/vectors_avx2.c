/* The functions of vectors.c for AVX2: eight values at a time. What is rare, and what fills no register, is left to
 * plain C. */
#include "vectors_x86.h"
#include "fixed.h"

#if defined(EHMN_ASK_X86)

#include <immintrin.h>
#include <string.h>

static inline __m256i load(const int32_t *v)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)v);
}

static inline void store(int32_t *v, __m256i x)
{
    _mm256_storeu_si256((__m256i *)(void *)v, x);
}

static inline __m256i all(int32_t v)
{
    return _mm256_set1_epi32(v);
}

/* ehmn_add of eight values. */
static inline __m256i add(__m256i a, __m256i b)
{
    __m256i sum = _mm256_add_epi32(a, b);
    __m256i over = _mm256_andnot_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(a, sum));
    __m256i limit = _mm256_xor_si256(_mm256_srai_epi32(a, 31), all(INT32_MAX));
    sum = _mm256_blendv_epi8(sum, limit, _mm256_srai_epi32(over, 31));
    return _mm256_max_epi32(sum, all(-INT32_MAX));
}

/* a - b of eight values, within +-INT32_MAX; b may be INT32_MIN, of which there is no negative. */
static inline __m256i subtract(__m256i a, __m256i b)
{
    __m256i d = _mm256_sub_epi32(a, b);
    __m256i over = _mm256_and_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(a, d));
    __m256i limit = _mm256_xor_si256(_mm256_srai_epi32(a, 31), all(INT32_MAX));
    d = _mm256_blendv_epi8(d, limit, _mm256_srai_epi32(over, 31));
    return _mm256_max_epi32(d, all(-INT32_MAX));
}

/* The upper halves of eight products. */
static inline __m256i upper(__m256i a, __m256i b)
{
    __m256i even = _mm256_srli_epi64(_mm256_mul_epi32(a, b), 32);
    __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(even, odd, 0xAA);
}

static inline int32_t largest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}

static inline uint32_t largest_of(__m256i v)
{
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1)));
}

/* By how much v is shifted to fit `bits` bits. */
static int32_t fitting(const int32_t *v, uint32_t n, int32_t bits)
{
    __m256i most = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        most = _mm256_max_epu32(most, _mm256_abs_epi32(load(v + i)));
    }
    uint32_t max = largest_of(most);
    for (; i < n; i++) {
        max = ehmn_abs(v[i]) > max ? ehmn_abs(v[i]) : max;
    }
    return max != 0 ? ehmn_fitting_shift(max, bits) : 0;
}

/* Eight values shifted, rounded. */
static inline __m256i shifted(const int32_t *v, __m128i but_one)
{
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_sra_epi32(load(v), but_one), all(1)), 1);
}

int32_t ehmn_avx2_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out)
{
    int32_t shift = fitting(v, n, 8);
    uint32_t i = 0;
    if (shift > 0) {
        __m128i but_one = _mm_cvtsi32_si128(shift - 1);
        for (; i + 16u <= n; i += 16u) {
            __m256i words = _mm256_packs_epi32(shifted(v + i, but_one), shifted(v + i + 8u, but_one));
            words = _mm256_permute4x64_epi64(words, 0xD8);
            __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            _mm_storeu_si128((__m128i *)(void *)(out + i), bytes);
        }
        for (; i < n; i++) {
            out[i] = (int8_t)(((v[i] >> (shift - 1)) + 1) >> 1);
        }
    }
    for (; i < n; i++) {
        out[i] = (int8_t)(v[i] * (1 << -shift));
    }
    return frac - shift;
}

int32_t ehmn_avx2_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out)
{
    int32_t shift = fitting(v, n, (int32_t)bits);
    uint32_t i = 0;
    if (shift > 0) {
        __m128i but_one = _mm_cvtsi32_si128(shift - 1);
        for (; i + 16u <= n; i += 16u) {
            __m256i words = _mm256_packs_epi32(shifted(v + i, but_one), shifted(v + i + 8u, but_one));
            _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_permute4x64_epi64(words, 0xD8));
        }
        for (; i < n; i++) {
            out[i] = (int16_t)(((v[i] >> (shift - 1)) + 1) >> 1);
        }
    }
    for (; i < n; i++) {
        out[i] = (int16_t)(v[i] * (1 << -shift));
    }
    return frac - shift;
}

/* Eight mantissas as multiples of the step whose reciprocal this is. */
static inline __m256i narrowed(const int16_t *v, __m256i reciprocal)
{
    __m256i x = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)v));
    x = _mm256_add_epi32(_mm256_mullo_epi32(x, reciprocal), all(EHMN_RECIPROCAL_HALF));
    return _mm256_srai_epi32(x, EHMN_RECIPROCAL_FRAC);
}

int32_t ehmn_avx2_narrow(const int16_t *v, uint32_t n, int8_t *out)
{
    __m256i most = _mm256_setzero_si256();
    uint32_t i = 0, max = 0;
    for (; i + 16u <= n; i += 16u) {
        most = _mm256_max_epu16(most, _mm256_abs_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(v + i))));
    }
    __m256i wide = _mm256_max_epi32(_mm256_and_si256(most, all(0xFFFF)), _mm256_srli_epi32(most, 16));
    max = (uint32_t)largest(wide);
    for (; i < n; i++) {
        max = ehmn_abs(v[i]) > max ? ehmn_abs(v[i]) : max;
    }
    int32_t step = ehmn_step_of(max), factor = EHMN_RECIPROCAL(step);
    __m256i reciprocal = all(factor);
    for (i = 0; i + 16u <= n; i += 16u) {
        __m256i words = _mm256_packs_epi32(narrowed(v + i, reciprocal), narrowed(v + i + 8u, reciprocal));
        words = _mm256_permute4x64_epi64(words, 0xD8);
        __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)(out + i), bytes);
    }
    for (; i < n; i++) {
        out[i] = (int8_t)((v[i] * factor + EHMN_RECIPROCAL_HALF) >> EHMN_RECIPROCAL_FRAC);
    }
    return step;
}

static inline __m256i stepped(const int32_t *v, __m128i but_one, __m256i reciprocal)
{
    __m256i x = _mm256_mullo_epi32(shifted(v, but_one), reciprocal);
    return _mm256_srai_epi32(_mm256_add_epi32(x, all(EHMN_RECIPROCAL_HALF)), EHMN_RECIPROCAL_FRAC);
}

int32_t ehmn_avx2_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step)
{
    __m256i most = _mm256_setzero_si256();
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        most = _mm256_max_epu32(most, _mm256_xor_si256(load(v + i), _mm256_srai_epi32(load(v + i), 31)));
    }
    uint32_t max = largest_of(most); /* of a negative value one less: it rounds alike */
    for (; i < n; i++) {
        max = (uint32_t)(v[i] ^ v[i] >> 31) > max ? (uint32_t)(v[i] ^ v[i] >> 31) : max;
    }
    int32_t shift = ehmn_fitting_shift(max, 16);
    if (shift < 1 || shift != ehmn_fitting_shift(max + 1u, 16)) {
        return ehmn_plain_quantise_narrow(v, n, frac, out, step);
    }
    *step = ehmn_step_of(((max >> (shift - 1)) + 1u) >> 1);
    const int32_t factor = EHMN_RECIPROCAL(*step);
    const __m256i reciprocal = all(factor);
    const __m128i but_one = _mm_cvtsi32_si128(shift - 1);
    for (i = 0; i + 16u <= n; i += 16u) {
        __m256i words = _mm256_packs_epi32(stepped(v + i, but_one, reciprocal),
                                           stepped(v + i + 8u, but_one, reciprocal));
        words = _mm256_permute4x64_epi64(words, 0xD8);
        __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)(out + i), bytes);
    }
    for (; i < n; i++) {
        int32_t mantissa = ((v[i] >> (shift - 1)) + 1) >> 1;
        out[i] = (int8_t)((mantissa * factor + EHMN_RECIPROCAL_HALF) >> EHMN_RECIPROCAL_FRAC);
    }
    return frac - shift;
}

void ehmn_avx2_multiply_all(int32_t *v, uint32_t n, int32_t factor)
{
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        store(v + i, _mm256_mullo_epi32(load(v + i), all(factor)));
    }
    for (; i < n; i++) {
        v[i] *= factor;
    }
}

void ehmn_avx2_shift_all(int32_t *v, const int32_t *shift, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        store(v + i, _mm256_srav_epi32(load(v + i), load(shift + i)));
    }
    for (; i < n; i++) {
        v[i] >>= shift[i];
    }
}

void ehmn_avx2_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8u <= n; i += 8u) {
        store(v + i, add(load(v + i), load(more + i)));
    }
    for (; i < n; i++) {
        v[i] = ehmn_add(v[i], more[i]);
    }
}

/* `within`: no sum leaves 31 bits. */
static inline __attribute__((always_inline)) void add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor,
                                                              int32_t scale, int32_t shift, int within)
{
    int32_t spare = 31 - ehmn_bit_length((uint32_t)scale);
    int32_t beyond = shift + spare + 17 - 32; /* as in plain C */
    uint32_t i = 0;
    if (beyond >= 1 && beyond <= 30) {
        __m256i half = all(1 << (beyond - 1)), f = all(factor * (1 << 17)),
                s = all((int32_t)((uint32_t)scale << spare));
        __m128i count = _mm_cvtsi32_si128(beyond);
        for (; i + 8u <= n; i += 8u) {
            __m256i weights = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(w + i)));
            __m256i high = upper(_mm256_mullo_epi32(weights, f), s);
            __m256i more = _mm256_sra_epi32(_mm256_add_epi32(high, half), count);
            store(v + i, within ? _mm256_add_epi32(load(v + i), more) : add(load(v + i), more));
        }
    }
    if (i < n) {
        ehmn_plain_add_weights(v + i, w + i, n - i, factor, scale, shift);
    }
}

void ehmn_avx2_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    add_weights(v, w, n, factor, scale, shift, 0);
}

void ehmn_avx2_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale,
                                  int32_t shift)
{
    add_weights(v, w, n, factor, scale, shift, 1);
}

void ehmn_avx2_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain)
{
    int32_t spare = 31 - ehmn_bit_length((uint32_t)gain);
    int32_t beyond = 15 + 15 + spare - 32;
    uint32_t i = 0;
    if (beyond >= 1 && beyond <= 30) {
        __m256i half = all(1 << (beyond - 1)), g = all((int32_t)((uint32_t)gain << spare));
        __m128i count = _mm_cvtsi32_si128(beyond);
        for (; i + 8u <= n; i += 8u) {
            __m256i values = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(z + i)));
            __m256i high = upper(_mm256_slli_epi32(values, 15), g);
            store(v + i, add(load(v + i), _mm256_sra_epi32(_mm256_add_epi32(high, half), count)));
        }
    }
    ehmn_plain_add_outputs(v + i, z + i, n - i, gain);
}

void ehmn_avx2_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    uint32_t i = 0;
    __m256i r = all(rate), half = _mm256_set1_epi64x(1 << 15);
    for (; rate >= 0 && rate <= 65536 && i + 8u <= n; i += 8u) { /* no product leaves 32 bits when it is shifted */
        __m256i old = load(mean + i), new = load(v + i);
        __m256i d = subtract(new, old);
        __m256i even = _mm256_add_epi64(_mm256_mul_epi32(d, r), half);
        __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(d, 32), r), half);
        __m256i moved = _mm256_blend_epi32(_mm256_srli_epi64(even, 16), _mm256_slli_epi64(odd, 16), 0xAA);
        store(mean + i, add(old, moved));
    }
    ehmn_plain_follow_all(mean + i, v + i, n - i, rate);
}

void ehmn_avx2_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign)
{
    __m256i sum = _mm256_setzero_si256(); /* of all before, in every lane */
    uint32_t i = 0, before = 0;
    for (; i + 8u <= n; i += 8u) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(v + i));
        __m256i s = _mm256_abs_epi32(_mm256_cvtepi8_epi32(bytes));
        s = _mm256_add_epi32(s, _mm256_slli_si256(s, 4));
        s = _mm256_add_epi32(s, _mm256_slli_si256(s, 8));
        __m256i lower = _mm256_permutevar8x32_epi32(s, all(3)); /* the sum of the lower half goes to the upper */
        s = _mm256_add_epi32(s, _mm256_blend_epi32(_mm256_setzero_si256(), lower, 0xF0));
        s = _mm256_add_epi32(s, sum);
        sum = _mm256_permutevar8x32_epi32(s, all(7));
        _mm256_storeu_si256((__m256i *)(void *)(edge + i), s);
        __m128i positive = _mm_cmpgt_epi8(bytes, _mm_setzero_si128());
        _mm_storel_epi64((__m128i *)(void *)(sign + i), _mm_xor_si128(positive, _mm_set1_epi8(-1)));
    }
    before = (uint32_t)_mm256_extract_epi32(sum, 0);
    for (; i < n; i++) {
        before += ehmn_abs(v[i]);
        edge[i] = before;
        sign[i] = (int8_t)((v[i] - 1) >> 8);
    }
}

/* Whether the first of v, in eights, can be shifted to the left by `up` bits. */
static int has_room(const int32_t *v, uint32_t n, int32_t up)
{
    __m256i any = _mm256_setzero_si256();
    for (uint32_t i = 0; i + 8u <= n; i += 8u) {
        __m256i x = load(v + i);
        any = _mm256_or_si256(any, _mm256_xor_si256(x, _mm256_srai_epi32(x, 31)));
    }
    return _mm256_testz_si256(any, all((int32_t)(UINT32_MAX << (31 - up))));
}

void ehmn_avx2_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    int32_t spare = 31 - ehmn_bit_length(ehmn_abs(factor));
    uint32_t i = 0;
    int32_t up = 33 - (shift + spare); /* as in plain C */
    if (shift >= 1 && up > 0 && up < 31 && has_room(v, n, up)) {
        __m256i one = all(1), f = all((int32_t)((uint32_t)factor << spare));
        __m128i count = _mm_cvtsi32_si128(up);
        for (; i + 8u <= n; i += 8u) {
            __m256i high = upper(_mm256_sll_epi32(load(v + i), count), f);
            store(out + i, _mm256_srai_epi32(_mm256_add_epi32(high, one), 1));
        }
    }
    if (shift + spare >= 33 && shift + spare <= 62) {
        __m256i half = all((int32_t)(1u << (shift + spare - 33))), f = all((int32_t)((uint32_t)factor << spare));
        __m128i count = _mm_cvtsi32_si128(shift + spare - 32);
        for (; i + 8u <= n; i += 8u) {
            store(out + i, _mm256_sra_epi32(_mm256_add_epi32(upper(load(v + i), f), half), count));
        }
    }
    ehmn_plain_scale_all(v + i, n - i, factor, shift, out + i);
}

void ehmn_avx2_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                             int32_t *out)
{
    int32_t shift = fitting(v, n, 16), down;
    uint64_t sum = ehmn_scaled_eps(eps_mantissa, eps_shift - 2 * (frac - shift));
    __m256i squares = _mm256_setzero_si256();
    uint32_t i = 0;
    if (shift > 0) {
        __m128i but_one = _mm_cvtsi32_si128(shift - 1);
        for (; i + 8u <= n; i += 8u) {
            __m256i q = shifted(v + i, but_one), odd = _mm256_srli_epi64(q, 32);
            squares = _mm256_add_epi64(squares, _mm256_mul_epi32(q, q));
            squares = _mm256_add_epi64(squares, _mm256_mul_epi32(odd, odd));
            store(out + i, _mm256_slli_epi32(q, 16));
        }
    }
    for (; i < n; i++) {
        int32_t q = shift > 0 ? ((v[i] >> (shift - 1)) + 1) >> 1 : v[i] * (1 << -shift);
        sum += (uint64_t)((int64_t)q * q);
        out[i] = q * 65536;
    }
    uint64_t part[4];
    memcpy(part, &squares, sizeof part);
    int32_t factor = ehmn_rms_factor(sum + part[0] + part[1] + part[2] + part[3], n, &down);
    ehmn_avx2_scale_all(out, n, factor, down, out);
}

/* Eight bytes that stand `stride` apart, up to three more are read behind each. */
static inline __m256i gather(const int8_t *v, __m256i places)
{
    __m256i words = _mm256_i32gather_epi32((const int *)(const void *)v, places, 1);
    return _mm256_srai_epi32(_mm256_slli_epi32(words, 24), 24);
}

static inline __m256i places(uint32_t stride)
{
    return _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), all((int32_t)stride));
}

/* Eight at a time as long as what is read lies before the last, and each shift is between 1 and 31. */
int32_t ehmn_avx2_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to,
                             int32_t *scores)
{
    __m256i at = places(stride), most = all(INT32_MIN);
    uint32_t i = 0;
    int32_t max = INT32_MIN;
    for (; i + 11u <= n; i += 8u) {
        __m256i but_one = _mm256_add_epi32(gather(key_frac + (size_t)i * stride, at), all(frac - to - 1));
        if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(all(31), _mm256_and_si256(but_one, all(INT32_MAX)))) != -1
            || _mm256_movemask_ps(_mm256_castsi256_ps(but_one)) != 0) {
            int32_t some = ehmn_plain_fit_scores(key_frac + (size_t)i * stride, stride, 8u, frac, to, scores + i);
            max = some > max ? some : max;
            continue;
        }
        __m256i s = _mm256_srav_epi32(load(scores + i), but_one);
        s = _mm256_srai_epi32(_mm256_add_epi32(s, all(1)), 1);
        most = _mm256_max_epi32(most, s);
        store(scores + i, s);
    }
    int32_t rest = ehmn_plain_fit_scores(key_frac + (size_t)i * stride, stride, n - i, frac, to, scores + i);
    int32_t found = largest(most);
    max = rest > max ? rest : max;
    return found > max ? found : max;
}

int32_t ehmn_avx2_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    __m256i at = places(stride), low = all(127);
    int32_t least = 127;
    uint32_t whole = 0;
    for (; whole + 11u <= n; whole += 8u) {
        low = _mm256_min_epi32(low, gather(value_frac + (size_t)whole * stride, at));
    }
    for (uint32_t i = whole; i < n; i++) {
        int32_t frac = value_frac[(size_t)i * stride];
        least = frac < least ? frac : least;
    }
    int32_t found = -largest(_mm256_sub_epi32(_mm256_setzero_si256(), low));
    least = found < least ? found : least;
    for (uint32_t i = 0; i < whole; i += 8u) {
        __m256i shift = _mm256_sub_epi32(gather(value_frac + (size_t)i * stride, at), all(least));
        __m256i w = _mm256_srlv_epi32(_mm256_slli_epi32(load(weights + i), 1), shift); /* nothing is left beyond 31 */
        store(weights + i, _mm256_srli_epi32(_mm256_add_epi32(w, all(1)), 1));
    }
    for (uint32_t i = whole; i < n; i++) {
        uint32_t shift = (uint32_t)(value_frac[(size_t)i * stride] - least);
        shift = shift < 31u ? shift : 31u;
        weights[i] = (int32_t)((((uint32_t)weights[i] << 1 >> shift) + 1u) >> 1);
    }
    return least;
}

/* Even lanes of a x - b y, rounded, and odd ones, in their places; no result leaves 32 bits. */
static inline __m256i turned(__m256i a, __m256i x, __m256i b, __m256i y, int plus)
{
    const __m256i half = _mm256_set1_epi64x(1 << 14);
    __m256i p = _mm256_mul_epi32(a, x), q = _mm256_mul_epi32(b, y);
    __m256i even = _mm256_add_epi64(plus ? _mm256_add_epi64(p, q) : _mm256_sub_epi64(p, q), half);
    p = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(x, 32));
    q = _mm256_mul_epi32(_mm256_srli_epi64(b, 32), _mm256_srli_epi64(y, 32));
    __m256i odd = _mm256_add_epi64(plus ? _mm256_add_epi64(p, q) : _mm256_sub_epi64(p, q), half);
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 15), _mm256_slli_epi64(odd, 17), 0xAA);
}

/* Eight pairs at a time, as long as none is so large that it might have to be saturated. */
uint32_t ehmn_avx2_rotate(const int16_t *turn, uint32_t half, int32_t *v)
{
    uint32_t i = 0;
    for (; i + 8u <= half; i += 8u) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(turn + 2u * i));
        __m256i c = _mm256_srai_epi32(_mm256_slli_epi32(both, 16), 16), s = _mm256_srai_epi32(both, 16);
        __m256i a = load(v + i), b = load(v + i + half);
        __m256i large = _mm256_or_si256(_mm256_xor_si256(a, _mm256_srai_epi32(a, 31)),
                                        _mm256_xor_si256(b, _mm256_srai_epi32(b, 31)));
        if (!_mm256_testz_si256(large, all((int32_t)0xC0000000))) {
            break;
        }
        store(v + i, turned(a, c, b, s, 0));
        store(v + i + half, turned(b, c, a, s, 1));
    }
    return i;
}

#endif
