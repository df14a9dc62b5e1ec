/* How the values of the window lie: position by position, as the keys do; or column by column, where kernels are faster
 * at products along rows than at sums of them. Nothing that is stored or sent depends on it. */
#ifndef EHMN_VALUES_H
#define EHMN_VALUES_H

#include "kernels_tables.h"

#if defined(EHMN_MVE) || defined(EHMN_ARM_DSP)
#define EHMN_VALUES_BY_COLUMN
#endif

/* Where the value of a layer from one column and position on lies. */
#if defined(EHMN_VALUES_BY_COLUMN)
#define EHMN_VALUES_AT(im, layer, column, position) \
    (((size_t)(layer) * ehmn_d_kv(im) + (column)) * (im)->n_ctx + (position))
#else
#define EHMN_VALUES_AT(im, layer, column, position) \
    (((size_t)(layer) * (im)->n_ctx + (position)) * ehmn_d_kv(im) + (column))
#endif

/* ehmn_spread: out[i * stride] = v[i]. ehmn_negate16: the weights of a sum, at most 2^15, negated in 16 bits, where
 * they fit; in the room where they were. */
#if defined(EHMN_MVE)
#define ehmn_spread ehmn_mve_spread
#define ehmn_negate16 ehmn_mve_negate16
#elif defined(EHMN_VALUES_BY_COLUMN)
static inline void ehmn_spread(const int8_t *v, uint32_t n, int8_t *out, uint32_t stride)
{
    for (const int8_t *end = v + n; v < end; out += stride) {
        *out = *v++;
    }
}

#define ehmn_negate16 ehmn_dsp_negate16
const int16_t *ehmn_dsp_negate16(int32_t *weights, uint32_t n);
#endif

#endif
