#include <stddef.h>
#include <stdint.h>
#define MALLOC_CAP_8BIT (1u << 2)
void *heap_caps_aligned_alloc(size_t, size_t, uint32_t);
