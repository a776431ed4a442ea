# 64-bit Raspberry Pi OS and other aarch64 Linux: cmake -DCMAKE_TOOLCHAIN_FILE=aarch64-linux-gnu.cmake
# Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross; tests run through qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

# Programs are looked for on the build machine, libraries and headers on the board's side only.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# Raspberry Pi 4; override with -DCMAKE_C_FLAGS_INIT for another core.
set(CMAKE_C_FLAGS_INIT "-mcpu=cortex-a72 -ffp-contract=off")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static -Wl,--build-id=none")

find_program(NETTRIM_QEMU qemu-aarch64)
if(NETTRIM_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${NETTRIM_QEMU};-cpu;cortex-a72")
endif()
