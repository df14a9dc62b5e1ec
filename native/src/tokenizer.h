/* How the files of the tokenizer see a section and a piece of text. Not part of the public interface. */
#ifndef EHMN_TOKENIZER_H
#define EHMN_TOKENIZER_H

#include "edgehmn_tokenizer.h"

#define EHMN_NONE 0xFFFFFFFFu /* no code point, no token, no merge */
#define EHMN_ARRAYS 9u        /* behind the header of a section */

/* Where the arrays of a section lie. */
typedef struct {
    const ehmn_tokenizer *header;
    const void *pairs;
    const void *order;
    const void *results;
    const void *of_byte;
    const void *of_char;
    const void *whole;
    const ehmn_added *added;
    const uint32_t *ends;
    const uint8_t *literals;
} ehmn_vocabulary;

/* Sizes of a section whose header is possible are sums of few 32-bit products: they fit 64 bits. */
uint64_t ehmn_vocabulary_view(const void *section, ehmn_vocabulary *out);

static inline uint32_t ehmn_word(const ehmn_vocabulary *v, const void *array, uint32_t i)
{
    return v->header->word_bytes == 4u ? ((const uint32_t *)array)[i] : ((const uint16_t *)array)[i];
}

/* The token of a byte, or EHMN_NONE. */
static inline uint32_t ehmn_of_byte(const ehmn_vocabulary *v, uint32_t byte)
{
    uint32_t token = ehmn_word(v, v->of_byte, byte);
    return token == (v->header->word_bytes == 4u ? EHMN_NONE : 0xFFFFu) ? EHMN_NONE : token;
}

static inline int ehmn_is_merged(const ehmn_vocabulary *v, uint32_t token)
{
    return v->header->merged == EHMN_MERGED_IN_ORDER && token - v->header->first_merged < v->header->n_merges;
}

/* The bytes of a token that is not made of others. */
const uint8_t *ehmn_literal(const ehmn_vocabulary *v, uint32_t token, uint32_t *bytes);

/* Negative, zero or positive as a comes before b, is b, or comes after it. */
int ehmn_compare(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes);

/* A stretch of text, read character by character. Places in it are numbered from 0; if a space is put before the text,
 * it is the character at 0. */
typedef struct {
    const uint8_t *text; /* its first byte */
    uint32_t bytes;      /* up to the next added token, or to the end of all that there is */
    uint32_t prefix;     /* 1: a space comes before the text */
    uint32_t digits;     /* 1: a digit is an end */
    uint32_t metaspace;  /* 1: U+2581 is a space */
    uint32_t more;       /* 1: at its end the text may go on */
    uint32_t reach;      /* bytes of the text that were looked at */
    uint32_t open;       /* 1: what comes after the end was asked for, and may still come */
} ehmn_reader;

/* The character at a place, and the place after it; EHMN_NONE at the end. */
uint32_t ehmn_read(ehmn_reader *r, uint32_t place, uint32_t *after);

/* Where the first word of a stretch ends. */
uint32_t ehmn_split(ehmn_reader *r, uint32_t split);

/* A character in UTF-8: 1 to 4 bytes. */
uint32_t ehmn_utf8(uint32_t code, uint8_t out[4]);

#endif
