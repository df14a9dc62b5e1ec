/* The USART of the STM32F4 (reference manual RM0090, 30.6), on pins PA9 and PA10, and the timer that every Cortex-M
 * has (Armv7-M Architecture Reference Manual, B3.3). The clocks stay as reset leaves them: 16 MHz, from within. */
#include "peripherals.h"

#include "board.h"

#define RCC_AHB1ENR REGISTER(0x40023830) /* RM0090, 7.3 */
#define RCC_APB2ENR REGISTER(0x40023844)
#define AHB1_GPIOA 0x1u
#define APB2_USART1 0x10u

#define GPIOA_MODER REGISTER(0x40020000) /* RM0090, 8.4: two bits for each pin, 2 is "alternate function" */
#define GPIOA_AFRH REGISTER(0x40020024)  /* four bits for each of the pins 8 to 15: 7 is the USART */
#define MODER_PINS_9_10 (0xFu << 18)
#define MODER_ALTERNATE (0xAu << 18)
#define AFRH_PINS_9_10 (0xFFu << 4)
#define AFRH_USART (0x77u << 4)

#define USART_SR REGISTER(BOARD_UART_ADDRESS + 0x00)
#define USART_DR REGISTER(BOARD_UART_ADDRESS + 0x04)
#define USART_BRR REGISTER(BOARD_UART_ADDRESS + 0x08)
#define USART_CR1 REGISTER(BOARD_UART_ADDRESS + 0x0C)
#define SR_RECEIVED 0x20u
#define SR_COMPLETE 0x40u
#define SR_EMPTY 0x80u
#define CR1_RECEIVE 0x4u
#define CR1_TRANSMIT 0x8u
#define CR1_RECEIVED_INTERRUPT 0x20u
#define CR1_ENABLE 0x2000u

#define SYST_CSR REGISTER(0xE000E010)
#define SYST_RVR REGISTER(0xE000E014)
#define SYST_CVR REGISTER(0xE000E018)
#define CSR_ENABLE 1u       /* counts with the reference clock, an eighth of the core's: RM0090, 10.1.3 */
#define SYST_MAX 0xFFFFFFu  /* 24 bits: 0.8 s, or as many instructions as a megabyte of weights cannot need */

void peripherals_start(void)
{
    SYST_RVR = SYST_MAX;
    SYST_CSR = CSR_ENABLE;
    RCC_AHB1ENR |= AHB1_GPIOA;
    RCC_APB2ENR |= APB2_USART1;
    GPIOA_AFRH = (GPIOA_AFRH & ~AFRH_PINS_9_10) | AFRH_USART;
    GPIOA_MODER = (GPIOA_MODER & ~MODER_PINS_9_10) | MODER_ALTERNATE;
    USART_BRR = BOARD_UART_CLOCK_HZ / BOARD_BAUD;
    USART_CR1 = CR1_ENABLE | CR1_RECEIVED_INTERRUPT | CR1_TRANSMIT | CR1_RECEIVE;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
}

void timer_start(void)
{
    SYST_CVR = 0; /* any value clears it, and the next tick loads SYST_MAX */
}

uint32_t timer_read(void)
{
    return (SYST_MAX - SYST_CVR) & SYST_MAX; /* it counts down */
}

/* The interrupt is cleared before looking: one that comes later ends the sleep. */
uint8_t uart_read(void)
{
    for (;;) {
        NVIC_CLEAR_PENDING(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
        if (USART_SR & SR_RECEIVED) {
            return (uint8_t)USART_DR;
        }
        wait_for_interrupt();
    }
}

void uart_write(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0; i < count; i++) {
        while (!(USART_SR & SR_EMPTY)) {
        }
        USART_DR = p[i];
    }
}

void uart_drain(void)
{
    while (!(USART_SR & SR_COMPLETE)) {
    }
}
