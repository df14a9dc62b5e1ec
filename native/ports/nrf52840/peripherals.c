/* Clock and UART of the nRF52840 (product specification 1.7 or later: 5.4.3, 6.9 and 6.34). The core always runs at
 * 64 MHz; the crystal makes that exact enough for the line. The UART without DMA holds six bytes, and says of each byte
 * that it has come or gone. */
#include "peripherals.h"

#include "board.h"
#include "nrf52840/debug_port.h"

#define CLOCK_HFCLKSTART REGISTER(0x40000000)
#define CLOCK_HFCLKSTARTED REGISTER(0x40000100)

#define GPIO_OUTSET REGISTER(BOARD_UART_PORT_ADDRESS + 0x508)
#define GPIO_PIN_CNF(n) REGISTER(BOARD_UART_PORT_ADDRESS + 0x700 + 4u * (n))
#define PIN_CNF_OUTPUT 3u        /* its own level is not read back */
#define PIN_CNF_INPUT_PULL_UP 0xCu /* so that an open line is idle */

#define UART_STARTRX REGISTER(BOARD_UART_ADDRESS + 0x000)
#define UART_STARTTX REGISTER(BOARD_UART_ADDRESS + 0x008)
#define UART_RXDRDY REGISTER(BOARD_UART_ADDRESS + 0x108)
#define UART_TXDRDY REGISTER(BOARD_UART_ADDRESS + 0x11C)
#define UART_INTENSET REGISTER(BOARD_UART_ADDRESS + 0x304)
#define UART_ENABLE REGISTER(BOARD_UART_ADDRESS + 0x500)
#define UART_PSEL_RTS REGISTER(BOARD_UART_ADDRESS + 0x508)
#define UART_PSEL_TXD REGISTER(BOARD_UART_ADDRESS + 0x50C)
#define UART_PSEL_CTS REGISTER(BOARD_UART_ADDRESS + 0x510)
#define UART_PSEL_RXD REGISTER(BOARD_UART_ADDRESS + 0x514)
#define UART_RXD REGISTER(BOARD_UART_ADDRESS + 0x518)
#define UART_TXD REGISTER(BOARD_UART_ADDRESS + 0x51C)
#define UART_BAUDRATE REGISTER(BOARD_UART_ADDRESS + 0x524)
#define UART_CONFIG REGISTER(BOARD_UART_ADDRESS + 0x56C)
#define INT_RXDRDY 4u
#define ENABLE_UART 4u
#define NO_PIN 0xFFFFFFFFu
#define BAUDRATE_115200 0x01D7E000u
#define CONFIG_PLAIN 0u /* no flow control, no parity, one stop bit */

#define NVMC_ICACHECNF REGISTER(0x4001E540)
#define ICACHECNF_ON 1u

_Static_assert(BOARD_BAUD == 115200, "the rate is given by a code: 6.34.9");

static int sending; /* a byte is on its way, and its TXDRDY is still to come */

void clock_start(void)
{
    CLOCK_HFCLKSTARTED = 0;
    CLOCK_HFCLKSTART = 1;
    while (CLOCK_HFCLKSTARTED == 0) {
    }
}

void peripherals_start(void)
{
    clock_start();
    NVMC_ICACHECNF = ICACHECNF_ON;
    GPIO_OUTSET = 1u << BOARD_UART_SEND_PIN; /* high before it is an output: no half byte is sent */
    GPIO_PIN_CNF(BOARD_UART_SEND_PIN) = PIN_CNF_OUTPUT;
    GPIO_PIN_CNF(BOARD_UART_RECEIVE_PIN) = PIN_CNF_INPUT_PULL_UP;
    UART_PSEL_RTS = NO_PIN;
    UART_PSEL_CTS = NO_PIN;
    UART_PSEL_TXD = BOARD_UART_SEND_PIN;
    UART_PSEL_RXD = BOARD_UART_RECEIVE_PIN;
    UART_BAUDRATE = BAUDRATE_115200;
    UART_CONFIG = CONFIG_PLAIN;
    UART_ENABLE = ENABLE_UART;
    UART_RXDRDY = 0;
    UART_TXDRDY = 0;
    UART_INTENSET = INT_RXDRDY;
    UART_STARTRX = 1;
    UART_STARTTX = 1;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
    debug_port_open();
}

/* The event is cleared before the byte is taken: taking it makes the next one, if bytes wait. The interrupt is cleared
 * before looking: one that comes later ends the sleep. */
uint8_t uart_read(void)
{
    for (;;) {
        NVIC_CLEAR_PENDING(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
        if (UART_RXDRDY) {
            UART_RXDRDY = 0;
            (void)UART_RXDRDY; /* so that the event is cleared before what follows: 6.1.8 */
            return (uint8_t)UART_RXD;
        }
        wait_for_interrupt();
    }
}

void uart_write(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0; i < count; i++) {
        uart_drain();
        UART_TXDRDY = 0;
        UART_TXD = p[i];
        sending = 1;
    }
}

void uart_drain(void)
{
    while (sending && !UART_TXDRDY) {
    }
    sending = 0;
}
