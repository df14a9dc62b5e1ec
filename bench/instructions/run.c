/* Runs an image over token ids: COMMAND IMAGE IDS N MODE, MODE s (frozen), p (learns the first half), l (learns all) or
 * m, frozen, a prompt: many tokens at once, of which nobody wants the scores; a number follows that says half or how
 * many. bench/count_instructions.py counts what it executes. */
#include "edgehmn.h"

#include <stdio.h>
#include <stdlib.h>

static void *read_all(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        exit(2);
    }
    *size = (size_t)ftell(f);
    rewind(f);
    void *data = aligned_alloc(64, (*size + 63) / 64 * 64);
    if (data == NULL || fread(data, 1, *size, f) != *size) {
        exit(2);
    }
    fclose(f);
    return data;
}

int main(int argc, char **argv)
{
    size_t image_bytes, ids_bytes;
    if (argc != 5) {
        return 2;
    }
    const void *image = read_all(argv[1], &image_bytes);
    const uint32_t *ids = read_all(argv[2], &ids_bytes);
    const size_t n = (size_t)strtoul(argv[3], NULL, 10), half = (size_t)strtoul(argv[4] + 1, NULL, 10);
    const uint32_t mode = argv[4][0] == 's' || argv[4][0] == 'm' ? EHMN_STATIC : EHMN_PLASTIC;
    uint32_t need, score;
    ehmn_model *model;
    if (ehmn_image_check(image, (uint32_t)image_bytes) != EHMN_OK || n > ids_bytes / 4 ||
        ehmn_arena_bytes(image, mode, &need) != EHMN_OK) {
        return 1;
    }
    void *arena = aligned_alloc(64, (need + 63u) / 64u * 64u);
    if (arena == NULL || ehmn_open(image, arena, need, mode, 0, &model) != EHMN_OK) {
        return 1;
    }
    if (argv[4][0] == 'm') {
        uint32_t work_bytes;
        if (ehmn_work_bytes(image, (uint32_t)half, &work_bytes) != EHMN_OK) {
            return 1;
        }
        void *work = aligned_alloc(64, (work_bytes + 63u) / 64u * 64u);
        return ehmn_process(model, ids, (uint32_t)n, EHMN_FEED, NULL, work, work_bytes) != EHMN_OK;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t status = ehmn_score(model, ids[i], &score);
        if (status == EHMN_OK && (argv[4][0] == 'l' || (argv[4][0] == 'p' && i < half))) {
            status = ehmn_learn(model, ids[i]);
        }
        if (status != EHMN_OK || ehmn_step(model, ids[i]) != EHMN_OK) {
            return 1;
        }
    }
    return 0;
}
