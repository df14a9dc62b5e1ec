/* The guard: hidden vectors of ordinary text, in the image, whose loss must not rise far above the frozen model's.
 * Looking at one costs a head pass, disturbs no context and needs no user's text. SPEC.md, "Learning", Guard. */
#include "model.h"

#define PERIOD 64u
#define AVERAGE_RATE 2048 /* Q16: a look counts one thirty-second */
#define EXCESS_LIMIT (1 << 20)
#define SETTLE_PARTS 256u
#define SETTLE_LIMIT 940 /* Q16: log2(1.01), rounded down */

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
    uint64_t mass = 0;

    for (uint32_t i = 0; i < im->d_model; i++) {
        hidden[i] = ehmn_sat16(ehmn_round_shift(mantissa[i], g->frac - im->hidden_frac));
    }
    ehmn_final_norm(m, hidden, v);
    ehmn_adapt_guard(m, v);
    int32_t frac = ehmn_reduce_head(m, v);
    for (uint32_t first = 0, rows; first < im->vocab_size; first += rows) {
        rows = ehmn_block_rows(m, first);
        ehmn_multiply(m, m->matrices + ehmn_head_index(im), first, rows, frac, EHMN_LOGIT_FRAC, block);
        int32_t before = max;
        max = ehmn_fit_logits(m, first, rows, max, block, logits);
        if (max > before) { /* the logits have no room of their own: what was summed comes down to the new level */
            mass = (mass >> 8) * ehmn_exp2_neg((uint32_t)(max - before)) >> 16; /* a mass is below 2^43 */
        }
        for (uint32_t at = 0, n; at < rows; at += n) {
            n = rows - at < 128u ? rows - at : 128u;
            mass += m->kernels->exp_sum(logits + at, n, max);
        }
        if (g->token >= first && g->token - first < rows) {
            target = logits[g->token - first];
        }
    }
    int32_t score = ehmn_log2(mass) - (24 << 16) + (max - target) * 256;
    *bits = score > 0 ? (uint32_t)score : 0u;
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

/* Bits by which the guard's loss lies above the frozen model's, summed over its vectors: Q16. */
static int64_t rise(ehmn_model *m)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < m->image->n_guard; i++) {
        uint32_t bits = 0;
        (void)ehmn_guard_score(m, i, &bits);
        sum += (int64_t)bits - guard(m)[i].bits;
    }
    return sum;
}

/* frozen + floor((gain - frozen) kept / SETTLE_PARTS) */
static int32_t part_of(int32_t gain, int32_t frozen, uint32_t kept)
{
    int64_t moved = ((int64_t)gain - frozen) * kept;
    int64_t parts = (int64_t)SETTLE_PARTS;
    return frozen + (int32_t)(moved >= 0 ? moved / parts : -((-moved + parts - 1) / parts));
}

static void turn_down(ehmn_gains *gains, const ehmn_gains *learned, uint32_t kept)
{
    gains->scale = part_of(learned->scale, 1 << 16, kept);
    gains->bias = part_of(learned->bias, 0, kept);
    for (uint32_t k = 0; k < EHMN_ROW_ADAPTERS; k++) {
        gains->row[k] = part_of(learned->row[k], 0, kept);
    }
    for (uint32_t i = 0; i < EHMN_MAX_DENSE; i++) {
        gains->dense[i] = part_of(learned->dense[i], 0, kept);
    }
    for (uint32_t o = 0; o < EHMN_NGRAM_ORDERS; o++) {
        for (uint32_t c = 0; c < EHMN_NGRAM_COUNTS; c++) {
            gains->ngram[o][c] = part_of(learned->ngram[o][c], 0, kept);
        }
    }
    for (uint32_t i = 0; i < EHMN_EPISODE_BUCKETS; i++) {
        int32_t share = part_of(learned->share[i], 0, kept);
        gains->share[i] = share > EHMN_SHARE_MIN ? share : EHMN_SHARE_MIN;
    }
}

int32_t ehmn_settle(ehmn_model *m, uint32_t *kept)
{
    if (m == NULL || kept == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    ehmn_end_following(m);
    int64_t limit = (int64_t)SETTLE_LIMIT * m->image->n_guard;
    ehmn_gains *gains = ehmn_model_gains(m);
    ehmn_gains *learned = ehmn_at(m, m->at.kept); /* free while the model does not follow */
    uint32_t low = 0;
    uint32_t high = SETTLE_PARTS;
    *kept = SETTLE_PARTS;
    if (rise(m) <= limit) {
        return EHMN_OK;
    }
    *learned = *gains;
    while (high - low > 1u) {
        uint32_t middle = (low + high) / 2u;
        turn_down(gains, learned, middle);
        if (rise(m) <= limit) {
            low = middle;
        } else {
            high = middle;
        }
    }
    turn_down(gains, learned, low);
    *kept = low;
    return EHMN_OK;
}
