// Small perceptrons, a product of matrices for each layer, forward and backward.
#include "cuda/kernels.h"
#include "cuda/matrix.h"

#include <algorithm>

namespace anchorfield::cuda {
namespace {

constexpr int64_t kLeastChunk = 1024, kMostChunks = 256; // of the rows whose weight gradients one block sums

int64_t chunk_of(int64_t count) { return std::max(kLeastChunk, divide_up(count, kMostChunks)); }

// Parts of one allocation.
struct MlpRoom {
    float* units[kMaxHidden]; // [N, width] of each hidden layer; backward, gradients take their places
    float* partial;           // sums of chunks
    int64_t size = 0;         // numbers in all

    MlpRoom(const MlpShape& s, int64_t count, bool backward, float* begin) {
        auto take = [&](int64_t numbers) {
            size += numbers;
            return begin ? begin + size - numbers : nullptr;
        };
        for (int l = 0; l < s.hidden; ++l) units[l] = take(count * s.width);
        const int64_t most = int64_t(s.width) * std::max({s.inputs, s.outputs, s.width});
        partial = take(backward ? divide_up(count, chunk_of(count)) * most : 0);
    }
};

// The units of all hidden layers; returns those of the last.
const float* units_of(const MlpShape& s, const float* inputs, const float* weights, int64_t count, const MlpRoom& room,
                      cudaStream_t stream) {
    for (int l = 0; l < s.hidden; ++l) {
        const int in = s.in(l);
        Product p = {count, s.width, in, {inputs, in, 1}, {weights + s.first(l), 1, in}, room.units[l], s.width};
        p.rectified = true;
        multiply(p, stream);
        inputs = room.units[l];
    }
    return inputs;
}

} // namespace

int64_t mlp_scratch(const MlpShape& shape, int64_t count, bool backward) {
    return MlpRoom(shape, count, backward, nullptr).size;
}

void mlp(const MlpShape& s, const float* inputs, const float* weights, int64_t count, float* outputs, float* scratch,
         cudaStream_t stream) {
    const MlpRoom room(s, count, false, scratch);
    const float *units = units_of(s, inputs, weights, count, room, stream), *last = weights + s.first(s.hidden);
    multiply({count, s.outputs, s.width, {units, s.width, 1}, {last, 1, s.width}, outputs, s.outputs}, stream);
}

void mlp_backward(const MlpShape& s, const float* weights, const MlpGradientArrays<float>& g, float* scratch,
                  cudaStream_t stream) {
    const MlpRoom room(s, g.count, true, scratch);
    const int64_t count = g.count;
    units_of(s, g.inputs, weights, count, room, stream);
    const float* v = g.v_outputs;
    for (int l = s.hidden; l >= 0; --l) {
        const int in = s.in(l), out = s.out(l);
        const float* units = l ? room.units[l - 1] : g.inputs;
        float* const to = l ? room.units[l - 1] : g.v_inputs;
        if (g.v_weights)
            multiply_chunks({out, in, count, {v, 1, out}, {units, in, 1}, g.v_weights + s.first(l), 0}, chunk_of(count),
                            room.partial, stream);
        Product p = {count, in, out, {v, out, 1}, {weights + s.first(l), in, 1}, to, in};
        p.gate = l ? units : nullptr;
        if (to) multiply(p, stream);
        v = to;
    }
}

} // namespace anchorfield::cuda
