/* deflate.c: fuzz target: any data, compressed in any chunks, comes back the same from zlib and from us.

   cc -std=c11 -O1 -g -I. tests/fuzz/deflate.c -o build/fuzz/deflate -pthread -lisal -lz

   Input: a byte for the format, then commands that make the data and say where a chunk ends and how it is compressed.
   So a few bytes make what codecs find hard: long repetitions at any distance, noise, runs across a window.

     0x00-0x7f  so many bytes and one more, which follow
     0x80-0xbf  a repetition: distance and length in two bytes each
     0xc0-0xdf  noise: length in two bytes; see length_of
     0xe0-0xff  the chunk ends here: how it is compressed in two bytes, see struct chunk

   What is checked:
     - What ol_deflate_bound says is always enough. With less room it is -ENOSPC or fits; the stream then goes on as if
       nothing had been tried. Nothing is written past the room, nor read past the data (see inflate.c).
     - The chunks in a row are one stream to zlib, with nothing left over; as are those of a whole in one operation.
     - Each chunk is read by ol_prep_inflate_chunk with the dictionary before it, into a room that is exact.
     - What zlib makes of the same chunks, flushed at the same places, we read, too.
     - Number of bytes and checksum of a stream, and crc32 in pieces, are zlib's.
     - It does compress: a run of one byte by a factor of four at least. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "guard.h"
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <zlib.h>

/* libFuzzer: -max_len=2048 */
/* clang: -fno-sanitize-coverage=trace-cmp */

enum { DATA = 140000, CHUNKS = 64, PACKED = DATA + DATA / 8 + CHUNKS * 64, DICT = 32768 };

struct chunk {
    size_t begin, end;     /* of the data */
    uint8_t level, zlevel; /* ours and zlib's */
    uint8_t dict;          /* 0: none, else up to 32 KB */
    uint8_t flush;         /* zlib's flush behind it */
    uint8_t little;        /* room for the attempt with too little, in 1/256 of the bound */
    size_t packed;         /* end in what we made of it */
};

static struct program {
    int format, n;
    struct chunk chunk[CHUNKS];
    size_t len;
    uint8_t *data; /* ends at a page that can't be touched */
} program;
static uint8_t data[DATA], packed[PACKED], from_zlib[PACKED], back[DATA + 1];
static uint8_t *data_area, *in_area, *out_area;
static ol_exec *exec;
static const int window_bits[] = {0, -15, 15, 31}; /* zlib's names for raw, zlib, gzip */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* ---------------------------------------------------------------------------------------------------------------- */
/* input to program                                                                                                 */

static void end_chunk(struct program *p, uint32_t how) {
    struct chunk *c = &p->chunk[p->n];
    memset(c, 0, sizeof *c);
    c->begin = p->n ? c[-1].end : 0;
    c->end = p->len;
    c->level = (uint8_t)(how % 5);
    c->zlevel = (uint8_t)(how / 5 % 10);
    c->dict = (uint8_t)(how / 50 % 4);
    c->flush = (uint8_t)(how / 200 % 2);
    c->little = (uint8_t)(how >> 8);
    p->n++;
}

/* Four bits say how large, twelve which: short ones are as frequent as long ones, so that most inputs are cheap. */
static size_t length_of(uint32_t word) { return ((word & 0xfff) << 4 | 15) >> (15 - (word >> 12)); }

/* Whole pieces at a time: a loop over bytes would cost more than the codecs do. */
static void add_repetition(struct program *p, size_t distance, size_t n) {
    if (p->len == 0) return;
    while (n) {
        const size_t piece = smaller(n, distance);
        memcpy(data + p->len, data + p->len - distance, piece);
        p->len += piece;
        n -= piece;
        distance += piece; /* twice the distance repeats the same */
    }
}

static void add_noise(struct program *p, size_t n) {
    static uint8_t noise[1 << 16]; /* a period that no window of deflate reaches */
    for (uint32_t i = 0, x = 1; i < sizeof noise && !noise[sizeof noise - 1]; i++) {
        x = x * 1664525 + 1013904223;
        noise[i] = (uint8_t)(x >> 24 | (i == sizeof noise - 1));
    }
    while (n) {
        const size_t at = p->len % sizeof noise, piece = smaller(n, sizeof noise - at);
        memcpy(data + p->len, noise + at, piece);
        p->len += piece;
        n -= piece;
    }
}

static void make_program(struct program *p, fuzz_input *in) {
    p->n = 0;
    p->len = 0;
    p->format = 1 + (int)(fuzz_byte(in) % 3);
    while (fuzz_left(in) && p->n < CHUNKS - 1) {
        const uint32_t command = fuzz_byte(in);
        if (command >= 0xe0) {
            end_chunk(p, fuzz_word(in));
        } else if (command >= 0xc0) {
            add_noise(p, smaller(length_of(fuzz_word(in)), DATA - p->len));
        } else if (command >= 0x80) {
            const size_t distance = 1 + fuzz_word(in) % (p->len ? p->len : 1);
            add_repetition(p, distance, smaller(length_of(fuzz_word(in)), DATA - p->len));
        } else {
            const size_t n = smaller(smaller(command + 1, fuzz_left(in)), DATA - p->len);
            memcpy(data + p->len, in->p, n);
            in->p += n;
            p->len += n;
        }
    }
    end_chunk(p, (uint32_t)p->len);
    p->data = data_area + DATA - p->len;
    memcpy(p->data, data, p->len);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* zlib                                                                                                             */

static uLong check_of(int format, const uint8_t *p, size_t n) {
    if (format == OL_RAW) return 0;
    return format == OL_GZIP ? crc32(0, p, (uInt)n) : adler32(1, p, (uInt)n);
}

static void zlib_reads(const struct program *p, const uint8_t *in, size_t n, const char *what) {
    static z_stream z;
    if ((z.state ? inflateReset2(&z, window_bits[p->format]) : inflateInit2(&z, window_bits[p->format])) != Z_OK)
        abort();
    z.next_in = (uint8_t *)(uintptr_t)in;
    z.avail_in = (uInt)n;
    z.next_out = back;
    z.avail_out = (uInt)(p->len + 1);
    const int r = inflate(&z, Z_FINISH);
    FUZZ_CHECK(r == Z_STREAM_END, "%s: zlib refuses it: %s", what, z.msg ? z.msg : "truncated");
    FUZZ_CHECK(z.avail_in == 0, "%s: %u bytes left over", what, z.avail_in);
    FUZZ_CHECK(z.avail_out == 1 && memcmp(back, p->data, p->len) == 0, "%s: zlib reads other data", what);
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* ours                                                                                                             */

static size_t dict_before(const struct chunk *c) {
    static const size_t part[] = {0, 1, 300, DICT};
    return smaller(c->begin, part[c->dict]);
}

/* One chunk into `room` bytes, behind which begins a page that can't be touched. */
static int64_t deflate_chunk(const struct program *p, int i, ol_stream *stream, size_t room) {
    const struct chunk *c = &p->chunk[i];
    const size_t dict = stream->started ? dict_before(c) : 0;
    uint8_t *out = out_area + PACKED - room;
    ol_op op;
    out[-1] = FUZZ_FILL;
    ol_prep_deflate_chunk(&op, p->format, out, room, p->data + c->begin, c->end - c->begin, stream,
                          p->data + c->begin - dict, (uint32_t)dict, i == p->n - 1);
    op.level = c->level;
    const int64_t r = ol_op_exec(exec, &op);
    FUZZ_CHECK(r <= (int64_t)room, "%lld bytes in a room of %zu", (long long)r, room);
    FUZZ_CHECK(out[-1] == FUZZ_FILL, "wrote in front of the room");
    FUZZ_CHECK(r >= 0 || strlen(ol_op_error(&op)) > 10, "no text for %lld", (long long)r);
    return r;
}

static size_t deflate_all(struct program *p) {
    ol_stream stream;
    size_t n = 0;
    memset(&stream, 0, sizeof stream);
    for (int i = 0; i < p->n; i++) {
        const size_t bound = (size_t)ol_deflate_bound(p->chunk[i].end - p->chunk[i].begin);
        const size_t little = bound * p->chunk[i].little / 256;
        const ol_stream before = stream;
        const int64_t tried = deflate_chunk(p, i, &stream, little);
        FUZZ_CHECK(tried >= 0 || tried == -ENOSPC, "%zu of %zu bytes of room: %lld", little, bound, (long long)tried);
        if (tried >= 0) stream = before; /* else the stream must be able to go on as it is */
        const int64_t r = deflate_chunk(p, i, &stream, bound);
        FUZZ_CHECK(r >= 0, "chunk %d of %d: the bound is not enough: %lld", i, p->n, (long long)r);
        FUZZ_CHECK(n + (size_t)r <= PACKED, "%zu bytes made of %zu", n, p->len);
        memcpy(packed + n, out_area + PACKED - bound, (size_t)r);
        n += (size_t)r;
        p->chunk[i].packed = n;
    }
    FUZZ_CHECK(stream.finished && stream.total == p->len, "%llu bytes in all", (unsigned long long)stream.total);
    FUZZ_CHECK(stream.check == check_of(p->format, p->data, p->len), "checksum %x", stream.check);
    return n;
}

/* Reads the chunks, which end in `in` where the program says, each into an exact room. */
static void we_read(const struct program *p, const uint8_t *in, const char *what, int full_dict) {
    ol_stream stream;
    size_t at = 0;
    memset(&stream, 0, sizeof stream);
    for (int i = 0; i < p->n; i++) {
        const struct chunk *c = &p->chunk[i];
        const size_t room = c->end - c->begin, n = c->packed - at;
        const size_t dict = !stream.started ? 0 : full_dict ? smaller(c->begin, DICT) : dict_before(c);
        uint8_t *out = out_area + PACKED - room, *src = in_area + PACKED - n;
        ol_op op;
        memcpy(src, in + at, n);
        ol_prep_inflate_chunk(&op, p->format, out, room, src, n, &stream, p->data + c->begin - dict, (uint32_t)dict,
                              i == p->n - 1);
        const int64_t r = ol_op_exec(exec, &op);
        FUZZ_CHECK(r == (int64_t)room, "%s, chunk %d of %d: %zu bytes expected, %lld: %s", what, i, p->n, room,
                   (long long)r, r < 0 ? ol_op_error(&op) : "");
        FUZZ_CHECK(op.used == n, "%s, chunk %d of %d: used %llu of %zu", what, i, p->n, (unsigned long long)op.used, n);
        FUZZ_CHECK(room == 0 || memcmp(out, p->data + c->begin, room) == 0, "%s, chunk %d: other data", what, i);
        at += n;
    }
    FUZZ_CHECK(stream.finished && stream.total == p->len, "%s: %llu bytes in all", what,
               (unsigned long long)stream.total);
}

/* zlib compresses the same chunks; where it flushes a chunk ends. */
static void zlib_writes_we_read(struct program *p) {
    static const int flush[] = {Z_SYNC_FLUSH, Z_FULL_FLUSH};
    static z_stream streams[4];
    z_stream *z = &streams[p->format];
    const int r =
        z->state ? deflateReset(z) : deflateInit2(z, 1, Z_DEFLATED, window_bits[p->format], 8, Z_DEFAULT_STRATEGY);
    if (r != Z_OK) abort();
    z->next_in = p->data;
    z->next_out = from_zlib;
    z->avail_out = PACKED;
    for (int i = 0; i < p->n; i++) {
        struct chunk *c = &p->chunk[i];
        z->avail_in = (uInt)(c->end - c->begin);
        if (deflateParams(z, c->zlevel, c->zlevel % 2 ? Z_DEFAULT_STRATEGY : Z_RLE) == Z_STREAM_ERROR) abort();
        const int got = deflate(z, i == p->n - 1 ? Z_FINISH : flush[c->flush]);
        FUZZ_CHECK(got == (i == p->n - 1 ? Z_STREAM_END : Z_OK) || got == Z_BUF_ERROR, "zlib: %d", got);
        FUZZ_CHECK(z->avail_in == 0 && z->avail_out > 0, "this harness gives zlib too little room");
        c->packed = PACKED - z->avail_out;
    }
    we_read(p, from_zlib, "zlib's", 1);
}

static void whole(const struct program *p) {
    const size_t bound = (size_t)ol_deflate_bound(p->len);
    ol_op op;
    ol_prep_deflate(&op, p->format, out_area + PACKED - bound, bound, p->data, p->len)->level = p->chunk[0].level;
    const int64_t r = ol_op_exec(exec, &op);
    FUZZ_CHECK(r > 0 && (size_t)r <= bound, "%lld of a bound of %zu", (long long)r, bound);
    zlib_reads(p, out_area + PACKED - bound, (size_t)r, "the whole");
    const int is_run = p->len > 1000 && memcmp(p->data, p->data + 1, p->len - 1) == 0;
    FUZZ_CHECK(!is_run || (size_t)r < p->len / 4, "%zu times the same byte becomes %lld", p->len, (long long)r);
}

static void crc_in_pieces(const struct program *p) {
    uint32_t running = 0;
    for (int i = 0; i < p->n; i++) {
        ol_op op;
        ol_prep_crc32(&op, running, p->data + p->chunk[i].begin, p->chunk[i].end - p->chunk[i].begin);
        running = (uint32_t)ol_op_exec(exec, &op);
    }
    FUZZ_CHECK(running == crc32(0, p->data, (uInt)p->len), "crc32 %x", running);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    fuzz_input in = fuzz_open(input, size);
    if (!data_area) {
        data_area = fuzz_area(DATA);
        in_area = fuzz_area(PACKED);
        out_area = fuzz_area(PACKED + 1) + 1;
    }
    make_program(&program, &in);
    exec = ol_exec_create();
    if (!exec) abort();
    const size_t n = deflate_all(&program);
    zlib_reads(&program, packed, n, "the chunks");
    we_read(&program, packed, "ours", 0);
    whole(&program);
    zlib_writes_we_read(&program);
    crc_in_pieces(&program);
    ol_exec_destroy(exec);
    guard_check_all_free();
    return 0;
}
