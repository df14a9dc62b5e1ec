#include "example.h"

#include <stdio.h>

void app_main(void)
{
    static example_result result;
    const char *failure = example_run(&result);
    if (failure != NULL) {
        printf("failed: %s\n", failure);
        return;
    }
    printf("millibits a token before learning %lu, after %lu\n", (unsigned long)result.before,
           (unsigned long)result.after);
    for (int i = 0; i < EXAMPLE_GENERATED; i++) {
        printf("%lu ", (unsigned long)result.tokens[i]);
    }
    printf("\n%s\n", result.text);
}
