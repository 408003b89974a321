// Lexical memory of one token (`model/memory/lexical.py`): rows that the last tokens look up.

#pragma once

#include "step.h"

// Hashes are sums of products modulo this prime.
constexpr int64_t PRIME = (int64_t(1) << 31) - 1;

// Finds the rows of the n-grams that end at the token, and moves the past on by one.
inline void Step::look_up(int64_t token, int64_t* past) {
    const Lexical& lexical = model_.lexical;
    const int64_t width = lexical.table.inputs, lookups = lexical.lookups;
    float* found = room(found_, lookups * width);
    for (int64_t i = 0; i < lookups; i++) {
        // The newest token first, the summand last.
        int64_t hash = (token + 1) * lexical.factors[i] + lexical.factors[(lexical.past + 1) * lookups + i];
        for (int64_t back = 1; back <= lexical.past; back++)
            hash += past[lexical.past - back] * lexical.factors[back * lookups + i];
        restore(lexical.table, hash % PRIME % lexical.table.rows, found + i * width);
    }
    rms_norm(found, found, lookups * width);
    std::copy(past + 1, past + lexical.past, past);
    if (lexical.past) past[lexical.past - 1] = token + 1;
}

// Adds what was found to the stream, as far as its key fits what the stream holds.
inline void Step::add_found(const Layer& layer) {
    const int64_t hidden = model_.hidden;
    const Input input = as_input(found_.data(), layer.lexical_key.inputs, layer.lexical_key.scales);
    float *key = room(inside_, hidden), *value = room(rest_, hidden);
    run({{&layer.lexical_key, &input, key, 0, hidden}, {&layer.lexical_value, &input, value, 0, hidden}});
    rms_norm(key, key, hidden);
    rms_norm(stream_.data(), normed(), hidden);
    const float fit = dot(key, normed(), hidden) / std::sqrt(float(hidden));
    add_scaled(stream_.data(), value, sigmoid(fit), hidden);
}
