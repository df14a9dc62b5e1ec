set(BOARD_CPU "-mcpu=cortex-m4 -mfloat-abi=soft")
set(BOARD_SOURCES nrf52840/peripherals.c nrf52840/debug_port.c nrf52840/flash.c timers/cycles.c)
set(BOARD_PYOCD nrf52840) # what programs that write a real one call its chip
