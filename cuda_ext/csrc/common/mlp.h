// Multilayer perceptrons without biases: the sizes of their layers, and where the weights of each lie.
#pragma once

#include "common/math.h"

#include <cstdint>

namespace anchorfield {

constexpr int kMaxHidden = 4;
constexpr int kMaxLayers = kMaxHidden + 1;

// `hidden` layers of `width` units with ReLU, and the outputs. Weights lie layer after layer, each [out, in].
struct MlpShape {
    int inputs, outputs, width, hidden;

    AF_HD int layers() const { return hidden + 1; }
    AF_HD int in(int layer) const { return layer == 0 ? inputs : width; }
    AF_HD int out(int layer) const { return layer == hidden ? outputs : width; }
    AF_HD int64_t first(int layer) const { return layer == 0 ? 0 : (inputs + int64_t(layer - 1) * width) * width; }
    AF_HD int64_t size() const { return first(hidden) + int64_t(outputs) * width; }
};

template <class S> struct MlpGradientArrays {
    int64_t count;
    const S *inputs, *v_outputs; // [N, inputs] [N, outputs]
    S *v_inputs, *v_weights;     // out, each may be null
};

} // namespace anchorfield
