/* Many tokens: the encoder, and the head where nothing is learned, run on several at a time, so that each weight is
 * read once for all of them. Each token has a record in the caller's work memory. What attention makes of the window
 * stays in order: a token may take the place there of another that an earlier one still sees. */
#include "model.h"
#include "vectors_neon.h"

#include <string.h>

#define RECORD_ALIGN 64u
#define HEAD_ROWS 64u /* of the head's matrix, whose products wait in the records at one time */

/* Offsets in a token's record. What the encoder and the head need of it besides the first three shares its room. */
typedef struct {
    uint32_t hidden;    /* int16[d_model] */
    uint32_t scale;     /* input_scale, of the mantissas */
    uint32_t mantissas; /* int16[max(d_model, d_hidden)]: input of a matrix */
    uint32_t narrow;    /* int8[max(d_model, d_hidden)]: the same of a matrix with 8-bit inputs */
    uint32_t residual;  /* encoder: int32[d_model] */
    uint32_t wide;      /* int32[max(2 d_hidden, d_model + 2 d_kv)] */
    uint32_t mixed;     /* int32[d_model] */
    uint32_t turn;      /* int16[d_head] */
    uint32_t scores;    /* int32[EHMN_ATTENDING_SCORES(n_ctx)] */
    uint32_t query;     /* int16[d_head] */
    uint32_t fracs;     /* int8[2 n_kv_heads] */
    uint32_t standard;  /* head: int32[d_model] */
    uint32_t block;     /* int32[HEAD_ROWS] */
    uint32_t max;       /* int32: the largest logit */
    uint32_t logits;    /* int16[vocab_size] */
    uint64_t total;
} record;

/* A mantissa stands for step * 2^-frac. */
typedef struct {
    int32_t frac;
    int32_t step; /* 1 of 16-bit mantissas */
} input_scale;

/* Tokens that are at work together. */
typedef struct {
    ehmn_model *m;
    uint8_t *work;
    record at;
    uint32_t n;
    int own_table; /* of kernels: one that somebody has changed may not mean its products of several vectors */
} batch;

static record layout_record(const ehmn_image *im)
{
    uint64_t d = im->d_model;
    uint64_t at = 0;
    record r;
    r.hidden = ehmn_take(&at, RECORD_ALIGN, 2u * d);
    uint64_t longest = d > im->d_hidden ? d : im->d_hidden;
    r.scale = ehmn_take(&at, RECORD_ALIGN, sizeof(input_scale));
    r.mantissas = ehmn_take(&at, RECORD_ALIGN, 2u * longest);
    r.narrow = ehmn_take(&at, RECORD_ALIGN, longest);
    uint64_t head = at;
    r.residual = ehmn_take(&at, RECORD_ALIGN, 4u * d);
    r.wide = ehmn_take(&at, RECORD_ALIGN, 4u * (uint64_t)ehmn_wide(im));
    r.mixed = ehmn_take(&at, RECORD_ALIGN, 4u * d);
    r.turn = ehmn_take(&at, RECORD_ALIGN, 2u * (uint64_t)ehmn_d_head(im));
    r.scores = ehmn_take(&at, RECORD_ALIGN, 4u * (uint64_t)EHMN_ATTENDING_SCORES(im->n_ctx));
    r.query = ehmn_take(&at, RECORD_ALIGN, 2u * (uint64_t)ehmn_d_head(im));
    r.fracs = ehmn_take(&at, RECORD_ALIGN, 2u * (uint64_t)im->n_kv_heads);
    r.standard = ehmn_take(&head, RECORD_ALIGN, 4u * d);
    r.block = ehmn_take(&head, RECORD_ALIGN, 4u * HEAD_ROWS);
    r.max = ehmn_take(&head, RECORD_ALIGN, 4u);
    r.logits = ehmn_take(&head, RECORD_ALIGN, 2u * (uint64_t)im->vocab_size);
    /* An odd number of lines: the same of all tokens fills every set. */
    r.total = (at > head ? at : head) | RECORD_ALIGN;
    return r;
}

static void *of(const batch *b, uint32_t token, uint32_t offset)
{
    return b->work + (size_t)token * b->at.total + offset;
}

/* The mantissas of a token's vector v, of n values with `frac` fractional bits. */
static void reduce_one(const batch *b, uint32_t t, const int32_t *v, uint32_t n, int32_t frac, uint32_t bits)
{
    input_scale *scale = of(b, t, b->at.scale);
    int16_t *mantissas = of(b, t, b->at.mantissas);
    scale->frac = ehmn_reduce_into(v, n, frac, bits, mantissas, of(b, t, b->at.narrow), &scale->step);
}

static void reduce(const batch *b, uint32_t vector, uint32_t n, int32_t frac, uint32_t bits)
{
    for (uint32_t t = 0; t < b->n; t++) {
        reduce_one(b, t, of(b, t, vector), n, frac, bits);
    }
}

/* Products of rows with every token's mantissas: of 8 bits or 16. */
static void products(const batch *b, const ehmn_matrix *matrix, const int8_t *w, uint32_t rows, uint32_t out)
{
    const ehmn_kernels *kernels = b->m->kernels;
    uint32_t cols = matrix->cols, stride = ehmn_row_bytes(matrix), bytes = (uint32_t)b->at.total;
    uint32_t input = matrix->input_bits == 8u ? b->at.narrow : b->at.mantissas;
    const void *x = of(b, 0, input);
    int32_t *acc = of(b, 0, out);
    if (b->own_table && kernels->matmat_s16 != NULL) {
        if (matrix->weight_bits == 4u) {
            kernels->matmat_s4(w, rows, cols, stride, x, b->n, bytes / 2u, acc, bytes / 4u);
        } else if (matrix->input_bits == 8u) {
            kernels->matmat_s8(w, rows, cols, stride, x, b->n, bytes, acc, bytes / 4u);
        } else {
            kernels->matmat_s16(w, rows, cols, stride, x, b->n, bytes / 2u, acc, bytes / 4u);
        }
        return;
    }
    for (uint32_t t = 0; t < b->n; t++) {
        acc = of(b, t, out);
        x = of(b, t, input);
        if (matrix->weight_bits == 4u) {
            kernels->matvec_s4((const uint8_t *)w, rows, cols, stride, x, acc);
        } else if (matrix->input_bits == 8u) {
            kernels->matvec_s8(w, rows, cols, stride, x, acc);
        } else {
            kernels->matvec_s16(w, rows, cols, stride, x, acc);
        }
    }
}

/* `rows` rows of a matrix from `first` on times every token's mantissas, on the thread that calls. */
static void multiply_rows(const batch *b, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, uint32_t out,
                          int32_t out_frac)
{
    const int8_t *w = ehmn_weights(b->m, matrix) + (size_t)first * ehmn_row_bytes(matrix);
    const int32_t *scales = ehmn_scales(b->m, matrix) + first;
    products(b, matrix, w, rows, out);
    for (uint32_t t = 0; t < b->n; t++) {
        const input_scale *scale = of(b, t, b->at.scale);
        int32_t shift = matrix->shift + scale->frac - out_frac;
        ehmn_scale_products(b->m->kernels, of(b, t, out), scales, rows, scale->step, shift);
    }
}

typedef struct {
    const batch *b;
    const ehmn_matrix *matrix;
    uint32_t first;
    uint32_t rows;
    uint32_t out;
    int32_t out_frac;
    uint32_t rows_of_part;
} product;

static void multiply_part(void *argument, uint32_t part)
{
    const product *p = argument;
    uint32_t begin = part * p->rows_of_part, left = p->rows - begin;
    multiply_rows(p->b, p->matrix, p->first + begin, left < p->rows_of_part ? left : p->rows_of_part,
                  p->out + 4u * begin, p->out_frac);
}

static void multiply(const batch *b, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, uint32_t out,
                     int32_t out_frac)
{
    uint32_t share = ehmn_rows_of_part(b->m, rows, (uint64_t)b->n * matrix->cols);
    if (share >= rows) {
        multiply_rows(b, matrix, first, rows, out, out_frac);
    } else {
        product p = {b, matrix, first, rows, out, out_frac, share};
        b->m->parallel->run(b->m->parallel->context, multiply_part, &p, (rows + share - 1u) / share);
    }
    b->m->counts.macs += (uint64_t)b->n * rows * matrix->cols;
}

/* A matrix of a layer times every token's vector, to which its bias is added. */
static void multiply_all(const batch *b, const ehmn_matrix *matrix, uint32_t out)
{
    multiply(b, matrix, 0, matrix->rows, out, b->m->image->value_frac);
    for (uint32_t t = 0; t < b->n; t++) {
        ehmn_add_bias(b->m, matrix, of(b, t, out));
    }
}

static void normalise(const batch *b, uint32_t index)
{
    for (uint32_t t = 0; t < b->n; t++) {
        ehmn_normalise(b->m, index, of(b, t, b->at.residual), of(b, t, b->at.mixed));
    }
}

/* residual += vector */
static void add(const batch *b, uint32_t vector)
{
    for (uint32_t t = 0; t < b->n; t++) {
        ehmn_add_all(of(b, t, b->at.residual), of(b, t, vector), b->m->image->d_model);
    }
}

/* Several matrices with one input, the residual after norm `index`: it is reduced anew only where
 * they take other bits. */
static void multiply_each(const batch *b, uint32_t index, const ehmn_matrix *const *matrix, uint32_t n,
                          const uint32_t *out)
{
    normalise(b, index);
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || matrix[i]->input_bits != matrix[i - 1u]->input_bits) {
            reduce(b, b->at.mixed, b->m->image->d_model, EHMN_NORM_FRAC, matrix[i]->input_bits);
        }
        multiply_all(b, matrix[i], out[i]);
    }
}

/* Each token's query to the keys, the first of them at m->position; the rows are in the room of mantissas. */
static void attend(const batch *b, uint32_t layer)
{
    ehmn_model *m = b->m;
    const record *at = &b->at;
    const ehmn_attending tokens = {b->n,
                                   (uint32_t)at->total,
                                   of(b, 0, at->turn),
                                   of(b, 0, at->wide),
                                   of(b, 0, at->mixed),
                                   of(b, 0, at->scores),
                                   of(b, 0, at->query),
                                   of(b, 0, at->mantissas),
                                   of(b, 0, at->fracs)};
    if (b->own_table && m->kernels->matmat_s16 != NULL) {
        ehmn_attend_many(m, layer, &tokens);
        return;
    }
    for (uint32_t t = 0; t < b->n; t++) {
        ehmn_attend(m, layer, of(b, t, at->turn), of(b, t, at->wide), of(b, t, at->mixed));
        m->position = m->position + 1u == m->image->n_ctx ? 0u : m->position + 1u;
        m->filled += m->filled < m->image->n_ctx;
    }
}

/* The first token is at `position`, where `filled` positions hold something with it. */
static void attention_block(const batch *b, uint32_t layer, uint32_t position, uint32_t filled)
{
    ehmn_model *m = b->m;
    const ehmn_image *im = m->image;
    const ehmn_matrix *matrix = m->matrices + layer * EHMN_MATRICES_PER_LAYER;
    const ehmn_matrix *projection = matrix + EHMN_MATRIX_O;
    uint32_t key = b->at.wide + 4u * im->d_model;
    const ehmn_matrix *from[] = {matrix + EHMN_MATRIX_Q, matrix + EHMN_MATRIX_K, matrix + EHMN_MATRIX_V};
    const uint32_t to[] = {b->at.wide, key, key + 4u * ehmn_d_kv(im)};
    multiply_each(b, 2u * layer, from, 3u, to);
    m->position = position;
    m->filled = filled;
    attend(b, layer);
    reduce(b, b->at.mixed, im->d_model, im->value_frac, projection->input_bits);
    multiply_all(b, projection, b->at.wide);
    add(b, b->at.wide);
}

static void mlp_block(const batch *b, uint32_t layer)
{
    const ehmn_image *im = b->m->image;
    const ehmn_matrix *matrix = b->m->matrices + layer * EHMN_MATRICES_PER_LAYER;
    const ehmn_matrix *down = matrix + EHMN_MATRIX_DOWN;
    const ehmn_matrix *from[] = {matrix + EHMN_MATRIX_UP, matrix + EHMN_MATRIX_GATE};
    const uint32_t to[] = {b->at.wide, b->at.wide + 4u * im->d_hidden};
    multiply_each(b, 2u * layer + 1u, from, im->mlp == EHMN_MLP_GELU ? 1u : 2u, to);
    for (uint32_t t = 0; t < b->n; t++) {
        ehmn_activate(b->m, of(b, t, b->at.wide));
    }
    reduce(b, b->at.wide, im->d_hidden, im->value_frac, down->input_bits);
    multiply_all(b, down, b->at.mixed);
    add(b, b->at.mixed);
}

/* Put `n` tokens, as many as there are records at most, at the next positions of the window. */
static void encode_positions(batch *b, const uint32_t *tokens, uint32_t n)
{
    ehmn_model *m = b->m;
    uint32_t position = m->position, filled = m->filled + (m->filled < m->image->n_ctx);
    m->summed = 0; /* attention takes the room of the sums */
    b->n = n;
    for (uint32_t t = 0; t < n; t++) {
        ehmn_begin_position(m, tokens[t], of(b, t, b->at.residual), of(b, t, b->at.turn));
        ehmn_end_position(m);
    }
    uint32_t end = m->position, filled_end = m->filled;
    for (uint32_t layer = 0; layer < m->image->n_layers; layer++) {
        attention_block(b, layer, position, filled);
        mlp_block(b, layer);
    }
    m->position = end;
    m->filled = filled_end;
}

/* What the window of a restart begins with: tokens that were fed before. */
static void encode_again(batch *b, const uint32_t *tokens, uint32_t n, uint32_t capacity)
{
    for (uint32_t done = 0, count; done < n; done += count) {
        count = n - done < capacity ? n - done : capacity;
        encode_positions(b, tokens + done, count);
    }
}

/* As encoder.c opens a window for a token; returns how many positions are free then, at least one. */
static uint32_t open_window(batch *b, uint32_t capacity)
{
    ehmn_model *m = b->m;
    const ehmn_image *im = m->image;
    int restart = im->window == EHMN_WINDOW_RESTART;
    int again = restart && m->filled == im->n_ctx;
    if (again) {
        ehmn_clear_window(m);
    }
    if (m->filled == 0 && im->start_token != EHMN_NO_TOKEN) {
        encode_again(b, &im->start_token, 1u, capacity);
    }
    if (again) { /* a ring: first what is older */
        const uint32_t *recent = ehmn_at(m, m->at.recent);
        encode_again(b, recent + m->newest, im->n_ctx / 2u - m->newest, capacity);
        encode_again(b, recent, m->newest, capacity);
    }
    return !restart ? UINT32_MAX : m->filled < im->n_ctx ? im->n_ctx - m->filled : 1u;
}

/* Feed up to `n` tokens to the encoder; returns how many. Their hidden vectors are in their records. */
static uint32_t encode(batch *b, const uint32_t *tokens, uint32_t n, uint32_t capacity)
{
    uint32_t room = open_window(b, capacity);
    uint32_t count = n < capacity ? n : capacity;
    count = count < room ? count : room;
    encode_positions(b, tokens, count);
    for (uint32_t t = 0; t < count; t++) {
        ehmn_end_token(b->m, tokens[t], of(b, t, b->at.residual), of(b, t, b->at.hidden));
    }
    return count;
}

/* The tokens whose predictions nobody asks for: what later ones depend on. */
static void pass(const batch *b, const uint32_t *tokens, uint32_t n)
{
    ehmn_model *m = b->m;
    int32_t *v = ehmn_at(m, m->at.normed);
    for (uint32_t t = 0; t < n; t++) {
        ehmn_push_token(m, tokens[t]);
        if (m->mode == EHMN_PLASTIC) {
            ehmn_adapted_norm(m, of(b, t, b->at.hidden), v);
        }
    }
}

/* The inputs of the head's matrix. */
static void prepare_head(const batch *b, const uint32_t *tokens)
{
    ehmn_model *m = b->m;
    uint32_t d = m->image->d_model;
    uint32_t bits = m->matrices[ehmn_head_index(m->image)].input_bits;
    int32_t *v = ehmn_at(m, m->at.normed);
    for (uint32_t t = 0; t < b->n; t++) {
        ehmn_push_token(m, tokens[t]);
        ehmn_adapted_norm(m, of(b, t, b->at.hidden), v);
        if (m->mode == EHMN_PLASTIC) {
            memcpy(of(b, t, b->at.standard), ehmn_at(m, m->at.standard), 4u * (size_t)d);
        }
        ehmn_to_bits(m, v);
        reduce_one(b, t, v, d, m->image->value_frac, bits);
    }
}

/* Predict after each token and score the next; nothing moves that a later prediction depends on but the traces, which
 * prepare_head advances. */
static void predict(const batch *b, const uint32_t *tokens, uint32_t *bits)
{
    ehmn_model *m = b->m;
    const ehmn_matrix *head = m->matrices + ehmn_head_index(m->image);
    uint32_t vocab = m->image->vocab_size, history[EHMN_MAX_ORDER], n_history = m->n_history;
    memcpy(history, m->history, sizeof history);
    prepare_head(b, tokens);
    for (uint32_t t = 0; t < b->n; t++) {
        *(int32_t *)of(b, t, b->at.max) = -INT16_MAX;
    }
    for (uint32_t first = 0; first < vocab; first += HEAD_ROWS) {
        uint32_t rows = vocab - first < HEAD_ROWS ? vocab - first : HEAD_ROWS;
        multiply(b, head, first, rows, b->at.block, EHMN_LOGIT_FRAC);
        for (uint32_t t = 0; t < b->n; t++) {
            int32_t *max = of(b, t, b->at.max);
            int16_t *logits = of(b, t, b->at.logits);
            *max = ehmn_fit_logits(m, first, rows, *max, of(b, t, b->at.block), logits + first);
        }
    }
    memcpy(m->history, history, sizeof history);
    m->n_history = n_history;
    for (uint32_t t = 0; t < b->n; t++) {
        (void)ehmn_score(m, tokens[t], bits + t);
        ehmn_push_token(m, tokens[t]);
        memcpy(ehmn_at(m, m->at.logits), of(b, t, b->at.logits), 2u * (size_t)vocab);
        if (m->mode == EHMN_PLASTIC) {
            memcpy(ehmn_at(m, m->at.standard), of(b, t, b->at.standard), 4u * (size_t)m->image->d_model);
        }
        m->max_logit = *(const int32_t *)of(b, t, b->at.max);
        ehmn_end_prediction(m);
    }
}

static void teach(ehmn_model *m, uint32_t token, uint32_t how)
{
    if (how == EHMN_LEARN) {
        (void)ehmn_learn(m, token);
    } else if (how == EHMN_FOLLOW) {
        (void)ehmn_follow(m, token);
    }
}

static int is_own_table(const ehmn_kernels *kernels)
{
    const ehmn_kernels *table;
    uint32_t index = 0;
    do {
        table = ehmn_kernel_table(index++);
    } while (table != NULL && table != kernels);
    return table != NULL;
}

static void one_by_one(ehmn_model *m, const uint32_t *tokens, uint32_t n, uint32_t how, uint32_t *bits)
{
    for (uint32_t t = 0; t < n; t++) {
        if (bits != NULL) {
            (void)ehmn_score(m, tokens[t], bits + t);
        }
        teach(m, tokens[t], how);
        (void)ehmn_step(m, tokens[t]);
    }
}

static void several_at_once(batch *b, const uint32_t *tokens, uint32_t n, uint32_t how, uint32_t *bits,
                            uint32_t capacity)
{
    for (uint32_t done = 0, count; done < n; done += count) {
        const uint32_t *some = tokens + done;
        count = encode(b, some, n - done, capacity);
        if (how == EHMN_FEED && bits != NULL) {
            predict(b, some, bits + done);
            continue;
        }
        uint32_t passed = how != EHMN_FEED ? 0u : done + count < n ? count : count - 1u;
        pass(b, some, passed);
        for (uint32_t t = passed; t < count; t++) {
            if (bits != NULL) {
                (void)ehmn_score(b->m, some[t], bits + done + t);
            }
            teach(b->m, some[t], how);
            (void)ehmn_head(b->m, some[t], of(b, t, b->at.hidden));
        }
    }
}

int32_t ehmn_work_bytes(const void *image, uint32_t tokens, uint32_t *bytes)
{
    if (image == NULL || bytes == NULL) {
        return EHMN_E_ARGUMENT;
    }
    uint64_t total = layout_record(image).total * tokens;
    if (total > UINT32_MAX) {
        return EHMN_E_ARGUMENT;
    }
    *bytes = (uint32_t)total;
    return EHMN_OK;
}

int32_t ehmn_process(ehmn_model *m, const uint32_t *tokens, uint32_t n, uint32_t how, uint32_t *bits, void *work,
                     uint32_t work_bytes)
{
    if (m == NULL || (tokens == NULL && n > 0) || how > EHMN_FOLLOW || (work == NULL && work_bytes > 0)) {
        return EHMN_E_ARGUMENT;
    }
    if ((uintptr_t)work % EHMN_ALIGN != 0) {
        return EHMN_E_ALIGNMENT;
    }
    if (how != EHMN_FEED && m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    for (uint32_t t = 0; t < n; t++) {
        if (tokens[t] >= m->image->vocab_size) {
            return EHMN_E_ARGUMENT;
        }
    }
    batch b = {m, work, layout_record(m->image), 0, 0};
    uint32_t capacity = (uint32_t)(work_bytes / b.at.total);
    if (n > 1u && capacity > 1u) {
        b.own_table = is_own_table(m->kernels); /* which on x86 asks Linux, so not for single tokens */
        several_at_once(&b, tokens, n, how, bits, capacity);
    } else {
        one_by_one(m, tokens, n, how, bits);
    }
    return EHMN_OK;
}
