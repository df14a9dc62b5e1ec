/* The timer that every Cortex-M has (Armv7-M Architecture Reference Manual, B3.3), for chips without the cycle counter:
 * it counts the core's clock, so that is BOARD_TICK_HZ, and begins anew after 2^24 cycles, which no token may take. */
#include "peripherals.h"

#define SYST_CSR REGISTER(0xE000E010)
#define SYST_RVR REGISTER(0xE000E014)
#define SYST_CVR REGISTER(0xE000E018)
#define CSR_ENABLE 5u /* with the core's clock, without an interrupt */
#define SYST_MAX 0xFFFFFFu

void timer_start(void)
{
    SYST_RVR = SYST_MAX;
    SYST_CSR = CSR_ENABLE;
    SYST_CVR = 0; /* the next tick loads SYST_MAX */
}

uint32_t timer_read(void)
{
    return (0u - SYST_CVR) & SYST_MAX; /* it counts down, and is 0 until the first tick */
}
