// Projection and colour of Gaussians, a thread for each, from the same formulas as the CPU kernels.
//
// The kernels take device arrays and a stream and synchronise nothing.
#include "cuda/projection.h"

#include "common/spherical_harmonics.h"

namespace anchorfield::cuda {
namespace {

constexpr int kThreads = 256;

inline int blocks_for(int64_t count) { return int((count + kThreads - 1) / kThreads); }

__device__ int64_t thread_index() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

__device__ Vec3<float> vec3(const float* p) { return {p[0], p[1], p[2]}; }
__device__ Quat<float> quat(const float* p) { return {p[0], p[1], p[2], p[3]}; }
__device__ void put(float* p, Vec3<float> v) { p[0] = v.x, p[1] = v.y, p[2] = v.z; }

__global__ void project_kernel(GaussianArrays<float> in, ProjectionSettings<float> settings,
                               ProjectedArrays<float> out) {
    const int64_t i = thread_index();
    if (i >= in.count) return;
    const View<float, float> view(settings);
    const Projected<float> p = anchorfield::project<float, float>(view, vec3(in.means + 3 * i), quat(in.quats + 4 * i),
                                                                  vec3(in.scales + 3 * i), in.opacities[i]);
    out.means2d[2 * i] = p.x, out.means2d[2 * i + 1] = p.y;
    put(out.conics + 3 * i, {p.a, p.b, p.c});
    out.depths[i] = p.depth;
    out.opacities[i] = p.opacity;
    out.extents[2 * i] = p.extent_x, out.extents[2 * i + 1] = p.extent_y;
}

__global__ void project_backward_kernel(GaussianArrays<float> in, ProjectionSettings<float> settings,
                                        ProjectedArrays<float> v, const float* extents,
                                        ProjectionGradientArrays<float> out) {
    const int64_t i = thread_index();
    if (i >= in.count) return;
    ProjectionGradient<float> g = {};
    if (extents[2 * i] > 0) {
        const View<float, float> view(settings);
        const Projected<float> gradient = {v.means2d[2 * i],
                                           v.means2d[2 * i + 1],
                                           v.conics[3 * i],
                                           v.conics[3 * i + 1],
                                           v.conics[3 * i + 2],
                                           v.depths[i],
                                           v.opacities[i],
                                           0,
                                           0};
        g = anchorfield::project_backward<float, float>(view, vec3(in.means + 3 * i), quat(in.quats + 4 * i),
                                                        vec3(in.scales + 3 * i), in.opacities[i], gradient);
    }
    put(out.means + 3 * i, g.mean);
    put(out.scales + 3 * i, g.scale);
    out.quats[4 * i] = g.quat.w, out.quats[4 * i + 1] = g.quat.x;
    out.quats[4 * i + 2] = g.quat.y, out.quats[4 * i + 3] = g.quat.z;
    out.opacities[i] = g.opacity;
}

__global__ void spherical_harmonics_kernel(ShArrays<float> in, float* colours) {
    const int64_t i = thread_index();
    if (i >= in.count) return;
    float colour[3] = {0, 0, 0};
    if (in.visible[i]) {
        Vec3<float> d = vec3(in.means + 3 * i), c = vec3(in.centre);
        d = {d.x - c.x, d.y - c.y, d.z - c.z};
        const float inverse = 1 / sqrt(max(dot(d, d), 1e-30f));
        float Y[kMaxBasis];
        sh_basis(in.degree, Vec3<float>{d.x * inverse, d.y * inverse, d.z * inverse}, Y);
        const float* sh = in.sh + i * in.basis * 3;
        for (int k = 0; k < (in.degree + 1) * (in.degree + 1); ++k)
            for (int channel = 0; channel < 3; ++channel) colour[channel] += Y[k] * sh[3 * k + channel];
        for (float& channel : colour) channel = max(channel + 0.5f, 0.0f);
    }
    put(colours + 3 * i, {colour[0], colour[1], colour[2]});
}

} // namespace

void project(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings,
             const ProjectedArrays<float>& out, cudaStream_t stream) {
    if (in.count) project_kernel<<<blocks_for(in.count), kThreads, 0, stream>>>(in, settings, out);
}

void project_backward(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings,
                      const ProjectedArrays<float>& v, const float* extents, const ProjectionGradientArrays<float>& out,
                      cudaStream_t stream) {
    if (in.count) project_backward_kernel<<<blocks_for(in.count), kThreads, 0, stream>>>(in, settings, v, extents, out);
}

void spherical_harmonics(const ShArrays<float>& in, float* colours, cudaStream_t stream) {
    if (in.count) spherical_harmonics_kernel<<<blocks_for(in.count), kThreads, 0, stream>>>(in, colours);
}

} // namespace anchorfield::cuda
