/* Supply and clocks of the STM32H743 (reference manual RM0433, 4.3.8, 6.4.1, 6.8, 8.5 and 8.7): the core's at
 * BOARD_TICK_HZ, the buses' at half of it, the peripherals' at a quarter. From the clock that the debugger gives, or
 * from the oscillator within if there is none, so that the line works at any rate. */
#include "peripherals.h"

#include "board.h"

#define PWR_CSR1 REGISTER(0x58024804)
#define PWR_CR3 REGISTER(0x5802480C)
#define PWR_D3CR REGISTER(0x58024818)
#define CR3_LDO 2u /* the chip's own regulator, and nothing else; the first write after power-on counts */
#define CSR1_READY (1u << 13)
#define D3CR_SCALE_1 (3u << 14) /* 400 MHz at most, on chips of every revision */
#define D3CR_READY (1u << 13)

#define FLASH_ACR REGISTER(0x52002000)
#define ACR_FIELDS 0x3Fu
#define ACR_WAITS 0x22u /* 2 wait states and 2 for the programming delay: above 185 MHz at scale 1 */

#define RCC_CR REGISTER(0x58024400)
#define RCC_CFGR REGISTER(0x58024410)
#define RCC_D1CFGR REGISTER(0x58024418)
#define RCC_D2CFGR REGISTER(0x5802441C)
#define RCC_D3CFGR REGISTER(0x58024420)
#define RCC_PLLCKSELR REGISTER(0x58024428)
#define RCC_PLLCFGR REGISTER(0x5802442C)
#define RCC_PLL1DIVR REGISTER(0x58024430)
#define CR_HSI_ON 1u
#define CR_HSI_READY 4u
#define CR_HSI_DIVIDER (3u << 3)
#define CR_HSE_ON (1u << 16)
#define CR_HSE_READY (1u << 17)
#define CR_HSE_BYPASS (1u << 18)
#define CR_PLL1_ON (1u << 24)
#define CR_PLL1_READY (1u << 25)
#define D1CFGR_HALVES (8u | 4u << 4) /* AXI and AHB at half of the core's clock, APB3 at half of that */
#define D2CFGR_HALVES (4u << 4 | 4u << 8)
#define D3CFGR_HALVES (4u << 4)
#define PLLCKSELR_SOURCE 3u
#define PLLCKSELR_HSE 2u
#define PLLCKSELR_M1(n) ((n) << 4)
#define PLLCFGR_PLL1 0xFu
#define PLLCFGR_4_TO_8_MHZ (2u << 2) /* with the wide range of the oscillator, and no fraction */
#define CFGR_PLL1 3u
#define CFGR_STATUS(n) ((n) << 3)

#define HSI_HZ 64000000u
#define REFERENCE_HZ 4000000u /* of the PLL */
#define PLL_P 2u
#define PLL_N (PLL_P * (BOARD_TICK_HZ / REFERENCE_HZ))
#define HSE_PATIENCE 200000u /* looks at the clock from outside: tens of ms, and it takes a few */

_Static_assert(BOARD_CRYSTAL_HZ % REFERENCE_HZ == 0, "the clock is no multiple of the PLL's reference");
_Static_assert(BOARD_TICK_HZ % REFERENCE_HZ == 0 && BOARD_TICK_HZ <= 400000000, "the core's clock cannot be made");
_Static_assert(PLL_N * REFERENCE_HZ >= 192000000u && PLL_N * REFERENCE_HZ <= 836000000u, "range of the oscillator");
_Static_assert(BOARD_UART_CLOCK_HZ == BOARD_TICK_HZ / 4, "APB1");

/* The boot loader in the chip's ROM starts programs with its own clocks, and the PLL cannot change while it is on. */
static void begin_as_after_reset(void)
{
    RCC_CR = (RCC_CR & ~CR_HSI_DIVIDER) | CR_HSI_ON;
    while (!(RCC_CR & CR_HSI_READY)) {
    }
    RCC_CFGR = 0;
    while (RCC_CFGR & CFGR_STATUS(7u)) {
    }
    RCC_CR &= ~CR_PLL1_ON;
    while (RCC_CR & CR_PLL1_READY) {
    }
}

static void supply(void)
{
    PWR_CR3 = CR3_LDO;
    while (!(PWR_CSR1 & CSR1_READY)) {
    }
    PWR_D3CR = D3CR_SCALE_1;
    while (!(PWR_D3CR & D3CR_READY)) {
    }
}

static int clock_from_outside(void)
{
    RCC_CR |= CR_HSE_BYPASS;
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
    supply();
    FLASH_ACR = ACR_WAITS;
    while ((FLASH_ACR & ACR_FIELDS) != ACR_WAITS) {
    }
    uint32_t source = clock_from_outside() ? PLLCKSELR_HSE | PLLCKSELR_M1(BOARD_CRYSTAL_HZ / REFERENCE_HZ)
                                           : PLLCKSELR_M1(HSI_HZ / REFERENCE_HZ);
    RCC_PLLCKSELR = (RCC_PLLCKSELR & ~(PLLCKSELR_SOURCE | PLLCKSELR_M1(0x3Fu))) | source;
    RCC_PLLCFGR = (RCC_PLLCFGR & ~PLLCFGR_PLL1) | PLLCFGR_4_TO_8_MHZ;
    RCC_PLL1DIVR = (PLL_N - 1u) | (PLL_P - 1u) << 9 | (PLL_P - 1u) << 16 | (PLL_P - 1u) << 24;
    RCC_CR |= CR_PLL1_ON;
    while (!(RCC_CR & CR_PLL1_READY)) {
    }
    RCC_D1CFGR = D1CFGR_HALVES;
    RCC_D2CFGR = D2CFGR_HALVES;
    RCC_D3CFGR = D3CFGR_HALVES;
    RCC_CFGR = CFGR_PLL1;
    while ((RCC_CFGR & CFGR_STATUS(7u)) != CFGR_STATUS(CFGR_PLL1)) {
    }
}
