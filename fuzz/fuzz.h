/* What the harnesses share. Each takes any bytes as its input and must neither crash, nor run on for ever, nor believe
 * them; a mutator of its own knows the format and repairs checksums, so that mutations reach what lies behind them. */
#ifndef EHMN_FUZZ_H
#define EHMN_FUZZ_H

#include "edgehmn.h"

#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

#define MAX_INPUT 4096u /* bytes; fuzz.py gives no longer ones */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed);

static inline uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

/* ehmn_crc32, eight bytes at a time, for mutators: the core's own would take most of their time. */
uint32_t fuzz_crc32(const uint8_t *bytes, size_t n);

/* Whether n bytes are the same: memcmp, but not one that libFuzzer takes for a comparison to learn from. */
int same_bytes(const void *a, const void *b, size_t n);

/* Draws of a mutator: xorshift, from libFuzzer's seed. */
typedef struct {
    uint32_t state;
} draws;

static inline draws draws_of(unsigned int seed)
{
    draws out = {seed * 2654435761u ^ 0x9E3779B9u};
    out.state |= out.state == 0;
    return out;
}

static inline uint32_t draw(draws *d)
{
    d->state ^= d->state << 13;
    d->state ^= d->state >> 17;
    d->state ^= d->state << 5;
    return d->state;
}

static inline uint32_t below(draws *d, uint32_t n)
{
    return (uint32_t)((uint64_t)draw(d) * n >> 32);
}

/* A word of a header, and what the format allows in it. */
typedef struct {
    uint32_t offset;
    int32_t low;
    uint32_t high;
} field;

/* Another value for a word: at the edges of what is allowed, inside, one off, a copy of another word, or anything. */
uint32_t other_value(draws *d, uint32_t old, int32_t low, uint32_t high);

/* Give one of the fields in `data` another value, sometimes that of another one. */
void change_field(draws *d, uint8_t *data, const field *fields, uint32_t n);

/* The input in 64-aligned memory whose end the sanitizer watches. There is one such place. */
const uint8_t *watched(const uint8_t *data, size_t size);

/* The sound image NAME.ehmn in the folder that EHMN_FUZZ_MODELS names. */
const uint8_t *model_image(const char *name, uint32_t *size);

/* Memory for as long as the process runs, 64-aligned. */
void *memory(size_t size);

#endif
