#!/usr/bin/env bash
# Sets up .venv for this checkout: system libraries, Python packages, avcall itself.
#
#   scripts/setup.sh call [cpu|cuda]   what a call needs (no torch)
#   scripts/setup.sh dev  [cpu|cuda]   that, training, the comparison, and what lint and tests need
#
# Running it again is quick: .venv/.avcall-setup remembers what was installed from which files.
# TORCH_INDEX=URL takes torch from that package index first; for PyTorch's index of CPU builds, see its
# installation page. Without it, pip may take a CUDA build of several GB on Linux.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-call}
runtime=${2:-cpu}
case $profile in
    call) extras=$runtime ;;
    dev) extras=$runtime,train,bench,dev ;;
    *) echo "setup: '$profile' is no profile; use call or dev" >&2; exit 2 ;;
esac
case $runtime in
    cpu) other_runtimes=(onnxruntime-gpu) ;;
    cuda) other_runtimes=(onnxruntime onnxruntime-openvino) ;;
    *) echo "setup: '$runtime' is no runtime; use cpu or cuda" >&2; exit 2 ;;
esac

venv=.venv
stamp=$venv/.avcall-setup
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

# --- system packages -------------------------------------------------------------------------------------

# Prints the Debian package of each library ("libGL.so.1:libgl1") that the loader does not know.
missing_libraries() {
    local entry
    for entry in "$@"; do
        /sbin/ldconfig -p | grep -F "${entry%%:*} " >/dev/null || echo "${entry##*:}"
    done
}

# Prints the Debian packages of what the tests start or load: a sound server and a screen.
missing_test_packages() {
    command -v pulseaudio >/dev/null || echo pulseaudio
    command -v pactl >/dev/null || echo pulseaudio-utils
    command -v Xvfb >/dev/null || echo xvfb
    compgen -G "/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so" >/dev/null || echo libasound2-plugins
}

# Installs the packages "$@" with apt if this user may; otherwise names them in one line and fails.
install_packages() {
    [ $# -gt 0 ] || return 0
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
    if command -v apt-get >/dev/null && "${sudo[@]}" true 2>/dev/null; then
        echo "setup: installing the system packages $*"
        "${sudo[@]}" apt-get update -q >/dev/null || true # one stale list of many need not matter
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" \
            >/dev/null && return 0
    fi
    echo "setup: system packages are missing; run: sudo apt-get install -y $*" >&2
    return 1
}

install_system() {
    local required optional
    mapfile -t required < <(missing_libraries libGL.so.1:libgl1 libgthread-2.0.so.0:libglib2.0-0)
    mapfile -t optional < <(missing_libraries libportaudio.so.2:libportaudio2 libSM.so.6:libsm6)
    if [ "$profile" = dev ]; then
        mapfile -t -O ${#optional[@]} optional < <(missing_test_packages)
    fi
    install_packages "${required[@]}" "${optional[@]}" && return 0
    [ ${#required[@]} -eq 0 ] # without the others, files and pictures still work
}

# --- Python ----------------------------------------------------------------------------------------------

# Prints a Python that pyproject.toml admits: >=3.11,<3.13.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "setup: no Python 3.11 or 3.12; run: sudo apt-get install -y python3.11-venv (or set PYTHON=/path/to/one)" >&2
    return 1
}

make_venv() {
    local base version
    if [ -x $python ] && $python -m pip --version >/dev/null 2>&1; then
        return 0
    fi
    base=$(find_python)
    if ! "$base" -c 'import ensurepip' 2>/dev/null; then # Debian packs it apart
        version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install_packages "python$version-venv"
    fi
    rm -rf $venv
    "$base" -m venv $venv
}

install_python_packages() {
    local pip=($python -m pip install --quiet --constraint constraints.txt)
    $python -m pip uninstall --quiet --yes "${other_runtimes[@]}" 2>/dev/null # they overwrite each other
    if [ "$profile" = dev ]; then
        # By itself and first: any range of versions lets pip choose a CUDA build.
        "${pip[@]}" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
    fi
    "${pip[@]}" --editable ".[$extras]"
    $python -m pip check
}

# --------------------------------------------------------------------------------------------------------

want="$profile $runtime $(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d ' ' -f 1)"
if [ "$(uname -s)" = Linux ]; then
    install_system
fi
make_venv
# A dev set-up has all that a call needs.
have=$(cat $stamp 2>/dev/null || true)
if [ "$have" != "$want" ] && [ "$have" != "dev ${want#call }" ]; then
    echo "setup: installing avcall[$extras] into $venv (a few minutes the first time)"
    rm -f $stamp
    install_python_packages
    echo "$want" >$stamp
fi
