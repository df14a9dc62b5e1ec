#include "mutate_image.h"

#include "edgehmn_tokenizer.h"
#include "mutate_tokenizer.h"

#define BITS31 0x7FFFFFFFu
#define IN_IMAGE(name, low, high) {offsetof(ehmn_image, name), low, high}
#define IN_RULE(name, low, high) {offsetof(ehmn_image, rule) + offsetof(ehmn_rule, name), low, high}
#define IN_MATRIX(name, low, high) {offsetof(ehmn_matrix, name), low, high}
#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof(array)[0]))

static const field settings[] = {
    IN_IMAGE(n_layers, 1, EHMN_MAX_LAYERS), IN_IMAGE(d_model, 2, EHMN_MAX_D_MODEL),
    IN_IMAGE(d_hidden, 1, EHMN_MAX_D_HIDDEN), IN_IMAGE(n_heads, 1, EHMN_MAX_D_MODEL),
    IN_IMAGE(n_kv_heads, 1, EHMN_MAX_D_MODEL), IN_IMAGE(vocab_size, 2, EHMN_MAX_VOCAB),
    IN_IMAGE(n_ctx, 1, EHMN_MAX_CTX), IN_IMAGE(n_dense, 0, EHMN_MAX_DENSE), IN_IMAGE(final_norm, 0, 1),
    IN_IMAGE(tied_head, 0, 1), IN_IMAGE(norm, 0, 1), IN_IMAGE(mlp, 0, 1), IN_IMAGE(positions, 0, 1),
    IN_IMAGE(window, 0, 1), IN_IMAGE(start_token, -1, 2), IN_IMAGE(value_frac, 8, 16), IN_IMAGE(hidden_frac, 0, 14),
    IN_IMAGE(norm_eps_mantissa, 0, BITS31), IN_IMAGE(norm_eps_shift, 0, 62), IN_IMAGE(n_guard, 0, EHMN_MAX_GUARD),
};

static const field places[] = {
    IN_IMAGE(matrices_offset, 0, 4096), IN_IMAGE(vectors_offset, 0, 4096), IN_IMAGE(guard_offset, 0, 4096),
    IN_IMAGE(tokenizer_offset, 0, 4096), IN_IMAGE(tokenizer_bytes, 0, 4096), IN_IMAGE(reserved[2], 0, 0),
    IN_IMAGE(bytes, 0, 4096), IN_IMAGE(version, EHMN_IMAGE_VERSION, EHMN_IMAGE_VERSION), IN_RULE(reserved[16], 0, 0),
};

static const field rule[] = {
    IN_RULE(eta_local, 0, 1 << 24), IN_RULE(eta_global, 0, 1 << 24), IN_RULE(w_reward, -(1 << 20), 1 << 20),
    IN_RULE(w_uncertainty, -(1 << 20), 1 << 20), IN_RULE(w_novelty, -(1 << 20), 1 << 20), IN_RULE(kappa, 0, 1 << 20),
    IN_RULE(rho_slow, 0, 65535), IN_RULE(beta_attention, 0, 1 << 20), IN_RULE(rho_context, 0, 65535),
    IN_RULE(phase_step, 0, 0xFFFFFFFFu), IN_RULE(decay_row, 0, (1 << 24) - 1), IN_RULE(weight_frac, 0, 16),
    IN_RULE(n_negatives, 1, EHMN_MAX_NEGATIVES), IN_RULE(eta_gain, 0, 1 << 20), IN_RULE(gain_max, 0, 1 << 20),
    IN_RULE(rho_average, 0, 65535), IN_RULE(rho_trace[0], 0, 65535), IN_RULE(rho_trace[1], 0, 65535),
    IN_RULE(rho_trace[2], 0, 65535), IN_RULE(rho_trace[3], 0, 65535), IN_RULE(rho_trace[4], 0, 65535),
    IN_RULE(rho_trace[5], 0, 65535), IN_RULE(rho_trace[6], 0, 65535), IN_RULE(rho_trace[7], 0, 65535),
    IN_RULE(phase_seed, 0, 0xFFFFFFFFu), IN_RULE(row_slots[0], 0, EHMN_MAX_SLOTS),
    IN_RULE(row_slots[1], 0, EHMN_MAX_SLOTS), IN_RULE(eta_row[0], 0, 1 << 24),
    IN_RULE(eta_row[1], 0, 1 << 24), IN_RULE(row_frac, 0, 16),
    IN_RULE(decay_visit, 0, (1 << 24) - 1), IN_RULE(bias_step, 0, 32767), IN_RULE(bias_decay, 0, 65535),
    IN_RULE(ngram_slots, 0, EHMN_MAX_SLOTS), IN_RULE(ngram_order[0], 0, EHMN_MAX_ORDER),
    IN_RULE(ngram_order[1], 0, EHMN_MAX_ORDER), IN_RULE(ngram_order[2], 0, EHMN_MAX_ORDER),
    IN_RULE(ngram_order[3], 0, EHMN_MAX_ORDER), IN_RULE(eta_ngram, 0, 1 << 20), IN_RULE(episodes, 0, EHMN_MAX_SLOTS),
    IN_RULE(sharpness, 0, 1 << 20), IN_RULE(eta_episode, 0, 65536), IN_RULE(eta_scale, 0, 1 << 24),
    IN_RULE(topic_limit, 0, BITS31), IN_RULE(topic_margin, 0, BITS31), IN_RULE(guard_limit, 0, 1 << 20),
    IN_RULE(closed_below, 0, 1 << 20),
};

static const field of_matrix[] = {
    IN_MATRIX(rows, 0, 16), IN_MATRIX(cols, 1, 16), IN_MATRIX(weights_offset, 0, 4096),
    IN_MATRIX(scales_offset, 0, 4096), IN_MATRIX(shift, 0, 62), IN_MATRIX(input_bits, 8, 16),
    IN_MATRIX(weight_bits, 4, 8), IN_MATRIX(bias_offset, 0, 4096),
};

/* ---- Laying out anew */

/* Old bytes, taken in turn as new contents. */
typedef struct {
    const uint8_t *bytes;
    size_t size, at;
} source;

static uint8_t take(source *s)
{
    s->at = s->at + 1u < s->size ? s->at + 1u : sizeof(ehmn_image);
    return s->at < s->size ? s->bytes[s->at] : 0;
}

typedef struct {
    uint8_t *bytes;
    size_t max, at;
    source from;
    draws *d;
} layout;

static void pad(layout *l)
{
    while (l->at % EHMN_ALIGN != 0 && l->at < l->max) {
        l->bytes[l->at++] = 0;
    }
}

/* n bytes (size 1) or words (size 4), their sign taken away if `natural`. Where they begin. */
static uint32_t fill(layout *l, uint32_t n, uint32_t size, int natural)
{
    uint32_t start = (uint32_t)l->at;
    for (uint32_t i = 0; i < n && l->at + size <= l->max; i++, l->at += size) {
        for (uint32_t k = 0; k < size; k++) {
            l->bytes[l->at + k] = take(&l->from);
        }
        if (size == 1u && l->bytes[l->at] == 0x80u) {
            l->bytes[l->at] = 0;
        } else if (size == 4u && natural) {
            l->bytes[l->at + 3u] &= 0x7Fu;
        }
    }
    pad(l);
    return start;
}

static void shape(const ehmn_image *im, uint32_t i, uint32_t *rows, uint32_t *cols)
{
    uint32_t layers = im->n_layers * EHMN_MATRICES_PER_LAYER, d = im->d_model, kind = i % EHMN_MATRICES_PER_LAYER;
    uint32_t tables = 1u + (im->tied_head == 0);
    *rows = d;
    *cols = d;
    if (i >= layers) {
        *rows = i < layers + tables ? im->vocab_size
              : i == layers + tables && im->positions == EHMN_POSITIONS_LEARNED ? im->n_ctx : d;
    } else if (kind == EHMN_MATRIX_K || kind == EHMN_MATRIX_V) {
        *rows = d / im->n_heads * im->n_kv_heads;
    } else if (kind == EHMN_MATRIX_GATE || kind == EHMN_MATRIX_UP) {
        *rows = kind == EHMN_MATRIX_GATE && im->mlp == EHMN_MLP_GELU ? 0u : im->d_hidden;
    } else if (kind == EHMN_MATRIX_DOWN) {
        *cols = im->d_hidden;
    }
}

static void lay_matrix(layout *l, const ehmn_image *im, uint32_t i, ehmn_matrix *m)
{
    int in_layer = i < im->n_layers * EHMN_MATRICES_PER_LAYER;
    shape(im, i, &m->rows, &m->cols);
    m->shift = (int32_t)((uint32_t)m->shift <= 62u ? (uint32_t)m->shift : below(l->d, 63));
    m->input_bits = m->input_bits >= 8u && m->input_bits <= 16u ? m->input_bits : 8u + below(l->d, 9);
    m->weight_bits = in_layer && m->input_bits > 8u && below(l->d, 4) == 0 ? 4u : 8u;
    uint32_t row = m->weight_bits == 4u ? (m->cols + 1u) / 2u : m->cols;
    m->weights_offset = fill(l, m->rows * row, 1, 0);
    for (uint32_t k = 0; m->weight_bits == 4u && k < m->rows * row && m->weights_offset + k < l->max; k++) {
        uint8_t *w = l->bytes + m->weights_offset + k;
        *w = (uint8_t)((*w & 15u) == 8u ? *w & 0xF0u : *w);
        *w = (uint8_t)(*w >> 4 == 8u || (m->cols % 2u != 0 && (k + 1u) % row == 0) ? *w & 15u : *w);
    }
    m->scales_offset = fill(l, m->rows, 4, 1);
    m->bias_offset = in_layer && below(l->d, 4) != 0 && m->bias_offset != 0 ? fill(l, m->rows, 4, 0) : 0u;
}

/* Settings that are possible, and small; those that are so stay, but not always. */
static void shrink(draws *d, ehmn_image *im)
{
    uint32_t heads = im->n_heads, kv = im->n_kv_heads;
    if (below(d, 4) == 0 || heads == 0 || kv == 0 || heads > 4u || heads % kv != 0 || im->d_model > 12u
        || im->d_model % (2u * heads) != 0 || im->d_model == 0) {
        im->n_kv_heads = 1u + below(d, 2);
        im->n_heads = im->n_kv_heads * (1u + below(d, 2));
        im->d_model = im->n_heads * 2u * (im->n_heads < 3u ? 1u + below(d, 2) : 1u);
    }
    im->n_layers = im->n_layers == 2u && below(d, 2) == 0 ? 2u : 1u + (below(d, 8) == 0);
    im->d_hidden = im->d_hidden - 1u < 8u ? im->d_hidden : 1u + below(d, 8);
    im->vocab_size = im->vocab_size - 2u < 14u ? im->vocab_size : 2u + below(d, 14);
    im->window = im->positions == EHMN_POSITIONS_LEARNED ? EHMN_WINDOW_RESTART : im->window % 2u;
    im->n_ctx = im->n_ctx - 1u < 8u ? im->n_ctx : 1u + below(d, 8);
    im->n_ctx = im->window == EHMN_WINDOW_RESTART && im->n_ctx < 4u ? 4u : im->n_ctx;
    im->start_token = im->window == EHMN_WINDOW_RESTART && im->start_token < im->vocab_size ? im->start_token
                                                                                            : EHMN_NO_TOKEN;
    im->n_guard = im->n_guard < 4u ? im->n_guard : below(d, 4);
    im->rule.n_negatives = 1u << im->rule.n_negatives % 7u;
    for (uint32_t i = 0; i < EHMN_ROW_ADAPTERS; i++) {
        im->rule.row_slots[i] %= below(d, 16) == 0 ? EHMN_MAX_SLOTS + 1u : 8u;
    }
    im->rule.ngram_slots %= below(d, 16) == 0 ? EHMN_MAX_SLOTS + 1u : 8u;
    im->rule.episodes %= below(d, 16) == 0 ? EHMN_MAX_SLOTS + 1u : 40u;
    memset(im->reserved, 0, sizeof im->reserved);
    memset(im->rule.reserved, 0, sizeof im->rule.reserved);
}

static void put_in_range(draws *d, uint8_t *data, const field *fields, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t value = get32(data + fields[i].offset), low = (uint32_t)fields[i].low, span = fields[i].high - low;
        if (value - low > span) {
            put32(data + fields[i].offset, low + below(d, span + 1u));
        }
    }
}

static void lay_guard(layout *l, ehmn_image *im)
{
    im->guard_offset = (uint32_t)l->at;
    for (uint32_t i = 0; i < im->n_guard && l->at + sizeof(ehmn_guard) <= l->max; i++, l->at += sizeof(ehmn_guard)) {
        ehmn_guard g = {(int32_t)below(l->d, 47) - 16, below(l->d, im->vocab_size), below(l->d, EHMN_MAX_BITS + 1u)};
        memcpy(l->bytes + l->at, &g, sizeof g);
    }
    (void)fill(l, im->n_guard * im->d_model, 1, 0);
}

static void lay_tokenizer(layout *l, ehmn_image *im)
{
    uint64_t end = (uint64_t)im->tokenizer_offset + im->tokenizer_bytes;
    uint32_t bytes = end <= l->from.size && below(l->d, 16) != 0 ? im->tokenizer_bytes : 0u;
    const uint8_t *section = l->from.bytes + im->tokenizer_offset;
    im->tokenizer_offset = (uint32_t)l->at;
    if (bytes > l->max - l->at) {
        bytes = 0;
    }
    memcpy(l->bytes + l->at, section, bytes);
    if (bytes != 0 && below(l->d, 4) == 0) {
        bytes = (uint32_t)mutate_tokenizer(l->d, l->bytes + l->at, bytes, l->max - l->at, im->vocab_size);
    }
    im->tokenizer_bytes = bytes;
    l->at += bytes;
    pad(l);
}

/* The image of these settings, its sections filled from what was there. 0: it is longer than max. */
static size_t rebuild(draws *d, uint8_t *data, size_t size, size_t max)
{
    static uint8_t old[MAX_INPUT];
    ehmn_image im;
    memcpy(old, data, size);
    put_in_range(d, data, settings, COUNT(settings));
    put_in_range(d, data, rule, COUNT(rule));
    memcpy(&im, data, sizeof im);
    shrink(d, &im);
    uint32_t n = im.n_layers * EHMN_MATRICES_PER_LAYER + 3u + (im.tied_head == 0)
               + (im.positions == EHMN_POSITIONS_LEARNED), d_head = im.d_model / im.n_heads;
    uint32_t had = im.vectors_offset / (uint32_t)sizeof(ehmn_matrix); /* at least as many as there were */
    im.matrices_offset = sizeof im;
    im.vectors_offset = im.matrices_offset + n * (uint32_t)sizeof(ehmn_matrix);
    source from = {old, size, sizeof im + below(d, 512)};
    layout l = {data, max, im.vectors_offset + EHMN_VECTORS * sizeof(ehmn_vector), from, d};
    if (l.at > max) {
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        size_t place = im.matrices_offset + (i < had ? i : 0u) * sizeof(ehmn_matrix);
        ehmn_matrix m = {0};
        memcpy(&m, old + (place + sizeof m <= size ? place : 0u), sizeof m);
        lay_matrix(&l, &im, i, &m);
        memcpy(data + im.matrices_offset + i * sizeof m, &m, sizeof m);
    }
    for (uint32_t i = 0; i < EHMN_VECTORS; i++) {
        uint32_t length = im.d_model;
        if (i == EHMN_VECTOR_ROPE) {
            length = im.positions == EHMN_POSITIONS_ROPE ? d_head / 2u : 0u;
        } else if (i == EHMN_VECTOR_NORM_SHIFTS) {
            length = 2u * im.n_layers * im.d_model;
        }
        ehmn_vector v = {length, (uint32_t)l.at, (int32_t)below(d, 63), 0};
        uint32_t start = fill(&l, length, 4, 0);
        for (uint32_t k = start; i == EHMN_VECTOR_NORM_SHIFTS && k + 4u <= start + 4u * length && k + 4u <= max; k += 4u) {
            data[k] %= EHMN_MAX_NORM_SHIFT + 1;
            memset(data + k + 1u, 0, 3);
        }
        memcpy(data + im.vectors_offset + i * sizeof v, &v, sizeof v);
    }
    lay_guard(&l, &im);
    lay_tokenizer(&l, &im);
    memcpy(data, &im, sizeof im);
    if (l.at >= max) {
        memcpy(data, old, size);
        return 0;
    }
    return l.at;
}

static void change_matrix(draws *d, uint8_t *data, size_t size)
{
    const ehmn_image *im = (const void *)data;
    uint32_t n = (uint32_t)((size - sizeof *im) / sizeof(ehmn_matrix));
    uint32_t most = (im->n_layers % 64u + 1u) * EHMN_MATRICES_PER_LAYER;
    if (n > 0) {
        uint32_t i = below(d, n < most ? n : most);
        change_field(d, data + sizeof *im + i * sizeof(ehmn_matrix), of_matrix, COUNT(of_matrix));
    }
}

static void seal(draws *d, uint8_t *data, size_t size)
{
    if (size < 16u) {
        return;
    }
    if (below(d, 64) != 0) {
        put32(data, EHMN_IMAGE_MAGIC);
        put32(data + 4, EHMN_IMAGE_VERSION);
    }
    if (below(d, 64) != 0) {
        put32(data + 8, (uint32_t)size);
    }
    if (below(d, 64) != 0) {
        put32(data + 12, fuzz_crc32(data + 16, size - 16u));
    }
}

size_t mutate_image(draws *d, uint8_t *data, size_t size, size_t max)
{
    uint32_t how = below(d, 16);
    if (size < sizeof(ehmn_image) || how < 5u) {
        size = LLVMFuzzerMutate(data, size, max);
    } else if (how < 8u || how > 13u) {
        change_field(d, data, settings, COUNT(settings));
    } else if (how < 9u) {
        change_field(d, data, places, COUNT(places));
    } else if (how < 11u) {
        change_matrix(d, data, size);
    }
    if (size >= sizeof(ehmn_image) && how >= 11u) {
        if (below(d, 2) == 0) {
            change_field(d, data, rule, COUNT(rule));
        }
        size_t made = rebuild(d, data, size, max);
        size = made != 0 ? made : size;
        if (made != 0 && below(d, 4) == 0) {
            put32(data + 4u * below(d, (uint32_t)size / 4u), draw(d));
        }
    }
    seal(d, data, size);
    return size;
}
