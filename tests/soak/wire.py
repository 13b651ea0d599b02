"""The receiving side of HTTP/1.1, byte by byte: what came so far is compared with the file, complete or not."""
import zlib


class Wrong(Exception):
    """The server has sent something that it must not send."""


class Answer:
    """One answer. feed() takes bytes as they come and raises Wrong at the first one that can't be right; what belongs
    to the next answer stays in `rest`. At `complete` the body was the whole file, and nothing else."""

    def __init__(self, name, want):
        self.name, self.want = name, want
        self.status = None
        self.fields = {}
        self.complete = False
        self.wire = 0  # bytes taken, head and framing included
        self.seen = 0  # bytes of the document
        self.rest = b""
        self.text = b""  # taken, but not enough of it yet
        self.parse = self.head
        self.left = 0  # of the body, or of the chunk
        self.machine = None

    def feed(self, data):
        self.wire += len(data)
        self.text += data
        while not self.complete and self.parse():
            pass
        if self.complete:
            self.rest, self.text = self.text, b""
            self.wire -= len(self.rest)

    def wrong(self, what):
        raise Wrong("%s: %s at byte %d of the document, %d of the answer" % (self.name, what, self.seen, self.wire))

    def line(self, limit=16384):
        at = self.text.find(b"\r\n")
        if at < 0:
            if len(self.text) > limit:
                self.wrong("a line without end")
            return None
        line, self.text = self.text[:at], self.text[at + 2:]
        return line

    def head(self):
        line = self.line()
        if line is None:
            return False
        if self.status is None:
            words = line.split(b" ", 2)
            if len(words) != 3 or words[0] != b"HTTP/1.1" or not words[1].isdigit():
                self.wrong("status line %r" % line[:80])
            self.status = int(words[1])
            return True
        if line:
            name, colon, value = line.partition(b": ")
            if not colon or name.lower() in self.fields:
                self.wrong("field %r" % line[:80])
            self.fields[name.lower()] = value
            return True
        self.begin_body()
        return True

    def begin_body(self):
        if self.fields.get(b"content-encoding") == b"gzip":
            self.machine = zlib.decompressobj(31)
        if self.fields.get(b"transfer-encoding") == b"chunked":
            self.parse = self.chunk_size
            return
        length = self.fields.get(b"content-length", b"")
        if not length.isdigit():
            self.wrong("neither a length nor chunks: %r" % length)
        self.left = int(length)
        self.parse = self.sized
        self.end_of_body_if_done()

    def end_of_body_if_done(self):
        if not self.left:
            self.end()

    def sized(self):
        if not self.take():
            return False
        self.end_of_body_if_done()
        return True

    def chunk_size(self):
        line = self.line(64)
        if line is None:
            return False
        try:
            self.left = int(line, 16)
        except ValueError:
            self.wrong("chunk size %r" % line[:40])
        self.parse = self.chunk if self.left else self.last_line
        return True

    def chunk(self):
        if not self.take():
            return False
        if not self.left:
            self.parse = self.chunk_end
        return True

    def chunk_end(self):
        if len(self.text) < 2:
            return False
        if self.line() != b"":
            self.wrong("a chunk does not end where it says")
        self.parse = self.chunk_size
        return True

    def last_line(self):
        if len(self.text) < 2:
            return False
        if self.line() != b"":
            self.wrong("a trailer")
        self.end()
        return True

    def take(self):
        """Takes what is there of the body; False if that is nothing."""
        data, self.text = self.text[:self.left], self.text[self.left:]
        self.left -= len(data)
        if data:
            self.body(data)
        return bool(data)

    def body(self, data):
        if self.status != 200:  # not a file's
            return
        if self.machine:
            if self.machine.eof:
                self.wrong("bytes behind the gzip member")
            try:
                data = self.machine.decompress(data)
            except zlib.error as error:
                self.wrong(str(error))
            if self.machine.unused_data:
                self.wrong("bytes behind the gzip member")
        if self.want[self.seen:self.seen + len(data)] != data:
            while data and self.want[self.seen:self.seen + 1] == data[:1]:
                self.seen, data = self.seen + 1, data[1:]
            self.wrong("differs from the file" if self.seen < len(self.want) else "longer than the file")
        self.seen += len(data)

    def end(self):
        if self.status == 200 and self.machine and not self.machine.eof:
            self.wrong("the gzip member is truncated")
        if self.status == 200 and self.seen != len(self.want):
            self.wrong("shorter than the file")
        self.complete = True


def request(name, gzip, close=False):
    return ("GET /%s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n" % (
        name, "Accept-Encoding: gzip\r\n" if gzip else "", "Connection: close\r\n" if close else "")).encode()
