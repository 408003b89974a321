// The next token by a head with classes (`model/heads/vocabulary_columns.py`).

#pragma once

#include "search.h"
#include "step.h"

inline int64_t Step::choose(const ClassHead& head, const Rule& rule, const float* stream, double (*uniform)()) {
    FlushDenormals flushed;
    const Matrix& words = model_.embedding;
    rms_norm(stream, normed(), model_.hidden);
    const Input input = as_input(normed(), model_.hidden, words.scales);
    std::vector<float> classes(head.classes.rows);
    run({{&head.classes, &input, classes.data(), 0, head.classes.rows}});
    for (int64_t i = 0; i < head.classes.rows; i++) classes[i] += head.bias[i];
    if (log_softmax(classes.data(), head.classes.rows) < 0) return Search::BROKEN;
    const Search::Read read = [&](int64_t first, int64_t last, float* scores) {
        run({{&words, &input, scores, first, last}});
    };
    Search search(head, rule, classes, read);
    return rule.temperature > 0 ? search.draw(uniform) : search.likeliest();
}
