/* A tokenizer's section: where everything is, its validation, and tokens back to text. */
#include "tokenizer.h"

#include <string.h>

#define MAX_NODES (2u * EHMN_MAX_TOKEN_BYTES) /* of the tree that a token is made of */

static uint64_t padded(uint64_t bytes)
{
    return (bytes + 3u) & ~(uint64_t)3u;
}

uint64_t ehmn_vocabulary_view(const void *section, ehmn_vocabulary *out)
{
    const ehmn_tokenizer *t = section;
    uint64_t word = t->word_bytes, listed = t->merged == EHMN_MERGED_LISTED ? t->n_merges : 0u;
    const uint64_t sizes[EHMN_ARRAYS] = {
        2u * word * t->n_merges, word * t->n_merges, word * listed, word * 256u, word * t->n_chars, word * t->n_whole,
        sizeof(ehmn_added) * (uint64_t)t->n_added, sizeof(uint32_t) * (uint64_t)t->n_literals, t->literal_bytes,
    };
    uint64_t at[EHMN_ARRAYS], total = sizeof *t;
    for (uint32_t i = 0; i < EHMN_ARRAYS; i++) {
        at[i] = total;
        total += padded(sizes[i]);
    }
    if (total == t->bytes) {
        const uint8_t *base = section;
        out->header = t;
        out->pairs = base + at[0];
        out->order = base + at[1];
        out->results = base + at[2];
        out->of_byte = base + at[3];
        out->of_char = base + at[4];
        out->whole = base + at[5];
        out->added = (const void *)(base + at[6]);
        out->ends = (const void *)(base + at[7]);
        out->literals = base + at[8];
    }
    return total;
}

const uint8_t *ehmn_literal(const ehmn_vocabulary *v, uint32_t token, uint32_t *bytes)
{
    const ehmn_tokenizer *t = v->header;
    uint32_t i = t->merged == EHMN_MERGED_IN_ORDER && token >= t->first_merged ? token - t->n_merges : token;
    uint32_t from = i == 0 ? 0 : v->ends[i - 1u];
    *bytes = v->ends[i] - from;
    return v->literals + from;
}

int ehmn_compare(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order != 0 ? order : (int)a_bytes - (int)b_bytes;
}

/* ---- Validation */

static int header_is_possible(const ehmn_tokenizer *t, uint32_t vocab_size)
{
    uint32_t in_order = t->merged == EHMN_MERGED_IN_ORDER, any = 0;
    for (uint32_t i = 0; i < 6u; i++) {
        any |= t->reserved[i];
    }
    return any == 0 && t->n_tokens >= 1u && t->n_tokens <= vocab_size && vocab_size <= EHMN_MAX_VOCAB
        && t->n_merges <= EHMN_MAX_MERGES && t->merged <= EHMN_MERGED_LISTED && t->n_chars <= t->n_tokens
        && t->n_whole <= t->n_tokens && t->n_added <= EHMN_MAX_ADDED
        && (in_order ? t->n_merges <= t->n_tokens && t->first_merged <= t->n_tokens - t->n_merges : t->first_merged == 0)
        && t->n_literals == t->n_tokens - (in_order ? t->n_merges : 0u) && ((t->word_bytes == 2u && t->n_tokens <= 0xFFFFu) || t->word_bytes == 4u)
        && t->split <= EHMN_SPLIT_SPACES && t->digits <= 1u && t->metaspace <= 1u && t->prefix <= EHMN_PREFIX_FIRST
        && t->strip <= EHMN_STRIP_FIRST_TOKEN;
}

static int literals_are_possible(const ehmn_vocabulary *v)
{
    uint32_t before = 0;
    for (uint32_t i = 0; i < v->header->n_literals; i++) {
        if (v->ends[i] < before || v->ends[i] - before > EHMN_MAX_TOKEN_BYTES) {
            return 0;
        }
        before = v->ends[i];
    }
    return before == v->header->literal_bytes;
}

/* Tokens that have literals, in increasing order of these. */
static int is_sorted(const ehmn_vocabulary *v, const void *array, uint32_t n)
{
    const uint8_t *last = v->literals;
    uint32_t last_bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = ehmn_word(v, array, i), bytes;
        if (token >= v->header->n_tokens || ehmn_is_merged(v, token)) {
            return 0;
        }
        const uint8_t *literal = ehmn_literal(v, token, &bytes);
        if (ehmn_compare(last, last_bytes, literal, bytes) >= 0) {
            return 0;
        }
        last = literal;
        last_bytes = bytes;
    }
    return 1;
}

static int added_are_possible(const ehmn_vocabulary *v)
{
    uint8_t first[32] = {0};
    uint32_t last_bytes = EHMN_MAX_TOKEN_BYTES;
    for (uint32_t i = 0; i < v->header->n_added; i++) {
        const ehmn_added *a = &v->added[i];
        uint32_t bytes;
        if (a->token >= v->header->n_tokens || ehmn_is_merged(v, a->token)
            || a->flags > (EHMN_ADDED_SPECIAL | EHMN_ADDED_LATE)) {
            return 0;
        }
        const uint8_t *literal = ehmn_literal(v, a->token, &bytes);
        if (bytes == 0 || bytes > last_bytes) {
            return 0;
        }
        first[literal[0] / 8u] = (uint8_t)(first[literal[0] / 8u] | 1u << literal[0] % 8u);
        last_bytes = bytes;
    }
    return memcmp(first, v->header->added_first, sizeof first) == 0;
}

static int merges_are_possible(const ehmn_vocabulary *v)
{
    const ehmn_tokenizer *t = v->header;
    uint32_t last_left = 0, last_right = 0;
    for (uint32_t i = 0; i < t->n_merges; i++) {
        uint32_t left = ehmn_word(v, v->pairs, 2u * i), right = ehmn_word(v, v->pairs, 2u * i + 1u);
        if (left >= t->n_tokens || right >= t->n_tokens) {
            return 0;
        }
        if (t->merged == EHMN_MERGED_LISTED) {
            if (ehmn_word(v, v->results, i) >= t->n_tokens) {
                return 0;
            }
        } else if ((ehmn_is_merged(v, left) && left >= t->first_merged + i)
                   || (ehmn_is_merged(v, right) && right >= t->first_merged + i)) {
            return 0; /* a token made of itself, or of a later one */
        }
    }
    for (uint32_t i = 0; i < t->n_merges; i++) {
        uint32_t merge = ehmn_word(v, v->order, i);
        if (merge >= t->n_merges) {
            return 0;
        }
        uint32_t left = ehmn_word(v, v->pairs, 2u * merge), right = ehmn_word(v, v->pairs, 2u * merge + 1u);
        if (i > 0 && (left < last_left || (left == last_left && right <= last_right))) {
            return 0;
        }
        last_left = left;
        last_right = right;
    }
    return 1;
}

/* The bytes of a token, taken apart into its literals from left to right: how many there are, and as many of them as
 * there is room for. EHMN_NONE if it is too long, or has too many parts; never so in a checked section. */
static uint32_t take_apart(const ehmn_vocabulary *v, uint32_t token, uint8_t *out, uint32_t capacity)
{
    uint32_t waiting[EHMN_MAX_TOKEN_DEPTH], depth = 0, total = 0, bytes;
    for (uint32_t nodes = 0; nodes < MAX_NODES; nodes++) {
        if (ehmn_is_merged(v, token)) {
            uint32_t merge = token - v->header->first_merged;
            if (depth == EHMN_MAX_TOKEN_DEPTH) {
                return EHMN_NONE;
            }
            waiting[depth++] = ehmn_word(v, v->pairs, 2u * merge + 1u);
            token = ehmn_word(v, v->pairs, 2u * merge);
            continue;
        }
        const uint8_t *literal = ehmn_literal(v, token, &bytes);
        if (total + bytes <= capacity) {
            memcpy(out + total, literal, bytes);
        }
        total += bytes;
        if (total > EHMN_MAX_TOKEN_BYTES) {
            return EHMN_NONE;
        }
        if (depth == 0) {
            return total;
        }
        token = waiting[--depth];
    }
    return EHMN_NONE;
}

static int tokens_are_possible(const ehmn_vocabulary *v)
{
    uint8_t none;
    for (uint32_t i = 0; i < v->header->n_merges && v->header->merged == EHMN_MERGED_IN_ORDER; i++) {
        if (take_apart(v, v->header->first_merged + i, &none, 0) == EHMN_NONE) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < 256u; i++) {
        uint32_t token = ehmn_of_byte(v, i);
        if (token != EHMN_NONE && token >= v->header->n_tokens) {
            return 0;
        }
    }
    return 1;
}

/* Zeros fill what lies between an array and the next. */
static int padding_is_zero(const ehmn_vocabulary *v)
{
    const ehmn_tokenizer *t = v->header;
    const uint8_t *ends[] = {
        (const uint8_t *)v->order + t->n_merges * t->word_bytes,
        (const uint8_t *)v->results + (t->merged == EHMN_MERGED_LISTED ? t->n_merges : 0u) * t->word_bytes,
        (const uint8_t *)v->of_char + t->n_chars * t->word_bytes,
        (const uint8_t *)v->whole + t->n_whole * t->word_bytes,
        v->literals + t->literal_bytes,
    };
    const uint8_t *base = (const uint8_t *)t;
    uint32_t any = 0;
    for (uint32_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        for (uint32_t at = (uint32_t)(ends[i] - base); at % 4u != 0; at++) {
            any |= base[at];
        }
    }
    return any == 0;
}

int32_t ehmn_tokenizer_check(const void *section, uint32_t bytes, uint32_t vocab_size)
{
    const ehmn_tokenizer *t = section;
    ehmn_vocabulary v;
    if (section == NULL) {
        return EHMN_E_ARGUMENT;
    }
    if ((uintptr_t)section % 4u != 0) {
        return EHMN_E_ALIGNMENT;
    }
    if (bytes < sizeof *t) {
        return EHMN_E_SIZE;
    }
    if (t->magic != EHMN_TOKENIZER_MAGIC) {
        return EHMN_E_MAGIC;
    }
    if (t->version != EHMN_TOKENIZER_VERSION) {
        return EHMN_E_VERSION;
    }
    if (t->bytes != bytes) {
        return EHMN_E_SIZE;
    }
    if (!header_is_possible(t, vocab_size)) {
        return EHMN_E_CONFIG;
    }
    if (ehmn_vocabulary_view(section, &v) != bytes) {
        return EHMN_E_SIZE;
    }
    if (!literals_are_possible(&v) || !padding_is_zero(&v)) {
        return EHMN_E_LAYOUT;
    }
    return merges_are_possible(&v) && tokens_are_possible(&v) && is_sorted(&v, v.of_char, t->n_chars)
            && is_sorted(&v, v.whole, t->n_whole) && added_are_possible(&v)
        ? EHMN_OK
        : EHMN_E_VALUE;
}

/* ---- Tokens to text */

static int is_special(const ehmn_vocabulary *v, uint32_t token)
{
    for (uint32_t i = 0; i < v->header->n_added; i++) {
        if (v->added[i].token == token) {
            return (v->added[i].flags & EHMN_ADDED_SPECIAL) != 0;
        }
    }
    return 0;
}

/* What is left of the first bytes of an output. */
static uint32_t strip(const ehmn_tokenizer *t, uint32_t *state, uint8_t *out, uint32_t n)
{
    uint32_t kept = 0;
    if (t->strip == EHMN_STRIP_SPACE && n > 0) {
        uint32_t lost = out[0] == ' ';
        memmove(out, out + lost, n - lost);
        n -= lost;
        *state = 1;
    } else if (t->strip == EHMN_STRIP_FIRST_TOKEN) {
        for (uint32_t i = 0; i < n; i++) {
            if (out[i] != ' ') {
                out[kept++] = out[i];
            }
        }
        n = kept;
        *state = 1;
    }
    return n;
}

int32_t ehmn_detokenize(const void *section, uint32_t token, uint32_t *state, uint8_t *out, uint32_t capacity,
                        uint32_t *n)
{
    ehmn_vocabulary v;
    if (section == NULL || state == NULL || n == NULL || (out == NULL && capacity > 0)) {
        return EHMN_E_ARGUMENT;
    }
    (void)ehmn_vocabulary_view(section, &v);
    *n = 0;
    if (token >= v.header->n_tokens || is_special(&v, token)) {
        return EHMN_OK;
    }
    uint32_t bytes = take_apart(&v, token, out, capacity);
    if (bytes > capacity) {
        return EHMN_E_ARENA;
    }
    *n = *state == 0 && bytes > 0 ? strip(v.header, state, out, bytes) : bytes;
    return EHMN_OK;
}
