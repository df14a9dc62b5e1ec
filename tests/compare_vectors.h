/* What the comparisons of arithmetic on whole vectors share: random values, and arrays that are blocks of their own. */
#ifndef COMPARE_VECTORS_H
#define COMPARE_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#define MOST 80u /* values of a vector */

/* A random number of low..high; v[n] of them within +-limit, some at the ends. */
int32_t between(int32_t low, int32_t high);
void fill(int32_t *v, uint32_t n, int32_t limit);

/* A copy of its own for every use, so that a sanitizer sees a byte too far. */
void *copy(const void *from, size_t bytes);

/* What `made` holds must be `expected`, of n values of `size` bytes; frees `made`. */
void same(const char *what, uint32_t n, const void *expected, void *made, size_t size);

/* compare_vectors.c: all of it, of all sizes; compare_plastic.c: what learning alone has, of vectors of n values. */
void compare_vectors(void);
void compare_plastic(uint32_t n, int32_t limit);

#endif
