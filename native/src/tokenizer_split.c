/* Text character by character, and cut into words as the regular expressions of known tokenizers cut it. */
#include "tokenizer.h"
#include "unicode.h"

#define METASPACE 0x2581u
#define REPLACEMENT 0xFFFDu
#define LONG_S 0x17Fu /* another case of s */

uint32_t ehmn_utf8(uint32_t code, uint8_t out[4])
{
    uint32_t n = code < 0x80u ? 1u : code < 0x800u ? 2u : code < 0x10000u ? 3u : 4u;
    for (uint32_t i = n - 1u; i > 0; i--) {
        out[i] = (uint8_t)(0x80u | (code & 0x3Fu));
        code >>= 6;
    }
    out[0] = (uint8_t)(n == 1u ? code : (0xF0u << (4u - n) & 0xFFu) | code);
    return n;
}

/* How many bytes follow a first byte; the range of the first of them, which excludes surrogates and what has a shorter
 * form. Other first bytes begin nothing: none follow. */
static uint32_t followers(uint32_t first, uint32_t *low, uint32_t *high)
{
    *low = first == 0xE0u ? 0xA0u : first == 0xF0u ? 0x90u : 0x80u;
    *high = first == 0xEDu ? 0x9Fu : first == 0xF4u ? 0x8Fu : 0xBFu;
    return first < 0xC2u ? 0 : first < 0xE0u ? 1u : first < 0xF0u ? 2u : first < 0xF5u ? 3u : 0;
}

static uint32_t at_the_end(ehmn_reader *r)
{
    r->open = r->more;
    return EHMN_NONE;
}

/* The character at a byte of the text, and the byte after it. */
static uint32_t decode(ehmn_reader *r, uint32_t at, uint32_t *after)
{
    uint32_t code = r->text[at++], low, high, n = followers(code, &low, &high);
    if (code >= 0x80u) {
        uint32_t shape = code;
        code = n == 0 ? REPLACEMENT : shape & (0x3Fu >> n);
        for (uint32_t i = 0; i < n; i++) {
            if (at == r->bytes && r->more) {
                return at_the_end(r);
            }
            if (at == r->bytes || r->text[at] < low || r->text[at] > high) {
                code = REPLACEMENT;
                break;
            }
            code = code << 6 | (r->text[at++] & 0x3Fu);
            low = 0x80u;
            high = 0xBFu;
        }
    }
    *after = at;
    r->reach = at > r->reach ? at : r->reach;
    return code;
}

uint32_t ehmn_read(ehmn_reader *r, uint32_t place, uint32_t *after)
{
    uint32_t code, end;
    *after = place + 1u;
    if (place < r->prefix) {
        return ' ';
    }
    if (place - r->prefix >= r->bytes) {
        return at_the_end(r);
    }
    code = decode(r, place - r->prefix, &end);
    if (code == EHMN_NONE || (r->digits && ehmn_unicode_is_digit(code))) {
        return EHMN_NONE;
    }
    *after = end + r->prefix;
    return r->metaspace && code == METASPACE ? (uint32_t)' ' : code;
}

static uint32_t class_of(uint32_t code)
{
    return code == EHMN_NONE ? EHMN_NONE : ehmn_unicode_class(code);
}

static int is_newline(uint32_t code)
{
    return code == '\n' || code == '\r';
}

/* The end of the characters of one class, at most `limit` of them. */
static uint32_t run(ehmn_reader *r, uint32_t place, uint32_t class, uint32_t limit)
{
    uint32_t after;
    while (limit-- > 0 && class_of(ehmn_read(r, place, &after)) == class) {
        place = after;
    }
    return place;
}

static uint32_t lower(uint32_t code)
{
    return code >= 'A' && code <= 'Z' ? code + 32u : code == LONG_S ? (uint32_t)'s' : code;
}

/* The end of 's, 't, 're, 've, 'm, 'll or 'd behind its apostrophe, or 0. */
static uint32_t contraction(ehmn_reader *r, uint32_t place, int any_case)
{
    uint32_t after, end, first = ehmn_read(r, place, &after), second;
    first = any_case ? lower(first) : first;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return after;
    }
    if (first != 'r' && first != 'v' && first != 'l') {
        return 0;
    }
    second = ehmn_read(r, after, &end);
    second = any_case ? lower(second) : second;
    return second == (first == 'l' ? 'l' : 'e') ? end : 0;
}

/* White space: all of it but the last if something follows, which then begins with that; with `lines`, up to the last
 * end of line in it if there is one. */
static uint32_t white_space(ehmn_reader *r, int lines)
{
    uint32_t place = 0, last = 0, line = 0, after, code;
    while (class_of(code = ehmn_read(r, place, &after)) == EHMN_UNICODE_SPACE) {
        last = place;
        place = after;
        line = is_newline(code) ? place : line;
    }
    if (lines && line > 0) {
        return line;
    }
    return code == EHMN_NONE || last == 0 ? place : last;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static uint32_t split_gpt2(ehmn_reader *r)
{
    uint32_t first_end, after, code = ehmn_read(r, 0, &first_end), class = class_of(code), end;
    if (code == '\'' && (end = contraction(r, first_end, 0)) > 0) {
        return end;
    }
    if (code == ' ') {
        class = class_of(ehmn_read(r, first_end, &after));
    }
    if (class == EHMN_UNICODE_SPACE || class == EHMN_NONE) {
        return white_space(r, 0);
    }
    return run(r, first_end, class, EHMN_NONE);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static uint32_t split_llama3(ehmn_reader *r, uint32_t digits)
{
    uint32_t first_end, after, code = ehmn_read(r, 0, &first_end), class = class_of(code), next, end;
    if (code == '\'' && (end = contraction(r, first_end, 1)) > 0) {
        return end;
    }
    if (class == EHMN_UNICODE_NUMBER) {
        return run(r, first_end, class, digits - 1u);
    }
    if (class == EHMN_UNICODE_LETTER) {
        return run(r, first_end, class, EHMN_NONE);
    }
    next = class_of(ehmn_read(r, first_end, &after));
    if (next == EHMN_UNICODE_LETTER && !is_newline(code)) {
        return run(r, after, next, EHMN_NONE);
    }
    if (class == EHMN_UNICODE_OTHER || (code == ' ' && next == EHMN_UNICODE_OTHER)) {
        end = run(r, first_end, EHMN_UNICODE_OTHER, EHMN_NONE);
        while (is_newline(ehmn_read(r, end, &after))) {
            end = after;
        }
        return end;
    }
    return white_space(r, 1);
}

/* Up to the next space; `runs`: spaces at the beginning stay together. */
static uint32_t split_spaces(ehmn_reader *r, int runs)
{
    uint32_t place, after, code = ehmn_read(r, 0, &place);
    while (runs && code == ' ' && (code = ehmn_read(r, place, &after)) == ' ') {
        place = after;
    }
    while ((code = ehmn_read(r, place, &after)) != EHMN_NONE && code != ' ') {
        place = after;
    }
    return place;
}

static uint32_t everything(ehmn_reader *r)
{
    uint32_t place = 0, after;
    while (ehmn_read(r, place, &after) != EHMN_NONE) {
        place = after;
    }
    return place;
}

uint32_t ehmn_split(ehmn_reader *r, uint32_t split)
{
    uint32_t after;
    if (ehmn_read(r, 0, &after) == EHMN_NONE) {
        return r->digits && !r->open ? r->reach : 0; /* a digit */
    }
    switch (split) {
    case EHMN_SPLIT_GPT2:
        return split_gpt2(r);
    case EHMN_SPLIT_LLAMA3:
        return split_llama3(r, 3);
    case EHMN_SPLIT_QWEN2:
        return split_llama3(r, 1);
    case EHMN_SPLIT_SPACE:
        return split_spaces(r, 0);
    case EHMN_SPLIT_SPACES:
        return split_spaces(r, 1);
    default:
        return everything(r);
    }
}
