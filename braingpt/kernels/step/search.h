// The next token from a distribution over classes of tokens, as `inference/class_search.py` chooses it.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "model.h"

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

class Search {
   public:
    static constexpr int64_t BROKEN = -1, UNDECIDED = -2;
    // Draws that may be refused before the search gives up.
    static constexpr int ATTEMPTS = 32;
    // Computes the scores of a class's words.
    typedef std::function<void(int64_t first, int64_t last, float* scores)> Read;

    // `bounds` are log-probabilities of the classes.
    Search(const ClassHead& head, const Rule& rule, std::vector<float>& bounds, const Read& read)
        : head_(head), rule_(rule), bounds_(bounds), read_(read), order_(bounds.size()), words_(bounds.size()) {
        std::iota(order_.begin(), order_.end(), 0);
        std::sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) { return bounds_[a] > bounds_[b]; });
        top_ = bounds_[order_[0]];
    }

    // The likeliest token.
    int64_t likeliest() {
        double best = -INFINITY;
        int64_t token = 0;
        for (int64_t number : order_) {
            if (best >= bounds_[number]) break;
            const std::vector<float>& log = words(number).log;
            if (broken_) return BROKEN;
            const int64_t place = std::max_element(log.begin(), log.end()) - log.begin();
            if (log[place] > best) {
                best = log[place];
                token = token_at(number, place);
            }
        }
        return token;
    }

    // A candidate in proportion to its weight; UNDECIDED after too many refusals.
    int64_t draw(double (*uniform)()) {
        // At temperatures above 1 a class has its largest weight when its tokens are equally likely.
        const double spread = std::max(0.0, (1 - 1 / rule_.temperature) * std::log(double(head_.width)));
        for (float bound : bounds_) masses_.push_back(std::exp((double(bound) - top_) / rule_.temperature + spread));
        std::vector<double> mass = masses_;
        float floor = -INFINITY;
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            double rest;
            const int64_t number = locate(mass, uniform(), &rest);
            const Words& found = words(number);
            if (broken_) return BROKEN;
            std::vector<double> weights = found.weight;
            for (size_t i = 0; i < weights.size(); i++)
                if (!(found.log[i] > floor)) weights[i] = 0;
            const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
            if (!(rest < sum)) {
                mass[number] = sum;
                continue;
            }
            const int64_t place = locate(weights, rest / sum, &rest);
            const float log = found.log[place];
            const bool accepted = is_candidate(log);
            if (broken_) return BROKEN;
            if (accepted) return token_at(number, place);
            floor = log;
            for (size_t i = 0; i < mass.size(); i++)
                if (bounds_[i] <= floor) mass[i] = 0;
        }
        return UNDECIDED;
    }

   private:
    enum Answer { NO, YES, OPEN };

    // Adjusted log-probabilities of a class's words, and their weights where one is drawn.
    struct Words {
        std::vector<float> log;
        std::vector<double> weight;
    };

    const ClassHead& head_;
    const Rule& rule_;
    const std::vector<float>& bounds_;
    const Read& read_;
    // Classes in falling probability; the words of those that were read; what each class weighs at most.
    std::vector<int64_t> order_;
    std::vector<Words> words_;
    std::vector<double> masses_;
    float top_;
    bool broken_ = false;

    int64_t token_at(int64_t number, int64_t place) const { return head_.token[number * head_.width + place]; }

    double weight(float log) const { return std::exp((double(log) - top_) / rule_.temperature); }

    // The first place whose cumulative weight exceeds a share of the total, and what is left of the share there.
    static int64_t locate(const std::vector<double>& weights, double share, double* rest) {
        const double at = share * std::accumulate(weights.begin(), weights.end(), 0.0);
        double sum = 0;
        int64_t place = 0;
        *rest = at;
        for (size_t i = 0; i < weights.size() && !(sum > at); i++) {
            // Rounding may give the total itself, which no place exceeds: then it is the last of some weight.
            if (!(weights[i] > 0)) continue;
            place = i;
            *rest = at - sum;
            sum += weights[i];
        }
        return place;
    }

    // A class, read once.
    const Words& words(int64_t number) {
        std::vector<float>& log = words_[number].log;
        if (!log.empty()) return words_[number];
        const int64_t first = number * head_.width, last = std::min(head_.vocab, first + head_.width);
        log.resize(last - first);
        read_(first, last, log.data());
        broken_ = broken_ || log_softmax(log.data(), last - first) < 0;
        for (int64_t i = 0; i < last - first; i++) {
            const int64_t token = head_.token[first + i];
            log[i] += bounds_[number];
            if (rule_.seen && rule_.seen[token]) log[i] *= float(rule_.penalty);
            if (rule_.banned && rule_.banned[token]) log[i] = -INFINITY;
        }
        if (rule_.temperature > 0)
            for (float one : log) words_[number].weight.push_back(weight(one));
        return words_[number];
    }

    // Whether a token may be chosen; reads classes until that is certain.
    bool is_candidate(float log) {
        if (!rule_.top_k && !rule_.top_p && !rule_.min_p) return true;
        for (int64_t number : order_) {
            if (!words_[number].log.empty()) continue;
            const Answer answer = decide(log);
            if (answer != OPEN || broken_) return answer == YES;
            words(number);
        }
        return decide(log) == YES;
    }

    // Whether a token is a candidate, as far as the classes read say.
    Answer decide(float log) const {
        int64_t above = 0;
        double before = 0, total = 0, unread = 0, ahead = 0, room = 0;
        float most = -INFINITY, next = -INFINITY;
        for (size_t i = 0; i < words_.size(); i++) {
            for (size_t j = 0; j < words_[i].log.size(); j++) {
                most = std::max(most, words_[i].log[j]);
                total += words_[i].weight[j];
                if (words_[i].log[j] > log) above++, before += words_[i].weight[j];
            }
            if (!words_[i].log.empty()) continue;
            unread += masses_[i];
            next = std::max(next, bounds_[i]);
            // Only such a class may hold likelier tokens, and has room for so many.
            if (bounds_[i] > log) ahead += masses_[i], room += std::exp(std::min(double(bounds_[i]) - log, 50.0));
        }
        bool certain = true;
        if (rule_.min_p) {
            const double least = log - rule_.temperature * std::log(rule_.min_p);
            if (most > least) return NO;
            certain = !(next > least);
        }
        if (rule_.top_k) {
            if (above >= rule_.top_k) return NO;
            certain = certain && above + room < rule_.top_k;
        }
        if (rule_.top_p) {
            // Between these lies the weight of which top-p is a share; what is ahead counts in both.
            double least = total + ahead, largest = total + unread;
            if (rule_.top_k) std::tie(least, largest) = of_top_k();
            if (before >= rule_.top_p * largest) return NO;
            certain = certain && before + ahead < rule_.top_p * least;
        }
        return certain ? YES : OPEN;
    }

    // The weight of the likeliest tokens read, and with what unread classes may put in their place.
    std::pair<double, double> of_top_k() const {
        std::vector<float> found;
        for (const Words& one : words_) found.insert(found.end(), one.log.begin(), one.log.end());
        const int64_t count = std::min<int64_t>(rule_.top_k, found.size());
        std::nth_element(found.begin(), found.begin() + count - 1, found.end(), std::greater<float>());
        const float last = count == rule_.top_k ? found[count - 1] : -INFINITY;
        double sum = 0, more = 0;
        for (int64_t i = 0; i < count; i++) sum += weight(found[i]);
        for (size_t i = 0; i < words_.size(); i++)
            if (words_[i].log.empty() && bounds_[i] > last) more += masses_[i];
        return {sum, sum + more};
    }
};
