/* What the example does, apart from printing. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <stdint.h>

#define EXAMPLE_GENERATED 24
#define EXAMPLE_TEXT_BYTES 256

typedef struct {
    uint32_t before; /* thousandths of a bit for each token of the phrase, when it was first read */
    uint32_t after;  /* and when it had been learned */
    uint32_t tokens[EXAMPLE_GENERATED];
    char text[EXAMPLE_TEXT_BYTES + 1]; /* that the tokens stand for; empty if the image has no tokenizer */
} example_result;

#ifdef __cplusplus
extern "C" {
#endif

/* Read a phrase several times and learn it, then continue it. Returns NULL, or the name of what failed. */
const char *example_run(example_result *result);

#ifdef __cplusplus
}
#endif

#endif
