#include "example.h"

#include "edgehmn.h"
#include "edgehmn_model.h"
#include "edgehmn_tokenizer.h"

#include <stddef.h>

#define SEED 1u
#define ROUNDS 8u
#define MOST_PROBABLE 0u /* temperature: always the most probable token */
#define MOST_TOKENS 64u  /* of the phrase; the tokenizer works in this room, too */

/* What is learned: a text, or these tokens if the image has no tokenizer. */
static const char phrase[] = "My cat is called Plum. ";
static const uint8_t phrase_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};

/* All the memory that the model takes, with everything that it learns. */
static _Alignas(16) uint8_t arena[EDGEHMN_MODEL_ARENA_BYTES];

static const ehmn_image *the_image(void)
{
    return (const void *)edgehmn_model;
}

static const void *the_tokenizer(void)
{
    return edgehmn_model + the_image()->tokenizer_offset;
}

static int32_t tokenize_phrase(uint32_t *tokens, uint32_t *n)
{
    ehmn_text text = {(const uint8_t *)phrase, (uint32_t)sizeof phrase - 1u, 0, 0, 0};
    if (the_image()->tokenizer_bytes != 0) {
        int32_t status = ehmn_tokenize(the_tokenizer(), &text, tokens, MOST_TOKENS, n);
        return status == EHMN_OK && text.position != text.bytes ? EHMN_E_SIZE : status;
    }
    *n = (uint32_t)sizeof phrase_ids;
    for (uint32_t i = 0; i < *n; i++) {
        tokens[i] = phrase_ids[i] % the_image()->vocab_size;
    }
    return EHMN_OK;
}

/* Score, learn, feed: what happens with every token of a text. */
static int32_t read_token(ehmn_model *model, uint32_t token, uint64_t *sum)
{
    uint32_t bits;
    int32_t status = ehmn_score(model, token, &bits);
    if (status == EHMN_OK) {
        *sum += bits;
        status = ehmn_learn(model, token);
    }
    return status == EHMN_OK ? ehmn_step(model, token) : status;
}

static int32_t read_tokens(ehmn_model *model, const uint32_t *tokens, uint32_t n, uint32_t *millibits)
{
    uint64_t sum = 0;
    int32_t status = EHMN_OK;
    for (uint32_t i = 0; status == EHMN_OK && i < n; i++) {
        status = read_token(model, tokens[i], &sum);
    }
    *millibits = (uint32_t)((sum * 1000u / n) >> EHMN_SCORE_FRAC);
    return status;
}

static int32_t generate(ehmn_model *model, uint32_t *tokens)
{
    int32_t status = EHMN_OK;
    for (uint32_t i = 0; status == EHMN_OK && i < EXAMPLE_GENERATED; i++) {
        status = ehmn_sample(model, MOST_PROBABLE, tokens + i);
        if (status == EHMN_OK) {
            status = ehmn_step(model, tokens[i]);
        }
    }
    return status;
}

/* As much of the text as there is room for. */
static void detokenize(const uint32_t *tokens, char *text)
{
    uint32_t used = 0;
    uint32_t state = 0;
    int32_t status = the_image()->tokenizer_bytes != 0 ? EHMN_OK : EHMN_E_STATE;
    for (uint32_t i = 0; status == EHMN_OK && i < EXAMPLE_GENERATED; i++) {
        uint32_t n = 0;
        uint8_t *out = (uint8_t *)text + used;
        status = ehmn_detokenize(the_tokenizer(), tokens[i], &state, out, EXAMPLE_TEXT_BYTES - used, &n);
        used += status == EHMN_OK ? n : 0u;
    }
    text[used] = '\0';
}

const char *example_run(example_result *result)
{
    uint32_t tokens[MOST_TOKENS];
    uint32_t n = 0;
    ehmn_model *model = NULL;
    int32_t status = ehmn_image_check(edgehmn_model, EDGEHMN_MODEL_BYTES);
    if (status == EHMN_OK) {
        status = ehmn_open(edgehmn_model, arena, sizeof arena, EHMN_PLASTIC, SEED, &model);
    }
    if (status == EHMN_OK) {
        status = tokenize_phrase(tokens, &n);
    }
    for (uint32_t i = 0; status == EHMN_OK && i < ROUNDS; i++) {
        status = read_tokens(model, tokens, n, i == 0 ? &result->before : &result->after);
    }
    if (status == EHMN_OK) {
        status = generate(model, result->tokens);
    }
    if (status == EHMN_OK) {
        detokenize(result->tokens, result->text);
    }
    return status == EHMN_OK ? NULL : ehmn_status_name(status);
}
