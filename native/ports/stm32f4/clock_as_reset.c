/* The clock that the STM32F4 starts with, 16 MHz from within: for an emulated chip, which has no other. */
#include "peripherals.h"

void clock_start(void)
{
}
