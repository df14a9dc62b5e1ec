/* The loader of deltas: what it takes must be learned from further, and what it refuses must change nothing. */
#include "fuzz.h"

static ehmn_model *model;
static uint32_t delta_bytes;
static uint8_t *before, *after;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    uint32_t size, need;
    uint8_t *image = image_of_environment(&size);
    (void)argc;
    (void)argv;
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC, &need) == EHMN_OK);
    REQUIRE(ehmn_delta_bytes(image, &delta_bytes) == EHMN_OK);
    uint8_t *arena = aligned_alloc(64, (need + 63u) / 64u * 64u);
    REQUIRE(ehmn_open(image, arena, need, EHMN_PLASTIC, 1, &model) == EHMN_OK);
    before = aligned_alloc(64, (delta_bytes + 63u) / 64u * 64u);
    after = aligned_alloc(64, (delta_bytes + 63u) / 64u * 64u);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *delta = copy_of(data, size);
    ehmn_reset(model);
    REQUIRE(ehmn_delta_reset(model, 5) == EHMN_OK && ehmn_delta_save(model, before, delta_bytes) == EHMN_OK);
    int32_t status = ehmn_delta_load(model, delta, (uint32_t)size);
    REQUIRE(ehmn_delta_save(model, after, delta_bytes) == EHMN_OK);
    REQUIRE(memcmp(after, status == EHMN_OK ? delta : before, delta_bytes) == 0);
    for (uint32_t token = 0; status == EHMN_OK && token < 4u; token++) {
        REQUIRE(ehmn_step(model, token) == EHMN_OK && ehmn_learn(model, 3u - token) == EHMN_OK);
    }
    free(delta);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    size = LLVMFuzzerMutate(data, size, max);
    if (size >= sizeof(ehmn_delta) && seed % 8u != 0) {
        memcpy(data, before, offsetof(ehmn_delta, seed)); /* magic, version, size and image */
        put32(data + 8, (uint32_t)size);
        put32(data + 12, ehmn_crc32(0, data + 16, (uint32_t)size - 16u));
    }
    return size;
}
