#!/usr/bin/env bash
# Prints the path of Triton's perf_analyzer, after fetching it from PyPI if it is not there. Its wheel is built for glibc 2.38; on an
# older one it is taught to start: the few functions that it asks for beyond what is here are brought by a small library of ours.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.60.0
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "error: perf_analyzer $version is there for Linux on x86_64 only" >&2; exit 1; }
sources=tests/clients/perf_analyzer
key=$({ echo "$version"; getconf GNU_LIBC_VERSION; cat "$sources"/*; } | sha256sum | cut -c1-12)
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/perf-analyzer/$key
if [ ! -e "$folder/.complete" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    python=$(scripts/test-venv.sh)/bin/python
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform manylinux_2_38_x86_64 --dest "$folder" "perf-analyzer==$version" >&2
    "$python" -m zipfile -e "$folder"/*.whl "$folder/wheel"
    rm "$folder"/*.whl
    program=$folder/wheel/perf_analyzer/bin/perf_analyzer
    chmod +x "$program"
    preload=
    if ! "$program" --version >/dev/null 2>&1; then
        command -v c++ >/dev/null || { echo "error: this system is older than perf_analyzer $version wants, and to help it a C++ compiler is needed" >&2; exit 1; }
        c++ -O1 -shared -fPIC -o "$folder/libshim.so" "$sources/shim.cc"
        "$python" "$sources/weaken.py" "$program" GLIBC_2.38 GLIBCXX_3.4.31 GLIBCXX_3.4.32
        preload="LD_PRELOAD='$folder/libshim.so'"
    fi
    cat >"$folder/perf_analyzer" <<WRAPPER
#!/bin/sh
$preload exec "$program" "\$@"
WRAPPER
    chmod +x "$folder/perf_analyzer"
    "$folder/perf_analyzer" --version >&2
    touch "$folder/.complete"
fi
echo "$folder/perf_analyzer"
