/* Attention of several tokens: their queries are multiplied by the keys of the window at once, before any of them has
 * put its own key and value there. They then do so in turn, and each sees what those before it have put; on aarch64
 * they wait until all have seen it (many_attention_neon.c). For tables that multiply several vectors at once; none of
 * them keeps the values by columns. */
#include "many_attention.h"
#include "fixed.h"
#include "vectors_neon.h"

#include <string.h>

#define LEAST_TOGETHER 4u /* fewer are not worth laying out the keys anew */

/* The keys and values of `n` tokens, rotated and in 8 bits, into their rows; their queries are rotated in place. */
static void make_rows(const ehmn_model *m, const ehmn_attending *tokens, uint32_t first, uint32_t n)
{
    const ehmn_image *im = m->image;
    uint32_t d_head = ehmn_d_head(im), n_kv = im->n_kv_heads;
    for (uint32_t t = first; t < first + n; t++) {
        int32_t *q = ehmn_own(tokens, tokens->qkv, t), *k = q + im->d_model;
        int8_t *row = ehmn_own(tokens, tokens->rows, t), *frac = ehmn_own(tokens, tokens->fracs, t);
        for (uint32_t h = 0; im->positions == EHMN_POSITIONS_ROPE && h < im->n_heads + n_kv; h++) {
            ehmn_rotate(ehmn_own(tokens, tokens->turn, t), d_head / 2u, q + h * d_head);
        }
        for (uint32_t h = 0; h < 2u * n_kv; h++) {
            frac[h] = (int8_t)ehmn_quantise8(k + h * d_head, d_head, im->value_frac, row + h * d_head);
        }
    }
}

#if !defined(EHMN_NEON)

static void exchange(int8_t *a, int8_t *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int8_t was = a[i];
        a[i] = b[i];
        b[i] = was;
    }
}

/* Exchange the rows of the window at a token's position for those that it holds. */
static void exchange_rows(const ehmn_at_head *h, uint32_t token)
{
    const ehmn_image *im = h->m->image;
    uint32_t d_head = ehmn_d_head(im), d_kv = ehmn_d_kv(im), position = ehmn_position_of(h, token);
    int8_t *row = (int8_t *)ehmn_own(h->tokens, h->tokens->rows, h->first + token) + h->kv_head * d_head;
    int8_t *frac = (int8_t *)ehmn_own(h->tokens, h->tokens->fracs, h->first + token) + h->kv_head;
    exchange(h->keys + (size_t)position * d_kv, row, d_head);
    exchange(h->values + (size_t)position * d_kv, row + d_kv, d_head);
    exchange(h->key_frac + (size_t)position * im->n_kv_heads, frac, 1u);
    exchange(h->value_frac + (size_t)position * im->n_kv_heads, frac + im->n_kv_heads, 1u);
}

/* What the sum of the window's values by a token's weights becomes its attention by. */
typedef struct {
    int32_t factor;
    int32_t shift;
} weighing;

/* One token's weights of the rows of the window, which holds it and those before it, in place of its scores; these are
 * there but for the tokens that are at work. */
static weighing weigh(const ehmn_at_head *h, uint32_t token, int32_t q_frac)
{
    ehmn_model *m = h->m;
    const ehmn_image *im = m->image;
    uint32_t d_head = ehmn_d_head(im), d_kv = ehmn_d_kv(im), n_kv = im->n_kv_heads, filled = ehmn_filled_at(h, token);
    const int16_t *query = ehmn_own(h->tokens, h->tokens->query, h->first + token);
    int32_t *scores = ehmn_own(h->tokens, h->tokens->scores, h->first + token);
    uint32_t before_end = im->n_ctx - h->position, new = token + 1u < before_end ? token + 1u : before_end;
    m->kernels->matvec_s16(h->keys + (size_t)h->position * d_kv, new, d_head, d_kv, query, scores + h->position);
    if (new <= token) {
        m->kernels->matvec_s16(h->keys, token + 1u - new, d_head, d_kv, query, scores);
    }
    int32_t max = ehmn_fit_scores(h->key_frac, n_kv, filled, q_frac, EHMN_LOGIT_FRAC, scores);
    uint32_t total = m->kernels->soften(scores, filled, max);
    int32_t frac = ehmn_align_weights(h->value_frac, n_kv, filled, scores);
    m->counts.macs += 2u * (uint64_t)filled * d_head;
    return (weighing){(int32_t)(((uint64_t)1 << 45) / total), 45 + frac - im->value_frac}; /* total >= 2^15 */
}

/* The sums of all `n` tokens at once, by the window as it is after the last of them, and by the rows that it held
 * before: they are in the tokens' own. Of either, weights are zero where a token does not see it. */
static void sum_together(const ehmn_at_head *h, uint32_t n, int32_t *out)
{
    const ehmn_kernels *kernels = h->m->kernels;
    const ehmn_attending *tokens = h->tokens;
    const ehmn_image *im = h->m->image;
    uint32_t d_head = ehmn_d_head(im), d_kv = ehmn_d_kv(im), stride = tokens->stride / 4u;
    int32_t *weights = ehmn_own(tokens, tokens->scores, h->first), *before = weights + im->n_ctx;
    for (uint32_t t = 0; t < n; t++) {
        int32_t *w = weights + (size_t)t * stride;
        uint32_t filled = ehmn_filled_at(h, t);
        memset(w + im->n_ctx, 0, 4u * (t + 1u));
        for (uint32_t k = t + 1u; k < n; k++) {
            uint32_t position = ehmn_position_of(h, k);
            w[im->n_ctx + k] = position < filled ? w[position] : 0;
            w[position] = 0;
        }
    }
    kernels->weighted_sums(h->values, ehmn_filled_at(h, n - 1u), d_head, d_kv, weights, n, stride, 0, out, stride);
    if (ehmn_position_of(h, n - 1u) < ehmn_filled_at(h, 0)) {
        const int8_t *rows = (const int8_t *)ehmn_own(tokens, tokens->rows, h->first) + h->kv_head * d_head + d_kv;
        kernels->weighted_sums(rows, n, d_head, tokens->stride, before, n, stride, 1, out, stride);
    }
}

/* `n` tokens, which end with their rows in the window if `stay`, else as it was. */
static void attend_head(const ehmn_at_head *h, uint32_t head, uint32_t n, int stay)
{
    ehmn_model *m = h->m;
    const ehmn_attending *tokens = h->tokens;
    uint32_t d_head = ehmn_d_head(m->image), n_ctx = m->image->n_ctx;
    uint32_t before = h->filled < n_ctx ? h->filled - 1u : n_ctx; /* rows that are there, or about to be written */
    int32_t q_frac[TOGETHER], *out = (int32_t *)ehmn_own(tokens, tokens->out, h->first) + head * d_head;
    weighing by[TOGETHER];
    for (uint32_t t = 0; t < n; t++) {
        const int32_t *q = (const int32_t *)ehmn_own(tokens, tokens->qkv, h->first + t) + head * d_head;
        int16_t *query = ehmn_own(tokens, tokens->query, h->first + t);
        q_frac[t] = ehmn_quantise16(q, d_head, m->image->value_frac, 16u, query);
    }
    m->kernels->matmat_s16(h->keys, before, d_head, ehmn_d_kv(m->image), ehmn_own(tokens, tokens->query, h->first), n,
                           tokens->stride / 2u, ehmn_own(tokens, tokens->scores, h->first), tokens->stride / 4u);
    for (uint32_t t = 0; t < n; t++) {
        exchange_rows(h, t);
        by[t] = weigh(h, t, q_frac[t]);
        if (m->kernels->weighted_sums == NULL) {
            m->kernels->weighted_sum(h->values, ehmn_filled_at(h, t), d_head, ehmn_d_kv(m->image),
                                     ehmn_own(tokens, tokens->scores, h->first + t), ehmn_own(tokens, out, t));
        }
    }
    if (m->kernels->weighted_sums != NULL) {
        sum_together(h, n, out);
    }
    for (uint32_t t = 0; t < n; t++) {
        ehmn_scale_all(ehmn_own(tokens, out, t), d_head, by[t].factor, by[t].shift, ehmn_own(tokens, out, t));
    }
    for (uint32_t t = 0; t < n && !stay; t++) {
        exchange_rows(h, t);
    }
}

#endif

static void attend_together(ehmn_model *m, uint32_t layer, const ehmn_attending *tokens, uint32_t first, uint32_t n)
{
    const ehmn_image *im = m->image;
    uint32_t d_head = ehmn_d_head(im);
    size_t window = (size_t)layer * im->n_ctx;
    make_rows(m, tokens, first, n);
    for (uint32_t kv = 0; kv < im->n_kv_heads; kv++) {
        size_t row = window * ehmn_d_kv(im) + kv * d_head, frac = window * im->n_kv_heads + kv;
        ehmn_at_head h = {m, tokens, first, m->position, m->filled, kv,
                     (int8_t *)ehmn_at(m, m->at.keys) + row, (int8_t *)ehmn_at(m, m->at.values) + row,
                     (int8_t *)ehmn_at(m, m->at.key_fracs) + frac, (int8_t *)ehmn_at(m, m->at.value_fracs) + frac};
#if defined(EHMN_NEON)
        ehmn_neon_attend_heads(&h, n);
#else
        for (uint32_t k = 0, shared = im->n_heads / im->n_kv_heads; k < shared; k++) {
            attend_head(&h, kv * shared + k, n, k + 1u == shared);
        }
#endif
    }
}

void ehmn_attend_many(ehmn_model *m, uint32_t layer, const ehmn_attending *tokens)
{
    uint32_t n_ctx = m->image->n_ctx, most = n_ctx < TOGETHER ? n_ctx : TOGETHER;
    for (uint32_t first = 0, n; first < tokens->n; first += n) {
        n = tokens->n - first < most ? tokens->n - first : most;
        if (n < LEAST_TOGETHER) {
            n = 1u;
            ehmn_attend(m, layer, ehmn_own(tokens, tokens->turn, first), ehmn_own(tokens, tokens->qkv, first),
                        ehmn_own(tokens, tokens->out, first));
        } else {
            attend_together(m, layer, tokens, first, n);
        }
        m->position = m->position + n < n_ctx ? m->position + n : m->position + n - n_ctx;
        m->filled = m->filled + n < n_ctx ? m->filled + n : n_ctx;
    }
}
