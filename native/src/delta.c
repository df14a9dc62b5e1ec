/* What was learned, as bytes: the delta lies in the arena in the very form in which it is stored. */
#include "edgehmn.h"
#include "fixed.h"
#include "model.h"

#include <string.h>

#define FIRST_SHARE 6554 /* a tenth */
#define DELTA_ALIGN 4u   /* every array starts at a multiple of this */

uint32_t ehmn_place(void *layout, const uint8_t *element_bytes, uint32_t n, uint32_t at, uint32_t align)
{
    uint8_t *member = layout;
    uint64_t end = at;
    for (uint32_t i = 0; i < n; i++, member += sizeof(uint32_t)) {
        uint32_t length, start = (uint32_t)end;
        __builtin_memcpy(&length, member, sizeof length);
        __builtin_memcpy(member, &start, sizeof start);
        end = (end + (uint64_t)length * element_bytes[i] + (align - 1u)) & ~(uint64_t)(align - 1u);
    }
    return end > UINT32_MAX ? UINT32_MAX : (uint32_t)end;
}

/* No number of elements of a valid image leaves 32 bits. */
ehmn_delta_layout ehmn_layout_delta(const ehmn_image *im)
{
    static const uint8_t element_bytes[] = {1, 1, 2, 4, 4, 4, 4, 4, 4, 8, 4, 4};
    const ehmn_rule *r = &im->rule;
    uint32_t d = im->d_model, orders = 0;
    for (uint32_t o = 0; o < EHMN_NGRAM_ORDERS; o++) {
        orders += r->ngram_order[o] != 0;
    }
    ehmn_delta_layout l = {
        .dense = im->n_dense * d * d,
        .rows = (r->row_slots[0] + r->row_slots[1]) * d,
        .bias = r->bias_step != 0 ? im->vocab_size : 0u,
        .ngrams = orders * r->ngram_slots,
        .keys = r->episodes * ehmn_key_words(im),
        .tokens = r->episodes,
        .trace = im->n_dense * d,
        .slow = im->n_dense * d,
        .context = im->n_dense * d,
        .topic = d,
        .centre = d,
        .wander = d,
    };
    _Static_assert(sizeof l == sizeof(uint32_t) * (sizeof element_bytes + 1u), "an array for each member but the last");
    l.total = ehmn_place(&l, element_bytes, sizeof element_bytes, sizeof(ehmn_delta), DELTA_ALIGN);
    return l;
}

int32_t ehmn_delta_bytes(const void *image, uint32_t *bytes)
{
    if (image == NULL || bytes == NULL) {
        return EHMN_E_ARGUMENT;
    }
    *bytes = ehmn_layout_delta(image).total;
    return EHMN_OK;
}

void ehmn_delta_clear(ehmn_model *m, uint64_t seed)
{
    int32_t most = m->image->rule.gain_max;
    int32_t one = 65536 < most ? 65536 : most;
    ehmn_delta *delta = ehmn_model_delta(m);
    memset(delta, 0, ehmn_layout_delta(m->image).total);
    delta->magic = EHMN_DELTA_MAGIC;
    delta->version = EHMN_DELTA_VERSION;
    delta->bytes = ehmn_layout_delta(m->image).total;
    memcpy(delta->image_id, m->image->id, EHMN_ID_BYTES);
    delta->seed = seed;
    delta->gains.scale = one;
    delta->gains.bias = one;
    delta->gains.row[0] = one;
    delta->gains.row[1] = one;
    for (uint32_t i = 0; i < m->image->n_dense; i++) {
        delta->gains.dense[i] = one;
    }
    for (uint32_t i = 0; i < EHMN_EPISODE_BUCKETS; i++) {
        delta->gains.share[i] = FIRST_SHARE;
    }
}

/* Draws begin anew with a delta that is cleared or loaded. */
static void begin_delta(ehmn_model *m)
{
    m->seed = ehmn_model_delta(m)->seed;
    m->sampled = 0;
    m->followed = 0;
    m->following = 0;
}

int32_t ehmn_delta_reset(ehmn_model *m, uint64_t seed)
{
    if (m == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    ehmn_delta_clear(m, seed);
    ehmn_forget_banks(m);
    begin_delta(m);
    return EHMN_OK;
}

int32_t ehmn_delta_copy(const ehmn_model *m, const void *delta, void *out, uint32_t bytes)
{
    const uint32_t checked = (uint32_t)offsetof(ehmn_delta, image_id);
    uint32_t total = ehmn_layout_delta(m->image).total;
    if (bytes < total) {
        return EHMN_E_SIZE;
    }
    memcpy(out, delta, total);
    if (m->following && delta == ehmn_model_delta(m)) {
        memcpy((uint8_t *)out + offsetof(ehmn_delta, gains), ehmn_at(m, m->at.kept), sizeof(ehmn_gains));
    }
    uint32_t crc = ehmn_crc32(0, (const uint8_t *)out + checked, total - checked);
    memcpy((uint8_t *)out + offsetof(ehmn_delta, crc32), &crc, sizeof crc);
    return EHMN_OK;
}

int32_t ehmn_delta_save(const ehmn_model *m, void *out, uint32_t bytes)
{
    if (m == NULL || out == NULL) {
        return EHMN_E_ARGUMENT;
    }
    return m->mode == EHMN_PLASTIC ? ehmn_delta_copy(m, ehmn_model_delta(m), out, bytes) : EHMN_E_STATE;
}

static int average_is_possible(const ehmn_average *a)
{
    return a->variance >= 0 && a->started <= 1u && a->reserved == 0;
}

static int header_is_possible(const ehmn_image *im, const ehmn_delta *delta)
{
    int32_t most = im->rule.gain_max;
    int ok = average_is_possible(&delta->reward) && average_is_possible(&delta->uncertainty)
        && average_is_possible(&delta->novelty) && delta->spread >= 0
        && ehmn_in_range(delta->gains.scale, 0, most) && ehmn_in_range(delta->gains.bias, 0, most)
        && delta->checks <= EHMN_MAX_CHECKS && delta->written <= EHMN_MAX_WRITTEN;
    for (uint32_t i = 0; i < EHMN_ROW_ADAPTERS; i++) {
        ok = ok && ehmn_in_range(delta->gains.row[i], 0, most);
    }
    for (uint32_t i = 0; i < EHMN_MAX_DENSE; i++) {
        ok = ok && ehmn_in_range(delta->gains.dense[i], 0, i < im->n_dense ? most : 0);
    }
    for (uint32_t o = 0; o < EHMN_NGRAM_ORDERS; o++) {
        for (uint32_t c = 0; c < EHMN_NGRAM_COUNTS; c++) {
            ok = ok && ehmn_in_range(delta->gains.ngram[o][c], -EHMN_NGRAM_GAIN_MAX, EHMN_NGRAM_GAIN_MAX);
        }
    }
    for (uint32_t i = 0; i < EHMN_EPISODE_BUCKETS; i++) {
        ok = ok && ehmn_in_range(delta->gains.share[i], EHMN_SHARE_MIN, EHMN_SHARE_MAX);
    }
    return ok;
}

static int weights_are_possible(const ehmn_image *im, const ehmn_delta *delta)
{
    ehmn_delta_layout l = ehmn_layout_delta(im);
    const int8_t *bytes = (const int8_t *)delta;
    const int16_t *bias = (const int16_t *)(const void *)(bytes + l.bias);
    uint32_t d = im->d_model;
    uint32_t biases = im->rule.bias_step != 0 ? im->vocab_size : 0u;
    int ok = ehmn_bytes_are_zero(delta, l.dense + im->n_dense * d * d, l.rows)
        && ehmn_bytes_are_zero(delta, l.rows + (im->rule.row_slots[0] + im->rule.row_slots[1]) * d, l.bias)
        && ehmn_bytes_are_zero(delta, l.bias + 2u * biases, l.ngrams);
    for (uint32_t i = l.dense; ok && i < l.bias; i++) {
        ok = bytes[i] != -128;
    }
    for (uint32_t i = 0; ok && i < biases; i++) {
        ok = bias[i] != INT16_MIN;
    }
    return ok;
}

static int memories_are_possible(const ehmn_image *im, const ehmn_delta *delta)
{
    ehmn_delta_layout l = ehmn_layout_delta(im);
    const uint8_t *bytes = (const uint8_t *)delta;
    const uint32_t *ngrams = (const uint32_t *)(const void *)(bytes + l.ngrams);
    const uint32_t *keys = (const uint32_t *)(const void *)(bytes + l.keys);
    const uint32_t *tokens = (const uint32_t *)(const void *)(bytes + l.tokens);
    uint32_t words = ehmn_key_words(im);
    uint32_t beyond = im->d_model % 32u == 0 ? 0u : ~0u << im->d_model % 32u; /* no unit's bits */
    int ok = 1;
    for (uint32_t i = 0; ok && i < (l.keys - l.ngrams) / 4u; i++) {
        ok = ehmn_ngram_count(ngrams[i]) == 0 ? ngrams[i] == 0 : ehmn_ngram_token(ngrams[i]) < im->vocab_size;
    }
    for (uint32_t i = 0; ok && i < im->rule.episodes; i++, keys += words) {
        uint32_t any = tokens[i];
        for (uint32_t w = 0; w < words; w++) {
            any |= keys[w];
        }
        ok = i < delta->written ? tokens[i] < im->vocab_size && (keys[words - 1u] & beyond) == 0 : any == 0;
    }
    return ok && (im->rule.episodes != 0 || delta->written == 0);
}

int32_t ehmn_delta_check(const ehmn_model *m, const void *bytes_in, uint32_t bytes)
{
    const ehmn_delta *delta = bytes_in;
    const uint32_t checked = (uint32_t)offsetof(ehmn_delta, image_id);
    if (m == NULL || delta == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if ((uintptr_t)delta % 8u != 0) {
        return EHMN_E_ALIGNMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    if (bytes < sizeof(uint32_t) || delta->magic != EHMN_DELTA_MAGIC) {
        return EHMN_E_MAGIC;
    }
    if (bytes < sizeof(ehmn_delta)) {
        return EHMN_E_SIZE;
    }
    if (delta->version != EHMN_DELTA_VERSION) {
        return EHMN_E_VERSION;
    }
    uint32_t total = ehmn_layout_delta(m->image).total;
    if (delta->bytes != bytes) {
        return EHMN_E_SIZE;
    }
    if (ehmn_crc32(0, (const uint8_t *)delta + checked, bytes - checked) != delta->crc32) {
        return EHMN_E_CRC;
    }
    if (memcmp(delta->image_id, m->image->id, EHMN_ID_BYTES) != 0) {
        return EHMN_E_IMAGE_ID;
    }
    if (bytes != total) {
        return EHMN_E_SIZE;
    }
    int ok = header_is_possible(m->image, delta) && weights_are_possible(m->image, delta)
        && memories_are_possible(m->image, delta);
    return ok ? EHMN_OK : EHMN_E_VALUE;
}

int32_t ehmn_delta_load(ehmn_model *m, const void *delta, uint32_t bytes)
{
    int32_t status = ehmn_delta_check(m, delta, bytes);
    if (status != EHMN_OK) {
        return status;
    }
    memcpy(ehmn_model_delta(m), delta, bytes);
    begin_delta(m);
    ehmn_begin_bank(m);
    return EHMN_OK;
}
