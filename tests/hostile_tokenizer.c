/* Replays sections of tokenizers as an attacker may make them. For each it prints what the core says of it and, if the
 * core accepts it, a checksum of the tokens that it makes of a text, and of the bytes that it makes of tokens.
 *
 *     hostile_tokenizer CASES    uint32 bytes of the text, the text; each case: uint32 bytes, the section */
#include "edgehmn_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCABULARY = 500, CHUNK = 7 };

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "failed: %s\n", what);
        exit(1);
    }
}

static void *allocate(uint32_t bytes)
{
    void *out = malloc(bytes + (bytes == 0));
    require(out != NULL, "malloc");
    return out;
}

static uint8_t *read_block(FILE *file, uint32_t *bytes)
{
    if (fread(bytes, 1, sizeof *bytes, file) != sizeof *bytes) {
        return NULL;
    }
    uint8_t *out = allocate(*bytes);
    require(fread(out, 1, *bytes, file) == *bytes, "the cases are truncated");
    return out;
}

/* The tokens of the whole text, with just as much room as it may need. */
static uint32_t whole(const void *section, const uint8_t *text, uint32_t bytes, uint32_t hash)
{
    uint32_t room = 2 * (3 * bytes + 1), n = 0;
    uint32_t *tokens = allocate(room * sizeof *tokens);
    ehmn_text source = {text, bytes, 0, 0, 0};
    require(ehmn_tokenize(section, &source, tokens, room, &n) == EHMN_OK && source.position == bytes, "the text");
    for (uint32_t i = 0; i < n; i++) {
        hash = hash * 31 + tokens[i];
    }
    free(tokens);
    return hash;
}

/* The same tokens, from text that comes in pieces, each in memory that ends where it ends; and little room. */
static uint32_t in_pieces(const void *section, const uint8_t *text, uint32_t bytes, uint32_t hash)
{
    uint32_t from = 0, to = 0, state = 0, room = 2, n = 0;
    while (from < bytes) {
        to = to + CHUNK < bytes ? to + CHUNK : bytes;
        uint8_t *piece = allocate(to - from);
        memcpy(piece, text + from, to - from);
        ehmn_text source = {piece, to - from, 0, to < bytes, state};
        for (;;) {
            uint32_t *tokens = allocate(room * sizeof *tokens), before = source.position;
            uint32_t before_state = source.state;
            int32_t status = ehmn_tokenize(section, &source, tokens, room, &n);
            require(n <= room && (status == EHMN_OK || (status == EHMN_E_ARENA && n == 0)), "no room");
            for (uint32_t i = 0; i < n; i++) {
                hash = hash * 31 + tokens[i];
            }
            free(tokens);
            room = status == EHMN_OK ? room : 2 * room;
            if (status == EHMN_OK && source.position == before && source.state == before_state) {
                break;
            }
        }
        from += source.position;
        state = source.state;
        free(piece);
    }
    return hash;
}

static uint32_t say_all(const void *section, uint32_t hash)
{
    uint32_t state = 0, n = 0;
    for (uint32_t token = 0; token < VOCABULARY + 2; token++) {
        uint8_t *out = allocate(EHMN_MAX_TOKEN_BYTES);
        require(ehmn_detokenize(section, token, &state, out, EHMN_MAX_TOKEN_BYTES, &n) == EHMN_OK, "a token");
        for (uint32_t i = 0; i < n; i++) {
            hash = hash * 31 + out[i];
        }
        free(out);
        if (n > 0) {
            out = allocate(n - 1);
            int32_t status = ehmn_detokenize(section, token, &state, out, n - 1, &n);
            require(status == EHMN_OK || status == EHMN_E_ARENA, "a token without room");
            free(out);
        }
    }
    return hash;
}

int main(int argc, char **argv)
{
    require(argc == 2, "usage: hostile_tokenizer CASES");
    FILE *file = fopen(argv[1], "rb");
    require(file != NULL, "no such file of cases");
    uint32_t text_bytes = 0, bytes = 0;
    uint8_t *text = read_block(file, &text_bytes), *section;
    while ((section = read_block(file, &bytes)) != NULL) {
        int32_t status = ehmn_tokenizer_check(section, bytes, VOCABULARY);
        uint32_t hash = 0;
        if (status == EHMN_OK) {
            hash = whole(section, text, text_bytes, 0);
            require(in_pieces(section, text, text_bytes, 0) == hash, "pieces make other tokens");
            hash = say_all(section, hash);
        }
        printf("%d %08x\n", (int)status, (unsigned)hash);
        fflush(stdout);
        free(section);
    }
    free(text);
    fclose(file);
    return 0;
}
