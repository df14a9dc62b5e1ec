/* The pins of the STM32F4 and STM32H7 (reference manuals RM0090, 8.4, and RM0433, 11.4: the same registers). */
#ifndef EHMN_STM32_PINS_H
#define EHMN_STM32_PINS_H

#include "peripherals.h"

#define GPIO_MODER 0x00u /* two bits for each pin: 2 is "alternate function" */
#define GPIO_PUPDR 0x0Cu /* two bits for each pin: 1 is "pull-up", so that an open line is idle */
#define GPIO_AFRL 0x20u  /* four bits for each of the pins 0 to 7; those of 8 to 15 follow */
#define PIN_ALTERNATE 2u
#define PIN_PULL_UP 1u
#define PIN_USART 7u /* USART1 to USART3 in both families */

/* Give a pin to the USART that it belongs to. port: the address of its registers. */
static inline void pin_to_usart(uint32_t port, uint32_t pin)
{
    uint32_t two = 2u * pin, four = 4u * (pin % 8u), half = 4u * (pin / 8u);
    REGISTER(port + GPIO_AFRL + half) = (REGISTER(port + GPIO_AFRL + half) & ~(0xFu << four)) | PIN_USART << four;
    REGISTER(port + GPIO_PUPDR) = (REGISTER(port + GPIO_PUPDR) & ~(3u << two)) | PIN_PULL_UP << two;
    REGISTER(port + GPIO_MODER) = (REGISTER(port + GPIO_MODER) & ~(3u << two)) | PIN_ALTERNATE << two;
}

#endif
