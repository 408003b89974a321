// Products of one row with a weight, in float32 or int8, and the small functions between them.
//
// A weight is read row after row, which is how one core comes nearest to the memory's bandwidth: four rows side
// by side, four streams, reach half of it.
// For int8 weights the inputs are rounded to 15 bits, so the rounding of the inputs is a hundredth of that of the
// weights; products are summed as 32-bit integers, exactly.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));

// A weight (rows, inputs): float32 where `scales` is null, else int8 with a scale a row.
struct Matrix {
    const void* values;
    const float* scales;
    int64_t rows, inputs;
};

// A row that several weights are multiplied with.
struct Input {
    const float* values;
    const int16_t* rounded;
    float scale;
};

inline Lanes load(const float* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline float total(Lanes lanes) {
    float each[LANES];
    std::memcpy(each, &lanes, sizeof lanes);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) each[i] += each[i + half];
    return each[0];
}

inline float dot(const float* a, const float* b, int64_t n) {
    Lanes sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) sums[k] += load(a + i + k * LANES) * load(b + i + k * LANES);
    for (; i + LANES <= n; i += LANES) sums[0] += load(a + i) * load(b + i);
    float sum = total((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// The largest rounded input, and how many products with int8 surely fit a 32-bit sum.
constexpr int LARGEST = 16383, SAFE = 1024;

inline float dot(const int8_t* weight, const int16_t* x, int64_t n) {
    float sum = 0;
    for (int64_t from = 0; from < n; from += SAFE) {
        int32_t part = 0;
        const int64_t to = std::min<int64_t>(n, from + SAFE);
        for (int64_t i = from; i < to; i++) part += int32_t(x[i]) * int16_t(weight[i]);
        sum += float(part);
    }
    return sum;
}

inline float dot(const Matrix& weight, int64_t row, const Input& x) {
    if (!weight.scales) return dot(static_cast<const float*>(weight.values) + row * weight.inputs, x.values, weight.inputs);
    const int8_t* values = static_cast<const int8_t*>(weight.values) + row * weight.inputs;
    return dot(values, x.rounded, weight.inputs) * (weight.scales[row] * x.scale);
}

// Rounds a row for int8 weights into `room`.
inline Input rounded(const float* x, int64_t n, int16_t* room) {
    float most = 1e-30f;
    for (int64_t i = 0; i < n; i++) most = std::max(most, std::fabs(x[i]));
    const float up = LARGEST / most;
    for (int64_t i = 0; i < n; i++) room[i] = int16_t(int32_t(x[i] * up + (x[i] < 0 ? -0.5f : 0.5f)));
    return {x, room, most / LARGEST};
}

inline void add_scaled(float* y, const float* x, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += factor * x[i];
}

// As `kernels/pointwise.py`.
inline void rms_norm(const float* x, float* y, int64_t n, float factor = 1) {
    const float scale = factor / std::sqrt(dot(x, x, n) / n + 1e-6f);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale;
}

// e to the x, to float32's precision, for loops that the compiler turns into vectors.
inline float fast_exp(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    const int32_t power = int32_t(x * 1.44269504f + (x < 0 ? -0.5f : 0.5f));
    const float r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    // Taylor's series; the rest is below 2e-8 for |r| <= ln(2) / 2.
    float sum = 1.f / 5040;
    for (float c : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) sum = sum * r + c;
    const int32_t bits = (power + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

inline float sigmoid(float x) { return 1 / (1 + fast_exp(-x)); }

inline void silu(float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= sigmoid(x[i]);
}

// As torch's, which is linear above 20.
inline float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

inline float squared_relu(float x) { return x > 0 ? x * x : 0; }
