set(BOARD_CPU "-mcpu=cortex-m7 -mfloat-abi=soft")
set(BOARD_SOURCES stm32h7/peripherals.c stm32h7/clock.c stm32h7/memory.c stm32h7/flash.c timers/cycles.c)
set(BOARD_PYOCD stm32h743zitx) # what pyocd calls the chip of this board; it needs pyocd pack install stm32h743zitx
