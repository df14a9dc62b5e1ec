/* Loops over vectors that learning alone has: each makes little of a token. */
#include "vectors.h"

#if !defined(EHMN_MVE)

int64_t ehmn_dot_weights(const int8_t *w, const int32_t *v, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (int64_t)w[i] * v[i];
    }
    return sum;
}

int64_t ehmn_dot_outputs(const int16_t *z, const int32_t *v, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (int64_t)z[i] * v[i];
    }
    return sum;
}

int64_t ehmn_sum(const int32_t *v, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += v[i];
    }
    return sum;
}

#if !defined(EHMN_NEON)

uint64_t ehmn_limit(int32_t *v, uint32_t n, int32_t most)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = ehmn_clamp(v[i], -most, most);
        sum += ehmn_abs(v[i]);
    }
    return sum;
}

void ehmn_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_fit((int64_t)v[i] * (32768 - (z[i] * z[i] >> 15)), 15);
    }
}

#endif
#endif

#if !defined(EHMN_NEON)
uint32_t ehmn_length(const int8_t *w, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += ehmn_abs(w[i]);
    }
    return sum;
}
#endif

#if !defined(EHMN_NEON)
EHMN_SMALL void ehmn_signs(const int32_t *v, uint32_t n, uint32_t *bits)
{
    for (const int32_t *end = v + n; v < end; bits++) {
        uint32_t word = 0;
        for (uint32_t bit = 1; v < end && bit != 0; bit <<= 1) {
            word |= *v++ > 0 ? bit : 0u;
        }
        *bits = word;
    }
}
#endif

/* The first j of 0..n - 1 with edge[j] > least, where no number is below the one before; n - 1 if no other is. */
static inline uint32_t find_edge(const uint32_t *edge, uint32_t n, uint32_t least)
{
    const uint32_t *from = edge;
    while (n > 1u) {
        uint32_t half = n / 2u;
        const uint32_t *middle = from + half;
        from = middle[-1] > least ? from : middle;
        n -= half;
    }
    return (uint32_t)(from - edge);
}

void ehmn_step_few(int8_t *w, const ehmn_direction *along, int32_t rate, uint32_t passed, uint32_t steps)
{
    const uint32_t step = 1u << EHMN_EVENT_FRAC, magnitude = ehmn_abs(rate);
    int32_t flip = rate < 0 ? -1 : 0;
    for (uint32_t at = step - 1u - passed; steps > 0; steps--, at += step) {
        uint32_t j = find_edge(along->edge, along->n, at / magnitude);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((along->sign[j] ^ flip) | 1), -127, 127);
    }
}
