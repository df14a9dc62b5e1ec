/* What the benches of speed measure apart from all else. */
#ifndef EHMN_PRODUCTS_H
#define EHMN_PRODUCTS_H

#include "edgehmn.h"

/* Each matrix that a token is multiplied by, once, as ehmn_step does, with whatever the inputs hold. */
void ehmn_every_product(ehmn_model *m);

#endif
