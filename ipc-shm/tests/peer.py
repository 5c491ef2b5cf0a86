"""Joins a channel of ipc-shm by the page in src/layout.rs, with nothing but the standard library.

peer.py send PATH COUNT makes a channel, gives its receiver to whoever listens at PATH, and sends.
peer.py receive PATH listens at PATH, and prints each message that comes in hexadecimal.

Python keeps its stores in order, and so do the processors of x86-64. Others would need more.
"""

import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys

CAPACITY = 4096
RING = 4096
TAIL, HEAD = 128 // 8, 256 // 8
SENDER, RECEIVER = 384 // 4, 512 // 4
ASLEEP, CLOSED, SLEEP = 1, 2, 4
MESSAGE, FILLER = 1 << 32, 2 << 32
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


GLOBAL_EXPEDITED, REGISTER = 2, 4


def membarrier(command):
    assert ctypes.CDLL(None).syscall(324, command, 0, 0) == 0, "no membarrier(2)"


class End:
    def __init__(self, mine, peer, parts):
        memory, self.bell, self.ringer, self.keeper = parts
        size = os.fstat(memory).st_size
        assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & SEALS == SEALS
        self.map = mmap.mmap(memory, size)
        told = struct.unpack("=8sIIQ", self.map[:24])
        assert told == (b"IPCSHM\0\0", 2, 0x01020304, size - RING), told
        self.capacity = size - RING
        self.words = memoryview(self.map).cast("Q")
        self.states = memoryview(self.map).cast("I")
        self.mine, self.peer = mine, peer
        self.state = self.rung = 0
        membarrier(REGISTER)

    def word(self, position):
        return (RING + position % self.capacity) // 8

    def peer_closed(self):
        return self.states[self.peer] & CLOSED != 0

    def wake(self):
        state = self.states[self.peer]
        if state & ASLEEP and state != self.rung:
            self.rung = state
            os.write(self.ringer, b"!")

    def wait(self, ready):
        """Sleeps until it is ready or the peer is closed."""
        while not ready() and not self.peer_closed():
            self.state = (self.state + SLEEP) % (1 << 32) | ASLEEP
            self.states[self.mine] = self.state
            membarrier(GLOBAL_EXPEDITED)
            if not ready() and not self.peer_closed():
                poll = select.poll()
                poll.register(self.bell, select.POLLIN)
                [(_, events)] = poll.poll()
                assert events & select.POLLHUP == 0 or self.peer_closed(), "the peer died"
                if events & select.POLLIN:
                    os.read(self.bell, 64)
            self.state &= ~ASLEEP
            self.states[self.mine] = self.state

    def close(self):
        self.states[self.mine] = self.state | CLOSED
        self.wake()


class Sender(End):
    def __init__(self, parts):
        super().__init__(SENDER, RECEIVER, parts)

    def send(self, message):
        tail = self.words[TAIL]
        size = 8 + (len(message) + 7) // 8 * 8
        to_end = self.capacity - tail % self.capacity
        filler = 0 if size <= to_end else to_end
        needed = filler + size + 8
        self.wait(lambda: self.capacity - (tail - self.words[HEAD]) >= needed)
        frame = tail + filler
        at = RING + frame % self.capacity + 8
        self.map[at : at + len(message)] = message
        self.words[self.word(frame + size)] = 0
        word = MESSAGE | len(message)
        if filler:
            self.words[self.word(frame)] = word
            word = FILLER | filler - 8
        self.words[self.word(tail)] = word
        self.words[TAIL] = frame + size
        self.wake()


class Receiver(End):
    def __init__(self, parts):
        super().__init__(RECEIVER, SENDER, parts)

    def recv(self):
        """One message, or None after the last."""
        head = self.words[HEAD]
        first = self.word(head)
        self.wait(lambda: self.words[first] != 0)
        word = self.words[first]
        if word == 0:
            return None
        if word & FILLER:
            head += 8 + (word & 0xFFFFFFFF)
            assert head % self.capacity == 0, "filler that does not end with the ring"
            word = self.words[self.word(head)]
        assert word >> 32 == 1, "neither message nor filler"
        length = word & 0xFFFFFFFF
        at = RING + head % self.capacity + 8
        message = self.map[at : at + length]
        self.words[HEAD] = head + 8 + (length + 7) // 8 * 8
        self.wake()
        return message


def create():
    """The parts of both ends of a fresh channel."""
    memory = os.memfd_create("python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.posix_fallocate(memory, 0, RING + CAPACITY)
    header = struct.pack("=8sIIQ", b"IPCSHM", 2, 0x01020304, CAPACITY)
    os.pwrite(memory, header, 0)
    for state in (SENDER, RECEIVER):
        os.pwrite(memory, b"\xff\xff\xff\xff", state * 4 + 4)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
    own, theirs = (os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(2))
    sender = [memory, own[0], theirs[1], os.dup(theirs[0])]
    receiver = [os.dup(memory), theirs[0], own[1], os.dup(own[0])]
    return sender, receiver


def send_parts(line, descriptors, data):
    header = struct.pack("<4sIQ", b"IPC1", len(descriptors), len(data))
    socket.send_fds(line, [header + data], descriptors)


def recv_parts(line):
    header, descriptors = b"", []
    while len(header) < 16:
        some, more, _, _ = socket.recv_fds(line, 16 - len(header), 32)
        assert some, "the connector hung up"
        header, descriptors = header + some, descriptors + more
    magic, count, length = struct.unpack("<4sIQ", header)
    assert (magic, count) == (b"IPC1", len(descriptors))
    return descriptors, line.recv(length, socket.MSG_WAITALL)


def pattern(number):
    return bytes((number + at) % 256 for at in range(number * 613 % 2041))


def send(path, count):
    ours, theirs = create()
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    send_parts(line, [], b"shm")
    send_parts(line, theirs, b"R\0")
    for descriptor in theirs:
        os.close(descriptor)
    sender = Sender(ours)
    for number in range(count):
        sender.send(pattern(number))
    sender.close()


def receive(path):
    door = socket.socket(socket.AF_UNIX)
    os.fchmod(door.fileno(), 0o600)
    door.bind(path)
    door.listen()
    line, _ = door.accept()
    assert recv_parts(line) == ([], b"shm")
    parts, data = recv_parts(line)
    assert data[:1] == b"R"
    receiver = Receiver(parts)
    while (message := receiver.recv()) is not None:
        print(message.hex())
    receiver.close()


signal.alarm(30)
if sys.argv[1] == "send":
    send(sys.argv[2], int(sys.argv[3]))
else:
    receive(sys.argv[2])
