/* The validator of images, and the core on whatever it lets through: it runs without a fault, and gives the same bits
 * with any kernels, one token at a time or several. */
#include "fuzz.h"

#include "edgehmn_tokenizer.h"
#include "kernels.h"
#include "model.h"
#include "mutate_image.h"

#define MOST_ARENA (1u << 18)
#define STEPS 2u
#define MANY_STEPS 70u /* once in a while: the guard and the topic have been looked at then */
#define SELDOM 512u
#define BANKS 2u
#define TOKENS 5u
#define AT_ONCE 3u

static uint8_t *arena, *other, *work, *banks;

/* Calls that no image makes right. */
static void misuse(const uint8_t *image, uint32_t size)
{
    uint32_t need;
    ehmn_counts counts;
    ehmn_model *model = NULL;
    REQUIRE(ehmn_image_check(NULL, size) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_image_check(image + 2, size - 2u) == EHMN_E_ALIGNMENT);
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC + 1u, &need) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_arena_bytes(image, EHMN_STATIC, &need) == EHMN_OK && need <= MOST_ARENA);
    REQUIRE(ehmn_open(image, NULL, need, EHMN_STATIC, 1, &model) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_open(image, arena + 8, need, EHMN_STATIC, 1, &model) == EHMN_E_ALIGNMENT);
    REQUIRE(ehmn_open(image, arena, need - 1u, EHMN_STATIC, 1, &model) == EHMN_E_ARENA && model == NULL);
    REQUIRE(ehmn_open(image, arena, need, EHMN_STATIC, 1, &model) == EHMN_OK && ehmn_step(model, 1) == EHMN_OK);
    ehmn_reset(model);
    REQUIRE(ehmn_get_counts(NULL, &counts) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_get_counts(model, &counts) == EHMN_OK && counts.steps == 1u);
    REQUIRE(strcmp(ehmn_status_name(EHMN_E_CRC), "E_CRC") == 0);
    REQUIRE(strcmp(ehmn_status_name(1), "E_UNKNOWN") == 0);
    REQUIRE(ehmn_tokenizer_check(NULL, 0, 2) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_tokenizer_check(image + 2, 200, 2) == EHMN_E_ALIGNMENT);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    uint32_t size;
    (void)argc;
    (void)argv;
    arena = memory(MOST_ARENA);
    banks = memory(MOST_ARENA);
    other = memory(MOST_ARENA);
    work = memory(MOST_ARENA);
    misuse(model_image("small", &size), size);
    return 0;
}

static void run(ehmn_model *model, const ehmn_image *header, uint32_t steps)
{
    uint32_t token;
    for (uint32_t i = 0; i < steps; i++) {
        token = i * 7919u % header->vocab_size;
        REQUIRE(ehmn_learn(model, token) == EHMN_OK && ehmn_step(model, token) == EHMN_OK);
    }
    token = header->vocab_size - 1u;
    REQUIRE(ehmn_follow(model, token) == EHMN_OK && ehmn_step(model, token) == EHMN_OK);
    REQUIRE(ehmn_sample(model, 256, &token) == EHMN_OK && token < header->vocab_size);
    if (header->n_guard > 0) {
        REQUIRE(ehmn_guard_score(model, header->n_guard - 1u, &token) == EHMN_OK);
    }
}

static ehmn_model *open_with(const uint8_t *image, uint8_t *place, uint32_t table)
{
    uint32_t need = 0;
    ehmn_model *model = NULL;
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC, &need) == EHMN_OK);
    ASAN_UNPOISON_MEMORY_REGION(place, need);
    ASAN_POISON_MEMORY_REGION(place + need, MOST_ARENA - need);
    REQUIRE(ehmn_open(image, place, need, EHMN_PLASTIC, 1, &model) == EHMN_OK);
    ehmn_use_kernels(model, ehmn_kernel_table(table));
    return model;
}

/* The simplest kernels, token by token, beside others, with several tokens at once. */
static void compare(const uint8_t *image)
{
    static uint8_t deltas[2][MOST_ARENA] __attribute__((aligned(64)));
    const ehmn_image *header = (const void *)image;
    uint32_t tables = 1, need = 0, bytes = 0, tokens[TOKENS], bits[2][TOKENS], how = (header->crc32 >> 8) % 3u;
    while (ehmn_kernel_table(tables) != NULL) {
        tables++;
    }
    REQUIRE(ehmn_work_bytes(image, AT_ONCE, &need) == EHMN_OK && ehmn_delta_bytes(image, &bytes) == EHMN_OK);
    if (need > MOST_ARENA) {
        return;
    }
    ASAN_UNPOISON_MEMORY_REGION(work, need);
    ASAN_POISON_MEMORY_REGION(work + need, MOST_ARENA - need);
    for (uint32_t i = 0; i < TOKENS; i++) {
        tokens[i] = i * 7919u % header->vocab_size;
    }
    ehmn_model *simple = open_with(image, arena, 0);
    ehmn_model *fast = open_with(image, other, (header->crc32 >> 16) % tables);
    REQUIRE(ehmn_process(simple, tokens, TOKENS, how, bits[0], NULL, 0) == EHMN_OK);
    REQUIRE(ehmn_process(fast, tokens, TOKENS, how, bits[1], work, need) == EHMN_OK);
    REQUIRE(same_bytes(bits[0], bits[1], sizeof bits[0]));
    REQUIRE(same_bytes(ehmn_logits(simple), ehmn_logits(fast), 2u * header->vocab_size));
    REQUIRE(ehmn_delta_save(simple, deltas[0], bytes) == EHMN_OK && ehmn_delta_save(fast, deltas[1], bytes) == EHMN_OK);
    REQUIRE(same_bytes(deltas[0], deltas[1], bytes));
}

/* An image that is called sound must open, run and learn without a fault; what it has learned must load again. */
static void use(const uint8_t *image)
{
    const ehmn_image *header = (const void *)image;
    uint32_t need = 0, bytes = 0;
    ehmn_model *model = NULL;
    REQUIRE(ehmn_arena_bytes(image, EHMN_PLASTIC, &need) == EHMN_OK);
    if (need > MOST_ARENA) {
        return;
    }
    ASAN_UNPOISON_MEMORY_REGION(arena, need);
    ASAN_POISON_MEMORY_REGION(arena + need, MOST_ARENA - need);
    REQUIRE(ehmn_open(image, arena, need, EHMN_PLASTIC, 1, &model) == EHMN_OK);
    int often = header->crc32 % SELDOM == 0;
    if (often && ehmn_banks_bytes(image, BANKS, &bytes) == EHMN_OK && bytes <= MOST_ARENA) {
        REQUIRE(ehmn_banks_attach(model, banks, bytes, BANKS) == EHMN_OK);
    }
    run(model, header, often ? MANY_STEPS : STEPS);
    if (header->crc32 % 4u == 1u) {
        compare(image);
        return;
    }
    REQUIRE(ehmn_delta_bytes(image, &bytes) == EHMN_OK && bytes <= MOST_ARENA);
    if (often) {
        static uint8_t delta[MOST_ARENA] __attribute__((aligned(64)));
        REQUIRE(ehmn_delta_save(model, delta, bytes) == EHMN_OK && ehmn_delta_load(model, delta, bytes) == EHMN_OK);
    }
}

static void make_tokens(const ehmn_image *header)
{
    static const uint8_t words[] = "The \xc3\xa4 ab\n 12\xff";
    const uint8_t *section = (const uint8_t *)header + header->tokenizer_offset;
    uint8_t said[EHMN_MAX_TOKEN_BYTES];
    uint32_t tokens[64], n = 0, state = 0, bytes;
    ehmn_text text = {words, sizeof words - 1u, 0, 0, 0};
    (void)ehmn_tokenize(section, &text, tokens, 64, &n);
    for (uint32_t i = 0; i < n; i++) {
        REQUIRE(tokens[i] < header->vocab_size);
        REQUIRE(ehmn_detokenize(section, tokens[i], &state, said, sizeof said, &bytes) == EHMN_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *image = watched(data, size);
    const ehmn_image *header = (const void *)image;
    if (ehmn_image_check(image, (uint32_t)size) == EHMN_OK) {
        use(image);
        if (header->tokenizer_bytes != 0) {
            make_tokens(header);
        }
    }
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    draws d = draws_of(seed);
    return mutate_image(&d, data, size, max);
}
