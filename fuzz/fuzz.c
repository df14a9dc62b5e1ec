#include "fuzz.h"

static uint32_t tables[8][256];

__attribute__((constructor)) static void make_tables(void)
{
    for (uint32_t i = 0; i < 256u; i++) {
        uint32_t crc = i;
        for (uint32_t bit = 0; bit < 8u; bit++) {
            crc = (crc >> 1) ^ (crc & 1u ? 0xEDB88320u : 0u);
        }
        tables[0][i] = crc;
    }
    for (uint32_t k = 1; k < 8u; k++) {
        for (uint32_t i = 0; i < 256u; i++) {
            tables[k][i] = tables[k - 1u][i] >> 8 ^ tables[0][tables[k - 1u][i] & 255u];
        }
    }
}

uint32_t fuzz_crc32(const uint8_t *bytes, size_t n)
{
    uint32_t crc = ~0u;
    for (; n >= 8u; bytes += 8, n -= 8u) {
        uint32_t a = get32(bytes) ^ crc;
        uint32_t b = get32(bytes + 4);
        crc = tables[7][a & 255u] ^ tables[6][a >> 8 & 255u] ^ tables[5][a >> 16 & 255u] ^ tables[4][a >> 24]
            ^ tables[3][b & 255u] ^ tables[2][b >> 8 & 255u] ^ tables[1][b >> 16 & 255u] ^ tables[0][b >> 24];
    }
    for (; n > 0; bytes++, n--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *bytes) & 255u];
    }
    return ~crc;
}

int same_bytes(const void *a, const void *b, size_t n)
{
    const uint8_t *p = a, *q = b;
    uint64_t any = 0, v, w;
    for (; n >= 8u; p += 8, q += 8, n -= 8u) {
        memcpy(&v, p, sizeof v);
        memcpy(&w, q, sizeof w);
        any |= v ^ w;
    }
    for (; n > 0; p++, q++, n--) {
        any |= *p ^ *q;
    }
    return any == 0;
}

uint32_t other_value(draws *d, uint32_t old, int32_t low, uint32_t high)
{
    uint32_t span = high - (uint32_t)low;
    switch (below(d, 10)) {
    case 0:
        return (uint32_t)low;
    case 1:
        return high;
    case 2:
        return (uint32_t)low - 1u;
    case 3:
        return high + 1u;
    case 4:
        return (uint32_t)low + (span < 4u ? below(d, span + 1u) : below(d, 5));
    case 5:
        return old + 1u;
    case 6:
        return old - 1u;
    case 7:
        return 1u << below(d, 32);
    case 8:
        return draw(d);
    default:
        return (uint32_t)low + (span == UINT32_MAX ? draw(d) : below(d, span + 1u));
    }
}

void change_field(draws *d, uint8_t *data, const field *fields, uint32_t n)
{
    const field *f = fields + below(d, n);
    uint32_t value = below(d, 8) == 0 ? get32(data + fields[below(d, n)].offset) + 4u * below(d, 9) - 16u
                                      : other_value(d, get32(data + f->offset), f->low, f->high);
    put32(data + f->offset, value);
}

void *memory(size_t size)
{
    void *out = aligned_alloc(64, (size + 127u) / 64u * 64u);
    REQUIRE(out != NULL);
    memset(out, 0, size);
    return out;
}

const uint8_t *watched(const uint8_t *data, size_t size)
{
    static uint8_t place[MAX_INPUT + 64u] __attribute__((aligned(64)));
    REQUIRE(size <= MAX_INPUT);
    ASAN_UNPOISON_MEMORY_REGION(place, size);
    memcpy(place, data, size);
    ASAN_POISON_MEMORY_REGION(place + size, sizeof place - size);
    return place;
}

const uint8_t *model_image(const char *name, uint32_t *size)
{
    static uint8_t buffer[1 << 16];
    char path[4096];
    const char *folder = getenv("EHMN_FUZZ_MODELS");
    REQUIRE(folder != NULL);
    snprintf(path, sizeof path, "%s/%s.ehmn", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: cannot be read\n", path);
        abort();
    }
    *size = (uint32_t)fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    uint8_t *image = memory(*size);
    memcpy(image, buffer, *size);
    REQUIRE(ehmn_image_check(image, *size) == EHMN_OK);
    return image;
}
