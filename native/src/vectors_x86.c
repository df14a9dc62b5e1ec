/* Which of the functions of vectors.c: on an x86 processor that has AVX-512 or AVX2 those for it. */
#include "vectors_x86.h"
#include "fixed.h"

#if defined(EHMN_ASK_X86)

#include <immintrin.h>

#define CHOOSE(name, ...) \
    (__builtin_cpu_supports("avx2") ? ehmn_avx2_##name(__VA_ARGS__) : ehmn_plain_##name(__VA_ARGS__))

#define CHOOSE3(name, ...) (EHMN_HAS_AVX512 ? ehmn_avx512_##name(__VA_ARGS__) : CHOOSE(name, __VA_ARGS__))

int32_t ehmn_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out)
{
    return CHOOSE3(quantise8, v, n, frac, out);
}

int32_t ehmn_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out)
{
    return CHOOSE3(quantise16, v, n, frac, bits, out);
}

int32_t ehmn_narrow(const int16_t *v, uint32_t n, int8_t *out)
{
    return CHOOSE3(narrow, v, n, out);
}

int32_t ehmn_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step)
{
    return CHOOSE3(quantise_narrow, v, n, frac, out, step);
}

void ehmn_multiply_all(int32_t *v, uint32_t n, int32_t factor)
{
    CHOOSE3(multiply_all, v, n, factor);
}

void ehmn_shift_all(int32_t *v, const int32_t *shift, uint32_t n)
{
    CHOOSE(shift_all, v, shift, n);
}

void ehmn_add_all(int32_t *v, const int32_t *more, uint32_t n)
{
    CHOOSE3(add_all, v, more, n);
}

void ehmn_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    CHOOSE3(add_weights, v, w, n, factor, scale, shift);
}

void ehmn_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift)
{
    if (EHMN_HAS_AVX512) {
        ehmn_avx512_add_weights_within(v, w, n, factor, scale, shift);
    } else if (__builtin_cpu_supports("avx2")) {
        ehmn_avx2_add_weights_within(v, w, n, factor, scale, shift);
    } else {
        ehmn_plain_add_weights(v, w, n, factor, scale, shift);
    }
}

void ehmn_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain)
{
    CHOOSE(add_outputs, v, z, n, gain);
}

void ehmn_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate)
{
    CHOOSE(follow_all, mean, v, n, rate);
}

void ehmn_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign)
{
    CHOOSE(running_sums, v, n, edge, sign);
}

void ehmn_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    CHOOSE3(scale_all, v, n, factor, shift, out);
}

void ehmn_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                        int32_t *out)
{
    CHOOSE3(rms_normalise, v, n, frac, eps_mantissa, eps_shift, out);
}

int32_t ehmn_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to, int32_t *scores)
{
    return CHOOSE3(fit_scores, key_frac, stride, n, frac, to, scores);
}

int32_t ehmn_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights)
{
    return CHOOSE3(align_weights, value_frac, stride, n, weights);
}

void ehmn_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z)
{
    CHOOSE3(tanh_all, v, n, shift, z);
}

uint32_t ehmn_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead)
{
    return CHOOSE3(pass_over, logits, n, max, ahead);
}

void ehmn_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out)
{
    CHOOSE(subtract_all, v, less, n, out);
}

int64_t ehmn_dot_weights(const int8_t *w, const int32_t *v, uint32_t n)
{
    return CHOOSE(dot_weights, w, v, n);
}

int64_t ehmn_dot_outputs(const int16_t *z, const int32_t *v, uint32_t n)
{
    return CHOOSE(dot_outputs, z, v, n);
}

int64_t ehmn_sum(const int32_t *v, uint32_t n)
{
    return CHOOSE(sum, v, n);
}

uint64_t ehmn_limit(int32_t *v, uint32_t n, int32_t most)
{
    return CHOOSE(limit, v, n, most);
}

void ehmn_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out)
{
    CHOOSE(times_slope, v, z, n, out);
}

uint32_t ehmn_length(const int8_t *w, uint32_t n)
{
    return CHOOSE(length, w, n);
}

/* Bit k: v[k] is above zero, k below 32. */
static inline uint32_t signs_of(const int32_t *v)
{
    const __m128i zero = _mm_setzero_si128();
    uint32_t bits = 0;
    for (uint32_t k = 0; k < 32u; k += 4u) {
        __m128i above = _mm_cmpgt_epi32(_mm_loadu_si128((const __m128i *)(const void *)(v + k)), zero);
        bits |= (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(above)) << k;
    }
    return bits;
}

/* By SSE2, which every such processor has. */
void ehmn_signs(const int32_t *v, uint32_t n, uint32_t *bits)
{
    for (; n >= 32u; n -= 32u, v += 32) {
        *bits++ = signs_of(v);
    }
    ehmn_plain_signs(v, n, bits);
}

uint32_t ehmn_rotate_some(const int16_t *turn, uint32_t half, int32_t *v)
{
    if (EHMN_HAS_AVX512) {
        return ehmn_avx512_rotate(turn, half, v);
    }
    return __builtin_cpu_supports("avx2") ? ehmn_avx2_rotate(turn, half, v) : 0u;
}

#endif
