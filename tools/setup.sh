#!/usr/bin/env bash
# Makes .venv ready to run lmmsparse: system libraries where it may install them, then the Python side.
# Done once per state of pyproject.toml and of this file; a second call returns at once.
#
# tools/setup.sh demo    what the package needs to run, with scikit-sparse and nlopt
# tools/setup.sh test    that, and all that tests and checks of style and types need (the default)
#
# Overrides: PYTHON=/path/to/python, SUITESPARSE_INCLUDE_DIR, SUITESPARSE_LIBRARY_DIR.
set -euo pipefail
cd "$(dirname "$0")/.."

project=$PWD
venv=$project/.venv
level=${1:-test}
stamp=$venv/setup-stamp-$level
log=$project/build/setup.log
PATH=$PATH:/usr/sbin:/sbin # ldconfig lives there, and ordinary users of Debian do not look there

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with its output in the log; shows the end of the log when it fails.
logged() {
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null && return 0
    tail -n 15 "$log" >&2
    return 1
}

case $level in
demo) extras=nlopt ;;
test) extras=test,dev ;;
*) die "there is no level '$level': demo or test" ;;
esac

# ---------------------------------------------------------------- what is there

fingerprint() {
    { cat pyproject.toml tools/setup.sh && printf '%s\n' "$project"; } | cksum
}

is_recent_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

has_python_headers() {
    "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Sets `python`: the first Python >= 3.11 that extensions can be compiled for, else the first at all.
find_python() {
    local name path
    python=
    if [ -n "${PYTHON:-}" ] && ! is_recent_python "$PYTHON"; then
        die "PYTHON is $PYTHON, but that is no Python 3.11 or later. Name another, or unset it."
    fi
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do # words are meant
        path=$(command -v "$name") || continue
        is_recent_python "$path" || continue
        [ -n "$python" ] || python=$path
        if has_python_headers "$path"; then
            python=$path
            return
        fi
    done
}

# Sets `headers`: the directory that holds cholmod.h, and `libraries`: where its libraries are when
# the compiler does not look there by itself.
find_suitesparse() {
    local prefix sub
    headers=
    libraries=
    if [ -n "${SUITESPARSE_INCLUDE_DIR:-}" ]; then
        [ -e "$SUITESPARSE_INCLUDE_DIR/cholmod.h" ] ||
            die "SUITESPARSE_INCLUDE_DIR is $SUITESPARSE_INCLUDE_DIR, but there is no cholmod.h in it."
        headers=$SUITESPARSE_INCLUDE_DIR
        libraries=${SUITESPARSE_LIBRARY_DIR:-}
        return
    fi
    for prefix in ${CONDA_PREFIX:+"$CONDA_PREFIX"} /usr /usr/local /opt/homebrew \
        /opt/homebrew/opt/suite-sparse /usr/local/opt/suite-sparse \
        /home/linuxbrew/.linuxbrew /opt/local; do
        for sub in include/suitesparse include; do
            [ -e "$prefix/$sub/cholmod.h" ] || continue
            headers=$prefix/$sub
            [ "$prefix" = /usr ] || libraries=$prefix/lib
            return
        done
    done
}

suitesparse_version() {
    awk '$1 == "#define" && $2 == "SUITESPARSE_MAIN_VERSION" { main = $3 }
         $1 == "#define" && $2 == "SUITESPARSE_SUB_VERSION" { sub_ = $3 }
         END { print main "." sub_ }' "$headers/SuiteSparse_config.h"
}

# Prints the scikit-sparse that goes with the SuiteSparse that was found.
scikit_sparse() {
    case $(suitesparse_version) in
    [0-6].* | 7.[0-3]) echo 'scikit-sparse==0.4.16' ;;
    *) echo 'scikit-sparse>=0.5,<0.6' ;;
    esac
}

# scikit-sparse 0.5 has a part in C++. Before SuiteSparse is there, this may be the one.
needs_cxx() { [ -z "$headers" ] || [ "$(scikit_sparse)" != 'scikit-sparse==0.4.16' ]; }

# Prints the BLAS and LAPACK files that CHOLMOD loads, links resolved; nothing where that cannot be told.
blas_of_cholmod() {
    local library
    [ "$(uname -s)" = Linux ] && have ldd || return 0
    library=$libraries/libcholmod.so
    [ -e "$library" ] ||
        library=$(ldconfig -p 2>/dev/null | awk '$1 ~ /^libcholmod\.so/ { path = $NF } END { print path }')
    [ -e "$library" ] || return 0
    ldd "$library" 2>/dev/null | awk '$1 ~ /blas|lapack|mkl|blis/ && $3 ~ /^\// { print $3 }' |
        while read -r file; do readlink -f "$file"; done
}

has_slow_blas() {
    [ -n "$(blas_of_cholmod | grep -Ev 'openblas|mkl|blis|atlas|flexiblas|armpl|essl|nvpl')" ]
}

can_apt() {
    have apt-get || return 1
    [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

# ---------------------------------------------------------------- what is missing

# Sets `missing` (in words) and `packages` (Debian's names).
look() {
    local version
    missing=()
    packages=()
    find_python
    find_suitesparse
    if [ -z "$python" ]; then
        missing+=("Python 3.11 or later")
        packages+=(python3 python3-dev python3-venv)
    else
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        if ! has_python_headers "$python"; then
            missing+=("Python's headers")
            packages+=("$version-dev")
        fi
        if ! has_venv "$python" && ! make_venv_tool >/dev/null; then
            missing+=("Python's venv")
            packages+=("$version-venv")
        fi
    fi
    if ! have "${CC:-cc}" && ! have gcc; then
        missing+=("a C compiler")
        packages+=(gcc libc6-dev)
    fi
    if needs_cxx && ! have "${CXX:-c++}" && ! have g++; then
        missing+=("a C++ compiler")
        packages+=(g++)
    fi
    if [ -z "$headers" ]; then
        missing+=("SuiteSparse's headers")
        packages+=(libsuitesparse-dev libopenblas0-pthread)
    fi
}

# Prints the other tool that makes virtual environments, where venv itself is not installed.
make_venv_tool() {
    if "$python" -c 'import virtualenv' >/dev/null 2>&1; then
        echo "$python -m virtualenv --quiet"
    elif have virtualenv; then
        echo "virtualenv --quiet --python $python"
    elif have uv; then
        echo "uv venv --quiet --seed --python $python"
    else
        return 1
    fi
}

# One line: the command that installs what is missing on this kind of machine.
remedy() {
    if have apt-get; then
        echo "Run: sudo apt-get install ${packages[*]}"
    elif have dnf; then
        echo "Run: sudo dnf install suitesparse-devel openblas python3-devel gcc-c++"
    elif have brew; then
        echo "Run: brew install suite-sparse python@3.13"
    elif have conda || [ -n "${CONDA_PREFIX:-}" ]; then
        echo "Run: conda install -c conda-forge 'python>=3.11' suitesparse c-compiler cxx-compiler"
    else
        echo "Install them (apt: ${packages[*]}; dnf: suitesparse-devel openblas python3-devel gcc-c++;" \
            "brew: suite-sparse python@3.13; conda: suitesparse c-compiler cxx-compiler)."
    fi
}

join() {
    local text=$1
    shift
    while [ $# -gt 0 ]; do
        text="$text, $1"
        shift
    done
    echo "$text"
}

apt_install() {
    local root=() options=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    say "installing with apt: $*"
    logged ${root[@]+"${root[@]}"} apt-get "${options[@]}" update ||
        say "apt-get update had trouble, trying to install all the same"
    logged ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive \
        apt-get "${options[@]}" install -y --no-install-recommends "$@" ||
        die "apt-get could not install $*; the whole output is in $log"
}

ensure_system() {
    look
    if [ "${#missing[@]}" -gt 0 ]; then
        can_apt || die "$(join "${missing[@]}") not found. $(remedy)"
        apt_install "${packages[@]}"
        look
        [ -n "$python" ] || die "Python 3.11 or later not found, and apt has none either." \
            "Install one (pyenv, uv, conda) and name it: PYTHON=/path/to/python make setup"
        [ "${#missing[@]}" = 0 ] || die "$(join "${missing[@]}") still not found. $(remedy)"
    fi
    if has_slow_blas && can_apt; then
        apt_install libopenblas0-pthread
    fi
    if has_slow_blas; then
        say "CHOLMOD runs on a reference BLAS, which is several times slower than OpenBLAS:" \
            "$(blas_of_cholmod | sort -u | tr '\n' ' ')(Debian: install libopenblas0-pthread," \
            "then update-alternatives --config libblas.so.3-$(uname -m)-linux-gnu)"
    fi
}

# ---------------------------------------------------------------- the Python side

ensure_venv() {
    if [ -x "$venv/bin/python" ] && is_recent_python "$venv/bin/python" &&
        head -n 1 "$venv/bin/pip" 2>/dev/null | grep -qF "$venv/bin/python"; then
        return
    fi
    say "making .venv with $("$python" --version) ($python)"
    rm -rf "$venv"
    if has_venv "$python"; then
        logged "$python" -m venv "$venv" || die "could not make .venv; the whole output is in $log"
    else
        # shellcheck disable=SC2046 # the tool and its options are words
        logged $(make_venv_tool) "$venv" || die "could not make .venv; the whole output is in $log"
    fi
}

install_python_packages() {
    local version wanted options=()
    version=$(suitesparse_version)
    wanted=$(scikit_sparse)
    # The headers that were found come first, whatever scikit-sparse would look at by itself.
    export CFLAGS="-I$headers ${CFLAGS:-}"
    if [ -n "$libraries" ]; then
        export LDFLAGS="-L$libraries -Wl,-rpath,$libraries ${LDFLAGS:-}"
        options=(--no-cache-dir) # a wheel bound to this place must not be found again elsewhere
    fi
    say "installing the Python packages ($wanted for SuiteSparse $version in $headers)"
    logged "$venv/bin/python" -m pip install --disable-pip-version-check \
        ${options[@]+"${options[@]}"} "$wanted" -e ".[$extras]" ||
        die "pip could not install the packages; the whole output is in $log"
    if ! "$venv/bin/python" -c 'import sksparse.cholmod' >>"$log" 2>&1; then
        # A wheel from pip's cache may have been compiled against another SuiteSparse.
        say "compiling scikit-sparse afresh"
        logged "$venv/bin/python" -m pip install --disable-pip-version-check --no-cache-dir \
            --no-deps --force-reinstall "$wanted" ||
            die "pip could not compile scikit-sparse; the whole output is in $log"
        logged "$venv/bin/python" -c 'import sksparse.cholmod' ||
            die "scikit-sparse was installed but cannot be imported; the whole output is in $log"
    fi
}

if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] &&
    "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
mkdir -p "$(dirname "$log")"
: >"$log"
ensure_system
ensure_venv
install_python_packages
fingerprint >"$stamp"
[ "$level" = demo ] || fingerprint >"$venv/setup-stamp-demo" # which it holds
say "ready in ${SECONDS} s"
