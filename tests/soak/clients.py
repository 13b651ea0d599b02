"""Clients of all manners, each in a thread of its own: those that behave must be answered in full, the others must be
let go, and of what any of them receives every byte is compared with the file."""
import random
import socket
import struct
import threading

import wire

HANG = 45.0  # seconds after which something that must happen is taken for a hang, on a busy machine, too
TEXTS = 10  # failures that are kept as text


class Unanswered(Exception):
    """A client that behaves got no answer, or one that will never let go of a client that should be let go."""


class Cut(Exception):
    """The server has closed the connection."""


class Tally:
    """What all clients counted; failures with their text."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}
        self.wrong = []
        self.unanswered = []

    def add(self, name, n=1):
        with self.lock:
            self.counts[name] = self.counts.get(name, 0) + n

    def get(self, name):
        return self.counts.get(name, 0)

    def failure(self, kind, texts, what):
        with self.lock:
            if len(texts) < TEXTS:
                texts.append("%s client: %s" % (kind, what))
        self.add("failures")


class Connection:
    def __init__(self, port, rcvbuf=None):
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(HANG)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError as error:
            self.socket.close()
            raise Unanswered("can't connect: %s" % error)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except socket.timeout:
            raise Unanswered("the server does not read")
        except OSError:
            raise Cut("while sending")

    def read(self, n=65536, limit=HANG):
        """b"" at the end of the stream."""
        self.socket.settimeout(limit)
        try:
            return self.socket.recv(n)
        except socket.timeout:
            raise
        except OSError:
            raise Cut("by a reset")

    def more(self, answer, n=65536, limit=HANG):
        """Feeds what comes next to the answer."""
        try:
            data = self.read(n, limit)
        except socket.timeout:
            raise Unanswered("no byte for %.0f s, %d of the answer to %s had come" % (limit, answer.wire, answer.name))
        if not data:
            raise Cut("at its end")
        answer.feed(data)

    def receive(self, answer, limit=HANG):
        """Reads the answer to its end."""
        answer.feed(self.rest)
        while not answer.complete:
            self.more(answer, limit=limit)
        self.rest = answer.rest

    def expect_end(self, what):
        """Nothing more may come but the end."""
        try:
            data = self.rest or self.read()
        except socket.timeout:
            raise Unanswered("the server does not close " + what)
        except Cut:
            return
        if data:
            raise wire.Wrong("%r instead of the end of %s" % (data[:80], what))

    def reset(self):
        """Ends the connection by a RST, whatever is under way."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Client(threading.Thread):
    """Goes on with once() until it is told to stop."""

    kind = ""
    pause = 0.02  # mean seconds between two goes

    def __init__(self, world, seed):
        super().__init__(daemon=True)
        self.world, self.tally, self.stop = world, world.tally, world.stop
        self.rng = random.Random(seed)

    def run(self):
        while not self.stop.is_set():
            try:
                self.once()
            except wire.Wrong as error:
                self.tally.failure(self.kind, self.tally.wrong, error)
            except (Unanswered, Cut) as error:
                self.tally.failure(self.kind, self.tally.unanswered, error)
            except Exception as error:  # a mistake in here must not look like a quiet client
                self.tally.failure(self.kind, self.tally.unanswered, repr(error))
                raise
            self.stop.wait(self.rng.expovariate(1 / self.pause))
        self.leave()

    def once(self):
        raise NotImplementedError

    def leave(self):
        pass

    def connect(self, **options):
        return Connection(self.world.port, **options)

    def choose(self, *weights):
        """A file by the weights of small, medium and big ones: (name, content, whether to ask for gzip)."""
        group = self.rng.choices(self.world.groups, weights)[0]
        name, content = self.rng.choice(group)
        return name, content, self.rng.random() < 0.7

    def count(self, what, answer=None):
        self.tally.add("%s.%s" % (self.kind, what))
        if answer:
            self.tally.add("bytes", answer.seen)


class Keeping(Client):
    """Behaves: many requests on one connection, with pauses."""

    kind = "keeping"
    connection = None

    def ask(self, files):
        """All requests at once, then all answers; the number of those that have come. A server may close a connection
        that was idle; then, as in a browser, there is one more try."""
        fresh = not self.connection
        if fresh:
            self.connection = self.connect()
        answers = [wire.Answer(name, content) for name, content, _ in files]
        try:
            self.connection.send(b"".join(wire.request(name, gzip) for name, _, gzip in files))
            for answer in answers:
                self.connection.receive(answer)
                if answer.status != 200:
                    raise Unanswered("status %d for %s" % (answer.status, answer.name))
                self.count("answers", answer)
        except Cut as cut:
            self.leave()
            if fresh or answers[0].wire:
                raise Unanswered("cut %s, after %d bytes of the answer to %s" % (cut, answer.wire, answer.name))
            self.count("retries")
            self.ask(files)
        except (wire.Wrong, Unanswered):
            self.leave()
            raise

    def once(self):
        self.ask([self.choose(90, 9, 1)])

    def leave(self):
        if self.connection:
            self.connection.socket.close()
        self.connection = None


class Pipelining(Keeping):
    """Behaves: several requests before the first answer."""

    kind = "pipelining"
    pause = 0.05

    def once(self):
        self.ask([self.choose(90, 10, 0) for _ in range(self.rng.randint(2, 16))])
        if self.rng.random() < 0.1:
            self.leave()


class Reconnecting(Client):
    """Behaves: a connection for each request."""

    kind = "reconnecting"
    pause = 0.015

    def once(self):
        name, content, gzip = self.choose(95, 4, 1)
        answer = wire.Answer(name, content)
        with self.connect() as connection:
            try:
                connection.send(wire.request(name, gzip, close=True))
                connection.receive(answer)
            except Cut as cut:
                raise Unanswered("cut %s, after %d bytes of the answer to %s" % (cut, answer.wire, name))
            connection.expect_end("a connection that was asked to be closed")
        if answer.status != 200:
            raise Unanswered("status %d for %s" % (answer.status, name))
        self.count("answers", answer)


class HalfClosed(Client):
    """Closes its sending side: after a request, which must be answered all the same, in the middle, or before it."""

    kind = "half-closed"
    pause = 0.04

    def once(self):
        name, content, gzip = self.choose(80, 15, 5)
        text = wire.request(name, gzip)
        sent = self.rng.choice([len(text), len(text), self.rng.randrange(1, len(text)), 0])
        answer = wire.Answer(name, content)
        with self.connect() as connection:
            try:
                connection.send(text[:sent])
                connection.socket.shutdown(socket.SHUT_WR)
                if sent == len(text):
                    connection.receive(answer)
                    self.count("answers", answer)
            except (Cut, OSError) as cut:
                raise Unanswered("cut %s, after %d bytes of the answer to %s" % (cut, answer.wire, name))
            connection.expect_end("a half-closed connection")
        self.count("ended")


class Silent(Client):
    """Connects and says nothing until it is let go."""

    kind = "silent"
    pause = 0.3

    def once(self):
        with self.connect() as connection:
            for _ in range(int(HANG / 0.2)):
                if self.stop.is_set():
                    return
                try:
                    data = connection.read(limit=0.2)
                except socket.timeout:
                    continue
                except Cut:
                    data = b""
                if data:
                    raise wire.Wrong("an answer without a request: %r" % data[:80])
                self.count("let go")
                return
        raise Unanswered("not let go")


class Dribbling(Client):
    """Sends its request a few bytes at a time; gets its answer, or 408 if it takes too long."""

    kind = "dribbling"
    pause = 0.1

    def once(self):
        name, content, gzip = self.choose(1, 0, 0)
        text = wire.request(name, gzip)
        answer = wire.Answer(name, content)
        pace = self.rng.uniform(0.002, 0.2)
        with self.connect() as connection:
            try:
                while text and not self.stop.is_set():
                    n = self.rng.randint(1, 4)
                    connection.send(text[:n])
                    text = text[n:]
                    if self.early(connection, answer, pace):
                        break
                if not self.stop.is_set():
                    connection.receive(answer)
            except Cut:
                self.count("cut")
                return
        if not answer.complete:
            return
        if answer.status not in (200, 408):
            raise wire.Wrong("status %d" % answer.status)
        self.count("answers" if answer.status == 200 else "let go", answer)

    @staticmethod
    def early(connection, answer, pace):
        try:
            data = connection.read(limit=pace)
        except socket.timeout:
            return False
        if not data:
            raise Cut("at its end")
        answer.feed(data)
        return True


class Slow(Client):
    """Reads a few bytes a second of a long body, until the server lets it go."""

    kind = "slow"
    pause = 0.1

    def once(self):
        name, content, gzip = self.choose(0, 1, 4)
        answer = wire.Answer(name, content)
        with self.connect(rcvbuf=4096) as connection:
            connection.send(wire.request(name, gzip))
            try:
                while not self.stop.is_set() and not answer.complete:
                    connection.more(answer, self.rng.randint(1, 8))
                    self.stop.wait(self.rng.uniform(0.2, 0.8))
            except Cut:
                self.count("let go", answer)
            else:
                self.count("left", answer)


class Aborting(Client):
    """Ends its connection in the middle of an answer, or of a request, or before it, mostly by a RST."""

    kind = "aborting"
    pause = 0.03

    def once(self):
        name, content, gzip = self.choose(20, 40, 40)
        answer = wire.Answer(name, content)
        text = wire.request(name, gzip)
        if self.rng.random() < 0.1:
            text = text[:self.rng.randrange(len(text))]
        elif self.rng.random() < 0.2:
            text *= 3
        some = self.rng.choice([0, 1, 4096, len(content) // 10, len(content)])
        with self.connect(rcvbuf=self.rng.choice([None, 4096])) as connection:
            try:
                connection.send(text)
                while text.endswith(b"\r\n\r\n") and answer.wire < some and not answer.complete:
                    connection.more(answer, self.rng.choice([100, 1460, 65536]))
            except Cut as cut:
                raise Unanswered("cut %s, after %d bytes of the answer to %s" % (cut, answer.wire, name))
            if self.rng.random() < 0.8:
                connection.reset()
        self.count("ended", answer)


MANNERS = [(Keeping, 4), (Pipelining, 3), (Reconnecting, 3), (HalfClosed, 2), (Silent, 4), (Dribbling, 3), (Slow, 4),
           (Aborting, 5)]


class Crowd:
    """All of them at once, for one round. Three connections more are never closed from this side while the round lasts,
    nor when it ends: the server has to let go of them, and until it does its fds don't come down."""

    def __init__(self, port, groups, tally, seed, stuck):
        self.port, self.groups, self.tally = port, groups, tally
        self.stop = threading.Event()
        self.patient = [Connection(port, rcvbuf=4096) for _ in range(3 if stuck else 2)]
        self.patient[0].send(b"GET /")
        if stuck:  # takes nothing of a long body
            self.patient[2].send(wire.request(groups[2][-1][0], False))
        self.clients = [manner(self, "%s %d %d" % (seed, n, i))
                        for n, (manner, number) in enumerate(MANNERS) for i in range(number)]
        for client in self.clients:
            client.start()

    def leave(self):
        """Those that behave take their last answer first."""
        self.stop.set()
        for client in self.clients:
            client.join(2 * HANG)
            if client.is_alive():
                self.tally.failure(client.kind, self.tally.unanswered, "did not come to an end")

    def close(self):
        for connection in self.patient:
            connection.socket.close()
