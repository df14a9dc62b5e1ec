/* What a family of chips gives to main.c: the line to the host, a timer, and flash for what is learned. */
#ifndef EHMN_PERIPHERALS_H
#define EHMN_PERIPHERALS_H

#include "edgehmn_state.h"

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Armv7-M Architecture Reference Manual, B3.4: enable or forget an interrupt. It only wakes the core, for interrupts
 * stay masked: none is ever taken. */
#define NVIC_ENABLE(n) REGISTER(0xE000E100u + 4u * ((n) / 32u))
#define NVIC_CLEAR_PENDING(n) REGISTER(0xE000E280u + 4u * ((n) / 32u))
#define NVIC_BIT(n) (1u << (n) % 32u)

/* Until all accesses before are done, and the instructions after are fetched with what they changed. A store to flash
 * may wait in a buffer while a register of its controller is read, on another bus. Part of the function that calls it,
 * which may have to lie in RAM. */
__attribute__((always_inline)) static inline void memory_barrier(void)
{
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

/* Until the interrupt of a byte, or at once if one is pending. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("dsb\n\twfi" ::: "memory");
}

extern const ehmn_flash board_flash;

/* Clocks, line and whatever else there is to start. */
void peripherals_start(void);

/* The clocks alone, for families that have something to set there. */
void clock_start(void);

/* Count from zero, and the ticks since then: BOARD_TICK_HZ a second. */
void timer_start(void);
uint32_t timer_read(void);

/* The next byte from the host; sleeps until it is there. */
uint8_t uart_read(void);

/* To the host; may return before all bytes have left. */
void uart_write(const void *bytes, uint32_t count);

/* Returns when all bytes have left. */
void uart_drain(void);

#endif
