/* The functions of vectors.c for AVX2, or with -DAVX512 those for AVX-512, against those in plain C, on random and
 * extreme inputs of all sizes. Each array is a block of its own, so that a sanitizer sees a byte too far. Ends with 1
 * and a message at the first difference. */
#include "fixed.h"
#include "vectors_x86.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(AVX512)
#define TESTED(name) ehmn_avx512_##name
#define ROTATED(half) (half)
#else
#define TESTED(name) ehmn_avx2_##name
#define ROTATED(half) ((half) & ~7u)
#endif

static uint32_t state = 1;

static uint32_t bits(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8 ^ state << 16;
}

static void *room(size_t bytes)
{
    void *p = malloc(bytes > 0 ? bytes : 1u);
    return p != NULL ? p : (exit(2), NULL);
}

static void compare(const char *what, uint32_t n, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0) {
        printf("%s differs at size %u\n", what, (unsigned)n);
        exit(1);
    }
}

static void same(const char *what, uint32_t n, int32_t a, int32_t b)
{
    compare(what, n, &a, &b, sizeof a);
}

/* Values of up to `width` bits and a sign; width 0: zeros; 32: at the limits. */
static int32_t *values(uint32_t n, uint32_t width)
{
    int32_t *v = room(4u * n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t most = width >= 31u ? INT32_MAX : (1u << width) - 1u;
        int32_t a = (int32_t)(width == 32u ? most - bits() % 2u : bits() & most);
        v[i] = bits() % 2u ? a : -a;
    }
    return v;
}

static int32_t *copy(const int32_t *v, uint32_t n)
{
    return memcpy(room(4u * n), v, 4u * n);
}

static void narrow(uint32_t n, uint32_t width)
{
    int32_t *v = values(n, width), *a = room(4u * n), *b = room(4u * n);
    int8_t *a8 = room(n), *b8 = room(n);
    int16_t *a16 = room(2u * n), *b16 = room(2u * n);
    same("quantise8", n, ehmn_plain_quantise8(v, n, 20, a8), TESTED(quantise8)(v, n, 20, b8));
    compare("quantise8", n, a8, b8, n);
    for (uint32_t k = 9; k <= 16u; k++) {
        same("quantise16", n, ehmn_plain_quantise16(v, n, 20, k, a16), TESTED(quantise16)(v, n, 20, k, b16));
        compare("quantise16", n, a16, b16, 2u * n);
    }
    int32_t step = TESTED(narrow)(a16, n, b8);
    same("narrow", n, ehmn_plain_narrow(a16, n, a8), step);
    compare("narrow", n, a8, b8, n);
    for (uint32_t i = 0; i < n; i++) {
        a[i] = b[i] = v[i] % (1 << 20);
    }
    ehmn_plain_multiply_all(a, n, step);
    TESTED(multiply_all)(b, n, step);
    compare("multiply_all", n, a, b, 4u * n);
    for (int32_t frac = 8; frac <= 24; frac += 8) {
        int32_t eps = (int32_t)(bits() % 1000u), shift = (int32_t)(bits() % 40u);
        ehmn_plain_rms_normalise(v, n, frac, eps, shift, a);
        TESTED(rms_normalise)(v, n, frac, eps, shift, b);
        compare("rms_normalise", n, a, b, 4u * n);
    }
    ehmn_plain_running_sums(a8, n, (uint32_t *)a, b8);
    memcpy(a16, b8, n);
    ehmn_avx2_running_sums(a8, n, (uint32_t *)b, b8);
    compare("running_sums", n, a, b, 4u * n);
    compare("signs", n, a16, b8, n);
    free(v);
    free(a);
    free(b);
    free(a8);
    free(b8);
    free(a16);
    free(b16);
}

static void move(uint32_t n, uint32_t width, uint32_t other, int32_t shift)
{
    int32_t *v = values(n, width), *more = values(n, other), *a = copy(v, n), *b = copy(v, n);
    int32_t factor = (int32_t)(bits() >> bits() % 31u) * (bits() % 2u ? 1 : -1);
    int8_t *w = room(n);
    int16_t *z = room(2u * n);
    for (uint32_t i = 0; i < n; i++) {
        w[i] = (int8_t)(bits() % 255u - 127u);
        z[i] = (int16_t)(bits() % 65535u - 32767u);
    }
    ehmn_plain_add_all(a, more, n);
    TESTED(add_all)(b, more, n);
    compare("add_all", n, a, b, 4u * n);
    factor = factor == INT32_MIN ? 1 : factor;
    int32_t positive = factor < 0 ? -factor : factor;
    ehmn_plain_add_weights(a, w, n, factor % 65, positive, shift);
    TESTED(add_weights)(b, w, n, factor % 65, positive, shift);
    compare("add_weights", n, a, b, 4u * n);
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        int32_t product = ehmn_mul(w[i] * (factor % 65), positive, shift);
        largest = ehmn_abs(a[i]) > largest ? ehmn_abs(a[i]) : largest;
        largest = ehmn_abs(product) > largest ? ehmn_abs(product) : largest;
    }
    if (largest < 1u << 30) {
        ehmn_plain_add_weights(a, w, n, factor % 65, positive, shift);
        TESTED(add_weights_within)(b, w, n, factor % 65, positive, shift);
        compare("add_weights_within", n, a, b, 4u * n);
    }
    ehmn_plain_add_outputs(a, z, n, positive);
    ehmn_avx2_add_outputs(b, z, n, positive);
    compare("add_outputs", n, a, b, 4u * n);
    for (uint32_t i = bits() % 4u; i < n; i += 1u + bits() % 8u) {
        a[i] = b[i] = INT32_MIN; /* which a stored state may hold */
    }
    ehmn_plain_follow_all(a, more, n, positive % 65537);
    ehmn_avx2_follow_all(b, more, n, positive % 65537);
    compare("follow_all", n, a, b, 4u * n);
    ehmn_plain_scale_all(v, n, factor, shift, a);
    TESTED(scale_all)(v, n, factor, shift, b);
    compare("scale_all", n, a, b, 4u * n);
    for (uint32_t i = 0; i < n; i++) {
        more[i] = (int32_t)(bits() % 32u);
    }
    ehmn_plain_shift_all(a, more, n);
    ehmn_avx2_shift_all(b, more, n);
    compare("shift_all", n, a, b, 4u * n);
    free(v);
    free(more);
    free(a);
    free(b);
    free(w);
    free(z);
}

static void attention(uint32_t n, uint32_t stride, uint32_t spread)
{
    int8_t *frac = room((n - 1u) * stride + 1u);
    int32_t *a = values(n, 31), *b = copy(a, n);
    for (uint32_t i = 0; i < (n - 1u) * stride + 1u; i++) {
        frac[i] = (int8_t)(bits() % (spread + 1u) - spread / 2u);
    }
    same("fit_scores", n, ehmn_plain_fit_scores(frac, stride, n, 14, 8, a),
         TESTED(fit_scores)(frac, stride, n, 14, 8, b));
    compare("fit_scores", n, a, b, 4u * n);
    for (uint32_t i = 0; i < n; i++) {
        a[i] = b[i] = (int32_t)(bits() % 32769u);
    }
    same("align_weights", n, ehmn_plain_align_weights(frac, stride, n, a), TESTED(align_weights)(frac, stride, n, b));
    compare("align_weights", n, a, b, 4u * n);
    free(frac);
    free(a);
    free(b);
}

/* What is not rotated is what might have to be saturated, or fills no register. */
static void rotation(uint32_t n, uint32_t width)
{
    uint32_t half = n / 2u;
    int32_t *a = values(n, width), *b = copy(a, n);
    int16_t *turn = room(4u * half);
    for (uint32_t i = 0; i < 2u * half; i++) {
        turn[i] = (int16_t)((int32_t)(bits() % 65535u) - 32767);
    }
    uint32_t done = TESTED(rotate)(turn, half, b);
    for (uint32_t i = 0; i < done; i++) {
        int64_t c = turn[2u * i], s = turn[2u * i + 1u], x = a[i], y = a[i + half];
        a[i] = ehmn_round_shift(x * c - y * s, 15);
        a[i + half] = ehmn_round_shift(y * c + x * s, 15);
    }
    compare("rotate", n, a, b, 4u * n);
    same("how many are rotated", n, width < 31u ? (int32_t)ROTATED(half) : (int32_t)done, (int32_t)done);
    free(a);
    free(b);
    free(turn);
}

static void learning(uint32_t n, uint32_t width)
{
    int32_t *v = values(n, width), max = -INT16_MAX;
    int16_t *a = room(2u * n), *b = room(2u * n);
    uint64_t mass = 0;
    for (int32_t shift = -14; shift <= 34; shift++) {
        ehmn_plain_tanh_all(v, n, shift, a);
        TESTED(tanh_all)(v, n, shift, b);
        compare("tanh_all", n, a, b, 2u * n);
    }
    for (uint32_t i = 0; i < n; i++) {
        a[i] = (int16_t)(width > 12u ? bits() % 65535u - 32767u : bits() % (1u << width));
        max = a[i] > max ? a[i] : max;
    }
    for (uint32_t i = 0; i < n; i++) {
        mass += ehmn_exp2_neg((uint32_t)(max - a[i]));
    }
    for (uint32_t k = 0; k < 8u; k++) {
        uint64_t left = k == 7u ? mass : mass * k / 6u - (k == 3u), same_left = left;
        same("pass_over", n, (int32_t)ehmn_plain_pass_over(a, n, max, &left),
             (int32_t)TESTED(pass_over)(a, n, max, &same_left));
        compare("what is left", n, &left, &same_left, sizeof left);
    }
    free(v);
    free(a);
    free(b);
}

#if !defined(AVX512)
static void plastic(uint32_t n, uint32_t width)
{
    int32_t *v = values(n, width), *less = values(n, width), *a = room(4u * n), *b = room(4u * n);
    int8_t *w = room(n);
    int16_t *z = room(2u * n);
    uint32_t extreme = bits() % 2u;
    for (uint32_t i = 0; i < n; i++) {
        w[i] = (int8_t)(extreme ? 127 - 254 * (int32_t)(bits() % 2u) : (int32_t)(bits() % 255u) - 127);
        z[i] = (int16_t)(extreme ? 32767 - 65534 * (int32_t)(bits() % 2u) : (int32_t)(bits() % 65535u) - 32767);
    }
    int64_t sums[2][4] = {
        {ehmn_plain_dot_weights(w, v, n), ehmn_plain_dot_outputs(z, v, n), ehmn_plain_sum(v, n)},
        {ehmn_avx2_dot_weights(w, v, n), ehmn_avx2_dot_outputs(z, v, n), ehmn_avx2_sum(v, n)},
    };
    ehmn_plain_times_slope(v, z, n, a);
    ehmn_avx2_times_slope(v, z, n, b);
    compare("times_slope", n, a, b, 4u * n);
    uint32_t lengths[2] = {ehmn_plain_length(w, n), ehmn_avx2_length(w, n)};
    compare("length", n, lengths, lengths + 1, 4u);
    ehmn_plain_subtract_all(v, less, n, a);
    ehmn_avx2_subtract_all(v, less, n, b);
    compare("subtract_all", n, a, b, 4u * n);
    memcpy(b, a, 4u * n);
    int32_t most = (int32_t)(width % 3u ? bits() >> 1 : bits() % 2000u);
    sums[0][3] = (int64_t)ehmn_plain_limit(a, n, most);
    sums[1][3] = (int64_t)ehmn_avx2_limit(b, n, most);
    compare("limit", n, a, b, 4u * n);
    compare("a sum", n, sums[0], sums[1], sizeof sums[0]);
    free(v);
    free(less);
    free(a);
    free(b);
    free(w);
    free(z);
}
#endif

int main(void)
{
    for (uint32_t n = 1; n <= 140; n++) {
        for (uint32_t width = 0; width <= 32u; width += 1u + n % 3u) {
            narrow(n, width);
            rotation(n, width);
            learning(n, width);
#if !defined(AVX512)
            plastic(n, width);
#endif
            move(n, width, bits() % 33u, (int32_t)(bits() % 64u));
            move(n, width, 32u, (int32_t)(bits() % 64u));
        }
        for (uint32_t k = 0; k < 12u; k++) {
            attention(n, 1u + k % 5u, 6u + 20u * k);
        }
    }
    puts("the same");
    return 0;
}
