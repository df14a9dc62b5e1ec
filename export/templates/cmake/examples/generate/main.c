#include "example.h"

#include <stdio.h>

int main(void)
{
    example_result result;
    const char *failure = example_run(&result);
    if (failure != NULL) {
        fprintf(stderr, "failed: %s\n", failure);
        return 1;
    }
    printf("millibits a token before learning %lu, after %lu\n", (unsigned long)result.before,
           (unsigned long)result.after);
    for (int i = 0; i < EXAMPLE_GENERATED; i++) {
        printf("%lu ", (unsigned long)result.tokens[i]);
    }
    printf("\n%s\n", result.text);
    return 0;
}
