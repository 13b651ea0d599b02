#!/usr/bin/env python3
"""End-to-end tests of the examples echo, handlers, guest and proxy: real sockets, every byte checked.

    python3 tests/e2e/examples.py build/examples [build/asan ...]      directories with the programs in them
    python3 tests/e2e/examples.py -k proxy build/examples              only tests whose name contains "proxy"
    python3 tests/e2e/examples.py --list                               names of the tests

Prints `ok NAME` or `FAIL NAME: detail` for each test, then `N passed, N failed`; the exit status is 0 if none failed. It
needs nothing but Python 3's standard library. No test asserts a time: the limits in here only tell a hang from a slow
machine. Each test starts programs of its own, stops them by a signal, and checks that they end well, that sanitizers
said nothing and that no fd was left open.
"""
import argparse
import errno
import os
import random
import re
import resource
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

HANG = 60.0  # seconds after which something that must happen is taken for a hang
TESTS = []


def test(*programs):
    def mark(fn):
        for program in programs:
            name = fn.__name__ if fn.__name__.startswith(program) else program + "_" + fn.__name__
            TESTS.append((name, program, fn))
        return fn
    return mark


class Failed(Exception):
    pass


def check(condition, detail):
    if not condition:
        raise Failed(detail)


def brief(value):
    text = repr(value)
    return text if len(text) <= 100 else text[:90] + "...(%d)" % len(value)


def equal(got, want, what):
    if got != want:
        raise Failed("%s: got %s, expected %s" % (what, brief(got), brief(want)))


def same_bytes(got, want, what):
    if bytes(got) != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise Failed("%s: %d bytes, expected %d; they differ from byte %d on" % (what, len(got), len(want), at))


def eventually(condition, what):
    """Waits for a state that a program reaches by itself."""
    end = time.monotonic() + HANG
    while not condition():
        if time.monotonic() > end:
            raise Failed("did not happen: " + what)
        time.sleep(0.005)


# ----------------------------------------------------------------------------------------------------------------
# the programs


class World:
    """The programs of one directory; scale makes transfers smaller where a sanitizer makes them slow."""

    def __init__(self, directory):
        self.directory = directory
        self.slow = False
        self.running = []

    def binary(self, name):
        return os.path.join(self.directory, name)

    def size(self, n):
        return n // 8 if self.slow else n

    def start(self, name, *arguments):
        server = Server(self, name, arguments)
        self.running.append(server)
        return server

    def clean(self):
        for server in self.running:
            server.kill()
        self.running = []


class Server:
    def __init__(self, world, name, arguments):
        self.name = name
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([world.binary(name), "--port", "0", *arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.errors, env=environment())
        timer = threading.Timer(HANG, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.fullmatch(rb"listening on 127\.0\.0\.1:([0-9]+)\n", line)
        if not found:
            self.kill()
            raise Failed("%s: the first line is %r; stderr: %s" % (name, line, self.stderr()))
        self.port = int(found.group(1))
        self.idle = self.fds()

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def limit_fds(self, n):
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (n, n))

    def rss_kb(self):
        with open("/proc/%d/status" % self.process.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1))

    def cpu_ticks(self):
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def connect(self, rcvbuf=None, sndbuf=None):
        s = socket.socket()
        if rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if sndbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        s.settimeout(HANG)
        s.connect(("127.0.0.1", self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def rests(self):
        """Waits until it has done all that it can do for now."""
        last = [-1]

        def unchanged():
            time.sleep(0.1)
            before, last[0] = last[0], self.cpu_ticks()
            return before == last[0]
        eventually(unchanged, "%s has nothing to do and sleeps" % self.name)

    def quiet(self):
        """Waits until no fd of a client is left."""
        eventually(lambda: self.fds() <= self.idle, "%s closes its fds: %d are open, %d were at the start" %
                   (self.name, self.fds(), self.idle))

    def stop(self, number=signal.SIGTERM):
        """Stops it and checks that it ends well. The last line that it printed."""
        check(self.process.poll() is None, "%s died before: status %s; %s" %
              (self.name, self.process.returncode, self.stderr()[:2000]))
        self.process.send_signal(number)
        try:
            out = self.process.communicate(timeout=HANG)[0].decode()
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed("%s did not stop; stderr: %s" % (self.name, self.stderr()[:2000]))
        errors = self.stderr()
        for sign in ("Sanitizer", "runtime error", "offload:"):
            check(sign not in errors, "%s reported: %s" % (self.name, errors[:3000]))
        equal(self.process.returncode, 0, "%s's exit status; stderr: %s" % (self.name, errors[:500]))
        lines = out.splitlines()
        check(lines, "%s printed nothing at its end" % self.name)
        return lines[-1]


def environment():
    env = dict(os.environ)
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=1:exitcode=99"
    env["UBSAN_OPTIONS"] = env.get("UBSAN_OPTIONS", "") + ":halt_on_error=1:print_stacktrace=1"
    return env


def run_to_end(world, name, *arguments):
    done = subprocess.run([world.binary(name), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment(), timeout=HANG)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# ----------------------------------------------------------------------------------------------------------------
# clients


def receive(s, n):
    """Exactly n bytes."""
    data = bytearray()
    while len(data) < n:
        more = s.recv(min(n - len(data), 1 << 20))
        check(more, "the stream ends after %d of %d bytes" % (len(data), n))
        data += more
    return bytes(data)


def receive_all(s):
    data = bytearray()
    while True:
        more = s.recv(1 << 20)
        if not more:
            return bytes(data)
        data += more


def receive_line(s):
    line = b""
    while not line.endswith(b"\n"):
        more = s.recv(1)
        check(more, "the stream ends within a line: %r" % line)
        line += more
    return line.decode()


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def was_reset(s):
    """True if the stream ends by a reset, False if in good order."""
    try:
        receive_all(s)
        return False
    except ConnectionResetError:
        return True


class Stream:
    """One end of a connection in `pump`: sends `out`, then half-closes if it is to; reads to the end of the stream."""

    def __init__(self, s, out=b"", half_close=True, piece=1 << 17):
        self.socket, self.out, self.half_close, self.piece = s, memoryview(out), half_close, piece
        self.got = bytearray()
        self.sent = 0
        self.said_all = self.heard_all = False
        s.setblocking(False)

    def write(self):
        try:
            self.sent += self.socket.send(self.out[self.sent:self.sent + self.piece])
        except BlockingIOError:
            pass

    def read(self):
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        self.got += data
        self.heard_all = not data

    def interest(self):
        if not self.said_all and self.sent == len(self.out):
            self.said_all = True
            if self.half_close:
                self.socket.shutdown(socket.SHUT_WR)
        return (0 if self.said_all else selectors.EVENT_WRITE) | (0 if self.heard_all else selectors.EVENT_READ)


def pump(streams, until=None):
    """Drives all of them at once, to their ends or until a condition holds."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            if stream.interest():
                selector.register(stream.socket, stream.interest(), stream)
        while selector.get_map() and not (until and until()):
            ready = selector.select(HANG)
            if not ready:
                raise Failed("nothing moves any more: " + ", ".join(
                    "sent %d of %d, got %d" % (s.sent, len(s.out), len(s.got)) for s in streams[:4]))
            for key, events in ready:
                stream = key.data
                if events & selectors.EVENT_READ:
                    stream.read()
                if events & selectors.EVENT_WRITE and not stream.said_all:
                    stream.write()
                want = stream.interest()
                if not want:
                    selector.unregister(stream.socket)
                elif want != key.events:
                    selector.modify(stream.socket, want, stream)


def push_until_stuck(s, data):
    """Sends until the peer takes no more, or all is sent; the bytes sent. That nothing went for a moment need not mean that
    nothing ever will: callers must not depend on it."""
    sent = 0
    s.setblocking(False)
    while sent < len(data) and select.select([], [s], [], 0.3)[1]:
        try:
            sent += s.send(memoryview(data)[sent:sent + (1 << 18)])
        except BlockingIOError:
            pass
    return sent


def close_all(streams):
    for stream in streams:
        (stream.socket if isinstance(stream, Stream) else stream).close()


def noise(seed, n):
    return random.Random(seed).randbytes(n)


# ----------------------------------------------------------------------------------------------------------------
# what is common to all of them: how a client talks to each, and what it must get


def prime(n):
    """Miller-Rabin; with these bases it is certain below 3.3e24 (Sorenson and Webster, 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if n < 2 or any(n % p == 0 for p in bases):
        return n in bases
    d, r = n - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for a in bases:
        x = pow(a, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(r - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def check_factors(line, number):
    found = re.fullmatch(r"(\d+):((?: \d+)*)  (software|threads)\n", line)
    check(found and int(found.group(1)) == number, "the answer to %d is %r" % (number, line))
    factors = [int(f) for f in found.group(2).split()]
    product = 1
    for f in factors:
        product *= f
        check(prime(f) or number < 2, "%d is not prime: %r" % (f, line))
    equal(product, number, "the product of " + line)
    equal(factors, sorted(factors), "the order of " + line)
    return found.group(3)


def sum_of(data):
    return b"%08x %d\n" % (zlib.crc32(data), len(data))


def numbers(seed, n):
    """Small enough to be factored on the spot."""
    rng = random.Random(seed)
    return [rng.randrange(1 << rng.randrange(1, 32)) for _ in range(n)]


def task(program, seed, size):
    """What a client sends, and a function that checks the answer."""
    data = noise(seed, size)
    if program == "handlers":
        asked = numbers(seed, max(1, size // 64))
        text = "".join("%d\n" % n for n in asked).encode()

        def verify(got):
            lines = got.decode().splitlines(True)
            equal(len(lines), len(asked), "answers")
            for line, number in zip(lines, asked):
                check_factors(line, number)
        return text, verify
    if program == "guest":
        return data, lambda got: same_bytes(got, sum_of(data), "the sum")
    return data, lambda got: same_bytes(got, data, "what comes back")


def programs_for(world, program):
    """The program, and what it needs behind it."""
    if program != "proxy":
        return [world.start(program)]
    target = world.start("echo")
    return [world.start("proxy", "127.0.0.1", str(target.port)), target]


def stop_all(servers):
    for server in servers:
        server.quiet()
    return [server.stop() for server in servers]


ALL = ("echo", "handlers", "guest", "proxy")
SLOW_PRIME = 9007199254740881  # below 2^53: tens of millions of divisions


@test(*ALL)
def serves_many_clients_at_once(world, program):
    servers = programs_for(world, program)
    rng = random.Random(3)
    tasks = [task(program, i, rng.randrange(1, 3000)) for i in range(150)]
    sockets = [servers[0].connect() for _ in tasks]  # all are there before the first one says anything
    streams = [Stream(s, text) for s, (text, _) in zip(sockets, tasks)]
    pump(streams)
    for stream, (_, verify) in zip(streams, tasks):
        verify(stream.got)
    close_all(streams)
    stop_all(servers)


@test(*ALL)
def takes_its_input_in_pieces_of_any_size(world, program):
    servers = programs_for(world, program)
    for piece in (1, 7, 1000, 65537):
        text, verify = task(program, piece, 300 if piece == 1 else 200000)
        stream = Stream(servers[0].connect(), text, piece=piece)
        pump([stream])
        verify(stream.got)
        close_all([stream])
    stop_all(servers)


@test(*ALL)
def moves_big_transfers_with_every_byte_right(world, program):
    servers = programs_for(world, program)
    tasks = [task(program, 11 + i, world.size(24 << 20) if program != "handlers" else world.size(800000)) for i in range(3)]
    streams = [Stream(servers[0].connect(), text) for text, _ in tasks]
    pump(streams)
    for stream, (_, verify) in zip(streams, tasks):
        verify(stream.got)
    close_all(streams)
    stop_all(servers)


@test(*ALL)
def survives_resets_at_any_moment(world, program):
    servers = programs_for(world, program)
    rng = random.Random(5)
    slow = b"%d\n" % SLOW_PRIME
    for i in range(60):
        s = servers[0].connect()
        text, _ = task(program, i, 100000)
        if program == "handlers" and i % 20 == 0:
            text = slow + text
        push = text[:rng.randrange(len(text))]
        s.setblocking(False)
        try:
            s.send(push)
        except BlockingIOError:
            pass
        s.setblocking(True)
        if i % 3 == 1:
            s.settimeout(HANG)
            s.shutdown(socket.SHUT_WR)
        if i % 3 == 2:
            s.close()  # with data unread: the kernel makes it a reset
        else:
            reset(s)
    text, verify = task(program, 999, 50000)
    stream = Stream(servers[0].connect(), text)
    pump([stream])
    verify(stream.got)
    close_all([stream])
    stop_all(servers)


@test(*ALL)
def a_client_that_does_not_read_loses_nothing_and_holds_up_nobody(world, program):
    servers = programs_for(world, program)
    text, verify = task(program, 21, world.size(16 << 20))
    if program == "handlers":  # more answers than the system's buffers take
        text = b"2\n" * 500000
        verify = lambda got: same_bytes(got, b"2: 2  software\n" * 500000, "the answers")
    deaf = servers[0].connect(rcvbuf=4096)
    sent = push_until_stuck(deaf, text)
    for server in servers:
        server.rests()
    for i in range(5):
        other, check_other = task(program, 30 + i, 2000)
        stream = Stream(servers[0].connect(), other)
        pump([stream])
        check_other(stream.got)
        close_all([stream])
    for server in servers:
        check(server.rss_kb() < 400 << 10, "%s grows to %d kB" % (server.name, server.rss_kb()))
    stream = Stream(deaf, text)
    stream.sent = sent
    pump([stream])
    verify(stream.got)
    close_all([stream])
    stop_all(servers)


@test("echo", "handlers", "guest")
def clients_wait_while_no_fd_is_free_and_all_are_served(world, program):
    server = world.start(program)
    server.limit_fds(40)
    tasks = [task(program, i, 500) for i in range(80)]
    streams = [Stream(server.connect(), text) for text, _ in tasks]
    eventually(lambda: server.fds() == 40, "it uses all of its fds")
    server.rests()
    pump(streams)
    for stream, (_, verify) in zip(streams, tasks):
        verify(stream.got)
    close_all(streams)
    server.quiet()
    server.stop()
    check("ulimit -n" in server.stderr() or "Too many open files" in server.stderr(),
          "it doesn't say why they waited: %r" % server.stderr())


@test(*ALL)
def stops_cleanly_with_clients_in_every_state(world, program):
    for number in (signal.SIGTERM, signal.SIGINT):
        servers = programs_for(world, program)
        text, verify = task(program, 1, 5000)
        served = Stream(servers[0].connect(), text)  # it has been served, and stays
        pump([served])
        verify(served.got)
        silent = servers[0].connect()
        half = servers[0].connect()
        half.sendall(text[:1])
        stuck = servers[0].connect(rcvbuf=4096)
        push_until_stuck(stuck, task(program, 2, 4 << 20)[0])
        busy = servers[0].connect()
        if program == "handlers":
            busy.sendall(b"%d\n%d\n" % (SLOW_PRIME, SLOW_PRIME))
        else:
            busy.setblocking(False)
            busy.send(noise(1, 1 << 20))
        servers[0].stop(number)
        close_all([served, silent, half, stuck, busy])
        for server in servers[1:]:
            server.quiet()
            server.stop(number)


@test(*ALL)
def explains_itself_and_refuses_nonsense(world, program):
    status, out, err = run_to_end(world, program, "--help")
    equal((status, err), (0, ""), "--help")
    check("usage: " + program in out and "--port" in out, "--help says %r" % out)
    last = ["127.0.0.1", "1"] if program == "proxy" else []
    for wrong in (["--port"], ["--port", "x"], ["--port", "-1"], ["--port", "65536"], ["--port", "1x"], ["--port", ""],
                  ["--nonsense", "1"], ["a", "b", "c", "d", "e", "f"]):
        status, out, err = run_to_end(world, program, *wrong, *last)
        equal((status, out), (2, ""), "with " + " ".join(wrong))
        check("usage: " + program in err, "with %s it says %r" % (wrong, err))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, out, err = run_to_end(world, program, "--port", str(taken.getsockname()[1]), *last)
        equal((status, out), (1, ""), "with a port in use")
        check("cannot listen" in err and "in use" in err, "with a port in use it says %r" % err)


# ----------------------------------------------------------------------------------------------------------------
# handlers


@test("handlers")
def handlers_answers_right_and_in_order(world, program):
    server = world.start("handlers")
    rng = random.Random(8)
    asked = [0, 1, 2, 3, 4, 1 << 52, (1 << 53) - 1, 2147483647 * 3, 67280421310721 * 2, 65521 * 65521, 94906249 ** 2]
    asked += [rng.randrange(1 << 40) for _ in range(60)]
    stream = Stream(server.connect(), "".join("%d\r\n" % n if n % 2 else "%d\n" % n for n in asked).encode())
    pump([stream])
    lines = stream.got.decode().splitlines(True)
    equal(len(lines), len(asked), "answers")
    where = [check_factors(line, number) for line, number in zip(lines, asked)]
    check("threads" in where and "software" in where, "all was done in one place: %s" % set(where))
    close_all([stream])
    server.quiet()
    equal(server.stop(), "%d numbers factored" % len(asked), "the last line")


@test("handlers")
def handlers_says_what_is_wrong_and_goes_on(world, program):
    server = world.start("handlers")
    with server.connect() as s:
        for wrong in (b"\n", b"x\n", b"-1\n", b" 5\n", b"5 \n", b"9007199254740992\n", b"99999999999999999999999\n", b"7\0\n"):
            s.sendall(wrong + b"6\n")
            if wrong != b"7\0\n":  # a C string ends there
                equal(receive_line(s), "error: a line must be a number below 2^53\n", "the answer to %r" % wrong)
            else:
                receive_line(s)
            check_factors(receive_line(s), 6)
        s.sendall(b"1" * 300)
        try:
            equal(receive_all(s), b"", "after a line without an end")
        except ConnectionResetError:
            pass  # it closed with bytes unread
    server.quiet()
    server.stop()


@test("handlers")
def handlers_a_slow_request_holds_up_its_own_connection_only(world, program):
    server = world.start("handlers")
    slow, quick = server.connect(), server.connect()
    slow.sendall(b"%d\n" % SLOW_PRIME * 8 + b"6\n")
    for n in range(1, 50):
        quick.sendall(b"%d\n" % n)
        check_factors(receive_line(quick), n)
    slow.setblocking(False)
    early = b""
    try:
        early = slow.recv(1 << 16)
    except BlockingIOError:
        pass
    check(b"6: " not in early, "what came behind the slow ones was answered before the quick ones of another connection")
    slow.settimeout(HANG)
    rest = early + receive(slow, len(("%d: %d  threads\n" % (SLOW_PRIME, SLOW_PRIME))) * 8 + len("6: 2 3  software\n") - len(early))
    lines = rest.decode().splitlines(True)
    for line in lines[:8]:
        equal(check_factors(line, SLOW_PRIME), "threads", "where")
    check_factors(lines[8], 6)
    close_all([slow, quick])
    server.quiet()
    server.stop()


# ----------------------------------------------------------------------------------------------------------------
# guest


@test("guest")
def guest_sums_small_and_empty_streams(world, program):
    server = world.start("guest")
    block = 1 << 18  # its buffer
    sizes = [0, 1, 100, 16383, 16384, block - 1, block, block + 1, 2 * block, 3 * block + 5]
    for n in sizes:
        stream = Stream(server.connect(), noise(n, n))
        pump([stream])
        same_bytes(stream.got, sum_of(noise(n, n)), "the sum of %d bytes" % n)
        close_all([stream])
    server.quiet()
    equal(server.stop(), "%d sums" % len(sizes), "the last line")


@test("guest")
def guest_answers_others_while_a_long_stream_goes_on(world, program):
    server = world.start("guest")
    data = noise(4, world.size(32 << 20))
    long = Stream(server.connect(), data, half_close=False)
    for i in range(20):
        goal = len(data) * (i + 1) // 21
        pump([long], lambda: long.sent >= goal)  # it stands still in the middle
        short = Stream(server.connect(), noise(i, 1000))
        pump([short])
        same_bytes(short.got, sum_of(noise(i, 1000)), "a short sum")
        close_all([short])
    long.half_close = True
    pump([long])
    same_bytes(long.got, sum_of(data), "the long sum")
    close_all([long])
    server.quiet()
    equal(server.stop(), "21 sums", "the last line")


# ----------------------------------------------------------------------------------------------------------------
# proxy


class Target:
    """The far side of a proxy, played by the test."""

    def __init__(self, world, rcvbuf=None):
        self.listener = socket.socket()
        if rcvbuf:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.settimeout(HANG)
        self.port = self.listener.getsockname()[1]
        self.proxy = world.start("proxy", "127.0.0.1", str(self.port))

    def pair(self, **options):
        near = self.proxy.connect(**options)
        far, _ = self.listener.accept()
        far.settimeout(HANG)
        return near, far

    def end(self):
        self.listener.close()
        self.proxy.quiet()
        return self.proxy.stop()


@test("proxy")
def proxy_moves_both_directions_at_once(world, program):
    target = Target(world)
    streams = []
    for i in range(8):
        near, far = target.pair()
        there, back = noise(2 * i, world.size(3 << 20)), noise(2 * i + 1, world.size(5 << 20))
        streams += [(Stream(near, there), back), (Stream(far, back), there)]
    pump([stream for stream, _ in streams])
    for stream, want in streams:
        same_bytes(stream.got, want, "one direction")
    close_all([stream for stream, _ in streams])
    equal(target.end(), "8 clients, %d bytes" % (8 * (world.size(3 << 20) + world.size(5 << 20))), "the last line")


@test("proxy")
def proxy_a_half_close_ends_one_direction_and_the_other_goes_on(world, program):
    target = Target(world)
    for client_first in (True, False):
        near, far = target.pair()
        first, second = (near, far) if client_first else (far, near)
        first.sendall(b"all that I have to say")
        first.shutdown(socket.SHUT_WR)
        same_bytes(receive_all(second), b"all that I have to say", "before the half-close")
        for i in range(20):  # long after the one direction has ended
            second.sendall(noise(i, 10000))
            same_bytes(receive(first, 10000), noise(i, 10000), "after the half-close")
        second.shutdown(socket.SHUT_WR)
        equal(receive_all(first), b"", "the end")
        close_all([near, far])
    target.end()


@test("proxy")
def proxy_an_end_that_breaks_off_breaks_the_other_off(world, program):
    target = Target(world)
    for breaker in range(2):
        for say_first in (b"", noise(1, 100000)):
            ends = target.pair()
            ends[breaker].sendall(say_first)
            same_bytes(receive(ends[1 - breaker], len(say_first)), say_first, "before the break")
            reset(ends[breaker])
            check(was_reset(ends[1 - breaker]), "a broken transfer ends like a complete one")
            close_all(ends)
    near, far = target.pair()  # one direction has ended in good order before
    near.shutdown(socket.SHUT_WR)
    equal(receive_all(far), b"", "the half-close")
    reset(far)
    check(was_reset(near), "a broken transfer ends like a complete one")
    near.close()
    target.end()


@test("proxy")
def proxy_a_receiver_that_does_not_read_stops_the_sender_and_nobody_else(world, program):
    target = Target(world, rcvbuf=65536)
    data = noise(6, 24 << 20)  # more than the system's buffers take
    near, far = target.pair(sndbuf=65536)
    before = target.proxy.rss_kb()
    sent = push_until_stuck(near, data)
    other_near, other_far = target.pair()
    pump([Stream(other_near, data[:100000]), Stream(other_far, data[:50000])])
    check(target.proxy.rss_kb() - before < 8192, "the proxy hoards: it grew by %d kB" % (target.proxy.rss_kb() - before))
    back = Stream(near, data)
    back.sent = sent
    forth = Stream(far, data[:1000])
    pump([back, forth])
    same_bytes(forth.got, data, "what was held back")
    same_bytes(back.got, data[:1000], "the other direction")
    close_all([near, far, other_near, other_far])
    target.end()


def is_turned_away(server):
    """A client that is reset, be it while it connects."""
    try:
        with server.connect() as s:
            return was_reset(s)
    except ConnectionResetError:
        return True


@test("proxy")
def proxy_a_target_that_is_not_there_breaks_the_client_off_and_is_reported(world, program):
    with socket.socket() as nobody:  # a port at which nothing listens
        nobody.bind(("127.0.0.1", 0))
        proxy = world.start("proxy", "127.0.0.1", str(nobody.getsockname()[1]))
        for _ in range(3):
            check(is_turned_away(proxy), "the client is not told")
        proxy.quiet()
        equal(proxy.stop(), "3 clients, 0 bytes", "the last line")
        check("cannot reach the target: connection refused" in proxy.stderr(), "it says %r" % proxy.stderr())


@test("proxy")
def proxy_without_a_free_fd_turns_away_and_goes_on_with_the_rest(world, program):
    target = Target(world)
    target.proxy.limit_fds(target.proxy.idle + 2 * 5 + 1)
    pairs = [target.pair() for _ in range(5)]
    check(is_turned_away(target.proxy), "the client is not told")  # the last fd is its own, none is left for the target
    for near, far in pairs:
        ends = [Stream(near, noise(1, 100000)), Stream(far, noise(2, 100000))]
        pump(ends)
        same_bytes(ends[0].got, noise(2, 100000), "one direction")
        same_bytes(ends[1].got, noise(1, 100000), "the other direction")
        close_all(ends)
    target.end()
    check("turned away" in target.proxy.stderr(), "it says %r" % target.proxy.stderr())


@test("proxy")
def proxy_names_what_it_cannot_resolve(world, program):
    status, out, err = run_to_end(world, "proxy", "no host of this name", "80")
    equal((status, out), (1, ""), "a name that can't be")
    check(err.startswith("proxy: cannot resolve HOST and PORT: "), "it says %r" % err)


@test("proxy")
def proxy_a_stop_breaks_off_what_is_under_way(world, program):
    target = Target(world)
    near, far = target.pair()
    near.sendall(b"half a trans")
    same_bytes(receive(far, 12), b"half a trans", "before the stop")
    target.proxy.stop()
    check(was_reset(near) and was_reset(far), "a broken transfer ends like a complete one")
    close_all([near, far])
    target.listener.close()


# ----------------------------------------------------------------------------------------------------------------


def run(world, tests, failures):
    passed = 0
    for name, program, fn in tests:
        begin = time.monotonic()
        try:
            fn(world, program)
            passed += 1
            line = "ok " + name
        except Exception as e:  # one failed test must not hide the others
            failures.append(name)
            line = "FAIL %s: %s" % (name, e if isinstance(e, Failed) else "%s: %s" % (type(e).__name__, e))
        world.clean()
        took = time.monotonic() - begin
        print(line + ("  # %.1f s" % took if took >= 2 else ""), flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", metavar="DIRECTORY", help="where the programs are")
    parser.add_argument("-k", metavar="TEXT", default="", help="only tests whose name contains TEXT")
    parser.add_argument("--list", action="store_true", help="names of the tests")
    options = parser.parse_args()
    tests = [t for t in TESTS if options.k in t[0]]
    if options.list:
        print("\n".join(t[0] for t in tests))
        return 0
    if not options.directories:
        parser.error("give a directory with the examples in it, such as build/examples")
    if not tests:
        parser.error("no test's name contains %r: see --list" % options.k)
    passed, failures = 0, []
    for directory in options.directories:
        for program in sorted({t[1] for t in tests} | {"echo"}):
            if not os.access(os.path.join(directory, program), os.X_OK):
                parser.error("%s can't be run: build it first (make)" % os.path.join(directory, program))
        print("# %s" % directory, flush=True)
        world = World(directory)
        with open(world.binary("echo"), "rb") as f:
            world.slow = b"__asan_init" in f.read()
        passed += run(world, tests, failures)
    print("%d passed, %d failed" % (passed, len(failures)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
