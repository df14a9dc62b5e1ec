/* The frozen encoder: embedding, then for each layer attention over the window and an MLP. */
#include "fixed.h"
#include "kernels_tables.h"
#include "model.h"
#include "values.h"
#include "vectors_first.h"

#include <string.h>

int32_t ehmn_reduce_into(const int32_t *v, uint32_t n, int32_t frac, uint32_t bits, int16_t *mantissas, int8_t *narrow,
                         int32_t *step)
{
#if !defined(EHMN_MVE)
    if (bits == 8u) {
        return ehmn_quantise_narrow(v, n, frac, narrow, step);
    }
#endif
    frac = ehmn_quantise16(v, n, frac, bits == 8u ? 16u : bits, mantissas);
    *step = bits == 8u ? ehmn_narrow(mantissas, n, narrow) : 1;
    return frac;
}

int32_t ehmn_reduce(ehmn_model *m, const int32_t *v, uint32_t n, int32_t frac, uint32_t bits)
{
#if defined(EHMN_ARM_DSP)
    if (bits != 8u) {
        return ehmn_quantise_most(v, n, frac, bits, ehmn_at(m, m->at.mantissas), &m->most);
    }
#endif
    return ehmn_reduce_into(v, n, frac, bits, ehmn_at(m, m->at.mantissas), ehmn_at(m, m->at.narrow), &m->step);
}

void ehmn_scale_products(const ehmn_kernels *kernels, int32_t *v, const int32_t *scale, uint32_t n, int32_t step,
                         int32_t shift)
{
    if (step == 1) {
        kernels->scale(v, scale, n, shift, v);
    } else if (kernels->scale_steps != NULL) {
        kernels->scale_steps(v, scale, n, step, shift);
    } else {
        ehmn_multiply_all(v, n, step);
        kernels->scale(v, scale, n, shift, v);
    }
}

void ehmn_multiply_rows(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                        int32_t out_frac, int32_t *out)
{
    uint32_t stride = ehmn_row_bytes(matrix);
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)first * stride;
    int32_t step = 1;
    if (matrix->weight_bits == 4u) {
        m->kernels->matvec_s4((const uint8_t *)w, rows, matrix->cols, stride, ehmn_at(m, m->at.mantissas), out);
    } else if (matrix->input_bits == 8u) {
        ehmn_matvec_s8(m, matrix, first, rows, out);
        step = m->step;
    } else {
        ehmn_matvec_s16(m, matrix, first, rows, out);
    }
    ehmn_scale_products(m->kernels, out, ehmn_scales(m, matrix) + first, rows, step, matrix->shift + frac - out_frac);
}

void ehmn_multiply(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                   int32_t out_frac, int32_t *out)
{
    m->multiply(m, matrix, first, rows, frac, out_frac, out);
    m->counts.macs += (uint64_t)rows * matrix->cols;
}

void ehmn_add_bias(const ehmn_model *m, const ehmn_matrix *matrix, int32_t *out)
{
    if (matrix->bias_offset != 0) {
        const int32_t *bias = (const int32_t *)(const void *)((const uint8_t *)m->image + matrix->bias_offset);
        ehmn_add_all(out, bias, matrix->rows);
    }
}

static void multiply_all(ehmn_model *m, const ehmn_matrix *matrix, int32_t frac, int32_t out_frac, int32_t *out)
{
    ehmn_multiply(m, matrix, 0, matrix->rows, frac, out_frac, out);
    ehmn_add_bias(m, matrix, out);
}

void ehmn_matvec(ehmn_model *m, const ehmn_matrix *matrix, const int32_t *v, int32_t frac, int32_t out_frac,
                 int32_t *out)
{
    frac = ehmn_reduce(m, v, matrix->cols, frac, matrix->input_bits);
    multiply_all(m, matrix, frac, out_frac, out);
}

/* Add a row of a matrix of 8-bit weights to v[cols] at value_frac. `empty`: v is zero, and a row that fits 30 bits
 * needs no look at saturation. */
static void add_row(ehmn_model *m, const ehmn_matrix *matrix, uint32_t row, int empty, int32_t *v)
{
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)row * matrix->cols;
    int32_t scale = ehmn_scales(m, matrix)[row], shift = matrix->shift - m->image->value_frac;
    if (empty && shift > 0 && shift < 62 && 127u * (uint64_t)(uint32_t)scale >> shift < 1u << 29) {
        ehmn_add_weights_within(v, w, matrix->cols, 1, scale, shift);
    } else {
        ehmn_add_weights(v, w, matrix->cols, 1, scale, shift);
    }
    m->counts.macs += matrix->cols;
}

/* Several matrices with one input, of d_model values in Q20: it is reduced anew only where they take other bits. */
static void multiply_each(ehmn_model *m, const ehmn_matrix *const *matrix, uint32_t n, const int32_t *v,
                          int32_t *const *out)
{
    int32_t frac = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || matrix[i]->input_bits != matrix[i - 1u]->input_bits) {
            frac = ehmn_reduce(m, v, m->image->d_model, EHMN_NORM_FRAC, matrix[i]->input_bits);
        }
        multiply_all(m, matrix[i], frac, m->image->value_frac, out[i]);
    }
}

void ehmn_normalise(const ehmn_model *m, uint32_t index, const int32_t *v, int32_t *out)
{
    const ehmn_image *im = m->image;
    const int32_t *shift = ehmn_vector_data(m, EHMN_VECTOR_NORM_SHIFTS) + (size_t)index * im->d_model;
    if (im->norm == EHMN_NORM_LAYERNORM) {
        int64_t sum = 0;
        for (uint32_t i = 0; i < im->d_model; i++) {
            sum += v[i];
        }
        int32_t mean = (int32_t)ehmn_div_round(sum, im->d_model);
        for (uint32_t i = 0; i < im->d_model; i++) {
            out[i] = ehmn_add(v[i], -mean);
        }
        v = out;
    }
#if defined(EHMN_NEON)
    ehmn_neon_normalise(v, im->d_model, im->value_frac, im->norm_eps_mantissa, im->norm_eps_shift, shift, out);
#else
    ehmn_rms_normalise(v, im->d_model, im->value_frac, im->norm_eps_mantissa, im->norm_eps_shift, out);
    ehmn_shift_all(out, shift, im->d_model);
#endif
}

void ehmn_rotate(const int16_t *turn, uint32_t half, int32_t *v)
{
    for (uint32_t i = ehmn_rotate_some(turn, half, v); i < half; i++) {
        int64_t c = turn[2u * i];
        int64_t s = turn[2u * i + 1u];
        int32_t a = v[i];
        int32_t b = v[i + half];
        if (((a ^ a >> 31) | (b ^ b >> 31)) < 1 << 30) { /* the usual case: no result leaves 32 bits */
            v[i] = ehmn_round_fit(a * c - b * s, 15);
            v[i + half] = ehmn_round_fit(b * c + a * s, 15);
        } else {
            v[i] = ehmn_round_rarely(a * c - b * s, 15);
            v[i + half] = ehmn_round_rarely(b * c + a * s, 15);
        }
    }
}

/* Put the key and value of the present position into the window. kv: keys, then values, int32[2][d_kv]. */
static void store_key_value(ehmn_model *m, uint32_t layer, const int16_t *turn, int32_t *kv)
{
    const ehmn_image *im = m->image;
    uint32_t d_head = ehmn_d_head(im);
    uint32_t d_kv = ehmn_d_kv(im);
    size_t slot = (size_t)layer * im->n_ctx + m->position;
    int8_t *key = (int8_t *)ehmn_at(m, m->at.keys) + slot * d_kv;
    int8_t *value = (int8_t *)ehmn_at(m, m->at.values) + EHMN_VALUES_AT(im, layer, 0u, m->position);
    int8_t *key_frac = (int8_t *)ehmn_at(m, m->at.key_fracs) + slot * im->n_kv_heads;
    int8_t *value_frac = (int8_t *)ehmn_at(m, m->at.value_fracs) + slot * im->n_kv_heads;
    for (uint32_t h = 0; h < im->n_kv_heads; h++) {
        int32_t *k = kv + h * d_head;
        if (im->positions == EHMN_POSITIONS_ROPE) {
            ehmn_rotate(turn, d_head / 2u, k);
        }
        key_frac[h] = (int8_t)ehmn_quantise8(k, d_head, im->value_frac, key + h * d_head);
#if defined(EHMN_VALUES_BY_COLUMN)
        int8_t *row = ehmn_at(m, m->at.mantissas); /* of which a column of the window is made */
        value_frac[h] = (int8_t)ehmn_quantise8(k + d_kv, d_head, im->value_frac, row);
        ehmn_spread(row, d_head, value + h * d_head * im->n_ctx, im->n_ctx);
#else
        value_frac[h] = (int8_t)ehmn_quantise8(k + d_kv, d_head, im->value_frac, value + h * d_head);
#endif
    }
}

/* out[d_head] = attention of one head; q: rotated query, int32[d_head] at value_frac. */
static void attend_head(ehmn_model *m, uint32_t layer, uint32_t head, const int32_t *q, int32_t *out)
{
    const ehmn_image *im = m->image;
    uint32_t d_head = ehmn_d_head(im);
    uint32_t d_kv = ehmn_d_kv(im);
    uint32_t kv_head = head / (im->n_heads / im->n_kv_heads);
    size_t window = (size_t)layer * im->n_ctx;
    const int8_t *keys = (const int8_t *)ehmn_at(m, m->at.keys) + window * d_kv + kv_head * d_head;
    const int8_t *values = (const int8_t *)ehmn_at(m, m->at.values) + EHMN_VALUES_AT(im, layer, kv_head * d_head, 0u);
    const int8_t *key_frac = (const int8_t *)ehmn_at(m, m->at.key_fracs) + window * im->n_kv_heads + kv_head;
    const int8_t *value_frac = (const int8_t *)ehmn_at(m, m->at.value_fracs) + window * im->n_kv_heads + kv_head;
    int32_t *scores = ehmn_at(m, m->at.scores);

    int32_t q_frac = ehmn_reduce(m, q, d_head, im->value_frac, 16u);
    m->kernels->matvec_s16(keys, m->filled, d_head, d_kv, ehmn_at(m, m->at.mantissas), scores);
    int32_t max = ehmn_fit_scores(key_frac, im->n_kv_heads, m->filled, q_frac, EHMN_LOGIT_FRAC, scores);
    uint32_t total = m->kernels->soften(scores, m->filled, max);
    int32_t frac = ehmn_align_weights(value_frac, im->n_kv_heads, m->filled, scores);
    int32_t reciprocal = (int32_t)(((uint64_t)1 << 45) / total); /* total >= 2^15 */
#if defined(EHMN_VALUES_BY_COLUMN)
    m->kernels->matvec_s16(values, d_head, m->filled, im->n_ctx, ehmn_negate16(scores, m->filled), out);
    reciprocal = -reciprocal;
#else
    m->kernels->weighted_sum(values, m->filled, d_head, d_kv, scores, out);
#endif
    ehmn_scale_all(out, d_head, reciprocal, 45 + frac - im->value_frac, out);
    m->counts.macs += 2u * (uint64_t)m->filled * d_head;
}

void ehmn_attend(ehmn_model *m, uint32_t layer, const int16_t *turn, int32_t *qkv, int32_t *out)
{
    const ehmn_image *im = m->image;
    uint32_t d_head = ehmn_d_head(im);
    store_key_value(m, layer, turn, qkv + im->d_model);
    for (uint32_t h = 0; h < im->n_heads; h++) {
        if (im->positions == EHMN_POSITIONS_ROPE) {
            ehmn_rotate(turn, d_head / 2u, qkv + h * d_head);
        }
        attend_head(m, layer, h, qkv + h * d_head, out + h * d_head);
    }
}

/* residual += O attention(norm(residual)) */
static void attention_block(ehmn_model *m, uint32_t layer, const int16_t *turn)
{
    const ehmn_image *im = m->image;
    const ehmn_matrix *matrix = m->matrices + layer * EHMN_MATRICES_PER_LAYER;
    uint32_t d = im->d_model;
    int32_t *residual = ehmn_at(m, m->at.residual);
    int32_t *q = ehmn_at(m, m->at.wide);
    int32_t *kv = q + d;
    int32_t *mixed = ehmn_at(m, m->at.mixed);

    ehmn_normalise(m, 2u * layer, residual, mixed);
    const ehmn_matrix *of[] = {matrix + EHMN_MATRIX_Q, matrix + EHMN_MATRIX_K, matrix + EHMN_MATRIX_V};
    int32_t *to[] = {q, kv, kv + ehmn_d_kv(im)};
    multiply_each(m, of, 3u, mixed, to);
    ehmn_attend(m, layer, turn, q, mixed);
    ehmn_matvec(m, matrix + EHMN_MATRIX_O, mixed, im->value_frac, im->value_frac, q);
    ehmn_add_all(residual, q, d);
}

void ehmn_activate(const ehmn_model *m, int32_t *up)
{
    const ehmn_image *im = m->image;
    if (im->mlp == EHMN_MLP_SWIGLU) {
        m->kernels->gate(up + im->d_hidden, up, im->d_hidden, im->value_frac);
        return;
    }
    for (uint32_t i = 0; i < im->d_hidden; i++) {
        up[i] = ehmn_gelu(up[i], im->value_frac);
    }
}

/* residual += D (silu(G norm(residual)) * U norm(residual)), or without a gate D gelu(U norm(residual)) */
static void mlp_block(ehmn_model *m, uint32_t layer)
{
    const ehmn_image *im = m->image;
    const ehmn_matrix *matrix = m->matrices + layer * EHMN_MATRICES_PER_LAYER;
    int32_t *residual = ehmn_at(m, m->at.residual);
    int32_t *up = ehmn_at(m, m->at.wide);
    int32_t *mixed = ehmn_at(m, m->at.mixed);

    ehmn_normalise(m, 2u * layer + 1u, residual, mixed);
    const ehmn_matrix *of[] = {matrix + EHMN_MATRIX_UP, matrix + EHMN_MATRIX_GATE};
    int32_t *to[] = {up, up + im->d_hidden};
    multiply_each(m, of, im->mlp == EHMN_MLP_GELU ? 1u : 2u, mixed, to);
    ehmn_activate(m, up);
    ehmn_matvec(m, matrix + EHMN_MATRIX_DOWN, up, im->value_frac, im->value_frac, mixed);
    ehmn_add_all(residual, mixed, im->d_model);
}

void ehmn_clear_window(ehmn_model *m)
{
    m->filled = 0;
    m->position = 0;
    memset(ehmn_at(m, m->at.phases), 0, 2u * ehmn_d_head(m->image));
}

void ehmn_begin_position(ehmn_model *m, uint32_t token, int32_t *residual, int16_t *turn)
{
    const ehmn_image *im = m->image;
    memset(residual, 0, 4u * (size_t)im->d_model);
    add_row(m, m->matrices + ehmn_embedding_index(im), token, 1, residual);
    if (im->positions == EHMN_POSITIONS_LEARNED) {
        add_row(m, m->matrices + ehmn_positions_index(im), m->position, 0, residual);
    }
    const uint32_t *phase = ehmn_at(m, m->at.phases);
    for (uint32_t i = 0; im->positions == EHMN_POSITIONS_ROPE && i < ehmn_d_head(im) / 2u; i++) {
        turn[2u * i] = (int16_t)ehmn_cos(phase[i]);
        turn[2u * i + 1u] = (int16_t)ehmn_sin(phase[i]);
    }
    m->filled += m->filled < im->n_ctx;
}

void ehmn_end_position(ehmn_model *m)
{
    const ehmn_image *im = m->image;
    m->position = m->position + 1u == im->n_ctx ? 0u : m->position + 1u;
    if (im->positions == EHMN_POSITIONS_ROPE) {
        uint32_t *phases = ehmn_at(m, m->at.phases);
        const uint32_t *step = (const uint32_t *)ehmn_vector_data(m, EHMN_VECTOR_ROPE);
        for (uint32_t i = 0; i < ehmn_d_head(im) / 2u; i++) {
            phases[i] += step[i];
        }
    }
}

/* Put a token at the next position of the window; the residual holds what comes of it. */
static void encode_position(ehmn_model *m, uint32_t token)
{
    int16_t turn[EHMN_MAX_D_HEAD]; /* the same in every layer and head */
    m->summed = 0;                 /* attention takes the room of the sums */
    ehmn_begin_position(m, token, ehmn_at(m, m->at.residual), turn);
    for (uint32_t layer = 0; layer < m->image->n_layers; layer++) {
        attention_block(m, layer, turn);
        mlp_block(m, layer);
    }
    ehmn_end_position(m);
}

/* Make room for a token: a full window that does not slide begins anew with the last half of its tokens. */
static void open_window(ehmn_model *m)
{
    const ehmn_image *im = m->image;
    const uint32_t *recent = ehmn_at(m, m->at.recent);
    uint32_t again = 0;
    if (im->window == EHMN_WINDOW_RESTART && m->filled == im->n_ctx) {
        ehmn_clear_window(m);
        again = im->n_ctx / 2u;
    }
    if (m->filled == 0 && im->start_token != EHMN_NO_TOKEN) {
        encode_position(m, im->start_token);
    }
    for (uint32_t i = 0; i < again; i++) {
        encode_position(m, recent[(m->newest + i) % again]);
    }
}

void ehmn_end_token(ehmn_model *m, uint32_t token, const int32_t *residual, int16_t *hidden)
{
    const ehmn_image *im = m->image;
    if (im->window == EHMN_WINDOW_RESTART) {
        uint32_t *recent = ehmn_at(m, m->at.recent);
        recent[m->newest] = token;
        m->newest = (m->newest + 1u) % (im->n_ctx / 2u);
    }
    ehmn_fit_all(residual, im->d_model, im->value_frac - im->hidden_frac, hidden);
    m->counts.steps++;
}

int32_t ehmn_encode(ehmn_model *m, uint32_t token, int16_t *hidden)
{
    if (m == NULL || hidden == NULL || token >= m->image->vocab_size) {
        return EHMN_E_ARGUMENT;
    }
    const int32_t *residual = ehmn_at(m, m->at.residual);

    open_window(m);
    encode_position(m, token);
    ehmn_end_token(m, token, residual, hidden);
    return EHMN_OK;
}
