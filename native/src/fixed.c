#define EHMN_COPIES
#include "fixed.h"

/* The copies that are called. */
extern int32_t ehmn_sat32(int64_t v);
extern int32_t ehmn_round_fit(int64_t v, int32_t shift);
extern int32_t ehmn_round_shift(int64_t v, int32_t shift);
extern int32_t ehmn_add(int32_t a, int32_t b);
extern int32_t ehmn_subtract(int32_t a, int32_t b);
extern int32_t ehmn_follow_value(int32_t mean, int32_t value, int32_t rate);
extern uint32_t ehmn_exp2_neg(uint32_t x);
extern int32_t ehmn_clamp(int32_t v, int32_t low, int32_t high);

int32_t ehmn_round_rarely(int64_t v, int32_t shift)
{
    return ehmn_round_shift(v, shift);
}

int32_t ehmn_bit_length(uint64_t v)
{
    return v != 0 ? 64 - __builtin_clzll(v) : 0;
}

/* The upper half of the root by two of Newton's steps from a tangent, which lies at most a twelfth too high; the lower
 * half by a division (Zimmermann, Karatsuba Square Root, INRIA 1999). Each may come out one too large. */
uint32_t ehmn_isqrt(uint64_t v)
{
    if (v == 0) {
        return 0;
    }
    int32_t up = (64 - ehmn_bit_length(v)) & ~1;
    uint64_t normal = v << up;
    uint32_t rest = (uint32_t)(normal >> 32), middle = (uint32_t)normal >> 16;
    uint32_t root = (rest >> 18) * 3u + 21849u;
    root = (root + rest / root) / 2u;
    root = (root + rest / root) / 2u;
    root -= rest / root < root;
    rest -= root * root;
    uint32_t half = rest << 15 | middle >> 1; /* rest is at most twice the root */
    uint32_t low = half / root;
    uint64_t left = ((uint64_t)(half - low * root) << 1 | (middle & 1u)) << 16 | (normal & 0xFFFFu);
    uint64_t whole = ((uint64_t)root << 16) + low - (left < (uint64_t)low * low);
    return (uint32_t)(whole >> (up / 2));
}

int32_t ehmn_log2(uint64_t v)
{
    int32_t zeros = __builtin_clzll(v), whole = 63 - zeros;
    uint32_t fraction = (uint32_t)(v << zeros >> 47) & 0xFFFFu; /* of 1.16 */
    uint32_t i = fraction >> 8;
    uint32_t low = ehmn_log2_table[i];
    uint32_t step = ehmn_log2_table[i + 1] - low;
    return whole * 65536 + (int32_t)(low + ((step * (fraction & 255u) + 128u) >> 8));
}

uint32_t ehmn_sigmoid(int32_t x)
{
    uint32_t a = ehmn_abs(x);
    uint32_t y = 65535u;
    if (a < (16u << 16)) {
        uint32_t i = a >> 11; /* 32 entries per unit */
        uint32_t low = ehmn_sigmoid_table[i];
        uint32_t step = ehmn_sigmoid_table[i + 1] - low;
        y = low + ((step * (a & 2047u) + 1024u) >> 11);
    }
    return x < 0 ? 65536u - y : y;
}

int32_t ehmn_tanh(int32_t x)
{
    int32_t y = (int32_t)ehmn_sigmoid(2 * ehmn_clamp(x, -(8 << 16), 8 << 16)) - 32768; /* beyond, nothing changes */
    return ehmn_sat16(y);
}

int32_t ehmn_gelu(int32_t x, int32_t frac)
{
    int64_t t = ehmn_clamp(ehmn_round_shift(x, frac - 16), -(8 << 16), 8 << 16); /* beyond, the gate is 0 or 1 */
    int64_t cubic = 65536 + ((((t * t) >> 16) * 2930) >> 16);                    /* 1 + 0.044715 x^2, Q16 */
    int32_t u = ehmn_round_shift(t * cubic, 16);
    return ehmn_mul(x, (int32_t)ehmn_sigmoid(ehmn_mul(u, 104581, 16)), 16);
}

int32_t ehmn_sin(uint32_t phase)
{
    uint32_t within = phase & 0x3FFFFFFFu;
    uint32_t quarter = phase >> 30;
    if (quarter & 1u) {
        within = 0x40000000u - within;
    }
    uint32_t i = within >> 22;
    uint32_t rest = (within >> 6) & 0xFFFFu;
    uint32_t low = ehmn_sine_table[i];
    uint32_t step = i < 256u ? ehmn_sine_table[i + 1] - low : 0u;
    int32_t y = (int32_t)(low + ((step * rest + 32768u) >> 16));
    return quarter & 2u ? -y : y;
}
