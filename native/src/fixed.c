#include "fixed.h"

int32_t ehmn_bit_length(uint64_t v)
{
    return v != 0 ? 64 - __builtin_clzll(v) : 0;
}

uint32_t ehmn_isqrt(uint64_t v)
{
    uint64_t root = 0;
    uint64_t bit = (uint64_t)1 << 62;
    while (bit > v) {
        bit >>= 2;
    }
    for (; bit != 0; bit >>= 2) {
        if (v >= root + bit) {
            v -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}

int32_t ehmn_log2(uint64_t v)
{
    int32_t whole = ehmn_bit_length(v) - 1;
    uint64_t normal = whole >= 16 ? v >> (whole - 16) : v << (16 - whole); /* 1.16 */
    uint32_t fraction = (uint32_t)normal & 0xFFFFu;
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
    int32_t y = (int32_t)ehmn_sigmoid(ehmn_sat32(2 * (int64_t)x)) - 32768;
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
