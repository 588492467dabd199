// Spherical harmonics at given directions, a thread for each.
#include "common/spherical_harmonics.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

__device__ Vec3<float> vec3(const float* p) { return {p[0], p[1], p[2]}; }

__global__ void basis_kernel(int degree, const float* directions, int64_t count, float* values) {
    const int64_t i = thread_index();
    if (i >= count) return;
    const int basis = (degree + 1) * (degree + 1);
    float Y[kMaxBasis];
    sh_basis(degree, vec3(directions + 3 * i), Y);
    for (int k = 0; k < basis; ++k) values[i * basis + k] = Y[k];
}

__global__ void basis_backward_kernel(int degree, const float* directions, const float* v_values, int64_t count,
                                      float* v_directions) {
    const int64_t i = thread_index();
    if (i >= count) return;
    const int basis = (degree + 1) * (degree + 1);
    const Vec3<float> v = sh_basis_backward(degree, vec3(directions + 3 * i), v_values + i * basis);
    v_directions[3 * i] = v.x, v_directions[3 * i + 1] = v.y, v_directions[3 * i + 2] = v.z;
}

} // namespace

void harmonics_basis(int degree, const float* directions, int64_t count, float* values, cudaStream_t stream) {
    launch_each(basis_kernel, count, stream, degree, directions, count, values);
}

void harmonics_basis_backward(int degree, const float* directions, const float* v_values, int64_t count,
                              float* v_directions, cudaStream_t stream) {
    launch_each(basis_backward_kernel, count, stream, degree, directions, v_values, count, v_directions);
}

} // namespace anchorfield::cuda
