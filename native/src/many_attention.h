/* What the files of attention of several tokens share: a head, its tokens and its window. */
#ifndef EHMN_MANY_ATTENTION_H
#define EHMN_MANY_ATTENTION_H

#include "model.h"

#include <stddef.h>

#define TOGETHER EHMN_ATTENDING_TOGETHER /* each token is multiplied by the keys of those before it once more */

/* A head, and where in the model's window it reads and writes. */
typedef struct {
    ehmn_model *m;
    const ehmn_attending *tokens;
    uint32_t first;    /* of the tokens that are at work */
    uint32_t position; /* of that one */
    uint32_t filled;   /* with it */
    uint32_t kv_head;
    int8_t *keys;      /* of the kv_head, row by row as values: d_kv apart */
    int8_t *values;
    int8_t *key_frac;  /* n_kv_heads apart */
    int8_t *value_frac;
} ehmn_at_head;

static inline void *ehmn_own(const ehmn_attending *tokens, const void *first, uint32_t token)
{
    return (uint8_t *)(uintptr_t)first + (size_t)token * tokens->stride;
}

static inline uint32_t ehmn_position_of(const ehmn_at_head *h, uint32_t token)
{
    uint32_t position = h->position + token, n_ctx = h->m->image->n_ctx;
    return position < n_ctx ? position : position - n_ctx;
}

static inline uint32_t ehmn_filled_at(const ehmn_at_head *h, uint32_t token)
{
    uint32_t filled = h->filled + token, n_ctx = h->m->image->n_ctx;
    return filled < n_ctx ? filled : n_ctx;
}

/* many_attention_neon.c: attention of the query heads of a kv_head, of `n` tokens whose keys and values are in their
 * rows and end in the window, whatever table multiplies. */
void ehmn_neon_attend_heads(const ehmn_at_head *h, uint32_t n);

#endif
