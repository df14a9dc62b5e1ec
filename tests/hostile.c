/* Replays images and deltas as an attacker may make them. For each it prints what the core says of it and, if the core
 * accepts it, a checksum of what the model then does. hostile.py writes the cases, and does the same in Python.
 *
 *     hostile CASES        each case: uint32 kind, uint32 number of bytes, then the bytes */
#include "edgehmn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE, IMAGE_LONG, IMAGE_CUTS, IMAGE_FLIPS, DELTA, DELTA_LONG, DELTA_CUTS, DELTA_FLIPS };
enum { SHORT = 6, LONG = 90, BANKS = 2 };

typedef struct {
    void *image;
    void *arena;
    void *banks;
    ehmn_model *model;
    uint8_t *delta;
    uint32_t delta_bytes;
} instance;

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "failed: %s\n", what);
        exit(1);
    }
}

/* A copy that ends where its memory ends, so that a read behind it is seen. */
static uint8_t *copy(const uint8_t *bytes, uint32_t n)
{
    uint8_t *out = malloc(n);
    require(out != NULL, "malloc");
    memcpy(out, bytes, n);
    return out;
}

static void attach_banks(instance *in)
{
    uint32_t need = 0;
    require(ehmn_banks_bytes(in->image, BANKS, &need) == EHMN_OK, "ehmn_banks_bytes");
    in->banks = malloc(need);
    require(ehmn_banks_attach(in->model, in->banks, need - 1, BANKS) == EHMN_E_SIZE, "banks too small");
    require(ehmn_banks_attach(in->model, in->banks, need, BANKS) == EHMN_OK, "ehmn_banks_attach");
}

static int32_t open_image(const uint8_t *bytes, uint32_t n, uint32_t mode, instance *in)
{
    uint32_t need = 0;
    memset(in, 0, sizeof *in);
    in->image = copy(bytes, n);
    int32_t status = ehmn_image_check(in->image, n);
    if (status == EHMN_OK) {
        require(ehmn_arena_bytes(in->image, mode, &need) == EHMN_OK, "ehmn_arena_bytes");
        require(ehmn_delta_bytes(in->image, &in->delta_bytes) == EHMN_OK, "ehmn_delta_bytes");
        in->arena = malloc(need);
        in->delta = malloc(in->delta_bytes);
        require(ehmn_open(in->image, in->arena, need - 1, mode, 7, &in->model) == EHMN_E_ARENA, "arena too small");
        require(ehmn_open(in->image, in->arena, need, mode, 7, &in->model) == EHMN_OK, "ehmn_open");
        if (mode == EHMN_PLASTIC) {
            attach_banks(in);
        }
    }
    return status;
}

static void close_image(instance *in)
{
    free(in->image);
    free(in->arena);
    free(in->banks);
    free(in->delta);
}

/* Feed n tokens, each scored before and followed by a sample; a checksum of scores and samples. */
static uint32_t process(instance *in, uint32_t n, int learn, uint32_t temperature)
{
    uint32_t vocab = ((const ehmn_image *)in->image)->vocab_size;
    uint32_t crc = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = (3 * i + 1) % vocab;
        uint32_t result[2];
        require(ehmn_score(in->model, token, &result[0]) == EHMN_OK, "ehmn_score");
        if (learn) {
            int32_t status = i % 5 == 4 ? ehmn_follow(in->model, token) : ehmn_learn(in->model, token);
            require(status == EHMN_OK, "ehmn_learn or ehmn_follow");
        }
        require(ehmn_step(in->model, token) == EHMN_OK, "ehmn_step");
        require(ehmn_sample(in->model, temperature, &result[1]) == EHMN_OK, "ehmn_sample");
        crc = ehmn_crc32(crc, result, sizeof result);
    }
    return crc;
}

static uint32_t learn_and_save(instance *in, uint32_t n)
{
    uint32_t crc = process(in, n, 1, 256);
    for (uint32_t bank = 0; bank < BANKS; bank++) {
        int32_t status = ehmn_bank_save(in->model, bank, in->delta, in->delta_bytes);
        require(status == EHMN_OK || status == EHMN_E_STATE, "ehmn_bank_save");
        if (status == EHMN_OK) {
            crc = ehmn_crc32(crc, in->delta, in->delta_bytes);
            require(ehmn_bank_load(in->model, bank, in->delta, in->delta_bytes) == EHMN_OK, "its own delta");
        }
    }
    return crc;
}

static int32_t try_image(const uint8_t *bytes, uint32_t size, uint32_t n, uint32_t *crc)
{
    instance in;
    int32_t status = open_image(bytes, size, EHMN_PLASTIC, &in);
    if (status == EHMN_OK) {
        *crc = learn_and_save(&in, n);
        close_image(&in);
        require(open_image(bytes, size, EHMN_STATIC, &in) == EHMN_OK, "static");
        (void)process(&in, SHORT, 0, 0);
    }
    close_image(&in);
    return status;
}

static int32_t try_delta(instance *in, const uint8_t *bytes, uint32_t size, uint32_t n, uint32_t *crc)
{
    uint8_t *delta = copy(bytes, size);
    uint8_t *before = malloc(in->delta_bytes);
    (void)process(in, SHORT, 1, 0);
    ehmn_reset(in->model);
    require(ehmn_delta_save(in->model, before, in->delta_bytes) == EHMN_OK, "before");
    int32_t status = ehmn_delta_load(in->model, delta, size);
    require(ehmn_delta_save(in->model, in->delta, in->delta_bytes) == EHMN_OK, "after");
    require(status == EHMN_OK || memcmp(before, in->delta, in->delta_bytes) == 0, "a refused delta changes nothing");
    require(ehmn_bank_load(in->model, 1, delta, size) == status, "as another bank");
    if (status == EHMN_OK) {
        *crc = learn_and_save(in, n);
    }
    free(before);
    free(delta);
    return status;
}

/* How many of all cuts, or of all flips of one bit, the core accepts. */
static uint32_t count_accepted(instance *in, uint32_t kind, const uint8_t *bytes, uint32_t n)
{
    int is_image = kind == IMAGE_CUTS || kind == IMAGE_FLIPS;
    int is_cut = kind == IMAGE_CUTS || kind == DELTA_CUTS;
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < (is_cut ? n : 8 * n); i++) {
        uint32_t length = is_cut ? i : n;
        uint8_t *damaged = copy(bytes, length);
        if (!is_cut) {
            damaged[i / 8] ^= (uint8_t)(1u << i % 8);
        }
        int32_t status = is_image ? ehmn_image_check(damaged, length) : ehmn_delta_load(in->model, damaged, length);
        accepted += status == EHMN_OK;
        free(damaged);
    }
    return accepted;
}

/* The deltas of a file of cases belong to the image at its beginning. */
static void replay(FILE *file)
{
    uint8_t *image = NULL;
    uint32_t head[2], image_bytes = 0; /* head: kind and number of bytes */
    while (fread(head, 1, sizeof head, file) == sizeof head) {
        uint8_t *bytes = malloc(head[1] + 1u);
        int32_t status = EHMN_OK;
        uint32_t crc = 0;
        instance in = {0};
        require(fread(bytes, 1, head[1], file) == head[1], "the cases are truncated");
        if (head[0] >= DELTA) {
            require(open_image(image, image_bytes, EHMN_PLASTIC, &in) == EHMN_OK, "the image of the deltas");
        }
        if (head[0] <= IMAGE_LONG) {
            status = try_image(bytes, head[1], head[0] == IMAGE_LONG ? LONG : SHORT, &crc);
        } else if (head[0] == DELTA || head[0] == DELTA_LONG) {
            status = try_delta(&in, bytes, head[1], head[0] == DELTA_LONG ? LONG : SHORT, &crc);
        } else {
            crc = count_accepted(&in, head[0], bytes, head[1]);
        }
        printf("%s %08x\n", ehmn_status_name(status), (unsigned)crc);
        fflush(stdout);
        close_image(&in);
        if (image == NULL) {
            image = bytes;
            image_bytes = head[1];
        } else {
            free(bytes);
        }
    }
    free(image);
}

int main(int argc, char **argv)
{
    require(argc == 2, "usage: hostile CASES");
    FILE *file = fopen(argv[1], "rb");
    require(file != NULL, "no such file of cases");
    replay(file);
    fclose(file);
    return 0;
}
