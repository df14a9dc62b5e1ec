set(BOARD_CPU "-mcpu=cortex-m4 -mfloat-abi=soft")
set(BOARD_SOURCES stm32f4/peripherals.c)
