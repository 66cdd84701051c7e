# shellcheck shell=bash
# Functions that the scripts share; sourced, not run. bash 3.2 (macOS) suffices.
#
#   find_python          prints the path of a Python 3.11 or newer that can make environments
#   ensure_venv [EXTRAS] makes $VENV (default .venv in the repository) with securews in it, and
#                        with the extras named ("test" or "test,bench"); costs nothing when
#                        that is done already
#   missing_packages COMMAND:PACKAGE...   prints the Debian packages of commands that are not here
#   install_packages PACKAGE...           installs them as root on Debian, else names them
#   install_scanners     what slow tests drive from outside: openssl, testssl, slowhttptest and
#                        nmap as above, sslyze into .tools

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="${VENV:-$REPO/.venv}"

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

_is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Debian splits ensurepip from python3; without it an environment has no pip.
_makes_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() {
    # $PYTHON, when set, is the only candidate: who names one wants that one.
    local candidate path without_venv=
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11 python \
            "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[1-9]*/bin/python3 \
            /opt/homebrew/bin/python3 /usr/local/bin/python3
    fi
    for candidate in "$@"; do
        path="$(command -v "$candidate" 2>/dev/null)" || continue
        _is_new_enough "$path" || continue
        if _makes_venvs "$path"; then
            say "$path"
            return
        fi
        without_venv="${without_venv:-$path}"
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv cannot make virtual environments;" \
            "on Debian and Ubuntu: apt install python3-venv"
    fi
    fail "no Python 3.11 or newer found${PYTHON:+ at $PYTHON};" \
        "install one, or name it: PYTHON=/path/to/python3 $0"
}

# What the environment was made from: a moved repository or a changed pyproject.toml makes it
# out of date.
_venv_stamp() { say "$REPO $(cksum <"$REPO/pyproject.toml")"; }

_venv_is_current() {
    # An environment whose Python was uninstalled has a dangling bin/python.
    [ "$(cat "$VENV/stamp-$1" 2>/dev/null)" = "$(_venv_stamp)" ] && [ -x "$VENV/bin/python" ]
}

ensure_venv() {
    local extras="${1:-}" python log
    _venv_is_current "base${extras:+-$extras}" && return
    if ! { [ -x "$VENV/bin/python" ] && _is_new_enough "$VENV/bin/python"; }; then
        python="$(find_python)" || exit 1
        say "making $VENV with $("$python" --version 2>&1)"
        rm -rf "$VENV"
        "$python" -m venv "$VENV" || fail "$python -m venv $VENV failed"
    fi
    say "installing securews${extras:+ and what \"$extras\" needs} into $VENV"
    log="$(mktemp)"
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input --quiet \
        --editable "$REPO${extras:+[$extras]}" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "pip could not install securews; its words are above"
    fi
    rm -f "$log"
    _venv_stamp >"$VENV/stamp-base"
    [ -z "$extras" ] || _venv_stamp >"$VENV/stamp-base-$extras"
}

missing_packages() {
    local tool
    for tool in "$@"; do
        command -v "${tool%%:*}" >/dev/null || say "${tool#*:}"
    done
}

install_packages() {
    [ $# -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "not installed here, and tests need them: $* (Debian's names)"
    elif [ "$(id -u)" -ne 0 ]; then
        say "tests need these: sudo apt-get install $*"
    else
        say "installing $*"
        if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq --yes --no-install-recommends "$@"; } >/dev/null; then
            say "apt-get could not install them; the tests that need them will not run"
        fi
    fi
}

# Compiles the hot path beside its source, until the script ends: a compiled module shadows its
# source, and whoever edits that would wonder why nothing changes.
compile_in_place() {
    local log
    ! lacks_gil || return 0
    log="$(mktemp)"
    trap remove_compiled EXIT
    install_compiler
    "$VENV/bin/python" setup.py -q build_ext --inplace >"$log" 2>&1 || true
    if "$VENV/bin/python" -c 'import securews, sys; sys.exit(not securews.ACCELERATED)'; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        say "the hot path could not be compiled; the words above say why"
        return 1
    fi
}

remove_compiled() { find "$REPO/securews" -name '*.so' -delete; }

lacks_gil() {
    "$VENV/bin/python" -c \
        'import sys, sysconfig; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'
}

# A C compiler, and the headers of the interpreter: Debian has them in a package of their own.
install_compiler() {
    local packages
    packages="$(missing_packages "${CC:-cc}:gcc libc6-dev")"
    "$VENV/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
        || packages+=" python3-dev"
    # shellcheck disable=SC2086  # names of packages have no spaces
    install_packages $packages
}

install_scanners() {
    # shellcheck disable=SC2046  # names of packages have no spaces
    install_packages $(missing_packages \
        openssl:openssl testssl:testssl.sh slowhttptest:slowhttptest nmap:nmap)
    [ ! -x "$REPO/.tools/sslyze/bin/sslyze" ] || return 0
    say "installing sslyze into .tools/sslyze"
    if ! { "$(find_python)" -m venv "$REPO/.tools/sslyze" && "$REPO/.tools/sslyze/bin/python" \
        -m pip install --disable-pip-version-check --no-input --quiet sslyze; }; then
        say "pip could not install it; its test will not run"
    fi
}
