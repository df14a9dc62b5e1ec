/* A mutator that knows what a session is made of. */
#ifndef EHMN_MUTATE_FRAMES_H
#define EHMN_MUTATE_FRAMES_H

#include "fuzz.h"

/* Change what a host sends, from byte `from` of the input on: any bytes, or requests put in, taken out, repeated, or
 * given another payload. Then the frames of a session are put right, one after the other: sync, length, sequence, CRC;
 * but not always. Returns the new size. */
size_t mutate_frames(draws *d, uint8_t *data, size_t size, size_t max, size_t from);

#endif
