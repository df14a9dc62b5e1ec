/* From reset to main, and from any fault back to reset: the host sees that its session is over. */
#include "startup.h"

#include <string.h>

/* Defined by the linker script. */
extern uint32_t stack_end[];
extern uint8_t data_load[], data_start[], data_end[], bss_start[], bss_end[];

/* Armv7-M Architecture Reference Manual, B3.2.6: Application Interrupt and Reset Control Register. */
#define VTOR (*(volatile uint32_t *)0xE000ED08u) /* B3.2.5 */
#define AIRCR (*(volatile uint32_t *)0xE000ED0Cu)
#define AIRCR_KEY 0x05FA0000u
#define AIRCR_SYSRESETREQ 0x00000004u

/* Armv8-M Architecture Reference Manual, D1.2: access to the floating-point unit, which vectors of integers need, too;
 * and loops whose end the core remembers. */
#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU 0x00F00000u
#define CCR (*(volatile uint32_t *)0xE000ED14u)
#define CCR_LOB 0x00080000u

#define FIRST_HANDLERS 15u /* reset, NMI, faults and system handlers; interrupts are never unmasked */

typedef struct {
    uint32_t *stack;
    void (*handlers[FIRST_HANDLERS])(void);
} vector_table;

void reset(void);

__attribute__((section(".vectors"), used)) static const vector_table vectors = {
    stack_end,
    {reset, system_reset, system_reset, system_reset, system_reset, system_reset, system_reset, system_reset,
     system_reset, system_reset, system_reset, system_reset, system_reset, system_reset, system_reset},
};

void system_reset(void)
{
    __asm__ volatile("dsb" ::: "memory");
    AIRCR = AIRCR_KEY | AIRCR_SYSRESETREQ;
    for (;;) {
        __asm__ volatile("dsb" ::: "memory");
    }
}

void reset(void)
{
    __asm__ volatile("cpsid i" ::: "memory");
    VTOR = (uint32_t)(uintptr_t)&vectors; /* a boot loader may have left its own */
#if defined(__ARM_FEATURE_MVE)
    CPACR |= CPACR_FPU;
    CCR |= CCR_LOB;
    __asm__ volatile("dsb\n\tisb" ::: "memory"); /* what follows may be compiled to vectors */
#endif
    memcpy(data_start, data_load, (uintptr_t)data_end - (uintptr_t)data_start);
    memset(bss_start, 0, (uintptr_t)bss_end - (uintptr_t)bss_start);
    main();
    system_reset();
}
