#!/bin/sh
# Make this checkout ready: system packages that are missing, a virtual environment, the package with its extras.
#   tools/setup.sh [demo|test]
# System packages are installed by apt-get, as root or through sudo; what is installed is said first.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:-test}

missing=""
need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 || { shift; missing="$missing $*"; }
}
need gcc build-essential
need make build-essential
need cmake cmake
need ninja ninja-build
need arm-none-eabi-gcc gcc-arm-none-eabi
need qemu-system-arm qemu-system-arm
echo '#include <string.h>' | arm-none-eabi-gcc -E - >/dev/null 2>&1 || missing="$missing libnewlib-arm-none-eabi"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ "$(python3 -c 'import sysconfig, os; print(os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' 2>/dev/null)" = True ] \
    || missing="$missing python3-dev"
if [ "$purpose" = test ]; then
    need clang clang
    need llvm-cov llvm
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need qemu-aarch64 qemu-user
    need riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu libc6-dev-riscv64-cross
    need arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
    need stm32flash stm32flash
    ! grep -qs '^ID=debian' /etc/os-release || need chromium chromium # elsewhere it is no package of apt
    need xtensa-lx106-elf-gcc gcc-xtensa-lx106
    need gdb-multiarch gdb-multiarch
    need ssh openssh-client
    [ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
    ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a >/dev/null 2>&1 || missing="$missing libclang-rt-14-dev"
fi
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "setup: installing system packages:$missing" >&2
    $sudo apt-get update -qq >/dev/null
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

extras=all
[ "$purpose" = test ] && extras=dev
venv=.venv
stamp=$venv/installed-$extras
sources=$(git ls-files -co --exclude-standard pyproject.toml edgehmn export targets native 2>/dev/null || true)
if [ ! -f "$stamp" ] || { [ -n "$sources" ] && [ -n "$(find $sources -newer "$stamp" 2>/dev/null | head -1)" ]; }; then
    [ -x $venv/bin/python ] || python3 -m venv $venv
    echo "setup: installing edgehmn[$extras] into $venv" >&2
    $venv/bin/python -m pip install -q --disable-pip-version-check ".[$extras]" >&2
    touch "$stamp"
    # One test runs the runtime of 32-bit boards, which needs an environment of its own; without it the test says so.
    [ "$purpose" != test ] || $venv/bin/python tools/check_tflite_runtime.py >/dev/null 2>&1 || true
fi
