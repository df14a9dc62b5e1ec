/* A mutator that knows what an image is made of. */
#ifndef EHMN_MUTATE_IMAGE_H
#define EHMN_MUTATE_IMAGE_H

#include "fuzz.h"

/* Change an image: any of its bytes, a word of a header, or its settings with all sections laid out anew as these ask
 * for. Its size and its CRC are right afterwards, but not always. Returns its new size. */
size_t mutate_image(draws *d, uint8_t *data, size_t size, size_t max);

#endif
