"""Reads a log of ipc-file from its description in the README, with nothing but the standard library.

reader.py DIRECTORY prints each message in hexadecimal, and at last how the log ended.
"""

import os
import struct
import sys

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def header(data):
    magic, version, slots, crc = struct.unpack("<8sHHI", data[:16])
    epoch, size, number, base, synced, boot = struct.unpack("<6Q", data[16:64])
    assert (magic, version, slots) == (b"IPC-FLOG", 3, 1), "not a segment"
    assert crc32c(data[16:64], crc32c(data[:12])) == crc, "a damaged header"
    return epoch, size, number, base


def records(directory):
    names = sorted(name for name in os.listdir(directory) if len(name) == 16)
    number = int(names[0], 16)
    ended = "open"
    sequence = None
    while True:
        with open(os.path.join(directory, "%016x" % number), "rb") as file:
            data = file.read()
        epoch, size, own_number, base = header(data)
        assert own_number == number and size == len(data)
        assert sequence is None or sequence == base
        sequence = base
        seed = crc32c(struct.pack("<Q", epoch))
        at = 64
        while True:
            word = data[at : at + 8]
            if len(word) < 8 or word[7] >> 4 == 0:
                yield "end", ended
                return
            crc, info = struct.unpack("<II", word)
            kind, length = info >> 28, info & 0xFFFFFFF
            if kind == 6:
                assert crc32c(struct.pack("<IQ", info, sequence), seed) == crc, "a damaged skip"
                break
            record = data[at + 4 : at + 16 + length]
            assert crc32c(record, seed) == crc, "a damaged record at %d" % at
            assert struct.unpack("<Q", record[4:12])[0] == sequence, "out of sequence"
            ended = "closed" if kind == 5 else "open"
            if kind == 3:
                yield sequence, record[12:]
                sequence += 1
            at += (16 + length + 7) // 8 * 8
        number += 1


for key, value in records(sys.argv[1]):
    print(key, value if key == "end" else value.hex())
