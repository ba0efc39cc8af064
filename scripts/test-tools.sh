#!/usr/bin/env bash
# Makes ready what the tests need beside the code, and says loudly what cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
    echo "error: $1 is missing: $2" >&2
    exit 1
}

command -v cargo >/dev/null || missing cargo "install Rust from https://rustup.rs"
cargo fmt --version >/dev/null 2>&1 || missing rustfmt "rustup component add rustfmt"
cargo clippy --version >/dev/null 2>&1 || missing clippy "rustup component add clippy"
if ! cargo nextest --version >/dev/null 2>&1; then
    echo "installing cargo-nextest" >&2
    cargo install cargo-nextest --locked || missing cargo-nextest "see https://nexte.st/docs/installation"
fi

command -v node >/dev/null || missing node "install Node 20 or newer"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' || missing "Node 20" "this is $(node --version)"
command -v npm >/dev/null || missing npm "it comes with Node"
chromium=${CHROMIUM:-/usr/bin/chromium}
if [ ! -x "$chromium" ]; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || missing "$chromium" "install Chromium, or set CHROMIUM to where it is"
    echo "installing chromium" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends chromium >&2 || missing "$chromium" "apt-get install chromium failed"
fi

# npm writes this file when it is done.
if [ ! tests/ui/node_modules/.package-lock.json -nt tests/ui/package-lock.json ]; then
    (cd tests/ui && npm ci --no-audit --no-fund)
fi
scripts/test-venv.sh >/dev/null
scripts/test-venv.sh kserve >/dev/null
[ "$(uname -sm)" != "Linux x86_64" ] || scripts/perf-analyzer.sh >/dev/null
scripts/onnxruntime.sh >/dev/null
scripts/test-s3.sh >/dev/null
