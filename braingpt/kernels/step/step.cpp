// One step of generation for one row on a CPU: what `library.py` compiles, and its functions in C.

#include "columns.h"
#include "head.h"
#include "lexical.h"
#include "mixers.h"
#include "step.h"

extern "C" {

// Sizes of the structs, which tell whether `library.py` mirrors them.
int64_t braingpt_step_sizes() { return sizeof(Layer) << 32 | sizeof(Model) << 16 | sizeof(State) << 8 | sizeof(Exit); }

void* braingpt_step_new(const Model* model, int64_t threads) { return new Step(*model, int(threads)); }

void braingpt_step_free(void* step) { delete static_cast<Step*>(step); }

int64_t braingpt_step_read(
    void* step, int64_t token, int64_t row, int64_t position, State* states, int64_t* past, float* stream) {
    return static_cast<Step*>(step)->read(token, row, position, states, past, stream);
}

void braingpt_step_predict(void* step, const Matrix* weight, const float* stream, float* output) {
    static_cast<Step*>(step)->predict(*weight, stream, output);
}

int64_t braingpt_step_choose(
    void* step, const ClassHead* head, const Rule* rule, const float* stream, double (*uniform)()) {
    return static_cast<Step*>(step)->choose(*head, *rule, stream, uniform);
}
}
