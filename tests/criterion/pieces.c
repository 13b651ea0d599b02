/* Buffers that are larger than what ISA-L is given at a time: here that is 1,000 bytes, so that every boundary between
   two pieces comes up. And an ISA-L that refuses, or stops where ours doesn't: a valid stream or an error, and an end.
   cc -O2 -I. tests/criterion/pieces.c -o build/tests/pieces -lcriterion -lisal -lz -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <stdint.h>

/* ISA-L's answers instead of its own; `stops` leaves a state behind. */
static int no_dictionary, no_deflate;
static int (*stops)(struct inflate_state *z);
#define isal_deflate_set_dict(...) (no_dictionary ? ISAL_INVALID_STATE : isal_deflate_set_dict(__VA_ARGS__))
#define isal_inflate_set_dict(...) (no_dictionary ? ISAL_INVALID_STATE : isal_inflate_set_dict(__VA_ARGS__))
#define isal_deflate(z) (no_deflate ? INVALID_FLUSH : isal_deflate(z))
#define isal_inflate(z) (stops ? stops(z) : isal_inflate(z))

#define OL_SYS_PIECE 1000
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <criterion/criterion.h>
#include <zlib.h>

enum { MAX = 6000, ROOM = 3 * MAX + 1000, GUARD = 32, DICT = 32768 };
static const int window_bits[] = {0, -15, 15, 31}; /* zlib's names for raw, zlib, gzip */
static const int levels[] = {OL_LEVEL_AUTO, OL_LEVEL_1, OL_LEVEL_2, OL_LEVEL_3, OL_LEVEL_STATIC};
static uint8_t src[DICT + MAX], packed[ROOM + GUARD], back[ROOM + GUARD];
static ol_exec *x;

static uint32_t random_state = 2463534242u;
static uint32_t random32(void) { /* xorshift32, Marsaglia 2003 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}
/* Noise, whose output is longer than its input; one byte, whose output is short; words; noise that comes again. */
static void fill(int kind) {
    for (size_t i = 0; i < sizeof src; i++)
        src[i] = kind == 0   ? (uint8_t)random32()
                 : kind == 1 ? 'x'
                 : kind == 2 ? (uint8_t) "the event loop of the partition "[random32() % 4 + i % 28]
                 : i >= 700  ? src[i - 700 + random32() % 2]
                             : (uint8_t)random32();
}

static uint64_t by_zlib(int format, const uint8_t *in, uint64_t n, uint64_t *used) {
    z_stream s;
    memset(&s, 0, sizeof s);
    cr_assert_eq(inflateInit2(&s, window_bits[format]), Z_OK);
    s.next_in = (uint8_t *)(uintptr_t)in;
    s.avail_in = (uInt)n;
    s.next_out = back;
    s.avail_out = ROOM;
    const int r = inflate(&s, Z_FINISH);
    inflateEnd(&s);
    *used = n - s.avail_in;
    return r == Z_STREAM_END ? ROOM - s.avail_out : UINT64_MAX;
}

static void setup(void) { cr_assert_not_null(x = ol_exec_create()); }
static void teardown(void) { ol_exec_destroy(x); }
TestSuite(pieces, .init = setup, .fini = teardown, .timeout = 120);

static int64_t deflated(ol_op *op, int format, int level, uint64_t cap, const uint8_t *in, uint64_t n) {
    memset(packed + cap, 0xa5, GUARD);
    ol_prep_deflate(op, format, packed, cap, in, n)->level = (uint8_t)level;
    const int64_t k = ol_op_exec(x, op);
    for (int i = 0; i < GUARD; i++) cr_assert_eq(packed[cap + (uint64_t)i], 0xa5, "it wrote past the room");
    return k;
}
static int64_t inflated(ol_op *op, int format, uint64_t cap, const uint8_t *in, uint64_t n) {
    memset(back, 0, sizeof back);
    memset(back + cap, 0xa5, GUARD);
    const int64_t k = ol_op_exec(x, ol_prep_inflate(op, format, back, cap, in, n));
    for (int i = 0; i < GUARD; i++) cr_assert_eq(back[cap + (uint64_t)i], 0xa5, "it wrote past the room");
    return k;
}

/* There and back; with a byte of room less there and back; and with a byte of input less. */
static void round_trip(int format, int level, uint64_t n) {
    ol_op op;
    uint64_t used = 0;
    const int64_t k = deflated(&op, format, level, ol_deflate_bound(n), src, n);
    cr_assert_gt(k, 0, "format %d level %d, %d bytes: %s", format, level, (int)n, ol_op_error(&op));
    cr_assert_eq(by_zlib(format, packed, (uint64_t)k, &used), n, "format %d level %d, %d bytes", format, level, (int)n);
    cr_assert(used == (uint64_t)k && memcmp(src, back, n) == 0);
    cr_assert_eq(inflated(&op, format, n, packed, (uint64_t)k + 7), (int64_t)n, "%d bytes: %s", (int)n,
                 ol_op_error(&op));
    cr_assert_eq(op.used, (uint64_t)k);
    cr_assert(memcmp(src, back, n) == 0);
    if (n) cr_assert_eq(inflated(&op, format, n - 1, packed, (uint64_t)k), -ENOSPC, "%d bytes", (int)n);
    cr_assert_eq(inflated(&op, format, n, packed, (uint64_t)k - 1), -EBADMSG, "%d bytes", (int)n);
    const int64_t less = deflated(&op, format, level, (uint64_t)k - 1, src, n);
    if (less >= 0) {
        cr_assert_eq(by_zlib(format, packed, (uint64_t)less, &used), n);
        cr_assert(memcmp(src, back, n) == 0);
    } else {
        cr_assert_eq(less, -ENOSPC);
    }
}
static void sizes(int format) {
    for (int kind = 0; kind < 4; kind++) {
        fill(kind);
        for (uint64_t n = 0; n <= MAX; n += n % 1000 < 30 || n % 1000 > 970 ? 1 : 7)
            round_trip(format, levels[n % 5], n);
    }
}
Test(pieces, sizes_about_each_boundary_raw) { sizes(OL_RAW); }
Test(pieces, sizes_about_each_boundary_zlib) { sizes(OL_ZLIB); }
Test(pieces, sizes_about_each_boundary_gzip) { sizes(OL_GZIP); }

/* One byte, a thousand times as long as its compressed form: ISA-L has taken all of a piece before it has given half. */
Test(pieces, output_that_is_much_longer_than_its_input) {
    const uint64_t n = 3 << 20;
    uint8_t *in = malloc(n), *out = malloc(n), *z = malloc(n);
    ol_op op;
    memset(in, 'x', n);
    for (int format = OL_RAW; format <= OL_GZIP; format++)
        for (int i = 0; i < 5; i++) {
            ol_prep_deflate(&op, format, z, n, in, n)->level = (uint8_t)levels[i];
            const int64_t k = ol_op_exec(x, &op);
            cr_assert(k > 1000 && k < 100000, "level %d: %d", levels[i], (int)k);
            memset(out, 0, n);
            cr_assert_eq(ol_op_exec(x, ol_prep_inflate(&op, format, out, n, z, (uint64_t)k)), (int64_t)n, "%s",
                         ol_op_error(&op));
            cr_assert(op.used == (uint64_t)k && memcmp(in, out, n) == 0);
        }
    free(in);
    free(out);
    free(z);
}

Test(pieces, each_level_may_come_first_in_a_context) {
    fill(2);
    for (int i = 0; i < 5; i++) {
        ol_exec_destroy(x);
        cr_assert_not_null(x = ol_exec_create());
        round_trip(OL_GZIP, levels[i], 3000);
    }
}

/* A stream in chunks that are shorter and longer than a piece, with the dictionary that came before or without. */
static void in_chunks(int format, int kind, int with_dict) {
    ol_stream out, in;
    ol_op op;
    uint64_t done = 0, k = 0, at = DICT, used = 0;
    fill(kind);
    memset(&out, 0, sizeof out);
    memset(&in, 0, sizeof in);
    static uint8_t result[MAX];
    while (!out.finished) {
        const uint64_t left = MAX - done, n = left < 2100 ? left : random32() % 2100;
        const uint32_t dict = with_dict ? (uint32_t)(done < DICT ? done : DICT) : 0;
        ol_prep_deflate_chunk(&op, format, packed, ROOM, src + at, n, &out, src + at - dict, dict, n == left);
        const int64_t size = ol_op_exec(x, &op);
        cr_assert_geq(size, 0, "%s", ol_op_error(&op));
        ol_prep_inflate_chunk(&op, format, back, n, packed, (uint64_t)size, &in, result + done - dict, dict, n == left);
        cr_assert_eq(ol_op_exec(x, &op), (int64_t)n, "%s", ol_op_error(&op));
        cr_assert_eq(op.used, (uint64_t)size);
        memcpy(result + done, back, n);
        done += n;
        at += n;
        k += (uint64_t)size;
    }
    cr_assert(k > 0 && used == 0 && in.finished && in.check == out.check && in.total == MAX);
    cr_assert(memcmp(result, src + DICT, MAX) == 0);
}
Test(pieces, chunks_shorter_and_longer_than_a_piece) {
    for (int i = 0; i < 240; i++) in_chunks(1 + i % 3, i / 3 % 4, i / 12 % 2);
}

/* ---- an ISA-L that refuses */

Test(pieces, what_cannot_be_compressed_is_stored) {
    for (int format = OL_RAW; format <= OL_GZIP; format++)
        for (int how = 0; how < 2; how++) {
            ol_op op;
            ol_stream s;
            uint64_t used = 0;
            fill(2);
            memset(&s, 0, sizeof s);
            no_dictionary = how == 0;
            no_deflate = how == 1;
            s.started = format != OL_RAW; /* its header has been sent: a dictionary is legal */
            s.check = format == OL_ZLIB;
            ol_prep_deflate_chunk(&op, OL_RAW, packed, ROOM, src, 2500, NULL, src, 100, 1);
            const int64_t k = ol_op_exec(x, &op);
            cr_assert_eq(k, 2500 + 5, "%s", ol_op_error(&op)); /* one stored block, RFC 1951 section 3.2.4 */
            cr_assert_eq(by_zlib(OL_RAW, packed, (uint64_t)k, &used), 2500u);
            cr_assert(memcmp(src, back, 2500) == 0);
            ol_prep_deflate_chunk(&op, format, packed, 2500, src, 2500, &s, src, 100, 1);
            cr_assert_eq(ol_op_exec(x, &op), -ENOSPC);
            cr_assert_not_null(strstr(ol_op_error(&op), "ol_deflate_bound"));
            cr_assert_eq(s.finished, 0);
        }
}
Test(pieces, a_dictionary_that_inflate_refuses_ends_the_stream) {
    ol_op op;
    ol_stream s;
    memset(&s, 0, sizeof s);
    fill(2);
    const int64_t k = deflated(&op, OL_RAW, OL_LEVEL_1, ROOM, src, 2500);
    no_dictionary = 1;
    ol_prep_inflate_chunk(&op, OL_RAW, back, ROOM, packed, (uint64_t)k, &s, src, 100, 1);
    cr_assert_eq(ol_op_exec(x, &op), -EBADMSG);
    cr_assert_not_null(strstr(ol_op_error(&op), "corrupt"));
    cr_assert_eq(s.failed, 1);
}

/* ---- an ISA-L that stops somewhere: where a chunk may end it does, anywhere else the chunk is corrupt */

static struct { int block, in_header, bits, unread, good; } stop_case;
static int stops_there(struct inflate_state *z) {
    const uint32_t take = z->avail_in > (uint32_t)stop_case.unread ? z->avail_in - (uint32_t)stop_case.unread : 0;
    z->next_in += take;
    z->avail_in -= take;
    z->block_state = stop_case.block ? ISAL_BLOCK_HDR : ISAL_BLOCK_NEW_HDR;
    if (stop_case.block == 2) z->block_state = ISAL_BLOCK_CODED;
    z->tmp_in_size = (int16_t)stop_case.in_header;
    z->read_in_length = stop_case.bits;
    return ISAL_DECOMP_OK;
}
Test(pieces, a_chunk_ends_between_two_blocks_and_nowhere_else) {
    static const int cases[][5] = {{0, 0, 0, 0, 1}, {1, 0, 0, 0, 1}, {1, 2, 0, 0, 0}, {2, 0, 0, 0, 0},  {1, 0, 5, 0, 0},
                                   {0, 0, 3, 0, 0}, {0, 0, 0, 1, 0}, {1, 0, 0, 9, 0}, {0, 0, 0, 999, 0}};
    stops = stops_there;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint64_t n = 900; n < 3100; n += 100) {
            ol_op op;
            ol_stream s;
            memset(&s, 0, sizeof s);
            memcpy(&stop_case, cases[i], sizeof cases[i]);
            ol_prep_inflate_chunk(&op, OL_RAW, back, 10, src, n, &s, NULL, 0, 0);
            const int64_t r = ol_op_exec(x, &op);
            cr_assert_eq(r, stop_case.good ? 0 : -EBADMSG, "case %d, %d bytes: %d", (int)i, (int)n, (int)r);
            cr_assert_eq(s.failed, !stop_case.good);
            if (stop_case.good) cr_assert_eq(op.used, n);
            memset(&s, 0, sizeof s);
            ol_prep_inflate_chunk(&op, OL_RAW, back, 10, src, n, &s, NULL, 0, 1); /* the last one ends with a block */
            cr_assert_eq(ol_op_exec(x, &op), -EBADMSG, "case %d, %d bytes", (int)i, (int)n);
        }
}
