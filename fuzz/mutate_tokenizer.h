/* A mutator that knows what the section of a tokenizer is made of. */
#ifndef EHMN_MUTATE_TOKENIZER_H
#define EHMN_MUTATE_TOKENIZER_H

#include "fuzz.h"

/* Change a section of `size` bytes: any of its bytes, a word of its header, or its merges, literals and lists, which
 * are then sorted and laid out anew. Returns its new size, at most max. `vocab_size`: of the model. */
size_t mutate_tokenizer(draws *d, uint8_t *data, size_t size, size_t max, uint32_t vocab_size);

#endif
