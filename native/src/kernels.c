/* Which table: on x86 and on aarch64 with Linux the best that the processor has, asked whenever a model is opened;
 * elsewhere what the build is for. A table whose instructions the build does not know is not there. */
#include "kernels_tables.h"
#if defined(EHMN_ASK_X86)
#include "vectors_x86.h"
#endif

#include <stddef.h>

#if defined(EHMN_ASK_X86)

static const ehmn_kernels *const tables[] = {
    &ehmn_kernels_ref, &ehmn_kernels_rows, &ehmn_kernels_avx2, &ehmn_kernels_vnni,
#if defined(EHMN_AMX)
    &ehmn_kernels_amx,
#endif
};

#if defined(EHMN_AMX) && defined(__linux__)
#define SYS_arch_prctl 158l
#define ARCH_REQ_XCOMP_PERM 0x1023l
#define XFEATURE_XTILEDATA 18l

/* A process must ask Linux once before it, and any of its threads, may use tiles; asking again is cheap. */
static int has_tiles(void)
{
    long refused;
    if (!__builtin_cpu_supports("amx-int8")) {
        return 0;
    }
    __asm__ volatile("syscall"
                     : "=a"(refused)
                     : "0"(SYS_arch_prctl), "D"(ARCH_REQ_XCOMP_PERM), "S"(XFEATURE_XTILEDATA)
                     : "rcx", "r11", "memory");
    return refused == 0;
}
#else
static int has_tiles(void)
{
    return 0;
}
#endif

#define TABLES (sizeof tables / sizeof *tables)

/* Whether this processor can run a table: if it can, it can run those before it. Linux is asked for the last alone. */
static int runs(uint32_t index)
{
    __builtin_cpu_init();
    return index < 2u || (index == 2u && __builtin_cpu_supports("avx2")) || (index == 3u && EHMN_HAS_AVX512)
           || (index == 4u && EHMN_HAS_AVX512 && has_tiles());
}

const ehmn_kernels *ehmn_kernel_table(uint32_t index)
{
    return index < TABLES && runs(index) ? tables[index] : NULL;
}

const ehmn_kernels *ehmn_best_kernels(void)
{
    uint32_t index = TABLES - 1u;
    while (!runs(index)) {
        index--;
    }
    return tables[index];
}

#elif defined(EHMN_ASK_AARCH64)

#define AT_HWCAP 16ul
#define AT_HWCAP2 26ul
#define HWCAP_ASIMDDP (1ul << 20)
#define HWCAP2_I8MM (1ul << 13)

unsigned long getauxval(unsigned long type); /* of the C library of Linux */

static const ehmn_kernels *const tables[] = {
    &ehmn_kernels_ref, &ehmn_kernels_neon, &ehmn_kernels_dot,
#if defined(EHMN_I8MM)
    &ehmn_kernels_mmla,
#endif
};

#define TABLES ((uint32_t)(sizeof tables / sizeof *tables))

static uint32_t runnable(void)
{
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) == 0) {
        return 2u;
    }
    return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0 ? TABLES : 3u;
}

const ehmn_kernels *ehmn_kernel_table(uint32_t index)
{
    return index < runnable() ? tables[index] : NULL;
}

const ehmn_kernels *ehmn_best_kernels(void)
{
    return tables[runnable() - 1u];
}

#else

#if defined(EHMN_MVE)
#define BEST ehmn_kernels_mve
#elif defined(EHMN_ARM_DSP)
#define BEST ehmn_kernels_dsp
#elif defined(EHMN_THUMB)
#define BEST ehmn_kernels_thumb
#elif defined(EHMN_I8MM)
#define BEST ehmn_kernels_mmla
#elif defined(EHMN_NEON) && defined(__ARM_FEATURE_DOTPROD)
#define BEST ehmn_kernels_dot
#elif defined(EHMN_NEON)
#define BEST ehmn_kernels_neon
#else
#define BEST ehmn_kernels_rows
#endif

const ehmn_kernels *ehmn_kernel_table(uint32_t index)
{
    return index == 0 ? &ehmn_kernels_ref : index == 1 ? &BEST : NULL;
}

/* Not read from a table of tables, so that firmware holds one. */
const ehmn_kernels *ehmn_best_kernels(void)
{
    return &BEST;
}

#endif
