/* inflate.c: fuzz target: decompression of hostile input, against zlib.

   cc -std=c11 -O1 -g -I. tests/fuzz/inflate.c -o build/fuzz/inflate -pthread -lisal -lz

   Input: six bytes (form and format, room, dictionary, header, damage), then the data:
     whole     as it is
     wrapped   deflate data, which gets a header and the right trailer of the format: otherwise no checksum is ever
               right, and what is behind it never reached; then a byte of one of them may be damaged
     chunks    deflate data behind the offsets of two cuts; the pieces go on in a stream under way, each with the
               dictionary before it

   What is checked:
     - What zlib accepts is accepted, with the same bytes and as much of the input used; what zlib refuses is refused.
       The exception: ISA-L reads sets of codes that leave some bit patterns unused, about which RFC 1951 says nothing.
       Then the bytes are those of the reference decoder, which is neither ISA-L's nor zlib's.
     - A chunk is accepted if it ends between two blocks and at a byte boundary, and only then.
     - Too little room is -ENOSPC, also when one byte is missing, and the stream can go on with more; corrupt input is
       -EBADMSG, and the stream can't.
     - Nothing is written past the room, nor read past input or dictionary: behind each, and behind the codec's own
       memory, comes a page that can't be touched. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "guard.h"
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"
#include "reference.h"

#include <zlib.h>

/* libFuzzer: -max_len=4096 */

enum { ROOM = 1 << 17, DICT = 32768, CUTS = 2, INPUT = 1 << 16, HEADER = 64, FRONT = 64 };
enum { WHOLE, WRAPPED, CHUNKS, FORMS };

/* Areas whose end is at a page that can't be touched, and what the others made of the input. */
static uint8_t *in_area, *out_area, *dict_area, *zlib_out, *ref_out;
static uint8_t history[DICT + (CUTS + 1) * ROOM]; /* of a stream: the dictionary, then what was decompressed */
static ol_exec *exec;

static void set_up(void) {
    if (in_area) return;
    in_area = fuzz_area(INPUT);
    out_area = fuzz_area(FRONT + ROOM);
    dict_area = fuzz_area(DICT);
    zlib_out = fuzz_area(ROOM);
    ref_out = fuzz_area(ROOM);
    for (uint32_t i = 0, x = 1; i < DICT; i++) { /* a dictionary with something to refer to */
        static const char text[] = "<p>the dictionary that was sent before: ";
        x = x * 1103515245 + 12345;
        history[i] = i % 64 < sizeof text - 1 ? (uint8_t)text[i % 64] : (uint8_t)(x >> 24);
    }
}

/* The copy of data[0..n) that ends where `area`, of the given size, ends. */
static uint8_t *at_end(uint8_t *area, size_t size, const uint8_t *data, size_t n) {
    FUZZ_CHECK(n <= size, "%zu bytes", n);
    return n ? (uint8_t *)memcpy(area + size - n, data, n) : area + size;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* what the answer must be                                                                                          */

enum { REFUSED, ACCEPTED, FULL, EITHER }; /* FULL: more than ROOM bytes; EITHER: the exception */
struct verdict {
    int status;
    size_t len, used;
    const uint8_t *out;
};

/* zlib's, about data in any format. between: it must end between two blocks instead of with the last one. */
static struct verdict ask_zlib(int bits, const uint8_t *in, size_t n, const uint8_t *dict, size_t dict_len,
                               int between) {
    static z_stream z; /* used again: inflateInit costs more than most inputs */
    struct verdict v;
    memset(&v, 0, sizeof v);
    if ((z.state ? inflateReset2(&z, bits) : inflateInit2(&z, bits)) != Z_OK) abort();
    if (dict_len && inflateSetDictionary(&z, dict, (uInt)dict_len) != Z_OK) abort();
    z.next_in = (uint8_t *)(uintptr_t)in;
    z.avail_in = (uInt)n;
    z.next_out = zlib_out;
    z.avail_out = ROOM;
    const int r = inflate(&z, between ? Z_SYNC_FLUSH : Z_FINISH);
    v.out = zlib_out;
    v.len = ROOM - z.avail_out;
    v.used = n - z.avail_in;
    /* data_type: bits of the last byte that are left, 64 in the last block, 128 between two blocks */
    const int is_between = n == 0 || ((r == Z_OK || r == Z_BUF_ERROR) && z.avail_in == 0 && z.data_type == 128);
    if (between ? is_between : r == Z_STREAM_END) v.status = ACCEPTED;
    else if ((r == Z_OK || r == Z_BUF_ERROR) && z.avail_out == 0) v.status = FULL;
    return v;
}

/* About deflate data: zlib's, which must be the reference decoder's, too, or the exception. */
static struct verdict judge(const uint8_t *in, size_t n, const uint8_t *dict, size_t dict_len, int between) {
    static ref_state ref;
    struct verdict v = ask_zlib(-15, in, n, dict, dict_len, between);
    memset(&ref, 0, sizeof ref);
    ref.in = in;
    ref.in_len = n;
    ref.dict = dict;
    ref.dict_len = dict_len;
    ref.out = ref_out;
    ref.room = ROOM;
    const int end = ref_inflate(&ref);
    const int good = between ? end == REF_MORE && ref.between : end == REF_END;
    const int status = good ? ACCEPTED : end == REF_FULL ? FULL : REFUSED;
    if (v.status != REFUSED || !(ref.incomplete || ref.no_end)) {
        FUZZ_CHECK(v.status == status || (v.status == FULL && ref.len == ROOM),
                   "zlib: %d, %zu bytes; reference decoder: %d, %zu bytes", v.status, v.len, status, ref.len);
        FUZZ_CHECK(memcmp(zlib_out, ref_out, ref.len < v.len ? ref.len : v.len) == 0, "zlib and reference differ");
        v.status = status;
    } else if (status != REFUSED) {
        v.status = EITHER;
    }
    v.out = ref_out;
    v.len = ref.len;
    v.used = (ref.bit + 7) / 8;
    return v;
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* what the answer is                                                                                               */

struct question {
    int format, final;
    const uint8_t *in, *dict;
    size_t n, dict_len;
    ol_stream *stream;
};

static int64_t ask(const struct question *q, size_t room, ol_op *op) {
    uint8_t *in = at_end(in_area, INPUT, q->in, q->n), *out = out_area + FRONT + ROOM - room;
    uint8_t *dict = q->dict_len ? at_end(dict_area, DICT, q->dict, q->dict_len) : NULL;
    memset(out - FRONT, FUZZ_FILL, FRONT);
    if (q->stream) {
        ol_prep_inflate_chunk(op, q->format, out, room, in, q->n, q->stream, dict, (uint32_t)q->dict_len, q->final);
    } else {
        ol_prep_inflate(op, q->format, out, room, in, q->n);
        op->u.codec.dict = dict;
        op->dict_len = (uint16_t)q->dict_len;
    }
    const int64_t r = ol_op_exec(exec, op);
    FUZZ_CHECK(r == op->result, "%lld is not %lld", (long long)r, (long long)op->result);
    for (int i = 1; i <= FRONT; i++) FUZZ_CHECK(out[-i] == FUZZ_FILL, "wrote in front of the room");
    if (r < 0) FUZZ_CHECK(strlen(ol_op_error(op)) > 10, "no text for %lld", (long long)r);
    FUZZ_CHECK(r <= (int64_t)room, "%lld bytes in a room of %zu", (long long)r, room);
    return r;
}

static void check_bytes(const struct verdict *v, int64_t r, size_t room, const ol_op *op) {
    FUZZ_CHECK(r == (int64_t)v->len, "%zu bytes expected: %lld, %s", v->len, (long long)r,
               r < 0 ? ol_op_error(op) : "");
    FUZZ_CHECK(op->used == v->used, "used %llu, not %zu", (unsigned long long)op->used, v->used);
    FUZZ_CHECK(v->len == 0 || memcmp(out_area + FRONT + ROOM - room, v->out, v->len) == 0, "other bytes");
}

/* With too little room: for good data -ENOSPC, and the stream must be able to go on as that leaves it. */
static void check_little_room(const struct question *q, const struct verdict *v, size_t room) {
    ol_op op;
    ol_stream before;
    if (v->status != REFUSED && room >= v->len) return;
    if (q->stream) before = *q->stream;
    const int64_t r = ask(q, room, &op);
    if (v->status == ACCEPTED) {
        FUZZ_CHECK(r == -ENOSPC, "%zu bytes in a room of %zu: %lld", v->len, room, (long long)r);
    } else {
        if (q->stream) *q->stream = before;
        FUZZ_CHECK(r == -ENOSPC || r == -EBADMSG || r == -ENOTSUP, "result %lld", (long long)r);
    }
}

/* 1 if it was accepted. */
static int check(const struct question *q, const struct verdict *v, size_t little) {
    ol_op op;
    check_little_room(q, v, little < v->len ? little : v->len ? v->len - 1 : 0);
    /* half of the times the room is exact: where the bytes end the page begins that can't be touched */
    const size_t room = v->status == ACCEPTED && little % 2 ? v->len : ROOM;
    const int64_t r = ask(q, room, &op);
    switch (v->status) {
    case ACCEPTED: check_bytes(v, r, room, &op); return 1;
    case FULL: /* ISA-L decodes ahead of the room: it may have seen corrupt data behind it */
        FUZZ_CHECK(r == -ENOSPC || r == -EBADMSG, "more than %d bytes: %lld", ROOM, (long long)r);
        return 0;
    case EITHER:
        if (r >= 0) check_bytes(v, r, room, &op);
        FUZZ_CHECK(r >= 0 || r == -EBADMSG || r == -ENOSPC, "result %lld", (long long)r);
        return r >= 0;
    default: FUZZ_CHECK(r == -EBADMSG || r == -ENOTSUP, "refused by zlib: %lld", (long long)r); return 0;
    }
}

/* ---------------------------------------------------------------------------------------------------------------- */
/* forms                                                                                                            */

static const int window_bits[] = {0, -15, 15, 31}; /* zlib's names for raw, zlib, gzip */

static void check_whole(int format, size_t little, size_t dict_len, const uint8_t *in, size_t n) {
    struct question q;
    memset(&q, 0, sizeof q);
    q.format = format;
    q.in = in;
    q.n = n;
    q.dict = history + DICT - dict_len;
    q.dict_len = format == OL_RAW ? dict_len : 0;
    const struct verdict v =
        format == OL_RAW ? judge(in, n, q.dict, q.dict_len, 0) : ask_zlib(window_bits[format], in, n, NULL, 0, 0);
    (void)check(&q, &v, little);
}

/* A header with the optional fields, good or bad, that `what` selects. */
static size_t put_header(uint8_t *to, int format, uint32_t what) {
    size_t n = 10;
    if (format == OL_RAW) return 0;
    if (format == OL_ZLIB) { /* window, level, in one of eight a preset dictionary */
        to[0] = (uint8_t)((what % 8) << 4 | 8);
        to[1] = (uint8_t)((what >> 6) << 6 | (what >> 3 & 7 ? 0 : 0x20));
        to[1] = (uint8_t)(to[1] + 31 - (to[0] * 256 + to[1]) % 31);
        memcpy(to + 2, "dict", 4);
        return to[1] & 0x20 ? 6 : 2;
    }
    const uint8_t gzip[10] = {0x1f, 0x8b, 8, (uint8_t)(what & 31), 1, 2, 3, 4, (uint8_t)(what >> 5), 3};
    memcpy(to, gzip, sizeof gzip);
    if (what & 4) memcpy(to + n, "\x04\0ab\0d", 6), n += 6;
    if (what & 8) memcpy(to + n, "name", 5), n += 5;
    if (what & 16) memcpy(to + n, "", 1), n += 1;
    if (what & 2) {
        const uLong crc = crc32(0, to, (uInt)n);
        to[n++] = (uint8_t)crc;
        to[n++] = (uint8_t)(crc >> 8);
    }
    return n;
}

static size_t put_trailer(uint8_t *to, int format, uLong check, size_t total) {
    for (int i = 0; i < 4; i++) {
        to[i] = (uint8_t)(check >> (format == OL_GZIP ? 8 * i : 24 - 8 * i));
        to[4 + i] = (uint8_t)(total >> 8 * i);
    }
    return format == OL_GZIP ? 8 : format == OL_ZLIB ? 4 : 0;
}

static uLong check_of(int format, uLong running, const uint8_t *p, size_t n) {
    if (format == OL_RAW) return 0;
    return format == OL_GZIP ? crc32(running, p, (uInt)n) : adler32(running, p, (uInt)n);
}

/* header, deflate data, the right trailer, and what the input has behind the end of the data */
static void check_wrapped(int format, size_t little, uint32_t what, uint32_t damage, const uint8_t *in, size_t n) {
    static uint8_t wrapped[INPUT];
    struct question q;
    struct verdict v = judge(in, n, NULL, 0, 0);
    if (v.status == EITHER) return; /* where the data end is not agreed */
    const size_t head = put_header(wrapped, format, what), body = v.status == ACCEPTED ? v.used : n;
    const uLong start = format == OL_ZLIB ? 1 : 0;
    memcpy(wrapped + head, in, body);
    size_t end = head + body;
    end += put_trailer(wrapped + end, format, check_of(format, start, v.out, v.len), v.len);
    memcpy(wrapped + end, in + body, n - body);
    const size_t trailer = end - head - body, at = (damage >> 8) % 32;
    if (at < head) wrapped[at] = (uint8_t)(wrapped[at] ^ damage);
    else if (at - head < trailer) wrapped[body + at] = (uint8_t)(wrapped[body + at] ^ damage);
    memset(&q, 0, sizeof q);
    q.format = format;
    q.in = wrapped;
    q.n = end + n - body;
    const struct verdict z = ask_zlib(window_bits[format], q.in, q.n, NULL, 0, 0);
    const int good = !(damage & 0xff) && !(format == OL_ZLIB && wrapped[1] & 0x20);
    FUZZ_CHECK(!good || v.status != ACCEPTED || (z.status == ACCEPTED && z.used == end), "this harness wraps wrongly");
    (void)check(&q, &z, little);
}

/* One piece of a stream: 1 if the stream goes on. */
static int check_chunk(struct question *q, size_t little, size_t *done) {
    static uint8_t copy[INPUT];
    struct verdict v;
    ol_op op;
    const size_t known = DICT + *done, n = q->n;
    q->dict_len = *done + q->dict_len < DICT ? *done + q->dict_len : DICT;
    q->dict = history + known - q->dict_len;
    v = judge(q->in, n, q->dict, q->dict_len, !q->final);
    uLong running = check_of(q->format, q->stream->check, v.out, v.len);
    if (q->final && v.status == ACCEPTED) { /* the trailer belongs to it */
        memcpy(copy, q->in, v.used);
        v.used += put_trailer(copy + v.used, q->format, running, (size_t)q->stream->total + v.len);
        memset(copy + v.used, FUZZ_FILL, 16); /* what comes behind is not its business */
        q->in = copy;
        q->n = v.used + 16;
    }
    const uint64_t total = q->stream->total;
    if (v.status == EITHER) return 0;
    if (check(q, &v, little)) {
        memcpy(history + known, v.out, v.len);
        *done += v.len;
        FUZZ_CHECK(q->stream->total == total + v.len && q->stream->check == running, "the stream's state is wrong");
        FUZZ_CHECK(q->stream->finished == q->final && !q->stream->failed, "the stream's state is wrong");
        if (!q->final) return 1;
    } else if (v.status == FULL) {
        return 0;
    }
    FUZZ_CHECK(ask(q, ROOM, &op) == -EINVAL, "a stream that is finished or failed goes on: %lld", (long long)op.result);
    return 0;
}

static void check_chunks(int format, size_t little, size_t dict_len, int final, fuzz_input *input) {
    ol_stream stream;
    struct question q;
    size_t done = 0;
    memset(&stream, 0, sizeof stream);
    stream.started = 1;
    stream.total = dict_len;
    stream.check = (uint32_t)check_of(format, format == OL_ZLIB, history + DICT - dict_len, dict_len);
    uint32_t cut[CUTS];
    for (int i = 0; i < CUTS; i++) cut[i] = fuzz_word(input);
    for (int i = 0; i <= CUTS; i++) {
        const size_t left = fuzz_left(input);
        memset(&q, 0, sizeof q);
        q.format = format;
        q.stream = &stream;
        q.dict_len = dict_len;
        q.n = i < CUTS && cut[i] < left ? cut[i] : left;
        q.final = q.n == left && final;
        q.in = input->p;
        input->p += q.n;
        if (!check_chunk(&q, little, &done)) break;
    }
}

#if defined(FUZZ_LIBFUZZER)
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

/* Deflate data are bits: what takes bytes out or puts them in leaves little of what comes behind. So this does the same
   with bits in half of the cases: flips some, or takes out or puts in up to sixteen. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    enum { PARAMETERS = 6 };
    static uint8_t copy[INPUT];
    const size_t bits = size > PARAMETERS ? 8 * (size - PARAMETERS) : 0;
    if (bits == 0 || size > INPUT || seed % 2) return LLVMFuzzerMutate(data, size, most);
    const size_t at = (seed >> 4) % bits, n = 1 + (seed >> 28);
    const int put = (seed >> 1) % 3 == 0, take = (seed >> 1) % 3 == 1;
    const uint64_t x = (uint64_t)seed * 0x9e3779b97f4a7c15u;
    const size_t left = put ? bits + n : take && n < bits - at ? bits - n : bits;
    const size_t new_size = PARAMETERS + (left + 7) / 8;
    if (new_size > most) return size;
    memcpy(copy, data + PARAMETERS, size - PARAMETERS);
    memset(data + PARAMETERS, 0, new_size - PARAMETERS);
    for (size_t i = 0; i < left; i++) {
        const int random = i >= at && i < at + n;
        const size_t from = i < at ? i : put ? i - (random ? i : n) : take && left < bits ? i + n : i;
        unsigned bit = put && random ? (unsigned)(x >> (8 + i - at)) : (unsigned)copy[from / 8] >> from % 8;
        if (!put && !take && random) bit ^= (unsigned)(x >> (8 + i - at));
        data[PARAMETERS + i / 8] = (uint8_t)(data[PARAMETERS + i / 8] | (bit & 1) << i % 8);
    }
    return new_size;
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = fuzz_open(data, size);
    const uint32_t mode = fuzz_byte(&input), little = fuzz_byte(&input), dict = fuzz_byte(&input);
    const uint32_t what = fuzz_byte(&input), damage = fuzz_word(&input);
    const int format = 1 + (int)(mode / FORMS % 3), final = mode / FORMS / 3 % 2 == 0;
    /* room: 0..127 bytes, or steps of 32; dictionary: 0..63 bytes, or up to all */
    const size_t room = little < 128 ? little : (little - 127) * 32 + little % 2;
    const size_t dict_len = dict < 64 ? dict : dict == 255 ? DICT : (dict - 63) * 170;
    if (fuzz_left(&input) > INPUT - HEADER) return 0;
    set_up();
    exec = ol_exec_create();
    if (!exec) abort();
    switch (mode % FORMS) {
    case WHOLE: check_whole(format, room, dict_len, input.p, fuzz_left(&input)); break;
    case WRAPPED: check_wrapped(format, room, what, damage, input.p, fuzz_left(&input)); break;
    default: check_chunks(format, room, dict_len, final, &input); break;
    }
    ol_exec_destroy(exec);
    guard_check_all_free();
    return 0;
}
