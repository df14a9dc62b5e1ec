/* The rule that teaches the adapters and moves the gains. SPEC.md, "Learning"; in float: edgehmn/plasticity.py.
 *
 * The change of all weights of an adapter is one outer product. It is made of single steps of one LSB, drawn by
 * systematic sampling: the expected numbers of steps of all weights, laid end to end row by row, form a line; a
 * step falls on every point u, u + 1, u + 2, ... of it. The mean over u is exact, one random number serves a
 * whole adapter, and the work grows with the steps that are made, not with the weights that are not. */
#include "model.h"
#include "random.h"

#define EVENT_FRAC EHMN_EVENT_FRAC
#define MAX_ROW_RATE (1 << 20) /* at most 8 steps of one weight in one token */
#define ERROR_FRAC 20
#define TOPIC_FAST 3277 /* Q16 of 0.05 */
#define TOPIC_SLOW 131  /* Q16 of 0.002 */
#define PI_Q13 25736
#define FORESEEN 38336 /* Q16 bits: a token of less, of a probability above 2/3, teaches nothing */

static int32_t *delta_array(const ehmn_model *m, uint32_t offset)
{
    return ehmn_in_delta(m, offset);
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
    a->mean = ehmn_follow_value(a->mean, value, rate);
    difference = ehmn_sat32((int64_t)value - a->mean);
    a->variance = ehmn_follow_value(a->variance, ehmn_mul(difference, difference, 16), rate);
    return (int32_t)(score > 131072 ? 131072 : score < -131072 ? -131072 : score);
}

/* Squared distance between the fast and the slow mean of the input, per unit, Q24: on ordinary text far below one. */
__attribute__((noinline)) static int32_t topic_shift(ehmn_model *m)
{
    uint32_t d = m->image->d_model;
    const int32_t *x = ehmn_at(m, m->at.standard);
    int32_t *fast = delta_array(m, m->in.topic);
    int32_t *slow = fast + d;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < d; i++) {
        fast[i] = ehmn_follow_value(fast[i], x[i], TOPIC_FAST);
        slow[i] = ehmn_follow_value(slow[i], x[i], TOPIC_SLOW);
        uint32_t apart = ehmn_abs(ehmn_round_shift((int64_t)fast[i] - slow[i], 4));
        sum += (uint64_t)apart * apart >> 8;
    }
    return ehmn_sat32((int64_t)(sum / d));
}

/* 1 + (eta_global / eta_local) G', at least zero, Q16. */
static int32_t modulation(ehmn_model *m, uint32_t token)
{
    const ehmn_rule *rule = &m->image->rule;
    ehmn_delta *delta = ehmn_model_delta(m);
    int32_t rate = 65536 - rule->rho_average;
    int64_t g = 0; /* Q32 */
    if (rule->eta_global == 0) {
        return 65536;
    }
    g += (int64_t)rule->w_reward * standard_score(&delta->reward, (int32_t)ehmn_surprise(m, token), rate);
    if (rule->w_uncertainty != 0) {
        g += (int64_t)rule->w_uncertainty * standard_score(&delta->uncertainty, (int32_t)ehmn_entropy(m), rate);
    }
    if (rule->w_novelty != 0) {
        g += (int64_t)rule->w_novelty * standard_score(&delta->novelty, topic_shift(m), rate);
    }
    int32_t factor = ehmn_add(65536, ehmn_mul(rule->eta_global, ehmn_round_shift(g, 16), 16));
    return factor > 0 ? factor : 0;
}

/* The vector that stands for the inputs in the update: alpha (psi_fast + kappa psi_slow), as int8. Returns its
 * fractional bits. With both symbols off it is the adapter's input itself. */
static int32_t presynaptic(ehmn_model *m, uint32_t layer, const int8_t **pre)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t d = m->image->d_model;
    const int32_t *trace = delta_array(m, m->in.trace) + layer * d;
    int32_t *slow = delta_array(m, m->in.slow) + layer * d;
    int32_t *context = delta_array(m, m->in.context) + layer * d;
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
        slow[i] = ehmn_follow_value(slow[i], trace[i], 65536 - rule->rho_slow);
        context[i] = ehmn_follow_value(context[i], trace[i], 65536 - rule->rho_context);
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

/* pi max(0, cos(Phi - phi_i)) as Q15. phi is one of 16 phases, fixed for each unit. */
static int32_t phase_gate(const ehmn_model *m, uint32_t layer, uint32_t unit)
{
    uint32_t random[4];
    ehmn_random(m->image->rule.phase_seed, EHMN_STREAM_PHASE + layer, unit, random);
    int32_t open = ehmn_cos(ehmn_model_delta(m)->phase - (random[0] & 0xF0000000u));
    return open > 0 ? ehmn_mul(open, PI_Q13, 13) : 0;
}

static ehmn_direction make_direction(ehmn_model *m, const int8_t *v)
{
    uint32_t n = m->image->d_model;
    ehmn_direction along = {ehmn_at(m, m->at.cumulative), ehmn_at(m, m->at.wide), n, 0,
                            m->kernels->few_steps * n / 128u, m->kernels->step_row};
    ehmn_running_sums(v, n, along.edge, along.sign);
    along.length = along.edge[n - 1u];
    return along;
}

/* What of a step has gone by before the first weight, out of a random word: uniform in [0, 1) step. */
static uint32_t offset_of(uint32_t random)
{
    return ~random >> (32 - EVENT_FRAC);
}

/* The same of this token. */
static uint32_t draw_offset(const ehmn_model *m, uint32_t stream)
{
    uint32_t random[4];
    ehmn_random(ehmn_model_delta(m)->seed, stream, ehmn_model_delta(m)->learned, random);
    return offset_of(random[0]);
}

/* Steps of one row w[d_model] towards zero, each weight expecting |w| rate / 2^24 of them. */
static uint32_t decay_row(ehmn_model *m, int8_t *w, int32_t rate, uint32_t passed)
{
    ehmn_direction along = make_direction(m, w);
    return ehmn_draw_row(w, &along, -rate, &passed);
}

static int8_t *dense_weights(const ehmn_model *m, uint32_t layer)
{
    size_t d = m->image->d_model;
    return (int8_t *)ehmn_in_delta(m, m->in.dense) + layer * d * d;
}

static void decay_dense(ehmn_model *m, uint32_t layer, int32_t factor)
{
    uint32_t d = m->image->d_model;
    uint32_t row = (uint32_t)(ehmn_model_delta(m)->learned % d); /* whose turn it is */
    int64_t rate = (int64_t)m->image->rule.decay_row * factor;
    int8_t *w = dense_weights(m, layer) + row * d;
    int32_t most = (1 << 24) - 1;
    m->counts.writes += decay_row(m, w, rate > most ? most : (int32_t)rate, draw_offset(m, EHMN_STREAM_DECAY + layer));
}

/* rates[d_model] of the units of a dense adapter, within what is allowed; returns the sum of their magnitudes, at most
 * 2^32. */
static uint64_t make_rates(const ehmn_model *m, uint32_t layer, int32_t rate, int32_t shift, const int32_t *error,
                           int32_t *rates)
{
    uint32_t d = m->image->d_model;
    const int16_t *z = (const int16_t *)ehmn_at(m, m->at.outputs) + layer * d;
    ehmn_times_slope(error, z, d, rates);
    for (uint32_t i = 0; i < d && m->image->rule.phase_step != 0; i++) {
        rates[i] = ehmn_mul(rates[i], phase_gate(m, layer, i), 15);
    }
    return ehmn_scale_within(rates, d, rate, shift, MAX_ROW_RATE);
}

/* Teach one dense adapter. `rate`: Q24. Units whose rates are below closed_below times the mean are closed: most of
 * what is taught is in the others, and a row that is not written costs nothing. */
static void write_dense(ehmn_model *m, uint32_t layer, int32_t rate, const int32_t *error)
{
    uint32_t d = m->image->d_model;
    const int8_t *pre;
    int32_t *rates = ehmn_at(m, m->at.mixed);
    int32_t shift = ERROR_FRAC + 24 - EVENT_FRAC - m->image->rule.weight_frac + presynaptic(m, layer, &pre);
    uint32_t passed = draw_offset(m, EHMN_STREAM_WRITES + layer);

    ehmn_direction along = make_direction(m, pre);
    uint64_t sum = make_rates(m, layer, rate, shift, error, rates);
    uint32_t least = (uint32_t)((sum * (uint32_t)m->image->rule.closed_below / d) >> 16); /* at most 2^24 */
    m->counts.writes += ehmn_draw_rows(dense_weights(m, layer), &along, rates, least, &passed);
    m->counts.macs += 2u * d;
}

void ehmn_move_gain(const ehmn_model *m, int32_t *gain, int64_t sum, int32_t frac)
{
    const ehmn_rule *rule = &m->image->rule;
    int32_t moved = ehmn_add(*gain, ehmn_mul(ehmn_round_shift(sum, frac - 16), rule->eta_gain, 16));
    *gain = ehmn_clamp(moved, 0, rule->gain_max);
}

static void learn_dense_gain(ehmn_model *m, uint32_t layer, const int32_t *error)
{
    uint32_t d = m->image->d_model;
    const int16_t *z = (const int16_t *)ehmn_at(m, m->at.outputs) + layer * d;
    int64_t sum = ehmn_dot_outputs(z, error, d); /* Q35, at most 2^58 */
    ehmn_move_gain(m, &ehmn_model_gains(m)->dense[layer], sum, 15 + ERROR_FRAC);
    m->counts.macs += d;
}

/* The row that the prediction read of adapter `k`; NULL: none. */
static int8_t *row_of(const ehmn_model *m, uint32_t k)
{
    int8_t *rows = ehmn_in_delta(m, m->in.rows);
    return m->row[k] != 0 ? rows + (size_t)(m->row[k] - 1u) * m->image->d_model : NULL;
}

_Static_assert(EHMN_STREAM_ROWS == EHMN_STREAM_ROW_DECAY + EHMN_ROW_ADAPTERS && EHMN_ROW_ADAPTERS == 2u,
               "the streams of the rows are four in a row");

/* Teach the rows that the prediction read, which all follow the same error. `factor`: Q16, of the rate. */
static void write_rows(ehmn_model *m, int32_t factor, const int32_t *error)
{
    const ehmn_rule *rule = &m->image->rule;
    int8_t *vector = ehmn_at(m, m->at.presynaptic);
    uint32_t random[4]; /* of EHMN_STREAM_ROW_DECAY and EHMN_STREAM_ROWS */
    ehmn_random_firsts(ehmn_model_delta(m)->seed, EHMN_STREAM_ROW_DECAY, ehmn_model_delta(m)->learned, random);
    for (uint32_t k = 0; k < EHMN_ROW_ADAPTERS; k++) {
        int8_t *r = row_of(m, k);
        uint32_t passed = offset_of(random[k]); /* often up to no step */
        if (r != NULL && !ehmn_has_no_step(r, m->image->d_model, (uint32_t)rule->decay_visit, passed)) {
            m->counts.writes += decay_row(m, r, rule->decay_visit, passed);
        }
    }
    int32_t frac = ehmn_quantise8(error, m->image->d_model, ERROR_FRAC, vector);
    ehmn_direction along = make_direction(m, vector);
    for (uint32_t k = 0; k < EHMN_ROW_ADAPTERS; k++) {
        int8_t *r = row_of(m, k);
        if (r != NULL) {
            int32_t rate = ehmn_mul(ehmn_mul(rule->eta_row[k], factor, 16), 1, frac - rule->row_frac);
            uint32_t passed = offset_of(random[EHMN_STREAM_ROWS - EHMN_STREAM_ROW_DECAY + k]);
            m->counts.writes += ehmn_draw_row(r, &along, ehmn_clamp(rate, -MAX_ROW_RATE, MAX_ROW_RATE), &passed);
            m->counts.macs += m->image->d_model;
        }
    }
}

/* Returns how many rows there are. */
static uint32_t learn_row_gains(ehmn_model *m, const int32_t *error)
{
    uint32_t d = m->image->d_model, read = 0;
    for (uint32_t k = 0; k < EHMN_ROW_ADAPTERS; k++) {
        const int8_t *r = row_of(m, k);
        if (r != NULL) {
            int64_t sum = ehmn_dot_weights(r, error, d);
            ehmn_move_gain(m, &ehmn_model_gains(m)->row[k], sum, m->image->rule.row_frac + ERROR_FRAC);
            m->counts.macs += d;
            read++;
        }
    }
    return read;
}

/* How much the frozen model's own logits should count: along the gradient of the log-probability. */
static void learn_scale(ehmn_model *m, const int32_t *delta, int32_t frac)
{
    const ehmn_image *im = m->image;
    const int32_t *plain = ehmn_at(m, m->at.plain);
    int32_t *scale = &ehmn_model_gains(m)->scale;
    int32_t *room = ehmn_at(m, m->at.mixed);
    int32_t sum = ehmn_sat32(ehmn_sum_products(plain, delta, im->d_model, frac, m->kernels->scale, room));
    int32_t moved = ehmn_add(*scale, ehmn_mul(sum, im->rule.eta_scale, im->value_frac + 8));
    *scale = ehmn_clamp(moved, 0, im->rule.gain_max);
    m->counts.macs += im->d_model;
}

/* Everything that an error teaches. `draw`, `stream`: of the negatives. With `write`, adapters and biases move, their
 * rates times `factor`, Q16; without, the gains alone. */
static void learn_from_error(ehmn_model *m, uint32_t token, uint64_t draw, uint32_t stream, int32_t factor, int write)
{
    const ehmn_image *im = m->image;
    uint32_t drawn[EHMN_MAX_NEGATIVES];
    uint32_t random[4];
    int32_t *delta = ehmn_at(m, m->at.normed);
    int32_t *error = ehmn_at(m, m->at.error);
    int32_t frac = im->value_frac + ehmn_bit_length(im->rule.n_negatives) - 1;

    ehmn_random(ehmn_model_delta(m)->seed, stream, draw, random);
    uint32_t n = ehmn_draw_negatives(m, random[0] >> 16, drawn);
    ehmn_output_error(m, token, drawn, n, delta);
    ehmn_matvec(m, m->matrices + ehmn_preconditioner_index(im), delta, frac, ERROR_FRAC, error);
    for (uint32_t layer = 0; layer < im->n_dense; layer++) {
        learn_dense_gain(m, layer, error);
    }
    uint32_t rows = learn_row_gains(m, error);
    learn_scale(m, delta, frac);
    ehmn_learn_bias(m, token, drawn, n, write);
    if (!write) {
        return;
    }
    for (uint32_t layer = 0; layer < im->n_dense; layer++) {
        write_dense(m, layer, ehmn_mul(im->rule.eta_local, factor, 16), error);
    }
    if (rows > 0) {
        write_rows(m, factor, error);
    }
}

static void decay_weights(ehmn_model *m, int32_t factor)
{
    for (uint32_t layer = 0; layer < m->image->n_dense; layer++) {
        decay_dense(m, layer, factor);
    }
    ehmn_decay_bias(m, factor);
}

/* What learning and following share. What stands below the episodes learns as if there were none: it must not rely on
 * what they happen to recall. */
static void teach(ehmn_model *m, uint32_t token, uint64_t draw, uint32_t stream, int write)
{
    uint32_t bits;
    (void)ehmn_score(m, token, &bits);
    ehmn_swap_recalled(m);
    int32_t factor = write ? modulation(m, token) : 0;
    if (bits >= FORESEEN) {
        learn_from_error(m, token, draw, stream, factor, write);
    }
    ehmn_learn_ngrams(m, token, write);
    ehmn_learn_episodes(m, token, write);
    ehmn_swap_recalled(m);
}

static int32_t may_learn(const ehmn_model *m, uint32_t token)
{
    if (m == NULL || token >= m->image->vocab_size) {
        return EHMN_E_ARGUMENT;
    }
    return m->mode == EHMN_PLASTIC ? EHMN_OK : EHMN_E_STATE;
}

void ehmn_end_following(ehmn_model *m)
{
    if (m->following) {
        *ehmn_model_gains(m) = *(const ehmn_gains *)ehmn_at(m, m->at.kept);
        m->following = 0;
    }
}

static void follow_token(ehmn_model *m, uint32_t token)
{
    teach(m, token, m->followed, EHMN_STREAM_FOLLOW, 0);
    m->followed++;
}

int32_t ehmn_follow(ehmn_model *m, uint32_t token)
{
    int32_t status = may_learn(m, token);
    if (status == EHMN_OK && m->predicted) {
        if (!m->following) {
            *(ehmn_gains *)ehmn_at(m, m->at.kept) = *ehmn_model_gains(m);
            m->following = 1;
        }
        follow_token(m, token);
        ehmn_observe_topic(m, 0);
    }
    return status;
}

int32_t ehmn_learn(ehmn_model *m, uint32_t token)
{
    int32_t status = may_learn(m, token);
    if (status != EHMN_OK || !m->predicted) {
        return status;
    }
    uint64_t writes = m->counts.writes;
    uint32_t harm = ehmn_harm(m);
    ehmn_end_following(m);
    if (harm < 2u) {
        teach(m, token, ehmn_model_delta(m)->learned, EHMN_STREAM_NEGATIVES, 1);
    } else { /* frozen until the decay has mended the harm */
        follow_token(m, token);
    }
    decay_weights(m, harm > 0u ? 8 : 1);
    ehmn_model_delta(m)->writes += m->counts.writes - writes;
    ehmn_model_delta(m)->phase += m->image->rule.phase_step;
    ehmn_model_delta(m)->learned++;
    ehmn_model_delta(m)->age += ehmn_model_delta(m)->age < UINT32_MAX;
    m->counts.learned++;
    ehmn_watch(m);
    ehmn_observe_topic(m, 1);
    return EHMN_OK;
}
