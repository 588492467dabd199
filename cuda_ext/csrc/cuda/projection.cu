// Projection of Gaussians, a thread for each, from the same formulas as the CPU kernels.
#include "cuda/kernels.h"
#include "cuda/sums.h"

namespace anchorfield::cuda {
namespace {

__device__ Vec3<float> vec3(const float* p) { return {p[0], p[1], p[2]}; }
__device__ Quat<float> quat(const float* p) { return {p[0], p[1], p[2], p[3]}; }
__device__ void put(float* p, Vec3<float> v) { p[0] = v.x, p[1] = v.y, p[2] = v.z; }

struct Shape {
    Vec3<float> scale;
    float opacity;
};

__device__ Shape shape_at(const GaussianArrays<float>& in, int64_t i) {
    Shape shape = {vec3(in.scales + 3 * i), in.opacities[i]};
    if (in.raw) activate(shape.scale, shape.opacity);
    return shape;
}

__device__ View<float, float> view_of(ProjectionSettings<float> settings, const float* world_to_camera) {
    for (int row = 0; row < 3; ++row) {
        for (int column = 0; column < 3; ++column)
            settings.rotation[3 * row + column] = world_to_camera[4 * row + column];
        settings.translation[row] = world_to_camera[4 * row + 3];
    }
    return View<float, float>(settings);
}

__global__ void project_kernel(GaussianArrays<float> in, ProjectionSettings<float> settings,
                               const float* world_to_camera, ProjectedArrays<float> out) {
    const int64_t i = thread_index();
    if (i >= in.count) return;
    const View<float, float> view = view_of(settings, world_to_camera);
    const Shape shape = shape_at(in, i);
    const Projected<float> p = anchorfield::project<float, float>(view, vec3(in.means + 3 * i), quat(in.quats + 4 * i),
                                                                  shape.scale, shape.opacity);
    out.means2d[2 * i] = p.x, out.means2d[2 * i + 1] = p.y;
    put(out.conics + 3 * i, {p.a, p.b, p.c});
    out.depths[i] = p.depth;
    out.opacities[i] = p.opacity;
    out.extents[2 * i] = p.extent_x, out.extents[2 * i + 1] = p.extent_y;
}

__device__ Projected<float> gradient_at(const ProjectedArrays<float>& v, int64_t i) {
    const float *mean = v.means2d + 2 * i, *conic = v.conics + 3 * i;
    return {mean[0], mean[1], conic[0], conic[1], conic[2], v.depths[i], v.opacities[i], 0, 0};
}

__global__ void __launch_bounds__(kThreads)
    project_backward_kernel(GaussianArrays<float> in, ProjectionSettings<float> settings, const float* world_to_camera,
                            ProjectedArrays<float> v, const float* extents, ProjectionGradientArrays<float> out,
                            float* partial) {
    const int64_t i = thread_index();
    ProjectionGradient<float> g = {};
    if (i < in.count && extents[2 * i] > 0) {
        const Shape shape = shape_at(in, i);
        g = anchorfield::project_backward<float, float>(view_of(settings, world_to_camera), vec3(in.means + 3 * i),
                                                        quat(in.quats + 4 * i), shape.scale, shape.opacity,
                                                        gradient_at(v, i));
        if (in.raw) activate_backward(shape.scale, shape.opacity, g.scale, g.opacity);
    }
    if (i < in.count) {
        put(out.means + 3 * i, g.mean);
        put(out.scales + 3 * i, g.scale);
        out.quats[4 * i] = g.quat.w, out.quats[4 * i + 1] = g.quat.x;
        out.quats[4 * i + 2] = g.quat.y, out.quats[4 * i + 3] = g.quat.z;
        out.opacities[i] = g.opacity;
    }
    if (!partial) return;
    const float pose[kPoseSums] = {g.R.m00, g.R.m01, g.R.m02, g.t.x,   g.R.m10, g.R.m11,
                                   g.R.m12, g.t.y,   g.R.m20, g.R.m21, g.R.m22, g.t.z};
    sum_over_block(pose, partial + int64_t(blockIdx.x) * kPoseSums);
}

} // namespace

int64_t sum_rows(int64_t count) { return divide_up(count, kThreads); }

void project(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings, const float* world_to_camera,
             const ProjectedArrays<float>& out, cudaStream_t stream) {
    launch_each(project_kernel, in.count, stream, in, settings, world_to_camera, out);
}

void project_backward(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings,
                      const float* world_to_camera, const ProjectedArrays<float>& v, const float* extents,
                      const ProjectionGradientArrays<float>& out, float* partial, cudaStream_t stream) {
    launch_each(project_backward_kernel, in.count, stream, in, settings, world_to_camera, v, extents, out,
                out.world_to_camera ? partial : nullptr);
    if (!out.world_to_camera) return;
    check(cudaMemsetAsync(out.world_to_camera, 0, 16 * sizeof(float), stream));
    launch(sum_columns, kPoseSums, kThreads, stream, partial, sum_rows(in.count), kPoseSums, 1.0, out.world_to_camera);
}

} // namespace anchorfield::cuda
