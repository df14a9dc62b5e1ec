#include "mutate_tokenizer.h"

#include "edgehmn_tokenizer.h"

#define MOST 36u /* of each kind that are taken apart */
#define LONGEST 20u
#define NONE 0xFFFFFFFFu
#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof(array)[0]))
#define IN_HEADER(name, low, high) {offsetof(ehmn_tokenizer, name), low, high}

static const field header[] = {
    IN_HEADER(magic, 0, 0), IN_HEADER(version, 1, 1), IN_HEADER(bytes, 0, 4096), IN_HEADER(n_tokens, 1, 300),
    IN_HEADER(n_merges, 0, EHMN_MAX_MERGES), IN_HEADER(merged, 0, 1), IN_HEADER(first_merged, 0, 300),
    IN_HEADER(n_chars, 0, 300), IN_HEADER(n_whole, 0, 300), IN_HEADER(n_added, 0, EHMN_MAX_ADDED),
    IN_HEADER(n_literals, 0, 300), IN_HEADER(literal_bytes, 0, 4096), IN_HEADER(word_bytes, 2, 4),
    IN_HEADER(split, 0, EHMN_SPLIT_SPACES), IN_HEADER(digits, 0, 1), IN_HEADER(metaspace, 0, 1),
    IN_HEADER(prefix, 0, EHMN_PREFIX_FIRST), IN_HEADER(strip, 0, EHMN_STRIP_FIRST_TOKEN), IN_HEADER(reserved[5], 0, 0),
    IN_HEADER(added_first[12], 0, 0xFFFFFFFFu),
};

/* A section, taken apart. */
typedef struct {
    ehmn_tokenizer h;
    uint32_t pairs[MOST][2], results[MOST], of_byte[256], chars[MOST], whole[MOST];
    ehmn_added added[MOST];
    uint32_t lengths[2u * MOST];
    uint8_t literals[2u * MOST][LONGEST];
} parts;

/* ---- Taking apart and putting together */

typedef struct {
    uint8_t *bytes;
    size_t at, size; /* `at` beyond `size`: it did not fit */
} cursor;

static uint32_t get(cursor *c, uint32_t word)
{
    uint32_t v = 0;
    if (c->at + word <= c->size) {
        memcpy(&v, c->bytes + c->at, word);
    }
    c->at += word;
    return word == 2u && v == 0xFFFFu ? NONE : v;
}

static void put(cursor *c, uint32_t word, uint32_t v)
{
    if (c->at + word <= c->size) {
        memcpy(c->bytes + c->at, &v, word);
    }
    c->at += word;
}

static void get_words(cursor *c, uint32_t word, uint32_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = get(c, word);
    }
    c->at = (c->at + 3u) / 4u * 4u;
}

static void put_words(cursor *c, uint32_t word, const uint32_t *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        put(c, word, v[i]);
    }
    while (c->at % 4u != 0) {
        put(c, 1, 0);
    }
}

static int take_apart(parts *p, uint8_t *data, size_t size)
{
    cursor c = {data, sizeof p->h, size};
    memset(p, 0, sizeof *p);
    if (size < sizeof p->h) {
        return 0;
    }
    memcpy(&p->h, data, sizeof p->h);
    const ehmn_tokenizer *h = &p->h;
    if (h->n_merges > MOST || h->n_chars > MOST || h->n_whole > MOST || h->n_added > MOST || h->n_literals > 2u * MOST
        || h->n_literals == 0 || (h->word_bytes != 2u && h->word_bytes != 4u) || h->merged > 1u) {
        return 0;
    }
    get_words(&c, h->word_bytes, p->pairs[0], 2u * h->n_merges);
    c.at += (h->word_bytes * h->n_merges + 3u) / 4u * 4u;
    get_words(&c, h->word_bytes, p->results, h->merged == EHMN_MERGED_LISTED ? h->n_merges : 0u);
    get_words(&c, h->word_bytes, p->of_byte, 256);
    get_words(&c, h->word_bytes, p->chars, h->n_chars);
    get_words(&c, h->word_bytes, p->whole, h->n_whole);
    get_words(&c, 4, (uint32_t *)(void *)p->added, 2u * h->n_added);
    for (uint32_t i = 0, before = 0; i < h->n_literals; i++) {
        uint32_t end = get(&c, 4), n = end - before;
        p->lengths[i] = n < LONGEST ? n : LONGEST;
        before = end;
    }
    for (uint32_t i = 0; i < h->n_literals; i++) {
        for (uint32_t k = 0; k < p->lengths[i]; k++) {
            p->literals[i][k] = (uint8_t)get(&c, 1);
        }
    }
    return 1;
}

/* The literal of a token; NONE if it is made by a merge, or is none at all. */
static uint32_t literal_of(const parts *p, uint32_t token)
{
    const ehmn_tokenizer *h = &p->h;
    if (h->merged == EHMN_MERGED_IN_ORDER && token >= h->first_merged) {
        token = token - h->first_merged < h->n_merges ? NONE : token - h->n_merges;
    }
    return token < h->n_literals ? token : NONE;
}

static int order_of(const parts *p, uint32_t a, uint32_t b)
{
    uint32_t i = literal_of(p, a), k = literal_of(p, b);
    uint32_t n = p->lengths[i] < p->lengths[k] ? p->lengths[i] : p->lengths[k];
    int order = memcmp(p->literals[i], p->literals[k], n);
    return order != 0 ? order : (int)p->lengths[i] - (int)p->lengths[k];
}

/* Sort tokens by their literals; those without one, and the second of equals, go. How many are left. */
static uint32_t sort_tokens(const parts *p, uint32_t *tokens, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = tokens[i], at = kept;
        if (literal_of(p, token) == NONE || p->lengths[literal_of(p, token)] == 0) {
            continue;
        }
        while (at > 0 && order_of(p, tokens[at - 1u], token) > 0) {
            at--;
        }
        if (at == 0 || order_of(p, tokens[at - 1u], token) != 0) {
            memmove(tokens + at + 1u, tokens + at, (kept - at) * sizeof *tokens);
            tokens[at] = token;
            kept++;
        }
    }
    return kept;
}

static void sort_added(parts *p)
{
    uint32_t kept = 0;
    memset(p->h.added_first, 0, sizeof p->h.added_first);
    for (uint32_t i = 0; i < p->h.n_added; i++) {
        ehmn_added a = p->added[i];
        uint32_t literal = literal_of(p, a.token), at = kept;
        if (literal == NONE || p->lengths[literal] == 0) {
            continue;
        }
        for (; at > 0 && p->lengths[literal_of(p, p->added[at - 1u].token)] < p->lengths[literal]; at--) {
            p->added[at] = p->added[at - 1u];
        }
        p->added[at] = a;
        p->h.added_first[p->literals[literal][0] / 8u] |= (uint8_t)(1u << p->literals[literal][0] % 8u);
        kept++;
    }
    p->h.n_added = kept;
}

static int pair_is_less(const uint32_t *a, const uint32_t *b)
{
    return a[0] != b[0] ? a[0] < b[0] : a[1] < b[1];
}

/* Merges whose parts come before them, no pair twice. */
static void settle_merges(parts *p)
{
    ehmn_tokenizer *h = &p->h;
    uint32_t in_order = h->merged == EHMN_MERGED_IN_ORDER, kept = 0;
    for (uint32_t i = 0; i < h->n_merges; i++) {
        int twice = 0;
        for (uint32_t k = 0; k < kept; k++) {
            twice |= memcmp(p->pairs[k], p->pairs[i], sizeof p->pairs[i]) == 0;
        }
        if (!twice) {
            memmove(p->pairs[kept], p->pairs[i], sizeof p->pairs[i]);
            p->results[kept++] = p->results[i];
        }
    }
    h->n_merges = kept;
    h->n_tokens = h->n_literals + (in_order ? kept : 0u);
    h->first_merged = in_order ? h->first_merged % (h->n_literals + 1u) : 0u;
    for (uint32_t i = 0; i < kept; i++) {
        for (uint32_t side = 0; side < 2u; side++) {
            uint32_t most = in_order && h->first_merged > 0 ? h->first_merged + i : h->n_tokens;
            p->pairs[i][side] %= most;
        }
        p->results[i] %= h->n_tokens;
    }
}

static size_t put_together(parts *p, uint8_t *out, size_t max)
{
    static uint32_t order[MOST], ends[2u * MOST];
    ehmn_tokenizer *h = &p->h;
    cursor c = {out, sizeof *h, max};
    settle_merges(p);
    h->n_chars = sort_tokens(p, p->chars, h->n_chars);
    h->n_whole = sort_tokens(p, p->whole, h->n_whole);
    sort_added(p);
    for (uint32_t i = 0; i < h->n_merges; i++) {
        uint32_t at = i;
        for (; at > 0 && pair_is_less(p->pairs[i], p->pairs[order[at - 1u]]); at--) {
            order[at] = order[at - 1u];
        }
        order[at] = i;
    }
    put_words(&c, h->word_bytes, p->pairs[0], 2u * h->n_merges);
    put_words(&c, h->word_bytes, order, h->n_merges);
    put_words(&c, h->word_bytes, p->results, h->merged == EHMN_MERGED_LISTED ? h->n_merges : 0u);
    put_words(&c, h->word_bytes, p->of_byte, 256);
    put_words(&c, h->word_bytes, p->chars, h->n_chars);
    put_words(&c, h->word_bytes, p->whole, h->n_whole);
    put_words(&c, 4, (const uint32_t *)(const void *)p->added, 2u * h->n_added);
    h->literal_bytes = 0;
    for (uint32_t i = 0; i < h->n_literals; i++) {
        h->literal_bytes += p->lengths[i];
        ends[i] = h->literal_bytes;
    }
    put_words(&c, 4, ends, h->n_literals);
    for (uint32_t i = 0; i < h->n_literals; i++) {
        for (uint32_t k = 0; k < p->lengths[i]; k++) {
            put(&c, 1, p->literals[i][k]);
        }
    }
    put_words(&c, 1, NULL, 0);
    h->magic = EHMN_TOKENIZER_MAGIC;
    h->version = EHMN_TOKENIZER_VERSION;
    h->bytes = (uint32_t)c.at;
    memset(h->reserved, 0, sizeof h->reserved);
    if (c.at > max) {
        return 0;
    }
    memcpy(out, h, sizeof *h);
    return c.at;
}

/* ---- Changes */

static void change_literal(draws *d, parts *p, uint32_t i)
{
    static const char *const pieces[] = {"a", "b", " ", "ab", "<s>", "1", "'s", "\n", "\xc3\xa9", "\xe2\x96\x81", "A",
                                         ".", "<", "\xe2", "\xf0\x9f\x99\x82", "\xc5\xbf", "\r", "\t", "  ", "ll"};
    p->lengths[i] = 0;
    for (uint32_t n = below(d, 4); n > 0; n--) {
        const char *piece = pieces[below(d, COUNT(pieces))];
        for (; *piece != '\0' && p->lengths[i] < LONGEST; piece++) {
            p->literals[i][p->lengths[i]++] = (uint8_t)*piece;
        }
    }
}

/* A list gets one more token, loses its last, or has one changed. */
static void change_list(draws *d, uint32_t *tokens, uint32_t *n, uint32_t n_tokens)
{
    uint32_t how = below(d, 4);
    if (how == 0 && *n > 0) {
        --*n;
    } else if (how == 1u && *n > 0) {
        tokens[below(d, *n)] = below(d, n_tokens);
    } else if (*n < MOST) {
        tokens[(*n)++] = below(d, n_tokens);
    }
}

static void change_merges(draws *d, parts *p)
{
    ehmn_tokenizer *h = &p->h;
    uint32_t how = below(d, 6), n = h->n_tokens;
    if (how == 0) {
        h->merged ^= 1u;
    } else if (how == 1u) {
        h->first_merged = below(d, h->n_literals + 1u);
    } else if (how == 2u && h->n_merges > 0) {
        h->n_merges--;
    } else if (how == 3u && h->n_merges > 0) {
        p->pairs[below(d, h->n_merges)][below(d, 2)] = below(d, n);
    } else if (h->n_merges < MOST) {
        p->pairs[h->n_merges][0] = below(d, n);
        p->pairs[h->n_merges][1] = below(d, n);
        p->results[h->n_merges++] = below(d, n);
    }
}

static void change_parts(draws *d, parts *p, uint32_t vocab_size)
{
    ehmn_tokenizer *h = &p->h;
    switch (below(d, 8)) {
    case 0:
        change_list(d, p->chars, &h->n_chars, h->n_tokens);
        break;
    case 1:
        change_list(d, p->whole, &h->n_whole, h->n_tokens);
        break;
    case 2:
        if (below(d, 2) == 0 && h->n_added > 0) {
            p->added[below(d, h->n_added)].flags = below(d, 4);
        } else if (h->n_added < MOST) {
            p->added[h->n_added].flags = below(d, 4);
            p->added[h->n_added++].token = below(d, h->n_tokens);
        }
        break;
    case 3:
        h->n_literals += h->n_literals < 2u * MOST && h->n_tokens < vocab_size;
        change_literal(d, p, below(d, h->n_literals));
        break;
    case 4:
        p->of_byte[below(d, 256)] = below(d, 4) == 0 ? NONE : below(d, h->n_tokens);
        break;
    case 5:
        h->word_bytes = 2u + 2u * below(d, 2);
        h->split = below(d, EHMN_SPLIT_SPACES + 1u);
        break;
    case 6:
        h->digits = below(d, 2);
        h->metaspace = below(d, 2);
        h->prefix = below(d, EHMN_PREFIX_FIRST + 1u);
        h->strip = below(d, EHMN_STRIP_FIRST_TOKEN + 1u);
        break;
    default:
        change_merges(d, p);
        break;
    }
}

size_t mutate_tokenizer(draws *d, uint8_t *data, size_t size, size_t max, uint32_t vocab_size)
{
    static parts p;
    uint32_t how = below(d, 8);
    if (how < 2u || !take_apart(&p, data, size)) {
        size = LLVMFuzzerMutate(data, size, max);
        if (size >= sizeof(ehmn_tokenizer) && below(d, 16) != 0) {
            put32(data + offsetof(ehmn_tokenizer, bytes), (uint32_t)size);
        }
        return size;
    }
    if (how < 7u) {
        for (uint32_t n = 1u + below(d, 3); n > 0; n--) {
            change_parts(d, &p, vocab_size);
        }
        size_t made = put_together(&p, data, max);
        size = made != 0 ? made : size;
    }
    uint32_t words = (uint32_t)(size - sizeof p.h) / p.h.word_bytes;
    if (how == 7u) {
        change_field(d, data, header, COUNT(header));
    } else if (below(d, 4) == 0 && words > 256u) { /* a token at the edge of those that there are */
        uint32_t lists = p.h.n_merges * 4u + p.h.n_chars + p.h.n_whole, token = p.h.n_tokens + below(d, 3) - 1u;
        uint32_t i = below(d, 3) == 0 ? below(d, words) : below(d, lists + 1u);
        i += i >= p.h.n_merges * 4u ? 256u : 0u; /* mostly past the bytes, of which there are many */
        memcpy(data + sizeof p.h + (i < words ? i : words - 1u) * p.h.word_bytes, &token, p.h.word_bytes);
    } else if (below(d, 4) == 0) {
        put32(data + 4u * below(d, (uint32_t)size / 4u), below(d, 2) == 0 ? below(d, 64) : draw(d));
    }
    return size;
}
