/* The arithmetic on whole vectors against its definition, one value at a time: random and extreme, of all sizes, every
 * array a block of its own. compare_kernels.c calls this. */
#include "compare_vectors.h"
#include "fixed.h"
#include "values.h"
#include "vectors_mve.h"
#include "vectors_neon.h"
#include "vectors_x86.h" /* the parts of ehmn_rms_normalise */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 7;

int32_t between(int32_t low, int32_t high)
{
    state = state * 1664525u + 1013904223u;
    return (int32_t)(low + (int64_t)((state >> 8) * (uint64_t)((int64_t)high - low + 1) >> 24));
}

void *copy(const void *from, size_t bytes)
{
    void *p = malloc(bytes);
    return p != NULL ? memcpy(p, from, bytes) : (exit(2), NULL);
}

void same(const char *what, uint32_t n, const void *expected, void *made, size_t size)
{
    if (memcmp(expected, made, n * size) != 0) {
        printf("%s differs at size %u\n", what, (unsigned)n);
        exit(1);
    }
    free(made);
}

static int32_t limits[] = {100, 1 << 14, 1 << 20, (1 << 29) - 1, INT32_MAX};

void fill(int32_t *v, uint32_t n, int32_t limit)
{
    for (uint32_t i = 0; i < n; i++) {
        v[i] = between(0, 9) ? between(-limit, limit) : between(0, 1) ? limit : -limit;
    }
}

static void sums(uint32_t n, int32_t limit)
{
    int32_t v[MOST], w[MOST], out[MOST], factor = between(-limit, limit);
    int32_t rate = between(0, 1) ? between(0, 65535) : 65536;
    int8_t weight[MOST], sign[MOST];
    int16_t z[MOST];
    uint32_t edge[MOST], sum = 0;
    fill(v, n, limit);
    fill(w, n, limit);
    for (uint32_t i = 0; i < n; i++) {
        weight[i] = (int8_t)between(-127, 127);
        z[i] = (int16_t)between(-32767, 32767);
    }
    int32_t *a = copy(v, 4u * n);
    ehmn_add_all(a, w, n);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_add(v[i], w[i]);
    }
    same("ehmn_add_all", n, out, a, 4);
    a = copy(v, 4u * n);
    int32_t *less = copy(w, 4u * n);
    ehmn_subtract_all(a, less, n, a);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_subtract(v[i], w[i]);
    }
    same("ehmn_subtract_all", n, out, a, 4);
    free(less);
    int32_t down[MOST];
    for (uint32_t i = 0; i < n; i++) {
        down[i] = between(0, 31);
        out[i] = v[i] >> down[i];
    }
    a = copy(v, 4u * n);
    int32_t *shifts = copy(down, 4u * n);
    ehmn_shift_all(a, shifts, n);
    same("ehmn_shift_all", n, out, a, 4);
    free(shifts);
    for (int32_t shift = -3; shift < 63; shift += 1 + (int32_t)(n % 5u)) {
        a = copy(v, 4u * n);
        ehmn_scale_all(a, n, factor, shift, a);
        for (uint32_t i = 0; i < n; i++) {
            out[i] = ehmn_mul(v[i], factor, shift);
        }
        same("ehmn_scale_all", n, out, a, 4);
        int32_t many = between(0, 1) ? between(-64, 64) : 1 - 2 * between(0, 1);
        int32_t scale = between(0, 1) ? ehmn_clamp(factor, 0, INT32_MAX) : between(0, 99);
        int8_t *own = copy(weight, n);
        a = copy(v, 4u * n);
        ehmn_add_weights(a, own, n, many, scale, shift);
        for (uint32_t i = 0; i < n; i++) {
            out[i] = ehmn_add(v[i], ehmn_mul(weight[i] * many, scale, shift));
        }
        same("ehmn_add_weights", n, out, a, 4);
        int64_t most = 0;
        for (uint32_t i = 0; i < n; i++) {
            int64_t sum = ehmn_abs(v[i]) + (int64_t)ehmn_abs(ehmn_mul(weight[i] * many, scale, shift));
            most = sum > most ? sum : most;
        }
        if (most <= INT32_MAX) {
            a = copy(v, 4u * n);
            ehmn_add_weights_within(a, own, n, many, scale, shift);
            same("ehmn_add_weights_within", n, out, a, 4);
        }
        same("its weights", n, weight, own, 1);
    }
    int32_t gain = between(0, 1) ? ehmn_clamp(factor, 0, INT32_MAX) : between(0, 1 << 17);
    a = copy(v, 4u * n);
    ehmn_add_outputs(a, z, n, gain);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_add(v[i], ehmn_mul(z[i], gain, 15));
    }
    same("ehmn_add_outputs", n, out, a, 4);
    v[between(0, (int32_t)n - 1)] = INT32_MIN; /* which a stored state may hold */
    a = copy(v, 4u * n);
    ehmn_follow_all(a, w, n, rate);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_follow_value(v[i], w[i], rate);
    }
    same("ehmn_follow_all", n, out, a, 4);
    uint32_t *edges = copy(edge, 4u * n);
    int8_t *signs = copy(weight, n);
    ehmn_running_sums(weight, n, edges, signs);
    for (uint32_t i = 0; i < n; i++) {
        edge[i] = sum += ehmn_abs(weight[i]);
        sign[i] = weight[i] > 0 ? 0 : -1;
    }
    same("ehmn_running_sums", n, edge, edges, 4);
    same("its signs", n, sign, signs, 1);
}

static int32_t shift_for(const int32_t *v, uint32_t n, int32_t bits)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < n; i++) {
        max = ehmn_abs(v[i]) > max ? ehmn_abs(v[i]) : max;
    }
    int32_t shift = max ? -30 : 0;
    while (max && ehmn_round_shift(max, shift) > (1 << (bits - 1)) - 1) {
        shift++;
    }
    return shift;
}

static void reductions(uint32_t n, int32_t limit)
{
    int32_t v[MOST], turned[MOST];
    int16_t out[MOST], turn[MOST];
    int8_t bytes[MOST];
    fill(v, n, limit);
    int32_t *own = copy(v, 4u * n);
    int16_t *a = copy(v, 2u * n);
    int32_t bits = between(9, 16), shift = shift_for(v, n, bits), got = -ehmn_quantise16(own, n, 0, (uint32_t)bits, a);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (int16_t)ehmn_round_shift(v[i], shift);
    }
    same("the shift of ehmn_quantise16", 1, &shift, copy(&got, 4), 4);
    same("ehmn_quantise16", n, out, a, 2);
    int8_t *b = copy(v, n);
    shift = shift_for(v, n, 8);
    got = -ehmn_quantise8(own, n, 0, b);
    for (uint32_t i = 0; i < n; i++) {
        bytes[i] = (int8_t)ehmn_round_shift(v[i], shift);
    }
    same("the shift of ehmn_quantise8", 1, &shift, copy(&got, 4), 4);
    same("ehmn_quantise8", n, bytes, b, 1);
    a = copy(v, 2u * n);
    b = copy(v, n);
    (void)ehmn_quantise16(own, n, 0, 16, a);
    int32_t by = shift_for(v, n, 16), frac = between(0, 22), eps = between(0, 1 << 20), eps_shift = between(0, 40);
    int32_t down;
    uint64_t sum = ehmn_scaled_eps(eps, eps_shift - 2 * (frac - by));
    for (uint32_t i = 0; i < n; i++) {
        sum += (uint64_t)((int64_t)a[i] * a[i]);
    }
    int32_t root = ehmn_rms_factor(sum, n, &down);
    for (uint32_t i = 0; i < n; i++) {
        turned[i] = ehmn_mul(a[i] * 65536, root, down);
    }
    int32_t *whole = copy(v, 4u * n);
    ehmn_rms_normalise(whole, n, frac, eps, eps_shift, whole);
    same("ehmn_rms_normalise", n, turned, whole, 4);
#if defined(EHMN_NEON)
    int32_t downs[MOST];
    for (uint32_t i = 0; i < n; i++) {
        downs[i] = between(0, 31);
        turned[i] >>= downs[i];
    }
    int32_t *by_each = copy(downs, 4u * n);
    whole = copy(v, 4u * n);
    ehmn_neon_normalise(whole, n, frac, eps, eps_shift, by_each, whole);
    same("ehmn_neon_normalise", n, turned, whole, 4);
    for (int32_t of = 0; of < 63; of += 1 + (int32_t)(n % 5u)) {
        int32_t factor = between(-255, 255);
        for (uint32_t i = 0; i < n; i++) {
            turned[i] = ehmn_mul(v[i] / 256 * factor, downs[i] * 65536, of);
        }
        whole = copy(v, 4u * n);
        int32_t *scales = copy(downs, 4u * n);
        for (uint32_t i = 0; i < n; i++) {
            whole[i] /= 256;
            scales[i] *= 65536;
        }
        ehmn_neon_scale_steps(whole, scales, n, factor, of);
        same("ehmn_neon_scale_steps", n, turned, whole, 4);
        free(scales);
    }
    free(by_each);
#endif
    int32_t step = 1;
    for (uint32_t i = 0; i < n; i++) {
        step = (ehmn_abs(a[i]) + 126) / 127 > (uint32_t)step ? (int32_t)(ehmn_abs(a[i]) + 126) / 127 : step;
    }
    got = ehmn_narrow(a, n, b);
    for (uint32_t i = 0; i < n; i++) {
        bytes[i] = (int8_t)((a[i] * ((1 << 22) / step) + (1 << 21)) >> 22);
        turned[i] = v[i] % (1 << 20) * step;
        own[i] = v[i] % (1 << 20);
    }
    same("the step of ehmn_narrow", 1, &step, copy(&got, 4), 4);
    same("ehmn_narrow", n, bytes, b, 1);
#if !defined(EHMN_MVE)
    int32_t *whole_again = copy(v, 4u * n), step_again = 0;
    b = copy(v, n);
    got = -ehmn_quantise_narrow(whole_again, n, 0, b, &step_again);
    same("the shift of ehmn_quantise_narrow", 1, &by, copy(&got, 4), 4);
    same("its step", 1, &step, copy(&step_again, 4), 4);
    same("ehmn_quantise_narrow", n, bytes, b, 1);
    same("what was narrowed", n, v, whole_again, 4);
#endif
#if !defined(EHMN_MVE) && !defined(EHMN_NEON)
    uint32_t most = 0, largest = 0;
    whole_again = copy(v, 4u * n);
    int16_t *words = copy(v, 2u * n);
    got = -ehmn_quantise_most(whole_again, n, 0, 16, words, &most);
    for (uint32_t i = 0; i < n; i++) {
        largest = ehmn_abs(a[i]) > largest ? ehmn_abs(a[i]) : largest;
    }
    same("the shift of ehmn_quantise_most", 1, &by, copy(&got, 4), 4);
    if (most < largest || most > largest + (by > 0 ? 0u : 1u << -by)) {
        printf("ehmn_quantise_most finds %u, not %u\n", (unsigned)most, (unsigned)largest);
        exit(1);
    }
    same("ehmn_quantise_most", n, a, words, 2);
    free(whole_again);
#endif
    free(a);
    ehmn_multiply_all(own, n, step);
    same("ehmn_multiply_all", n, turned, own, 4);
    own = copy(v, 4u * n);
    for (shift = -5; shift < 40; shift += 1 + (int32_t)(n % 4u)) {
        a = copy(v, 2u * n);
        ehmn_fit_all(own, n, shift, a);
        for (uint32_t i = 0; i < n; i++) {
            out[i] = ehmn_sat16(ehmn_round_shift(v[i], shift));
        }
        same("ehmn_fit_all", n, out, a, 2);
        a = copy(v, 2u * n);
        ehmn_tanh_all(own, n, shift, a);
        for (uint32_t i = 0; i < n; i++) {
            out[i] = (int16_t)ehmn_tanh(ehmn_round_shift(v[i], shift));
        }
        same("ehmn_tanh_all", n, out, a, 2);
    }
    same("what was reduced", n, v, own, 4);
#if defined(EHMN_MVE) || defined(EHMN_NEON)
    for (uint32_t i = 0; i < n; i++) {
        turn[i] = (int16_t)between(-32767, 32767);
    }
    own = copy(v, 4u * n);
    uint32_t half = n / 2u, done = ehmn_rotate_some(turn, half, own);
    memcpy(turned, v, 4u * n);
    for (uint32_t i = 0; i < done; i++) {
        int64_t c = turn[2u * i], s = turn[2u * i + 1u], x = v[i], y = v[i + half];
        turned[i] = ehmn_round_shift(x * c - y * s, 15);
        turned[i + half] = ehmn_round_shift(y * c + x * s, 15);
    }
    same("rotate", n, turned, own, 4);
    if (limit < 1 << 29 && done != (half & ~3u)) {
        printf("rotate leaves pairs at size %u\n", (unsigned)n);
        exit(1);
    }
#else
    (void)turned;
    (void)turn;
#endif
}

static void passing(uint32_t n, int32_t limit)
{
    int16_t v[MOST], max = -INT16_MAX;
    uint64_t all = 0;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = (int16_t)between(-limit, limit);
        max = v[i] > max ? v[i] : max;
    }
    for (uint32_t i = 0; i < n; i++) {
        all += ehmn_exp2_neg((uint32_t)(max - v[i]));
    }
    int16_t *own = copy(v, 2u * n);
    for (uint32_t many = 1; many <= 64u; many *= 4u) {
        uint32_t drawn[65], got[64], sums[MOST / 16u + 1u] = {0}, block = 16u << between(0, 2), found = 0, left = many;
        uint64_t step = all / many, first = (uint64_t)between(0, (1 << 20) - 1) * (step >> 20), ahead = first;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t p = ehmn_exp2_neg((uint32_t)(max - v[i]));
            sums[i / block] += p;
            for (drawn[found] = i; ahead < p && left > 0; ahead += step, left--) {
                drawn[found] += EHMN_DRAWN_ONCE;
            }
            found += drawn[found] != i;
            ahead -= p;
        }
        ehmn_probabilities of = {own, n, max, block, copy(sums, sizeof sums), all};
        uint32_t of_blocks = ehmn_find_quantiles(&of, first, step, many, got);
        same("how many tokens", 1, &found, copy(&of_blocks, 4), 4);
        same("quantiles", found, drawn, copy(got, sizeof got), 4);
        free((void *)(uintptr_t)of.sums);
        of.sums = NULL;
        uint32_t of_all = ehmn_find_quantiles(&of, first, step, many, got);
        same("how many tokens without sums", 1, &found, copy(&of_all, 4), 4);
        same("quantiles without sums", found, drawn, copy(got, sizeof got), 4);
    }
#if !defined(EHMN_NEON)
    for (uint64_t part = 0; part <= 8u; part++) {
        uint64_t left = all * part / 8u, ahead = left;
        uint32_t at = 0, got = ehmn_pass_over(own, n, max, &ahead);
        for (uint32_t p; at < n && left >= (p = ehmn_exp2_neg((uint32_t)(max - v[at]))); at++) {
            left -= p;
        }
        same("ehmn_pass_over", 1, &at, copy(&got, 4), 4);
        same("what it leaves", 1, &left, copy(&ahead, 8), 8);
    }
#endif
    free(own);
}

static void attention(uint32_t n, int32_t limit)
{
    uint32_t stride = (uint32_t)between(1, 4);
    int32_t scores[MOST], out[MOST], frac = between(0, 20), max = INT32_MIN, least = INT32_MAX;
    int8_t fracs[4u * MOST];
    fill(scores, n, limit);
    int32_t low = between(0, 1) ? between(-6, 18) : 0, high = between(0, 3) ? 20 : 60;
    for (uint32_t i = 0; i < n * stride; i++) {
        fracs[i] = (int8_t)between(low, high);
    }
    int8_t *own = copy(fracs, (n - 1u) * stride + 1u);
    int32_t *a = copy(scores, 4u * n), got = ehmn_fit_scores(own, stride, n, frac, 8, a);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_round_shift(scores[i], frac + fracs[i * stride] - 8);
        max = out[i] > max ? out[i] : max;
        least = fracs[i * stride] < least ? fracs[i * stride] : least;
    }
    same("ehmn_fit_scores", n, out, a, 4);
    same("its maximum", 1, &max, copy(&got, 4), 4);
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = between(0, 1 << 15);
        out[i] = ehmn_round_shift(scores[i], fracs[i * stride] - least);
    }
    a = copy(scores, 4u * n);
    got = ehmn_align_weights(own, stride, n, a);
    same("ehmn_align_weights", n, out, a, 4);
    same("its fractional bits", 1, &least, copy(&got, 4), 4);
#if defined(EHMN_VALUES_BY_COLUMN)
    int16_t minus[MOST];
    for (uint32_t i = 0; i < n; i++) {
        minus[i] = (int16_t)-out[i];
    }
    a = copy(out, 4u * n);
    (void)ehmn_negate16(a, n);
    same("ehmn_negate16", n, minus, a, 2);
#endif
    free(own);
}

void compare_vectors(void)
{
    for (uint32_t n = 1; n <= MOST; n++) {
        for (uint32_t k = 0; k < sizeof limits / sizeof limits[0]; k++) {
            sums(n, limits[k]);
            compare_plastic(n, limits[k]);
            reductions(n, limits[k]);
            passing(n, limits[k] < INT16_MAX ? limits[k] : INT16_MAX);
            attention(n, limits[k] < 1 << 30 ? limits[k] : 1 << 30); /* no score is larger */
        }
    }
}
