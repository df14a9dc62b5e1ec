/* The validator of tokenizers. With a section that it calls sound, text becomes the same tokens in one piece and in
 * several, and tokens become text. The input: the section, then the text. */
#include "fuzz.h"

#include "edgehmn_tokenizer.h"
#include "mutate_tokenizer.h"

#define VOCABULARY 300u
#define MOST_TEXT 48u
#define ROOM (6u * MOST_TEXT + 8u)

/* Calls that no section makes right. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const uint32_t section[64] = {0};
    ehmn_text text = {NULL, 1, 0, 0, 0};
    uint32_t n, state = 0;
    (void)argc;
    (void)argv;
    REQUIRE(ehmn_tokenizer_check(NULL, 0, 2) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_tokenizer_check((const uint8_t *)section + 2, 200, 2) == EHMN_E_ALIGNMENT);
    REQUIRE(ehmn_tokenize(section, &text, NULL, 0, &n) == EHMN_E_ARGUMENT);
    REQUIRE(ehmn_detokenize(section, 0, &state, NULL, 1, &n) == EHMN_E_ARGUMENT);
    return 0;
}

static uint32_t at_once(const void *section, const uint8_t *bytes, uint32_t size, uint32_t *tokens)
{
    ehmn_text text = {bytes, size, 0, 0, 0};
    uint32_t n = 0;
    REQUIRE(ehmn_tokenize(section, &text, tokens, ROOM, &n) == EHMN_OK);
    REQUIRE(text.position == size && n <= ROOM);
    return n;
}

/* As a board reads it: what could change waits for the next piece. `cut`: bytes of a piece. */
static uint32_t in_pieces(const void *section, const uint8_t *bytes, uint32_t size, uint32_t cut, uint32_t *tokens)
{
    uint8_t waiting[MOST_TEXT];
    ehmn_text text = {waiting, 0, 0, 0, 0};
    uint32_t all = 0, n = 0;
    for (uint32_t at = 0; at < size || text.bytes > 0;) {
        uint32_t more = at < size, count = size - at < cut ? size - at : cut;
        memcpy(waiting + text.bytes, bytes + at, count);
        at += count;
        text.bytes += count;
        text.more = more;
        REQUIRE(ehmn_tokenize(section, &text, tokens + all, ROOM, &n) == EHMN_OK);
        REQUIRE(all + n <= ROOM && (more || text.position == text.bytes));
        all += n;
        text.bytes -= text.position;
        memmove(waiting, waiting + text.position, text.bytes);
        text.position = 0;
    }
    return all;
}

/* In little room: the same tokens, or none where a word does not fit. */
static void in_little_room(const void *section, const uint8_t *bytes, uint32_t size, uint32_t room, const uint32_t *all)
{
    ehmn_text text = {bytes, size, 0, 0, 0};
    uint32_t tokens[32], n = 0, done = 0;
    int32_t status = EHMN_OK;
    while (status == EHMN_OK && text.position < size) {
        status = ehmn_tokenize(section, &text, tokens, room, &n);
        REQUIRE(n <= room && same_bytes(tokens, all + done, n * sizeof *all));
        REQUIRE(status == EHMN_OK || (status == EHMN_E_ARENA && n == 0));
        done += n;
    }
}

static void say(const void *section, const uint32_t *tokens, uint32_t n)
{
    uint8_t out[EHMN_MAX_TOKEN_BYTES];
    uint32_t state = 0, bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        REQUIRE(tokens[i] < ((const ehmn_tokenizer *)section)->n_tokens);
        REQUIRE(ehmn_detokenize(section, tokens[i], &state, out, sizeof out, &bytes) == EHMN_OK);
        REQUIRE(bytes <= sizeof out);
        REQUIRE(bytes == 0 || ehmn_detokenize(section, tokens[i], &state, out, bytes - 1u, &bytes) == EHMN_E_ARENA);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t whole[ROOM], parts[2u * ROOM];
    uint32_t bytes = size >= sizeof(ehmn_tokenizer) ? get32(data + offsetof(ehmn_tokenizer, bytes)) : 0u;
    bytes = bytes <= size ? bytes : (uint32_t)size;
    const uint8_t *section = watched(data, bytes);
    if (ehmn_tokenizer_check(section, bytes, VOCABULARY) != EHMN_OK) {
        return 0;
    }
    uint32_t left = (uint32_t)size - bytes, n, cut;
    left = left < MOST_TEXT ? left : MOST_TEXT;
    n = at_once(section, data + bytes, left, whole);
    cut = 1u + (left > 0 ? data[bytes] % 7u : 0u);
    REQUIRE(in_pieces(section, data + bytes, left, cut, parts) == n && same_bytes(whole, parts, n * sizeof *whole));
    in_little_room(section, data + bytes, left, 4u * cut, whole);
    say(section, whole, n);
    for (uint32_t token = 0; token < 8u; token++) {
        cut = token * 7u % ((const ehmn_tokenizer *)section)->n_tokens;
        say(section, &cut, 1);
    }
    return 0;
}

static size_t mutate_text(draws *d, uint8_t *text, size_t size, size_t max)
{
    static const char *const pieces[] = {"a", "b", " ", "ab", "<s>", "1", "'s", "'ll", "\n", "\xc3\xa9", "\xe2\x96\x81",
                                         "A", "...", "<", "\xe2", "\xf0\x9f\x99\x82", "'\xc5\xbf", "\r\n", "\t", "  "};
    const char *piece = pieces[below(d, 20)];
    size_t n = strlen(piece), at = below(d, (uint32_t)size + 1u);
    if (below(d, 3) == 0 || size + n > max || size + n > MOST_TEXT) {
        return size == 0 ? 0 : LLVMFuzzerMutate(text, size, max < MOST_TEXT ? max : MOST_TEXT);
    }
    memmove(text + at + n, text + at, size - at);
    memcpy(text + at, piece, n);
    return size + n;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    static uint8_t text[MAX_INPUT];
    draws d = draws_of(seed);
    uint32_t bytes = size >= sizeof(ehmn_tokenizer) ? get32(data + offsetof(ehmn_tokenizer, bytes)) : 0u;
    if (bytes < sizeof(ehmn_tokenizer) || bytes > size || below(&d, 16) == 0) {
        return LLVMFuzzerMutate(data, size, max);
    }
    size_t left = size - bytes, section = bytes;
    memcpy(text, data + bytes, left);
    if (below(&d, 2) == 0) {
        section = mutate_tokenizer(&d, data, bytes, max, VOCABULARY);
    }
    left = left < max - section ? left : max - section;
    if (below(&d, 2) == 0) {
        left = mutate_text(&d, text, left, max - section);
    }
    memcpy(data + section, text, left);
    return section + left;
}
