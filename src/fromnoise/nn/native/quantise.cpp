// Activations made 8-bit in one pass over memory: normalised, through SiLU, scaled, rounded (Jacob et al. 2018,
// "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", equation 1).
// Values are bfloat16, the upper halves of float32 ones, or float32 where `wide` says so. Compiled on the machine that
// runs it.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t LANES = 16;
constexpr int64_t MIXED = 16;  // vectors that are mixed
constexpr int64_t SPAN = 64;  // pixels that one thread takes at a time

__mmask16 some(int64_t left) { return left >= LANES ? 0xffff : (__mmask16)((1u << left) - 1); }

using Half = uint16_t;

__m512 widened(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }

__m512 widened(const Half* from, __mmask16 mask) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

// What is rounded to 8 bits needs no more than 14 good ones, which is what `inverse` and `exponential` give.
__m512 inverse(__m512 x) { return _mm512_rcp14_ps(x); }

// e^x: 2^n times a polynomial of the rest, Taylor's up to the fourth power.
__m512 exponential(__m512 x) {
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.69314718f), x);
    __m512 sum = _mm512_set1_ps(1.0f / 24);
    for (float next : {1.0f / 6, 0.5f, 1.0f, 1.0f}) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(next));
    return _mm512_scalef_ps(sum, n);
}

__m512 silu(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_mul_ps(x, inverse(_mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x)))));
}

// GELU by Abramowitz & Stegun's formula 7.1.26 for the error function.
__m512 gelu(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f), half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    __m512 t = inverse(_mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
    __m512 sum = _mm512_set1_ps(1.061405429f);
    for (float next : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
        sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(next));
    __m512 tail = exponential(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z)));
    __m512 erf = _mm512_fnmadd_ps(_mm512_mul_ps(sum, t), tail, one);
    return _mm512_fmadd_ps(_mm512_abs_ps(half), erf, half);
}

void store(uint8_t* to, __mmask16 mask, __m512 value) {
    __m512 in_range = _mm512_max_ps(value, _mm512_setzero_ps());  // a NaN becomes 0; the top saturates below
    _mm_mask_storeu_epi8(to, mask, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(in_range)));
}

// The nearest bfloat16, the even one of two; a NaN stays one.
void narrow(Half* to, __mmask16 mask, __m512 value) {
    __m512i bits = _mm512_castps_si512(value), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
    _mm256_mask_storeu_epi16(to, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

struct Sums {
    std::vector<float> sum, square;
    explicit Sums(int64_t channels) : sum(channels), square(channels) {}
};

template <typename Value>
void add_pixels(const Value* x, int64_t pixels, int64_t channels, Sums& sums) {
    for (int64_t c = 0; c < channels; c += LANES) {
        __mmask16 mask = some(channels - c);
        __m512 sum = _mm512_setzero_ps(), square = _mm512_setzero_ps();
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            __m512 value = widened(x + pixel * channels + c, mask);
            sum = _mm512_add_ps(sum, value), square = _mm512_fmadd_ps(value, value, square);
        }
        _mm512_mask_storeu_ps(&sums.sum[c], mask, sum);
        _mm512_mask_storeu_ps(&sums.square[c], mask, square);
    }
}

// Group normalisation of x + shift as slope * x + offset, from the sums of each channel over the pixels.
void line(const double* sum, const double* square, const float* shift, const float* weight, const float* bias,
          int64_t pixels, int64_t channels, int64_t groups, float eps, float* slope, float* offset) {
    int64_t share = channels / groups;
    for (int64_t first = 0; first < channels; first += share) {
        double total = 0, squares = 0, count = (double)share * pixels;
        for (int64_t c = first; c < first + share; ++c) {
            double moved = shift ? shift[c] : 0;
            total += sum[c] + pixels * moved;
            squares += square[c] + 2 * moved * sum[c] + pixels * moved * moved;
        }
        double mean = total / count, variance = squares / count - mean * mean;
        double scale = 1 / std::sqrt((variance > 0 ? variance : 0) + eps);
        for (int64_t c = first; c < first + share; ++c) {
            slope[c] = (float)(scale * weight[c]);
            offset[c] = (float)(bias[c] + ((shift ? shift[c] : 0) - mean) * scale * weight[c]);
        }
    }
}

template <typename Value>
__m512 gated(const Value* value, const Value* gate, __mmask16 mask) {
    return _mm512_mul_ps(widened(value, mask), gelu(widened(gate, mask)));
}

// value * gelu(gate), which lie side by side, x (rows, 2 * channels), given to write(place in (rows, channels), channel,
// mask, product).
template <typename Value, typename Write>
void gate(const Value* x, int64_t rows, int64_t channels, Write write) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const Value* value = x + row * 2 * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            __mmask16 mask = some(channels - c);
            write(row * channels + c, c, mask, gated(value + c, value + channels + c, mask));
        }
    }
}

// Sixteen vectors times the Hadamard matrix of that order, which keeps lengths (Sylvester's construction).
void mix(__m512* vectors) {
    for (int64_t half = 1; half < MIXED; half *= 2)
        for (int64_t i = 0; i < MIXED; ++i) {
            if (i & half) continue;
            __m512 one = vectors[i], other = vectors[i + half];
            vectors[i] = _mm512_add_ps(one, other), vectors[i + half] = _mm512_sub_ps(one, other);
        }
    for (int64_t i = 0; i < MIXED; ++i) vectors[i] = _mm512_mul_ps(vectors[i], _mm512_set1_ps(0.25f));
}

// x (batch, pixels, channels); shift (batch, channels) or null is added to it; weight and bias (channels).
// slope and offset (batch, channels) are written.
template <typename Value>
void normalising(const Value* x, const float* shift, const float* weight, const float* bias, float* slope,
                 float* offset, int64_t batch, int64_t pixels, int64_t channels, int64_t groups, float eps) {
    std::vector<double> sum(batch * channels), square(batch * channels);
    int64_t spans = (pixels + SPAN - 1) / SPAN;
#pragma omp parallel
    {
        std::vector<double> own_sum(batch * channels), own_square(batch * channels);
#pragma omp for schedule(static) nowait
        for (int64_t job = 0; job < batch * spans; ++job) {
            int64_t row = job / spans, first = job % spans * SPAN, last = std::min(first + SPAN, pixels);
            Sums sums(channels);
            add_pixels(x + (row * pixels + first) * channels, last - first, channels, sums);
            for (int64_t c = 0; c < channels; ++c)
                own_sum[row * channels + c] += sums.sum[c], own_square[row * channels + c] += sums.square[c];
        }
#pragma omp critical
        for (int64_t i = 0; i < batch * channels; ++i) sum[i] += own_sum[i], square[i] += own_square[i];
    }
    for (int64_t row = 0; row < batch; ++row) {
        int64_t at = row * channels;
        line(&sum[at], &square[at], shift ? shift + at : nullptr, weight, bias, pixels, channels, groups, eps,
             slope + at, offset + at);
    }
}

// clamp(round(f(slope * x + offset) * scale + zero), 0, 255), f SiLU or nothing, x (batch, height, width, channels);
// slope and offset (batch, channels), or both null; scale (channels). Around the map come `pad` pixels of `zero`.
template <typename Value>
void quantise(const Value* x, const float* slope, const float* offset, const float* scale, uint8_t* out, int64_t batch,
              int64_t height, int64_t width, int64_t channels, int64_t pad, int64_t activate, float zero) {
    int64_t high = height + 2 * pad, wide = width + 2 * pad;
    __m512 origin = _mm512_set1_ps(zero);
#pragma omp parallel for schedule(static)
    for (int64_t job = 0; job < batch * high; ++job) {
        int64_t row = job / high, y = job % high - pad;
        uint8_t* to = out + job * wide * channels;
        if (y < 0 || y >= height) {
            std::memset(to, (int)zero, wide * channels);
            continue;
        }
        std::memset(to, (int)zero, pad * channels);
        std::memset(to + (pad + width) * channels, (int)zero, pad * channels);
        for (int64_t pixel = 0; pixel < width; ++pixel) {
            const Value* from = x + ((row * height + y) * width + pixel) * channels;
            uint8_t* into = to + (pad + pixel) * channels;
            for (int64_t c = 0; c < channels; c += LANES) {
                __mmask16 mask = some(channels - c);
                __m512 value = widened(from + c, mask);
                if (slope) {
                    __m512 a = _mm512_maskz_loadu_ps(mask, slope + row * channels + c);
                    value = _mm512_fmadd_ps(value, a, _mm512_maskz_loadu_ps(mask, offset + row * channels + c));
                }
                if (activate) value = silu(value);
                store(into + c, mask, _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(mask, scale + c), origin));
            }
        }
    }
}

// The gated product in 8 bits, (rows, channels).
template <typename Value>
void quantise_gated(const Value* x, const float* scale, uint8_t* out, int64_t rows, int64_t channels, float zero) {
    __m512 origin = _mm512_set1_ps(zero);
    gate(x, rows, channels, [=](int64_t at, int64_t c, __mmask16 mask, __m512 product) {
        store(out + at, mask, _mm512_fmadd_ps(product, _mm512_maskz_loadu_ps(mask, scale + c), origin));
    });
}

// The same, mixed before it is rounded: each sixteen channels that lie 16 apart. `channels` is a multiple of 256.
template <typename Value>
void quantise_mixed(const Value* x, const float* scale, uint8_t* out, int64_t rows, int64_t channels, float zero) {
    __m512 origin = _mm512_set1_ps(zero);
    __mmask16 all = some(LANES);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const Value* value = x + row * 2 * channels;
        for (int64_t c = 0; c < channels; c += MIXED * LANES) {
            __m512 products[MIXED];
            for (int64_t i = 0; i < MIXED; ++i)
                products[i] = gated(value + c + i * LANES, value + channels + c + i * LANES, all);
            mix(products);
            for (int64_t i = 0; i < MIXED; ++i) {
                __m512 steps = _mm512_loadu_ps(scale + c + i * LANES);
                store(out + row * channels + c + i * LANES, all, _mm512_fmadd_ps(products[i], steps, origin));
            }
        }
    }
}

// Calls `of` with x as values of its format.
template <typename Of>
int by_format(const void* x, int64_t wide, Of of) {
    wide ? of((const float*)x) : of((const Half*)x);
    return 0;
}

}  // namespace

extern "C" int fromnoise_normalising(const void* x, const float* shift, const float* weight, const float* bias,
                                     float* slope, float* offset, int64_t batch, int64_t pixels, int64_t channels,
                                     int64_t groups, float eps, int64_t wide) {
    return by_format(x, wide, [=](auto values) {
        normalising(values, shift, weight, bias, slope, offset, batch, pixels, channels, groups, eps);
    });
}

extern "C" int fromnoise_quantise(const void* x, const float* slope, const float* offset, const float* scale,
                                  uint8_t* out, int64_t batch, int64_t height, int64_t width, int64_t channels,
                                  int64_t pad, int64_t activate, float zero, int64_t wide) {
    return by_format(x, wide, [=](auto values) {
        quantise(values, slope, offset, scale, out, batch, height, width, channels, pad, activate, zero);
    });
}

// The gated product unrounded, (rows, channels): for bfloat16 alone, as float32 would deserve more than 14 good bits.
extern "C" int fromnoise_gate(const Half* x, Half* out, int64_t rows, int64_t channels) {
    gate(x, rows, channels, [=](int64_t at, int64_t, __mmask16 mask, __m512 product) { narrow(out + at, mask, product); });
    return 0;
}

extern "C" int fromnoise_quantise_gated(const void* x, const float* scale, uint8_t* out, int64_t rows,
                                        int64_t channels, float zero, int64_t wide) {
    return by_format(x, wide, [=](auto values) { quantise_gated(values, scale, out, rows, channels, zero); });
}

extern "C" int fromnoise_quantise_mixed(const void* x, const float* scale, uint8_t* out, int64_t rows,
                                        int64_t channels, float zero, int64_t wide) {
    return by_format(x, wide, [=](auto values) { quantise_mixed(values, scale, out, rows, channels, zero); });
}
