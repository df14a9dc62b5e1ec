set(BOARD_CPU "-mcpu=cortex-m55 -mfloat-abi=hard")
set(BOARD_SOURCES cmsdk/peripherals.c timers/systick.c ram-flash/flash.c)
