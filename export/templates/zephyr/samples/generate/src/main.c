#include "example.h"

#include <zephyr/sys/printk.h>

int main(void)
{
    static example_result result;
    const char *failure = example_run(&result);
    if (failure != NULL) {
        printk("failed: %s\n", failure);
        return 0;
    }
    printk("millibits a token before learning %lu, after %lu\n", (unsigned long)result.before,
           (unsigned long)result.after);
    for (int i = 0; i < EXAMPLE_GENERATED; i++) {
        printk("%lu ", (unsigned long)result.tokens[i]);
    }
    printk("\n%s\n", result.text);
    return 0;
}
