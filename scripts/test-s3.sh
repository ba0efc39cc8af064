#!/usr/bin/env bash
# Prints where the S3 server of the tests is, after building it if it is not there: s3s-fs from crates.io, which keeps objects as files
# and checks signatures. It is a program of its own, and no dependency of Tidemill's.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.14.1
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/tools
if ! "$tools/bin/s3s-fs" --version 2>/dev/null | grep -qF "$version"; then
    echo "building s3s-fs $version" >&2
    # Not for speed: to be there soon.
    CARGO_TARGET_DIR=$target/tools-build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
        cargo install s3s-fs --version "$version" --features binary --locked --root "$tools" >&2
    rm -rf "$target/tools-build"
fi
echo "$tools/bin/s3s-fs"
