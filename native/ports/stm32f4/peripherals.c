/* A USART of the STM32F4 (reference manual RM0090, 30.6). */
#include "peripherals.h"

#include "board.h"
#include "stm32/pins.h"

#define RCC_AHB1ENR REGISTER(0x40023830) /* RM0090, 7.3.10: a bit for each of the ports from A on */
#define RCC_UARTENR REGISTER(BOARD_UART_ENABLE_ADDRESS)
#define GPIOA 0x40020000u
#define GPIO_BYTES 0x400u

#define USART_SR REGISTER(BOARD_UART_ADDRESS + 0x00)
#define USART_DR REGISTER(BOARD_UART_ADDRESS + 0x04)
#define USART_BRR REGISTER(BOARD_UART_ADDRESS + 0x08)
#define USART_CR1 REGISTER(BOARD_UART_ADDRESS + 0x0C)
#define USART_CR2 REGISTER(BOARD_UART_ADDRESS + 0x10)
#define USART_CR3 REGISTER(BOARD_UART_ADDRESS + 0x14)
#define SR_RECEIVED 0x20u
#define SR_COMPLETE 0x40u
#define SR_EMPTY 0x80u
#define CR1_RECEIVE 0x4u
#define CR1_TRANSMIT 0x8u
#define CR1_RECEIVED_INTERRUPT 0x20u
#define CR1_ENABLE 0x2000u

void peripherals_start(void)
{
    clock_start();
    RCC_AHB1ENR |= 1u << (BOARD_UART_PORT_ADDRESS - GPIOA) / GPIO_BYTES;
    RCC_UARTENR |= 1u << BOARD_UART_ENABLE_BIT;
    pin_to_usart(BOARD_UART_PORT_ADDRESS, BOARD_UART_SEND_PIN);
    pin_to_usart(BOARD_UART_PORT_ADDRESS, BOARD_UART_RECEIVE_PIN);
    USART_CR1 = 0;
    USART_CR2 = 0; /* one stop bit */
    USART_CR3 = 0; /* no flow control */
    USART_BRR = (BOARD_UART_CLOCK_HZ + BOARD_BAUD / 2u) / BOARD_BAUD;
    USART_CR1 = CR1_ENABLE | CR1_RECEIVED_INTERRUPT | CR1_TRANSMIT | CR1_RECEIVE;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
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
