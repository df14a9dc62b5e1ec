/* Many tokens at once against one after the other, for every table of kernels of this build: COMMAND IMAGE... For
 * processors that only an emulator has; on the machine that runs the tests, test_many.py asks more. Ends with 1 and a
 * message at the first difference, and names the tables. */
#include "edgehmn.h"
#include "kernels.h"
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS 230u

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63u) / 64u * 64u);
    return p != NULL ? p : (exit(2), NULL);
}

static void must(int is_so, const char *what)
{
    if (!is_so) {
        printf("%s\n", what);
        exit(1);
    }
}

static void *read_all(const char *path, uint32_t *size)
{
    FILE *f = fopen(path, "rb");
    must(f != NULL && fseek(f, 0, SEEK_END) == 0, path);
    *size = (uint32_t)ftell(f);
    rewind(f);
    void *data = room(*size);
    must(fread(data, 1, *size, f) == *size, path);
    fclose(f);
    return data;
}

static ehmn_model *open_model(const ehmn_image *image, uint32_t mode, const ehmn_kernels *kernels)
{
    ehmn_model *m;
    uint32_t need;
    must(ehmn_arena_bytes(image, mode, &need) == EHMN_OK, "arena");
    must(ehmn_open(image, room(need), need, mode, 0, &m) == EHMN_OK, "open");
    m->kernels = kernels;
    return m;
}

static void process(ehmn_model *m, const uint32_t *tokens, uint32_t n, uint32_t how, uint32_t together, uint32_t *bits)
{
    uint32_t size = 0;
    must(ehmn_work_bytes(m->image, together, &size) == EHMN_OK, "work");
    void *work = room(size); /* of its own, whatever it held */
    memset(work, 0xA5, size);
    must(ehmn_process(m, tokens, n, how, bits, work, size) == EHMN_OK, "process");
    free(work);
}

static void compare(const ehmn_image *image, const ehmn_kernels *table, uint32_t mode, uint32_t together,
                    const uint32_t *tokens)
{
    static const uint32_t end[] = {0, 61, 66, 150, TOKENS};
    uint32_t one[TOKENS], many[TOKENS], scored = together % 2u;
    ehmn_model *by_one = open_model(image, mode, &ehmn_kernels_ref), *by_many = open_model(image, mode, table);
    ehmn_counts a, b;
    for (uint32_t part = 1; part < sizeof end / sizeof *end; part++) {
        uint32_t from = end[part - 1u], n = end[part] - from;
        uint32_t how = mode == EHMN_PLASTIC && part % 2u ? EHMN_LEARN : EHMN_FEED;
        process(by_one, tokens + from, n, how, 0, one + from);
        process(by_many, tokens + from, n, how, together, scored ? many + from : NULL);
    }
    must(!scored || memcmp(one, many, sizeof one) == 0, table->name);
    must(memcmp(ehmn_logits(by_one), ehmn_logits(by_many), 2u * image->vocab_size) == 0, table->name);
    for (uint32_t t = 0; t < 9u; t++) { /* the window is the same */
        must(ehmn_step(by_one, tokens[t]) == EHMN_OK && ehmn_step(by_many, tokens[t]) == EHMN_OK, "step");
        must(memcmp(ehmn_logits(by_one), ehmn_logits(by_many), 2u * image->vocab_size) == 0, table->name);
    }
    ehmn_get_counts(by_one, &a);
    ehmn_get_counts(by_many, &b);
    must(!scored || memcmp(&a, &b, sizeof a) == 0, table->name);
    free(by_one);
    free(by_many);
}

int main(int argc, char **argv)
{
    const ehmn_kernels *table;
    for (int i = 1; i < argc; i++) {
        uint32_t bytes, tokens[TOKENS], state = 5;
        const ehmn_image *image = read_all(argv[i], &bytes);
        must(ehmn_image_check(image, bytes) == EHMN_OK, argv[i]);
        for (uint32_t t = 0; t < TOKENS; t++) {
            state = state * 1664525u + 1013904223u;
            tokens[t] = (state >> 8) % image->vocab_size;
        }
        for (uint32_t index = 1; (table = ehmn_kernel_table(index)) != NULL; index++) {
            for (uint32_t together = 3; together < 80u; together += 1u + together * together / 4u) {
                compare(image, table, EHMN_STATIC, together, tokens);
                compare(image, table, EHMN_PLASTIC, together, tokens);
            }
        }
    }
    for (uint32_t index = 1; (table = ehmn_kernel_table(index)) != NULL; index++) {
        printf("%s\n", table->name);
    }
    return 0;
}
