/* A USART of the STM32H7 (reference manual RM0433, 48.7), with its FIFO of 16 bytes. */
#include "peripherals.h"

#include "board.h"
#include "stm32/pins.h"
#include "stm32h7/memory.h"

#define RCC_AHB4ENR REGISTER(0x580244E0) /* RM0433, 8.7.43: a bit for each of the ports from A on */
#define RCC_APB1LENR REGISTER(0x580244E8)
#define GPIOA 0x58020000u
#define GPIO_BYTES 0x400u

#define USART_CR1 REGISTER(BOARD_UART_ADDRESS + 0x00)
#define USART_CR2 REGISTER(BOARD_UART_ADDRESS + 0x04)
#define USART_CR3 REGISTER(BOARD_UART_ADDRESS + 0x08)
#define USART_BRR REGISTER(BOARD_UART_ADDRESS + 0x0C)
#define USART_ISR REGISTER(BOARD_UART_ADDRESS + 0x1C)
#define USART_RDR REGISTER(BOARD_UART_ADDRESS + 0x24)
#define USART_TDR REGISTER(BOARD_UART_ADDRESS + 0x28)
#define CR1_ENABLE 0x1u
#define CR1_RECEIVE 0x4u
#define CR1_TRANSMIT 0x8u
#define CR1_RECEIVED_INTERRUPT 0x20u
#define CR1_FIFO (1u << 29)
#define CR3_NO_OVERRUN (1u << 12) /* a byte that comes too late is lost, and the protocol's CRC says so */
#define ISR_RECEIVED 0x20u
#define ISR_COMPLETE 0x40u
#define ISR_ROOM 0x80u

void peripherals_start(void)
{
    clock_start();
    memory_start();
    flash_start();
    RCC_AHB4ENR |= 1u << (BOARD_UART_PORT_ADDRESS - GPIOA) / GPIO_BYTES;
    RCC_APB1LENR |= 1u << BOARD_UART_ENABLE_BIT;
    (void)RCC_APB1LENR; /* the clocks need two cycles: RM0433, 8.5.9 */
    pin_to_usart(BOARD_UART_PORT_ADDRESS, BOARD_UART_SEND_PIN);
    pin_to_usart(BOARD_UART_PORT_ADDRESS, BOARD_UART_RECEIVE_PIN);
    USART_CR1 = 0;
    USART_CR2 = 0; /* one stop bit */
    USART_CR3 = CR3_NO_OVERRUN;
    USART_BRR = (BOARD_UART_CLOCK_HZ + BOARD_BAUD / 2u) / BOARD_BAUD;
    USART_CR1 = CR1_FIFO | CR1_RECEIVED_INTERRUPT | CR1_TRANSMIT | CR1_RECEIVE;
    USART_CR1 |= CR1_ENABLE;
    NVIC_ENABLE(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
}

/* The interrupt is cleared before looking: one that comes later ends the sleep. */
uint8_t uart_read(void)
{
    for (;;) {
        NVIC_CLEAR_PENDING(BOARD_UART_INTERRUPT) = NVIC_BIT(BOARD_UART_INTERRUPT);
        if (USART_ISR & ISR_RECEIVED) {
            return (uint8_t)USART_RDR;
        }
        wait_for_interrupt();
    }
}

void uart_write(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    for (uint32_t i = 0; i < count; i++) {
        while (!(USART_ISR & ISR_ROOM)) {
        }
        USART_TDR = p[i];
    }
}

void uart_drain(void)
{
    while (!(USART_ISR & ISR_COMPLETE)) {
    }
}
