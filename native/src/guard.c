/* The guard: hidden vectors of ordinary text, in the image, whose loss must not rise far above the frozen model's.
 * Looking at one costs a head pass, disturbs no context and needs no user's text. SPEC.md, "Learning", Guard. */
#include "model.h"

#define PERIOD 64u
#define AVERAGE_RATE 2048 /* Q16: a look counts one thirty-second */
#define EXCESS_LIMIT (1 << 20)

static const ehmn_guard *guard(const ehmn_model *m)
{
    return (const ehmn_guard *)(const void *)((const uint8_t *)m->image + m->image->guard_offset);
}

int32_t ehmn_guard_score(ehmn_model *m, uint32_t index, uint32_t *bits)
{
    if (m == NULL || bits == NULL || index >= m->image->n_guard) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    const ehmn_image *im = m->image;
    const ehmn_guard *g = guard(m) + index;
    const int8_t *mantissa = (const int8_t *)(guard(m) + im->n_guard) + (size_t)index * im->d_model;
    int16_t *hidden = ehmn_at(m, m->at.mixed);
    int32_t *v = ehmn_at(m, m->at.normed);
    int32_t *block = ehmn_at(m, m->at.wide);
    int16_t *logits = (int16_t *)(void *)(block + ehmn_block_rows(m, 0));
    int32_t max = -INT16_MAX;
    int32_t target = 0;
    uint64_t mass = 0, spread = 0;

    for (uint32_t i = 0; i < im->d_model; i++) {
        hidden[i] = ehmn_sat16(ehmn_round_shift(mantissa[i], g->frac - im->hidden_frac));
    }
    ehmn_final_norm(m, hidden, v);
    ehmn_adapt_guard(m, v);
    int32_t frac = ehmn_reduce_head(m, v);
    for (int pass = 0; pass < 2; pass++) { /* the maximum, then the mass: the logits have no room of their own */
        for (uint32_t first = 0, rows; first < im->vocab_size; first += rows) {
            rows = ehmn_block_rows(m, first);
            ehmn_multiply(m, m->matrices + ehmn_head_index(im), first, rows, frac, EHMN_LOGIT_FRAC, block);
            max = ehmn_fit_logits(m, first, rows, max, block, logits);
            if (g->token >= first && g->token - first < rows) {
                target = logits[g->token - first];
            }
            for (uint32_t at = 0, n; pass == 1 && at < rows; at += n) {
                n = rows - at < 128u ? rows - at : 128u;
                mass += m->kernels->exp_sum(logits + at, n, max, &spread);
            }
        }
    }
    *bits = (uint32_t)(ehmn_log2(mass) - (24 << 16) + (max - target) * 256);
    return EHMN_OK;
}

uint32_t ehmn_harm(const ehmn_model *m)
{
    int64_t limit = m->image->rule.guard_limit;
    int64_t excess = ehmn_model_delta(m)->guard_excess;
    return limit == 0 || excess <= limit ? 0u : excess <= 2 * limit ? 1u : 2u;
}

void ehmn_watch(ehmn_model *m)
{
    const ehmn_image *im = m->image;
    ehmn_delta *delta = ehmn_model_delta(m);
    uint32_t bits = 0;
    if (im->rule.guard_limit == 0 || im->n_guard == 0 || delta->learned % PERIOD != 0) {
        return;
    }
    uint32_t index = (uint32_t)((delta->learned / PERIOD + im->n_guard - 1u) % im->n_guard);
    (void)ehmn_guard_score(m, index, &bits);
    int64_t excess = (int64_t)bits - guard(m)[index].bits;
    excess = excess > EXCESS_LIMIT ? EXCESS_LIMIT : excess < -EXCESS_LIMIT ? -EXCESS_LIMIT : excess;
    delta->guard_excess = ehmn_follow_value(delta->guard_excess, (int32_t)excess, AVERAGE_RATE);
    if (delta->guard_excess > 4 * (int64_t)im->rule.guard_limit) {
        ehmn_roll_back(m);
        m->counts.rollbacks++;
    }
}
