/* The adapters and the rule that teaches them. SPEC.md, "Learning"; edgehmn/plasticity.py is its float meaning.
 *
 * The change of all weights of an adapter is one outer product. It is made of single steps of one LSB, drawn by
 * systematic sampling: the expected numbers of steps of all weights, laid end to end row by row, form a line; a
 * step falls on every point u, u + 1, u + 2, ... of it. The mean over u is exact, one random number serves a
 * whole adapter, and the work grows with the steps that are made, not with the weights that are not. */
#include "fixed.h"
#include "model.h"
#include "random.h"

#define EVENT_FRAC 24                                     /* fractional bits of an expected number of steps */
#define MAX_ROW_RATE (1 << 20)                            /* at most 8 steps of one weight in one token */
#define ERROR_FRAC 20
#define TOPIC_FAST 3277 /* Q16 of 0.05 */
#define TOPIC_SLOW 131  /* Q16 of 0.002 */
#define PI_Q13 25736

static int32_t *delta_array(const ehmn_model *m, uint32_t offset)
{
    return (int32_t *)ehmn_at(m, m->at.delta + offset);
}

/* mean += (value - mean) * rate, rate in Q16. */
static int32_t follow(int32_t mean, int32_t value, int32_t rate)
{
    int64_t difference = ehmn_sat32((int64_t)value - mean);
    return ehmn_add(mean, ehmn_round_shift(difference * rate, 16));
}

/* Centre, scale and normalise the final norm's output: the input of all adapters, Q20. */
static void standardise(ehmn_model *m, const int32_t *v, int32_t *x)
{
    const ehmn_image *im = m->image;
    const int32_t *mean = ehmn_vector_data(m, EHMN_VECTOR_MEAN);
    const int32_t *inverse = ehmn_vector_data(m, EHMN_VECTOR_INVERSE_DEVIATION);
    int32_t shift = m->vectors[EHMN_VECTOR_INVERSE_DEVIATION].shift;
    for (uint32_t i = 0; i < im->d_model; i++) {
        x[i] = ehmn_mul(ehmn_sat32((int64_t)v[i] - mean[i]), inverse[i], shift);
    }
    ehmn_rms_normalise(x, im->d_model, im->value_frac, 0, 0, x);
}

void ehmn_adapt(ehmn_model *m, int32_t *v)
{
    const ehmn_image *im = m->image;
    const ehmn_rule *rule = &im->rule;
    uint32_t d = im->d_model;
    ehmn_delta_layout in_delta = ehmn_layout_delta(im);
    int32_t *x = ehmn_at(m, m->at.standard);
    int32_t *sum = ehmn_at(m, m->at.mixed);
    int32_t *pre = ehmn_at(m, m->at.error);

    standardise(m, v, x);
    for (uint32_t i = 0; i < d; i++) {
        sum[i] = 0;
    }
    for (uint32_t layer = 0; layer < im->n_adapters; layer++) {
        const int8_t *w = (const int8_t *)ehmn_at(m, m->at.delta + in_delta.weights) + (size_t)layer * d * d;
        int32_t *trace = delta_array(m, in_delta.trace) + layer * d;
        int8_t *input = (int8_t *)ehmn_at(m, m->at.inputs) + layer * d;
        int16_t *z = (int16_t *)ehmn_at(m, m->at.outputs) + layer * d;
        for (uint32_t i = 0; i < d; i++) {
            trace[i] = follow(trace[i], x[i], 65536 - rule->rho_trace[layer]);
        }
        m->input_fracs[layer] = ehmn_quantise8(trace, d, EHMN_NORM_FRAC, input);
        m->kernels->matvec_s8(w, d, d, d, input, pre);
        m->counts.macs += (uint64_t)d * d;
        for (uint32_t i = 0; i < d; i++) {
            z[i] = (int16_t)ehmn_tanh(ehmn_round_shift(pre[i], rule->weight_frac + m->input_fracs[layer] - 16));
            sum[i] = ehmn_add(sum[i], ehmn_mul(z[i], ehmn_model_delta(m)->gain[layer], 15));
        }
    }
    ehmn_matvec(m, m->matrices + ehmn_preconditioner_index(im), sum, 16, im->value_frac, pre);
    for (uint32_t i = 0; i < d; i++) {
        v[i] = ehmn_add(v[i], pre[i]);
    }
}

/* error = P (E[token] - mean of E over tokens drawn from the prediction), ERROR_FRAC. */
static void output_error(ehmn_model *m, uint32_t token, int32_t *error)
{
    const ehmn_image *im = m->image;
    const ehmn_matrix *head = m->matrices + ehmn_head_index(im);
    uint32_t n = im->rule.n_negatives;
    int32_t log_n = ehmn_bit_length(n) - 1;
    uint32_t negative[EHMN_MAX_NEGATIVES];
    uint32_t random[4];
    int32_t *delta = ehmn_at(m, m->at.mixed);

    ehmn_random(ehmn_model_delta(m)->seed, EHMN_STREAM_NEGATIVES, ehmn_model_delta(m)->learned, random);
    ehmn_quantile_tokens(m, n, random[0] >> 16, negative);
    for (uint32_t i = 0; i < im->d_model; i++) {
        delta[i] = 0;
    }
    ehmn_add_row(m, head, token, (int32_t)n, im->value_frac, delta);
    for (uint32_t s = 0; s < n;) { /* equal tokens stand next to each other */
        uint32_t same = 1;
        while (s + same < n && negative[s + same] == negative[s]) {
            same++;
        }
        ehmn_add_row(m, head, negative[s], -(int32_t)same, im->value_frac, delta);
        s += same;
    }
    ehmn_matvec(m, m->matrices + ehmn_preconditioner_index(im), delta, im->value_frac + log_n, ERROR_FRAC, error);
}

/* How far `value` (bits, Q16) lies from its running mean, in standard deviations within +-2, Q16. */
static int32_t standard_score(ehmn_average *a, int32_t value, int32_t rate)
{
    if (!a->started) {
        a->mean = value;
        a->started = 1;
    }
    int32_t difference = ehmn_sat32((int64_t)value - a->mean);
    int64_t deviation = ehmn_isqrt((uint64_t)(uint32_t)a->variance << 16) + (int64_t)1;
    int64_t score = ehmn_div_round((int64_t)difference * 65536, deviation);
    a->mean = follow(a->mean, value, rate);
    difference = ehmn_sat32((int64_t)value - a->mean);
    a->variance = follow(a->variance, ehmn_mul(difference, difference, 16), rate);
    return (int32_t)(score > 131072 ? 131072 : score < -131072 ? -131072 : score);
}

/* Squared distance between the fast and the slow mean of the input, per unit, Q16. */
static int32_t topic_shift(ehmn_model *m)
{
    uint32_t d = m->image->d_model;
    const int32_t *x = ehmn_at(m, m->at.standard);
    int32_t *fast = delta_array(m, ehmn_layout_delta(m->image).topic);
    int32_t *slow = fast + d;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < d; i++) {
        fast[i] = follow(fast[i], x[i], TOPIC_FAST);
        slow[i] = follow(slow[i], x[i], TOPIC_SLOW);
        uint32_t apart = ehmn_abs(ehmn_round_shift((int64_t)fast[i] - slow[i], 4));
        sum += (uint64_t)apart * apart >> 16;
    }
    return ehmn_sat32((int64_t)(sum / d));
}

/* eta_local + eta_global G', at least zero, Q24. */
static int32_t learning_rate(ehmn_model *m, uint32_t token)
{
    const ehmn_rule *rule = &m->image->rule;
    ehmn_delta *delta = ehmn_model_delta(m);
    int32_t rate = 65536 - rule->rho_average;
    uint32_t surprise = 0;
    int64_t g = 0; /* Q32 */
    if (rule->eta_global == 0) {
        return rule->eta_local;
    }
    (void)ehmn_score(m, token, &surprise);
    g += (int64_t)rule->w_reward * standard_score(&delta->reward, (int32_t)surprise, rate);
    if (rule->w_uncertainty != 0) {
        g += (int64_t)rule->w_uncertainty * standard_score(&delta->uncertainty, (int32_t)m->entropy, rate);
    }
    if (rule->w_novelty != 0) {
        g += (int64_t)rule->w_novelty * standard_score(&delta->novelty, topic_shift(m), rate);
    }
    int32_t eta = ehmn_add(rule->eta_local, ehmn_mul(rule->eta_global, ehmn_round_shift(g, 16), 16));
    return eta > 0 ? eta : 0;
}

/* The vector that stands for the inputs in the update: alpha (psi_fast + kappa psi_slow), as int8. Returns its
 * fractional bits. With both symbols off it is the adapter's input itself. */
static int32_t presynaptic(ehmn_model *m, uint32_t layer, const int8_t **pre)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t d = m->image->d_model;
    ehmn_delta_layout in_delta = ehmn_layout_delta(m->image);
    const int32_t *trace = delta_array(m, in_delta.trace) + layer * d;
    int32_t *slow = delta_array(m, in_delta.slow) + layer * d;
    int32_t *context = delta_array(m, in_delta.context) + layer * d;
    int32_t *wide = ehmn_at(m, m->at.mixed);
    uint32_t *alpha = ehmn_at(m, m->at.cumulative);
    int32_t max = -INT32_MAX;
    uint64_t total = 0;

    if (rule->kappa == 0 && rule->beta_attention == 0) {
        *pre = (const int8_t *)ehmn_at(m, m->at.inputs) + layer * d;
        return m->input_fracs[layer];
    }
    *pre = ehmn_at(m, m->at.presynaptic);
    for (uint32_t i = 0; i < d; i++) {
        slow[i] = follow(slow[i], trace[i], 65536 - rule->rho_slow);
        context[i] = follow(context[i], trace[i], 65536 - rule->rho_context);
        wide[i] = ehmn_add(trace[i], ehmn_mul(slow[i], rule->kappa, 16));
        int32_t match = ehmn_mul(trace[i], context[i], EHMN_NORM_FRAC);
        alpha[i] = (uint32_t)ehmn_mul(match, rule->beta_attention, EHMN_NORM_FRAC + 16 - EHMN_LOGIT_FRAC);
        max = (int32_t)alpha[i] > max ? (int32_t)alpha[i] : max;
    }
    for (uint32_t i = 0; i < d; i++) {
        alpha[i] = ehmn_exp2_neg((uint32_t)max - alpha[i]);
        total += alpha[i];
    }
    for (uint32_t i = 0; i < d && rule->beta_attention != 0; i++) {
        uint32_t weight = (uint32_t)(((uint64_t)alpha[i] * d << 16) / total); /* mean one, Q16 */
        wide[i] = ehmn_mul(wide[i], (int32_t)weight, 16);
    }
    return ehmn_quantise8(wide, d, EHMN_NORM_FRAC, ehmn_at(m, m->at.presynaptic));
}

/* pi max(0, cos(Phi - phi_i)) as Q15; 1 when the gate is off. phi is one of 16 phases, fixed for each unit. */
static int32_t phase_gate(const ehmn_model *m, uint32_t layer, uint32_t unit)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t random[4];
    if (rule->phase_step == 0) {
        return 32768;
    }
    ehmn_random(rule->phase_seed, EHMN_STREAM_PHASE + layer, unit, random);
    int32_t open = ehmn_cos(ehmn_model_delta(m)->phase - (random[0] & 0xF0000000u));
    return open > 0 ? ehmn_mul(open, PI_Q13, 13) : 0;
}

static void step_weight(int8_t *w, int32_t step)
{
    int32_t v = *w + step;
    *w = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
}

/* Draw the steps of one row: weight j expects |row_rate| |pre_j| of them, in the direction of row_rate pre_j.
 * `edge` holds the running sums of |pre|. `*next` is the distance to the next step on the line. */
static uint32_t draw_row(int8_t *w, const int8_t *pre, const uint32_t *edge, uint32_t n, int32_t row_rate,
                         uint64_t *next)
{
    uint32_t writes = 0;
    uint64_t rate = ehmn_abs(row_rate);
    uint64_t length = rate * edge[n - 1];
    while (*next < length) {
        uint32_t low = 0; /* the first j with rate * edge[j] > *next */
        uint32_t high = n - 1;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (rate * edge[middle] > *next) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        step_weight(w + low, (row_rate > 0) == (pre[low] > 0) ? 1 : -1);
        writes++;
        *next += (uint64_t)1 << EVENT_FRAC;
    }
    *next -= length;
    return writes;
}

static void running_sums(const int8_t *v, uint32_t n, uint32_t *edge)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += ehmn_abs(v[i]);
        edge[i] = sum;
    }
}

/* Where the first step of this token falls: uniform in [0, 1) step. */
static uint64_t draw_offset(const ehmn_model *m, uint32_t stream)
{
    uint32_t random[4];
    ehmn_random(ehmn_model_delta(m)->seed, stream, ehmn_model_delta(m)->learned, random);
    return random[0] >> (32 - EVENT_FRAC);
}

/* Teach one adapter. */
static void write_adapter(ehmn_model *m, uint32_t layer, int32_t rate, const int32_t *error)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t d = m->image->d_model;
    int8_t *w = (int8_t *)ehmn_at(m, m->at.delta + ehmn_layout_delta(m->image).weights) + (size_t)layer * d * d;
    const int16_t *z = (const int16_t *)ehmn_at(m, m->at.outputs) + layer * d;
    uint32_t *edge = ehmn_at(m, m->at.cumulative);
    const int8_t *pre;
    int32_t shift = ERROR_FRAC + 24 - EVENT_FRAC - rule->weight_frac + presynaptic(m, layer, &pre);
    uint64_t next = draw_offset(m, EHMN_STREAM_WRITES + layer);
    uint32_t writes = 0;

    running_sums(pre, d, edge);
    for (uint32_t i = 0; i < d; i++) {
        int32_t slope = 32768 - (z[i] * z[i] >> 15); /* tanh', Q15 */
        int32_t post = ehmn_mul(ehmn_mul(error[i], slope, 15), phase_gate(m, layer, i), 15);
        int32_t row_rate = ehmn_mul(post, rate, shift);
        row_rate = row_rate > MAX_ROW_RATE ? MAX_ROW_RATE : row_rate < -MAX_ROW_RATE ? -MAX_ROW_RATE : row_rate;
        writes += draw_row(w + i * d, pre, edge, d, row_rate, &next);
    }
    uint32_t row = (uint32_t)(ehmn_model_delta(m)->learned % d); /* the row whose turn it is to decay */
    int8_t *decaying = ehmn_at(m, m->at.presynaptic);
    for (uint32_t i = 0; i < d; i++) {
        decaying[i] = w[row * d + i];
    }
    running_sums(decaying, d, edge);
    next = draw_offset(m, EHMN_STREAM_DECAY + layer);
    writes += draw_row(w + row * d, decaying, edge, d, -rule->decay_row, &next);
    ehmn_model_delta(m)->writes += writes;
    m->counts.writes += writes;
}

/* g += eta_gain <z, error>, within 0..gain_max. */
static void learn_gain(ehmn_model *m, uint32_t layer, const int32_t *error)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t d = m->image->d_model;
    const int16_t *z = (const int16_t *)ehmn_at(m, m->at.outputs) + layer * d;
    int32_t *gain = &ehmn_model_delta(m)->gain[layer];
    int64_t sum = 0; /* Q35, at most 2^58 */
    for (uint32_t i = 0; i < d; i++) {
        sum += (int64_t)z[i] * error[i];
    }
    int32_t g = ehmn_add(*gain, ehmn_mul(ehmn_round_shift(sum, 15 + ERROR_FRAC - 16), rule->eta_gain, 16));
    *gain = g < 0 ? 0 : g > rule->gain_max ? rule->gain_max : g;
}

int32_t ehmn_learn(ehmn_model *m, uint32_t token)
{
    if (m == NULL || token >= m->image->vocab_size) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    if (!m->predicted) {
        return EHMN_OK;
    }
    int32_t *error = ehmn_at(m, m->at.error);
    output_error(m, token, error);
    int32_t rate = learning_rate(m, token);
    for (uint32_t layer = 0; layer < m->image->n_adapters; layer++) {
        write_adapter(m, layer, rate, error);
        learn_gain(m, layer, error);
    }
    ehmn_model_delta(m)->phase += m->image->rule.phase_step;
    ehmn_model_delta(m)->learned++;
    m->counts.learned++;
    return EHMN_OK;
}
