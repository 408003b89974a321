// The MLP of one token: plain, or columns that compete for it.

#pragma once

#include <numeric>

#include "step.h"

inline void Step::run_mlp(const Layer& layer) {
    float* act = project(layer.up);
    for (int64_t i = 0; i < layer.up.rows; i++) act[i] = squared_relu(act[i]);
    into_stream(layer.down, act);
}

// What each column receives from all others, from `excited_`.
inline void Step::inhibit(const Layer& layer, float* inhibited) {
    const int64_t columns = layer.columns, r = layer.interneurons;
    std::fill(inhibited, inhibited + columns, 0.f);
    if (!r) {
        for (int64_t e = 0; e < columns; e++) add_scaled(inhibited, layer.inhibition + e * columns, excited_[e], columns);
        return;
    }
    const float *to = layer.inhibition, *from = to + columns * r;
    std::vector<float> pooled(r, 0.f);
    for (int64_t e = 0; e < columns; e++) add_scaled(pooled.data(), to + e * r, excited_[e], r);
    for (int64_t e = 0; e < columns; e++)
        for (int64_t i = 0; i < r; i++) inhibited[e] += from[e * r + i] * (pooled[i] - excited_[e] * to[e * r + i]);
}

inline void Step::run_columns(const Layer& layer) {
    const int64_t columns = layer.columns, active = layer.active, shared = layer.shared_up.rows;
    float *logit = room(logits_, columns), *drive = room(drive_, columns), *excited = room(excited_, columns);
    float* shared_act = room(inside_, shared);
    const Input plain{normed(), nullptr, 0};
    const Input input = as_input(normed(), model_.hidden, layer.up.scales);
    run({{&layer.router, &plain, logit, 0, columns}, {&layer.shared_up, &input, shared_act, 0, shared}});

    for (int64_t e = 0; e < columns; e++) excited[e] = sigmoid(logit[e]);
    for (int64_t round = 1; round < layer.rounds; round++) {
        inhibit(layer, drive);
        for (int64_t e = 0; e < columns; e++) excited[e] += SETTLING * (sigmoid(logit[e] - drive[e]) - excited[e]);
    }
    inhibit(layer, drive);
    for (int64_t e = 0; e < columns; e++) drive[e] = logit[e] - drive[e];
    std::vector<int64_t> winner(columns);
    std::iota(winner.begin(), winner.end(), 0);
    std::partial_sort(winner.begin(), winner.begin() + active, winner.end(), [&](int64_t a, int64_t b) {
        return drive[a] + layer.balance[a] > drive[b] + layer.balance[b];
    });
    std::vector<float> share(active);
    float sum = 0;
    for (int64_t i = 0; i < active; i++) sum += share[i] = sigmoid(drive[winner[i]]);
    if (active > 1)
        for (float& each : share) each /= sum;

    for (int64_t i = 0; i < shared; i++) shared_act[i] = squared_relu(shared_act[i]);
    std::vector<int16_t> shared_rounded(shared);
    const Input act = layer.shared_down.scales ? rounded(shared_act, shared, shared_rounded.data()) : Input{shared_act, nullptr, 0};
    const Product product{&layer.shared_down, &act, room(rest_, model_.hidden), 0, shared ? model_.hidden : 0};
    if (layer.up.scales) run_int8_columns(layer, winner.data(), share.data(), product);
    else run_float_columns(layer, winner.data(), share.data(), product);
    if (shared) add_scaled(stream_.data(), rest_.data(), 1, model_.hidden);
}

// Each piece computes some neurons of a column, input and output weights. The output weights of a neuron that does
// not fire are not read.
inline void Step::run_float_columns(const Layer& layer, const int64_t* winner, const float* share, const Product& shared) {
    const int64_t hidden = model_.hidden, width = layer.width;
    const int each = int((width + NEURONS - 1) / NEURONS), pieces = each * int(layer.active);
    float* parts = room(parts_, pieces * hidden);
    const float* weight = static_cast<const float*>(layer.up.values);
    team_.run(pieces + shared.pieces(), [&](int piece) {
        if (piece >= pieces) return shared.compute(piece - pieces);
        float* part = parts + piece * hidden;
        std::fill(part, part + hidden, 0.f);
        const float* up = weight + winner[piece / each] * 2 * width * hidden;
        const int64_t begin = piece % each * NEURONS;
        for (int64_t w = begin; w < std::min<int64_t>(width, begin + NEURONS); w++) {
            const float act = squared_relu(dot(normed_.data(), up + w * hidden, hidden));
            if (act > 0) add_scaled(part, up + (width + w) * hidden, act * share[piece / each], hidden);
        }
    });
    for (int piece = 0; piece < pieces; piece++) add_scaled(stream_.data(), parts + piece * hidden, 1, hidden);
}

inline void Step::run_int8_columns(const Layer& layer, const int64_t* winner, const float* share, const Product& shared) {
    const int64_t hidden = model_.hidden, width = layer.width, active = layer.active;
    float* act = room(acts_, active * width);
    const Input x = as_input(normed(), hidden, true);
    const int each = int((width + NEURONS - 1) / NEURONS), pieces = each * int(active);
    team_.run(pieces + shared.pieces(), [&](int piece) {
        if (piece >= pieces) return shared.compute(piece - pieces);
        const int64_t column = winner[piece / each], begin = piece % each * NEURONS;
        for (int64_t w = begin; w < std::min<int64_t>(width, begin + NEURONS); w++)
            act[piece / each * width + w] = share[piece / each] * squared_relu(dot(layer.up, column * width + w, x));
    });
    std::vector<int16_t> room(active * width);
    std::vector<Input> inputs(active);
    for (int64_t i = 0; i < active; i++) inputs[i] = rounded(act + i * width, width, room.data() + i * width);
    const int64_t rows = 64;
    team_.run(int((hidden + rows - 1) / rows), [&](int piece) {
        for (int64_t d = piece * rows; d < std::min(hidden, (piece + 1) * rows); d++)
            for (int64_t i = 0; i < active; i++) stream_[d] += dot(layer.down, winner[i] * hidden + d, inputs[i]);
    });
}
