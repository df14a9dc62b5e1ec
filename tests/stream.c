/* Runs an image over token ids: COMMAND IMAGE IDS N [TOGETHER]. Prints the table of kernels, then the scores of N
 * tokens learned, N fed and N followed, and the delta, as CRCs; TOGETHER tokens at once, if given. For processors that
 * only an emulator has: tests/test_machines.py compares with the machine that runs the tests. */
#include "edgehmn.h"
#include "kernels.h"

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
    void *data = aligned_alloc(64, (*size + 63u) / 64u * 64u);
    if (data == NULL || fread(data, 1, *size, f) != *size) {
        exit(2);
    }
    fclose(f);
    return data;
}

static void *room(uint32_t bytes)
{
    void *p = aligned_alloc(64, ((size_t)bytes + 64u) / 64u * 64u);
    return p != NULL ? p : (exit(2), NULL);
}

int main(int argc, char **argv)
{
    size_t image_bytes, ids_bytes;
    if (argc < 4) {
        return 2;
    }
    const void *image = read_all(argv[1], &image_bytes);
    const uint32_t *ids = read_all(argv[2], &ids_bytes);
    uint32_t n = (uint32_t)strtoul(argv[3], NULL, 10), together = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 0u;
    uint32_t need, delta_bytes, work_bytes = 0;
    ehmn_model *model;
    if (ehmn_image_check(image, (uint32_t)image_bytes) != EHMN_OK || 3u * n > ids_bytes / 4u
        || ehmn_arena_bytes(image, EHMN_PLASTIC, &need) != EHMN_OK || ehmn_delta_bytes(image, &delta_bytes) != EHMN_OK
        || ehmn_work_bytes(image, together, &work_bytes) != EHMN_OK
        || ehmn_open(image, room(need), need, EHMN_PLASTIC, 0, &model) != EHMN_OK) {
        return 1;
    }
    uint32_t *bits = room(4u * n), how[] = {EHMN_LEARN, EHMN_FEED, EHMN_FOLLOW};
    void *work = together > 0 ? room(work_bytes) : NULL, *delta = room(delta_bytes);
    printf("%s", ehmn_best_kernels()->name);
    for (uint32_t k = 0; k < 3u; k++) {
        if (ehmn_process(model, ids + k * n, n, how[k], bits, work, work_bytes) != EHMN_OK) {
            return 1;
        }
        printf(" %08lx", (unsigned long)ehmn_crc32(0, bits, 4u * n));
    }
    if (ehmn_delta_save(model, delta, delta_bytes) != EHMN_OK) {
        return 1;
    }
    printf(" %08lx\n", (unsigned long)ehmn_crc32(0, delta, delta_bytes));
    return 0;
}
