/* The UART of Arm's Cortex-M System Design Kit (technical reference manual DDI 0479, 4.3), as in the MPS2 and its
 * emulation. */
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

void peripherals_start(void)
{
    UART_BAUDDIV = BOARD_UART_CLOCK_HZ / BOARD_BAUD;
    UART_CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE | CTRL_RX_INTERRUPT;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
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
