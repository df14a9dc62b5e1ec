/* Products of 8-bit weights and inputs at a third less cost for each pair of columns, on cores whose kernels can add
 * before they multiply: (w0 + x1) (w1 + x0) = w0 x0 + w1 x1 + w0 w1 + x0 x1. The sum of w0 w1 along a row does not change
 * with the input; it is kept in what an arena has beyond the model's need, for as many matrices as there is room. */
#include "kernels_tables.h"
#include "model.h"

#if defined(EHMN_ARM_DSP)

static int takes_pairs(const ehmn_image *im, uint32_t index, const ehmn_matrix *matrix)
{
    int multiplied = index < ehmn_embedding_index(im) || index == ehmn_head_index(im)
                  || index >= ehmn_preconditioner_index(im);
    return multiplied && matrix->weight_bits == 8u && matrix->input_bits == 8u && matrix->cols % 8u == 0;
}

void ehmn_keep_pairs(ehmn_model *m, uint32_t arena_bytes)
{
    uint32_t n = ehmn_topic_index(m->image) + 1u, used = n, room = (arena_bytes - m->at.total) / 4u;
    int32_t *pairs = ehmn_at(m, m->at.total);
    if (m->kernels->matvec_s8_paired == NULL || room < n) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        const ehmn_matrix *matrix = m->matrices + i;
        int keep = takes_pairs(m->image, i, matrix) && matrix->rows <= room - used;
        const int8_t *w = ehmn_weights(m, matrix);
        pairs[i] = keep ? (int32_t)used : 0;
        for (uint32_t end = keep ? used + matrix->rows : used; used < end; used++) {
            int32_t sum = 0;
            for (const int8_t *row_end = w + matrix->cols; w < row_end; w += 2) {
                sum -= w[0] * w[1];
            }
            pairs[used] = sum;
        }
    }
    m->pairs = pairs;
}

void ehmn_matvec_s8(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t *out)
{
    const int8_t *w = ehmn_weights(m, matrix) + (size_t)first * matrix->cols, *x = ehmn_at(m, m->at.mantissas);
    int32_t at = m->pairs != NULL ? m->pairs[matrix - m->matrices] : 0;
    if (at != 0 && m->kernels->matvec_s8_paired != NULL) {
        m->kernels->matvec_s8_paired(w, rows, matrix->cols, matrix->cols, x, m->pairs + at + first, out);
    } else {
        m->kernels->matvec_s8(w, rows, matrix->cols, matrix->cols, x, out);
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
    m->kernels->matvec_s8(w, rows, matrix->cols, matrix->cols, ehmn_at(m, m->at.mantissas), out);
}

#endif
