/* Memories of words: a bias of every token, n-grams, and episodes, which are past states like the present one and what
 * came then. SPEC.md, "Learning". */
#include "model.h"
#include "vectors_neon.h"

#include <string.h>

_Static_assert(EHMN_MAX_VOCAB <= EHMN_NGRAM_TOKEN_MASK + 1u, "a token must fit an n-gram's slot");

/* A hash whose bits all depend on all of its input's: two rounds of multiply and xor-shift. */
static uint32_t mix(uint32_t a)
{
    a ^= a >> 16;
    a *= 0x7FEB352Du;
    a ^= a >> 15;
    a *= 0x846CA68Bu;
    return a ^ (a >> 16);
}

int ehmn_context(const ehmn_model *m, uint32_t k, uint32_t *hash)
{
    uint32_t a = 0;
    if (m->n_history < k) {
        return 0;
    }
    for (uint32_t i = 0; i < k; i++) {
        a = mix(a * 0x9E3779B1u + m->history[i] + 1u);
    }
    *hash = a;
    return 1;
}

uint32_t ehmn_slot(uint32_t hash, uint32_t slots)
{
    return (uint32_t)((uint64_t)hash * slots >> 32);
}

/* Slot of order `o` in the present context, and its tag; NULL if the order is off or its context is not there. */
static uint32_t *ngram_slot(const ehmn_model *m, uint32_t o, uint32_t *tag)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t *slots = ehmn_in_delta(m, m->in.ngrams);
    uint32_t hash;
    if (rule->ngram_order[o] == 0 || rule->ngram_slots == 0 || !ehmn_context(m, rule->ngram_order[o], &hash)) {
        return NULL;
    }
    for (uint32_t before = 0; before < o; before++) {
        slots += rule->ngram_order[before] != 0 ? rule->ngram_slots : 0u;
    }
    *tag = hash & EHMN_NGRAM_TAG_MASK;
    return slots + ehmn_slot(hash, rule->ngram_slots);
}

static void recall_ngrams(ehmn_model *m)
{
    const int16_t *logits = ehmn_at(m, m->at.logits);
    for (uint32_t o = 0; o < EHMN_NGRAM_ORDERS; o++) {
        uint32_t tag;
        const uint32_t *slot = ngram_slot(m, o, &tag);
        m->ngram_hit[o] = 0;
        if (slot == NULL || ehmn_ngram_count(*slot) == 0 || ehmn_ngram_tag(*slot) != tag) {
            continue;
        }
        uint32_t token = ehmn_ngram_token(*slot);
        int32_t gain = ehmn_model_gains(m)->ngram[o][ehmn_ngram_count(*slot)];
        ehmn_change_logit(m, token, ehmn_sat16(logits[token] + ehmn_round_shift(gain, 16 - EHMN_LOGIT_FRAC)));
        m->ngram_hit[o] = *slot;
    }
}

/* The probability of `token`, Q16. */
static int32_t probability(const ehmn_model *m, uint32_t token)
{
    const int16_t *logits = ehmn_at(m, m->at.logits);
    uint64_t p = ehmn_exp2_neg((uint32_t)(m->max_logit - logits[token]));
    return (int32_t)((p << 16) / m->mass);
}

void ehmn_learn_ngrams(ehmn_model *m, uint32_t token, int write)
{
    for (uint32_t o = 0; o < EHMN_NGRAM_ORDERS; o++) {
        uint32_t tag;
        uint32_t *slot = ngram_slot(m, o, &tag);
        if (slot == NULL) {
            continue;
        }
        uint32_t count = ehmn_ngram_count(*slot);
        int same = ehmn_ngram_token(*slot) == token;
        uint32_t hit = m->ngram_hit[o];
        if (hit != 0) {
            int32_t *gain = &ehmn_model_gains(m)->ngram[o][ehmn_ngram_count(hit)];
            uint32_t foretold = ehmn_ngram_token(hit);
            int32_t surprise = (foretold == token ? 65536 : 0) - probability(m, foretold);
            int32_t moved = ehmn_add(*gain, ehmn_mul(surprise, m->image->rule.eta_ngram, 16));
            *gain = ehmn_clamp(moved, -EHMN_NGRAM_GAIN_MAX, EHMN_NGRAM_GAIN_MAX);
        }
        if (!write) {
            continue;
        }
        if (count > 0 && ehmn_ngram_tag(*slot) == tag && same) {
            *slot += count < EHMN_NGRAM_COUNTS - 1u ? 1u << EHMN_NGRAM_COUNT_SHIFT : 0u;
        } else if (count > 1u) {
            *slot = (*slot & ((1u << EHMN_NGRAM_COUNT_SHIFT) - 1u)) | (count / 2u) << EHMN_NGRAM_COUNT_SHIFT;
        } else {
            *slot = token | tag << EHMN_NGRAM_TAG_SHIFT | 1u << EHMN_NGRAM_COUNT_SHIFT;
        }
    }
}

void ehmn_learn_bias(ehmn_model *m, uint32_t token, const uint32_t *negative, int write)
{
    const ehmn_rule *rule = &m->image->rule;
    int16_t *bias = ehmn_in_delta(m, m->in.bias);
    uint32_t n = rule->n_negatives;
    int32_t log_n = ehmn_bit_length(n) - 1;
    if (rule->bias_step == 0) {
        return;
    }
    int64_t difference = (int64_t)n * bias[token]; /* of what came and the mean of what did not, n times */
    for (uint32_t s = 0; s < n; s++) {
        difference -= bias[negative[s]];
    }
    ehmn_move_gain(m, &ehmn_model_gains(m)->bias, difference, EHMN_BIAS_FRAC + log_n);
    if (!write) {
        return;
    }
    bias[token] = ehmn_sat16(bias[token] + rule->bias_step);
    for (uint32_t s = 0, same; s < n; s += same) {
        same = ehmn_run_length(negative, n, s);
        bias[negative[s]] = ehmn_sat16(bias[negative[s]] + ehmn_round_shift(-(int64_t)same * rule->bias_step, log_n));
    }
}

void ehmn_decay_bias(ehmn_model *m, int32_t factor)
{
    const ehmn_rule *rule = &m->image->rule;
    uint32_t vocab = m->image->vocab_size;
    int16_t *bias = ehmn_in_delta(m, m->in.bias);
    uint32_t share = (vocab + 127u) / 128u;
    uint32_t first = share * (uint32_t)(ehmn_model_delta(m)->learned & 127u);
    int32_t decay = rule->bias_decay * factor > 65535 ? 65535 : rule->bias_decay * factor;
    if (rule->bias_step == 0) {
        return;
    }
    for (uint32_t v = first; v < first + share && v < vocab; v++) {
        bias[v] = (int16_t)(bias[v] - ehmn_mul(bias[v], decay, 16));
    }
}

static void make_key(ehmn_model *m)
{
    const int32_t *x = ehmn_at(m, m->at.standard), *end = x + m->image->d_model;
    uint32_t *key = ehmn_at(m, m->at.key);
#if defined(EHMN_NEON)
    for (; end - x >= 32; x += 32) {
        *key++ = ehmn_neon_signs(x);
    }
#endif
    for (; x < end; key++) {
        uint32_t word = 0;
        for (uint32_t bit = 1; x < end && bit != 0; bit <<= 1) {
            word |= *x++ > 0 ? bit : 0u;
        }
        *key = word;
    }
}

/* The nearest episodes in order: distance 2^16 + index; UINT32_MAX where there is none. */
typedef struct {
    uint32_t n;
    uint32_t found[EHMN_RECALLED];
} nearest;

_Static_assert(EHMN_MAX_SLOTS <= 1u << 16 && EHMN_MAX_D_MODEL < 1u << 16, "index and distance must fit 16 bits each");
_Static_assert(EHMN_RECALLED == 16, "ehmn_neon_insert counts on it");

/* Take in one that is nearer than the last, which falls out. */
static void insert(uint32_t *found, uint32_t key)
{
#if defined(EHMN_NEON)
    ehmn_neon_insert(found, key);
#else
    uint32_t *at = found + EHMN_RECALLED - 1u;
    for (; at > found && at[-1] > key; at--) {
        *at = at[-1];
    }
    *at = key;
#endif
}

static void find_nearest(ehmn_model *m, nearest *among)
{
    const uint32_t *keys = ehmn_in_delta(m, m->in.keys), *key = ehmn_at(m, m->at.key);
    uint32_t words = ehmn_key_words(m->image), written = ehmn_model_delta(m)->written;
    uint32_t n = written < m->image->rule.episodes ? written : m->image->rule.episodes;
    const uint32_t *last = among->found + EHMN_RECALLED - 1u;
    memset(among->found, 0xFF, sizeof among->found);
    among->n = n < EHMN_RECALLED ? n : EHMN_RECALLED;
    for (uint32_t i = 0, distance = 0; i < n; i++) {
        i += m->kernels->find_near(keys + (size_t)i * words, n - i, key, words, *last >> 16, &distance);
        if (i < n) {
            insert(among->found, distance << 16 | i);
        }
    }
    m->counts.macs += (uint64_t)n * words;
}

/* cos(pi distance / d_model), Q15: 32767 for equal keys. */
static int32_t similarity(const ehmn_model *m, uint32_t distance)
{
    return ehmn_cos((uint32_t)(((uint64_t)distance << 31) / m->image->d_model));
}

/* Sum the weights of the recalled episodes by token: fills weight[0..] and m->recalled; returns the sum of all. */
static uint64_t weigh(ehmn_model *m, const nearest *among, uint64_t *weight)
{
    const uint32_t *tokens = ehmn_in_delta(m, m->in.tokens);
    int32_t sharpness = m->image->rule.sharpness;
    int32_t least = ehmn_mul(32768 - similarity(m, among->found[0] >> 16), sharpness, 15);
    uint64_t total = 0;
    m->n_recalled = 0;
    for (uint32_t i = 0; i < among->n; i++) {
        int32_t below = ehmn_mul(32768 - similarity(m, among->found[i] >> 16), sharpness, 15) - least;
        uint32_t w = ehmn_exp2_neg((uint32_t)below);
        uint32_t token = tokens[among->found[i] & 0xFFFFu], at = 0;
        while (at < m->n_recalled && m->recalled[at].token != token) {
            at++;
        }
        if (at == m->n_recalled) {
            m->recalled[m->n_recalled++].token = token;
            weight[at] = 0;
        }
        weight[at] += w;
        total += w;
    }
    return total;
}

/* 2^(v / 2^8) in Q24, of v at most 2^13. */
static uint64_t exp2_of(int32_t v)
{
    uint32_t whole = v > 0 ? ((uint32_t)v + 255u) >> 8 : 0u;
    return (uint64_t)ehmn_exp2_neg((whole << 8) - (uint32_t)v) << whole;
}

/* Mix what the episodes say into the logits. Its level stays what it was without them, so that nothing has to be summed
 * again: no token's mass can become more than 2^23 times that of the level (the odds are below 20, tokens 2^18). */
static void recall_episodes(ehmn_model *m)
{
    int16_t *logits = ehmn_at(m, m->at.logits);
    nearest among;
    uint64_t weight[EHMN_RECALLED];
    make_key(m);
    find_nearest(m, &among);
    if (among.n == 0) {
        return;
    }
    int32_t best = similarity(m, among.found[0] >> 16);
    m->bucket = best > 0 ? (uint32_t)best >> 11 : 0u;
    uint64_t share = (uint64_t)ehmn_model_gains(m)->share[m->bucket];
    uint64_t odds = (share << 16) / (65536u - share);
    uint64_t extra = (m->mass >> 8) * odds >> 8;
    uint64_t total = weigh(m, &among, weight);
    int32_t max = m->max_logit;
    for (uint32_t i = 0; i < m->n_recalled; i++) {
        ehmn_recall *r = m->recalled + i;
        uint64_t p = ehmn_exp2_neg((uint32_t)(max - logits[r->token]));
        uint64_t more = (extra >> 8) * ((weight[i] << 16) / total) >> 8;
        r->responsibility = p + more > 0 ? (uint32_t)((more << 16) / (p + more)) : 0u;
        r->aside = logits[r->token];
        if (p + more > 0) {
            int32_t log = ehmn_round_shift(ehmn_log2(p + more) - (24 << 16), 16 - EHMN_LOGIT_FRAC);
            logits[r->token] = ehmn_sat16(max + log);
            m->total += exp2_of(logits[r->token] - max) - p;
        }
    }
}

void ehmn_swap_recalled(ehmn_model *m)
{
    int16_t *logits = ehmn_at(m, m->at.logits);
    for (ehmn_recall *r = m->recalled, *end = r + m->n_recalled; r < end; r++) {
        int32_t other = logits[r->token];
        logits[r->token] = (int16_t)r->aside;
        r->aside = other;
    }
}

void ehmn_learn_episodes(ehmn_model *m, uint32_t token, int write)
{
    ehmn_delta *delta = ehmn_model_delta(m);
    uint32_t episodes = m->image->rule.episodes;
    uint32_t words = ehmn_key_words(m->image);
    const uint32_t *key = ehmn_at(m, m->at.key);
    if (m->n_recalled > 0) {
        int32_t *share = &ehmn_model_gains(m)->share[m->bucket];
        int32_t responsibility = 0;
        for (uint32_t i = 0; i < m->n_recalled; i++) {
            responsibility = m->recalled[i].token == token ? (int32_t)m->recalled[i].responsibility : responsibility;
        }
        int32_t moved = ehmn_follow_value(*share, responsibility, m->image->rule.eta_episode);
        *share = ehmn_clamp(moved, EHMN_SHARE_MIN, EHMN_SHARE_MAX);
    }
    if (!write || episodes == 0) {
        return;
    }
    uint32_t at = delta->written % episodes;
    uint32_t *stored = (uint32_t *)ehmn_in_delta(m, m->in.keys) + (size_t)at * words;
    for (uint32_t w = 0; w < words; w++) {
        stored[w] = key[w];
    }
    ((uint32_t *)ehmn_in_delta(m, m->in.tokens))[at] = token;
    delta->written++;
    if (delta->written >= EHMN_MAX_WRITTEN) { /* the ring stays full, and the place in it stays */
        delta->written = episodes + delta->written % episodes;
    }
}

void ehmn_remember(ehmn_model *m)
{
    recall_ngrams(m);
    ehmn_summarise(m);
    m->n_recalled = 0;
    if (m->image->rule.episodes > 0) {
        recall_episodes(m);
    }
}
