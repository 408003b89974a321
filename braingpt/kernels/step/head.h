// The likeliest token of a head with classes (`model/heads/vocabulary_columns.py`).

#pragma once

#include "step.h"

// Turns scores into log-probabilities; returns the place of the largest, or -1 where they are not numbers.
inline int64_t log_softmax(float* x, int64_t n) {
    const int64_t best = std::max_element(x, x + n) - x;
    const float top = x[best];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fast_exp(x[i] - top);
    const float total = top + float(std::log(sum));
    if (!std::isfinite(dot(x, x, n)) || !std::isfinite(total)) return -1;
    for (int64_t i = 0; i < n; i++) x[i] -= total;
    return best;
}

// Reads classes in falling probability until the best token found is at least as likely as the next class.
inline int64_t Step::likeliest(const ClassHead& head, const float* stream) {
    FlushDenormals flushed;
    const Matrix& words = model_.embedding;
    rms_norm(stream, normed(), model_.hidden);
    const Input input = as_input(normed(), model_.hidden, words.scales);
    float *classes = room(inside_, head.classes.rows), *scores = room(rest_, head.width);
    run({{&head.classes, &input, classes, 0, head.classes.rows}});
    for (int64_t i = 0; i < head.classes.rows; i++) classes[i] += head.bias[i];
    int64_t number = log_softmax(classes, head.classes.rows), token = -1;
    for (float best = -INFINITY; number >= 0 && classes[number] > best;) {
        const int64_t first = number * head.width, last = std::min(head.vocab, first + head.width);
        run({{&words, &input, scores, first, last}});
        const int64_t place = log_softmax(scores, last - first);
        if (place < 0) return -1;
        if (classes[number] + scores[place] > best) {
            best = classes[number] + scores[place];
            token = head.token[first + place];
        }
        classes[number] = -INFINITY;
        number = std::max_element(classes, classes + head.classes.rows) - classes;
    }
    return token;
}
