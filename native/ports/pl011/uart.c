/* Arm's UART PL011 (technical reference manual DDI 0183, 3.3), which chips of many makers have, with its FIFOs. */
#include "pl011/uart.h"

#include "board.h"
#include "peripherals.h"

#define UART_DR REGISTER(BOARD_UART_ADDRESS + 0x00)
#define UART_FR REGISTER(BOARD_UART_ADDRESS + 0x18)
#define UART_IBRD REGISTER(BOARD_UART_ADDRESS + 0x24)
#define UART_FBRD REGISTER(BOARD_UART_ADDRESS + 0x28)
#define UART_LCR_H REGISTER(BOARD_UART_ADDRESS + 0x2C)
#define UART_CR REGISTER(BOARD_UART_ADDRESS + 0x30)
#define UART_IMSC REGISTER(BOARD_UART_ADDRESS + 0x38)
#define UART_ICR REGISTER(BOARD_UART_ADDRESS + 0x44)
#define FR_BUSY 0x08u
#define FR_NOTHING_RECEIVED 0x10u
#define FR_SEND_FULL 0x20u
#define LCR_H_8_BITS_FIFO 0x70u
#define CR_ENABLE 0x301u       /* UART, transmitter and receiver */
#define INT_RECEIVED 0x50u     /* the FIFO fills, or bytes wait in it while the line is silent */

#define DIVISOR_64 ((BOARD_UART_CLOCK_HZ * 4u + BOARD_BAUD / 2u) / BOARD_BAUD) /* of the clock, in 64ths of 16 */

void uart_start(void)
{
    UART_IBRD = DIVISOR_64 / 64u;
    UART_FBRD = DIVISOR_64 % 64u;
    UART_LCR_H = LCR_H_8_BITS_FIFO; /* after the divisors, which it makes count */
    UART_IMSC = INT_RECEIVED;
    UART_CR = CR_ENABLE;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
}

/* The interrupt is cleared before looking: one that comes later ends the sleep. */
uint8_t uart_read(void)
{
    for (;;) {
        UART_ICR = INT_RECEIVED;
        NVIC_CLEAR_PENDING(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
        if (!(UART_FR & FR_NOTHING_RECEIVED)) {
            return (uint8_t)UART_DR;
        }
        wait_for_interrupt();
    }
}

void uart_write(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0; i < count; i++) {
        while (UART_FR & FR_SEND_FULL) {
        }
        UART_DR = p[i];
    }
}

void uart_drain(void)
{
    while (UART_FR & FR_BUSY) {
    }
}
