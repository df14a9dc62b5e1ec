/* What was learned, as bytes: the delta lies in the arena in the very form in which it is stored. */
#include "edgehmn.h"
#include "fixed.h"
#include "model.h"

#include <string.h>

ehmn_delta_layout ehmn_layout_delta(const ehmn_image *im)
{
    uint32_t d = im->d_model;
    uint32_t vectors = 4u * im->n_adapters * d;
    ehmn_delta_layout l;
    l.weights = (uint32_t)sizeof(ehmn_delta);
    l.trace = (l.weights + im->n_adapters * d * d + 3u) & ~3u;
    l.slow = l.trace + vectors;
    l.context = l.slow + vectors;
    l.topic = l.context + vectors;
    l.total = l.topic + 8u * d;
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

int32_t ehmn_delta_reset(ehmn_model *m, uint64_t seed)
{
    if (m == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    ehmn_delta *delta = ehmn_model_delta(m);
    memset(delta, 0, ehmn_layout_delta(m->image).total);
    delta->magic = EHMN_DELTA_MAGIC;
    delta->version = EHMN_DELTA_VERSION;
    delta->bytes = ehmn_layout_delta(m->image).total;
    memcpy(delta->image_id, m->image->id, EHMN_ID_BYTES);
    delta->seed = seed;
    for (uint32_t i = 0; i < m->image->n_adapters; i++) {
        delta->gain[i] = 65536 < m->image->rule.gain_max ? 65536 : m->image->rule.gain_max;
    }
    m->seed = seed;
    m->sampled = 0;
    return EHMN_OK;
}

int32_t ehmn_delta_save(const ehmn_model *m, void *out, uint32_t bytes)
{
    const uint32_t checked = (uint32_t)offsetof(ehmn_delta, image_id);
    if (m == NULL || out == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if (m->mode != EHMN_PLASTIC) {
        return EHMN_E_STATE;
    }
    uint32_t total = ehmn_layout_delta(m->image).total;
    if (bytes < total) {
        return EHMN_E_SIZE;
    }
    memcpy(out, ehmn_model_delta(m), total);
    uint32_t crc = ehmn_crc32(0, (const uint8_t *)out + checked, total - checked);
    memcpy((uint8_t *)out + offsetof(ehmn_delta, crc32), &crc, sizeof crc);
    return EHMN_OK;
}

static int average_is_possible(const ehmn_average *a)
{
    return a->variance >= 0 && a->started <= 1u && a->reserved == 0;
}

static int values_are_possible(const ehmn_image *im, const ehmn_delta *delta)
{
    ehmn_delta_layout l = ehmn_layout_delta(im);
    const int8_t *w = (const int8_t *)delta + l.weights;
    int ok = average_is_possible(&delta->reward) && average_is_possible(&delta->uncertainty)
        && average_is_possible(&delta->novelty);
    for (uint32_t i = 0; i < 5u; i++) {
        ok = ok && delta->reserved[i] == 0;
    }
    for (uint32_t i = 0; i < EHMN_MAX_ADAPTERS; i++) {
        int32_t most = i < im->n_adapters ? im->rule.gain_max : 0;
        ok = ok && delta->gain[i] >= 0 && delta->gain[i] <= most;
    }
    for (uint32_t i = 0; ok && i < l.trace - l.weights; i++) {
        ok = w[i] != -128;
    }
    return ok;
}

int32_t ehmn_delta_load(ehmn_model *m, const void *bytes_in, uint32_t bytes)
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
    if (!values_are_possible(m->image, delta)) {
        return EHMN_E_VALUE;
    }
    memcpy(ehmn_model_delta(m), delta, total);
    memcpy(&m->seed, &ehmn_model_delta(m)->seed, sizeof m->seed);
    m->sampled = 0;
    return EHMN_OK;
}
