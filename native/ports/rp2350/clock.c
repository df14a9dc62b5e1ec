/* The clocks of the RP2350 (data sheet, 8.1, 8.2 and 8.6): the board's crystal as reference, and the system PLL from it
 * for core and peripherals, at BOARD_TICK_HZ. */
#include "peripherals.h"

#include "board.h"
#include "rp2350/resets.h"

#define XOSC_CTRL REGISTER(0x40048000)
#define XOSC_STATUS REGISTER(0x40048004)
#define XOSC_STARTUP REGISTER(0x4004800C)
#define CTRL_ENABLE (0xFABu << 12)
#define CTRL_1_TO_15_MHZ 0xAA0u
#define STATUS_STABLE (1u << 31)
#define STARTUP_DELAY ((BOARD_CRYSTAL_HZ / 1000u + 255u) / 256u) /* 1 ms, in units of 256 periods */

#define CLK_REF_CTRL REGISTER(0x40010030)
#define CLK_REF_DIV REGISTER(0x40010034)
#define CLK_REF_SELECTED REGISTER(0x40010038)
#define CLK_SYS_CTRL REGISTER(0x4001003C)
#define CLK_SYS_DIV REGISTER(0x40010040)
#define CLK_SYS_SELECTED REGISTER(0x40010044)
#define CLK_PERI_CTRL REGISTER(0x40010048)
#define CLK_PERI_DIV REGISTER(0x4001004C)
#define DIV_1 (1u << 16)
#define REF_CRYSTAL 2u
#define SYS_REF 0u
#define SYS_AUXILIARY 1u /* and its source, 0 in bits 5 to 7, is the system PLL */
#define PERI_ENABLE (1u << 11) /* source 0: the system clock */

#define PLL_CS REGISTER(0x40050000)
#define PLL_PWR REGISTER(0x40050004)
#define PLL_FBDIV REGISTER(0x40050008)
#define PLL_PRIM REGISTER(0x4005000C)
#define CS_LOCK (1u << 31)
#define CS_REFERENCE_DIVIDER 1u
#define PWR_DSM_OFF 4u      /* nothing is achieved by having it on */
#define PWR_DIVIDER_OFF 8u
#define POST_1 5u
#define POST_2 2u
#define OSCILLATOR_HZ (BOARD_TICK_HZ * POST_1 * POST_2)

_Static_assert(BOARD_CRYSTAL_HZ >= 5000000 && BOARD_CRYSTAL_HZ <= 15000000, "range of the crystal");
_Static_assert(BOARD_TICK_HZ <= 150000000, "the core's clock");
_Static_assert(OSCILLATOR_HZ >= 750000000u && OSCILLATOR_HZ <= 1600000000u, "range of the oscillator");
_Static_assert(OSCILLATOR_HZ % BOARD_CRYSTAL_HZ == 0, "the core's clock cannot be made from the crystal");

void clock_start(void)
{
    XOSC_CTRL = CTRL_1_TO_15_MHZ;
    XOSC_STARTUP = STARTUP_DELAY;
    XOSC_CTRL = CTRL_ENABLE | CTRL_1_TO_15_MHZ;
    while (!(XOSC_STATUS & STATUS_STABLE)) {
    }
    CLK_REF_DIV = DIV_1;
    CLK_REF_CTRL = REF_CRYSTAL;
    while (CLK_REF_SELECTED != 1u << REF_CRYSTAL) {
    }
    CLK_SYS_CTRL = SYS_REF; /* away from the PLL, which may run if only the core was reset */
    while (CLK_SYS_SELECTED != 1u << SYS_REF) {
    }
    reset_block(RESET_PLL_SYS);
    PLL_CS = CS_REFERENCE_DIVIDER;
    PLL_FBDIV = OSCILLATOR_HZ / BOARD_CRYSTAL_HZ;
    PLL_PWR = PWR_DSM_OFF | PWR_DIVIDER_OFF;
    while (!(PLL_CS & CS_LOCK)) {
    }
    PLL_PRIM = POST_1 << 16 | POST_2 << 12;
    PLL_PWR = PWR_DSM_OFF;
    CLK_SYS_DIV = DIV_1;
    CLK_SYS_CTRL = SYS_AUXILIARY;
    while (CLK_SYS_SELECTED != 1u << SYS_AUXILIARY) {
    }
    CLK_PERI_DIV = DIV_1;
    CLK_PERI_CTRL = PERI_ENABLE;
}
