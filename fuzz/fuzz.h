/* What the harnesses share. Each takes any bytes as its input and must neither crash, nor run on for ever, nor believe
 * them; a mutator of its own repairs checksums, so that mutations reach what lies behind them. */
#ifndef EHMN_FUZZ_H
#define EHMN_FUZZ_H

#include "edgehmn.h"

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

/* An aligned copy whose end the sanitizer watches. */
static inline uint8_t *copy_of(const uint8_t *data, size_t size)
{
    uint8_t *out = aligned_alloc(64, (size + 64u) / 64u * 64u);
    REQUIRE(out != NULL);
    if (size != 0) {
        memcpy(out, data, size);
    }
    return out;
}

/* The sound image in the file that the environment names, for harnesses that need a model. */
static inline uint8_t *image_of_environment(uint32_t *size)
{
    static uint8_t buffer[1 << 20];
    const char *name = getenv("EHMN_FUZZ_IMAGE");
    FILE *file = name == NULL ? NULL : fopen(name, "rb");
    REQUIRE(file != NULL);
    *size = (uint32_t)fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    uint8_t *image = copy_of(buffer, *size);
    REQUIRE(ehmn_image_check(image, *size) == EHMN_OK);
    return image;
}

#endif
