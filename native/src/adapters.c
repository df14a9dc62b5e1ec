/* The adapters, forward: dense ones read the standardised output of the final norm, the others a row that the
 * context chooses. SPEC.md, "Learning", Forward. */
#include "model.h"

#include <string.h>

/* Centre, scale and normalise the final norm's output: Q20. */
static void standardise(ehmn_model *m, const int32_t *v, int32_t *x)
{
    const ehmn_image *im = m->image;
    const int32_t *mean = ehmn_vector_data(m, EHMN_VECTOR_MEAN);
    const int32_t *inverse = ehmn_vector_data(m, EHMN_VECTOR_INVERSE_DEVIATION);
    int32_t shift = m->vectors[EHMN_VECTOR_INVERSE_DEVIATION].shift;
    ehmn_subtract_all(v, mean, im->d_model, x);
    m->kernels->scale(x, inverse, im->d_model, shift, x);
    ehmn_rms_normalise(x, im->d_model, im->value_frac, 0, 0, x);
}

/* z[d_model] = tanh(W input), Q15. `pre`: room for d_model values. */
static void dense_forward(ehmn_model *m, uint32_t layer, const int8_t *input, int32_t frac, int32_t *pre, int16_t *z)
{
    uint32_t d = m->image->d_model;
    const int8_t *w = (const int8_t *)ehmn_in_delta(m, m->in.dense) + (size_t)layer * d * d;
    m->kernels->matvec_s8(w, d, d, d, input, pre);
    m->counts.macs += (uint64_t)d * d;
    ehmn_tanh_all(pre, d, m->image->rule.weight_frac + frac - 16, z);
}

/* out = scale v + P sum */
static void combine(ehmn_model *m, const int32_t *sum, const int32_t *v, int32_t *scratch, int32_t *out)
{
    const ehmn_image *im = m->image;
    ehmn_matvec(m, m->matrices + ehmn_preconditioner_index(im), sum, 16, im->value_frac, scratch);
    ehmn_scale_all(v, im->d_model, ehmn_model_gains(m)->scale, 16, out);
    ehmn_add_all(out, scratch, im->d_model);
}

/* Add the row of adapter `k` (by k + 1 previous tokens) to sum[d_model] at Q16, and keep which it was. */
static void read_row(ehmn_model *m, uint32_t k, const uint32_t *hash, int32_t *sum)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t d = m->image->d_model;
    m->row[k] = 0;
    if (rule->row_slots[k] == 0 || m->n_history <= k) {
        return;
    }
    uint32_t row = ehmn_slot(hash[k], rule->row_slots[k]) + (k == 0 ? 0u : rule->row_slots[0]);
    const int8_t *r = (const int8_t *)ehmn_in_delta(m, m->in.rows) + (size_t)row * d;
    ehmn_add_weights_within(sum, r, d, 1, ehmn_model_gains(m)->row[k], rule->row_frac); /* no gain exceeds 2^20 */
    m->row[k] = row + 1u;
    m->counts.macs += d;
}

void ehmn_adapt(ehmn_model *m, int32_t *out)
{
    const ehmn_image *im = m->image;
    uint32_t d = im->d_model;
    const int32_t *v = ehmn_at(m, m->at.plain);
    int32_t *x = ehmn_at(m, m->at.standard);
    int32_t *sum = ehmn_at(m, m->at.mixed);
    int32_t *scratch = ehmn_at(m, m->at.error);

    standardise(m, v, x);
    memset(sum, 0, 4u * (size_t)d);
    for (uint32_t layer = 0; layer < im->n_dense; layer++) {
        int32_t *trace = (int32_t *)ehmn_in_delta(m, m->in.trace) + layer * d;
        int8_t *input = (int8_t *)ehmn_at(m, m->at.inputs) + layer * d;
        int16_t *z = (int16_t *)ehmn_at(m, m->at.outputs) + layer * d;
        ehmn_follow_all(trace, x, d, 65536 - im->rule.rho_trace[layer]);
        m->input_fracs[layer] = ehmn_quantise8(trace, d, EHMN_NORM_FRAC, input);
        dense_forward(m, layer, input, m->input_fracs[layer], scratch, z);
        ehmn_add_outputs(sum, z, d, ehmn_model_gains(m)->dense[layer]);
    }
    uint32_t hash[EHMN_ROW_ADAPTERS];
    ehmn_contexts(m, EHMN_ROW_ADAPTERS, hash);
    for (uint32_t k = 0; k < EHMN_ROW_ADAPTERS; k++) {
        read_row(m, k, hash, sum);
    }
    combine(m, sum, v, scratch, out);
}

void ehmn_adapt_guard(ehmn_model *m, int32_t *v)
{
    const ehmn_image *im = m->image;
    uint32_t d = im->d_model;
    int32_t *x = ehmn_at(m, m->at.wide); /* of at least d_model values */
    int32_t *sum = ehmn_at(m, m->at.mixed);
    int32_t *scratch = ehmn_at(m, m->at.cumulative);
    int16_t *z = ehmn_at(m, m->at.error);
    int8_t *input = ehmn_at(m, m->at.presynaptic);

    standardise(m, v, x);
    memset(sum, 0, 4u * (size_t)d);
    int32_t frac = ehmn_quantise8(x, d, EHMN_NORM_FRAC, input);
    for (uint32_t layer = 0; layer < im->n_dense; layer++) {
        dense_forward(m, layer, input, frac, scratch, z);
        ehmn_add_outputs(sum, z, d, ehmn_model_gains(m)->dense[layer]);
    }
    combine(m, sum, v, scratch, v);
}
