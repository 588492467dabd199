// The exploration noise of 3D Gaussian splatting as Markov chain Monte Carlo, a thread for each Gaussian.
#include "common/langevin.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

__global__ void perturb_means_kernel(float* means, const float* quats, const float* log_scales,
                                     const float* logit_opacities, const float* noise, int64_t count, float strength) {
    const int64_t i = thread_index();
    if (i >= count) return;
    const float *q = quats + 4 * i, *s = log_scales + 3 * i, *n = noise + 3 * i;
    const Vec3<float> moved = exploration<float>({q[0], q[1], q[2], q[3]}, {s[0], s[1], s[2]}, logit_opacities[i],
                                                 {n[0], n[1], n[2]}, strength);
    float* mean = means + 3 * i;
    mean[0] += moved.x, mean[1] += moved.y, mean[2] += moved.z;
}

} // namespace

void perturb_means(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                   const float* noise, int64_t count, float strength, cudaStream_t stream) {
    launch_each(perturb_means_kernel, count, stream, means, quats, log_scales, logit_opacities, noise, count, strength);
}

} // namespace anchorfield::cuda
