/* Reference kernels: the definition. Never optimised by hand. */
#include "fixed.h"
#include "kernels.h"

#include <stddef.h>

static void matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; c++) {
            sum += w[c] * x[c];
        }
        acc[r] = sum;
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; c++) {
            sum += w[c] * x[c];
        }
        acc[r] = sum;
    }
}

static void matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t c = 0; c < cols; c++) {
            int32_t half = w[c / 2u] >> 4u * (c % 2u) & 15;
            sum += (half < 8 ? half : half - 16) * x[c];
        }
        acc[r] = sum;
    }
}

static void weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int32_t *weight,
                         int32_t *acc)
{
    for (uint32_t c = 0; c < cols; c++) {
        acc[c] = 0;
    }
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        for (uint32_t c = 0; c < cols; c++) {
            acc[c] += weight[r] * w[c];
        }
    }
}

static void scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_mul(v[i], factor[i], shift);
    }
}

static void step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n, uint32_t rate,
                     uint32_t at)
{
    uint32_t before = 0;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t steps = (int32_t)((now - before) & 255u);
        w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -steps : steps), -127, 127);
        before = now;
    }
}

static uint32_t exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += ehmn_exp2_neg((uint32_t)(max - logits[i]));
    }
    return sum;
}

static uint32_t soften(int32_t *scores, uint32_t n, int32_t max)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t weight = (ehmn_exp2_neg((uint32_t)max - (uint32_t)scores[i]) + 256u) >> 9;
        sum += weight;
        scores[i] = (int32_t)weight;
    }
    return sum;
}

static void gate(const int32_t *v, int32_t *up, uint32_t n, int32_t frac)
{
    for (uint32_t i = 0; i < n; i++) {
        int32_t open = (int32_t)ehmn_sigmoid(ehmn_round_shift(v[i], frac - 16));
        up[i] = ehmn_mul(ehmn_mul(v[i], open, 16), up[i], frac);
    }
}

static int32_t fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max, int16_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = ehmn_sat16(bias != NULL ? ehmn_add(v[i], ehmn_mul(bias[i], gain, 20)) : v[i]);
        max = out[i] > max ? out[i] : max;
    }
    return max;
}

static void nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t differ = 0;
        for (uint32_t b = 0; b < 32u * words; b++) {
            differ += (keys[i * words + b / 32u] ^ key[b / 32u]) >> (b % 32u) & 1u;
        }
        uint32_t next = differ << 16 | i;
        for (uint32_t k = 0; k < EHMN_RECALLED; k++) {
            uint32_t here = found[k];
            found[k] = here < next ? here : next;
            next = here < next ? next : here;
        }
    }
}

const ehmn_kernels ehmn_kernels_ref = {
    .name = "ref",
    .matvec_s8 = matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = matvec_s4,
    .weighted_sum = weighted_sum,
    .scale = scale,
    .step_row = step_row,
    .few_steps = 8u,
    .exp_sum = exp_sum,
    .soften = soften,
    .gate = gate,
    .fit = fit,
    .nearest = nearest,
};
