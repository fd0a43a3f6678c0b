#!/bin/sh
# Prints the path of the newest Python that fits this project. With an argument: of that Python, if it fits.
#
# It looks in every folder of PATH, and at the versions that belong to a version manager's folder of shims, such as pyenv's: a shim
# may be there and refuse to run. So each candidate is run and asked for its version and for what makes a virtual environment.
# Debian and Ubuntu leave `ensurepip` out of python3 and have it in python3-venv.

PROBE='
import ensurepip, sys, sysconfig, venv
version = sys.version_info
assert (3, 11) <= version < (3, 15) and version.releaselevel == "final"
assert sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(version.minor * 1000 + version.micro, sys.executable)
'

best=0
path=

probe() {
    [ -x "$1" ] || return
    answer=$("$1" -c "$PROBE" 2>/dev/null </dev/null) || return
    if [ "${answer%% *}" -gt "$best" ]; then
        best=${answer%% *}
        path=${answer#* }
    fi
}

if [ -n "$1" ]; then
    probe "$(command -v "$1")"
    [ -n "$path" ] || echo "$1 does not fit: this project needs CPython 3.11, 3.12, 3.13 or 3.14 with venv." >&2
else
    IFS=:
    for folder in $PATH; do
        for name in python3.14 python3.13 python3.12 python3.11 python3; do
            probe "$folder/$name"
        done
        case $folder in
        */shims)
            for candidate in "${folder%/shims}"/versions/3.*/bin/python3; do
                probe "$candidate"
            done
            ;;
        esac
    done
    [ -n "$path" ] || echo "No Python fits: this project needs CPython 3.11, 3.12, 3.13 or 3.14 with venv (on Debian and Ubuntu:
apt install python3-venv). If you have one in a place of its own: make PYTHON=/path/to/python3" >&2
fi

[ -n "$path" ] && echo "$path"
