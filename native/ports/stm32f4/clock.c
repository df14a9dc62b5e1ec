/* The clocks of the STM32F405 (reference manual RM0090, 3.5.1, 5.4.1, 7.2, 7.3): the core's at BOARD_TICK_HZ from the
 * board's crystal, or from the oscillator within if the crystal does not start, so that the line works at any rate. */
#include "peripherals.h"

#include "board.h"

#define RCC_CR REGISTER(0x40023800)
#define RCC_PLLCFGR REGISTER(0x40023804)
#define RCC_CFGR REGISTER(0x40023808)
#define CR_HSI_ON 1u
#define CR_HSI_READY 2u
#define CR_HSE_ON (1u << 16)
#define CR_HSE_READY (1u << 17)
#define CR_PLL_ON (1u << 24)
#define CR_PLL_READY (1u << 25)
#define PLLCFGR_HSE (1u << 22)
#define CFGR_PLL 2u           /* the core's clock is that of the PLL */
#define CFGR_STATUS (3u << 2) /* which it is now */
#define CFGR_STATUS_PLL (2u << 2)
#define CFGR_BUSES (5u << 10 | 4u << 13) /* APB1 at a quarter, APB2 at half of the core's */

#define FLASH_ACR REGISTER(0x40023C00)
#define ACR_WAITS 5u /* above 150 MHz, at 2.7 V or more */
#define ACR_PREFETCH (1u << 8)
#define ACR_CACHES (3u << 9)

#define HSI_HZ 16000000u
#define REFERENCE_HZ 2000000u /* of the PLL; 2 MHz has the least jitter */
#define PLL_P 2u              /* what its oscillator is divided by for the core; the field is half of it, less one */
#define PLL_N (PLL_P * BOARD_TICK_HZ / REFERENCE_HZ)
#define PLL_Q (PLL_N * REFERENCE_HZ / 48000000u) /* for a USB that nobody uses, but 2 at least */
#define HSE_PATIENCE 200000u                     /* looks at the crystal: 0.1 s or more, and it takes a few ms */

_Static_assert(BOARD_CRYSTAL_HZ % REFERENCE_HZ == 0, "the crystal is no multiple of the PLL's reference");
_Static_assert(PLL_N >= 50u && PLL_N <= 216u && BOARD_TICK_HZ <= 168000000, "the PLL reaches 432 MHz at most");
_Static_assert(BOARD_UART_CLOCK_HZ == BOARD_TICK_HZ / 4 || BOARD_UART_CLOCK_HZ == BOARD_TICK_HZ / 2, "APB1 or APB2");

/* The boot loader in the chip's ROM starts programs with its own clocks, and the PLL cannot change while it is on. */
static void begin_as_after_reset(void)
{
    RCC_CR |= CR_HSI_ON;
    while (!(RCC_CR & CR_HSI_READY)) {
    }
    RCC_CFGR = 0;
    while (RCC_CFGR & CFGR_STATUS) {
    }
    RCC_CR &= ~CR_PLL_ON;
    while (RCC_CR & CR_PLL_READY) {
    }
}

static int crystal_runs(void)
{
    RCC_CR |= CR_HSE_ON;
    for (uint32_t i = 0; i < HSE_PATIENCE; i++) {
        if (RCC_CR & CR_HSE_READY) {
            return 1;
        }
    }
    return 0;
}

void clock_start(void)
{
    begin_as_after_reset();
    uint32_t source = crystal_runs() ? PLLCFGR_HSE | BOARD_CRYSTAL_HZ / REFERENCE_HZ : HSI_HZ / REFERENCE_HZ;
    RCC_PLLCFGR = source | PLL_N << 6 | (PLL_P / 2u - 1u) << 16 | PLL_Q << 24;
    RCC_CR |= CR_PLL_ON;
    while (!(RCC_CR & CR_PLL_READY)) {
    }
    FLASH_ACR = ACR_WAITS | ACR_PREFETCH | ACR_CACHES;
    while ((FLASH_ACR & 7u) != ACR_WAITS) {
    }
    RCC_CFGR = CFGR_BUSES;
    RCC_CFGR = CFGR_BUSES | CFGR_PLL;
    while ((RCC_CFGR & CFGR_STATUS) != CFGR_STATUS_PLL) {
    }
}
