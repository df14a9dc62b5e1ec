/* Text to tokens and back on the device, without a host: the bytes of a tokenizer, and the functions that read them.
 *
 * A tokenizer is byte-pair encoding over bytes (GPT-2, Llama 3, Qwen 2, SmolLM2) or over characters with bytes for
 * what is not in the vocabulary (SentencePiece). Its tokens are those of the `tokenizers` library, with two words said
 * about it in SPEC.md: the section holds no template of special tokens, and text that is not UTF-8 has a meaning here.
 *
 * That of an image lies at its tokenizer_offset, and ehmn_image_check has checked it.
 *
 *     uint32_t tokens[64], n;
 *     ehmn_text text = {bytes, n_bytes, 0, 0, 0};
 *     do {
 *         if (ehmn_tokenize(section, &text, tokens, 64, &n) != EHMN_OK) { ... a word too long for the buffer }
 *         for (each of the n tokens) { ehmn_step(model, token); }
 *     } while (text.position < text.bytes);
 *
 * All fields are little-endian and of fixed width. The section starts at a multiple of 4; `word` stands for uint16, or
 * for uint32 if `word_bytes` is 4. The header is followed by, each at the next multiple of 4, zeros between:
 *   word   pairs[n_merges][2]   left and right token of each merge, the first to be made first
 *   word   order[n_merges]      the merges, in increasing order of (left, right), all different
 *   word   results[n_merges]    the token that each makes; not there if `merged` is EHMN_MERGED_IN_ORDER
 *   word   of_byte[256]         the token of each byte; all bits set: the byte is left out of the text
 *   word   of_char[n_chars]     tokens of single characters, in increasing order of their bytes
 *   word   whole[n_whole]       tokens that a word becomes without merging, in increasing order of their bytes
 *   ehmn_added added[n_added]   tokens recognised in the text before all else, the longest first
 *   uint32 ends[n_literals]     where the bytes of each literal end in `literals`
 *   uint8  literals[literal_bytes]
 * Literals are the bytes of the tokens from 0 on; those that merges make are left out if they are in order: they follow
 * from their parts. A space stands in them where SentencePiece has U+2581. */
#ifndef EDGEHMN_TOKENIZER_H
#define EDGEHMN_TOKENIZER_H

#include "edgehmn.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EHMN_TOKENIZER_MAGIC 0x544D4845u /* "EHMT" */
#define EHMN_TOKENIZER_VERSION 1u
#define EHMN_MAX_TOKEN_BYTES 256u /* of one token: what ehmn_detokenize gives at most */
#define EHMN_MAX_TOKEN_DEPTH 32u  /* parts that wait while a token is taken apart */
#define EHMN_MAX_ADDED 1024u
#define EHMN_MAX_MERGES 1048576u

/* How merges name what they make. */
#define EHMN_MERGED_IN_ORDER 0u /* merge i makes token first_merged + i, out of earlier tokens and of literals */
#define EHMN_MERGED_LISTED 1u   /* merge i makes results[i] */

/* How text is cut into words; no merge crosses a cut. */
#define EHMN_SPLIT_NONE 0u
#define EHMN_SPLIT_GPT2 1u
#define EHMN_SPLIT_LLAMA3 2u
#define EHMN_SPLIT_QWEN2 3u
#define EHMN_SPLIT_SPACE 4u  /* before each space */
#define EHMN_SPLIT_SPACES 5u /* before each run of spaces */

/* When a space is put before the text, and before what follows an added token. */
#define EHMN_PREFIX_NEVER 0u
#define EHMN_PREFIX_ALWAYS 1u
#define EHMN_PREFIX_UNLESS_SPACE 2u /* unless one is there */
#define EHMN_PREFIX_FIRST 3u        /* unless one is there, and at the beginning of the text only */

/* What the first tokens of an output lose. */
#define EHMN_STRIP_NOTHING 0u
#define EHMN_STRIP_SPACE 1u       /* a space that is the first byte */
#define EHMN_STRIP_FIRST_TOKEN 2u /* all spaces of the first token */

#define EHMN_ADDED_SPECIAL 1u /* ehmn_detokenize says nothing for it */
#define EHMN_ADDED_LATE 2u    /* looked for only where those that are not late have left text */

typedef struct {
    uint32_t token;
    uint32_t flags; /* EHMN_ADDED_... */
} ehmn_added;

typedef struct {
    uint32_t magic;
    uint32_t version;
    uint32_t bytes;        /* of the whole section */
    uint32_t n_tokens;     /* all tokens in the section are below; at most the vocabulary of the model */
    uint32_t n_merges;
    uint32_t merged;       /* EHMN_MERGED_... */
    uint32_t first_merged; /* 0 if merges are listed */
    uint32_t n_chars;
    uint32_t n_whole;
    uint32_t n_added;
    uint32_t n_literals;   /* n_tokens, or n_tokens - n_merges if merges are in order */
    uint32_t literal_bytes;
    uint32_t word_bytes;   /* 4, or 2 if n_tokens < 2^16 */
    uint32_t split;        /* EHMN_SPLIT_... */
    uint32_t digits;       /* 1: each digit is a word of its own, before the text is split */
    uint32_t metaspace;    /* 1: U+2581 in the text is a space */
    uint32_t prefix;       /* EHMN_PREFIX_... */
    uint32_t strip;        /* EHMN_STRIP_... */
    uint32_t reserved[6];  /* zero */
    uint8_t added_first[32]; /* bit b of it (byte b / 8, bit b % 8): an added token begins with byte b */
} ehmn_tokenizer;

/* Text on its way to become tokens. The caller sets all fields (`position` and `state` to 0) and keeps the bytes. */
typedef struct {
    const uint8_t *text; /* the whole text, or as much of it as there is */
    uint32_t bytes;      /* below 2^31 */
    uint32_t position;   /* bytes that have become tokens */
    uint32_t more;       /* 1: more bytes will follow these */
    uint32_t state;      /* 0 at the beginning of a text, then not for the caller to change */
} ehmn_text;

/* Validate a section totally. `section`: 4-aligned, `bytes` long. `vocab_size`: of the model. Any bytes whatever give a
 * status, never a fault; time is linear in the size of the section and in the bytes of all its tokens, at most
 * 1,024 steps for each token. EHMN_E_ARGUMENT, _ALIGNMENT, _MAGIC, _VERSION, _SIZE, _CONFIG, _LAYOUT, _VALUE. */
int32_t ehmn_tokenizer_check(const void *section, uint32_t bytes, uint32_t vocab_size);

/* Turn the text from `position` on into tokens, word after word, as long as there is room, and move `position`.
 * `section`: checked. `tokens`: room for `capacity`; `*n` is how many were written.
 * The room is work space too: a word of b bytes (a space before it counts) needs room for 2 b tokens, whatever it
 * becomes. The text is done when position = bytes. If no word fits into the empty room: EHMN_E_ARENA, with n = 0.
 * With `more`, what could become other tokens through the bytes to come is left: the caller then puts the rest of the
 * text, from `position` on, in front of them, sets position to 0 and leaves `state`. A word as long as its memory has
 * to be cut there with more = 0.
 * Bytes that are not UTF-8 stand for U+FFFD, one for each maximal part of a character, or else for each byte, and
 * count 3 bytes.
 * Cost: for a word of b bytes at most 3 b searches among the merges, and one sweep over what is left of the word for
 * each different merge that is made in it: b log b for equal characters, b^2 / 2 short steps at the very most.
 * Stack: 350 bytes on a Cortex-M4.
 * EHMN_E_ARGUMENT, _ARENA. */
int32_t ehmn_tokenize(const void *section, ehmn_text *text, uint32_t *tokens, uint32_t capacity, uint32_t *n);

/* The bytes that a token adds to an output: `*n` of them, at most EHMN_MAX_TOKEN_BYTES, which a `capacity` of so much
 * always holds. Characters may begin in one token and end in another. `*state` is 0 at the beginning of an output, then
 * not for the caller to change. Tokens that the section does not have, and special ones, add nothing. After a failure
 * `out` may hold anything. Stack: 270 bytes on a Cortex-M4.
 * EHMN_E_ARGUMENT, EHMN_E_ARENA. */
int32_t ehmn_detokenize(const void *section, uint32_t token, uint32_t *state, uint8_t *out, uint32_t capacity,
                        uint32_t *n);

#ifdef __cplusplus
}
#endif

EHMN_ASSERT(sizeof(ehmn_added) == 8, "ehmn_added");
EHMN_ASSERT(offsetof(ehmn_tokenizer, word_bytes) == 48, "ehmn_tokenizer.word_bytes");
EHMN_ASSERT(offsetof(ehmn_tokenizer, added_first) == 96, "ehmn_tokenizer.added_first");
EHMN_ASSERT(sizeof(ehmn_tokenizer) == 128, "ehmn_tokenizer");

#endif
