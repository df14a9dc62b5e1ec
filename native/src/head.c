/* The head: final norm, adapters, logits, and what is read from them: scores, quantiles, samples. */
#include "fixed.h"
#include "model.h"
#include "random.h"

#include <string.h>

_Static_assert(EHMN_BIAS_FRAC + 16 - EHMN_LOGIT_FRAC == 20, "kernels count on it");

#define LOG2_E_Q16 94548 /* round(2^16 log2(e)) */
#define LEVEL_ABOVE (4 << EHMN_LOGIT_FRAC) /* at most: masses keep 20 bits of the 24 they would have */

void ehmn_final_norm(ehmn_model *m, const int16_t *hidden, int32_t *normed)
{
    const ehmn_image *im = m->image;
    uint32_t d = im->d_model;
    const int32_t *gain = ehmn_vector_data(m, EHMN_VECTOR_NORM_GAIN);
    const int32_t *bias = ehmn_vector_data(m, EHMN_VECTOR_NORM_BIAS);
    int32_t gain_shift = m->vectors[EHMN_VECTOR_NORM_GAIN].shift;
    int32_t mean = 0; /* of hidden, with eight bits more */

    if (im->final_norm == EHMN_NORM_LAYERNORM) {
        int64_t sum = 0;
        for (uint32_t i = 0; i < d; i++) {
            sum += hidden[i];
        }
        mean = (int32_t)ehmn_div_round(sum * 256, d);
    }
    for (uint32_t i = 0; i < d; i++) {
        normed[i] = hidden[i] * 256 - mean;
    }
    ehmn_rms_normalise(normed, d, im->hidden_frac + 8, im->norm_eps_mantissa, im->norm_eps_shift, normed);
    m->kernels->scale(normed, gain, d, EHMN_NORM_FRAC + gain_shift - im->value_frac, normed);
    ehmn_add_all(normed, bias, d);
}

void ehmn_adapted_norm(ehmn_model *m, const int16_t *hidden, int32_t *v)
{
    if (m->mode != EHMN_PLASTIC) {
        ehmn_final_norm(m, hidden, v);
        return;
    }
    ehmn_final_norm(m, hidden, ehmn_at(m, m->at.plain));
    ehmn_adapt(m, v);
}

/* Tokens in a block whose probabilities have a sum of their own, as a power of two; 0: there is no room for the
 * sums. */
static uint32_t block_shift(const ehmn_image *im)
{
    for (uint32_t shift = 6; shift <= 7u; shift++) { /* a sum of 128 fits 32 bits */
        if (im->vocab_size >> shift < im->n_ctx) {
            return shift;
        }
    }
    return 0;
}

void ehmn_summarise(ehmn_model *m)
{
    const int16_t *logits = ehmn_at(m, m->at.logits);
    uint32_t *sums = ehmn_at(m, m->at.scores);
    uint32_t vocab = m->image->vocab_size;
    uint32_t shift = block_shift(m->image);
    uint32_t block = shift ? 1u << shift : 128u;
    m->mass = 0;
    for (uint32_t first = 0; first < vocab; first += block) {
        uint32_t n = vocab - first < block ? vocab - first : block;
        uint32_t sum = m->kernels->exp_sum(logits + first, n, m->max_logit);
        m->mass += sum;
        if (shift) {
            sums[first >> shift] = sum;
        }
    }
    m->total = m->mass;
    m->summed = shift;
}

uint32_t ehmn_entropy(const ehmn_model *m)
{
    const int16_t *logits = ehmn_at(m, m->at.logits);
    uint64_t spread = 0; /* Q32 */
    for (uint32_t k = 0; k < m->image->vocab_size; k++) {
        uint32_t below = (uint32_t)(m->max_logit - logits[k]);
        spread += (uint64_t)ehmn_exp2_neg(below) * below;
    }
    return (uint32_t)(ehmn_log2(m->mass) - (24 << 16)) + (uint32_t)((spread << 8) / m->mass);
}

void ehmn_change_logit(ehmn_model *m, uint32_t token, int32_t logit)
{
    int16_t *logits = ehmn_at(m, m->at.logits);
    int32_t before = logits[token], least = m->max_logit - LEVEL_ABOVE;
    logits[token] = (int16_t)logit;
    if (logit > m->max_logit) {
        m->max_logit = logit;
    } else if (before >= least && logit < least) { /* the others may all be far below the level */
        m->max_logit = ehmn_largest(logits, m->image->vocab_size);
    }
}

void ehmn_to_bits(const ehmn_model *m, int32_t *v)
{
    ehmn_scale_all(v, m->image->d_model, LOG2_E_Q16, 16, v);
}

int32_t ehmn_reduce_head(ehmn_model *m, int32_t *v)
{
    const ehmn_image *im = m->image;
    ehmn_to_bits(m, v);
    return ehmn_reduce(m, v, im->d_model, im->value_frac, m->matrices[ehmn_head_index(im)].input_bits);
}

int32_t ehmn_fit_logits(ehmn_model *m, uint32_t first, uint32_t rows, int32_t max, const int32_t *v, int16_t *out)
{
    const int16_t *bias = NULL;
    int32_t gain = 0;
    if (m->mode == EHMN_PLASTIC && m->image->rule.bias_step != 0) {
        bias = (const int16_t *)ehmn_in_delta(m, m->in.bias) + first;
        gain = ehmn_model_gains(m)->bias;
    }
    return m->kernels->fit(v, bias, gain, rows, max, out);
}

uint32_t ehmn_block_rows(const ehmn_model *m, uint32_t first)
{
    uint32_t rows = ehmn_wide(m->image) / 3u * 2u, left = m->image->vocab_size - first;
    return rows < left ? rows : left;
}

void ehmn_push_token(ehmn_model *m, uint32_t token)
{
    for (uint32_t i = EHMN_MAX_ORDER - 1u; i > 0; i--) {
        m->history[i] = m->history[i - 1u];
    }
    m->history[0] = token;
    m->n_history += m->n_history < EHMN_MAX_ORDER;
}

void ehmn_end_prediction(ehmn_model *m)
{
    if (m->mode == EHMN_PLASTIC) {
        ehmn_remember(m);
    } else {
        ehmn_summarise(m);
    }
    m->predicted = 1;
}

int32_t ehmn_head(ehmn_model *m, uint32_t token, const int16_t *hidden)
{
    if (m == NULL || hidden == NULL || token >= m->image->vocab_size) {
        return EHMN_E_ARGUMENT;
    }
    int32_t *v = ehmn_at(m, m->at.normed);
    int32_t *block = ehmn_at(m, m->at.wide);
    int16_t *logits = ehmn_at(m, m->at.logits);

    ehmn_push_token(m, token);
    ehmn_adapted_norm(m, hidden, v);
    int32_t frac = ehmn_reduce_head(m, v);
    m->max_logit = -INT16_MAX;
    for (uint32_t first = 0, rows; first < m->image->vocab_size; first += rows) {
        rows = ehmn_block_rows(m, first);
        rows = rows > 96u ? rows - rows % 96u : rows; /* in whole groups of 32, and of 12 */
        ehmn_multiply(m, m->matrices + ehmn_head_index(m->image), first, rows, frac, EHMN_LOGIT_FRAC, block);
        m->max_logit = ehmn_fit_logits(m, first, rows, m->max_logit, block, logits + first);
    }
    ehmn_end_prediction(m);
    return EHMN_OK;
}

int32_t ehmn_step(ehmn_model *m, uint32_t token)
{
    if (m == NULL) {
        return EHMN_E_ARGUMENT;
    }
    int16_t *hidden = ehmn_at(m, m->at.mixed); /* its int32 values are no longer needed when this is written */
    int32_t status = ehmn_encode(m, token, hidden);
    return status == EHMN_OK ? ehmn_head(m, token, hidden) : status;
}

const int16_t *ehmn_logits(const ehmn_model *m)
{
    return m != NULL && m->predicted ? ehmn_at(m, m->at.logits) : NULL;
}

/* -log2 of a token's share of a mass. Rounded logarithms may leave a share of almost one a little above it. */
static uint32_t bits_of(const ehmn_model *m, uint64_t mass, uint32_t token)
{
    const int16_t *logits = ehmn_at(m, m->at.logits);
    int32_t bits = ehmn_log2(mass) - (24 << 16) + (m->max_logit - logits[token]) * 256;
    return bits > 0 ? (uint32_t)bits : 0u;
}

uint32_t ehmn_surprise(const ehmn_model *m, uint32_t token)
{
    return bits_of(m, m->mass, token);
}

int32_t ehmn_score(const ehmn_model *m, uint32_t token, uint32_t *bits)
{
    if (m == NULL || bits == NULL || token >= m->image->vocab_size) {
        return EHMN_E_ARGUMENT;
    }
    if (!m->predicted) {
        *bits = (uint32_t)ehmn_log2(m->image->vocab_size);
        return EHMN_OK;
    }
    *bits = bits_of(m, m->total, token);
    return EHMN_OK;
}

_Static_assert(EHMN_MAX_VOCAB < EHMN_DRAWN_ONCE && EHMN_MAX_NEGATIVES < 256u, "both must fit what is drawn");

uint32_t ehmn_draw_negatives(const ehmn_model *m, uint32_t offset, uint32_t *drawn)
{
    const ehmn_probabilities of = {
        .logits = ehmn_at(m, m->at.logits),
        .n = m->image->vocab_size,
        .max = m->max_logit,
        .block = 1u << m->summed,
        .sums = m->summed ? ehmn_at(m, m->at.scores) : NULL,
        .mass = m->mass,
    };
    uint32_t n = m->image->rule.n_negatives;
    uint64_t step = m->mass / n;
    return ehmn_find_quantiles(&of, (step * (offset & 0xFFFFu)) >> 16, step, n, drawn);
}

void ehmn_output_error(ehmn_model *m, uint32_t token, const uint32_t *drawn, uint32_t n, int32_t *delta)
{
    const ehmn_matrix *head = m->matrices + ehmn_head_index(m->image);
    const ehmn_rows of = {ehmn_weights(m, head), ehmn_scales(m, head), m->image->d_model,
                          head->shift - m->image->value_frac, m->kernels->sum_rows};
    ehmn_sum_rows(delta, &of, token, m->image->rule.n_negatives, drawn, n);
    m->counts.macs += (n + (uint64_t)1) * of.n;
}

static uint32_t most_probable(const int16_t *logits, int32_t max)
{
    uint32_t k = 0;
    while (logits[k] != max) {
        k++;
    }
    return k;
}

int32_t ehmn_sample(ehmn_model *m, uint32_t temperature, uint32_t *token)
{
    if (m == NULL || token == NULL || temperature > 4096u) {
        return EHMN_E_ARGUMENT;
    }
    if (!m->predicted) {
        return EHMN_E_STATE;
    }
    const int16_t *logits = ehmn_at(m, m->at.logits);
    uint32_t vocab = m->image->vocab_size;
    int32_t max = ehmn_largest(logits, vocab);
    if (temperature == 0u) {
        *token = most_probable(logits, max);
        return EHMN_OK;
    }
    uint64_t mass = 0;
    for (uint32_t k = 0; k < vocab; k++) {
        mass += ehmn_exp2_neg((uint32_t)(max - logits[k]) * 256u / temperature);
    }
    uint32_t random[4];
    ehmn_random(m->seed, EHMN_STREAM_SAMPLE, m->sampled, random);
    m->sampled++;
    uint64_t target = ((mass >> 16) * random[0] >> 16) + (((mass & 0xFFFFu) * random[0]) >> 32);
    uint64_t sum = 0;
    uint32_t k = 0;
    for (; k + 1u < vocab; k++) {
        sum += ehmn_exp2_neg((uint32_t)(max - logits[k]) * 256u / temperature);
        if (target < sum) {
            break;
        }
    }
    *token = k;
    return EHMN_OK;
}
