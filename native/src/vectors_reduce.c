/* Vectors of 32-bit values reduced to mantissas of 16 and 8 bits, and normalised: how far all of them can be shifted is
 * found in one pass, and they are rounded in another. SPEC.md, "Arithmetic". */
#include "vectors.h"

#if defined(EHMN_MVE)

static int32_t fitting_all(const int32_t *v, uint32_t n, int32_t bits)
{
    uint32_t max = ehmn_mve_max_abs(v, n);
    return max != 0 ? ehmn_fitting_shift(max, bits) : 0;
}

#define shift_into8 ehmn_mve_shift_into8
#define shift_into16 ehmn_mve_shift_into16
#define square ehmn_mve_square

#elif !defined(EHMN_NEON)

RARE int32_t fitting_exactly(const int32_t *v, uint32_t n, int32_t bits)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        max = ehmn_abs(v[i]) > max ? ehmn_abs(v[i]) : max;
    }
    return max != 0 ? ehmn_fitting_shift(max, bits) : 0;
}

/* The smallest shift by which all of v round into `bits` bits; 0 for a zero vector. First with -x taken as x - 1 where
 * x is positive, which is shorter, and almost always comes to the same. *most: the largest of these magnitudes, which
 * rounds as the largest of v does, since halves are rounded up. */
static int32_t fitting_most(const int32_t *v, uint32_t n, int32_t bits, uint32_t *most)
{
    uint32_t max = 0, i = ehmn_first_max(v, n, &max);
    UNROLLED_BUT_CORTEX_M
    for (; i < n; i++) {
        uint32_t a = (uint32_t)(v[i] ^ v[i] >> 31);
        max = a > max ? a : max;
    }
    int32_t shift = ehmn_fitting_shift(max, bits);
    *most = max;
    return max != 0 && shift == ehmn_fitting_shift(max + 1u, bits) ? shift : fitting_exactly(v, n, bits);
}

static int32_t fitting_all(const int32_t *v, uint32_t n, int32_t bits)
{
    uint32_t most;
    return fitting_most(v, n, bits, &most);
}

/* By a shift that is not positive: to the left, into 16 bits. */
static inline int32_t widen(int32_t v, int32_t shift)
{
    return v * (1 << -shift);
}

static inline void shift_into8(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    if (shift <= 0) {
        for (uint32_t i = 0; i < n; i++) {
            out[i] = (int8_t)widen(v[i], shift);
        }
        return;
    }
    for (uint32_t i = ehmn_first_into8(v, n, shift, out); i < n; i++) {
        out[i] = (int8_t)(((v[i] >> (shift - 1)) + 1) >> 1);
    }
}

static inline void shift_into16(const int32_t *v, uint32_t n, int32_t shift, int16_t *out)
{
    if (shift <= 0) {
        for (uint32_t i = 0; i < n; i++) {
            out[i] = (int16_t)widen(v[i], shift);
        }
        return;
    }
    uint32_t i = ehmn_first_into16(v, n, shift, out);
    UNROLLED_BUT_DSP
    for (; i < n; i++) {
        out[i] = (int16_t)(((v[i] >> (shift - 1)) + 1) >> 1);
    }
}

/* The sum of the squares of q[i] = round(v[i] / 2^shift), of 16 bits; out[i] = 2^16 q[i]. */
static inline uint64_t square(const int32_t *v, uint32_t n, int32_t shift, int32_t *out)
{
    uint64_t sum = 0;
    uint32_t first = ehmn_first_square(v, n, shift, out, &sum);
    for (uint32_t i = first; i < n && shift > 0; i++) {
        int32_t q = ((v[i] >> (shift - 1)) + 1) >> 1;
        sum += (uint64_t)((int64_t)q * q);
        out[i] = q * 65536;
    }
    for (uint32_t i = 0; i < n && shift <= 0; i++) {
        int32_t q = widen(v[i], shift);
        sum += (uint64_t)((int64_t)q * q);
        out[i] = q * 65536;
    }
    return sum;
}

#endif

#if !defined(EHMN_NEON)

int32_t ehmn_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out)
{
    int32_t shift = fitting_all(v, n, 8);
    shift_into8(v, n, shift, out);
    return frac - shift;
}

int32_t ehmn_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out)
{
    int32_t shift = fitting_all(v, n, (int32_t)bits);
    shift_into16(v, n, shift, out);
    return frac - shift;
}

void ehmn_shift_all(int32_t *v, const int32_t *shift, uint32_t n)
{
    for (uint32_t i = ehmn_first_shift(v, shift, n); i < n; i++) {
        v[i] >>= shift[i];
    }
}
#endif

int32_t ehmn_step_of(uint32_t max)
{
    return max != 0 ? (int32_t)((max + 126u) / 127u) : 1;
}

#if !defined(EHMN_MVE)

static inline int8_t narrowed(int32_t mantissa, int32_t reciprocal)
{
    return (int8_t)((mantissa * reciprocal + EHMN_RECIPROCAL_HALF) >> EHMN_RECIPROCAL_FRAC);
}

int32_t ehmn_narrow(const int16_t *v, uint32_t n, int8_t *out)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = ehmn_abs(v[i]);
        max = a > max ? a : max;
    }
    int32_t step = ehmn_step_of(max), reciprocal = EHMN_RECIPROCAL(step);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = narrowed(v[i], reciprocal);
    }
    return step;
}

#if !defined(EHMN_NEON)

RARE int32_t narrow_slowly(const int32_t *v, uint32_t n, int32_t shift, int8_t *out)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = ehmn_abs(ehmn_round_rarely(v[i], shift));
        max = a > max ? a : max;
    }
    int32_t step = ehmn_step_of(max);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = narrowed(ehmn_round_rarely(v[i], shift), EHMN_RECIPROCAL(step));
    }
    return step;
}

int32_t ehmn_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step)
{
    uint32_t most;
    int32_t shift = fitting_most(v, n, 16, &most), left = shift < 0 ? -shift : 0;
    *step = ehmn_step_of(shift > 0 ? ((most >> (shift - 1)) + 1u) >> 1 : most << left);
    if (shift < 1 && *step != ehmn_step_of((most + 1u) << left)) {
        *step = narrow_slowly(v, n, shift, out);
        return frac - shift;
    }
    int32_t reciprocal = EHMN_RECIPROCAL(*step) * (1 << left); /* of 15 bits before, unless all are zero */
    for (uint32_t i = ehmn_first_narrow(v, n, shift, reciprocal, out); i < n; i++) {
        out[i] = narrowed(shift > 0 ? ((v[i] >> (shift - 1)) + 1) >> 1 : v[i], reciprocal);
    }
    return frac - shift;
}

int32_t ehmn_quantise_most(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out, uint32_t *most)
{
    int32_t shift = fitting_most(v, n, (int32_t)bits, most);
    shift_into16(v, n, shift, out);
    *most = shift > 0 ? ((*most >> (shift - 1)) + 1u) >> 1 : (*most + 1u) << -shift;
    return frac - shift;
}

#endif

void ehmn_multiply_all(int32_t *v, uint32_t n, int32_t factor)
{
    uint32_t i = ehmn_first_multiply(v, n, factor);
    UNROLLED_BUT_CORTEX_M
    for (; i < n; i++) {
        v[i] *= factor;
    }
}

#endif

/* eps_mantissa * 2^-shift, at most 2^61. */
uint64_t ehmn_scaled_eps(int32_t eps_mantissa, int32_t shift)
{
    if (shift >= 0 || eps_mantissa == 0) {
        return (uint32_t)ehmn_round_rarely(eps_mantissa, shift);
    }
    return ehmn_bit_length((uint32_t)eps_mantissa) - shift > 61 ? (uint64_t)1 << 61
                                                               : (uint64_t)(uint32_t)eps_mantissa << -shift;
}

/* What the values, times 2^16, are scaled by, of whose squares and n eps this is the sum. */
int32_t ehmn_rms_factor(uint64_t sum, uint32_t n, int32_t *shift)
{
    if (sum == 0) {
        sum = 1;
    }
    int32_t k = (62 - ehmn_bit_length(sum)) / 2;             /* sum * 4^k lies in [2^60, 2^62) */
    uint64_t root = ehmn_isqrt(sum << (2 * k));              /* sqrt(sum) * 2^k, 31 bits */
    uint64_t sqrt_n = ehmn_isqrt((uint64_t)n << 32);         /* Q16 */
    *shift = 46 - k - EHMN_NORM_FRAC + 16;
    return ehmn_sat32((int64_t)((sqrt_n << 30) / root)); /* sqrt(n / sum), Q(46 - k) */
}

#if !defined(EHMN_NEON)

void ehmn_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                        int32_t *out)
{
    int32_t shift = fitting_all(v, n, 16);
    int32_t down;
    uint64_t sum = ehmn_scaled_eps(eps_mantissa, eps_shift - 2 * (frac - shift)) + square(v, n, shift, out);
    int32_t factor = ehmn_rms_factor(sum, n, &down);
    ehmn_scale_all(out, n, factor, down, out);
}

#endif
