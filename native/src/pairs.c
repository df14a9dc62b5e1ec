/* Products of 8-bit weights with a quarter less instructions for each pair of columns, on cores whose kernels can add
 * before they multiply: (w0 + x1) (w1 + x0) = w0 x0 + w1 x1 + w0 w1 + x0 x1. The sum of w0 w1 along a row does not
 * change with the input; it is kept in what an arena has beyond the model's need, for as many matrices as there is
 * room. */
#include "kernels_tables.h"
#include "model.h"

#if defined(EHMN_ARM_DSP)

/* -(the sum of w0 w1) of each row. */
static void sum_pairs(const int8_t *w, uint32_t rows, uint32_t cols, int32_t *sums)
{
    for (int32_t *end = sums + rows; sums < end; sums++) {
        *sums = 0;
        for (const int8_t *row_end = w + cols; w < row_end; w += 2) {
            *sums -= w[0] * w[1];
        }
    }
}

void ehmn_keep_pairs(ehmn_model *m, uint32_t arena_bytes)
{
    uint32_t n = ehmn_topic_index(m->image) + 1u, used = n, room = (arena_bytes - m->at.total) / 4u;
    int32_t *pairs = ehmn_at(m, m->at.total);
    if (m->kernels->matvec_s8_paired == NULL || room < n) {
        return;
    }
    m->pairs = pairs;
    for (uint32_t i = 0; i < n; i++) {
        const ehmn_matrix *matrix = m->matrices + i;
        int only_read = i == ehmn_embedding_index(m->image) && !m->image->tied_head; /* never multiplied */
        pairs[i] = 0;
        if (matrix->weight_bits == 8u && matrix->cols % 8u == 0 && matrix->rows <= room - used && !only_read) {
            pairs[i] = (int32_t)used;
            sum_pairs(ehmn_weights(m, matrix), matrix->rows, matrix->cols, pairs + used);
            used += matrix->rows;
        }
    }
}

/* Of the rows of a matrix from `first` on; NULL: they are not kept. */
static const int32_t *pairs_of(const ehmn_model *m, const ehmn_matrix *matrix, uint32_t first)
{
    int32_t at = m->pairs != NULL && m->kernels->matvec_s8_paired != NULL ? m->pairs[matrix - m->matrices] : 0;
    return at != 0 ? m->pairs + at + first : NULL;
}

void ehmn_matvec_s8(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out)
{
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)first * matrix->cols, *x = ehmn_at(m, m->at.narrow);
    const int32_t *pairs = pairs_of(m, matrix, first);
    if (pairs != NULL) {
        m->kernels->matvec_s8_paired(w, rows, matrix->cols, matrix->cols, x, pairs, out);
    } else {
        m->kernels->matvec_s8(w, rows, matrix->cols, matrix->cols, x, out);
    }
}

void ehmn_matvec_s16(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out)
{
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)first * matrix->cols;
    const int16_t *x = ehmn_at(m, m->at.mantissas);
    const int32_t *pairs = m->most <= EHMN_MOST_PAIRED ? pairs_of(m, matrix, first) : NULL;
    if (pairs != NULL) {
        m->kernels->matvec_s16_paired(w, rows, matrix->cols, matrix->cols, x, pairs, out);
    } else {
        m->kernels->matvec_s16(w, rows, matrix->cols, matrix->cols, x, out);
    }
}

#else

void ehmn_keep_pairs(ehmn_model *m, uint32_t arena_bytes)
{
    (void)m;
    (void)arena_bytes;
}

void ehmn_matvec_s8(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out)
{
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)first * matrix->cols;
    m->kernels->matvec_s8(w, rows, matrix->cols, matrix->cols, ehmn_at(m, m->at.narrow), out);
}

void ehmn_matvec_s16(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out)
{
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)first * matrix->cols;
    m->kernels->matvec_s16(w, rows, matrix->cols, matrix->cols, ehmn_at(m, m->at.mantissas), out);
}

#endif
