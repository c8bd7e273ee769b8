#!/bin/sh
# Makes .venv: a link to a virtual environment in the cache, so that a second clone is ready at once.
# Usage: tools/venv.sh; PYTHON=/path/to/python3 overrides the search for the newest Python.
# With --print it leaves .venv alone and prints the folder of the environment.
set -eu
cd "$(dirname "$0")/.."

usable() { # a Python of 3.11 or newer that can make virtual environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

newest_python() {
    # pyenv's shims refuse versions that are not switched on, so its folders are searched as well.
    for minor in 14 13 12 11; do
        for python in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python3; do
            if usable "$python"; then echo "$python"; return; fi
        done
    done
    if usable python3; then echo python3; return; fi
    echo >&2 "No Python >= 3.11 with the venv module was found. Install one (Debian/Ubuntu: apt install python3 python3-venv) or set PYTHON=/path/to/python3."
    exit 1
}

python=${PYTHON:-$(newest_python)}
usable "$python" || { echo >&2 "$python is no Python >= 3.11 with the venv module."; exit 1; }
pins=requirements/py312.txt
"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' && pins=requirements/py311.txt
key=$({ cat "$pins" tools/venv.sh; "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; } | cksum | tr ' ' -)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/smolcluster-logging/venv
venv=$cache/$key

if [ ! -e "$venv/complete" ]; then
    echo "Python tools: installing $pins with $("$python" --version) (about a minute, once)" >&2
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$pins"
    touch "$venv/complete"
fi
if [ "${1:-}" = --print ]; then echo "$venv"; else ln -sfn "$venv" .venv; fi
