/* Products of large matrices on several threads, each with rows of its own, so that the results do not depend on their
 * number. The caller has the threads; what does not call ehmn_use_threads has no code of this. */
#include "model.h"

#define ROWS_TOGETHER 16u  /* a part begins at a multiple of these */
#define LEAST_MACS 32768u  /* of a part: less is done sooner than another thread begins */

typedef struct {
    ehmn_model *m;
    const ehmn_matrix *matrix;
    uint32_t first;
    uint32_t rows;
    int32_t frac;
    int32_t out_frac;
    int32_t *out;
    uint32_t rows_of_part;
} product;

uint32_t ehmn_rows_of_part(const ehmn_model *m, uint32_t rows, uint64_t macs_of_row)
{
    uint32_t most = m->parallel != NULL ? m->parallel->threads : 1u;
    uint64_t least = LEAST_MACS / (macs_of_row > 0 ? macs_of_row : 1u) + 1u;
    uint64_t share = (rows + most - 1u) / most;
    share = share > least ? share : least;
    share = (share + ROWS_TOGETHER - 1u) / ROWS_TOGETHER * ROWS_TOGETHER;
    return share < rows ? (uint32_t)share : rows;
}

static void multiply_part(void *argument, uint32_t part)
{
    const product *p = argument;
    uint32_t begin = part * p->rows_of_part, left = p->rows - begin;
    ehmn_multiply_rows(p->m, p->matrix, p->first + begin, left < p->rows_of_part ? left : p->rows_of_part, p->frac,
                       p->out_frac, p->out + begin);
}

static void spread(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows, int32_t frac,
                   int32_t out_frac, int32_t *out)
{
    uint32_t share = ehmn_rows_of_part(m, rows, matrix->cols);
    if (share >= rows) {
        ehmn_multiply_rows(m, matrix, first, rows, frac, out_frac, out);
        return;
    }
    product p = {m, matrix, first, rows, frac, out_frac, out, share};
    m->parallel->run(m->parallel->context, multiply_part, &p, (rows + share - 1u) / share);
}

int32_t ehmn_use_threads(ehmn_model *m, const ehmn_parallel *parallel)
{
    if (m == NULL || (parallel != NULL && (parallel->run == NULL || parallel->threads == 0))) {
        return EHMN_E_ARGUMENT;
    }
    m->parallel = parallel;
    m->multiply = parallel != NULL && parallel->threads > 1u ? spread : ehmn_multiply_rows;
    return EHMN_OK;
}
