/* UART0 of the RP2350 (data sheet, 12.1), a PL011 with FIFOs of 32 bytes, on GPIO0 and GPIO1 (9.3, 9.4 and 9.11). */
#include "peripherals.h"

#include "board.h"
#include "pl011/uart.h"
#include "rp2350/resets.h"

#define GPIO_CTRL(n) REGISTER(0x40028004 + 8u * (n))
#define PAD(n) REGISTER(0x40038004 + 4u * (n))
#define FUNCTION_UART 2u
#define PAD_INPUT_PULL_UP 0x5Au /* input on, pull-up, 4 mA, hysteresis; no isolation */

_Static_assert(BOARD_UART_CLOCK_HZ == BOARD_TICK_HZ, "the peripherals have the core's clock");

void peripherals_start(void)
{
    clock_start();
    release_block(RESET_IO_BANK0 | RESET_PADS_BANK0);
    reset_block(RESET_UART0);
    PAD(BOARD_UART_SEND_PIN) = PAD_INPUT_PULL_UP;
    PAD(BOARD_UART_RECEIVE_PIN) = PAD_INPUT_PULL_UP;
    uart_start();
    GPIO_CTRL(BOARD_UART_SEND_PIN) = FUNCTION_UART;
    GPIO_CTRL(BOARD_UART_RECEIVE_PIN) = FUNCTION_UART;
}
