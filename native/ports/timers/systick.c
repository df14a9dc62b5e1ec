/* The timer that every Cortex-M has (Armv7-M Architecture Reference Manual, B3.3), for emulated chips that lack the
 * cycle counter. */
#include "peripherals.h"

#define SYST_CSR REGISTER(0xE000E010)
#define SYST_RVR REGISTER(0xE000E014)
#define SYST_CVR REGISTER(0xE000E018)
#define CSR_ENABLE 1u       /* counts with the reference clock, an eighth of the core's: RM0090, 10.1.3 */
#define SYST_MAX 0xFFFFFFu  /* 24 bits: 0.8 s, or as many instructions as a megabyte of weights cannot need */

void timer_start(void)
{
    SYST_RVR = SYST_MAX;
    SYST_CSR = CSR_ENABLE;
    SYST_CVR = 0; /* any value clears it, and the next tick loads SYST_MAX */
}

uint32_t timer_read(void)
{
    return (SYST_MAX - SYST_CVR) & SYST_MAX; /* it counts down */
}
