/* Validation of an image, and the plan of its arena. */
#include "edgehmn.h"
#include "edgehmn_tokenizer.h"
#include "fixed.h"
#include "model.h"

#include <string.h>

uint32_t ehmn_crc32(uint32_t crc, const void *data, uint32_t bytes)
{
    static const uint32_t by_nibble[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    const uint8_t *p = data;
    crc = ~crc;
    for (uint32_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ by_nibble[crc & 15u];
        crc = (crc >> 4) ^ by_nibble[crc & 15u];
    }
    return ~crc;
}

int ehmn_bytes_are_zero(const void *bytes, uint64_t from, uint64_t to)
{
    const uint8_t *p = bytes;
    uint32_t any = 0;
    for (; from < to; from++) {
        any |= p[from];
    }
    return any == 0;
}

static int all_zero(const uint32_t *v, uint32_t n)
{
    uint32_t any = 0;
    for (uint32_t i = 0; i < n; i++) {
        any |= v[i];
    }
    return any == 0;
}

static int sizes_are_possible(const ehmn_image *im)
{
    return ehmn_in_range(im->n_layers, 1, EHMN_MAX_LAYERS) && ehmn_in_range(im->d_model, 2, EHMN_MAX_D_MODEL)
        && ehmn_in_range(im->d_hidden, 1, EHMN_MAX_D_HIDDEN) && ehmn_in_range(im->n_heads, 1, im->d_model)
        && ehmn_in_range(im->n_kv_heads, 1, im->n_heads) && im->d_model % im->n_heads == 0
        && im->n_heads % im->n_kv_heads == 0 && ehmn_d_head(im) % 2u == 0 && ehmn_d_head(im) <= EHMN_MAX_D_HEAD
        && ehmn_in_range(im->vocab_size, 2, EHMN_MAX_VOCAB) && ehmn_in_range(im->n_ctx, 1, EHMN_MAX_CTX)
        && ehmn_in_range(im->n_dense, 0, EHMN_MAX_DENSE);
}

/* A window that slides keeps no first token, and has no learned positions. */
static int encoder_is_possible(const ehmn_image *im)
{
    int slides = im->window == EHMN_WINDOW_SLIDING;
    return im->norm <= EHMN_NORM_LAYERNORM && im->mlp <= EHMN_MLP_GELU && im->positions <= EHMN_POSITIONS_LEARNED
        && im->window <= EHMN_WINDOW_RESTART && (slides || im->n_ctx >= 4u)
        && !(slides && im->positions == EHMN_POSITIONS_LEARNED)
        && (im->start_token == EHMN_NO_TOKEN || (!slides && im->start_token < im->vocab_size));
}

static int rule_is_possible(const ehmn_rule *r)
{
    int ok = ehmn_in_range(r->eta_local, 0, 1 << 24) && ehmn_in_range(r->eta_global, 0, 1 << 24)
        && ehmn_in_range(r->w_reward, -(1 << 20), 1 << 20) && ehmn_in_range(r->w_uncertainty, -(1 << 20), 1 << 20)
        && ehmn_in_range(r->w_novelty, -(1 << 20), 1 << 20) && ehmn_in_range(r->kappa, 0, 1 << 20)
        && ehmn_in_range(r->rho_slow, 0, 65535) && ehmn_in_range(r->beta_attention, 0, 1 << 20)
        && ehmn_in_range(r->rho_context, 0, 65535) && ehmn_in_range(r->decay_row, 0, (1 << 24) - 1)
        && ehmn_in_range(r->weight_frac, 0, 16) && ehmn_in_range(r->n_negatives, 1, EHMN_MAX_NEGATIVES)
        && (r->n_negatives & (r->n_negatives - 1u)) == 0 && ehmn_in_range(r->eta_gain, 0, 1 << 20)
        && ehmn_in_range(r->gain_max, 0, 1 << 20) && ehmn_in_range(r->rho_average, 0, 65535)
        && ehmn_in_range(r->closed_below, 0, 1 << 20);
    for (uint32_t i = 0; i < EHMN_MAX_DENSE; i++) {
        ok = ok && ehmn_in_range(r->rho_trace[i], 0, 65535);
    }
    return ok;
}

static int memories_are_possible(const ehmn_rule *r)
{
    int ok = ehmn_in_range(r->row_frac, 0, 16) && ehmn_in_range(r->decay_visit, 0, (1 << 24) - 1)
        && ehmn_in_range(r->bias_step, 0, 32767) && ehmn_in_range(r->bias_decay, 0, 65535)
        && r->ngram_slots <= EHMN_MAX_SLOTS && ehmn_in_range(r->eta_ngram, 0, 1 << 20) && r->episodes <= EHMN_MAX_SLOTS
        && ehmn_in_range(r->sharpness, 0, 1 << 20) && ehmn_in_range(r->eta_episode, 0, 65536)
        && ehmn_in_range(r->eta_scale, 0, 1 << 24) && ehmn_in_range(r->topic_limit, 0, INT32_MAX)
        && ehmn_in_range(r->topic_margin, 0, INT32_MAX) && ehmn_in_range(r->guard_limit, 0, 1 << 20)
        && all_zero(r->reserved, 17);
    for (uint32_t i = 0; i < EHMN_ROW_ADAPTERS; i++) {
        ok = ok && r->row_slots[i] <= EHMN_MAX_SLOTS && ehmn_in_range(r->eta_row[i], 0, 1 << 24);
    }
    for (uint32_t i = 0; i < EHMN_NGRAM_ORDERS; i++) {
        ok = ok && r->ngram_order[i] <= EHMN_MAX_ORDER;
    }
    return ok;
}

static int settings_are_possible(const ehmn_image *im)
{
    return sizes_are_possible(im) && encoder_is_possible(im) && im->final_norm <= EHMN_NORM_LAYERNORM
        && im->tied_head <= 1u
        && ehmn_in_range(im->value_frac, 8, 16) && ehmn_in_range(im->hidden_frac, 0, 14) && im->norm_eps_mantissa >= 0
        && ehmn_in_range(im->norm_eps_shift, 0, 62) && all_zero(im->reserved, 3) && im->n_guard <= EHMN_MAX_GUARD
        && rule_is_possible(&im->rule) && memories_are_possible(&im->rule);
}

/* Rows and columns that matrix `index` must have. */
static void expected_shape(const ehmn_image *im, uint32_t index, uint32_t *rows, uint32_t *cols)
{
    *rows = im->d_model;
    *cols = im->d_model;
    if (index >= ehmn_preconditioner_index(im)) {
        return;
    }
    if (index >= ehmn_embedding_index(im)) {
        *rows = index > ehmn_head_index(im) ? im->n_ctx : im->vocab_size;
        return;
    }
    switch (index % EHMN_MATRICES_PER_LAYER) {
    case EHMN_MATRIX_K:
    case EHMN_MATRIX_V:
        *rows = ehmn_d_kv(im);
        break;
    case EHMN_MATRIX_GATE:
        *rows = im->mlp == EHMN_MLP_GELU ? 0u : im->d_hidden;
        break;
    case EHMN_MATRIX_UP:
        *rows = im->d_hidden;
        break;
    case EHMN_MATRIX_DOWN:
        *cols = im->d_hidden;
        break;
    default:
        break;
    }
}

static uint64_t align(uint64_t offset)
{
    return (offset + (EHMN_ALIGN - 1u)) & ~(uint64_t)(EHMN_ALIGN - 1u);
}

/* Whether a section of so many bytes, which is said to be at `offset`, is at *at, and only zeros are between it and the
 * next, to which *at moves. */
static int section_is_placed(const ehmn_image *im, uint32_t offset, uint64_t bytes, uint64_t *at)
{
    uint64_t end = *at + bytes;
    int begins = offset == *at;
    *at = align(end);
    return begins && (*at > im->bytes || ehmn_bytes_are_zero(im, end, *at));
}

/* Whether matrix `index` lies at *at as it must, padding included; *at moves behind it. */
static int matrix_is_placed(const ehmn_image *im, uint32_t index, const ehmn_matrix *matrix, uint64_t *at)
{
    uint32_t rows, cols;
    int in_layer = index < ehmn_embedding_index(im);
    expected_shape(im, index, &rows, &cols);
    if (matrix->rows != rows || matrix->cols != cols || !ehmn_in_range(matrix->shift, 0, 62)
        || !ehmn_in_range(matrix->input_bits, 8, 16)
        || !(matrix->weight_bits == 8u || (matrix->weight_bits == 4u && in_layer && matrix->input_bits > 8u))) {
        return 0;
    }
    int has_bias = matrix->bias_offset != 0;
    return section_is_placed(im, matrix->weights_offset, (uint64_t)rows * ehmn_row_bytes(matrix), at)
        && section_is_placed(im, matrix->scales_offset, 4u * rows, at)
        && (!has_bias || (in_layer && section_is_placed(im, matrix->bias_offset, 4u * rows, at)));
}

static int vectors_are_placed(const ehmn_image *im, const ehmn_vector *vector, uint64_t *at)
{
    for (uint32_t i = 0; i < EHMN_VECTORS; i++, vector++) {
        uint32_t length = im->d_model;
        if (i == EHMN_VECTOR_ROPE) {
            length = im->positions == EHMN_POSITIONS_ROPE ? ehmn_d_head(im) / 2u : 0u;
        } else if (i == EHMN_VECTOR_NORM_SHIFTS) {
            length = 2u * im->n_layers * im->d_model;
        }
        if (vector->length != length || !ehmn_in_range(vector->shift, 0, 62) || vector->reserved != 0
            || !section_is_placed(im, vector->offset, 4u * length, at)) {
            return 0;
        }
    }
    return 1;
}

/* Sections follow each other in a fixed order, each at the next multiple of 16, with zeros between: there is one
 * valid layout. */
static int32_t check_layout(const ehmn_image *im)
{
    uint32_t n = ehmn_topic_index(im) + 1u;
    uint32_t matrices = (uint32_t)align(sizeof(ehmn_image)), vectors = matrices + n * (uint32_t)sizeof(ehmn_matrix);
    uint64_t at = vectors;
    if (align(vectors + EHMN_VECTORS * sizeof(ehmn_vector)) > im->bytes) {
        return EHMN_E_SIZE;
    }
    const ehmn_matrix *matrix = (const ehmn_matrix *)(const void *)((const uint8_t *)im + matrices);
    const ehmn_vector *vector = (const ehmn_vector *)(const void *)((const uint8_t *)im + vectors);
    int ok = im->matrices_offset == matrices
        && section_is_placed(im, im->vectors_offset, EHMN_VECTORS * sizeof(ehmn_vector), &at);
    for (uint32_t i = 0; ok && i < n; i++) {
        ok = matrix_is_placed(im, i, matrix + i, &at);
    }
    ok = ok && vectors_are_placed(im, vector, &at)
        && section_is_placed(im, im->guard_offset, im->n_guard * (sizeof(ehmn_guard) + im->d_model), &at)
        && section_is_placed(im, im->tokenizer_offset, im->tokenizer_bytes, &at);
    return !ok ? EHMN_E_LAYOUT : at == im->bytes ? EHMN_OK : EHMN_E_SIZE;
}

static int32_t check_guard(const ehmn_image *im)
{
    const ehmn_guard *g = (const ehmn_guard *)(const void *)((const uint8_t *)im + im->guard_offset);
    const int8_t *mantissas = (const int8_t *)(g + im->n_guard);
    for (uint32_t i = 0; i < im->n_guard; i++) {
        if (!ehmn_in_range(g[i].frac, -16, 30) || g[i].token >= im->vocab_size || g[i].bits > EHMN_MAX_BITS) {
            return EHMN_E_VALUE;
        }
    }
    for (uint32_t i = 0; i < im->n_guard * im->d_model; i++) {
        if (mantissas[i] == -128) {
            return EHMN_E_VALUE;
        }
    }
    return EHMN_OK;
}

static int32_t check_norm_shifts(const ehmn_image *im)
{
    const ehmn_vector *vector = (const ehmn_vector *)(const void *)((const uint8_t *)im + im->vectors_offset);
    vector += EHMN_VECTOR_NORM_SHIFTS;
    const int32_t *shift = (const int32_t *)(const void *)((const uint8_t *)im + vector->offset);
    for (uint32_t i = 0; i < vector->length; i++) {
        if (!ehmn_in_range(shift[i], 0, EHMN_MAX_NORM_SHIFT)) {
            return EHMN_E_VALUE;
        }
    }
    return EHMN_OK;
}

/* Weights never -128 (-8 of 4 bits), no row whose sum can leave 32 bits with the inputs it gets, scales not
 * negative. */
static int32_t check_weights(const ehmn_image *im, const ehmn_matrix *matrix)
{
    const uint8_t *w = (const uint8_t *)im + matrix->weights_offset;
    const int32_t *scale = (const int32_t *)(const void *)((const uint8_t *)im + matrix->scales_offset);
    uint64_t most = matrix->input_bits == 8u ? 127u * EHMN_MAX_STEP : (1u << (matrix->input_bits - 1u)) - 1u;
    uint64_t limit = (uint64_t)INT32_MAX / most;
    uint32_t row_bytes = ehmn_row_bytes(matrix);
    for (uint32_t r = 0; r < matrix->rows; r++, w += row_bytes) {
        uint64_t sum = 0;
        int least = 0;
        for (uint32_t c = 0; c < matrix->cols; c++) {
            int half = w[c / 2u] >> 4u * (c % 2u) & 15;
            int value = matrix->weight_bits == 8u ? ((const int8_t *)w)[c] : half < 8 ? half : half - 16;
            least = value < least ? value : least;
            sum += ehmn_abs(value);
        }
        int padded = matrix->weight_bits == 4u && matrix->cols % 2u != 0 && w[row_bytes - 1u] > 15u;
        if (least < (matrix->weight_bits == 8u ? -127 : -7) || padded || sum > limit || scale[r] < 0) {
            return EHMN_E_VALUE;
        }
    }
    return EHMN_OK;
}

int32_t ehmn_image_check(const void *image, uint32_t bytes)
{
    const ehmn_image *im = image;
    if (image == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if ((uintptr_t)image % 4u != 0) {
        return EHMN_E_ALIGNMENT;
    }
    if (bytes < sizeof(uint32_t) || im->magic != EHMN_IMAGE_MAGIC) {
        return EHMN_E_MAGIC;
    }
    if (bytes < sizeof(ehmn_image)) {
        return EHMN_E_SIZE;
    }
    if (im->version != EHMN_IMAGE_VERSION) {
        return EHMN_E_VERSION;
    }
    if (im->bytes != bytes) {
        return EHMN_E_SIZE;
    }
    const uint8_t *after_crc = (const uint8_t *)image + offsetof(ehmn_image, id);
    if (ehmn_crc32(0, after_crc, bytes - (uint32_t)offsetof(ehmn_image, id)) != im->crc32) {
        return EHMN_E_CRC;
    }
    if (!settings_are_possible(im)) {
        return EHMN_E_CONFIG;
    }
    int32_t status = check_layout(im);
    const ehmn_matrix *matrix = (const ehmn_matrix *)(const void *)((const uint8_t *)image + im->matrices_offset);
    for (uint32_t i = 0; status == EHMN_OK && i <= ehmn_topic_index(im); i++) {
        status = check_weights(im, matrix + i);
    }
    if (status == EHMN_OK) {
        status = check_norm_shifts(im);
    }
    if (status == EHMN_OK) {
        status = check_guard(im);
    }
    if (status == EHMN_OK && im->tokenizer_bytes != 0) {
        status = ehmn_tokenizer_check((const uint8_t *)image + im->tokenizer_offset, im->tokenizer_bytes,
                                      im->vocab_size);
    }
    return status;
}

ehmn_layout ehmn_layout_arena(const ehmn_image *im, uint32_t mode)
{
    static const uint8_t element_bytes[] = {1, 1, 1, 1, 2, 4, 4, 4, 4, 2, 1, 4, 2, 4, /* and if it is plastic */
                                            1, 4, 4, 1, 2, 4, 4, 1, 4, 4, 1, 4};
    const uint32_t frozen = offsetof(ehmn_layout, delta) / sizeof(uint32_t);
    uint32_t d = im->d_model, cells = im->n_layers * im->n_ctx, d_kv = ehmn_d_kv(im);
    uint32_t longest = d > im->d_hidden ? d : im->d_hidden;
    ehmn_layout l = {
        .keys = cells * d_kv,
        .values = cells * d_kv,
        .key_fracs = cells * im->n_kv_heads,
        .value_fracs = cells * im->n_kv_heads,
        .phases = ehmn_d_head(im),
        .residual = d,
        .wide = ehmn_wide(im),
        .mixed = d,
        .scores = im->n_ctx,
        .mantissas = longest,
        .narrow = longest,
        .normed = d,
        .logits = im->vocab_size,
        .recent = im->window == EHMN_WINDOW_RESTART ? im->n_ctx / 2u : 0u,
    };
    if (mode == EHMN_PLASTIC) {
        l.delta = ehmn_layout_delta(im).total;
        l.plain = d;
        l.standard = d;
        l.inputs = im->n_dense * d;
        l.outputs = im->n_dense * d;
        l.error = d;
        l.cumulative = d;
        l.presynaptic = d;
        l.key = ehmn_key_words(im);
        l.fast = d;
        l.kept = sizeof(ehmn_gains);
        l.observed = d;
    }
    _Static_assert(sizeof l == sizeof(uint32_t) * (sizeof element_bytes + 1u), "an array for each member but the last");
    l.total = ehmn_place(&l, element_bytes, mode == EHMN_PLASTIC ? (uint32_t)sizeof element_bytes : frozen,
                         EHMN_MODEL_BYTES, EHMN_ALIGN);
    return l;
}

int32_t ehmn_arena_bytes(const void *image, uint32_t mode, uint32_t *bytes)
{
    if (image == NULL || bytes == NULL || mode > EHMN_PLASTIC) {
        return EHMN_E_ARGUMENT;
    }
    *bytes = ehmn_layout_arena(image, mode).total;
    return EHMN_OK;
}

int32_t ehmn_open(const void *image, void *arena, uint32_t arena_bytes, uint32_t mode, uint64_t seed,
                  ehmn_model **model)
{
    if (image == NULL || arena == NULL || model == NULL || mode > EHMN_PLASTIC) {
        return EHMN_E_ARGUMENT;
    }
    if ((uintptr_t)arena % EHMN_ALIGN != 0 || (uintptr_t)image % 4u != 0) {
        return EHMN_E_ALIGNMENT;
    }
    const ehmn_image *im = image;
    ehmn_layout layout = ehmn_layout_arena(im, mode);
    if (layout.total == UINT32_MAX || arena_bytes < layout.total) {
        return EHMN_E_ARENA;
    }
    ehmn_model *m = arena;
    memset(arena, 0, layout.total);
    m->image = im;
    m->matrices = (const ehmn_matrix *)(const void *)((const uint8_t *)image + im->matrices_offset);
    m->vectors = (const ehmn_vector *)(const void *)((const uint8_t *)image + im->vectors_offset);
    m->kernels = ehmn_best_kernels();
    m->multiply = ehmn_multiply_rows;
    m->arena = arena;
    m->at = layout;
    m->in = ehmn_layout_delta(im);
    m->mode = mode;
    m->seed = seed;
    ehmn_keep_pairs(m, arena_bytes);
    if (mode == EHMN_PLASTIC) {
        (void)ehmn_delta_reset(m, seed);
    }
    *model = m;
    return EHMN_OK;
}

void ehmn_reset(ehmn_model *m)
{
    ehmn_end_following(m);
    ehmn_clear_window(m);
    m->predicted = 0;
    m->sampled = 0;
    m->n_history = 0;
    m->followed = 0;
    m->seen = 0;
    m->strange = 0;
}

int32_t ehmn_get_counts(const ehmn_model *m, ehmn_counts *counts)
{
    if (m == NULL || counts == NULL) {
        return EHMN_E_ARGUMENT;
    }
    *counts = m->counts;
    return EHMN_OK;
}

const char *ehmn_status_name(int32_t status)
{
    static const char *const names[] = {
        "OK",        "E_ARGUMENT", "E_ALIGNMENT", "E_MAGIC", "E_VERSION", "E_SIZE",     "E_CRC",
        "E_CONFIG",  "E_LAYOUT",   "E_VALUE",     "E_ARENA", "E_IMAGE_ID", "E_STATE",
    };
    return status <= 0 && status >= EHMN_E_STATE ? names[-status] : "E_UNKNOWN";
}

void ehmn_use_kernels(ehmn_model *m, const ehmn_kernels *kernels)
{
    m->kernels = kernels;
}
