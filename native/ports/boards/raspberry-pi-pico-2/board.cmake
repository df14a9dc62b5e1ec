set(BOARD_CPU "-mcpu=cortex-m33 -mfloat-abi=soft")
set(BOARD_SOURCES rp2350/peripherals.c pl011/uart.c rp2350/clock.c rp2350/flash.c rp2350/image_definition.c timers/cycles.c)
set(BOARD_UF2 RP2350:0xe48bff59) # what programs that write a real one call its chip: Board-ID, and family "Arm, secure"
set(BOARD_PYOCD rp2350)
