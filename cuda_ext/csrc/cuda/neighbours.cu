// Messages along the edges of a graph, a thread for each point and channel. Every point gathers, so nothing is atomic.
#include "common/neighbours.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <cmath>

namespace anchorfield::cuda {
namespace {

// The number of this thread in [N, D], or -1.
__device__ int64_t number_index(const GraphArrays<float>& in) {
    return thread_index() < in.count * in.channels ? thread_index() : -1;
}

__global__ void find_messages_kernel(GraphArrays<float> in, const float* features, float* messages, int32_t* edges) {
    const int64_t at = number_index(in);
    if (at < 0) return;
    const int64_t j = at / in.channels, c = at % in.channels;
    float least = INFINITY;
    int32_t found = 0;
    for (int32_t a = in.starts[j]; a < in.starts[j + 1]; ++a) {
        const int32_t edge = in.arrivals[a];
        const float value = features[int64_t(edge / in.width) * in.channels + c];
        if (value < least) least = value, found = edge;
    }
    messages[at] = features[at] - least;
    edges[at] = found;
}

__global__ void add_messages_kernel(GraphArrays<float> in, const float* features, const float* messages, float* out) {
    const int64_t at = number_index(in);
    if (at < 0) return;
    const int64_t i = at / in.channels, c = at % in.channels;
    float sum = 0;
    for (int64_t edge = i * in.width; edge < (i + 1) * in.width; ++edge)
        sum = fma(in.weights[edge], messages[int64_t(in.neighbours[edge]) * in.channels + c], sum);
    out[at] = fma(message_share<float>(in.width), sum, features[at]);
}

__global__ void message_gradients_kernel(GraphArrays<float> in, const int32_t* edges, const float* v_out,
                                         float* v_messages) {
    const int64_t at = number_index(in);
    if (at < 0) return;
    const int64_t j = at / in.channels, c = at % in.channels;
    float sum = 0;
    for (int32_t a = in.starts[j]; a < in.starts[j + 1]; ++a) {
        const int32_t edge = in.arrivals[a];
        sum = fma(in.weights[edge], v_out[int64_t(edge / in.width) * in.channels + c], sum);
    }
    // the difference to itself is always zero
    v_messages[at] = edges[at] == j * in.width ? 0 : sum * message_share<float>(in.width);
}

__global__ void feature_gradients_kernel(GraphArrays<float> in, const int32_t* edges, const float* v_out,
                                         const float* v_messages, float* v_features) {
    const int64_t at = number_index(in);
    if (at < 0) return;
    const int64_t i = at / in.channels, c = at % in.channels;
    float sum = v_out[at] + v_messages[at];
    for (int64_t edge = i * in.width; edge < (i + 1) * in.width; ++edge) {
        const int64_t there = int64_t(in.neighbours[edge]) * in.channels + c;
        if (edges[there] == edge) sum -= v_messages[there];
    }
    v_features[at] = sum;
}

} // namespace

void aggregate_neighbours(const GraphArrays<float>& in, const float* features, float* out, int32_t* edges,
                          float* messages, cudaStream_t stream) {
    launch_each(find_messages_kernel, in.count * in.channels, stream, in, features, messages, edges);
    launch_each(add_messages_kernel, in.count * in.channels, stream, in, features, messages, out);
}

void aggregate_neighbours_backward(const GraphArrays<float>& in, const int32_t* edges, const float* v_out,
                                   float* v_features, float* v_messages, cudaStream_t stream) {
    launch_each(message_gradients_kernel, in.count * in.channels, stream, in, edges, v_out, v_messages);
    launch_each(feature_gradients_kernel, in.count * in.channels, stream, in, edges, v_out, v_messages, v_features);
}

} // namespace anchorfield::cuda
