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

/* The smallest shift by which a magnitude of at most `max` rounds into `limit` = 2^k - 1. */
static int32_t fitting_shift(uint32_t max, int32_t bits)
{
    int32_t limit = (1 << (bits - 1)) - 1;
    int32_t shift = ehmn_bit_length(max) - (bits - 1);
    return shift + (ehmn_round_shift(max, shift) > limit);
}

static int32_t shift_of_max(const int32_t *v, uint32_t n, int32_t bits)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = ehmn_abs(v[i]);
        max = a > max ? a : max;
    }
    return max ? fitting_shift(max, bits) : 0;
}

/* The smallest shift by which all of v round into `bits` bits; 0 for a zero vector. First with -x taken as x - 1 where x
 * is positive, which is shorter, and almost always comes to the same. */
static int32_t fitting_all(const int32_t *v, uint32_t n, int32_t bits)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = (uint32_t)(v[i] ^ v[i] >> 31);
        max = a > max ? a : max;
    }
    int32_t shift = fitting_shift(max, bits);
    return max != 0 && shift == fitting_shift(max + 1u, bits) ? shift : shift_of_max(v, n, bits);
}

int32_t ehmn_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out)
{
    int32_t shift = fitting_all(v, n, 8);
    if (shift > 0) { /* the usual case, and the shorter */
        for (uint32_t i = 0; i < n; i++) {
            out[i] = (int8_t)(((v[i] >> (shift - 1)) + 1) >> 1);
        }
        return frac - shift;
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int8_t)ehmn_round_shift(v[i], shift);
    }
    return frac - shift;
}

int32_t ehmn_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out)
{
    int32_t shift = fitting_all(v, n, (int32_t)bits);
    if (shift > 0) {
        for (uint32_t i = 0; i < n; i++) {
            out[i] = (int16_t)(((v[i] >> (shift - 1)) + 1) >> 1);
        }
        return frac - shift;
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int16_t)ehmn_round_shift(v[i], shift);
    }
    return frac - shift;
}

void ehmn_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out)
{
    if (shift > 32 && shift < 63) { /* the upper halves of the products are enough */
        int32_t half = (int32_t)(1u << (shift - 33));
        for (uint32_t i = 0; i < n; i++) {
            out[i] = ((int32_t)(((int64_t)v[i] * factor) >> 32) + half) >> (shift - 32);
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_mul(v[i], factor, shift);
    }
}

/* eps_mantissa * 2^-shift, at most 2^61. */
static uint64_t scaled_eps(int32_t eps_mantissa, int32_t shift)
{
    if (shift >= 0 || eps_mantissa == 0) {
        return (uint32_t)ehmn_round_shift(eps_mantissa, shift);
    }
    return ehmn_bit_length((uint32_t)eps_mantissa) - shift > 61 ? (uint64_t)1 << 61
                                                               : (uint64_t)(uint32_t)eps_mantissa << -shift;
}

void ehmn_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                        int32_t *out)
{
    int32_t shift = fitting_all(v, n, 16);
    int32_t mantissa_frac = frac - shift;
    uint64_t sum = scaled_eps(eps_mantissa, eps_shift - 2 * mantissa_frac);
    for (uint32_t i = 0; i < n; i++) {
        int32_t q = shift > 0 ? ((v[i] >> (shift - 1)) + 1) >> 1 : ehmn_round_shift(v[i], shift);
        sum += (uint64_t)((int64_t)q * q);
        out[i] = q * 65536;
    }
    if (sum == 0) {
        sum = 1;
    }
    int32_t k = (62 - ehmn_bit_length(sum)) / 2;             /* sum * 4^k lies in [2^60, 2^62) */
    uint64_t root = ehmn_isqrt(sum << (2 * k));              /* sqrt(sum) * 2^k, 31 bits */
    uint64_t sqrt_n = ehmn_isqrt((uint64_t)n << 32);         /* Q16 */
    int32_t factor = ehmn_sat32((int64_t)((sqrt_n << 30) / root)); /* sqrt(n / sum), Q(46 - k) */
    int32_t spare = 31 - ehmn_bit_length((uint32_t)factor);  /* bits: the larger the factor, the shorter the product */
    ehmn_scale_all(out, n, (int32_t)((uint32_t)factor << spare), 46 - k - EHMN_NORM_FRAC + 16 + spare, out);
}
