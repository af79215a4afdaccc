#!/bin/sh
# Makes .venv with this checkout and its tools installed. Needs Python >= 3.11 and nothing else.
#
# A stamp in .venv tells a finished installation that still fits: the hash of the settings, the
# interpreter and the place of the checkout (an environment that was moved does not work). Each
# failure ends with one line that says the cause and one with the next command.
set -u

cd "$(dirname "$0")/.." || exit 1
VENV=.venv
STAMP=$VENV/.queue-core-stamp
LOG=$VENV/install.log
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

fail() { # CAUSE NEXT [CODE]
    printf 'cause: %s\nnext:  %s\n' "$1" "$2" >&2
    exit "${3:-1}"
}

say() { printf 'setup: %s\n' "$1" >&2; }

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

wanted_stamp() {
    { cat setup.cfg pyproject.toml tools/dev.lock tools/bootstrap.sh; pwd
      "$VENV/bin/python" -c 'import sys; print(sys.version)'; } 2>/dev/null | cksum
}

if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted_stamp)" ]; then
    exit 0
fi

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" && command -v "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3 \
        /usr/local/bin/python3 "${HOME:-/nonexistent}"/.pyenv/versions/3.1[1-9]*/bin/python3; do
        if new_enough "$candidate"; then
            # A shim (pyenv's) may mean another interpreter tomorrow: name the real one.
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

run_logged() {
    "$@" >>"$LOG" 2>&1
}

# Debian splits the module that puts pip into new environments off into a package of its own.
add_venv_module() {
    package=python$("$FOUND" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    case $FOUND in /usr/bin/*) ;; *)
        fail "$FOUND lacks the modules venv and ensurepip" "make PYTHON=/usr/bin/python3 setup" ;;
    esac
    if ! command -v apt-get >/dev/null 2>&1; then
        fail "$FOUND lacks the modules venv and ensurepip" \
            "install your distribution's package for them, then run make again"
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "$FOUND cannot make environments: the package $package is missing" \
            "sudo apt-get install $package"
    fi
    say "installing the package $package with apt-get (Debian keeps ensurepip in it)"
    { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$package" ||
        { apt-get -q update &&
            DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
                install "$package"; }; } >/dev/null 2>&1 ||
        fail "apt-get could not install $package" "apt-get update && apt-get install $package"
}

make_environment() {
    if command -v uv >/dev/null 2>&1 &&
        uv venv -q --seed --python "$FOUND" "$VENV" >/dev/null 2>&1; then
        return
    fi
    "$FOUND" -c 'import venv, ensurepip as pip; pip.version()' >/dev/null 2>&1 || add_venv_module
    problem=$("$FOUND" -m venv "$VENV" 2>&1) ||
        fail "could not make $VENV: $(printf '%s\n' "$problem" | tail -n 1)" \
            "rm -rf $VENV, then see what this says: $FOUND -m venv $VENV"
}

install_checkout() { # CONSTRAINT-OPTIONS...
    if command -v uv >/dev/null 2>&1 &&
        run_logged uv pip install -q --python "$VENV/bin/python" "$@" -e '.[all,test]'; then
        return 0
    fi
    run_logged "$VENV/bin/python" -m pip install -q --no-input --disable-pip-version-check \
        "$@" -e '.[all,test]'
}

if ! { new_enough "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; }; then
    FOUND=$(find_python) || FOUND=
    if [ -z "$FOUND" ]; then
        if [ -n "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not a Python >= 3.11" "make setup, without PYTHON=" 69
        fi
        fail "no Python >= 3.11 found (looked for python3, python3.11 and later, and pyenv's)" \
            "sudo apt-get install python3 python3-venv   (macOS: brew install python3)" 69
    fi
    say "making $VENV with $FOUND and installing into it; nothing else is changed"
    rm -rf "$VENV"
    make_environment
else
    say "installing into $VENV; nothing else is changed"
fi

rm -f "$STAMP"
: >"$LOG"
if ! install_checkout -c tools/dev.lock; then
    say "the pinned versions are not all to be had; taking the newest"
    if ! install_checkout; then
        cause=$(grep -i 'error' "$LOG" | tail -n 1)
        fail "the packages could not be installed: ${cause:-see the log}" "less $LOG"
    fi
fi
wanted_stamp >"$STAMP"
