/* The UART and the timer of Arm's Cortex-M System Design Kit (technical reference manual DDI 0479, 4.2 and 4.3), as in
 * the MPS2 and its emulation. A board that has that UART but no such timer counts with the one that every Cortex-M has
 * (Armv7-M Architecture Reference Manual, B3.3). */
#include "peripherals.h"

#include "board.h"

#define UART_DATA REGISTER(BOARD_UART_ADDRESS + 0x00)
#define UART_STATE REGISTER(BOARD_UART_ADDRESS + 0x04)
#define UART_CTRL REGISTER(BOARD_UART_ADDRESS + 0x08)
#define UART_INTCLEAR REGISTER(BOARD_UART_ADDRESS + 0x0C)
#define UART_BAUDDIV REGISTER(BOARD_UART_ADDRESS + 0x10)
#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CTRL_TX_ENABLE 1u
#define CTRL_RX_ENABLE 2u
#define CTRL_RX_INTERRUPT 8u
#define INT_RX 2u

#if defined(BOARD_TIMER_ADDRESS)
#define TIMER_CTRL REGISTER(BOARD_TIMER_ADDRESS + 0x00)
#define TIMER_VALUE REGISTER(BOARD_TIMER_ADDRESS + 0x04)
#define TIMER_RELOAD REGISTER(BOARD_TIMER_ADDRESS + 0x08)
#define TIMER_MAX UINT32_MAX
#define TIMER_START 1u
#else
#define TIMER_CTRL REGISTER(0xE000E010)
#define TIMER_RELOAD REGISTER(0xE000E014)
#define TIMER_VALUE REGISTER(0xE000E018) /* any value written clears it, and the next tick loads TIMER_MAX */
#define TIMER_MAX 0xFFFFFFu              /* 24 bits: half a second of the emulated board */
#define TIMER_START 5u                   /* with the core's clock */
#endif

void peripherals_start(void)
{
    TIMER_RELOAD = TIMER_MAX;
    TIMER_CTRL = TIMER_START;
    UART_BAUDDIV = BOARD_UART_CLOCK_HZ / BOARD_BAUD;
    UART_CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE | CTRL_RX_INTERRUPT;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
}

void timer_start(void)
{
    TIMER_VALUE = TIMER_MAX;
}

uint32_t timer_read(void)
{
    return (TIMER_MAX - TIMER_VALUE) & TIMER_MAX; /* it counts down */
}

/* The interrupt is cleared before looking: one that comes later ends the sleep. */
uint8_t uart_read(void)
{
    for (;;) {
        UART_INTCLEAR = INT_RX;
        NVIC_CLEAR_PENDING(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
        if (UART_STATE & STATE_RX_FULL) {
            return (uint8_t)UART_DATA;
        }
        wait_for_interrupt();
    }
}

void uart_write(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0; i < count; i++) {
        uart_drain();
        UART_DATA = p[i];
    }
}

void uart_drain(void)
{
    while (UART_STATE & STATE_TX_FULL) {
    }
}
