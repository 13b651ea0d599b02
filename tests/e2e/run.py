#!/usr/bin/env python3
"""End-to-end tests of gzip_server: real sockets, real files, curl, gzip and wrk.

    python3 tests/e2e/run.py build/examples/gzip_server [build/asan/gzip_server ...]
    python3 tests/e2e/run.py -k pipelined build/examples/gzip_server     only tests whose name contains "pipelined"
    python3 tests/e2e/run.py --list                                       names of the tests

Runs every test for each server given. Prints `ok NAME` or `FAIL NAME: detail` for each, then `N passed, N failed`;
the exit status is 0 if none failed. It needs Python 3's standard library, gzip and curl; wrk is used where it is
installed. No test asserts a time: the time limits in here only tell a hang from a slow machine.
"""
import argparse
import gzip
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zlib

HANG = 30.0  # seconds after which something that must happen is taken for a hang
TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


class Failed(Exception):
    pass


def check(condition, detail):
    if not condition:
        raise Failed(detail)


def equal(got, want, what):
    if got != want:
        raise Failed("%s: got %s, expected %s" % (what, brief(got), brief(want)))


def brief(value):
    text = repr(value)
    if len(text) > 120:
        text = text[:110] + "...(%d)" % len(value) if hasattr(value, "__len__") else text[:110]
    return text


def eventually(condition, what):
    """Waits for a state that the server reaches by itself."""
    end = time.monotonic() + HANG
    while not condition():
        if time.monotonic() > end:
            raise Failed("did not happen: " + what)
        time.sleep(0.01)


# ----------------------------------------------------------------------------------------------------------------
# the server under test


class Server:
    """A server process on a free port. As a context manager it is stopped by SIGTERM and must exit cleanly."""

    def __init__(self, world, *options, directory=None, nofile=None):
        self.world = world
        self.options = list(options)
        if "--port" not in self.options:
            self.options += ["--port", "0"]
        self.command = [world.binary] + self.options + [directory or world.root]
        self.errors = tempfile.TemporaryFile()
        self.nofile = nofile
        self.process = None
        self.port = None

    def limit(self):
        if self.nofile:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, env=environment(), preexec_fn=self.limit)
        self.world.running.append(self.process)
        line = self.first_line()
        found = re.fullmatch(rb"listening on 127\.0\.0\.1:([0-9]+)\n", line)
        if not found:
            self.process.kill()
            self.process.wait()
            raise Failed("the server's first line is %r; stderr: %s" % (line, self.stderr()))
        self.port = int(found.group(1))
        return self

    def first_line(self):
        timer = threading.Timer(HANG, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline()
        finally:
            timer.cancel()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """Waits for the end; checks that it was a clean one."""
        try:
            status = self.process.wait(HANG)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("the server did not stop; stderr: " + self.stderr())
        finally:
            self.process.stdout.close()
        text = self.stderr()
        for sign in ("Sanitizer", "runtime error", "panic"):
            check(sign not in text, "the server reported: " + text[:2000])
        check(status == 0, "exit status %d; stderr: %s" % (status, text[:2000]))

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.signal()
        if kind is None:
            self.wait()
        else:
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def status_kb(self, field):
        with open("/proc/%d/status" % self.process.pid) as f:
            return int(re.search(field + r":\s+(\d+) kB", f.read()).group(1))

    def cpu_ticks(self):
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def connect(self, **options):
        return Client(self.port, **options)

    def get(self, target, coding="gzip", method="GET", more=""):
        with self.connect() as client:
            client.ask(target, coding, method, more + "Connection: close\r\n")
            return client.answer(method)

    def alive(self):
        equal(self.get("/100.html", None).status, 200, "a request afterwards")


def environment():
    env = dict(os.environ)
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=1:exitcode=99"
    env["UBSAN_OPTIONS"] = env.get("UBSAN_OPTIONS", "") + ":halt_on_error=1:print_stacktrace=1"
    return env


def run_to_end(world, *arguments):
    """A start that is expected to end by itself: (exit status, stdout, stderr)."""
    done = subprocess.run([world.binary] + list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment(), timeout=HANG)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# ----------------------------------------------------------------------------------------------------------------
# a client that trusts nothing


class Answer:
    def __init__(self, status, reason, fields):
        self.status, self.reason, self.fields = status, reason, fields
        self.raw = b""  # the body as it came, transfer coding removed

    def field(self, name):
        return self.fields.get(name.lower())

    @property
    def coding(self):
        return self.field("content-encoding")

    @property
    def body(self):
        return gunzip(self.raw) if self.coding == "gzip" else self.raw


def gunzip(data):
    """One gzip member, complete, with nothing behind it."""
    machine = zlib.decompressobj(31)
    out = machine.decompress(data)
    check(machine.eof, "the gzip member is truncated after %d bytes" % len(data))
    check(not machine.unused_data, "there are %d bytes behind the gzip member" % len(machine.unused_data))
    return out


class Truncated(Exception):
    pass


class Client:
    def __init__(self, port, rcvbuf=None):
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(HANG)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")
        self.begun = False  # the first byte of an answer has come

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def reset(self):
        """Ends the connection the hard way, with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, target, coding="gzip", method="GET", more=""):
        accept = "Accept-Encoding: %s\r\n" % coding if coding is not None else ""
        self.send(("%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n" % (method, target, accept, more)).encode("latin-1"))

    def line(self):
        line = self.file.readline(65536)
        if not line.endswith(b"\r\n"):
            raise Truncated("a line ends early: %r" % line)
        return line[:-2].decode("latin-1")

    def head(self):
        self.begun = False
        first = self.file.read(1)
        if not first:
            raise Truncated("no answer")
        self.begun = True
        line = first.decode("latin-1") + self.line()
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) (.+)", line)
        check(found, "status line %r" % line)
        fields = {}
        while True:
            line = self.line()
            if not line:
                break
            name, _, value = line.partition(": ")
            check(re.fullmatch(r"[A-Za-z-]+", name) and name.lower() not in fields, "field %r" % line)
            fields[name.lower()] = value
        return Answer(int(found.group(1)), found.group(2), fields)

    def exactly(self, n):
        data = self.file.read(n)
        if len(data) != n:
            raise Truncated("%d bytes are missing" % (n - len(data)))
        return data

    def pieces(self, answer, method="GET"):
        """The body piece by piece, as the framing says."""
        if method == "HEAD" or answer.status == 304:
            return
        length = answer.field("content-length")
        if answer.field("transfer-encoding") == "chunked":
            check(length is None, "both Content-Length and chunked")
            while True:
                size = int(self.line(), 16)
                if size:
                    yield self.exactly(size)
                check(self.line() == "", "a chunk does not end where it says")
                if not size:
                    return
        elif length is not None:
            left = int(length)
            while left:
                data = self.exactly(min(left, 1 << 20))
                left -= len(data)
                yield data
        else:
            check(answer.field("connection") == "close", "a body without a length on a connection that stays")
            while True:
                data = self.file.read(65536)
                if not data:
                    return
                yield data

    def answer(self, method="GET"):
        answer = self.head()
        answer.raw = b"".join(self.pieces(answer, method))
        return answer

    def at_end(self):
        """True if the server has closed in good order (a reset raises)."""
        return self.file.read(1) == b""


def talk(server, data, half_close=False):
    """Sends raw bytes, expects one answer and then an orderly end."""
    with server.connect() as client:
        client.send(data)
        if half_close:
            client.socket.shutdown(socket.SHUT_WR)
        answer = client.answer()
        check(client.at_end(), "bytes behind the last answer")
        return answer


# ----------------------------------------------------------------------------------------------------------------
# the world: a directory to serve, a directory outside


SIZES = [0, 1, 2, 19, 100, 1000, 4096, 8191, 8192, 8193, 32767, 32768, 32769, 65535, 65536, 65537, 98304, 131071,
         131072, 131073, 1000003]
BIG = 160 << 20  # sparse: costs no disk
WORDS = [b"<p>", b"the ", b"stream ", b"of ", b"bytes ", b"loop ", b"</p>\n", b"worker ", b"compress", b"ed ", b"and "]


def text_bytes(rng, n):
    out = bytearray()
    while len(out) < n:
        out += rng.choice(WORDS) if rng.random() < 0.9 else b"%d " % rng.randrange(100000)
    return bytes(out[:n])


class World:
    def __init__(self, binary):
        self.binary = os.path.abspath(binary)
        self.asan = False
        self.running = []
        self.base = tempfile.mkdtemp(prefix="gzip_server.")
        self.root = os.path.join(self.base, "site")
        self.files = {}  # target -> contents
        self.build()

    def write(self, name, data):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    def build(self):
        rng = random.Random(20)
        for n in SIZES:
            self.files["/%d.html" % n] = text_bytes(rng, n)
        self.files["/noise.txt"] = rng.randbytes(300001)
        self.files["/small-noise.txt"] = rng.randbytes(3000)
        self.files["/zeros.css"] = bytes(500000)
        self.files["/picture.png"] = rng.randbytes(70000)
        self.files["/unknown.xyz"] = text_bytes(rng, 9000)
        self.files["/sub/page.htm"] = text_bytes(rng, 3000)
        for target, data in self.files.items():
            self.write(target[1:], data)
        self.write("index.html", b"front page\n" * 20)
        self.write("sub/index.html", b"sub page\n" * 20)
        self.write("a b.txt", b"blank\n" * 30)
        self.write("gr\u00fcn/\u4e2d.txt", b"names\n" * 30)
        os.mkdir(os.path.join(self.root, "empty"))
        with open(os.path.join(self.root, "big.txt"), "wb") as f:
            f.write(b"begin")
            f.truncate(BIG)
        os.mkfifo(os.path.join(self.root, "fifo.html"))
        with open(os.path.join(self.base, "secret.txt"), "wb") as f:
            f.write(b"SECRET\n" * 100)
        os.symlink("1000.html", os.path.join(self.root, "inside.html"))
        os.symlink("../secret.txt", os.path.join(self.root, "outside.txt"))
        os.symlink("..", os.path.join(self.root, "up"))
        os.symlink(self.base, os.path.join(self.root, "absolute"))
        os.symlink("outside.txt", os.path.join(self.root, "chain.txt"))
        os.symlink("loop.html", os.path.join(self.root, "loop.html"))

    def path(self, name):
        return os.path.join(self.base, name)

    def clean(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()
        shutil.rmtree(self.base, ignore_errors=True)


def check_all_files(world, server):
    with server.connect() as client:
        for target, data in sorted(world.files.items()):
            client.ask(target)
            answer = client.answer()
            equal(answer.status, 200, target)
            equal(answer.body, data, target)


# ----------------------------------------------------------------------------------------------------------------
# bodies


@test
def curl_reads_back_every_file(world, server):
    out = tempfile.mkdtemp(dir=world.base)
    config = os.path.join(out, "curl.conf")
    targets = sorted(world.files)
    with open(config, "w") as f:
        for i, target in enumerate(targets):
            f.write('url = "http://127.0.0.1:%d%s"\noutput = "%s/%d"\n' % (server.port, target, out, i))
    done = subprocess.run(["curl", "-q", "-sS", "--fail", "--compressed", "--noproxy", "*", "-K", config],
                          stderr=subprocess.PIPE, timeout=2 * HANG)
    equal(done.returncode, 0, "curl's exit status, " + done.stderr.decode())
    for i, target in enumerate(targets):
        path = os.path.join(out, str(i))
        got = open(path, "rb").read() if os.path.exists(path) else b""
        equal(got, world.files[target], target)


@test
def gzip_zcat_and_python_accept_every_body_as_one_member(world, server):
    out = tempfile.mkdtemp(dir=world.base)
    names = []
    for target, data in sorted(world.files.items()):
        answer = server.get(target, "gzip, identity;q=0")
        equal(answer.coding, "gzip", target)
        equal(gunzip(answer.raw), data, target)
        equal(gzip.decompress(answer.raw), data, target)
        names.append(os.path.join(out, target.replace("/", "_") + ".gz"))
        with open(names[-1], "wb") as f:
            f.write(answer.raw)
    done = subprocess.run(["gzip", "-t"] + names, stderr=subprocess.PIPE, timeout=HANG)
    equal((done.returncode, done.stderr), (0, b""), "gzip -t")
    done = subprocess.run(["zcat"] + names, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=HANG)
    equal((done.returncode, done.stderr), (0, b""), "zcat")
    equal(done.stdout, b"".join(data for _, data in sorted(world.files.items())), "zcat's output")


@test
def every_mode_gives_the_same_content(world, server):
    for options in (["--inline"], ["--inline=chunks", "--loops", "1"], ["--inline=whole"],
                    ["--loops", "3", "--workers", "1"], ["--level", "3", "--chunk", "32"],
                    ["--level", "2", "--chunk", "1024", "--workers", "4"]):
        with Server(world, *options) as other:
            try:
                check_all_files(world, other)
            except Failed as e:
                raise Failed("%s: %s" % (" ".join(options), e))


@test
def a_big_file_streams_in_bounded_memory(world, server):
    for options in ([], ["--inline"]):
        with Server(world, *options) as fresh:
            equal(fresh.get("/1000003.html").status, 200, "warm-up")
            before = fresh.status_kb("VmHWM")
            for coding in ("gzip", None):
                with fresh.connect() as client:
                    client.ask("/big.txt", coding)
                    answer = client.head()
                    machine = zlib.decompressobj(31)
                    size, first = 0, b""
                    for piece in client.pieces(answer):
                        while piece:
                            data = machine.decompress(piece, 1 << 22) if coding else piece
                            piece = machine.unconsumed_tail if coding else b""
                            first = first or data[:5]
                            size += len(data)
                    check(machine.eof or not coding, "the big member is truncated")
                    equal((size, first), (BIG, b"begin"), "the big file")
            grown = fresh.status_kb("VmHWM") - before
            check(grown < 24 * 1024, "%s: resident memory grew by %d KB for a file of %d KB" %
                  (options, grown, BIG >> 10))


@test
def memory_does_not_grow_with_the_number_of_requests(world, server):
    def load(n):
        with server.connect() as client:
            for i in range(n):
                client.ask(["/1000.html", "/65537.html", "/missing", "/noise.txt"][i % 4])
                client.answer()
    load(400)
    before = server.status_kb("VmRSS")
    load(2000)
    grown = server.status_kb("VmRSS") - before
    check(grown < 16 * 1024, "%d KB more after 2,000 requests" % grown)


@test
def files_that_left_the_page_cache_are_served(world, server):
    targets = ["/1000.html", "/8193.html", "/1000003.html", "/noise.txt"]
    clients = [server.connect() for _ in range(12)]
    for turn in range(3):
        for target in targets:
            fd = os.open(os.path.join(world.root, target[1:]), os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        for i, client in enumerate(clients):
            client.ask(targets[i % 4], "gzip" if i % 3 else None)
        for i, client in enumerate(clients):
            equal(client.answer().body, world.files[targets[i % 4]], targets[i % 4])
    for client in clients:
        client.close()


@test
def a_file_that_shrinks_under_way_is_never_passed_off_as_complete(world, server):
    path = os.path.join(world.root, "shrinks.txt")
    for coding in (None, "gzip"):
        with open(path, "wb") as f:
            block = random.Random(3).randbytes(1 << 20)
            for _ in range(24):
                f.write(block)
        with server.connect(rcvbuf=4096) as client:
            client.ask("/shrinks.txt", coding)
            answer = client.head()
            os.truncate(path, 100000)
            try:
                for _ in client.pieces(answer):
                    pass
            except (Truncated, ConnectionResetError):
                pass
            else:
                raise Failed("coding %s: the answer looks complete" % coding)
    os.unlink(path)
    server.alive()


# ----------------------------------------------------------------------------------------------------------------
# the protocol


@test
def head_has_the_fields_of_get_and_no_body(world, server):
    with server.connect() as client:
        for target in ("/0.html", "/100.html", "/8192.html", "/65537.html", "/picture.png", "/missing.html", "/sub"):
            for coding in ("gzip", None):
                client.ask(target, coding)
                get = client.answer()
                client.ask(target, coding, "HEAD")
                head = client.answer("HEAD")
                get.fields.pop("date"), head.fields.pop("date")
                equal((head.status, head.fields), (get.status, get.fields), "HEAD %s" % target)


@test
def a_connection_is_kept_alive_for_many_requests(world, server):
    with server.connect() as client:
        for i in range(300):
            target = "/%d.html" % SIZES[i % len(SIZES)]
            client.ask(target, "gzip" if i % 3 else None)
            answer = client.answer()
            equal(answer.body, world.files[target], target)
            check(answer.field("connection") is None, "the connection is to be closed")
        client.ask("/100.html", more="Connection: close\r\n")
        equal(client.answer().field("connection"), "close", "Connection")
        check(client.at_end(), "open after Connection: close")


@test
def pipelined_requests_are_answered_in_order(world, server):
    rng = random.Random(7)
    targets = [rng.choice(sorted(world.files)) for _ in range(60)] + ["/100.html", "/missing", "/sub/page.htm"]
    asked = "".join("GET %s HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n" % t for t in targets)
    with server.connect() as client:
        sender = threading.Thread(target=client.send, args=(asked.encode(),))
        sender.start()
        for target in targets:
            answer = client.answer()
            if target == "/missing":
                equal(answer.status, 404, target)
            else:
                equal(answer.body, world.files[target], target)
        sender.join()
        client.ask("/100.html")
        equal(client.answer().status, 200, "a request after the pipeline")


@test
def requests_may_arrive_in_any_pieces(world, server):
    asked = b"GET /100.html HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    with server.connect() as client:
        for byte in asked:
            client.send(bytes([byte]))
            time.sleep(0.001)
        equal(client.answer().status, 200, "byte by byte")
        rng = random.Random(8)
        stream = asked * 40
        while stream:
            n = rng.randrange(1, 90)
            client.send(stream[:n])
            stream = stream[n:]
        for _ in range(40):
            equal(client.answer().body, world.files["/100.html"], "in pieces")


@test
def blank_lines_before_a_request_and_fields_it_does_not_know_are_ignored(world, server):
    equal(talk(server, b"\r\n\r\nGET /100.html HTTP/1.1\r\nhost: a:80\r\nExpect: 100-continue\r\nUpgrade: x\r\n"
                       b"Connection: close, Upgrade\r\nX-Latin: \xe9\r\nEmpty:\r\n\r\n").status, 200, "status")


@test
def a_client_that_has_finished_sending_still_gets_its_answer(world, server):
    answer = talk(server, b"GET /131073.html HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True)
    equal(answer.body, world.files["/131073.html"], "body")


@test
def http_1_0_is_answered_without_chunks(world, server):
    answer = talk(server, b"GET /1000003.html HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    check(answer.field("transfer-encoding") is None, "chunked for HTTP/1.0")
    equal((answer.coding, answer.field("connection")), ("gzip", "close"), "coding and connection")
    equal(answer.body, world.files["/1000003.html"], "body")
    with server.connect() as client:
        for _ in range(3):
            client.send(b"GET /1000003.html HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = client.answer()
            equal(answer.field("connection"), "keep-alive", "connection")
            equal(answer.body, world.files["/1000003.html"], "body")


@test
def the_coding_follows_accept_encoding(world, server):
    cases = [(None, None), ("", None), ("gzip", "gzip"), ("x-gzip", "gzip"), ("GZip", "gzip"), ("*", "gzip"),
             ("deflate, br", None), ("deflate, gzip;q=0.5, br;q=1.0", "gzip"), ("gzip;q=0", None),
             ("gzip;q=0.000", None), ("gzip;q=0.001", "gzip"), ("*;q=0, gzip", "gzip"), ("gzip;q=0, *", None),
             ("identity", None), ("identity;q=0.5, gzip;q=0.4", None), ("identity;q=0.4, gzip;q=0.5", "gzip"),
             ("gzip, identity", "gzip"), (" gzip ; q=1 ,, ", "gzip"), ("gzip;q=2", None), ("gzip;q=x", None),
             ("gzip;q=0.5555", None), ("notgzip, gzipx", None), ("identity;q=0, gzip;q=0", 406), ("*;q=0", 406),
             ("identity;q=0, br", 406)]
    for accept, want in cases:
        for target in ("/1000.html", "/131073.html"):
            answer = server.get(target, accept)
            equal(answer.status, 406 if want == 406 else 200, "status for %r" % accept)
            if want != 406:
                equal(answer.coding, want, "coding for %r" % accept)
                equal(answer.body, world.files[target], "body for %r" % accept)
                equal(answer.field("vary"), "Accept-Encoding", "Vary")
    answer = server.get("/1000.html", None, more="Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n")
    equal(answer.coding, "gzip", "coding by the second field line")


@test
def what_does_not_shrink_is_not_compressed(world, server):
    equal(server.get("/picture.png").coding, None, "coding of a picture")
    equal(server.get("/unknown.xyz").coding, None, "coding of an unknown type")
    equal(server.get("/small-noise.txt").coding, None, "coding of noise")
    equal(server.get("/0.html").coding, None, "coding of nothing")
    equal(server.get("/picture.png", "gzip, identity;q=0").coding, "gzip", "coding where nothing else is acceptable")


@test
def content_types_follow_the_name(world, server):
    for target, want in (("/100.html", "text/html"), ("/sub/page.htm", "text/html"), ("/zeros.css", "text/css"),
                         ("/noise.txt", "text/plain"), ("/picture.png", "image/png"),
                         ("/unknown.xyz", "application/octet-stream")):
        equal(server.get(target).field("content-type"), want, target)


@test
def lengths_are_announced_where_they_are_known(world, server):
    answer = server.get("/8192.html")
    equal((answer.coding, answer.field("content-length")), ("gzip", str(len(answer.raw))), "small, gzip")
    answer = server.get("/1000003.html", None)
    equal((answer.coding, answer.field("content-length")), (None, "1000003"), "large, identity")
    answer = server.get("/1000003.html")
    equal((answer.coding, answer.field("transfer-encoding")), ("gzip", "chunked"), "large, gzip")


@test
def a_client_with_a_copy_gets_304(world, server):
    first = server.get("/1000.html")
    tag, date = first.field("etag"), first.field("last-modified")
    check(re.fullmatch(r'W/"[0-9a-f-]+"', tag), "ETag %r" % tag)
    for more, want in (("If-None-Match: %s\r\n" % tag, 304), ("If-None-Match: *\r\n", 304),
                       ('If-None-Match: "x", %s, "y"\r\n' % tag, 304), ('If-None-Match: %s\r\n' % tag[2:], 304),
                       ('If-None-Match: "x"\r\n', 200), ("If-Modified-Since: %s\r\n" % date, 304),
                       ('If-None-Match: "x"\r\nIf-Modified-Since: %s\r\n' % date, 200),
                       ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 200)):
        answer = server.get("/1000.html", more=more)
        equal(answer.status, want, more)
        equal(answer.field("etag"), tag, "ETag with " + more)
    path = os.path.join(world.root, "changes.html")
    world.write("changes.html", b"one")
    tag = server.get("/changes.html").field("etag")
    world.write("changes.html", b"another")
    os.utime(path, (1, 1))
    equal(server.get("/changes.html", more="If-None-Match: %s\r\n" % tag).status, 200, "after a change")


@test
def directories_are_answered_by_their_index(world, server):
    equal(server.get("/").body, b"front page\n" * 20, "/")
    equal(server.get("/?x=1").body, b"front page\n" * 20, "/?x=1")
    equal(server.get("/sub/").body, b"sub page\n" * 20, "/sub/")
    answer = server.get("/sub?x=1")
    equal((answer.status, answer.field("location")), (301, "/sub/?x=1"), "/sub?x=1")
    equal(server.get("/empty/").status, 404, "/empty/")
    equal(server.get("/100.html/").status, 404, "a file with a slash")


@test
def a_redirection_never_names_another_host(world, server):
    for target in ("//sub", "///sub", "http://evil.example//sub"):
        location = server.get(target).field("location")
        check(location == "/sub/", "%s leads to %s" % (target, location))


@test
def names_may_be_percent_encoded(world, server):
    for target in ("/a%20b.txt", "/a%20b%2etxt", "/gr%C3%BCn/%e4%b8%ad.txt", "/%61%20b.txt?q#x"[:-2]):
        equal(server.get(target).status, 200, target)
    equal(server.get("http://localhost:1/100.html?x").status, 200, "absolute form")
    equal(server.get("http://localhost").status, 200, "absolute form without a path")


# ----------------------------------------------------------------------------------------------------------------
# what must be refused


def refused(server, data, want, what):
    try:
        answer = talk(server, data)
    except (Truncated, ConnectionError, socket.timeout) as e:
        raise Failed("%s: %s (%s)" % (what, e, type(e).__name__))
    equal(answer.status, want, what)
    equal(answer.field("connection"), "close", what + ": Connection")
    if want in (405, 501):
        equal(answer.field("allow"), "GET, HEAD", what + ": Allow")


MALFORMED = {
    "garbage": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/0.9": (b"GET /100.html\r\n\r\n", 400),
    "HTTP/0.9 with a version": (b"GET /100.html HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks before the target": (b"GET  /100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks behind the target": (b"GET /100.html  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tab in the line": (b"GET\t/100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a blank at the line's end": (b"GET /100.html HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "a blank before the line": (b" GET /100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a blank in the target": (b"GET /a b.txt HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a relative target": (b"GET 100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a raw byte in the target": (b"GET /gr\xfcn HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a fragment": (b"GET /100.html#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a user in the target": (b"GET http://me@a/100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "another scheme": (b"GET ftp://a/100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/2.0": (b"GET /100.html HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/11.1": (b"GET /100.html HTTP/11.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/1.": (b"GET /100.html HTTP/1.\r\nHost: a\r\n\r\n", 400),
    "http/1.1": (b"GET /100.html http/1.1\r\nHost: a\r\n\r\n", 400),
    "bare LF everywhere": (b"GET /100.html HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in a field": (b"GET /100.html HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    "bare LF at the end": (b"GET /100.html HTTP/1.1\r\nHost: a\r\n\n", 400),
    "bare CR": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    "NUL in a value": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    "a control byte in a value": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", 400),
    "a folded line": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    "a folded line by tab": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", 400),
    "a blank first field": (b"GET /100.html HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "a blank before the colon": (b"GET /100.html HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "a blank in a name": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n", 400),
    "an empty name": (b"GET /100.html HTTP/1.1\r\nHost: a\r\n: c\r\n\r\n", 400),
    "no colon": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n", 400),
    "a bracket in a name": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX(: a\r\n\r\n", 400),
    "a raw byte in a name": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nX\xe9: a\r\n\r\n", 400),
    "no Host": (b"GET /100.html HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "two Hosts in HTTP/1.0": (b"GET /100.html HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a Host with a slash": (b"GET /100.html HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "a Host with a blank": (b"GET /100.html HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Content-Length and Transfer-Encoding":
        (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "Transfer-Encoding and Content-Length":
        (b"GET /100.html HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
    "two different lengths":
        (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\nbody", 400),
    "a list of lengths": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n", 400),
    "a negative length": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    "a length with a sign": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
    "a length in hex": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
    "a length beyond 64 bits":
        (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    "an empty length": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    "a body": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", 413),
    "a chunked body": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    "an unknown transfer coding": (b"GET /100.html HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
    "two transfer codings":
        (b"GET /100.html HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "a transfer coding in HTTP/1.0": (b"GET /100.html HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "POST": (b"POST /100.html HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", 405),
    "PUT": (b"PUT /100.html HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "an unknown method": (b"FETCH /100.html HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "a method in lower case": (b"get /100.html HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "a method that is no token": (b"G@T /100.html HTTP/1.1\r\nHost: a\r\n\r\n", 400),
}


@test
def malformed_requests_get_their_status_and_then_the_close(world, server):
    wrong = []
    for what, (data, want) in MALFORMED.items():
        try:
            refused(server, data, want, what)
            refused(server, b"GET /100.html HTTP/1.1\r\nHost: a\r\n\r\n"[:0] + data + b"GET / HTTP/1.1\r\nHost: a\r\n"
                    b"\r\n", want, what + ", with a request behind it")
        except Failed as e:
            wrong.append(str(e))
    check(not wrong, "; ".join(wrong))


@test
def a_refused_request_behind_a_good_one_does_not_spoil_that(world, server):
    for what in ("two lengths", "a body", "a folded line", "bare LF everywhere", "an unknown method"):
        data, want = MALFORMED[what]
        with server.connect() as client:
            client.send(b"GET /131073.html HTTP/1.1\r\nHost: a\r\n\r\n" + data)
            equal(client.answer().body, world.files["/131073.html"], "the good one before " + what)
            equal(client.answer().status, want, what)
            check(client.at_end(), "open after " + what)


@test
def overlong_heads_get_414_and_431(world, server):
    def ask(target_len, fill):
        target = b"/" + b"x" * (target_len - 1)
        return b"GET %s HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (target, b"y" * fill)
    refused(server, ask(9000, 0), 414, "a line of 9,000")
    refused(server, ask(100000, 0), 414, "a line of 100,000")
    refused(server, b"GET /" + b"x" * 9000, 414, "a line without an end")
    refused(server, ask(10, 20000), 431, "a field of 20,000")
    refused(server, ask(10, 200000), 431, "a field of 200,000")
    refused(server, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, 431, "5,000 fields")
    with server.connect() as client:
        client.send(ask(8000, 8000))
        equal(client.answer().status, 404, "a line of 8,000 and a field of 8,000")


@test
def a_refused_upload_is_told_why_before_the_close(world, server):
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"z" * 200000)
        equal(client.answer().status, 405, "status")
        check(client.at_end(), "open after the refusal")


@test
def nothing_outside_the_directory_can_be_read(world, server):
    targets = ["/../secret.txt", "/sub/../../secret.txt", "/%2e%2e/secret.txt", "/%2E%2e%2fsecret.txt",
               "/..%2fsecret.txt", "/sub%2f..%2f..%2fsecret.txt", "/.%2e/secret.txt", "/sub/..", "/..", "/%2e%2e",
               "/outside.txt", "/chain.txt", "/up/secret.txt", "/up/", "/absolute/secret.txt",
               "/" + "../" * 12 + "etc/passwd", "//etc/passwd", "/%2fetc%2fpasswd", "/./../secret.txt",
               "/..;/secret.txt", "/..\\secret.txt", "/%5c..%5csecret.txt", "/%c0%ae%c0%ae/secret.txt",
               "/sub/%2e%2e/%2e%2e/secret.txt", "http://a/../secret.txt", "http://a/%2e%2e/secret.txt",
               "/proc/self/environ", "/up/../site/100.html"]
    for target in targets:
        for method in ("GET", "HEAD"):
            answer = server.get(target, None, method)
            check(answer.status in (400, 404), "%s %s: %d" % (method, target, answer.status))
            check(b"SECRET" not in answer.raw and b"root:" not in answer.raw, "%s leaks" % target)
    equal(server.get("/inside.html").body, world.files["/1000.html"], "a link that stays inside")


@test
def disguised_bytes_in_a_path_are_refused(world, server):
    for target in ("/%00", "/100.html%00", "/100.html%00.png", "/sub%2fpage.htm", "/sub%2Fpage.htm", "/100%", "/100%2",
                   "/%zz", "/%-1", "/%+1", "/% 1"[:3]):
        equal(server.get(target).status, 400, target)


@test
def special_files_and_loops_of_links_do_not_hold_the_server_up(world, server):
    equal(server.get("/fifo.html").status, 403, "a FIFO")
    equal(server.get("/loop.html").status, 404, "a link to itself")
    equal(server.get("/" + "x" * 300).status, 404, "a name of 300 bytes")
    equal(server.get("/" + "x/" * 3000).status, 404, "a path of 6,000 bytes")
    if os.geteuid() != 0:
        world.write("private.html", b"x")
        os.chmod(os.path.join(world.root, "private.html"), 0)
        equal(server.get("/private.html").status, 403, "a file without read permission")


@test
def random_bytes_never_crash_it(world, server):
    rng = random.Random(99)
    good = b"GET /8192.html HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip;q=0.5, *\r\nIf-None-Match: \"x\"\r\n\r\n"
    for i in range(400):
        kind = i % 4
        if kind == 0:
            data = rng.randbytes(rng.randrange(1, 2000))
        elif kind == 1:
            data = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 2:
            at = rng.randrange(len(good))
            data = good[:at] + rng.randbytes(rng.randrange(1, 30)) + good[rng.randrange(at, len(good)):]
        else:
            parts = [b"GET ", b"/", b" HTTP/1.1", b"\r\n", b":", b"Host: a", b"\r\n\r\n", b"%", b"q=", b" ", b"\0",
                     b"Accept-Encoding: ", b"gzip;q=0."]
            data = b"".join(rng.choice(parts) for _ in range(60))
        with server.connect() as client:
            try:
                client.send(bytes(data))
                client.socket.shutdown(socket.SHUT_WR)
                while client.file.read(65536):
                    pass
            except ConnectionError:
                pass
    server.alive()


# ----------------------------------------------------------------------------------------------------------------
# many, slow and impolite clients


@test
def aborted_clients_leave_nothing_behind(world, server):
    server.alive()
    eventually(lambda: server.fds() == server.idle_fds, "a quiet server before the test")
    rng = random.Random(5)
    for i in range(300):
        client = server.connect(rcvbuf=4096)
        client.ask(rng.choice(["/big.txt", "/1000003.html", "/noise.txt", "/100.html"]), "gzip" if i % 2 else None)
        if i % 3 == 0:
            client.file.read1(rng.randrange(1, 3000))
        if i % 2:
            client.reset()
        else:
            client.close()
    eventually(lambda: server.fds() == server.idle_fds, "all fds closed after aborts (%d, %d before)" %
               (server.fds(), server.idle_fds))
    server.alive()


def connections_allowed():
    """1,000, or what our limit of open files allows. The server has the same one: each connection is an fd in both,
    and the server opens files besides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    used = len(os.listdir("/proc/self/fd"))
    return max(10, min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - used - 200))


@test
def a_thousand_connections_are_served(world, server):
    n = connections_allowed()
    if n < 1000:
        print("# %d connections instead of 1,000: raise `ulimit -n` for all of them" % n)
    server.alive()
    eventually(lambda: server.fds() == server.idle_fds, "a quiet server before the test")
    clients = [server.connect() for _ in range(n)]
    try:
        for turn in range(2):
            for i, client in enumerate(clients):
                client.ask("/%d.html" % (65537 if i % 10 == 0 else 1000))
            for i, client in enumerate(clients):
                target = "/%d.html" % (65537 if i % 10 == 0 else 1000)
                equal(client.answer().body, world.files[target], "connection %d, turn %d" % (i, turn))
        check(server.fds() >= n, "they are not all open")
    finally:
        for client in clients:
            client.close()
    eventually(lambda: server.fds() == server.idle_fds, "all fds closed")


@test
def without_free_fds_it_warns_and_goes_on(world, server):
    with Server(world, "--loops", "1", nofile=40) as tight:
        clients = [tight.connect() for _ in range(70)]
        for client in clients:
            client.ask("/100.html")
        eventually(lambda: "ulimit -n" in tight.stderr(), "a warning that names the remedy")
        before = tight.cpu_ticks()
        time.sleep(0.5)
        used = (tight.cpu_ticks() - before) / os.sysconf("SC_CLK_TCK")
        check(used < 0.25, "it spins: %.2f s of CPU time while waiting for a free fd" % used)
        served = 0
        while clients:  # each close frees an fd for one that waits
            client = clients.pop(0)
            served += client.answer().status in (200, 503)
            client.close()
        equal(served, 70, "answers")
        tight.alive()


@test
def slow_and_idle_clients_are_let_go(world, server):
    options = ("--header-timeout", "1", "--idle-timeout", "1", "--write-timeout", "1")
    with Server(world, *options) as strict:
        quiet = strict.fds()
        slow, idle, used, stalled = (strict.connect(), strict.connect(), strict.connect(),
                                     strict.connect(rcvbuf=4096))
        slow.send(b"GET / HTTP/1.1\r\nHost: a\r\nX")
        used.ask("/100.html")
        equal(used.answer().status, 200, "a first request")
        stalled.ask("/big.txt", None)  # and then it doesn't read
        answer = slow.answer()
        equal((answer.status, answer.field("connection")), (408, "close"), "a head that doesn't end")
        check(slow.at_end() and idle.at_end() and used.at_end(), "not closed")
        eventually(lambda: strict.fds() <= quiet + 0, "the stalled client's fds closed")
        for client in (slow, idle, used, stalled):
            client.close()
        strict.alive()
    with Server(world, "--header-timeout", "1") as strict:
        with strict.connect() as client:  # drop by drop: each byte comes in time, the head does not
            answered = False
            for _ in range(int(HANG / 0.05)):
                try:
                    client.send(b"X")
                    answered = bool(select.select([client.socket], [], [], 0.05)[0])
                except ConnectionError:
                    answered = True
                if answered:
                    break
            check(answered, "a head that never ends is read for ever")
            equal(client.answer().status, 408, "a head drop by drop")


# ----------------------------------------------------------------------------------------------------------------
# start and stop


@test
def sigterm_finishes_the_answers_under_way(world, server):
    with Server(world, "--loops", "2") as other:
        client, idle = other.connect(rcvbuf=4096), other.connect()
        idle.ask("/100.html")
        idle.answer()
        client.ask("/noise.txt", "gzip, identity;q=0")
        answer = client.head()
        fresh = other.connect()
        fresh.ask("/1000003.html")
        check(fresh.head().status == 200, "the second answer begins")
        other.signal()
        check(idle.at_end(), "an idle connection stays open")
        equal(gunzip(b"".join(client.pieces(answer))), world.files["/noise.txt"], "the answer under way")
        for each in (client, idle, fresh):
            each.close()
        other.wait()


@test
def sigterm_under_load_truncates_nothing(world, server):
    for options in ([], ["--inline"]):
        wrong, complete, targets = [], [], ["/1000003.html", "/noise.txt", "/1000.html", "/131073.html"]

        def hammer(other, index):
            rng = random.Random(index)
            while not wrong:
                client = None
                try:
                    client = other.connect()
                    while True:
                        target = rng.choice(targets)
                        client.begun = False
                        client.ask(target, "gzip, identity;q=0")
                        answer = client.answer()
                        if answer.status != 200 or answer.body != world.files[target]:
                            wrong.append("%s: %d" % (target, answer.status))
                            return
                        complete.append(target)
                        if answer.field("connection") == "close":
                            break
                except (Truncated, OSError, Failed) as e:
                    if isinstance(e, Failed) or (client and client.begun):
                        wrong.append("%s: %s" % (type(e).__name__, e))
                    return
                finally:
                    if client:
                        client.close()

        other = Server(world, *options).start()
        threads = [threading.Thread(target=hammer, args=(other, i)) for i in range(12)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(complete) > 60 or wrong, "load")
        other.signal()
        other.wait()
        for thread in threads:
            thread.join(HANG)
            check(not thread.is_alive(), "a client hangs")
        check(not wrong, "%s: %s" % (options, "; ".join(wrong[:3])))


@test
def a_second_signal_or_the_grace_time_ends_what_is_left(world, server):
    for options, signals in ((["--grace", "3600"], 2), (["--grace", "1"], 1)):
        other = Server(world, *options).start()
        with other.connect(rcvbuf=4096) as stuck, other.connect() as half:
            half.send(b"GET / HT")
            stuck.ask("/big.txt", None)
            stuck.head()
            other.signal(signal.SIGINT)
            if signals == 2:
                with_close = other.connect  # the listener closes first: until then a new signal might be merged
                def closed():
                    try:
                        with_close().close()
                        return False
                    except OSError:
                        return True
                eventually(closed, "the listener closed")
                other.signal(signal.SIGTERM)
            other.wait()


@test
def a_busy_port_is_reported_with_the_remedy(world, server):
    status, out, err = run_to_end(world, "--port", str(server.port), world.root)
    equal((status, out), (1, ""), "exit status and stdout")
    check(str(server.port) in err and "--port" in err and err.count("\n") == 1, "stderr: %r" % err)
    plain = socket.socket()
    plain.bind(("127.0.0.1", 0))
    plain.listen(1)
    status, out, err = run_to_end(world, "--port", str(plain.getsockname()[1]), world.root)
    plain.close()
    check(status == 1 and "--port" in err, "another program's port: %d %r" % (status, err))
    server.alive()


@test
def a_port_that_was_just_used_can_be_used_again(world, server):
    with Server(world) as first:
        first.alive()
        port = first.port
        kept = first.connect()
        kept.ask("/100.html")
        kept.answer()
    kept.close()
    with Server(world, "--port", str(port)) as second:
        equal(second.port, port, "port")
        second.alive()


@test
def wrong_usage_ends_with_status_2_and_a_hint(world, server):
    for arguments in ([], [world.root, world.root], ["--port", "x", world.root], ["--port", "65536", world.root],
                      ["--loops", "0", world.root], ["--inline=some", world.root], ["--nonsense", world.root],
                      ["--port"], ["--chunk", "16", world.root], ["--level", "4", world.root]):
        status, out, err = run_to_end(world, *arguments)
        equal((status, out), (2, ""), "exit status and stdout of %s" % arguments)
        check(err, "no text for %s" % arguments)
    for arguments in ([world.path("missing")], [os.path.join(world.root, "100.html")],
                      ["--address", "nowhere", world.root], ["--address", "192.0.2.1", world.root],
                      ["--log", world.path("missing/log"), world.root]):
        status, out, err = run_to_end(world, *arguments)
        equal((status, out), (1, ""), "exit status and stdout of %s" % arguments)
        check(err.count("\n") == 1, "not one line for %s: %r" % (arguments, err))


@test
def help_names_every_option(world, server):
    status, out, err = run_to_end(world, "--help")
    equal((status, err), (0, ""), "--help")
    for option in ("port", "address", "loops", "workers", "policy", "inline", "level", "chunk", "log", "idle-timeout",
                   "header-timeout", "write-timeout", "grace", "help"):
        check("--" + option in out, "--%s is missing" % option)


@test
def errors_in_a_policy_file_are_reported_with_their_line(world, server):
    path = world.path("policy")
    for text, want in (("# comment\ndeflate any 0- nonsense - -\n", "2"), ("deflate any\n", "1"),
                       ("deflate latency 0-100 software - -\n\nsqueeze any 0- software - -\n", "3"),
                       ("deflate any 0- async nowhere wait\n", "threads"),
                       ("deflate any 0- sliced threads -\n", "sliced")):
        with open(path, "w") as f:
            f.write(text)
        status, out, err = run_to_end(world, "--policy", path, world.root)
        equal((status, out), (1, ""), "exit status and stdout for %r" % text)
        check(want in err.replace(path, "") and path in err, "stderr for %r: %r" % (text, err))
    status, _, err = run_to_end(world, "--policy", world.path("no-policy"), world.root)
    check(status == 1 and "no-policy" in err, "a missing file: %d %r" % (status, err))


@test
def a_signal_loads_the_policy_again_and_an_error_leaves_the_old_one(world, server):
    policy, path = world.path("policy-again"), world.path("log-again")

    def write(text):
        with open(policy, "w") as f:
            f.write(text)

    def loaded(other, want):
        other.signal(signal.SIGHUP)
        eventually(lambda: want in other.stderr(), "%r on stderr" % want)

    write("deflate any 0- software - -\n")
    with Server(world, "--policy", policy, "--log", path, "--loops", "2") as other:
        def where(n):
            other.get("/1000003.html")
            return log_lines(path, n)[n - 1].split()[7]

        equal(where(1), "software", "before")
        write("deflate any 0- async threads wait\n# the end\n")
        loaded(other, "loaded, 1 rules")
        eventually(lambda: where(len(open(path).read().splitlines()) + 1) == "threads", "the new table on each loop")
        write("deflate any 0- nonsense - -\n")
        loaded(other, "policy, line 1")
        write("deflate any 0- async nowhere wait\n")
        loaded(other, "nowhere")
        n = len(open(path).read().splitlines())
        equal(where(n + 1), "threads", "after errors")
        write("deflate any 0- sliced - -\n")
        loaded(other, "loaded, 1 rules")
        other.signal(signal.SIGUSR1)
        eventually(lambda: other.stderr().count("loop lag") == 2, "statistics of both loops")
        check("deflate" in other.stderr(), "no cell of deflate in %r" % other.stderr())
        other.signal(signal.SIGHUP)
    with Server(world) as other:
        loaded(other, "--policy FILE")


def log_lines(path, n):
    """The log's lines once there are n of them."""
    eventually(lambda: os.path.exists(path) and open(path).read().count("\n") >= n, "%d lines of log" % n)
    return open(path).read().splitlines()


@test
def the_log_says_where_each_response_was_compressed(world, server):
    policy = world.path("all-software")
    with open(policy, "w") as f:
        f.write("deflate any 0- software - -\n")
    cases = ((["--policy", policy], "software", "software"), (["--inline"], "loop", "loop"),
             (["--inline=whole"], "loop", "loop"), ([], "software", "threads"))
    for i, (options, small, large) in enumerate(cases):
        path = world.path("log%d" % i)
        with Server(world, "--log", path, "--loops", "1", *options) as other:  # one loop: lines in order
            a = other.get("/1000.html")
            b = other.get("/1000003.html")
            other.get("/picture.png")
            other.get('/no"\\such')
            talk(other, b"nonsense\r\n\r\n")
            lines = log_lines(path, 5)
        for line, target, answer, where in ((lines[0], "/1000.html", a, small), (lines[1], "/1000003.html", b, large)):
            want = '127.0.0.1 "GET %s HTTP/1.1" 200 %d gzip %s ' % (target, len(answer.raw), where)
            check(line.startswith(want), "%r does not begin with %r" % (line, want))
        equal(lines[2], '127.0.0.1 "GET /picture.png HTTP/1.1" 200 70000 identity - -', "a picture")
        equal(lines[3], '127.0.0.1 "GET /no%22%5Csuch HTTP/1.1" 404 14 identity - -', "a missing file")
        equal(lines[4], '127.0.0.1 "-" 400 16 identity - -', "nonsense")
        equal(len(lines), 5, "lines")


@test
def the_log_has_one_line_for_each_response(world, server):
    path = world.path("many")
    with Server(world, "--log", path, "--loops", "3") as other:
        threads = []
        def load():
            with other.connect() as client:
                for _ in range(150):
                    client.ask("/1000.html")
                    client.answer()
        for _ in range(6):
            threads.append(threading.Thread(target=load))
            threads[-1].start()
        for thread in threads:
            thread.join()
    lines = open(path).read().splitlines()
    equal(len(lines), 900, "lines after the end")
    check(len(set(lines)) == 1, "they differ: %s" % sorted(set(lines))[:3])


# ----------------------------------------------------------------------------------------------------------------
# a second opinion


@test
def wrk_sees_no_error(world, server):
    if not shutil.which("wrk"):
        print("# wrk is not installed: skipped")
        return
    for target, header in (("/1000.html", "gzip"), ("/131073.html", "gzip"), ("/131073.html", "identity")):
        done = subprocess.run(["wrk", "-t1", "-c24", "-d1s", "--timeout", "20s", "-H", "Accept-Encoding: " + header,
                               "http://127.0.0.1:%d%s" % (server.port, target)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HANG)
        text = done.stdout.decode()
        equal(done.returncode, 0, "wrk's exit status, " + text)
        found = re.search(r"(\d+) requests in", text)
        check(found and int(found.group(1)) > 0, "no request was answered: " + text)
        check("Socket errors" not in text and "Non-2xx" not in text, text)


# ----------------------------------------------------------------------------------------------------------------


def start_server(world):
    """The server that most tests share. idle_fds: its fds while no client is connected."""
    server = Server(world).start()
    server.get("/131073.html")  # the pool's threads start here
    server.idle_fds = 0
    def quiet():
        before, server.idle_fds = server.idle_fds, server.fds()
        time.sleep(0.05)
        return before == server.idle_fds
    eventually(quiet, "a quiet server")
    return server


def run(world, tests, failures):
    try:
        server = start_server(world)
    except Exception as e:
        failures.append("start")
        print("FAIL the_server_starts_and_answers: %s: %s" % (type(e).__name__, e))
        return 0
    passed = 0
    for fn in tests:
        if server.process.poll() is not None:
            failures.append("server")
            print("FAIL %s: the server has died with status %d before it; stderr: %s" %
                  (fn.__name__, server.process.returncode, server.stderr()[:2000]))
            server = start_server(world)
        begin = time.monotonic()
        try:
            fn(world, server)
            check(server.process.poll() is None, "the server died: " + server.stderr()[:2000])
            passed += 1
            line = "ok " + fn.__name__
        except Exception as e:  # one failed test must not hide the others
            failures.append(fn.__name__)
            line = "FAIL %s: %s" % (fn.__name__, e if isinstance(e, Failed) else "%s: %s" % (type(e).__name__, e))
        took = time.monotonic() - begin
        print(line + ("  # %.1f s" % took if took >= 2 else ""), flush=True)
    try:
        server.signal()
        server.wait()
        print("ok the_server_ends_cleanly_after_all_of_it")
        passed += 1
    except Failed as e:
        failures.append("end")
        print("FAIL the_server_ends_cleanly_after_all_of_it: %s" % e)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="gzip_server's binaries")
    parser.add_argument("-k", metavar="TEXT", default="", help="only tests whose name contains TEXT")
    parser.add_argument("--list", action="store_true", help="names of the tests")
    options = parser.parse_args()
    tests = [fn for fn in TESTS if options.k in fn.__name__]
    if options.list:
        print("\n".join(fn.__name__ for fn in tests))
        return 0
    if not options.servers:
        parser.error("give the path of a gzip_server, such as build/examples/gzip_server")
    if not tests:
        parser.error("no test's name contains %r: see --list" % options.k)
    for tool in ("curl", "gzip", "zcat"):
        if not shutil.which(tool):
            parser.error("%s is missing: install it (Debian: apt-get install curl gzip)" % tool)
    passed, failures = 0, []
    for binary in options.servers:
        if not os.access(binary, os.X_OK):
            parser.error("%s can't be run: build it first (make)" % binary)
        print("# %s" % binary, flush=True)
        world = World(binary)
        try:
            passed += run(world, tests, failures)
        finally:
            world.clean()
    print("%d passed, %d failed" % (passed, len(failures)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
