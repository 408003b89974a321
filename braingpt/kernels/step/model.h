// What a step computes with: pointers to the weights and states of the Python objects, which own the memory.
// `library.py` mirrors these structs; all fields have eight bytes.

#pragma once

#include <cstdint>

#include "products.h"

enum Mixer : int64_t { ATTENTION, SELECTIVE, MAMBA, MEMORY, NONE };

struct Layer {
    int64_t mixer;
    // Heads, heads of keys and values, channels a head (of a value in MEMORY), rows of a head's recurrent state,
    // taps of the convolution.
    int64_t heads, kv_heads, channels, state, taps;
    Matrix into, out;
    // What is read before the layer; without rows where nothing is.
    Matrix lexical_key, lexical_value;
    const float *conv, *decay_log, *bias, *skip, *scale;
    // Of SELECTIVE.
    const float *selector, *threshold;
    // 0: the MLP has no columns, only `up` and `down`.
    int64_t columns, width, active, rounds;
    // 0: every pair of columns has an inhibition of its own.
    int64_t interneurons;
    // In float32 `up` and `down` are (columns, 2, width, hidden), neurons of both being rows; in int8 `down` has a
    // row for each output.
    Matrix router, up, down, shared_up, shared_down;
    const float *inhibition, *balance;
};

struct Exit {
    // The layer before which tokens may halt.
    int64_t layer;
    const float *selector, *threshold;
};

// The lexical memory; without lookups where there is none.
struct Lexical {
    // Tokens before the present one, and rows that a token looks up.
    int64_t past, lookups;
    Matrix table;
    // (past + 2, lookups)
    const int64_t* factors;
};

struct Model {
    int64_t layers, exits, hidden;
    double rope_base;
    Matrix embedding;
    Lexical lexical;
    const Layer* layer;
    const Exit* exit;
};

// A head with classes, whose words are consecutive rows of the embedding.
struct ClassHead {
    Matrix classes;
    const float* bias;
    // The token of each row.
    const int64_t* token;
    int64_t width, vocab;
};

// How a token is chosen (`inference/choice.py`).
struct Rule {
    // 0: the likeliest token.
    double temperature;
    // Cuts; 0: none of the kind.
    int64_t top_k;
    double top_p, min_p;
    // What log-probabilities of seen tokens are multiplied with.
    double penalty;
    // A byte for each token; null: no token.
    const uint8_t *seen, *banned;
};

// The state of a layer: keys and values (heads, capacity, channels) of `length` tokens; or the last inputs of the
// convolution and the recurrent state.
struct State {
    float *first, *second;
    int64_t length, capacity;
};
