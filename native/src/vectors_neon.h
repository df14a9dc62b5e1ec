/* Parts of vectors.c and encoder.c for aarch64, whose every processor has Advanced SIMD. */
#ifndef EHMN_VECTORS_NEON_H
#define EHMN_VECTORS_NEON_H

#include <stdint.h>

#if defined(__aarch64__) && defined(__ARM_NEON)
#define EHMN_NEON

/* The largest magnitude. */
uint32_t ehmn_neon_max_abs(const int32_t *v, uint32_t n);

/* As in encoder.c. Returns how many pairs were rotated, from the first on: all whole fours. */
uint32_t ehmn_neon_rotate(const int16_t *turn, uint32_t half, int32_t *v);

#endif

#endif
