#!/usr/bin/env python3
"""Vendors the page's libraries from npm: downloads pinned, checksummed packages, and makes two modules without bare imports.

    python3 ui/vendor/vendor.py           writes the files of this folder
    python3 ui/vendor/vendor.py --check   fails if a file here differs from what the packages give

The page runs under `default-src 'self'`, which forbids an inline import map: so no bare specifier may be left here.
To update a package: change its version and checksum (`npm view NAME@VERSION dist.integrity`) below, and run this file.
"""
import base64
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).parent
REGISTRY = "https://registry.npmjs.org"

# name, version, integrity
PACKAGES = [
    ("preact", "11.2.0", "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg=="),
    ("@preact/signals-core", "1.14.5", "sha512-vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg=="),
    ("@preact/signals", "2.11.4", "sha512-Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw=="),
    ("htm", "3.1.1", "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ=="),
    ("uplot", "1.6.32", "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=="),
]
# Joins the four small packages into one module; needed here only, neither to build nor to run Tidemill.
ESBUILD = ("@esbuild/linux-x64", "0.28.2",
           "sha512-4xTZr1FUmSoQW4XIWmit3tzQrUTZM+N3P0XV8xROKYF50XfI7xeO90+1bZvNwxIufQ9hDQVRJH5YhgPVF8A/HQ==")

# What the page takes from them: `preact.js` exports this and no more.
ENTRY = """export { h, render } from 'preact';
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
export { effect, signal } from '@preact/signals';
export { default as htm } from 'htm';
"""

# Types for `tsc --checkJs`: the packages' own, found in tests/ui/node_modules (same versions).
TYPES = {
    "preact.d.ts": ENTRY,
    "uplot.d.ts": "import uPlot from 'uplot';\nexport default uPlot;\n",
}


def package(name, version, integrity):
    """The package's files by path, after its checksum was verified."""
    url = f"{REGISTRY}/{name}/-/{name.split('/')[-1]}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=60) as answer:
        archive = answer.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != integrity:
        sys.exit(f"`{url}` has checksum `{found}`, expected `{integrity}`")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name.split("/", 1)[1]: tar.extractfile(m).read() for m in tar if m.isfile()}


def joined(content, folder):
    """The module that `ENTRY` describes."""
    for name, files in content.items():
        for path, data in files.items():
            target = folder / "node_modules" / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    tool = folder / "esbuild"
    tool.write_bytes(package(*ESBUILD)["bin/esbuild"])
    tool.chmod(0o755)
    (folder / "entry.js").write_text(ENTRY)
    command = [tool, "entry.js", "--bundle", "--minify", "--format=esm", "--target=es2022", "--charset=utf8", "--log-level=error"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def main():
    content = {name: package(name, version, integrity) for name, version, integrity in PACKAGES}
    uplot = content["uplot"]
    with tempfile.TemporaryDirectory() as folder:
        wanted = TYPES | {"preact.js": joined(content, pathlib.Path(folder))}
    # uPlot's own ESM file is not minified; its minified script defines one variable, which we export.
    wanted["uplot.js"] = uplot["dist/uPlot.iife.min.js"].decode().rstrip() + "\nexport default uPlot;\n"
    wanted["uplot.css"] = uplot["dist/uPlot.min.css"].decode()
    licences = ["# Licences of the vendored libraries\n", "Written by `vendor.py`; see there for how each file was made.\n"]
    for name, version, _ in PACKAGES:
        where = "`uplot.js`, `uplot.css`" if name == "uplot" else "part of `preact.js`"
        licences.append(f"## {name} {version}\n\n{where}\n\n```\n{content[name]['LICENSE'].decode().strip()}\n```\n")
    wanted["LICENSES.md"] = "\n".join(licences)

    if "--check" in sys.argv[1:]:
        differing = [f for f, text in wanted.items() if not (HERE / f).is_file() or (HERE / f).read_text() != text]
        if differing:
            sys.exit("differs from the packages: " + ", ".join(differing) + "; run ui/vendor/vendor.py")
        return
    for target, text in wanted.items():
        (HERE / target).write_text(text)


main()
