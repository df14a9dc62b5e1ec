set(BOARD_CPU "-mcpu=cortex-m7 -mfloat-abi=soft")
set(BOARD_SOURCES cmsdk/peripherals.c cmsdk/timer.c ram-flash/flash.c)
