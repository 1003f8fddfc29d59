# Sourced by tools/demo and tools/check: makes a virtual environment with the pinned versions, once.

python=${PYTHON:-python3}

# make_environment FOLDER EXTRAS: installs halp-trt[EXTRAS], editable, unless what it needs has not changed since.
make_environment() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $("$python" --version) found, Python 3.10 or newer expected; name one with PYTHON=python3.12" >&2
        exit 2
    }
    stamp="$1/installed-$(echo "$2" | tr -c 'a-z0-9\n' '-')"
    wanted=$({ "$python" --version; pwd; cat setup.cfg pyproject.toml constraints.txt; } | cksum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    echo "Installing the pinned versions into $1 (about a minute the first time)"
    [ -x "$1/bin/pip" ] || "$python" -m venv --clear "$1"
    "$1/bin/python" tools/install.py "$2"
    echo "$wanted" >"$stamp"
}
