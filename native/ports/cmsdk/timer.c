/* The timer of Arm's Cortex-M System Design Kit (technical reference manual DDI 0479, 4.2): 32 bits. */
#include "peripherals.h"

#include "board.h"

#define TIMER_CTRL REGISTER(BOARD_TIMER_ADDRESS + 0x00)
#define TIMER_VALUE REGISTER(BOARD_TIMER_ADDRESS + 0x04)
#define TIMER_RELOAD REGISTER(BOARD_TIMER_ADDRESS + 0x08)
#define CTRL_ENABLE 1u

void timer_start(void)
{
    TIMER_RELOAD = UINT32_MAX;
    TIMER_CTRL = CTRL_ENABLE;
    TIMER_VALUE = UINT32_MAX;
}

uint32_t timer_read(void)
{
    return UINT32_MAX - TIMER_VALUE; /* it counts down */
}
