// Mean SSIM and mean absolute difference of two images in one pass, and their gradient in another. A block has 16x16
// pixels and takes the channels in turn; the window is separable, so moments are blurred along rows, then along
// columns. Beyond the image all is zero. Two barriers a channel suffice: the halo is read before the second, the rows
// before the next channel's first.
#include "common/window.h"
#include "cuda/kernels.h"
#include "cuda/sums.h"

namespace anchorfield::cuda {
namespace {

constexpr int kSide = 16;                          // pixels along a block's side
constexpr int kHaloSide = kSide + 2 * kHalfWindow; // with what the window reaches
static_assert(kSide * kSide == kThreads);

struct Place {
    int x0, y0, x, y; // first pixel of the block, this thread's pixel
    bool inside;
    int64_t at; // this thread's pixel in the image
};

__device__ Place place_of(int width, int height) {
    const int columns = (width + kSide - 1) / kSide, block = int(blockIdx.x);
    Place p;
    p.x0 = block % columns * kSide, p.y0 = block / columns * kSide;
    p.x = p.x0 + int(threadIdx.x) % kSide, p.y = p.y0 + int(threadIdx.x) / kSide;
    p.inside = p.x < width && p.y < height;
    p.at = int64_t(p.y) * width + p.x;
    return p;
}

// Calls visit(place in the halo, index in the image or -1) for every pixel that the block's windows reach.
template <class Visit> __device__ void for_halo(const Place& p, int width, int height, Visit visit) {
    for (int i = threadIdx.x; i < kHaloSide * kHaloSide; i += kThreads) {
        const int x = p.x0 - kHalfWindow + i % kHaloSide, y = p.y0 - kHalfWindow + i / kHaloSide;
        visit(i, x >= 0 && x < width && y >= 0 && y < height ? int64_t(y) * width + x : -1);
    }
}

// Calls visit(place in the blurred rows, place in the halo of the window's centre) for the 16 columns of all halo rows.
template <class Visit> __device__ void for_rows(Visit visit) {
    for (int i = threadIdx.x; i < kHaloSide * kSide; i += kThreads)
        visit(i, i / kSide * kHaloSide + i % kSide + kHalfWindow);
}

__device__ float distance_weight(const Window<float>& window, int tap) { return window.weight[tap < 0 ? -tap : tap]; }

// The vertical blur of rows [kHaloSide, kSide] at this thread's pixel.
__device__ float blurred(const float* rows, const Window<float>& window) {
    float total = 0;
    for (int tap = -kHalfWindow; tap <= kHalfWindow; ++tap)
        total = fma(distance_weight(window, tap), rows[threadIdx.x + (tap + kHalfWindow) * kSide], total);
    return total;
}

__global__ void __launch_bounds__(kThreads)
    photometric_kernel(Images in, Window<float> window, float* maps, float* partial) {
    __shared__ float image[kHaloSide * kHaloSide], target[kHaloSide * kHaloSide];
    __shared__ float rows[4][kHaloSide * kSide];
    const Place p = place_of(in.width, in.height);
    const int64_t numbers = int64_t(in.width) * in.height * in.channels;
    float sums[2] = {};
    for (int c = 0; c < in.channels; ++c) {
        for_halo(p, in.width, in.height, [&](int i, int64_t at) {
            image[i] = at < 0 ? 0 : in.image[at * in.channels + c];
            target[i] = at < 0 ? 0 : in.target[at * in.channels + c];
        });
        __syncthreads();
        for_rows([&](int i, int centre) {
            float x = 0, t = 0, squares = 0, product = 0;
            for (int tap = -kHalfWindow; tap <= kHalfWindow; ++tap) {
                const float w = distance_weight(window, tap), u = image[centre + tap], v = target[centre + tap];
                x = fma(w, u, x), t = fma(w, v, t);
                squares = fma(w, fma(u, u, v * v), squares), product = fma(w, u * v, product);
            }
            rows[0][i] = x, rows[1][i] = t, rows[2][i] = squares, rows[3][i] = product;
        });
        __syncthreads();
        if (p.inside) {
            const Ssim<float> s = ssim_at(blurred(rows[0], window), blurred(rows[1], window), blurred(rows[2], window),
                                          blurred(rows[3], window), float(kSsimC1), float(kSsimC2));
            const int64_t at = p.at * in.channels + c;
            maps[at] = s.v_mean, maps[numbers + at] = s.v_square, maps[2 * numbers + at] = s.v_product;
            sums[0] += s.value;
            sums[1] += fabsf(in.image[at] - in.target[at]);
        }
    }
    sum_over_block(sums, partial + 2 * int64_t(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads)
    photometric_backward_kernel(Images in, Window<float> window, const float* maps, const float* v_means,
                                float* v_image) {
    __shared__ float halo[3][kHaloSide * kHaloSide], rows[3][kHaloSide * kSide];
    const Place p = place_of(in.width, in.height);
    const int64_t numbers = int64_t(in.width) * in.height * in.channels;
    const float v_ssim = v_means[0] / float(numbers), v_l1 = v_means[1] / float(numbers);
    for (int c = 0; c < in.channels; ++c) {
        for_halo(p, in.width, in.height, [&](int i, int64_t at) {
            for (int map = 0; map < 3; ++map) halo[map][i] = at < 0 ? 0 : maps[map * numbers + at * in.channels + c];
        });
        __syncthreads();
        for_rows([&](int i, int centre) {
            float totals[3] = {};
            for (int tap = -kHalfWindow; tap <= kHalfWindow; ++tap)
                for (int map = 0; map < 3; ++map)
                    totals[map] = fma(distance_weight(window, tap), halo[map][centre + tap], totals[map]);
            for (int map = 0; map < 3; ++map) rows[map][i] = totals[map];
        });
        __syncthreads();
        if (p.inside) {
            const int64_t at = p.at * in.channels + c;
            const float x = in.image[at], t = in.target[at];
            const float structure =
                ssim_gradient(x, t, blurred(rows[0], window), blurred(rows[1], window), blurred(rows[2], window));
            const float side = x > t ? 1.0f : x < t ? -1.0f : 0.0f;
            v_image[at] = fma(v_ssim, structure, v_l1 * side);
        }
    }
}

} // namespace

int64_t photometric_rows(int width, int height) { return divide_up(width, kSide) * divide_up(height, kSide); }

void photometric(const Images& in, float* means, float* maps, float* partial, cudaStream_t stream) {
    const int64_t blocks = photometric_rows(in.width, in.height);
    const double scale = 1.0 / (double(in.width) * in.height * in.channels);
    launch(photometric_kernel, blocks, kThreads, stream, in, Window<float>(), maps, partial);
    launch(sum_columns, 2, kThreads, stream, partial, blocks, 2, scale, means);
}

void photometric_backward(const Images& in, const float* maps, const float* v_means, float* v_image,
                          cudaStream_t stream) {
    launch(photometric_backward_kernel, photometric_rows(in.width, in.height), kThreads, stream, in, Window<float>(),
           maps, v_means, v_image);
}

} // namespace anchorfield::cuda
