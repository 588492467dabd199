// The exploration noise of 3D Gaussian splatting as Markov chain Monte Carlo, a thread for each Gaussian.
#include "common/langevin.h"
#include "common/random.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

namespace anchorfield::cuda {
namespace {

__global__ void perturb_means_kernel(float* means, const float* quats, const float* log_scales,
                                     const float* logit_opacities, int64_t count, float strength, uint64_t seed) {
    const int64_t i = thread_index();
    if (i >= count) return;
    const float *q = quats + 4 * i, *s = log_scales + 3 * i;
    const RandomWords w = random_words(uint64_t(i), seed);
    const NormalPair<float> one = normal_pair(uniform<float>(w.a), uniform<float>(w.b)),
                            two = normal_pair(uniform<float>(w.c), uniform<float>(w.d));
    const Vec3<float> moved = exploration<float>({q[0], q[1], q[2], q[3]}, {s[0], s[1], s[2]}, logit_opacities[i],
                                                 {one.first, one.second, two.first}, strength);
    float* mean = means + 3 * i;
    mean[0] += moved.x, mean[1] += moved.y, mean[2] += moved.z;
}

} // namespace

void perturb_means(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                   int64_t count, float strength, uint64_t seed, cudaStream_t stream) {
    launch_each(perturb_means_kernel, count, stream, means, quats, log_scales, logit_opacities, count, strength, seed);
}

} // namespace anchorfield::cuda
