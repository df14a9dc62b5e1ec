/* The counter of the core's clock cycles (Armv7-M Architecture Reference Manual, C1.6.5 and C1.8.7; the same in
 * Armv8-M): 32 bits, so BOARD_TICK_HZ is the clock of the core. */
#include "peripherals.h"

#define DEMCR REGISTER(0xE000EDFC)
#define DEMCR_TRCENA (1u << 24)
#define DWT_CTRL REGISTER(0xE0001000)
#define DWT_CYCCNT REGISTER(0xE0001004)
#define DWT_LAR REGISTER(0xE0001FB0) /* a lock that the Cortex-M7 has and the others ignore */
#define LAR_KEY 0xC5ACCE55u
#define CTRL_CYCCNTENA 1u

void timer_start(void)
{
    DEMCR |= DEMCR_TRCENA;
    DWT_LAR = LAR_KEY;
    DWT_CTRL |= CTRL_CYCCNTENA;
    DWT_CYCCNT = 0;
}

uint32_t timer_read(void)
{
    return DWT_CYCCNT;
}
