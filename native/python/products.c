#include "products.h"
#include "model.h"

static void product(ehmn_model *m, const ehmn_matrix *matrix, uint32_t first, uint32_t rows)
{
    ehmn_multiply(m, matrix, first, rows, EHMN_NORM_FRAC, m->image->value_frac, ehmn_at(m, m->at.wide));
}

void ehmn_every_product(ehmn_model *m)
{
    for (uint32_t i = 0; i < m->image->n_layers * EHMN_MATRICES_PER_LAYER; i++) {
        product(m, m->matrices + i, 0, m->matrices[i].rows);
    }
    for (uint32_t first = 0, rows; first < m->image->vocab_size; first += rows) {
        rows = ehmn_block_rows(m, first);
        product(m, m->matrices + ehmn_head_index(m->image), first, rows);
    }
}
