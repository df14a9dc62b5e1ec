/* The validator of images, and the core on whatever it lets through. */
#include "fuzz.h"

#include "edgehmn_tokenizer.h"

#define MOST_ARENA (1u << 24)
#define STEPS 6u

/* An image that is called sound must run and learn without a fault. */
static void use(const uint8_t *image)
{
    const ehmn_image *header = (const void *)image;
    uint32_t need = 0;
    ehmn_model *model = NULL;
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC, &need) == EHMN_OK);
    if (need > MOST_ARENA) {
        return;
    }
    uint8_t *arena = aligned_alloc(64, (need + 63u) / 64u * 64u);
    REQUIRE(arena != NULL && ehmn_open(image, arena, need, EHMN_PLASTIC, 1, &model) == EHMN_OK);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t token = i * 7919u % header->vocab_size;
        REQUIRE(ehmn_learn(model, token) == EHMN_OK && ehmn_step(model, token) == EHMN_OK);
    }
    uint32_t token;
    REQUIRE(ehmn_sample(model, 256, &token) == EHMN_OK && token < header->vocab_size);
    free(arena);
    if (header->tokenizer_bytes != 0) {
        static const uint8_t words[] = "The \xc3\xa4 quick\n 12\xff";
        uint32_t tokens[256];
        uint32_t n = 0;
        ehmn_text text = {words, sizeof words - 1u, 0, 0, 0};
        (void)ehmn_tokenize(image + header->tokenizer_offset, &text, tokens, 256, &n);
        for (uint32_t i = 0; i < n; i++) {
            REQUIRE(tokens[i] < header->vocab_size);
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *image = copy_of(data, size);
    if (ehmn_image_check(image, (uint32_t)size) == EHMN_OK) {
        use(image);
    }
    free(image);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    size = LLVMFuzzerMutate(data, size, max);
    if (size >= 16u && seed % 8u != 0) {
        put32(data, EHMN_IMAGE_MAGIC);
        put32(data + 4, EHMN_IMAGE_VERSION);
        put32(data + 8, (uint32_t)size);
        put32(data + 12, ehmn_crc32(0, data + 16, (uint32_t)size - 16u));
    }
    return size;
}
