#!/usr/bin/env bash
# The page's browser tests against a real server that has played three weeks of flights, with everything happening earlier than in the
# demo: a model after five days, then windows, alerts and a retraining.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD

tidemill=${TIDEMILL_BIN:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug/tidemill}
[ -x "$tidemill" ] || { echo "error: $tidemill is not there: run \`make test-build\` first, or set TIDEMILL_BIN" >&2; exit 1; }

work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || { kill "$server" && wait "$server" || true; }
    rm -rf "$work"
}
trap finish EXIT

mkdir "$work/data"
cp examples/flights/data/2013-01.parquet "$work/data/"
cp examples/flights/tidemill.yaml "$work/"
change() {
    grep -qF -- "$1" "$work/tidemill.yaml" || { echo "error: the example's spec has no \`$1\` any more; mend $0" >&2; exit 1; }
    sed -i "s/$1/$2/" "$work/tidemill.yaml"
}
change 'first_after: 59d' 'first_after: 5d'
change 'budget: 1.5' 'budget: 0.2'
change 'iterations: 40 ' 'iterations: 15 '
change 'holdout: 14d' 'holdout: 2d'
change 'horizon: 2d' 'horizon: 1d'
change 'cooldown: 30d' 'cooldown: 6d'
change 'window: 14d, min_rows: 2000' 'window: 3d, min_rows: 500'
change 'window: 14d, max_drop: 0.05, min_labels: 2000' 'window: 3d, max_drop: 0.05, min_labels: 500'

cd "$work"
"$tidemill" up --json --port 0 --virtual-clock 2013-01-01 >"$work/url.json" 2>"$work/server.log" &
server=$!
for _ in $(seq 100); do
    [ -s "$work/url.json" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 1; }
    sleep 0.1
done
url=$(node -p 'JSON.parse(require("node:fs").readFileSync(process.argv[1], "utf8")).url' "$work/url.json")
"$tidemill" replay --to 2013-01-22 --url "$url" 2>/dev/null

cd "$repository/tests/ui"
TIDEMILL_URL=$url npm run --silent browser
