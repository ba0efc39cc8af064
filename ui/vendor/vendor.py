#!/usr/bin/env python3
"""Vendors the page's libraries from npm: downloads pinned, checksummed packages, makes their imports relative.

    python3 ui/vendor/vendor.py           writes the files of this folder
    python3 ui/vendor/vendor.py --check   fails if a file here differs from what the packages give

The page runs under `default-src 'self'`, which forbids an inline import map: so bare specifiers become relative paths here.
To update a package: change its version and checksum (`npm view NAME@VERSION dist.integrity`) below, and run this file.
"""
import base64
import hashlib
import io
import pathlib
import re
import sys
import tarfile
import urllib.request

HERE = pathlib.Path(__file__).parent
REGISTRY = "https://registry.npmjs.org"

# name, version, integrity, {file in the package: file here}
PACKAGES = [
    ("preact", "11.2.0", "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
     {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"}),
    ("@preact/signals-core", "1.14.5", "sha512-vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg==", {"dist/signals-core.mjs": "signals-core.js"}),
    ("@preact/signals", "2.11.4", "sha512-Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw==", {"dist/signals.mjs": "signals.js"}),
    ("htm", "3.1.1", "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==", {"dist/htm.mjs": "htm.js"}),
    # uPlot's own ESM file is not minified; its minified script defines one variable, which we export.
    ("uplot", "1.6.32", "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==", {"dist/uPlot.iife.min.js": "uplot.js", "dist/uPlot.min.css": "uplot.css"}),
]

# What a bare specifier becomes.
SPECIFIERS = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}

# Types for `tsc --checkJs`: the packages' own, found in tests/ui/node_modules (same versions).
TYPES = {
    "preact.d.ts": "export * from 'preact';\n",
    "hooks.d.ts": "export * from 'preact/hooks';\n",
    "signals.d.ts": "export * from '@preact/signals';\n",
    "signals-core.d.ts": "export * from '@preact/signals-core';\n",
    "htm.d.ts": "import htm from 'htm';\nexport default htm;\n",
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
        return {m.name.split("/", 1)[1]: tar.extractfile(m).read().decode() for m in tar if m.isfile()}


def patched(text, target):
    """The file as it is vendored: relative imports, no source map, an export for uPlot."""
    text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "\n", text)

    def relative(match):
        specifier = match.group(2)
        if specifier not in SPECIFIERS:
            sys.exit(f"`{target}` imports `{specifier}`, which SPECIFIERS does not name")
        return f'{match.group(1)}"{SPECIFIERS[specifier]}"'

    text = re.sub(r'(\bfrom\s*|\bimport\s*)"([^"./][^"]*)"', relative, text) if target.endswith(".js") else text
    if target == "uplot.js":
        text = text.rstrip() + "\nexport default uPlot;\n"
    return text


def main():
    wanted = dict(TYPES)
    licences = ["# Licences of the vendored libraries\n", "Written by `vendor.py`; see there for how each file was made.\n"]
    for name, version, integrity, files in PACKAGES:
        content = package(name, version, integrity)
        for source, target in files.items():
            wanted[target] = patched(content[source], target)
        made = ", ".join(f"`{target}` (from `{source}`)" for source, target in files.items())
        licences.append(f"## {name} {version}\n\n{made}\n\n```\n{content['LICENSE'].strip()}\n```\n")
    wanted["LICENSES.md"] = "\n".join(licences)

    if "--check" in sys.argv[1:]:
        differing = [f for f, text in wanted.items() if not (HERE / f).is_file() or (HERE / f).read_text() != text]
        if differing:
            sys.exit("differs from the packages: " + ", ".join(differing) + "; run ui/vendor/vendor.py")
        return
    for target, text in wanted.items():
        (HERE / target).write_text(text)


main()
