/* The functions of string.h that compiled C may call: firmware is linked without a C library. */
#include <stdint.h>
#include <string.h>

/* Of objects of any type: without that a compiler may take a word for another object than the one that it copies. */
typedef uint32_t __attribute__((may_alias)) word;

/* Whole words where all three allow it. */
static int words_fit(const void *a, const void *b, size_t n)
{
    return (((uintptr_t)a | (uintptr_t)b | n) & 3u) == 0;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    if (words_fit(to, from, n)) {
        word *out = to;
        const word *in = from;
        for (size_t i = 0; i < n / 4u; i++) {
            out[i] = in[i];
        }
        return to;
    }
    uint8_t *out = to;
    const uint8_t *in = from;
    for (size_t i = 0; i < n; i++) {
        out[i] = in[i];
    }
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    if ((uintptr_t)out <= (uintptr_t)in) {
        for (size_t i = 0; i < n; i++) {
            out[i] = in[i];
        }
    } else {
        for (size_t i = n; i-- > 0;) {
            out[i] = in[i];
        }
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    uint8_t byte = (uint8_t)value;
    if (words_fit(to, to, n)) {
        word *out = to;
        for (size_t i = 0; i < n / 4u; i++) {
            out[i] = byte * 0x01010101u;
        }
        return to;
    }
    uint8_t *out = to;
    for (size_t i = 0; i < n; i++) {
        out[i] = byte;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a;
    const uint8_t *y = b;
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}
