// One token through all layers. Each function is the forward pass of the Python module of its name.

#pragma once

#include <map>
#include <mutex>

#include "model.h"
#include "threads.h"

// Bytes of a weight that a thread reads at a time.
constexpr int64_t PIECE = 1 << 15;
// Keys that attention scores at a time, neurons of a column that one thread computes at a time.
constexpr int KEYS = 64, NEURONS = 16;
// How far a round of inhibition moves the excitation (`kernels/competition/reference.py`).
constexpr float SETTLING = 0.7f;

// A product to compute: rows `first` to before `last` of a weight.
struct Product {
    const Matrix* weight;
    const Input* input;
    float* output;
    int64_t first, last;

    int64_t rows_a_piece() const {
        const int64_t row = std::max<int64_t>(1, weight->inputs * (weight->scales ? 1 : 4));
        return std::max({int64_t(1), PIECE / row, (last - first) / 4096 + 1});
    }
    int pieces() const { return int((last - first + rows_a_piece() - 1) / rows_a_piece()); }
    void compute(int piece) const {
        const int64_t begin = first + piece * rows_a_piece();
        for (int64_t row = begin; row < std::min(last, begin + rows_a_piece()); row++)
            output[row - first] = dot(*weight, row, *input);
    }
};

class Step {
   public:
    Step(const Model& model, int threads)
        : model_(model),
          layers_(model.layer, model.layer + model.layers),
          exits_(model.exit, model.exit + model.exits),
          team_(threads) {}

    // Reads the token, which has this row of the embedding. `past` are the last tokens that the lexical memory
    // asks for; `stream` receives the residual stream after the last layer. Returns the layers passed.
    int64_t read(int64_t token, int64_t row, int64_t position, State* states, int64_t* past, float* stream) {
        FlushDenormals flushed;
        position_ = position;
        rotations_.clear();
        stream_.resize(model_.hidden);
        restore(model_.embedding, row, stream_.data());
        rms_norm(stream_.data(), stream_.data(), model_.hidden);
        if (model_.lexical.lookups) look_up(token, past);
        int64_t done = run_layers(0, exits_.empty() ? model_.layers : exits_[0].layer, states);
        for (size_t i = 0; i < exits_.size(); i++) {
            rms_norm(stream_.data(), normed(), model_.hidden);
            const float logit = dot(normed(), exits_[i].selector, model_.hidden);
            if (!(logit > *exits_[i].threshold)) break;
            const int64_t end = i + 1 < exits_.size() ? exits_[i + 1].layer : model_.layers;
            const std::vector<float> before = stream_;
            done += run_layers(exits_[i].layer, end, states);
            const float score = sigmoid(logit);
            for (int64_t d = 0; d < model_.hidden; d++)
                stream_[d] = before[d] + (stream_[d] - before[d]) * score;
        }
        std::copy(stream_.begin(), stream_.end(), stream);
        return done;
    }

    // Normalises a residual stream and multiplies it with a weight.
    void predict(const Matrix& weight, const float* stream, float* output) {
        FlushDenormals flushed;
        rms_norm(stream, normed(), model_.hidden);
        const Input input = as_input(normed(), model_.hidden, weight.scales);
        run({{&weight, &input, output, 0, weight.rows}});
    }

    // The next token after a residual stream. -1: probabilities are not numbers; -2: the search gave up.
    // `uniform` gives a fresh number in [0, 1).
    int64_t choose(const ClassHead& head, const Rule& rule, const float* stream, double (*uniform)());

   private:
    Model model_;
    std::vector<Layer> layers_;
    std::vector<Exit> exits_;
    Team team_;
    int64_t position_ = 0;
    std::vector<float> stream_, normed_, inside_, mixed_, rest_, logits_, drive_, excited_, acts_, parts_, found_;
    std::vector<int16_t> rounded_;
    // Cosines and sines of the token's place, by channels.
    std::map<int64_t, std::vector<float>> rotations_;

    static float* room(std::vector<float>& buffer, int64_t n) {
        if (int64_t(buffer.size()) < n) buffer.resize(n);
        return buffer.data();
    }

    float* normed() { return room(normed_, model_.hidden); }

    // Rounded only for int8 weights.
    Input as_input(const float* x, int64_t n, bool int8) {
        if (!int8) return {x, nullptr, 0};
        rounded_.resize(n);
        return rounded(x, n, rounded_.data());
    }

    void run(std::initializer_list<Product> products) {
        int pieces = 0;
        for (const Product& product : products) pieces += product.pieces();
        team_.run(pieces, [&](int piece) {
            for (const Product& product : products) {
                if (piece < product.pieces()) return product.compute(piece);
                piece -= product.pieces();
            }
        });
    }

    // A row of a weight in float32.
    static void restore(const Matrix& weight, int64_t row, float* to) {
        const int64_t n = weight.inputs;
        if (weight.scales) {
            const int8_t* values = static_cast<const int8_t*>(weight.values) + row * n;
            for (int64_t i = 0; i < n; i++) to[i] = values[i] * weight.scales[row];
        } else {
            std::copy_n(static_cast<const float*>(weight.values) + row * n, n, to);
        }
    }

    int64_t run_layers(int64_t begin, int64_t end, State* states) {
        for (int64_t i = begin; i < end; i++) {
            const Layer& layer = layers_[i];
            if (layer.lexical_key.rows) add_found(layer);
            if (layer.mixer != NONE) {
                rms_norm(stream_.data(), normed(), model_.hidden);
                if (layer.mixer <= SELECTIVE) attend(layer, states[i]);
                else recur(layer, states[i]);
            }
            rms_norm(stream_.data(), normed(), model_.hidden);
            if (layer.columns) run_columns(layer);
            else run_mlp(layer);
        }
        return end - begin;
    }

    void into_stream(const Matrix& weight, const float* x, float factor = 1) {
        const Input input = as_input(x, weight.inputs, weight.scales);
        float* y = room(rest_, weight.rows);
        run({{&weight, &input, y, 0, weight.rows}});
        add_scaled(stream_.data(), y, factor, weight.rows);
    }

    float* project(const Matrix& weight) {
        const Input input = as_input(normed(), weight.inputs, weight.scales);
        float* y = room(inside_, weight.rows);
        run({{&weight, &input, y, 0, weight.rows}});
        return y;
    }

    void look_up(int64_t token, int64_t* past);
    void add_found(const Layer& layer);
    void attend(const Layer& layer, State& state);
    void recur(const Layer& layer, State& state);
    void run_mlp(const Layer& layer);
    void run_columns(const Layer& layer);
    void run_float_columns(const Layer& layer, const int64_t* winner, const float* share, const Product& shared);
    void run_int8_columns(const Layer& layer, const int64_t* winner, const float* share, const Product& shared);
    void inhibit(const Layer& layer, float* inhibited);
    const float* rotation(int64_t channels);
};
