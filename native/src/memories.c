/* Memories of words: a bias of every token, n-grams, and episodes, which are past states like the present one and what
 * came then. SPEC.md, "Learning". */
#include "model.h"

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

void ehmn_contexts(const ehmn_model *m, uint32_t n, uint32_t *hash)
{
    uint32_t a = 0;
    for (uint32_t i = 0; i < n && i < m->n_history; i++) {
        a = mix(a * 0x9E3779B1u + m->history[i] + 1u);
        hash[i] = a;
    }
}

uint32_t ehmn_slot(uint32_t hash, uint32_t slots)
{
    return (uint32_t)((uint64_t)hash * slots >> 32);
}

static void recall_ngrams(ehmn_model *m)
{
    const ehmn_rule *rule = &m->image->rule;
    const int16_t *logits = ehmn_at(m, m->at.logits);
    const uint32_t *slots = ehmn_in_delta(m, m->in.ngrams);
    uint32_t hash[EHMN_MAX_ORDER], first = 0; /* slot of the order */
    ehmn_contexts(m, EHMN_MAX_ORDER, hash);
    for (uint32_t o = 0; o < EHMN_NGRAM_ORDERS; o++) {
        uint32_t order = rule->ngram_order[o];
        m->ngram_hit[o] = 0;
        m->ngram_at[o] = 0;
        if (order == 0 || rule->ngram_slots == 0) {
            continue;
        }
        if (m->n_history >= order) {
            uint32_t context = hash[order - 1u], at = first + ehmn_slot(context, rule->ngram_slots), slot = slots[at];
            m->ngram_at[o] = at + 1u;
            m->ngram_tag[o] = context & EHMN_NGRAM_TAG_MASK;
            if (ehmn_ngram_count(slot) != 0 && ehmn_ngram_tag(slot) == m->ngram_tag[o]) {
                uint32_t token = ehmn_ngram_token(slot);
                int32_t gain = ehmn_model_gains(m)->ngram[o][ehmn_ngram_count(slot)];
                ehmn_change_logit(m, token, ehmn_sat16(logits[token] + ehmn_round_shift(gain, 16 - EHMN_LOGIT_FRAC)));
                m->ngram_hit[o] = slot;
            }
        }
        first += rule->ngram_slots;
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
        if (m->ngram_at[o] == 0) {
            continue;
        }
        uint32_t *slot = (uint32_t *)ehmn_in_delta(m, m->in.ngrams) + m->ngram_at[o] - 1u, tag = m->ngram_tag[o];
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

void ehmn_learn_bias(ehmn_model *m, uint32_t token, const uint32_t *drawn, uint32_t n, int write)
{
    const ehmn_rule *rule = &m->image->rule;
    int16_t *bias = ehmn_in_delta(m, m->in.bias);
    const uint32_t *end = drawn + n;
    int32_t log_n = ehmn_bit_length(rule->n_negatives) - 1, step = rule->bias_step;
    if (step == 0) {
        return;
    }
    /* of what came and the mean of what did not, as many times as there are negatives */
    int32_t difference = (int32_t)rule->n_negatives * bias[token];
    for (const uint32_t *d = drawn; d < end; d++) {
        difference -= ehmn_drawn_times(*d) * bias[ehmn_drawn_token(*d)];
    }
    ehmn_move_gain(m, &ehmn_model_gains(m)->bias, difference, EHMN_BIAS_FRAC + log_n);
    if (!write) {
        return;
    }
    bias[token] = ehmn_sat16(bias[token] + step);
    for (; drawn < end; drawn++) {
        int16_t *b = bias + ehmn_drawn_token(*drawn);
        *b = (int16_t)ehmn_sat16(*b + ehmn_round_shift32(-ehmn_drawn_times(*drawn) * step, log_n));
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
        bias[v] = (int16_t)(bias[v] - ehmn_round_shift32(bias[v] * decay, 16)); /* fits: each has 16 bits */
    }
}

_Static_assert(EHMN_MAX_SLOTS <= 1u << 16 && EHMN_MAX_D_MODEL < 1u << 16, "index and distance must fit 16 bits each");

/* The nearest episodes in order, 2^16 distance + index; returns how many. */
static uint32_t find_nearest(ehmn_model *m, uint32_t *found)
{
    uint32_t words = ehmn_key_words(m->image), written = ehmn_model_delta(m)->written;
    uint32_t n = written < m->image->rule.episodes ? written : m->image->rule.episodes;
    memset(found, 0xFF, EHMN_RECALLED * sizeof *found);
    m->kernels->nearest(ehmn_in_delta(m, m->in.keys), n, ehmn_at(m, m->at.key), words, found);
    m->counts.macs += (uint64_t)n * words;
    return n < EHMN_RECALLED ? n : EHMN_RECALLED;
}

_Static_assert(EHMN_MAX_D_MODEL <= 1u << 12, "what similarity divides must fit 32 bits");

/* cos(pi distance / d_model), Q15: 32767 for equal keys. The angle floor(2^31 distance / d_model) in two divisions. */
static int32_t similarity(const ehmn_model *m, uint32_t distance)
{
    uint32_t d = m->image->d_model, high = (distance << 19) / d, rest = (distance << 19) % d;
    return ehmn_cos((high << 12) + (rest << 12) / d);
}

/* floor(2^16 part / whole) of part <= whole <= 2^28, where processors of 32 bits divide no more at
 * once four bits at a time. */
static uint32_t share_of(uint32_t part, uint32_t whole)
{
#if UINTPTR_MAX > UINT32_MAX
    return (uint32_t)(((uint64_t)part << 16) / whole);
#else
    uint32_t share = 0;
    for (uint32_t bits = 0; bits <= 16u; bits += 4u) {
        share = share << 4 | part / whole;
        part = part % whole << 4;
    }
    return share;
#endif
}

/* Sum the weights of the n recalled episodes by token: fills m->recalled, with the parts of the whole. Of equal
 * distances, which stand side by side, all weigh the same. */
static void weigh(ehmn_model *m, const uint32_t *found, uint32_t n, int32_t best)
{
    const uint32_t *tokens = ehmn_in_delta(m, m->in.tokens);
    int32_t sharpness = m->image->rule.sharpness;
    int32_t least = ehmn_mul(32768 - best, sharpness, 15);
    uint32_t distance = found[0] >> 16, weight = 1u << 24, total = 0;
    /* bits that tokens have set by their lowest bits: of most, which are new, no other is looked at */
    uint32_t seen = 0;
    ehmn_recall *end = m->recalled;
    for (uint32_t i = 0; i < n; i++) {
        if (found[i] >> 16 != distance) {
            distance = found[i] >> 16;
            weight = ehmn_exp2_neg((uint32_t)(ehmn_mul(32768 - similarity(m, distance), sharpness, 15) - least));
        }
        uint32_t token = tokens[found[i] & 0xFFFFu], bit = 1u << (token & 31u);
        ehmn_recall *r = (seen & bit) != 0 ? m->recalled : end;
        end->token = token;
        while (r->token != token) {
            r++;
        }
        seen |= bit;
        if (r == end) {
            end++;
            r->part = 0;
        }
        r->part += weight;
        total += weight;
    }
    m->n_recalled = (uint32_t)(end - m->recalled);
    while (end-- > m->recalled) {
        end->part = share_of(end->part, total);
    }
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
    uint32_t found[EHMN_RECALLED];
    ehmn_signs(ehmn_at(m, m->at.standard), m->image->d_model, ehmn_at(m, m->at.key));
    uint32_t n = find_nearest(m, found);
    if (n == 0) {
        return;
    }
    int32_t best = similarity(m, found[0] >> 16), max = m->max_logit;
    m->bucket = best > 0 ? (uint32_t)best >> 11 : 0u;
    weigh(m, found, n, best);
    uint32_t share = (uint32_t)ehmn_model_gains(m)->share[m->bucket];
    uint64_t extra = (m->mass >> 8) * ((share << 16) / (65536u - share)) >> 16;
    m->extra = extra;
    uint64_t total = m->total;
    for (ehmn_recall *r = m->recalled, *end = r + m->n_recalled; r < end; r++) {
        uint64_t p = ehmn_exp2_neg((uint32_t)(max - logits[r->token]));
        uint64_t mass = p + (extra * r->part >> 8);
        r->aside = logits[r->token];
        if (mass > 0) {
            int32_t log = ehmn_round_shift32(ehmn_log2(mass) - (24 << 16), 16 - EHMN_LOGIT_FRAC);
            logits[r->token] = ehmn_sat16(max + log);
            total += exp2_of(logits[r->token] - max) - p;
        }
    }
    m->total = total;
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
    const int16_t *logits = ehmn_at(m, m->at.logits); /* without the episodes */
    ehmn_delta *delta = ehmn_model_delta(m);
    uint32_t episodes = m->image->rule.episodes;
    uint32_t words = ehmn_key_words(m->image);
    const uint32_t *key = ehmn_at(m, m->at.key);
    if (m->n_recalled > 0) {
        int32_t *share = &ehmn_model_gains(m)->share[m->bucket];
        uint32_t part = 0;
        for (uint32_t i = 0; i < m->n_recalled; i++) {
            part = m->recalled[i].token == token ? m->recalled[i].part : part;
        }
        uint64_t more = m->extra * part >> 8;
        uint64_t mass = more + ehmn_exp2_neg((uint32_t)(m->max_logit - logits[token]));
        int32_t responsibility = mass > 0 ? (int32_t)((more << 16) / mass) : 0;
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
