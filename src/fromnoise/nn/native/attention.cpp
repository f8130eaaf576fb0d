// Attention on AMX tiles: softmax(q k^T * scale) v without ever storing the scores (Dao et al. 2022, "FlashAttention",
// algorithm 1), for bfloat16 values, which are the upper halves of float32 ones. Compiled on the machine that runs it.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int ROWS = 32, KEYS = 256;  // queries and keys at a time: their scores fit in the first-level cache
constexpr int64_t SPAN = 8;           // blocks of queries that one thread takes at a time

struct Shape {
    int64_t batch, heads, queries, keys, width;
    int64_t deep() const { return (width + 31) / 32; }    // tiles of channels that scores are summed over
    int64_t wide() const { return (width + 15) / 16; }    // tiles of channels of the values
    int64_t padded() const { return (keys + 31) / 32 * 32; }
    int64_t key_room() const { return padded() * deep() * 32; }
    int64_t value_room() const { return padded() * wide() * 16; }
};

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

bool permitted() {
    static const bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
    return allowed;
}

// The tile unit set up for 16 rows of 64 bytes, and given back as it was.
struct Tiles {
    TileConfig before;
    Tiles() {
        _tile_storeconfig(&before);
        TileConfig config;
        for (int i = 0; i < 8; ++i) config.bytes[i] = 64, config.rows[i] = 16;
        _tile_loadconfig(&config);
    }
    ~Tiles() { before.palette ? _tile_loadconfig(&before) : _tile_release(); }
};

// Keys (16 by 32 channels) as the second factor wants them: pairs of channels side by side, one key after another.
void pack_keys(const uint16_t* k, int64_t stride, const Shape& s, uint16_t* to) {
    std::memset(to, 0, s.key_room() * 2);
    for (int64_t key = 0; key < s.keys; ++key) {
        const uint16_t* from = k + key * stride;
        uint16_t* at = to + key / 16 * s.deep() * 512 + key % 16 * 2;
        for (int64_t c = 0; c < s.width; c += 2)
            std::memcpy(at + c / 2 * 32, from + c, c + 1 < s.width ? 4 : 2);
    }
}

// The key whose weight stands at a place of 32, once `weigh` has put the weights of 16 and 16 keys into one register.
int64_t key_at(int64_t place) { return place / 8 * 4 + place % 4 + (place % 8 < 4 ? 0 : 16); }

__m512i widened(const uint16_t* from, __mmask16 mask) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

// Values (32 keys by 16 channels) likewise, pairs of keys side by side, in the order of `key_at`.
void pack_values(const uint16_t* v, int64_t stride, const Shape& s, uint16_t* to) {
    for (int64_t first = 0; first < s.padded(); first += 32)
        for (int64_t w = 0; w < s.wide(); ++w, to += 512)
            for (int64_t place = 0; place < 32; place += 2) {
                int64_t key = first + key_at(place), left = s.width - w * 16;
                __mmask16 mask = left < 16 ? (1u << left) - 1 : 0xffff;
                const uint16_t* from = v + key * stride + w * 16;
                __m512i one = widened(from, key < s.keys ? mask : 0);
                __m512i other = widened(from + stride, key + 1 < s.keys ? mask : 0);
                _mm512_store_si512(to + place * 16, _mm512_or_si512(one, _mm512_slli_epi32(other, 16)));
            }
}

struct Room {
    alignas(64) float scores[ROWS * KEYS];
    alignas(64) uint16_t shares[ROWS * KEYS];
    alignas(64) uint16_t queries[4 * ROWS * 32];
    alignas(64) float mixed[8 * ROWS * 16];
    float top[ROWS], sum[ROWS];
};

void score_block(Room& room, int64_t block) {
    _tile_stored(0, room.scores + block * 16, KEYS * 4);
    _tile_stored(1, room.scores + 16 * KEYS + block * 16, KEYS * 4);
}

// Heads of 33 to 64 channels: the queries stay in tiles.
void score_two(Room& room, const uint16_t* keys, int64_t blocks) {
    _tile_loadd(2, room.queries, 64);
    _tile_loadd(3, room.queries + 16 * 32, 64);
    _tile_loadd(5, room.queries + ROWS * 32, 64);
    _tile_loadd(6, room.queries + ROWS * 32 + 16 * 32, 64);
    for (int64_t b = 0; b < blocks; ++b) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(4, keys + b * 1024, 64);
        _tile_loadd(7, keys + b * 1024 + 512, 64);
        _tile_dpbf16ps(0, 2, 4);
        _tile_dpbf16ps(1, 3, 4);
        _tile_dpbf16ps(0, 5, 7);
        _tile_dpbf16ps(1, 6, 7);
        score_block(room, b);
    }
}

void score(Room& room, const uint16_t* keys, int64_t blocks, int64_t deep) {
    if (deep == 2) return score_two(room, keys, blocks);
    for (int64_t b = 0; b < blocks; ++b) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t d = 0; d < deep; ++d) {
            _tile_loadd(4, keys + (b * deep + d) * 512, 64);
            _tile_loadd(2, room.queries + d * ROWS * 32, 64);
            _tile_loadd(3, room.queries + d * ROWS * 32 + 16 * 32, 64);
            _tile_dpbf16ps(0, 2, 4);
            _tile_dpbf16ps(1, 3, 4);
        }
        score_block(room, b);
    }
}

// 128 (x + 127) in whole numbers, 0 where 2^x is nothing, to 2^x in bfloat16, within a step of its own. A bfloat16's exponent
// and mantissa are such a number already but for the mantissa's curve, which a parabola follows (after Schraudolph 1999).
inline __m512i power_of_two(__m512i x) {
    __m512i part = _mm512_and_si512(x, _mm512_set1_epi16(127)), rest = _mm512_sub_epi16(_mm512_set1_epi16(128), part);
    return _mm512_sub_epi16(x, _mm512_mulhrs_epi16(_mm512_mullo_epi16(part, rest), _mm512_set1_epi16(88)));
}

// Scores to exp(score - top), as bfloat16; what was mixed before shrinks where a row has a new top.
void weigh(Room& room, int64_t blocks, int64_t valid, int64_t wide, float scale) {
    const __m512 none = _mm512_set1_ps(-INFINITY);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    for (int row = 0; row < ROWS; ++row) {
        float* s = room.scores + row * KEYS;
        if (valid < blocks * 16)
            for (int64_t i = valid; i < blocks * 16; ++i) s[i] = -INFINITY;
        __m512 most = none, more = none;
        for (int64_t b = 0; b < blocks; b += 2) {
            most = _mm512_max_ps(most, _mm512_load_ps(s + b * 16));
            more = _mm512_max_ps(more, _mm512_load_ps(s + b * 16 + 16));
        }
        float top = _mm512_reduce_max_ps(_mm512_max_ps(most, more)) * scale;
        if (top > room.top[row]) {
            float shrink = std::exp2(room.top[row] - top);
            __m512 factor = _mm512_set1_ps(shrink);
            for (int64_t w = 0; w < wide; ++w) {
                float* at = room.mixed + (w * ROWS + row) * 16;
                _mm512_store_ps(at, _mm512_mul_ps(_mm512_load_ps(at), factor));
            }
            room.sum[row] *= shrink;
            room.top[row] = top;
        }
        __m512 by = _mm512_set1_ps(128 * scale), less = _mm512_set1_ps(128 * (127 - room.top[row])), sum = _mm512_setzero_ps();
        for (int64_t b = 0; b < blocks; b += 2) {
            __m512i x = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_load_ps(s + b * 16), by, less));
            __m512i y = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_load_ps(s + b * 16 + 16), by, less));
            __m512i shares = power_of_two(_mm512_packus_epi32(x, y));
            sum = _mm512_dpbf16_ps(sum, (__m512bh)shares, ones);
            _mm512_store_si512(room.shares + row * KEYS + b * 16, shares);
        }
        room.sum[row] += _mm512_reduce_add_ps(sum);
    }
}

void mix(Room& room, const uint16_t* values, int64_t blocks, int64_t wide) {
    for (int64_t w = 0; w < wide; ++w) {
        float* mixed = room.mixed + w * ROWS * 16;
        _tile_loadd(0, mixed, 64);
        _tile_loadd(1, mixed + 16 * 16, 64);
        for (int64_t b = 0; b < blocks; b += 2) {
            _tile_loadd(4, values + (b / 2 * wide + w) * 512, 64);
            _tile_loadd(2, room.shares + b * 16, KEYS * 2);
            _tile_loadd(3, room.shares + 16 * KEYS + b * 16, KEYS * 2);
            _tile_dpbf16ps(0, 2, 4);
            _tile_dpbf16ps(1, 3, 4);
        }
        _tile_stored(0, mixed, 64);
        _tile_stored(1, mixed + 16 * 16, 64);
    }
}

void attend(Room& room, const uint16_t* q, const uint16_t* keys, const uint16_t* values, uint16_t* out,
            int64_t q_stride, int64_t out_stride, int64_t rows, const Shape& s, float scale) {
    std::memset(room.queries, 0, sizeof room.queries);
    std::memset(room.mixed, 0, sizeof room.mixed);
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < s.width; c += 32)
            std::memcpy(room.queries + c * ROWS + row * 32, q + row * q_stride + c,
                        2 * (s.width - c < 32 ? s.width - c : 32));
    for (int row = 0; row < ROWS; ++row) room.top[row] = -1e30f, room.sum[row] = 0.f;
    for (int64_t from = 0; from < s.padded(); from += KEYS) {
        int64_t count = s.padded() - from < KEYS ? s.padded() - from : KEYS, blocks = count / 16;
        int64_t valid = s.keys - from < count ? s.keys - from : count;
        score(room, keys + from * s.deep() * 32, blocks, s.deep());
        weigh(room, blocks, valid, s.wide(), scale);
        mix(room, values + from * s.wide() * 16, blocks, s.wide());
    }
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t w = 0; w < s.wide(); ++w) {
            __m512 x = _mm512_mul_ps(_mm512_load_ps(room.mixed + (w * ROWS + row) * 16),
                                     _mm512_set1_ps(1.f / room.sum[row]));
            __m256i half = (__m256i)_mm512_cvtneps_pbh(x);
            int64_t left = s.width - w * 16;
            __mmask16 mask = left < 16 ? (1u << left) - 1 : 0xffff;
            _mm256_mask_storeu_epi16(out + row * out_stride + w * 16, mask, half);
        }
}

}  // namespace

// softmax(q k^T * scale) v for (batch, tokens, heads * width) tensors whose rows are `stride` apart; out is contiguous.
extern "C" int fromnoise_attend(const uint16_t* q, const uint16_t* k, const uint16_t* v, uint16_t* out, int64_t batch,
                                int64_t heads, int64_t queries, int64_t keys, int64_t width, int64_t q_stride,
                                int64_t k_stride, int64_t v_stride, float scale) {
    Shape s{batch, heads, queries, keys, width};
    int64_t room = (s.key_room() + s.value_room()) * 2;
    uint16_t* packed = (uint16_t*)std::aligned_alloc(64, batch * heads * room);
    if (!packed || !permitted()) return std::free(packed), 1;
    scale *= 1.44269504f;
    int64_t share = ROWS * SPAN, spans = (queries + share - 1) / share, channels = heads * width;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < batch * heads; ++i) {
            int64_t b = i / heads, at = i % heads * width;
            uint16_t* keys_to = packed + i * room / 2;
            pack_keys(k + b * keys * k_stride + at, k_stride, s, keys_to);
            pack_values(v + b * keys * v_stride + at, v_stride, s, keys_to + s.key_room());
        }
        Tiles tiles;
        static thread_local Room space;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < batch * heads * spans; ++i) {
            int64_t head = i / spans, b = head / heads, at = head % heads * width;
            const uint16_t* ready = packed + head * room / 2;
            int64_t end = (i % spans + 1) * share < queries ? (i % spans + 1) * share : queries;
            for (int64_t row = i % spans * share; row < end; row += ROWS)
                attend(space, q + (b * queries + row) * q_stride + at, ready, ready + s.key_room(),
                       out + (b * queries + row) * channels + at, q_stride, channels,
                       end - row < ROWS ? end - row : ROWS, s, scale);
        }
    }
    std::free(packed);
    return 0;
}
