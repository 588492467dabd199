// Colours of visible Gaussians, a thread for each. A warp first fetches its Gaussians' coefficients together, row by
// row, because a thread that read its own row would touch memory in steps of 192 bytes.
#include "common/spherical_harmonics.h"
#include "cuda/kernels.h"
#include "cuda/sums.h"

namespace anchorfield::cuda {
namespace {

constexpr int kRow = kMaxBasis * 3 + 1; // odd, so that the lanes of a warp read different banks
constexpr int kShThreads = 128;

struct Rows {
    float at[kShThreads / kWarp][kWarp * kRow];
};

// Copies the first `used` coefficients of the Gaussians that `wanted` names, of the 32 from `first` on.
__device__ void fetch_rows(const ShArrays<float>& in, int64_t first, unsigned wanted, int used, float* rows) {
    const int lane = threadIdx.x % kWarp;
    for (; wanted; wanted &= wanted - 1) {
        const int row = __ffs(wanted) - 1;
        const float* sh = in.sh + (first + row) * in.basis * 3;
        for (int k = lane; k < used; k += kWarp) rows[row * kRow + k] = sh[k];
    }
    __syncwarp();
}

__device__ Vec3<float> vec3(const float* p) { return {p[0], p[1], p[2]}; }
__device__ void put(float* p, Vec3<float> v) { p[0] = v.x, p[1] = v.y, p[2] = v.z; }

__global__ void __launch_bounds__(kShThreads) spherical_harmonics_kernel(ShArrays<float> in, float* colours) {
    __shared__ Rows shared;
    const int64_t i = thread_index();
    const int lane = threadIdx.x % kWarp, used = (in.degree + 1) * (in.degree + 1);
    float* rows = shared.at[threadIdx.x / kWarp];
    const bool visible = i < in.count && in.visible[i];
    fetch_rows(in, i - lane, __ballot_sync(kAllLanes, visible), used * 3, rows);
    if (i >= in.count) return;
    Vec3<float> colour = {0, 0, 0};
    if (visible) {
        float Y[kMaxBasis];
        sh_basis(in.degree, sight_line(vec3(in.centre), vec3(in.means + 3 * i)).unit, Y);
        colour = {0.5f, 0.5f, 0.5f};
        for (int k = 0; k < used; ++k) {
            const float* sh = rows + lane * kRow + 3 * k;
            colour = {fma(Y[k], sh[0], colour.x), fma(Y[k], sh[1], colour.y), fma(Y[k], sh[2], colour.z)};
        }
        colour = {max(colour.x, 0.0f), max(colour.y, 0.0f), max(colour.z, 0.0f)};
    }
    put(colours + 3 * i, colour);
}

// Turns this thread's row of coefficients into the row of their gradients and returns the mean's. Zero where not
// visible.
__device__ Vec3<float> row_backward(const ShArrays<float>& in, int64_t i, bool visible, const float* colours,
                                    const float* v_colours, float* row) {
    const int used = (in.degree + 1) * (in.degree + 1);
    for (int k = visible ? used * 3 : 0; k < in.basis * 3; ++k) row[k] = 0;
    if (!visible) return {0, 0, 0};
    const SightLine<float> line = sight_line(vec3(in.centre), vec3(in.means + 3 * i));
    float Y[kMaxBasis], v_Y[kMaxBasis], g[3];
    sh_basis(in.degree, line.unit, Y);
    for (int c = 0; c < 3; ++c) g[c] = colours[3 * i + c] > 0 ? v_colours[3 * i + c] : 0; // a clamped one has none
    for (int k = 0; k < used; ++k) {
        float* sh = row + 3 * k;
        v_Y[k] = fma(sh[0], g[0], fma(sh[1], g[1], sh[2] * g[2]));
        for (int c = 0; c < 3; ++c) sh[c] = Y[k] * g[c];
    }
    return sight_line_backward(line, sh_basis_backward(in.degree, line.unit, v_Y));
}

__global__ void __launch_bounds__(kThreads)
    spherical_harmonics_means_kernel(const float* v_means, int64_t count, float* partial) {
    const int64_t i = thread_index();
    float moved[kCentreSums];
    for (int c = 0; c < kCentreSums; ++c) moved[c] = i < count ? v_means[3 * i + c] : 0;
    sum_over_block(moved, partial + int64_t(blockIdx.x) * kCentreSums);
}

__global__ void __launch_bounds__(kShThreads)
    spherical_harmonics_backward_kernel(ShArrays<float> in, const float* colours, const float* v_colours, float* v_sh,
                                        float* v_means) {
    __shared__ Rows shared;
    const int64_t i = thread_index();
    const int lane = threadIdx.x % kWarp;
    float* rows = shared.at[threadIdx.x / kWarp];
    const bool there = i < in.count, visible = there && in.visible[i];
    fetch_rows(in, i - lane, __ballot_sync(kAllLanes, visible), (in.degree + 1) * (in.degree + 1) * 3, rows);
    if (there) put(v_means + 3 * i, row_backward(in, i, visible, colours, v_colours, rows + lane * kRow));
    __syncwarp();
    for (unsigned left = __ballot_sync(kAllLanes, there); left; left &= left - 1) {
        const int row = __ffs(left) - 1;
        float* out = v_sh + (i - lane + row) * in.basis * 3;
        for (int k = lane; k < in.basis * 3; k += kWarp) out[k] = rows[row * kRow + k];
    }
}

} // namespace

void spherical_harmonics(const ShArrays<float>& in, float* colours, cudaStream_t stream) {
    launch(spherical_harmonics_kernel, divide_up(in.count, kShThreads), kShThreads, stream, in, colours);
}

// The centre moves against the means.
void spherical_harmonics_backward(const ShArrays<float>& in, const float* colours, const float* v_colours, float* v_sh,
                                  float* v_means, float* v_centre, float* partial, cudaStream_t stream) {
    launch(spherical_harmonics_backward_kernel, divide_up(in.count, kShThreads), kShThreads, stream, in, colours,
           v_colours, v_sh, v_means);
    launch_each(spherical_harmonics_means_kernel, in.count, stream, v_means, in.count, partial);
    launch(sum_columns, kCentreSums, kThreads, stream, partial, sum_rows(in.count), kCentreSums, -1.0, v_centre);
}

} // namespace anchorfield::cuda
