/* Loops that learning alone has against their definition, one value at a time. compare_vectors.c calls this. */
#include "compare_vectors.h"
#include "fixed.h"
#include "kernels_tables.h"
#include "random.h"
#include "vectors_neon.h"

#include <stdlib.h>

static void plastic(uint32_t n, int32_t limit)
{
    int32_t v[MOST], out[MOST], most = between(0, 1 << 21);
    int8_t w[MOST];
    int16_t z[MOST];
    int64_t sums[3] = {0}, got[3];
    uint64_t length = 0, all;
    fill(v, n, limit);
    for (uint32_t i = 0; i < n; i++) {
        w[i] = (int8_t)between(-127, 127);
        z[i] = (int16_t)(between(0, 3) ? between(-32767, 32767) : between(-200, 200));
        sums[0] += v[i];
        sums[1] += (int64_t)w[i] * v[i];
        sums[2] += (int64_t)z[i] * v[i];
        out[i] = ehmn_round_shift((int64_t)v[i] * (32768 - (z[i] * z[i] >> 15)), 15);
    }
    int32_t *a = copy(v, 4u * n);
    int8_t *bytes = copy(w, n);
    int16_t *outputs = copy(z, 2u * n);
    uint32_t bits[(MOST + 31u) / 32u] = {0}, *signs = malloc(sizeof *signs * ((n + 31u) / 32u));
    for (uint32_t i = 0; i < n; i++) {
        bits[i / 32u] |= (uint32_t)(v[i] > 0) << i % 32u;
    }
    ehmn_signs(a, n, signs);
    same("ehmn_signs", (n + 31u) / 32u, bits, signs, 4);
    got[0] = ehmn_sum(a, n);
    got[1] = ehmn_dot_weights(bytes, a, n);
    got[2] = ehmn_dot_outputs(outputs, a, n);
    same("ehmn_sum, ehmn_dot_weights or ehmn_dot_outputs", 3, sums, copy(got, sizeof got), 8);
    int32_t rate = between(0, 1) ? between(0, 1 << 25) : between(-99, 99), shift = between(-20, 34);
    int32_t down = between(1, 62);
    int32_t *room = malloc(4u * n);
    int64_t products = 0, made_sum = ehmn_sum_products(a, out, n, down, ehmn_kernels_rows.scale, room);
    free(room);
    for (uint32_t i = 0; i < n; i++) {
        products += ehmn_mul(v[i], out[i], down);
    }
    same("ehmn_sum_products", 1, &products, copy(&made_sum, 8), 8);
    int32_t within[MOST], *made = copy(out, 4u * n);
    uint64_t sum = 0, magnitudes = ehmn_scale_within(made, n, rate, shift, most / 2);
    for (uint32_t i = 0; i < n; i++) {
        within[i] = ehmn_clamp(ehmn_mul(out[i], rate, shift), -(most / 2), most / 2);
        sum += ehmn_abs(within[i]);
    }
    same("ehmn_scale_within", n, within, made, 4);
    same("its sum", 1, &sum, copy(&magnitudes, 8), 8);
    ehmn_times_slope(a, outputs, n, a);
    same("ehmn_times_slope", n, out, a, 4);
    free(bytes);
    free(outputs);
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_clamp(v[i], -most, most);
        length += ehmn_abs(out[i]);
    }
    a = copy(v, 4u * n);
    all = ehmn_limit(a, n, most);
    same("the sum of ehmn_limit", 1, &length, copy(&all, 8), 8);
    same("ehmn_limit", n, out, a, 4);
}

static void random_words(void)
{
    uint64_t seed = (uint64_t)(uint32_t)between(INT32_MIN, INT32_MAX) << 32 | (uint32_t)between(INT32_MIN, INT32_MAX);
    uint64_t counter = between(0, 1) ? seed * 5u : (uint64_t)between(0, 99);
    uint32_t stream = (uint32_t)between(0, 99), firsts[4], random[4];
    ehmn_random_firsts(seed, stream, counter, firsts);
    for (uint32_t k = 0; k < 4u; k++) {
        ehmn_random(seed, stream + k, counter, random);
        same("ehmn_random_firsts", 1, random, copy(firsts + k, 4), 4);
    }
}

/* What a row of weights becomes on a line of which *passed has gone by, by the definition; returns its steps. */
static uint32_t step_slowly(int8_t *w, const ehmn_direction *along, int32_t rate, uint32_t *passed)
{
    uint64_t place = *passed, magnitude = ehmn_abs(rate);
    uint32_t before = 0, from = 0;
    for (uint32_t j = 0; j < along->n; j++) {
        place += magnitude * (along->edge[j] - from);
        from = along->edge[j];
        int32_t steps = (int32_t)((uint32_t)(place >> EHMN_EVENT_FRAC) - before);
        before += (uint32_t)steps;
        w[j] = (int8_t)ehmn_clamp(w[j] + ((along->sign[j] < 0) != (rate < 0) ? -steps : steps), -127, 127);
    }
    *passed = (uint32_t)place & ((1u << EHMN_EVENT_FRAC) - 1u);
    return before;
}

/* Steps of rows of weights, few of one or all of several. */
static void drawing(uint32_t n)
{
    static int8_t w[MOST * MOST];
    int8_t v[MOST], sign[MOST];
    int32_t rates[MOST];
    uint32_t edge[MOST], passed = (uint32_t)between(0, (1 << EHMN_EVENT_FRAC) - 1), from = passed, writes = 0,
             length = 0;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = (int8_t)(between(0, 3) ? between(-127, 127) : 0);
        length += ehmn_abs(v[i]);
        rates[i] = between(0, 2) ? 0 : between(0, 1) ? between(-(1 << 20), 1 << 20) : between(-9999, 9999);
    }
    for (uint32_t i = 0; i < n * n; i++) {
        w[i] = (int8_t)between(-127, 127);
    }
    ehmn_running_sums(v, n, edge, sign);
    int8_t *bytes = copy(v, n), *own = copy(w, n * n);
    uint32_t found = ehmn_length(bytes, n);
    same("ehmn_length", 1, &length, copy(&found, 4), 4);
    free(bytes);
    uint32_t few = (uint32_t)between(0, 9), least = between(0, 1) ? (uint32_t)between(0, 20000) : 0u;
    ehmn_direction along = {copy(edge, 4u * n), copy(sign, n), n, length, few, ehmn_kernels_rows.step_row};
    for (uint32_t r = 0; r < n; r++) {
        if (ehmn_abs(rates[r]) < least) {
            continue;
        }
        int8_t *row = copy(w + r * n, n);
        uint32_t before = from, steps = step_slowly(w + r * n, &along, rates[r], &from);
        writes += steps;
        if (steps <= along.few) {
            ehmn_step_few(row, &along, rates[r], before, steps);
            same("ehmn_step_few", n, w + r * n, row, 1);
        } else {
            free(row);
        }
    }
    int32_t *of_rows = copy(rates, 4u * n);
    found = ehmn_draw_rows(own, &along, of_rows, least, &passed);
    same("the steps of rows", n * n, w, own, 1);
    same("their number", 1, &writes, copy(&found, 4), 4);
    same("what has passed", 1, &from, copy(&passed, 4), 4);
    free(of_rows);
    free(along.edge);
    free(along.sign);
}

#if defined(EHMN_NEON)
/* Sums of what rows of weights give, each rounded; of rows that cannot be added so, none. */
static void summing(uint32_t n)
{
    int8_t w[MOST], *own[9];
    ehmn_row rows[9];
    int32_t out[MOST] = {0}, shift = between(8, 33);
    uint32_t count = 0;
    for (uint32_t tries = (uint32_t)between(1, 9); tries > 0; tries--) {
        int32_t factor = between(-64, 64);
        int32_t scale = between(0, 1) ? between(0, INT32_MAX) >> between(0, 9) : between(0, 99);
        if ((13 + 31 - shift) > 26 + __builtin_clz((uint32_t)scale | 1u)) { /* nine might leave 31 bits */
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            w[i] = (int8_t)between(-127, 127);
        }
        own[count] = copy(w, n);
        if (!ehmn_neon_make_row(rows + count, own[count], factor, scale, shift)) {
            free(own[count]);
            continue;
        }
        count++;
        for (uint32_t i = 0; i < n; i++) {
            out[i] += ehmn_mul(w[i] * factor, scale, shift);
        }
    }
    int32_t *a = copy(out, 4u * n);
    ehmn_neon_sum_rows(a, n, rows, count);
    same("ehmn_neon_sum_rows", n, out, a, 4);
    for (uint32_t k = 0; k < count; k++) {
        free(own[k]);
    }
}
#endif

/* A row less others, some of them the same. */
static void differing(uint32_t n)
{
    int8_t w[5][MOST];
    int32_t scales[5], out[MOST] = {0}, shift = between(0, 9) ? between(8, 33) : between(-2, 62);
    uint32_t drawn[8], many = 1u << between(0, 3), token = (uint32_t)between(0, 4), count = 0;
    for (uint32_t r = 0; r < 5u; r++) {
        scales[r] = between(0, 1) ? between(0, INT32_MAX) >> between(0, 20) : between(0, 99);
    }
    for (uint32_t i = 0; i < 5u * n; i++) {
        w[i / n][i % n] = (int8_t)between(-127, 127);
    }
    for (uint32_t row = (uint32_t)between(0, 2), left = many; left > 0; row++) {
        uint32_t times = row < 4u ? (uint32_t)between(1, (int32_t)left) : left;
        drawn[count++] = row + times * EHMN_DRAWN_ONCE;
        left -= times;
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_mul(w[token][i] * (int32_t)many, scales[token], shift);
        for (uint32_t s = 0; s < count; s++) {
            uint32_t row = ehmn_drawn_token(drawn[s]);
            out[i] = ehmn_add(out[i], ehmn_mul(w[row][i] * -ehmn_drawn_times(drawn[s]), scales[row], shift));
        }
    }
    int8_t *weights = malloc(5u * n);
    for (uint32_t i = 0; i < 5u * n; i++) {
        weights[i] = w[i / n][i % n];
    }
    ehmn_rows of = {weights, scales, n, shift, NULL};
    int32_t *v = malloc(4u * n);
    ehmn_sum_rows(v, &of, token, many, drawn, count);
    same("ehmn_sum_rows", n, out, v, 4);
    free(weights);
}

void compare_plastic(uint32_t n, int32_t limit)
{
    plastic(n, limit);
    random_words();
    drawing(n);
    differing(n);
#if defined(EHMN_NEON)
    summing(n);
#endif
}
