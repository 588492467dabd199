// Decoding of anchors: products of matrices, forward and backward, and one thread per row or per offset does what lies
// between. Sums over all anchors are taken chunk by chunk and the chunks in order, so that they repeat bit for
// bit. How many Gaussians are kept is known on the device only: a running sum numbers them, and the caller fetches it.
#include "common/anchors.h"
#include "cuda/kernels.h"
#include "cuda/matrix.h"

#include <cub/device/device_scan.cuh>

namespace anchorfield::cuda {
namespace {

constexpr int64_t kChunk = 1024; // anchors whose weight gradients one block sums

// ------------------------------------------------------------------------------------------------------- the perceptrons
using Anchors = AnchorArrays<float>;

int layer_of(const Anchors& in) { return 3 * in.units; }
int inputs_of(const Anchors& in) { return in.features + 4; }
int logits_of(const Anchors& in) { return kGaussianLogits * in.offsets_each; }

// What rows pass through, parts of one allocation.
struct Layers {
    float *one, *x, *first, *last; // [1] [V, D + 4] [V, 3H] [V, 3H]
    float *v_first, *v_last;       // gradients to the layers
    float *v_logits, *v_features;  // [V, 11k] [V, D]
    float* partial;                // sums of chunks
    int64_t size;                  // numbers in all

    Layers(const Anchors& in, bool backward, float* begin) : size(0) {
        auto take = [&](int64_t count) {
            float* part = begin ? begin + size : nullptr;
            size += count;
            return part;
        };
        const int64_t V = in.visible, layer = V * layer_of(in), deep = in.heads.middle ? layer : 0;
        const int64_t most = int64_t(layer_of(in)) * (inputs_of(in) > in.units ? inputs_of(in) : in.units);
        const int64_t outputs = int64_t(kHeadOutputs[1]) * in.offsets_each * in.units;
        one = take(1), x = take(V * inputs_of(in)), first = take(layer), last = take(deep);
        if (!in.heads.middle) last = first;
        if (!backward) return;
        v_first = take(layer), v_last = take(deep);
        if (!in.heads.middle) v_last = v_first;
        v_logits = take(V * logits_of(in)), v_features = take(V * in.features);
        partial = take(divide_up(V, kChunk) * (most > outputs ? most : outputs));
    }
};

__device__ Vec3<float> vec3(const float* p) { return {p[0], p[1], p[2]}; }

__global__ void load_inputs(Anchors in, float* one, float* x) {
    const int64_t r = thread_index();
    if (r == 0) *one = 1;
    if (r >= in.visible) return;
    const int64_t anchor = in.rows[r];
    const Sight<float> s = sight(vec3(in.centre), vec3(in.anchors + 3 * anchor));
    const float seen[4] = {s.direction.x, s.direction.y, s.direction.z, s.distance};
    x += r * (in.features + 4);
    for (int c = 0; c < in.features; ++c) x[c] = in.features_of[anchor * in.features + c];
    for (int c = 0; c < 4; ++c) x[in.features + c] = seen[c];
}

// out = start + a w^T for the rows, with w [columns, depth].
Product layer(const Anchors& in, const float* a, int64_t a_row, const float* w, int columns, int depth,
              const float* start, float* out, int64_t out_row) {
    Product p = {in.visible, columns, depth, {a, a_row, 1}, {w, 1, depth}, out, out_row};
    p.start = start;
    return p;
}

void hidden_layers(const Anchors& in, const Layers& at, cudaStream_t stream) {
    const int H = in.units, L = layer_of(in);
    launch_each(load_inputs, in.visible, stream, in, at.one, at.x);
    Product p = layer(in, at.x, inputs_of(in), in.heads.hidden, L, inputs_of(in), in.heads.hidden_bias, at.first, L);
    if (in.own_bias) p.start_row = L, p.start_of = in.rows;
    p.rectified = true;
    multiply(p, stream);
    for (int h = 0; in.heads.middle && h < 3; ++h) {
        p = layer(in, at.first + h * H, L, in.heads.middle + h * H * H, H, H, in.heads.middle_bias + h * H,
                  at.last + h * H, L);
        p.rectified = true;
        multiply(p, stream);
    }
}

// ---------------------------------------------------------------------------------------------------------- Gaussians
__device__ float opacity_of(const Anchors& in, int64_t row, float logit) {
    return tanh(logit) * (in.fade ? in.fade[in.rows[row]] : 1.0f);
}

__global__ void mark_kept(Anchors in, const float* logits, int32_t* ranks) {
    const int64_t i = thread_index(), row = i / in.offsets_each;
    if (row >= in.visible) return;
    const float logit = logits[row * kGaussianLogits * in.offsets_each + i % in.offsets_each];
    ranks[i] = opacity_of(in, row, logit) > 0;
}

__global__ void put_total(const int32_t* ranks, int64_t count, int64_t* totals) {
    totals[0] = ranks[count - 1], totals[1] = 0;
}

__global__ void write_kept(Anchors in, const float* logits, const int32_t* ranks, Decoded out) {
    const int64_t i = thread_index(), row = i / in.offsets_each;
    if (row >= in.visible) return;
    const int64_t m = i ? ranks[i - 1] : 0;
    if (ranks[i] == m) return;
    const int k = in.offsets_each, j = int(i % k);
    const int64_t anchor = in.rows[row];
    logits += row * kGaussianLogits * k;
    const float *covariance = logits + k + 7 * j, *colour = logits + 8 * k + 3 * j;
    const float *offset = in.offsets + (anchor * k + j) * 3, *log_scales = in.log_scales + anchor * 6;
    for (int c = 0; c < 3; ++c) {
        out.means[3 * m + c] = fma(offset[c], exp(log_scales[c]), in.anchors[3 * anchor + c]);
        out.scales[3 * m + c] = exp(log_scales[3 + c]) * sigmoid(covariance[c]);
        out.colours[3 * m + c] = sigmoid(colour[c]);
    }
    for (int c = 0; c < 4; ++c) out.quats[4 * m + c] = covariance[3 + c];
    out.opacities[m] = opacity_of(in, row, logits[j]);
    out.origin[m] = int32_t(anchor * k + j);
}

// The first number of the sorted `origin` that is not below `value`.
__device__ int64_t lower_bound(const int32_t* origin, int64_t count, int64_t value) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (origin[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low;
}

// A thread for each row, because an anchor's Gaussians share its scales.
__global__ void gaussians_backward(Anchors in, DecodedGradientArrays<float> v, float* v_logits) {
    const int64_t row = thread_index();
    if (row >= in.visible) return;
    const int k = in.offsets_each;
    const int64_t anchor = in.rows[row];
    const float fade = in.fade ? in.fade[anchor] : 1.0f, *log_scales = in.log_scales + anchor * 6;
    float v_scales[6] = {};
    v_logits += row * kGaussianLogits * k;
    int64_t m = lower_bound(v.origin, v.count, anchor * k);
    for (; m < v.count && v.origin[m] < (anchor + 1) * k; ++m) {
        const int j = int(v.origin[m] - anchor * k);
        const float* offset = in.offsets + (anchor * k + j) * 3;
        float *v_covariance = v_logits + k + 7 * j, *v_colour = v_logits + 8 * k + 3 * j;
        v_logits[j] = opacity_backward(v.opacities[m], fade, v.v_opacities[m]);
        for (int c = 0; c < 3; ++c) {
            const float scale = v.scales[3 * m + c], v_mean = v.v_means[3 * m + c] * exp(log_scales[c]);
            v.offsets[(anchor * k + j) * 3 + c] = v_mean;
            v_scales[c] += v_mean * offset[c];
            v_scales[3 + c] += v.v_scales[3 * m + c] * scale;
            v_covariance[c] = scale_backward(scale, 1 / exp(log_scales[3 + c]), v.v_scales[3 * m + c]);
            v_colour[c] = colour_backward(v.colours[3 * m + c], v.v_colours[3 * m + c]);
        }
        for (int c = 0; c < 4; ++c) v_covariance[3 + c] = v.v_quats[4 * m + c];
    }
    for (int c = 0; c < 6; ++c) v.log_scales[anchor * 6 + c] = v_scales[c];
}

// to[rows[r]] = from[r], `columns` numbers each.
__global__ void scatter_rows(const float* from, const int32_t* rows, int64_t count, int columns, float* to) {
    const int64_t i = thread_index();
    if (i < count * columns) to[int64_t(rows[i / columns]) * columns + i % columns] = from[i];
}

// ----------------------------------------------------------------------------------------------------------- backward
// Gradients of a layer out = units w^T + bias of all rows, from v, the gradient to its outputs.
struct LayerGradient {
    int outputs, depth;
    const float *v, *units; // [V, outputs] [V, depth]
    int64_t v_row, units_row;
    float *weight, *bias; // [outputs, depth] [outputs], or null
};

void weights_backward(const Anchors& in, const Layers& at, const LayerGradient& g, cudaStream_t stream) {
    const Matrix units = {g.units, g.units_row, 1}, v = {g.v, g.v_row, 1}, ones = {at.one, 0, 0};
    multiply_chunks({g.outputs, g.depth, in.visible, {g.v, 1, g.v_row}, units, g.weight, 0}, kChunk, at.partial,
                    stream);
    if (g.bias) multiply_chunks({1, g.outputs, in.visible, ones, v, g.bias, 0}, kChunk, at.partial, stream);
}

// out = v w for the rows, with w [outputs, w_row]; zero where `gate` is.
void inputs_backward(const Anchors& in, const float* v, int64_t v_row, int outputs, const float* w, int64_t w_row,
                     const float* gate, float* out, int columns, int64_t out_row, cudaStream_t stream) {
    Product p = {in.visible, columns, outputs, {v, v_row, 1}, {w, w_row, 1}, out, out_row};
    p.gate = gate;
    multiply(p, stream);
}

void outputs_backward(const Anchors& in, const HeadArrays<float>& out, const Layers& at, cudaStream_t stream) {
    const int H = in.units, L = layer_of(in), all = logits_of(in);
    const float* v = at.v_logits;
    for (int h = 0; h < 3; ++h) {
        const int outputs = kHeadOutputs[h] * in.offsets_each;
        const float* units = at.last + h * H;
        inputs_backward(in, v, all, outputs, in.heads.output[h], H, units, at.v_last + h * H, H, L, stream);
        weights_backward(in, at, {outputs, H, v, units, all, L, out.output[h], out.output_bias[h]}, stream);
        v += outputs;
    }
}

void middle_backward(const Anchors& in, const HeadArrays<float>& out, const Layers& at, cudaStream_t stream) {
    const int H = in.units, L = layer_of(in);
    for (int h = 0; h < 3; ++h) {
        const float *v = at.v_last + h * H, *units = at.first + h * H;
        inputs_backward(in, v, L, H, in.heads.middle + h * H * H, H, units, at.v_first + h * H, H, L, stream);
        weights_backward(in, at, {H, H, v, units, L, L, out.middle + h * H * H, out.middle_bias + h * H}, stream);
    }
}

void hidden_backward(const Anchors& in, const DecodedGradientArrays<float>& v, const Layers& at, cudaStream_t stream) {
    const int L = layer_of(in), I = inputs_of(in);
    float* bias = in.own_bias ? nullptr : v.heads.hidden_bias;
    weights_backward(in, at, {L, I, at.v_first, at.x, L, I, v.heads.hidden, bias}, stream);
    inputs_backward(in, at.v_first, L, L, in.heads.hidden, I, nullptr, at.v_features, in.features, in.features, stream);
    launch_each(scatter_rows, in.visible * in.features, stream, at.v_features, in.rows, in.visible, in.features,
                v.features);
    if (in.own_bias)
        launch_each(scatter_rows, in.visible * L, stream, at.v_first, in.rows, in.visible, L, v.heads.hidden_bias);
}

} // namespace

int64_t anchor_scratch(const AnchorArrays<float>& in, bool backward) { return Layers(in, backward, nullptr).size; }

size_t anchor_scan_bytes(int64_t count) {
    size_t bytes = 0;
    int32_t* none = nullptr;
    check(cub::DeviceScan::InclusiveSum(nullptr, bytes, none, none, int(count), nullptr));
    return bytes;
}

void decode_logits(const AnchorArrays<float>& in, const KeptRanks& out, float* logits, float* scratch,
                   cudaStream_t stream) {
    const Layers at(in, false, scratch);
    const int64_t count = in.visible * in.offsets_each;
    hidden_layers(in, at, stream);
    float* to = logits;
    for (int h = 0; h < 3; ++h) {
        const int outputs = kHeadOutputs[h] * in.offsets_each;
        multiply(layer(in, at.last + h * in.units, layer_of(in), in.heads.output[h], outputs, in.units,
                       in.heads.output_bias[h], to, logits_of(in)),
                 stream);
        to += outputs;
    }
    launch_each(mark_kept, count, stream, in, logits, out.ranks);
    size_t bytes = out.scan_bytes;
    check(cub::DeviceScan::InclusiveSum(out.scan, bytes, out.ranks, out.ranks, int(count), stream));
    launch(put_total, 1, 1, stream, out.ranks, count, out.totals);
}

void write_gaussians(const AnchorArrays<float>& in, const float* logits, const int32_t* ranks, const Decoded& out,
                     cudaStream_t stream) {
    launch_each(write_kept, in.visible * in.offsets_each, stream, in, logits, ranks, out);
}

void decode_anchors_backward(const AnchorArrays<float>& in, const DecodedGradientArrays<float>& v, float* scratch,
                             cudaStream_t stream) {
    const Layers at(in, true, scratch);
    hidden_layers(in, at, stream);
    check(cudaMemsetAsync(at.v_logits, 0, size_t(in.visible) * logits_of(in) * sizeof(float), stream));
    launch_each(gaussians_backward, in.visible, stream, in, v, at.v_logits);
    outputs_backward(in, v.heads, at, stream);
    if (in.heads.middle) middle_backward(in, v.heads, at, stream);
    hidden_backward(in, v, at, stream);
}

} // namespace anchorfield::cuda
