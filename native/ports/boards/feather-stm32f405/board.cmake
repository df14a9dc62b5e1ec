set(BOARD_CPU "-mcpu=cortex-m4 -mfloat-abi=soft")
set(BOARD_SOURCES stm32f4/peripherals.c stm32f4/clock.c stm32f4/flash.c timers/cycles.c)
set(BOARD_STM32FLASH 0x0413) # what programs that write a real one call its chip
set(BOARD_PYOCD stm32f405rgtx)
