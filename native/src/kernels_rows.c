/* Plain C, laid out for a processor that loads bytes one by one: four rows share each input. For M0+, M3, RISC-V and
 * whatever has no table of its own. */
#include "fixed.h"
#include "kernels_tables.h"

#include <stddef.h>

void ehmn_kernels_rows_matvec_s8(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int8_t *x,
                      int32_t *acc)
{
    uint32_t r = 0;
    for (; r + 4u <= rows; r += 4u, w += 4u * stride) {
        const int8_t *a = w, *b = w + stride, *c = b + stride, *d = c + stride;
        const int8_t *in = x;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (const int8_t *end = w + cols; a < end;) {
            int32_t v = *in++;
            s0 += *a++ * v;
            s1 += *b++ * v;
            s2 += *c++ * v;
            s3 += *d++ * v;
        }
        acc[r] = s0;
        acc[r + 1u] = s1;
        acc[r + 2u] = s2;
        acc[r + 3u] = s3;
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = 0;
        for (uint32_t c = 0; c < cols; c++) {
            acc[r] += w[c] * x[c];
        }
    }
}

static void matvec_s16(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                       int32_t *acc)
{
    uint32_t r = 0;
    for (; r + 4u <= rows; r += 4u, w += 4u * stride) {
        const int8_t *a = w, *b = w + stride, *c = b + stride, *d = c + stride;
        const int16_t *in = x;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (const int8_t *end = w + cols; a < end;) {
            int32_t v = *in++;
            s0 += *a++ * v;
            s1 += *b++ * v;
            s2 += *c++ * v;
            s3 += *d++ * v;
        }
        acc[r] = s0;
        acc[r + 1u] = s1;
        acc[r + 2u] = s2;
        acc[r + 3u] = s3;
    }
    for (; r < rows; r++, w += stride) {
        acc[r] = 0;
        for (uint32_t c = 0; c < cols; c++) {
            acc[r] += w[c] * x[c];
        }
    }
}

void ehmn_kernels_rows_matvec_s4(const uint8_t *w, uint32_t rows, uint32_t cols, uint32_t stride, const int16_t *x,
                      int32_t *acc)
{
    for (uint32_t r = 0; r < rows; r++, w += stride) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < cols / 2u; i++) {
            sum += ((int32_t)((uint32_t)w[i] << 28) >> 28) * x[2u * i] + ((int8_t)w[i] >> 4) * x[2u * i + 1u];
        }
        if (cols % 2u) {
            sum += ((int32_t)((uint32_t)w[cols / 2u] << 28) >> 28) * x[cols - 1u];
        }
        acc[r] = sum;
    }
}

void ehmn_kernels_rows_weighted_sum(const int8_t *w, uint32_t rows, uint32_t cols, uint32_t stride,
                                    const int32_t *weight, int32_t *acc)
{
    uint32_t c = 0;
    for (; c + 4u <= cols; c += 4u) {
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        const int8_t *at = w + c;
        for (uint32_t r = 0; r < rows; r++, at += stride) {
            int32_t v = weight[r];
            s0 += at[0] * v;
            s1 += at[1] * v;
            s2 += at[2] * v;
            s3 += at[3] * v;
        }
        acc[c] = s0;
        acc[c + 1u] = s1;
        acc[c + 2u] = s2;
        acc[c + 3u] = s3;
    }
    for (; c < cols; c++) {
        acc[c] = 0;
        for (uint32_t r = 0; r < rows; r++) {
            acc[c] += weight[r] * w[r * stride + c];
        }
    }
}

/* The usual shifts, above 32, need the upper halves of the products alone, and no result leaves 32 bits: a product
 * is at most 2^62. */
void ehmn_kernels_rows_scale(const int32_t *v, const int32_t *factor, uint32_t n, int32_t shift, int32_t *out)
{
    if (shift > 0 && shift < 33) {
        int64_t half = (int64_t)1 << (shift - 1);
        for (uint32_t i = 0; i < n; i++) {
            out[i] = ehmn_sat32(((int64_t)v[i] * factor[i] + half) >> shift);
        }
        return;
    }
    if (shift < 1 || shift > 62) {
        for (uint32_t i = 0; i < n; i++) {
            out[i] = ehmn_round_rarely((int64_t)v[i] * factor[i], shift);
        }
        return;
    }
    int32_t half = (int32_t)(1u << (shift - 33));
    for (uint32_t i = 0; i < n; i++) {
        int32_t high = (int32_t)(((int64_t)v[i] * factor[i]) >> 32);
        out[i] = (high + half) >> (shift - 32);
    }
}

void ehmn_kernels_rows_step_row(int8_t *w, const uint32_t *edge, const int8_t *sign, int32_t flip, uint32_t n,
                                uint32_t rate, uint32_t at)
{
    uint32_t before = 0;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t now = (at + rate * edge[j]) >> 24;
        int32_t steps = (int32_t)((now - before) & 255u);
        before = now;
        if (steps != 0) {
            w[j] = (int8_t)ehmn_clamp(w[j] + ((sign[j] ^ flip) < 0 ? -steps : steps), -127, 127);
        }
    }
}

uint32_t ehmn_kernels_rows_exp_sum(const int16_t *logits, uint32_t n, int32_t max)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += ehmn_exp2_neg((uint32_t)(max - logits[i]));
    }
    return sum;
}

uint32_t ehmn_kernels_rows_soften(int32_t *scores, uint32_t n, int32_t max)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t weight = (ehmn_exp2_neg((uint32_t)max - (uint32_t)scores[i]) + 256u) >> 9;
        sum += weight;
        scores[i] = (int32_t)weight;
    }
    return sum;
}

void ehmn_kernels_rows_gate(const int32_t *v, int32_t *up, uint32_t n, int32_t frac)
{
    int64_t half = (int64_t)1 << (frac - 1);
    for (uint32_t i = 0; i < n; i++) {
        int32_t open = (int32_t)ehmn_sigmoid(ehmn_round_shift(v[i], frac - 16));
        int32_t opened = ehmn_round_fit((int64_t)v[i] * open, 16); /* open is at most one */
        up[i] = ehmn_sat32(((int64_t)opened * up[i] + half) >> frac);
    }
}

/* v[i] comes first within 2^25, which is beyond all that can matter, so that no sum overflows. */
int32_t ehmn_kernels_rows_fit(const int32_t *v, const int16_t *bias, int32_t gain, uint32_t n, int32_t max,
                              int16_t *out)
{
    if (bias == NULL) {
        for (uint32_t i = 0; i < n; i++) {
            int32_t logit = ehmn_clamp(v[i], -INT16_MAX, INT16_MAX);
            max = logit > max ? logit : max;
            out[i] = (int16_t)logit;
        }
        return max;
    }
    for (uint32_t i = 0; i < n; i++) {
        int32_t added = (int32_t)(((int64_t)(bias[i] * 8192) * gain) >> 32); /* with one bit more */
        int32_t logit = ehmn_clamp(v[i], -(1 << 25), 1 << 25) + ((added + 1) >> 1);
        logit = ehmn_clamp(logit, -INT16_MAX, INT16_MAX);
        max = logit > max ? logit : max;
        out[i] = (int16_t)logit;
    }
    return max;
}

/* Counts of pairs of bits, then of fours, then of eights; up to where a key is too far. Assembly goes on here, which
 * optimisation of the whole program does not see. */
__attribute__((used)) void
ehmn_kernels_rows_nearest(const uint32_t *keys, uint32_t n, const uint32_t *key, uint32_t words, uint32_t *found)
{
    for (uint32_t i = 0; i < n; i++, keys += words) {
        uint32_t sum = 0, limit = found[EHMN_RECALLED - 1u] >> 16;
        for (uint32_t w = 0; w < words && sum < limit; w++) {
            uint32_t v = keys[w] ^ key[w];
            v -= v >> 1 & 0x55555555u;
            v = (v & 0x33333333u) + (v >> 2 & 0x33333333u);
            sum += ((v + (v >> 4)) & 0x0F0F0F0Fu) * 0x01010101u >> 24;
        }
        if (sum < limit) {
            ehmn_insert(found, sum << 16 | i);
        }
    }
}

const ehmn_kernels ehmn_kernels_rows = {
    .name = "rows",
    .matvec_s8 = ehmn_kernels_rows_matvec_s8,
    .matvec_s16 = matvec_s16,
    .matvec_s4 = ehmn_kernels_rows_matvec_s4,
    .weighted_sum = ehmn_kernels_rows_weighted_sum,
    .scale = ehmn_kernels_rows_scale,
    .step_row = ehmn_kernels_rows_step_row,
    .few_steps = 8u,
    .exp_sum = ehmn_kernels_rows_exp_sum,
    .soften = ehmn_kernels_rows_soften,
    .gate = ehmn_kernels_rows_gate,
    .fit = ehmn_kernels_rows_fit,
    .nearest = ehmn_kernels_rows_nearest,
};
