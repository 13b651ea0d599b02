/* reference.h: a decoder of deflate data (RFC 1951) that is slow, plain and instrumented.

   The codecs under test are machine code to a fuzzer: it can't see which of their branches an input takes. This one it
   can see, so inputs that reach new corners of the format are kept. It is also the third opinion where two decoders
   disagree: it says whether a stream uses an incomplete code, about which the RFC says nothing and decoders differ. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { REF_MORE, REF_END, REF_BAD, REF_FULL }; /* out of input, last block ended, invalid, out of room */
enum { REF_BITS = 15, REF_SYMBOLS = 288, REF_LENGTHS = 320 };

typedef struct ref_code {
    uint16_t count[REF_BITS + 1]; /* codes of each length */
    uint16_t symbol[REF_SYMBOLS]; /* by length, then by value */
    int left;                     /* codes of 15 bits that stay unused; negative: too many are used */
} ref_code;

typedef struct ref_state {
    const uint8_t *in;
    size_t in_len, bit; /* bytes of input; bits of it that are consumed */
    const uint8_t *dict;
    size_t dict_len;
    uint8_t *out;
    size_t room, len; /* bytes that fit into out, bytes written */
    int between;      /* REF_MORE came where a block's header would have begun */
    int incomplete;   /* a code left bit patterns unused; see ref_incomplete */
    int no_end;       /* a block that can't end: it has no code for that */
    ref_code literals, distances;
} ref_state;

/* What libFuzzer is told besides the branches: the symbols that occur, and how long their codes are. */
enum { REF_SEEN_LENGTH = 0, REF_SEEN_DISTANCE = 32, REF_SEEN_CODE = 64, REF_SEEN_NEAR = 80, REF_SEEN_TYPE = 84 };
#if defined(FUZZ_LIBFUZZER)
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t ref_counters[96];
static void ref_seen(int what) { ref_counters[what] = 1; }
#else
static void ref_seen(int what) { (void)what; }
#endif

/* -1: the input is over */
static int ref_bit(ref_state *s) {
    if (s->bit == 8 * s->in_len) return -1;
    const int bit = s->in[s->bit / 8] >> s->bit % 8 & 1;
    s->bit++;
    return bit;
}

static int ref_bits(ref_state *s, int n) {
    int value = 0;
    for (int i = 0; i < n; i++) {
        const int bit = ref_bit(s);
        if (bit < 0) return -1;
        value |= bit << i;
    }
    return value;
}

/* Section 3.2.2: codes of a length are consecutive, in the order of their symbols. */
static void ref_make(ref_code *c, const uint8_t *length, int n) {
    uint16_t at[REF_BITS + 2];
    memset(c, 0, sizeof *c);
    for (int i = 0; i < n; i++) c->count[length[i]]++;
    c->count[0] = 0;
    c->left = 1 << REF_BITS;
    at[1] = 0;
    for (int i = 1; i <= REF_BITS; i++) {
        c->left -= c->count[i] << (REF_BITS - i);
        at[i + 1] = (uint16_t)(at[i] + c->count[i]);
    }
    for (int i = 0; i < n; i++)
        if (length[i]) c->symbol[at[length[i]]++] = (uint16_t)i;
}

/* The next symbol; -1: the input is over; -2: bits that no symbol has. */
static int ref_symbol(ref_state *s, const ref_code *c) {
    int code = 0, first = 0, before = 0;
    for (int i = 1; i <= REF_BITS; i++) {
        const int bit = ref_bit(s);
        if (bit < 0) return -1;
        code = code << 1 | bit;
        first <<= 1;
        if (code - first < c->count[i]) {
            ref_seen(REF_SEEN_CODE + i);
            return c->symbol[before + code - first];
        }
        before += c->count[i];
        first += c->count[i];
    }
    return -2;
}

static int ref_put(ref_state *s, uint8_t byte) {
    if (s->len == s->room) return REF_FULL;
    s->out[s->len++] = byte;
    return REF_MORE;
}

/* Section 3.2.4 */
static int ref_stored(ref_state *s) {
    s->bit = (s->bit + 7) / 8 * 8;
    const int n = ref_bits(s, 16), complement = n < 0 ? -1 : ref_bits(s, 16);
    if (complement < 0) return REF_MORE;
    if (n != (complement ^ 0xffff)) return REF_BAD;
    for (int i = 0; i < n; i++) {
        const int byte = ref_bits(s, 8);
        if (byte < 0) return REF_MORE;
        if (ref_put(s, (uint8_t)byte) == REF_FULL) return REF_FULL;
    }
    return REF_END;
}

/* Section 3.2.6 */
static void ref_fixed(ref_state *s) {
    uint8_t length[REF_SYMBOLS];
    memset(length, 8, 144);
    memset(length + 144, 9, 112);
    memset(length + 256, 7, 24);
    memset(length + 280, 8, 8);
    ref_make(&s->literals, length, REF_SYMBOLS);
    memset(length, 5, 32);
    ref_make(&s->distances, length, 32);
}

/* The lengths of a dynamic block's codes, which are coded themselves. REF_END: all are there. */
static int ref_lengths(ref_state *s, uint8_t *length, int n) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t own[19] = {0};
    const int codes = ref_bits(s, 4);
    if (codes < 0) return REF_MORE;
    for (int i = 0; i < codes + 4; i++) {
        const int bits = ref_bits(s, 3);
        if (bits < 0) return REF_MORE;
        own[order[i]] = (uint8_t)bits;
    }
    ref_make(&s->literals, own, 19);
    if (s->literals.left < 0) return REF_BAD;
    if (s->literals.left > 0) s->incomplete = 1;
    for (int i = 0; i < n;) {
        const int symbol = ref_symbol(s, &s->literals);
        if (symbol < 0) return symbol == -1 ? REF_MORE : REF_BAD;
        if (symbol < 16) {
            length[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && i == 0) return REF_BAD;
        const int extra = ref_bits(s, symbol == 16 ? 2 : symbol == 17 ? 3 : 7);
        if (extra < 0) return REF_MORE;
        const int times = extra + (symbol == 18 ? 11 : 3);
        if (i + times > n) return REF_BAD;
        memset(length + i, symbol == 16 ? length[i - 1] : 0, (size_t)times);
        i += times;
    }
    return REF_END;
}

/* Bit patterns that no symbol has; but a code without symbols, or with one of one bit, is usual (section 3.2.7). */
static int ref_incomplete(const ref_code *c) {
    const int all = 1 << REF_BITS;
    return c->left > 0 && c->left != all && !(c->left == all / 2 && c->count[1] == 1);
}

/* Section 3.2.7 */
static int ref_dynamic(ref_state *s) {
    uint8_t length[REF_LENGTHS] = {0};
    const int literals = ref_bits(s, 5), distances = literals < 0 ? -1 : ref_bits(s, 5);
    if (distances < 0) return REF_MORE;
    if (literals + 257 > 286 || distances + 1 > 30) return REF_BAD;
    const int r = ref_lengths(s, length, literals + 257 + distances + 1);
    if (r != REF_END) return r;
    ref_make(&s->literals, length, literals + 257);
    ref_make(&s->distances, length + literals + 257, distances + 1);
    if (s->literals.left < 0 || s->distances.left < 0) return REF_BAD;
    if (!length[256]) s->no_end = 1;
    s->incomplete |= ref_incomplete(&s->literals) || ref_incomplete(&s->distances);
    return REF_END;
}

/* Section 3.2.5: a length and a distance. */
static int ref_copy(ref_state *s, int symbol) {
    const int k = symbol - 257, length_bits = k < 8 || k == 28 ? 0 : k / 4 - 1;
    if (k > 28) return REF_BAD;
    const int extra = ref_bits(s, length_bits);
    if (extra < 0) return REF_MORE;
    const int n = k < 8 ? 3 + k : k == 28 ? 258 : 3 + ((4 + k % 4) << length_bits) + extra;
    const int d = ref_symbol(s, &s->distances);
    if (d < 0 || d > 29) return d == -1 ? REF_MORE : REF_BAD;
    const int distance_bits = d < 4 ? 0 : d / 2 - 1, more = ref_bits(s, distance_bits);
    if (more < 0) return REF_MORE;
    const size_t distance = (size_t)(d < 4 ? 1 + d : 1 + ((2 + d % 2) << distance_bits) + more);
    ref_seen(REF_SEEN_LENGTH + k);
    ref_seen(REF_SEEN_DISTANCE + d);
    ref_seen(REF_SEEN_NEAR + (distance < (size_t)n) + 2 * (distance > s->len));
    if (distance > s->len + s->dict_len) return REF_BAD;
    for (int i = 0; i < n; i++) {
        const uint8_t byte = distance <= s->len ? s->out[s->len - distance] : s->dict[s->dict_len + s->len - distance];
        if (ref_put(s, byte) == REF_FULL) return REF_FULL;
    }
    return REF_END;
}

static int ref_symbols(ref_state *s) {
    for (;;) {
        const int symbol = ref_symbol(s, &s->literals);
        int r = REF_END;
        if (symbol < 0) return symbol == -1 ? REF_MORE : REF_BAD;
        if (symbol == 256) return REF_END;
        if (symbol < 256) r = ref_put(s, (uint8_t)symbol) == REF_FULL ? REF_FULL : REF_END;
        else r = ref_copy(s, symbol);
        if (r != REF_END) return r;
    }
}

/* Decodes from s->in on until something ends it. */
static int ref_inflate(ref_state *s) {
    for (;;) {
        s->between = s->bit == 8 * s->in_len;
        const int last = ref_bits(s, 1), type = last < 0 ? -1 : ref_bits(s, 2);
        int r = REF_END;
        if (type < 0) return REF_MORE;
        s->between = 0;
        ref_seen(REF_SEEN_TYPE + 2 * type + last);
        if (type == 3) return REF_BAD;
        if (type == 1) ref_fixed(s);
        if (type == 2) r = ref_dynamic(s);
        if (r == REF_END) r = type == 0 ? ref_stored(s) : ref_symbols(s);
        if (r != REF_END || last) return r;
    }
}

#endif /* REFERENCE_H */
