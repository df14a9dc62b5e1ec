/* Text to tokens: added tokens, words, and the merges inside a word. */
#include "tokenizer.h"

#include <string.h>

#define UNSURE (EHMN_NONE - 1u) /* more text decides */
#define NO_MERGE EHMN_NONE

#define STATE_BEGUN 1u   /* something was read of the text */
#define STATE_INSIDE 2u  /* something was read since its beginning, or since an added token */

/* ---- Added tokens */

static int begins_added(const ehmn_vocabulary *v, uint8_t byte)
{
    return v->header->added_first[byte / 8u] >> byte % 8u & 1;
}

/* The longest added token of one kind (late or not) at `at`, or EHMN_NONE, or UNSURE. */
static uint32_t added_of_kind(const ehmn_vocabulary *v, const ehmn_text *t, uint32_t at, uint32_t late, uint32_t end)
{
    uint32_t left = end - at, bytes;
    if (!begins_added(v, t->text[at])) {
        return EHMN_NONE;
    }
    for (uint32_t i = 0; i < v->header->n_added; i++) {
        const ehmn_added *a = &v->added[i];
        if ((a->flags & EHMN_ADDED_LATE) == late) {
            const uint8_t *literal = ehmn_literal(v, a->token, &bytes);
            if (bytes <= left && memcmp(literal, t->text + at, bytes) == 0) {
                return i;
            }
            if (bytes > left && end == t->bytes && t->more && memcmp(literal, t->text + at, left) == 0) {
                return UNSURE;
            }
        }
    }
    return EHMN_NONE;
}

/* The index of the added token at `at`, or EHMN_NONE, or UNSURE. A late one may not reach into one that is not. */
static uint32_t added_at(const ehmn_vocabulary *v, const ehmn_text *t, uint32_t at)
{
    uint32_t found = added_of_kind(v, t, at, 0, t->bytes), end = at + 1u, other = EHMN_NONE;
    if (found != EHMN_NONE || !begins_added(v, t->text[at])) {
        return found;
    }
    for (; end < t->bytes && end - at < EHMN_MAX_TOKEN_BYTES; end++) {
        other = added_of_kind(v, t, end, 0, t->bytes);
        if (other != EHMN_NONE) {
            break;
        }
    }
    return other == UNSURE ? UNSURE : added_of_kind(v, t, at, EHMN_ADDED_LATE, end);
}

/* ---- Merges */

static uint32_t find_merge(const ehmn_vocabulary *v, uint32_t left, uint32_t right)
{
    uint32_t from = 0, beyond = v->header->n_merges;
    while (from < beyond) {
        uint32_t middle = (from + beyond) / 2u, merge = ehmn_word(v, v->order, middle);
        uint32_t its_left = ehmn_word(v, v->pairs, 2u * merge), its_right = ehmn_word(v, v->pairs, 2u * merge + 1u);
        if (its_left == left && its_right == right) {
            return merge;
        }
        if (its_left < left || (its_left == left && its_right < right)) {
            from = middle + 1u;
        } else {
            beyond = middle;
        }
    }
    return NO_MERGE;
}

static uint32_t merged_token(const ehmn_vocabulary *v, uint32_t merge)
{
    return v->header->merged == EHMN_MERGED_LISTED ? ehmn_word(v, v->results, merge) : v->header->first_merged + merge;
}

/* Make the merge `merge`, the first of all that wait, wherever it waits, from left to right. merges[i] is that of tokens
 * i and i + 1. Where the new token can merge at once with a neighbour, this comes before the rest of the text. How many
 * tokens remain: at `to` they are written, from `from` on they are still to be looked at. */
static uint32_t make_merge(const ehmn_vocabulary *v, uint32_t *tokens, uint32_t *merges, uint32_t n, uint32_t merge)
{
    uint32_t from = 0, to = 0;
    while (from < n) {
        int merges_here = from + 1u < n && merges[from] == merge;
        tokens[to] = merges_here ? merged_token(v, merge) : tokens[from];
        merges[to] = merges[from]; /* that of the last token is not read */
        from += merges_here ? 2u : 1u;
        while (merges_here) {
            uint32_t left = to > 0 ? find_merge(v, tokens[to - 1u], tokens[to]) : NO_MERGE;
            uint32_t right = from < n ? find_merge(v, tokens[to], tokens[from]) : NO_MERGE;
            merges[to] = right;
            if (left <= merge && left <= right) {
                tokens[--to] = merged_token(v, left);
            } else if (right <= merge) {
                tokens[to] = merged_token(v, right);
                from++;
            } else {
                merges_here = 0;
                if (to > 0) {
                    merges[to - 1u] = left;
                }
            }
        }
        to++;
    }
    return to;
}

/* Merge n tokens, in place, as long as there is a merge; `merges` is room for n. How many remain. */
static uint32_t merge_all(const ehmn_vocabulary *v, uint32_t *tokens, uint32_t *merges, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        merges[i] = i + 1u < n ? find_merge(v, tokens[i], tokens[i + 1u]) : NO_MERGE;
    }
    for (;;) {
        uint32_t first = NO_MERGE;
        for (uint32_t i = 0; i + 1u < n; i++) {
            first = merges[i] < first ? merges[i] : first;
        }
        if (first == NO_MERGE) {
            return n;
        }
        n = make_merge(v, tokens, merges, n, first);
    }
}

/* ---- Words */

/* The token of `array` whose bytes these are, or EHMN_NONE. */
static uint32_t find_token(const ehmn_vocabulary *v, const void *array, uint32_t n, const uint8_t *bytes, uint32_t size)
{
    uint32_t from = 0, beyond = n;
    while (from < beyond) {
        uint32_t middle = (from + beyond) / 2u, token = ehmn_word(v, array, middle), literal_bytes;
        const uint8_t *literal = ehmn_literal(v, token, &literal_bytes);
        int order = ehmn_compare(literal, literal_bytes, bytes, size);
        if (order == 0) {
            return token;
        }
        if (order < 0) {
            from = middle + 1u;
        } else {
            beyond = middle;
        }
    }
    return EHMN_NONE;
}

/* The token that the word up to `end` is without merging, or EHMN_NONE. `bytes`: room for the word. */
static uint32_t whole_word(const ehmn_vocabulary *v, ehmn_reader *r, uint32_t end, uint8_t *bytes)
{
    uint32_t n = 0;
    for (uint32_t place = 0; place < end;) {
        n += ehmn_utf8(ehmn_read(r, place, &place), bytes + n);
    }
    return find_token(v, v->whole, v->header->n_whole, bytes, n);
}

/* Turn the word up to `end` into tokens: how many, or EHMN_NONE if there is no room. */
static uint32_t word_tokens(const ehmn_vocabulary *v, ehmn_reader *r, uint32_t end, uint32_t *tokens, uint32_t room)
{
    uint8_t bytes[4];
    uint32_t n = 0, used = 0; /* of the room; more than n if a byte has no token */
    r->digits = 0;            /* a digit is a character now */
    for (uint32_t place = 0; place < end;) {
        uint32_t size = ehmn_utf8(ehmn_read(r, place, &place), bytes);
        uint32_t token = v->header->n_chars > 0 ? find_token(v, v->of_char, v->header->n_chars, bytes, size) : EHMN_NONE;
        uint32_t parts = token == EHMN_NONE ? size : 1u;
        if (parts > room / 2u - used) {
            return EHMN_NONE;
        }
        used += parts;
        for (uint32_t i = 0; i < parts; i++) {
            tokens[n] = token == EHMN_NONE ? ehmn_of_byte(v, bytes[i]) : token;
            n += tokens[n] != EHMN_NONE;
        }
    }
    if (v->header->n_whole > 0) {
        uint32_t token = whole_word(v, r, end, (uint8_t *)(tokens + used)); /* 4 bytes or less for each of its tokens */
        if (token != EHMN_NONE) {
            tokens[0] = token;
            return 1;
        }
    }
    return merge_all(v, tokens, tokens + used, n);
}

/* 1 if a space comes before the text at the reader. */
static uint32_t needs_prefix(const ehmn_vocabulary *v, ehmn_reader *r, uint32_t state)
{
    uint32_t after, mode = v->header->prefix;
    if (mode == EHMN_PREFIX_NEVER || (state & STATE_INSIDE) || (mode == EHMN_PREFIX_FIRST && (state & STATE_BEGUN))) {
        return 0;
    }
    return mode == EHMN_PREFIX_ALWAYS || ehmn_read(r, 0, &after) != ' ';
}

/* What comes next in the text: an added token, or a word. */
typedef struct {
    int waits;      /* for more text: nothing else is known */
    uint32_t added; /* its index, or EHMN_NONE */
    uint32_t bytes; /* of text; 0 if the word is the space before the text */
    uint32_t end;   /* place where the word ends in the reader */
    ehmn_reader reader;
} piece;

static void open_reader(const ehmn_vocabulary *v, const ehmn_text *t, uint32_t bytes, ehmn_reader *r)
{
    const ehmn_tokenizer *h = v->header;
    *r = (ehmn_reader){t->text + t->position, bytes, 0, h->digits, h->metaspace, 0, 0, 0};
    r->more = t->more && t->position + bytes == t->bytes;
    r->prefix = needs_prefix(v, r, t->state);
}

/* The first added token among the bytes that the reader has looked at: where it begins, in bytes. */
static uint32_t next_added(const ehmn_vocabulary *v, const ehmn_text *t, const ehmn_reader *r, uint32_t *added)
{
    uint32_t at = 0, reach = r->open ? r->bytes : r->reach;
    *added = EHMN_NONE;
    while (v->header->n_added > 0 && at < reach && (*added = added_at(v, t, t->position + at)) == EHMN_NONE) {
        at++;
    }
    return at;
}

static void next_piece(const ehmn_vocabulary *v, const ehmn_text *t, piece *p)
{
    ehmn_reader *r = &p->reader;
    uint32_t at;
    open_reader(v, t, t->bytes - t->position, r);
    p->end = ehmn_split(r, v->header->split);
    at = next_added(v, t, r, &p->added);
    p->waits = p->added == UNSURE;
    if (p->waits) {
        return;
    }
    if (p->added != EHMN_NONE && at == 0) {
        (void)ehmn_literal(v, v->added[p->added].token, &p->bytes);
        return;
    }
    if (p->added != EHMN_NONE) { /* the word has to end before it */
        p->added = EHMN_NONE;
        open_reader(v, t, at, r);
        p->end = ehmn_split(r, v->header->split);
    }
    p->waits = r->open != 0;
    p->bytes = p->end - r->prefix;
}

int32_t ehmn_tokenize(const void *section, ehmn_text *text, uint32_t *tokens, uint32_t capacity, uint32_t *n)
{
    ehmn_vocabulary v;
    piece p;
    if (section == NULL || text == NULL || n == NULL || (tokens == NULL && capacity > 0)
        || (text->text == NULL && text->bytes > 0) || text->bytes > INT32_MAX || text->position > text->bytes
        || text->more > 1u) {
        return EHMN_E_ARGUMENT;
    }
    (void)ehmn_vocabulary_view(section, &v);
    for (*n = 0; text->position < text->bytes; text->position += p.bytes) {
        uint32_t made = *n < capacity ? 1u : EHMN_NONE;
        next_piece(&v, text, &p);
        if (p.waits) {
            break;
        }
        if (p.added == EHMN_NONE) {
            made = word_tokens(&v, &p.reader, p.end, tokens + *n, capacity - *n);
        } else if (made == 1u) {
            tokens[*n] = v.added[p.added].token;
        }
        if (made == EHMN_NONE) {
            return *n > 0 ? EHMN_OK : EHMN_E_ARENA;
        }
        *n += made;
        text->state = p.added == EHMN_NONE ? STATE_BEGUN | STATE_INSIDE : STATE_BEGUN;
    }
    return EHMN_OK;
}
