// Group normalisation and SiLU of channels-last maps in bfloat16 (Wu & He 2018, eq. 1; Elfwing et al. 2018): one pass
// that measures and one that writes, where whole-map operations need five. Compiled on the machine that runs it.

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t SPANS = 64;   // parts of a map that are summed by themselves: the same whatever the threads
constexpr int64_t BLOCK = 256;  // pixels whose sums stay in single precision

inline __m512 widen(const uint16_t* at) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16);
}

inline float widen_one(uint16_t x) {
    union { uint32_t bits; float value; } both{(uint32_t)x << 16};
    return both.value;
}

// Sums and sums of squares by channel of some pixels, added to `sums`.
void add_up(const uint16_t* x, int64_t pixels, int64_t channels, double* sums, float* block) {
    for (int64_t from = 0; from < pixels; from += BLOCK) {
        for (int64_t c = 0; c < 2 * channels; ++c) block[c] = 0.f;
        int64_t to = from + BLOCK < pixels ? from + BLOCK : pixels;
        for (int64_t p = from; p < to; ++p)
            for (int64_t c = 0; c < channels; c += 16) {
                __m512 value = widen(x + p * channels + c);
                float *sum = block + c, *square = block + channels + c;
                _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), value));
                _mm512_storeu_ps(square, _mm512_fmadd_ps(value, value, _mm512_loadu_ps(square)));
            }
        for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += block[c];
    }
}

inline __m512 silu(__m512 x) {  // x / (1 + 2^(-x log2 e)), within 2e-4, finer than bfloat16
    __m512 power = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    __m512 whole = _mm512_roundscale_ps(power, 0), rest = _mm512_sub_ps(power, whole);
    __m512 p = _mm512_set1_ps(0.05570f);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.24261f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0.69314f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(1.f));
    __m512 below = _mm512_add_ps(_mm512_scalef_ps(p, whole), _mm512_set1_ps(1.f));
    return _mm512_mul_ps(x, _mm512_rcp14_ps(below));
}

}  // namespace

// What normalising one map (pixels, channels) comes to for each channel: x * scale + shift.
extern "C" void fromnoise_measure(const uint16_t* x, int64_t pixels, int64_t channels, int64_t groups, double eps,
                                  const uint16_t* weight, const uint16_t* bias, float* scale, float* shift) {
    std::vector<double> sums(SPANS * 2 * channels);
    int64_t span = (pixels + SPANS - 1) / SPANS, each = channels / groups;
#pragma omp parallel
    {
        std::vector<float> block(2 * channels);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < SPANS; ++i) {
            int64_t from = i * span, count = from + span < pixels ? span : pixels - from;
            if (count > 0) add_up(x + from * channels, count, channels, &sums[i * 2 * channels], block.data());
        }
    }
    for (int64_t g = 0; g < groups; ++g) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < SPANS; ++i)
            for (int64_t c = g * each; c < (g + 1) * each; ++c) {
                sum += sums[i * 2 * channels + c];
                square += sums[(i * 2 + 1) * channels + c];
            }
        double mean = sum / (pixels * each), variance = square / (pixels * each) - mean * mean;
        double rate = 1 / std::sqrt((variance > 0 ? variance : 0) + eps);
        if (std::isnan(variance)) rate = variance;
        for (int64_t c = g * each; c < (g + 1) * each; ++c) {
            scale[c] = (float)(rate * widen_one(weight[c]));
            shift[c] = (float)(widen_one(bias[c]) - mean * rate * widen_one(weight[c]));
        }
    }
}

// silu(x * scale + shift) for pixels of `channels` values; `to` may be x.
extern "C" void fromnoise_activate(const uint16_t* x, uint16_t* to, int64_t pixels, int64_t channels,
                                   const float* scale, const float* shift) {
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < channels; c += 16) {
            __m512 value = _mm512_fmadd_ps(widen(x + p * channels + c), _mm512_loadu_ps(scale + c),
                                           _mm512_loadu_ps(shift + c));
            _mm256_storeu_si256((__m256i*)(to + p * channels + c), (__m256i)_mm512_cvtneps_pbh(silu(value)));
        }
}
