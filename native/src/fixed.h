/* Integer arithmetic: the one rounding rule and the functions that stand for exp, log, sin and sqrt.
 *
 * Qn means n fractional bits. Rounding is always to the nearest, halves towards plus infinity:
 * round(v / 2^s) = floor((v + 2^(s-1)) / 2^s). SPEC.md, "Arithmetic". */
#ifndef EHMN_FIXED_H
#define EHMN_FIXED_H

#include <stdint.h>

#define EHMN_NORM_FRAC 20 /* fractional bits of a normalised vector */

extern const uint16_t ehmn_exp2_table[256];    /* Q15 of 2^(i/256), minus 2^15 */
extern const uint32_t ehmn_log2_table[257];    /* Q16 of log2(1 + i/256) */
extern const uint16_t ehmn_sigmoid_table[513]; /* Q16 of sigmoid(i/32), at most 65535 */
extern const uint16_t ehmn_sine_table[257];    /* Q15 of sin(pi/2 * i/256), at most 32767 */

/* What is inline without being static has one copy in fixed.c, which a compiler that is to save room calls. */

/* Of a function that a microcontroller calls seldom: its file is compiled to be fast, it alone to be small. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define EHMN_SMALL __attribute__((cold))
#else
#define EHMN_SMALL
#endif

_Static_assert((-1 >> 1) == -1, "right shift of a negative number must be arithmetic");

static inline int16_t ehmn_sat16(int32_t v)
{
    return (int16_t)(v > INT16_MAX ? INT16_MAX : v < -INT16_MAX ? -INT16_MAX : v);
}

/* By themselves compilers that are to save room fold a constant into a copy of these, which is longer than the call. */
#if defined(__OPTIMIZE_SIZE__) && !defined(EHMN_COPIES)
int32_t ehmn_sat32(int64_t v);
int32_t ehmn_round_shift(int64_t v, int32_t shift);
#else
/* In halves: processors of 32 bits compare them in fewer instructions. */
inline int32_t ehmn_sat32(int64_t v)
{
    int32_t low = (int32_t)v, high = (int32_t)(v >> 32);
    low = high == low >> 31 ? low : high >> 31 ^ INT32_MAX;
    return low + (low == INT32_MIN);
}

/* round(v * 2^-shift) for |v| <= 2^62, saturated to 32 bits; a negative shift multiplies. */
__attribute__((flatten)) inline int32_t ehmn_round_shift(int64_t v, int32_t shift)
{
    if (shift > 62) {
        return 0;
    }
    if (shift > 0) {
        v = ((v >> (shift - 1)) + 1) >> 1;
    } else if (v == (int32_t)v) { /* what has more bits leaves 32 bits anyway */
        v *= (int64_t)1 << (shift < -31 ? 31 : -shift);
    }
    return ehmn_sat32(v);
}
#endif

/* The same as a call: where it is rare, and speed is worth less than size. */
int32_t ehmn_round_rarely(int64_t v, int32_t shift);

/* The same of 32 bits. */
static inline int32_t ehmn_round_shift32(int32_t v, int32_t shift)
{
    return shift > 0 && shift < 32 ? (v >> shift) + (v >> (shift - 1) & 1) : ehmn_round_rarely(v, shift);
}

/* The same for a shift of 1..31 and a result that is known to fit 32 bits. */
inline int32_t ehmn_round_fit(int64_t v, int32_t shift)
{
    v += (int64_t)(1u << (shift - 1));
    return (int32_t)((uint32_t)v >> shift | (uint32_t)((uint64_t)v >> 32) << (32 - shift));
}

inline int32_t ehmn_add(int32_t a, int32_t b)
{
    int32_t sum;
    if (__builtin_add_overflow(a, b, &sum) || sum == INT32_MIN) {
        return a < 0 || b < 0 ? -INT32_MAX : INT32_MAX;
    }
    return sum;
}

__attribute__((always_inline)) inline int32_t ehmn_subtract(int32_t a, int32_t b)
{
    int32_t difference;
    if (__builtin_sub_overflow(a, b, &difference) || difference == INT32_MIN) {
        return a < 0 ? -INT32_MAX : INT32_MAX;
    }
    return difference;
}

/* round(a * b * 2^-shift), saturated. */
static inline int32_t ehmn_mul(int32_t a, int32_t b, int32_t shift)
{
    return ehmn_round_shift((int64_t)a * b, shift);
}

/* mean += (value - mean) * rate, rate 0..1 in Q16. */
inline int32_t ehmn_follow_value(int32_t mean, int32_t value, int32_t rate)
{
    return ehmn_add(mean, ehmn_round_fit((int64_t)ehmn_subtract(value, mean) * rate, 16));
}

/* floor((a + floor(b / 2)) / b) for b > 0. */
static inline int64_t ehmn_div_round(int64_t a, int64_t b)
{
    int64_t n = a + b / 2;
    return n / b - (n % b < 0);
}

#if defined(__OPTIMIZE_SIZE__) && !defined(EHMN_COPIES)
int32_t ehmn_clamp(int32_t v, int32_t low, int32_t high);
#else
inline int32_t ehmn_clamp(int32_t v, int32_t low, int32_t high)
{
    return v < low ? low : v > high ? high : v;
}
#endif

static inline int ehmn_in_range(int64_t v, int64_t low, int64_t high)
{
    return v >= low && v <= high;
}

static inline uint32_t ehmn_abs(int32_t v)
{
    return v < 0 ? 0u - (uint32_t)v : (uint32_t)v;
}

/* Number of bits of v: 0 for 0, 64 for 2^63. */
int32_t ehmn_bit_length(uint64_t v);

/* floor(sqrt(v)). */
uint32_t ehmn_isqrt(uint64_t v);

/* vectors_reduce.c: what every ehmn_rms_normalise begins and ends with. */
uint64_t ehmn_scaled_eps(int32_t eps_mantissa, int32_t shift);
int32_t ehmn_rms_factor(uint64_t sum, uint32_t n, int32_t *shift);

/* 2^-(x / 256) as Q24. */
inline uint32_t ehmn_exp2_neg(uint32_t x)
{
    if (x > 25u * 256u) {
        return 0u;
    }
    uint32_t whole = (x + 255u) >> 8; /* 2^-x = 2^(whole - x) / 2^whole with the first factor in [1, 2) */
    uint32_t twice = (32768u + ehmn_exp2_table[(whole << 8) - x]) << 10;
    return ((twice >> whole) + 1u) >> 1;
}

/* log2(v) as Q16, v > 0. */
int32_t ehmn_log2(uint64_t v);

/* sigmoid(x) as Q16 (0..65535), x in Q16. */
uint32_t ehmn_sigmoid(int32_t x);

/* tanh(x) as Q15, |.| <= 32767, x in Q16. */
int32_t ehmn_tanh(int32_t x);

/* GELU in its tanh form, x sigmoid(1.59577 (x + 0.044715 x^3)); x and the result have `frac` fractional bits, 8..16. */
int32_t ehmn_gelu(int32_t x, int32_t frac);

/* sin(2 pi phase / 2^32) as Q15, |.| <= 32767; the cosine is the sine a quarter turn on. */
int32_t ehmn_sin(uint32_t phase);

static inline int32_t ehmn_cos(uint32_t phase)
{
    return ehmn_sin(phase + 0x40000000u);
}

/* A token that was drawn, and how many times. */
#define EHMN_DRAWN_ONCE (1u << 24)
static inline uint32_t ehmn_drawn_token(uint32_t drawn)
{
    return drawn & (EHMN_DRAWN_ONCE - 1u);
}
static inline int32_t ehmn_drawn_times(uint32_t drawn)
{
    return (int32_t)(drawn / EHMN_DRAWN_ONCE);
}

/* The smallest shift by which a magnitude of at most `max` rounds into `bits` bits with a sign. */
static inline int32_t ehmn_fitting_shift(uint32_t max, int32_t bits)
{
    int32_t shift = (max != 0 ? 32 - __builtin_clz(max) : 0) - (bits - 1);
    return shift + (shift > 0 && ((max >> (shift - 1)) + 1u) >> 1 >> (bits - 1) != 0);
}

/* vectors.c, from here on. Divide an int32 vector by a power of two so that it fits 8, or `bits` (9..16), bits,
 * symmetric, as tightly as it
 * can. v[n] has frac fractional bits; the return value is the number of fractional bits of the result. */
int32_t ehmn_quantise8(const int32_t *v, uint32_t n, int32_t frac, int8_t *out);
int32_t ehmn_quantise16(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out);
/* Mantissas v of 16 bits as bytes, at most 127, and the step that the bytes count in, which is returned: v[i] is about
 * step * out[i]. The largest becomes 127, where a power of two would leave up to a bit unused. */
int32_t ehmn_narrow(const int16_t *v, uint32_t n, int8_t *out);
/* Both, of 16 bits and then of 8, without what is between; *step as ehmn_narrow returns it. Not with Helium. And
 * ehmn_quantise16 with the largest magnitude that it gives, or one more; in builds without vectors of their own. */
int32_t ehmn_quantise_narrow(const int32_t *v, uint32_t n, int32_t frac, int8_t *out, int32_t *step);
int32_t ehmn_quantise_most(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *out, uint32_t *most);
/* Parts of them: the step of mantissas up to max, and its reciprocal, by which they are multiplied. */
int32_t ehmn_step_of(uint32_t max);
#define EHMN_RECIPROCAL_FRAC 22
#define EHMN_RECIPROCAL(step) ((1 << EHMN_RECIPROCAL_FRAC) / (step))
#define EHMN_RECIPROCAL_HALF (1 << (EHMN_RECIPROCAL_FRAC - 1))
/* v[i] *= factor; no product leaves 32 bits. */
void ehmn_multiply_all(int32_t *v, uint32_t n, int32_t factor);
/* v[i] >>= shift[i], shifts of 0..31. */
void ehmn_shift_all(int32_t *v, const int32_t *shift, uint32_t n);

/* v[i] = ehmn_add(v[i], more[i]). */
void ehmn_add_all(int32_t *v, const int32_t *more, uint32_t n);
/* out[i] = ehmn_subtract(v[i], less[i]). */
void ehmn_subtract_all(const int32_t *v, const int32_t *less, uint32_t n, int32_t *out);

/* v[i] = ehmn_add(v[i], ehmn_mul(w[i] * factor, scale, shift)), for factors within +-64 and a scale
 * that is not negative. */
void ehmn_add_weights(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift);
/* The same where no v[i] and no sum reaches 2^31. */
void ehmn_add_weights_within(int32_t *v, const int8_t *w, uint32_t n, int32_t factor, int32_t scale, int32_t shift);

/* v[i] = ehmn_add(v[i], ehmn_mul(z[i], gain, 15)), gain not negative. */
void ehmn_add_outputs(int32_t *v, const int16_t *z, uint32_t n, int32_t gain);

/* The sum of w[i] v[i], or of z[i] v[i]. */
int64_t ehmn_dot_weights(const int8_t *w, const int32_t *v, uint32_t n);
int64_t ehmn_dot_outputs(const int16_t *z, const int32_t *v, uint32_t n);

int64_t ehmn_sum(const int32_t *v, uint32_t n);

/* Clamp v[i] to +-most; returns the sum of the magnitudes then. */
uint64_t ehmn_limit(int32_t *v, uint32_t n, int32_t most);

/* out[i] = round(v[i] slope / 2^15), slope = 2^15 - floor(z[i]^2 / 2^15), which is tanh' in Q15. */
void ehmn_times_slope(const int32_t *v, const int16_t *z, uint32_t n, int32_t *out);

/* out[i] = round(v[i] / 2^shift), saturated to 16 bits; |shift| at most 62. */
void ehmn_fit_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *out);

/* z[i] = ehmn_tanh(round(v[i] / 2^shift)); |shift| at most 62. */
void ehmn_tanh_all(const int32_t *v, uint32_t n, int32_t shift, int16_t *z);

/* mean[i] = ehmn_follow_value(mean[i], v[i], rate). */
void ehmn_follow_all(int32_t *mean, const int32_t *v, uint32_t n, int32_t rate);

/* A direction in which rows of weights are moved, made of one vector of n bytes: `edge` holds the running sums of its
 * magnitudes, `sign` is 0 where it is positive and -1 elsewhere. */
typedef struct {
    uint32_t *edge;
    int8_t *sign;
    uint32_t n;
    uint32_t length; /* the last edge */
    uint32_t few;    /* steps of a row that are found one by one */
    void (*step_row)(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at); /* of kernels.h: makes more of them */
} ehmn_direction;

#define EHMN_EVENT_FRAC 24 /* fractional bits of an expected number of steps */

/* edge[i] = sum of |v[0]| to |v[i]|; sign[i] = 0 where v[i] is positive and -1 elsewhere. */
void ehmn_running_sums(const int8_t *v, uint32_t n, uint32_t *edge, int8_t *sign);

/* plastic_loops.c, and vectors_neon_plastic.c on aarch64. v[i] = ehmn_mul(v[i], factor, shift), within +-most; returns
 * the sum of their magnitudes. n up to 2^12, `most` up to 2^20. */
uint64_t ehmn_scale_within(int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t most);

/* The sum of ehmn_mul(v[i], w[i], shift). `scale` is that of kernels.h, and there is room for n values. */
int64_t ehmn_sum_products(const int32_t *v, const int32_t *w, uint32_t n, int32_t shift,
                          void (*scale)(const int32_t *v, const int32_t *scale, uint32_t n, int32_t shift,
                                        int32_t *out),
                          int32_t *room);

/* 1 if it is known that a row of which each weight expects |w[i]| rate / 2^24 steps has none, `passed` as below. Where
 * this costs what the steps cost, it is not known. */
int ehmn_has_no_step(const int8_t *w, uint32_t n, uint32_t rate, uint32_t passed);

/* Bits v[i] > 0, 32 in a word, the last of which is filled up with zeros. */
void ehmn_signs(const int32_t *v, uint32_t n, uint32_t *bits);

/* The sum of |w[i]|. */
uint32_t ehmn_length(const int8_t *w, uint32_t n);

/* Make `steps` steps of one row, of rate `rate`, of which `passed` / 2^24 of a step had gone by before the row: they
 * fall where whole steps have. */
void ehmn_step_few(int8_t *w, const ehmn_direction *along, int32_t rate, uint32_t passed, uint32_t steps);

/* Draw the steps of one row: weight j expects |rate| |v_j| of them, in the direction of rate v_j. `*passed`, below one
 * step, is what has gone by on the line since the last step. Returns how many. */
uint32_t ehmn_draw_row(int8_t *w, const ehmn_direction *along, int32_t rate, uint32_t *passed);

/* The same of those of n rows w[n][n] whose rates, within +-2^20, are not zero and at least `least`, at most 2^24, in
 * magnitude. */
uint32_t ehmn_draw_rows(int8_t *w, const ehmn_direction *along, const int32_t *rates, uint32_t least, uint32_t *passed);

/* out[i] = ehmn_mul(v[i], factor, shift); out may be v. */
void ehmn_scale_all(const int32_t *v, uint32_t n, int32_t factor, int32_t shift, int32_t *out);

/* out = v / sqrt(mean(v^2) + eps) in Q20, where n * eps = eps_mantissa * 2^-eps_shift; zero for a zero vector.
 * v[n] has frac fractional bits. out may be v. */
void ehmn_rms_normalise(const int32_t *v, uint32_t n, int32_t frac, int32_t eps_mantissa, int32_t eps_shift,
                        int32_t *out);

/* Scores of one head with frac fractional bits and those of each key, which stand `stride` apart -> `to` of them.
 * Returns the largest. */
int32_t ehmn_fit_scores(const int8_t *key_frac, uint32_t stride, uint32_t n, int32_t frac, int32_t to, int32_t *scores);

/* Weights, at most 2^15, of values with as many fractional bits as value_frac says -> at one exponent. Returns the
 * fractional bits that it stands for. */
int32_t ehmn_align_weights(const int8_t *value_frac, uint32_t stride, uint32_t n, int32_t *weights);

/* The probabilities of n tokens, ehmn_exp2_neg(max - logits[token]). */
typedef struct {
    const int16_t *logits;
    uint32_t n;
    int32_t max;
    uint32_t block;       /* tokens in a row, 64 or 128, whose probabilities have a sum in `sums`; */
    const uint32_t *sums; /* NULL: there are none */
    uint64_t mass;        /* of all */
} ehmn_probabilities;

/* The tokens at n quantiles `ahead`, ahead + step, ..., all below the mass: those that several share are drawn as many
 * times. Returns how many tokens. */
uint32_t ehmn_find_quantiles(const ehmn_probabilities *of, uint64_t ahead, uint64_t step, uint32_t n, uint32_t *drawn);

/* The largest of v[n], which is not empty. */
int32_t ehmn_largest(const int16_t *v, uint32_t n);

/* Take ehmn_exp2_neg(max - logits[i]) from *ahead for i = 0, 1, ... as long as it has so much; returns the first i for
 * which it has not, or n. Not on aarch64 (vectors_neon.h). */
uint32_t ehmn_pass_over(const int16_t *logits, uint32_t n, int32_t max, uint64_t *ahead);

#endif
