# Toolchain file of every Cortex-M board: the compiler, and the flags of the board's own core.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EHMN_BOARD)
include(${CMAKE_CURRENT_LIST_DIR}/../ports/${EHMN_BOARD}/board.cmake)
set(CMAKE_C_FLAGS_INIT "${BOARD_CPU} -mthumb -ffreestanding -ffunction-sections -fdata-sections")
