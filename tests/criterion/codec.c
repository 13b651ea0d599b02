/* Round trips against zlib, in both directions, and what hostile input may do: an error, an end, and not one byte past
   the buffer.
   cc -O2 -I. tests/criterion/codec.c -o build/tests/codec -lcriterion -lisal -lz -pthread */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define OFFLOAD_IMPLEMENTATION
#define OFFLOAD_ISAL
#include "offload.h"

#include <criterion/criterion.h>
#include <zlib.h>

#include "random.h"

enum { MAX = 70000, ROOM = 2 * MAX + 1024, GUARD = 64 };

static const int window_bits[] = {0, -15, 15, 31}; /* zlib's names for raw, zlib, gzip */
static const char *const format_name[] = {"", "raw", "zlib", "gzip"};

/* Four kinds of data: text-like, noise, one repeated byte, and a mixture with long repetitions. */
static void fill(uint8_t *p, size_t n, int kind) {
    static const char *const word[] = {"the ", "event ", "loop ", "gives ", "partition ", "\n", "<p>", "offload ", "a ", "of "};
    size_t i = 0;
    while (i < n) {
        if (kind == 1) {
            p[i++] = (uint8_t)random32();
        } else if (kind == 2) {
            p[i++] = 'x';
        } else if (kind == 3 && i > 300 && random32() % 4 == 0) {
            const size_t back = 1 + random32() % (i < 40000 ? i : 40000), len = 3 + random32() % 600;
            for (size_t k = 0; k < len && i < n; k++, i++) p[i] = p[i - back];
        } else {
            const char *w = word[random32() % 10];
            for (; *w && i < n; w++) p[i++] = (uint8_t)*w;
            if (kind == 3 && i < n) p[i++] = (uint8_t)random32();
        }
    }
}

static const char *zlib_says;
static uint64_t zlib_inflate(int format, const uint8_t *in, uint64_t n, uint8_t *out, uint64_t room, uint64_t *used) {
    static z_stream z[4];
    static int ready[4];
    z_stream *s = &z[format];
    if (!ready[format])
        cr_assert_eq(inflateInit2(s, window_bits[format]), Z_OK);
    else
        inflateReset(s);
    ready[format] = 1;
    s->next_in = (uint8_t *)(uintptr_t)in;
    s->avail_in = (uInt)n;
    s->next_out = out;
    s->avail_out = (uInt)room;
    const int r = inflate(s, Z_FINISH);
    zlib_says = r == Z_DATA_ERROR && s->msg ? s->msg : "";
    if (used) *used = n - s->avail_in;
    return r == Z_STREAM_END ? room - s->avail_out : UINT64_MAX;
}

static uint64_t zlib_deflate(int format, int level, const uint8_t *in, uint64_t n, uint8_t *out, uint64_t room) {
    z_stream s;
    memset(&s, 0, sizeof s);
    cr_assert_eq(deflateInit2(&s, level, Z_DEFLATED, window_bits[format], 8, Z_DEFAULT_STRATEGY), Z_OK);
    s.next_in = (uint8_t *)(uintptr_t)in;
    s.avail_in = (uInt)n;
    s.next_out = out;
    s.avail_out = (uInt)room;
    cr_assert_eq(deflate(&s, Z_FINISH), Z_STREAM_END);
    deflateEnd(&s);
    return room - s.avail_out;
}

static ol_exec *exec;
static uint8_t *src, *packed, *back;
static void setup(void) {
    exec = ol_exec_create();
    src = malloc(ROOM);
    packed = malloc(ROOM + GUARD);
    back = malloc(ROOM + GUARD);
    cr_assert(exec && src && packed && back);
}
static void teardown(void) {
    ol_exec_destroy(exec);
    free(src);
    free(packed);
    free(back);
}
TestSuite(codec, .init = setup, .fini = teardown, .timeout = 200);

/* One whole: deflate into exactly the promised bound, read by zlib, read by us. */
static void round_trip(int format, int level, uint64_t n) {
    ol_op op;
    const uint64_t bound = ol_deflate_bound(n);
    memset(packed + bound, 0xa5, GUARD);
    ol_prep_deflate(&op, format, packed, bound, src, n)->level = (uint8_t)level;
    const int64_t k = ol_op_exec(exec, &op);
    cr_assert_gt(k, 0, "%s level %d, %d bytes: %s", format_name[format], level, (int)n, ol_op_error(&op));
    for (int i = 0; i < GUARD; i++) cr_assert_eq(packed[bound + (uint64_t)i], 0xa5);
    uint64_t used = 0;
    cr_assert_eq(zlib_inflate(format, packed, (uint64_t)k, back, ROOM, &used), n, "%s level %d, %d bytes",
                 format_name[format], level, (int)n);
    cr_assert_eq(used, (uint64_t)k, "trailing bytes");
    cr_assert(memcmp(src, back, n) == 0);
    memset(back, 0x5a, n + 1);
    ol_prep_inflate(&op, format, back, n, packed, (uint64_t)k);
    cr_assert_eq(ol_op_exec(exec, &op), (int64_t)n, "%s %d bytes: %s", format_name[format], (int)n, ol_op_error(&op));
    cr_assert_eq(op.used, (uint64_t)k);
    cr_assert(memcmp(src, back, n) == 0 && back[n] == 0x5a);
}

static void all_sizes(int format) {
    for (uint64_t n = 0; n <= MAX; n++) {
        if (n % 500 == 0) fill(src, MAX, (int)(n / 500) % 4);
        round_trip(format, OL_LEVEL_AUTO, n);
    }
}
Test(codec, every_size_to_70000_round_trips_raw) { all_sizes(OL_RAW); }
Test(codec, every_size_to_70000_round_trips_zlib) { all_sizes(OL_ZLIB); }
Test(codec, every_size_to_70000_round_trips_gzip) { all_sizes(OL_GZIP); }

Test(codec, every_level_round_trips) {
    for (int kind = 0; kind < 4; kind++) {
        fill(src, MAX, kind);
        for (int level = OL_LEVEL_AUTO; level <= OL_LEVEL_STATIC; level++)
            for (uint64_t n = 0; n <= MAX; n = n * 5 / 4 + 1) round_trip(1 + (int)(n % 3), level, n);
    }
}

Test(codec, large_sizes_round_trip) {
    const uint64_t most = 24u << 20;
    uint8_t *in = malloc(most), *mid = malloc(ol_deflate_bound(most)), *out = malloc(most);
    cr_assert(in && mid && out);
    for (int i = 0; i < 12; i++) {
        const uint64_t n = 70000 + random32() % (most - 70000);
        const int format = 1 + i % 3;
        ol_op op;
        fill(in, n, i % 4);
        ol_prep_deflate(&op, format, mid, ol_deflate_bound(n), in, n)->level = (uint8_t)(i % 5);
        const int64_t k = ol_op_exec(exec, &op);
        cr_assert_gt(k, 0);
        cr_assert_eq(zlib_inflate(format, mid, (uint64_t)k, out, most, NULL), n);
        cr_assert(memcmp(in, out, n) == 0);
        memset(out, 0, n);
        ol_prep_inflate(&op, format, out, n, mid, (uint64_t)k);
        cr_assert_eq(ol_op_exec(exec, &op), (int64_t)n, "%s", ol_op_error(&op));
        cr_assert(memcmp(in, out, n) == 0);
    }
    free(in);
    free(mid);
    free(out);
}

/* Chunks of random sizes, dictionary before each, with levels changing; the pieces joined are one stream for zlib, and
   each can be inflated by itself with the 32 KB before it. */
static void chunked(int format, uint64_t n, int with_dict) {
    ol_stream out_stream, in_stream;
    uint64_t at = 0, k = 0;
    memset(&out_stream, 0, sizeof out_stream);
    memset(&in_stream, 0, sizeof in_stream);
    memset(back, 0, n);
    do {
        ol_op op;
        uint64_t piece = 1 + random32() % (n / 4 + 100);
        if (random32() % 8 == 0) piece = 0;
        if (piece > n - at) piece = n - at;
        const int final = at + piece == n && random32() % 2;
        const uint32_t dict = with_dict && out_stream.started ? (uint32_t)(at < 32768 ? at : 32768) : 0;
        ol_prep_deflate_chunk(&op, format, packed + k, ROOM - k, src + at, piece, &out_stream, src + at - dict, dict, final);
        op.level = (uint8_t)(random32() % 5);
        const int64_t got = ol_op_exec(exec, &op);
        cr_assert_geq(got, 0, "%s", ol_op_error(&op));
        ol_prep_inflate_chunk(&op, format, back + at, n - at, packed + k, (uint64_t)got, &in_stream, back + at - dict, dict, final);
        cr_assert_eq(ol_op_exec(exec, &op), (int64_t)piece, "inflate %d of %d at %d: %s", (int)piece, (int)n, (int)at, ol_op_error(&op));
        cr_assert_eq(op.used, (uint64_t)got);
        at += piece;
        k += (uint64_t)got;
        if (final) break;
    } while (1);
    cr_assert(out_stream.finished && in_stream.finished && out_stream.total == n && in_stream.check == out_stream.check);
    cr_assert(memcmp(src, back, n) == 0);
    memset(back, 0, n);
    cr_assert_eq(zlib_inflate(format, packed, k, back, ROOM, NULL), n, "%s in chunks, %d bytes", format_name[format], (int)n);
    cr_assert(memcmp(src, back, n) == 0);
}
Test(codec, chunks_join_to_one_stream) {
    for (int i = 0; i < 3000; i++) {
        const uint64_t n = random32() % (i % 10 ? 5000 : MAX);
        if (i % 50 == 0) fill(src, MAX, i / 50 % 4);
        chunked(1 + i % 3, n, i % 2);
    }
}

Test(codec, a_dictionary_improves_the_ratio) {
    ol_stream s;
    ol_op op;
    fill(src, MAX, 1);
    memcpy(src + 20000, src, 20000); /* noise, then the same noise: only a dictionary can know */
    memset(&s, 0, sizeof s);
    ol_prep_deflate_chunk(&op, OL_GZIP, packed, ROOM, src, 20000, &s, NULL, 0, 0);
    cr_assert_gt(ol_op_exec(exec, &op), 19000);
    ol_prep_deflate_chunk(&op, OL_GZIP, packed, ROOM, src + 20000, 20000, &s, src, 20000, 1);
    cr_assert_lt(ol_op_exec(exec, &op), 2000);
}

Test(codec, what_zlib_writes_we_read) {
    for (int i = 0; i < 4000; i++) {
        const uint64_t n = random32() % (i % 8 ? 3000 : MAX);
        const int format = 1 + i % 3;
        ol_op op;
        if (i % 40 == 0) fill(src, MAX, i / 40 % 4);
        const uint64_t k = zlib_deflate(format, i % 10, src, n, packed, ROOM);
        memset(packed + k, 0x77, 16); /* what follows a stream is not its business */
        ol_prep_inflate(&op, format, back, n, packed, k + 16);
        cr_assert_eq(ol_op_exec(exec, &op), (int64_t)n, "%s of zlib, %d bytes: %s", format_name[format], (int)n, ol_op_error(&op));
        cr_assert_eq(op.used, k);
        cr_assert(memcmp(src, back, n) == 0);
    }
}

Test(codec, gzip_headers_with_every_optional_field_are_read) {
    for (int flags = 0; flags < 32; flags++) {
        uint8_t h[64] = {0x1f, 0x8b, 8, (uint8_t)flags, 1, 2, 3, 4, 0, 3};
        uint64_t k = 10;
        if (flags & 4) memcpy(h + k, "\x03\0abc", 5), k += 5;
        if (flags & 8) memcpy(h + k, "name", 5), k += 5;
        if (flags & 16) memcpy(h + k, "comment", 8), k += 8;
        if (flags & 2) {
            const uLong c = crc32(0, h, (uInt)k);
            h[k++] = (uint8_t)c;
            h[k++] = (uint8_t)(c >> 8);
        }
        memcpy(packed, h, k);
        k += zlib_deflate(OL_RAW, 6, (const uint8_t *)"hello", 5, packed + k, ROOM - k);
        const uLong c = crc32(0, (const uint8_t *)"hello", 5);
        const uint8_t trailer[8] = {(uint8_t)c, (uint8_t)(c >> 8), (uint8_t)(c >> 16), (uint8_t)(c >> 24), 5};
        memcpy(packed + k, trailer, 8);
        ol_op op;
        ol_prep_inflate(&op, OL_GZIP, back, 100, packed, k + 8);
        cr_assert_eq(ol_op_exec(exec, &op), 5, "flags %d: %s", flags, ol_op_error(&op));
        cr_assert_eq(op.used, k + 8);
    }
}

Test(codec, output_too_small_is_ENOSPC_and_the_chunk_can_be_repeated) {
    for (int i = 0; i < 600; i++) {
        const uint64_t n = i < 64 ? (uint64_t)i : random32() % 20000;
        const int format = 1 + i % 3;
        ol_op op;
        ol_stream s;
        if (i % 20 == 0) fill(src, MAX, i / 20 % 4);
        memset(&s, 0, sizeof s);
        ol_prep_deflate_chunk(&op, format, packed, ROOM, src, n, &s, NULL, 0, 1);
        const int64_t k = ol_op_exec(exec, &op);
        cr_assert_gt(k, 0);
        const uint64_t little = random32() % (uint64_t)k;
        memset(&s, 0, sizeof s);
        memset(back, 0xa5, (size_t)k + GUARD);
        ol_prep_deflate_chunk(&op, format, back, little, src, n, &s, NULL, 0, 1);
        const int64_t r = ol_op_exec(exec, &op);
        cr_assert(r == -ENOSPC || (r > 0 && (uint64_t)r <= little));
        for (uint64_t j = little; j < (uint64_t)k + GUARD; j++) cr_assert_eq(back[j], 0xa5, "wrote past the buffer");
        if (r == -ENOSPC) {
            cr_assert_not_null(strstr(ol_op_error(&op), "ol_deflate_bound"));
            ol_prep_deflate_chunk(&op, format, back, ROOM, src, n, &s, NULL, 0, 1);
            cr_assert_eq(ol_op_exec(exec, &op), k);
        }
        if (!n) continue;
        const uint64_t room = random32() % n;
        memset(back, 0xa5, n + GUARD);
        ol_prep_inflate(&op, format, back, room, packed, (uint64_t)k);
        cr_assert_eq(ol_op_exec(exec, &op), -ENOSPC, "room %d of %d: %d", (int)room, (int)n, (int)op.result);
        for (uint64_t j = room; j < n + GUARD; j++) cr_assert_eq(back[j], 0xa5, "wrote past the buffer");
    }
}

Test(codec, truncated_input_is_EBADMSG) {
    for (int i = 0; i < 300; i++) {
        const uint64_t n = random32() % 3000;
        const int format = 1 + i % 3;
        ol_op op;
        fill(src, n, i % 4);
        const uint64_t k = zlib_deflate(format, 6, src, n, packed, ROOM);
        for (uint64_t cut = 0; cut < k; cut += 1 + random32() % 40) {
            uint8_t *exact = malloc(cut + 1); /* so that a read past the end is seen */
            memcpy(exact, packed, cut);
            ol_prep_inflate(&op, format, back, ROOM, exact, cut);
            cr_assert_eq(ol_op_exec(exec, &op), -EBADMSG, "%s cut to %d of %d: %d", format_name[format], (int)cut, (int)k,
                         (int)op.result);
            free(exact);
        }
    }
}

/* Flipped bits, spliced pieces, noise: whatever zlib accepts we accept with the same bytes; whatever it refuses we refuse.
   One exception: ISA-L reads codes that leave some bit patterns unused, about which RFC 1951 says nothing and which zlib
   refuses as an invalid set. Only raw streams can show it; the others have a checksum. */
Test(codec, corrupt_and_hostile_input_agrees_with_zlib) {
    uint8_t *other = malloc(ROOM);
    int accepted = 0, refused = 0;
    for (int i = 0; i < 60000; i++) {
        const int format = 1 + i % 3;
        uint64_t k, n = random32() % 800;
        ol_op op;
        if (i % 4 == 3) {
            k = random32() % 400;
            fill(packed, k, 1);
            if (format == OL_GZIP && k > 4) memcpy(packed, "\x1f\x8b\x08", 4);
        } else {
            fill(src, n, i % 3);
            k = zlib_deflate(format, i % 10, src, n, packed, ROOM);
            for (uint32_t flips = 1 + random32() % 3; flips; flips--) packed[random32() % k] ^= (uint8_t)(1u << random32() % 8);
        }
        const uint64_t room = random32() % 2 ? 4000 : n;
        memset(back + room, 0xa5, GUARD);
        ol_prep_inflate(&op, format, back, room, packed, k);
        const int64_t r = ol_op_exec(exec, &op);
        for (int j = 0; j < GUARD; j++) cr_assert_eq(back[room + (uint64_t)j], 0xa5, "wrote past the buffer");
        uint64_t used = 0;
        const uint64_t z = zlib_inflate(format, packed, k, other, room, &used);
        if (z != UINT64_MAX) {
            cr_assert_eq(r, (int64_t)z, "zlib reads %d bytes, we say %d (%s)", (int)z, (int)r, ol_op_error(&op));
            cr_assert(memcmp(back, other, z) == 0 && op.used == used);
            accepted++;
        } else {
            const int lenient = format == OL_RAW && strstr(zlib_says, " set");
            cr_assert(r < 0 || lenient, "%s %d: zlib refuses what we accept: %s", format_name[format], i, zlib_says);
            refused++;
        }
    }
    cr_assert(accepted > 500 && refused > 20000, "%d accepted, %d refused: the generator is lopsided", accepted, refused);
    free(other);
}

Test(codec, a_corrupt_chunk_ends_its_stream) {
    ol_stream s;
    ol_op op;
    memset(&s, 0, sizeof s);
    ol_prep_inflate_chunk(&op, OL_GZIP, back, 100, "garbage.....", 12, &s, NULL, 0, 1);
    cr_assert_eq(ol_op_exec(exec, &op), -EBADMSG);
    ol_prep_inflate_chunk(&op, OL_GZIP, back, 100, packed, 10, &s, NULL, 0, 1);
    cr_assert_eq(ol_op_exec(exec, &op), -EINVAL);
    cr_assert_not_null(strstr(ol_op_error(&op), "zero it"));
}

Test(codec, crc32_agrees_with_zlib_at_every_size_and_alignment) {
    fill(src, MAX, 1);
    for (uint32_t n = 0; n < 3000; n++) {
        ol_op op;
        const uint32_t start = n % 2 ? random32() : 0, offset = n % 17;
        ol_prep_crc32(&op, start, src + offset, n);
        cr_assert_eq(ol_op_exec(exec, &op), (int64_t)crc32(start, src + offset, n));
    }
}
