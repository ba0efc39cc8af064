"""Lets a program start on a C library older than the one it was built with: the versions that are too new become weak requirements,
and a preloaded library has to bring the functions that were meant.

usage: weaken.py PROGRAM VERSION…
"""

import struct
import sys
from pathlib import Path

SHT_GNU_VERNEED = 0x6FFFFFFE
WEAK = 2


def main() -> None:
    path, versions = Path(sys.argv[1]), {name.encode() for name in sys.argv[2:]}
    elf = bytearray(path.read_bytes())
    assert elf[:6] == b"\x7fELF\x02\x01", "expected a 64-bit little-endian program"
    sections, size, count = struct.unpack_from("<Q", elf, 40)[0], *struct.unpack_from("<HH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, sections + i * size) for i in range(count)]
    for header in headers:
        if header[1] != SHT_GNU_VERNEED:
            continue
        names = headers[header[6]][4]
        need = header[4]
        for _ in range(header[7]):
            _, entries, _, first, following = struct.unpack_from("<HHIII", elf, need)
            entry = need + first
            for _ in range(entries):
                _, flags, _, name, after = struct.unpack_from("<IHHII", elf, entry)
                text = bytes(elf[names + name : elf.index(0, names + name)])
                if text in versions:
                    struct.pack_into("<H", elf, entry + 4, flags | WEAK)
                entry += after
            need += following
    path.write_bytes(elf)


main()
