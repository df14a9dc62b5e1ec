/* Resets of the RP2350's parts (data sheet, 7.5). */
#ifndef EHMN_RP2350_RESETS_H
#define EHMN_RP2350_RESETS_H

#include "peripherals.h"

#define RESETS_RESET REGISTER(0x40020000)
#define RESETS_DONE REGISTER(0x40020008)
#define RESET_IO_BANK0 (1u << 6)
#define RESET_PADS_BANK0 (1u << 9)
#define RESET_PLL_SYS (1u << 14)
#define RESET_UART0 (1u << 26)

/* Let parts run that may be held. */
static inline void release_block(uint32_t parts)
{
    RESETS_RESET &= ~parts;
    while ((RESETS_DONE & parts) != parts) {
    }
}

/* Set parts back to what they are at power-on, and let them run. */
static inline void reset_block(uint32_t parts)
{
    RESETS_RESET |= parts;
    release_block(parts);
}

#endif
