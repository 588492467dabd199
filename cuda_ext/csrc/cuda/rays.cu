// Marching and compositing along rays: a thread for each ray, and one for each ray and channel where channels lie side by
// side. A ray's samples are taken in order, so that every sum repeats.
#include "common/marching.h"
#include "common/rays.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

// One kernel counts and writes, and one function finds: compiled twice, they might round differently and disagree.
__device__ __attribute__((noinline)) bool find_step(const MarchLayout<float>& layout, const uint8_t* bits,
                                                    const March<float>& march, int64_t from, Step<float>& step) {
    return next_step(layout, bits, march, from, step);
}

// Counts where `counts` is not null, else writes.
__global__ void march_kernel(MarchLayout<float> layout, MarchArrays<float> in, int32_t* counts,
                             SampleArrays<float> out) {
    const int64_t r = thread_index();
    if (r >= in.rays) return;
    const int32_t most = counts ? in.most : out.starts[r + 1] - out.starts[r];
    March<float> march;
    Step<float> step = {-1, 0, 0};
    int32_t found = 0;
    if (begin_march(layout, in.ray(r), march))
        for (; found < most && find_step(layout, in.bits, march, step.number + 1, step); ++found)
            if (!counts) out.write(out.starts[r] + found, r, step);
    if (counts) counts[r] = found;
}

__global__ void ray_weights_kernel(RayArrays<float> in, const float* optical, RaySums<float> out) {
    const int64_t r = thread_index();
    if (r >= in.rays) return;
    const int64_t end = in.last(r);
    int64_t i = in.first(r);
    float total = 0;
    for (; i < end && !(total > float(kOpaqueThickness)); ++i) {
        out.weights[i] = exp(-total) * absorbed(optical[i]);
        total += optical[i];
    }
    out.transmittance[r] = exp(-total);
    out.ends[r] = int32_t(i);
    for (; i < end; ++i) out.weights[i] = 0;
}

__global__ void ray_sums_kernel(RayArrays<float> in, RaySums<float> out) {
    if (thread_index() >= in.rays * in.channels) return;
    const int64_t r = thread_index() / in.channels, c = thread_index() % in.channels;
    float sum = 0;
    for (int64_t i = in.first(r); i < out.ends[r]; ++i) sum = fma(out.weights[i], in.values[i * in.channels + c], sum);
    out.sums[thread_index()] = sum;
}

__global__ void ray_values_backward_kernel(RayArrays<float> in, RayGradients<float> out) {
    if (thread_index() >= in.rays * in.channels) return;
    const int64_t r = thread_index() / in.channels, c = thread_index() % in.channels, end = in.last(r);
    for (int64_t i = in.first(r); i < end; ++i)
        out.v_values[i * in.channels + c] = out.weights[i] * out.v_sums[thread_index()];
}

__global__ void ray_optical_backward_kernel(RayArrays<float> in, RayGradients<float> out) {
    const int64_t r = thread_index();
    if (r >= in.rays) return;
    const int64_t begin = in.first(r), stop = in.within(out.ends[r]), end = in.last(r);
    const float through = out.transmittance[r];
    Behind<float> behind = {through, through * out.v_transmittance[r]};
    for (int64_t i = stop; i < end; ++i) out.v_optical[i] = 0;
    for (int64_t i = stop - 1; i >= begin; --i) {
        float q = out.v_weights[i];
        for (int c = 0; c < in.channels; ++c)
            q = fma(out.v_sums[r * in.channels + c], in.values[i * in.channels + c], q);
        out.v_optical[i] = behind.step(out.weights[i], q);
    }
}

__global__ void distortion_kernel(DistortionArrays<float> in, float* out) {
    const int64_t r = thread_index();
    if (r < in.rays) out[r] = distortion_of(in, r);
}

__global__ void distortion_backward_kernel(DistortionArrays<float> in, const float* v_out, float* v_weights) {
    const int64_t r = thread_index();
    if (r < in.rays) distortion_gradient(in, r, v_out[r], v_weights);
}

} // namespace

void march_count(const MarchLayout<float>& layout, const MarchArrays<float>& in, int32_t* counts, cudaStream_t stream) {
    launch_each(march_kernel, in.rays, stream, layout, in, counts, SampleArrays<float>());
}

void march_write(const MarchLayout<float>& layout, const MarchArrays<float>& in, const SampleArrays<float>& out,
                 cudaStream_t stream) {
    launch_each(march_kernel, in.rays, stream, layout, in, nullptr, out);
}

void composite_rays(const RayArrays<float>& in, const float* optical, const RaySums<float>& out, cudaStream_t stream) {
    launch_each(ray_weights_kernel, in.rays, stream, in, optical, out);
    launch_each(ray_sums_kernel, in.rays * in.channels, stream, in, out);
}

void composite_rays_backward(const RayArrays<float>& in, const RayGradients<float>& out, cudaStream_t stream) {
    launch_each(ray_values_backward_kernel, in.rays * in.channels, stream, in, out);
    launch_each(ray_optical_backward_kernel, in.rays, stream, in, out);
}

void distortion(const DistortionArrays<float>& in, float* out, cudaStream_t stream) {
    launch_each(distortion_kernel, in.rays, stream, in, out);
}

void distortion_backward(const DistortionArrays<float>& in, const float* v_out, float* v_weights, cudaStream_t stream) {
    launch_each(distortion_backward_kernel, in.rays, stream, in, v_out, v_weights);
}

} // namespace anchorfield::cuda
