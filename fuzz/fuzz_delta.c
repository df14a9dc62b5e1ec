/* The loader of deltas: what it takes must be learned from further, and what it refuses must change nothing. There are
 * two models; the input is given to the one whose id it bears. */
#include "fuzz.h"

#define MODELS 2u
#define BANKS 2u
#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof(array)[0]))
#define IN_DELTA(name, low, high) {offsetof(ehmn_delta, name), low, high}
#define IN_GAINS(name, low, high) {offsetof(ehmn_delta, gains) + offsetof(ehmn_gains, name), low, high}

typedef struct {
    const ehmn_image *image;
    ehmn_model *model;
    uint8_t *arena, *fresh; /* now, and as it was at first */
    uint8_t *banks, *delta, *after;
    uint32_t arena_bytes, bank_bytes, delta_bytes;
} opened;

static opened all[MODELS];

static void open_model(const char *name, opened *o)
{
    uint32_t size;
    o->image = (const void *)model_image(name, &size);
    REQUIRE(ehmn_arena_bytes(o->image, EHMN_PLASTIC, &o->arena_bytes) == EHMN_OK);
    REQUIRE(ehmn_delta_bytes(o->image, &o->delta_bytes) == EHMN_OK);
    REQUIRE(ehmn_banks_bytes(o->image, BANKS, &o->bank_bytes) == EHMN_OK);
    o->arena = memory(o->arena_bytes);
    o->fresh = memory(o->arena_bytes);
    o->banks = memory(o->bank_bytes);
    o->delta = memory(o->delta_bytes);
    o->after = memory(o->delta_bytes);
    REQUIRE(ehmn_open(o->image, o->arena, o->arena_bytes, EHMN_PLASTIC, 5, &o->model) == EHMN_OK);
    REQUIRE(ehmn_banks_attach(o->model, o->banks, o->bank_bytes, BANKS) == EHMN_OK);
    REQUIRE(ehmn_step(o->model, 1) == EHMN_OK);
    REQUIRE(ehmn_delta_save(o->model, o->delta, o->delta_bytes) == EHMN_OK);
    memcpy(o->fresh, o->arena, o->arena_bytes);
}

/* Calls that no delta makes right. */
static void misuse(const opened *o)
{
    uint8_t *arena = memory(o->arena_bytes), *out = memory(o->delta_bytes + 4u);
    uint32_t bytes = o->delta_bytes;
    ehmn_model *frozen;
    REQUIRE(ehmn_open(o->image, arena, o->arena_bytes, EHMN_STATIC, 1, &frozen) == EHMN_OK);
    REQUIRE(ehmn_delta_bytes(NULL, &bytes) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_delta_load(NULL, o->delta, bytes) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_delta_load(o->model, out + 4, bytes) == EHMN_E_ALIGNMENT);
    REQUIRE(ehmn_delta_load(frozen, o->delta, bytes) == EHMN_E_STATE);
    REQUIRE(ehmn_delta_reset(NULL, 1) == EHMN_E_ARGUMENT && ehmn_delta_reset(frozen, 1) == EHMN_E_STATE);
    REQUIRE(ehmn_delta_save(o->model, NULL, bytes) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_delta_save(frozen, out, bytes) == EHMN_E_STATE);
    REQUIRE(ehmn_delta_save(o->model, out, bytes - 1u) == EHMN_E_SIZE);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    open_model("small", &all[0]);
    misuse(&all[0]);
    open_model("text", &all[1]);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *delta = watched(data, size);
    const uint32_t id = offsetof(ehmn_delta, image_id);
    opened *o = &all[size >= id + EHMN_ID_BYTES && same_bytes(delta + id, all[1].image->id, EHMN_ID_BYTES)];
    int32_t status = ehmn_delta_load(o->model, delta, (uint32_t)size);
    if (status != EHMN_OK) {
        REQUIRE(same_bytes(o->arena, o->fresh, o->arena_bytes));
        return 0;
    }
    REQUIRE(size == o->delta_bytes && ehmn_delta_save(o->model, o->after, o->delta_bytes) == EHMN_OK);
    REQUIRE(same_bytes(o->after, delta, size));
    for (uint32_t token = 0; token < 3u; token++) {
        REQUIRE(ehmn_learn(o->model, 2u - token) == EHMN_OK && ehmn_step(o->model, token) == EHMN_OK);
    }
    REQUIRE(ehmn_bank_load(o->model, 1, delta, (uint32_t)size) == EHMN_OK);
    REQUIRE(ehmn_follow(o->model, 1) == EHMN_OK && ehmn_step(o->model, 1) == EHMN_OK);
    REQUIRE(ehmn_bank_save(o->model, 1, o->after, o->delta_bytes) == EHMN_OK && same_bytes(o->after, delta, size));
    REQUIRE(ehmn_delta_save(o->model, o->after, o->delta_bytes) == EHMN_OK);
    REQUIRE(ehmn_delta_load(o->model, o->after, o->delta_bytes) == EHMN_OK); /* what is learned from it is sound too */
    memcpy(o->arena, o->fresh, o->arena_bytes);
    return 0;
}

/* ---- Mutations */

static const field fields[] = {
    IN_DELTA(magic, 0, 0), IN_DELTA(version, 0, EHMN_DELTA_VERSION + 1), IN_DELTA(bytes, 512, 4096),
    IN_DELTA(image_id[8], 0, 0), IN_DELTA(seed, 0, 0xFFFFFFFFu), IN_DELTA(learned, 0, 0xFFFFFFFFu),
    IN_DELTA(learned, 63, 64), IN_DELTA(writes, 0, 0xFFFFFFFFu), IN_DELTA(phase, 0, 0xFFFFFFFFu),
    IN_DELTA(written, 0, EHMN_MAX_WRITTEN), IN_DELTA(checks, 0, EHMN_MAX_CHECKS),
    IN_DELTA(guard_excess, -0x7FFFFFFF - 1, 0x7FFFFFFFu), IN_DELTA(age, 0, 0xFFFFFFFFu),
    IN_DELTA(spread, 0, 0x7FFFFFFFu), IN_DELTA(reward.mean, 0, 0xFFFFFFFFu),
    IN_DELTA(reward.variance, 0, 0x7FFFFFFFu), IN_DELTA(reward.started, 0, 1), IN_DELTA(reward.reserved, 0, 0),
    IN_DELTA(uncertainty.mean, 0, 0xFFFFFFFFu), IN_DELTA(uncertainty.variance, 0, 0x7FFFFFFFu),
    IN_DELTA(uncertainty.started, 0, 1), IN_DELTA(novelty.mean, 0, 0xFFFFFFFFu),
    IN_DELTA(novelty.variance, 0, 0x7FFFFFFFu), IN_DELTA(novelty.started, 0, 1), IN_GAINS(scale, 0, 1 << 20),
    IN_GAINS(bias, 0, 1 << 20), IN_GAINS(row[0], 0, 1 << 20), IN_GAINS(row[1], 0, 1 << 20),
    IN_GAINS(dense[0], 0, 1 << 20), IN_GAINS(dense[1], 0, 1 << 20), IN_GAINS(dense[7], 0, 1),
    IN_GAINS(ngram[0][1], -EHMN_NGRAM_GAIN_MAX, EHMN_NGRAM_GAIN_MAX),
    IN_GAINS(ngram[3][15], -EHMN_NGRAM_GAIN_MAX, EHMN_NGRAM_GAIN_MAX),
    IN_GAINS(share[0], EHMN_SHARE_MIN, EHMN_SHARE_MAX), IN_GAINS(share[15], EHMN_SHARE_MIN, EHMN_SHARE_MAX),
};

/* Change one word behind the header: an n-gram, a key, a token, weights, a trace. */
static void change_word(draws *d, uint8_t *data, size_t size)
{
    uint32_t words = (uint32_t)(size - sizeof(ehmn_delta)) / 4u;
    if (words > 0) {
        uint8_t *word = data + sizeof(ehmn_delta) + 4u * below(d, words);
        uint32_t old = get32(word), how = below(d, 4);
        /* zero, another token in the slot of an n-gram, or anything */
        put32(word, how == 0 ? 0u
                  : how == 1u ? (old & ~EHMN_NGRAM_TOKEN_MASK) | below(d, 12)
                              : other_value(d, old, 0, 0xFFFFFFFFu));
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    draws d = draws_of(seed);
    uint32_t how = below(&d, 8);
    const opened *o = &all[below(&d, 8) == 0];
    if (how < 3u || size < sizeof(ehmn_delta)) {
        size = LLVMFuzzerMutate(data, size, max);
    } else if (how < 6u) {
        change_field(&d, data, fields, COUNT(fields));
    } else {
        for (uint32_t n = 1u + below(&d, 3); n > 0; n--) {
            change_word(&d, data, size);
        }
    }
    if (o->delta_bytes <= max && below(&d, 16) != 0) { /* a right size, zeros filling it up */
        size = size < o->delta_bytes ? size : o->delta_bytes;
        memset(data + size, 0, o->delta_bytes - size);
        size = o->delta_bytes;
    }
    if (size >= sizeof(ehmn_delta) && below(&d, 32) != 0) {
        memcpy(data, o->delta, 8);
        put32(data + 8, (uint32_t)size);
        memcpy(data + offsetof(ehmn_delta, image_id), o->image->id, EHMN_ID_BYTES);
    }
    if (size >= 16u && below(&d, 32) != 0) {
        put32(data + 12, fuzz_crc32(data + 16, size - 16u));
    }
    return size;
}
