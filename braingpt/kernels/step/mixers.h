// Mixers of one token: attention, selective attention, Mamba-2, associative memory.

#pragma once

#include "step.h"

// Cosines, then sines, of the rotary angles of the token's place.
inline const float* Step::rotation(int64_t channels) {
    std::vector<float>& found = rotations_[channels];
    if (found.empty()) {
        const int64_t half = channels / 2;
        found.resize(channels);
        for (int64_t i = 0; i < half; i++) {
            const double angle = position_ * std::pow(model_.rope_base, -double(2 * i) / channels);
            found[i] = float(std::cos(angle));
            found[half + i] = float(std::sin(angle));
        }
    }
    return found.data();
}

inline void rotate(float* x, const float* cos_sin, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        const float left = x[i], right = x[half + i], cos = cos_sin[i], sin = cos_sin[half + i];
        x[i] = left * cos - right * sin;
        x[half + i] = left * sin + right * cos;
    }
}

// One query over all keys, with the softmax corrected from block to block of keys.
inline void attend_head(const float* q, const float* keys, const float* values, int64_t length, int64_t channels, float* y) {
    const float scale = 1 / std::sqrt(float(channels));
    float most = -INFINITY, sum = 0;
    std::fill(y, y + channels, 0.f);
    for (int64_t from = 0; from < length; from += KEYS) {
        const int count = int(std::min<int64_t>(KEYS, length - from));
        float score[KEYS], before = most;
        for (int i = 0; i < count; i++) {
            score[i] = scale * dot(q, keys + (from + i) * channels, channels);
            most = std::max(most, score[i]);
        }
        for (int i = 0; i < count; i++) score[i] = fast_exp(score[i] - most);
        const float kept = from ? fast_exp(before - most) : 0;
        sum *= kept;
        for (int64_t c = 0; c < channels; c++) y[c] *= kept;
        for (int i = 0; i < count; i++) {
            sum += score[i];
            add_scaled(y, values + (from + i) * channels, score[i], channels);
        }
    }
    for (int64_t c = 0; c < channels; c++) y[c] /= sum;
}

inline void Step::attend(const Layer& layer, State& state) {
    float score = 1;
    if (layer.mixer == SELECTIVE) {
        const float logit = dot(normed(), layer.selector, model_.hidden);
        if (!(logit > *layer.threshold)) return;
        score = sigmoid(logit);
    }
    const int64_t channels = layer.channels, group = layer.heads / layer.kv_heads;
    float* q = project(layer.into);
    const float* cos_sin = rotation(channels);
    // Keys follow the queries.
    for (int64_t head = 0; head < layer.heads + layer.kv_heads; head++) {
        rms_norm(q + head * channels, q + head * channels, channels);
        rotate(q + head * channels, cos_sin, channels / 2);
    }
    const float *k = q + layer.heads * channels, *v = k + layer.kv_heads * channels;
    for (int64_t head = 0; head < layer.kv_heads; head++) {
        const int64_t place = (head * state.capacity + state.length) * channels;
        std::copy_n(k + head * channels, channels, state.first + place);
        std::copy_n(v + head * channels, channels, state.second + place);
    }
    state.length++;
    float* y = room(mixed_, layer.heads * channels);
    team_.run(int(layer.heads), [&](int head) {
        const int64_t store = head / group * state.capacity * channels;
        attend_head(q + head * channels, state.first + store, state.second + store, state.length, channels, y + head * channels);
    });
    into_stream(layer.out, y, score);
}

// Convolves the token's inputs with those before, which move on by one.
inline void convolve(const float* u, float* past, const float* weight, int64_t taps, int64_t channels, float* y) {
    for (int64_t e = 0; e < channels; e++) y[e] = u[e] * weight[e * taps + taps - 1];
    for (int64_t tap = 0; tap < taps - 1; tap++)
        for (int64_t e = 0; e < channels; e++) y[e] += past[tap * channels + e] * weight[e * taps + tap];
    std::copy(past + channels, past + (taps - 1) * channels, past);
    std::copy_n(u, channels, past + (taps - 2) * channels);
    silu(y, channels);
}

// The state-space scan of one head: h = decay h + dt b x', y = c h.
inline void scan_head(float* h, const float* x, const float* b, const float* c, float decay, float dt, int64_t n, int64_t p, float* y) {
    std::fill(y, y + p, 0.f);
    for (int64_t i = 0; i < n; i++, h += p) {
        const float written = dt * b[i], read = c[i];
        for (int64_t j = 0; j < p; j++) {
            h[j] = decay * h[j] + written * x[j];
            y[j] += read * h[j];
        }
    }
}

// The gated delta rule of one head: s = decay s + k' beta (v - k decay s), y = q s.
inline void bind_head(float* s, const float* q, const float* k, const float* v, float decay, float beta, int64_t n, int64_t p, float* y, float* error) {
    std::fill(error, error + p, 0.f);
    std::fill(y, y + p, 0.f);
    for (int64_t i = 0; i < n; i++) add_scaled(error, s + i * p, decay * k[i], p);
    for (int64_t j = 0; j < p; j++) error[j] = beta * (v[j] - error[j]);
    for (int64_t i = 0; i < n; i++, s += p)
        for (int64_t j = 0; j < p; j++) {
            s[j] = decay * s[j] + k[i] * error[j];
            y[j] += q[i] * s[j];
        }
}

inline void Step::recur(const Layer& layer, State& state) {
    const int64_t heads = layer.heads, p = layer.channels, n = layer.state, inner = heads * p;
    const bool mamba = layer.mixer == MAMBA;
    const int64_t convolved = inner + (mamba ? 2 * n : 2 * heads * n);
    float* projected = project(layer.into);
    // The gate comes before the convolved channels in Mamba-2, after them in the memory.
    float* gate = mamba ? projected : projected + convolved;
    float* conv = room(mixed_, convolved + 2 * inner);
    float *y = conv + convolved, *error = y + inner;
    convolve(mamba ? projected + inner : projected, state.first, layer.conv, layer.taps, convolved, conv);
    const float* a = projected + inner + convolved;  // steps of Mamba-2; shares to bind, then rates to forget
    silu(gate, inner);
    if (mamba) {
        team_.run(int(heads), [&](int head) {
            const float dt = softplus(a[head] + layer.bias[head]);
            scan_head(state.second + head * n * p, conv + head * p, conv + inner, conv + inner + n,
                      std::exp(-dt * std::exp(layer.decay_log[head])), dt, n, p, y + head * p);
        });
        for (int64_t head = 0; head < heads; head++) add_scaled(y + head * p, conv + head * p, layer.skip[head], p);
        for (int64_t i = 0; i < inner; i++) y[i] *= gate[i];
        rms_norm(y, y, inner);
        for (int64_t i = 0; i < inner; i++) y[i] *= layer.scale[i];
    } else {
        float *q = conv, *k = conv + heads * n, *v = k + heads * n;
        for (int64_t head = 0; head < 2 * heads; head++) rms_norm(q + head * n, q + head * n, n, 1 / std::sqrt(float(n)));
        team_.run(int(heads), [&](int head) {
            const float rate = softplus(a[heads + head] + layer.bias[head]);
            bind_head(state.second + head * n * p, q + head * n, k + head * n, v + head * p,
                      std::exp(-rate * std::exp(layer.decay_log[head])), 1 / (1 + std::exp(-a[head])), n, p,
                      y + head * p, error + head * p);
            rms_norm(y + head * p, y + head * p, p);
        });
        for (int64_t i = 0; i < inner; i++) y[i] *= layer.scale[i] * gate[i];
    }
    into_stream(layer.out, y);
}
