// Front-to-back compositing, a block of threads for each tile, and its gradient, a lane for each Gaussian of a tile.
//
// A tile's pixels are numbered block by block (16 pixels of a 4x4 block side by side), so a warp holds two blocks and
// passes over the Gaussians whose masks name neither. Pairs are taken in buckets of 32. Forward leaves every pixel's
// state (T and colour) in front of every bucket, and at the end; backward gives each bucket to a warp, one Gaussian to
// a lane, and pushes the pixels through the lanes: each hands on T and what lies behind it (Mallick et al. 2024, Taming
// 3DGS). So buckets of one tile run side by side, and a Gaussian's gradient over a whole tile is summed in the
// registers of one lane.
//
// As on the CPU, dL/dalpha = T s - S / (1 - alpha) with s = <dL/dcolour, feature> and S what lies behind. Here S is the
// total minus what came before, which cancels: gradients are exact to some ten ulp of their norm, where walking back to
// front would give two. Gradients of a pair are moments of e = alpha dL/dalpha over the offset, left at its slot and
// summed for each Gaussian in a fixed order. No sum of floats is atomic: a step gives the same bits in every run.
#include "common/compositing.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <algorithm>

namespace anchorfield::cuda {
namespace {

constexpr int kPixels = kTile * kTile;
constexpr int kBucket = kWarp; // pairs between two states
constexpr int kMoments = 6;
constexpr int kMaxChannels = 4; // that one pass carries; more take several passes
constexpr int kBackwardWarps = 4;

// Lists are never empty of room: an array of no channels is not allowed.
template <int C> constexpr int kRoom = C > 0 ? C : 1;
template <int C> constexpr int kState = (C + 1) * kPixels; // T and colour of every pixel

// What a pair leaves for its Gaussian: moments of e, gradients of the features, and the absolute image gradient.
// Without channels, its blend weight.
template <int C, bool Absolute> constexpr int kRecord = C == 0 ? 1 : kMoments + C + (Absolute ? 2 : 0);

// ---------------------------------------------------------------------------------------------------- where things are
struct Tile {
    int index, x, y;    // x, y: first pixel
    int32_t begin, end; // its pairs
    int64_t state;      // number of its first state: that of the end; the others are in front of buckets 1, 2, ...
};

// States are numbered without a sum over the tiles: this leaves each tile at least one for every bucket.
__device__ int64_t first_state(const int32_t* tile_offsets, int tile) { return tile_offsets[tile] / kBucket + tile; }
int64_t states_of(int64_t pairs, int64_t tiles) { return pairs / kBucket + tiles; }

__device__ Tile tile_at(const CompositeInputs& in, int index) {
    const int columns = (in.width + kTile - 1) / kTile;
    const int32_t* offsets = in.bins.tile_offsets;
    return {index,          index % columns * kTile, index / columns * kTile,
            offsets[index], offsets[index + 1],      first_state(offsets, index)};
}

__device__ int pixel_x(const Tile& tile, int place) { return tile.x + place / kBlocks % 4 * kBlock + place % kBlock; }
__device__ int pixel_y(const Tile& tile, int place) {
    return tile.y + place / (4 * kBlocks) * kBlock + place % kBlocks / kBlock;
}

// A pass's part of the trail: how many of a tile's pairs were walked, then the states.
struct Trail {
    int32_t* walked; // [tiles]
    float* states;   // [states_of, channels of the pass + 1, kPixels]
};

Trail trail_of(float* trail, const CompositeInputs& in, int first) {
    const int64_t tiles = divide_up(in.width, kTile) * divide_up(in.height, kTile);
    const int64_t state = int64_t(kPixels) * states_of(in.bins.pairs, tiles);
    // Passes before this one had kMaxChannels each.
    return {reinterpret_cast<int32_t*>(trail), trail + tiles + first / kMaxChannels * (kMaxChannels + 1) * state};
}

// ---------------------------------------------------------------------------------------------------------- a Gaussian
template <int C> struct Splat {
    SplatForm<float> form;
    float feature[kRoom<C>];
};

template <int C> __device__ Splat<C> splat_at(const CompositeInputs& in, int first, int64_t gaussian) {
    Splat<C> s;
    s.form = splat_form(in.means2d + 2 * gaussian, in.conics + 3 * gaussian, in.opacities[gaussian]);
    for (int c = 0; c < C; ++c) s.feature[c] = in.features[gaussian * in.channels + first + c];
    return s;
}

__device__ float alpha_at(const SplatForm<float>& s, float dx, float dy, float T) {
    return blended_alpha(raw_alpha(s.a, s.shear, s.across, s.log2_opacity, dx, dy), T);
}

__device__ bool lets_through(float T) { return T > float(kTransmittanceMin); }

// ------------------------------------------------------------------------------------------------------------- forward
template <int C> struct Pixel {
    float T, colour[kRoom<C>];

    __device__ void store(float* state, int place) const {
        state[place] = T;
        for (int c = 0; c < C; ++c) state[(c + 1) * kPixels + place] = colour[c];
    }
};

template <int C> __device__ void blend(Pixel<C>& pixel, const Splat<C>& s, float x, float y) {
    const float alpha = alpha_at(s.form, s.form.x - x, s.form.y - y, pixel.T), w = alpha * pixel.T;
    pixel.T = fma(-alpha, pixel.T, pixel.T); // one rounding: T stays relatively exact
    for (int c = 0; c < C; ++c) pixel.colour[c] = fma(w, s.feature[c], pixel.colour[c]);
}

template <int C>
__global__ void __launch_bounds__(kPixels)
    composite_kernel(CompositeInputs in, int first, float* image, float* transmittance, Trail trail) {
    __shared__ Splat<C> splats[kPixels];
    __shared__ uint16_t masks[kPixels];
    const Tile tile = tile_at(in, int(blockIdx.x));
    const int place = threadIdx.x, lane = place % kWarp;
    const int column = pixel_x(tile, place), row = pixel_y(tile, place);
    const float x = float(column) + 0.5f, y = float(row) + 0.5f;
    const unsigned mine = 3u << (place / kWarp * 2); // the warp's two blocks
    const bool inside = column < in.width && row < in.height;
    Pixel<C> pixel = {};
    pixel.T = inside ? 1.0f : 0.0f;
    int32_t walked = tile.begin;
    // The barrier also keeps the batch in place until all have read it.
    while (walked < tile.end && __syncthreads_or(lets_through(pixel.T))) {
        const int32_t pair = walked + place;
        masks[place] = pair < tile.end ? in.bins.blocks[pair] : uint16_t(0);
        if (pair < tile.end) splats[place] = splat_at<C>(in, first, in.bins.gaussians[pair]);
        __syncthreads();
        for (int group = 0; group < kPixels && walked < tile.end; group += kBucket, walked += kBucket) {
            const int bucket = (walked - tile.begin) / kBucket;
            if (trail.states && bucket) pixel.store(trail.states + (tile.state + bucket) * kState<C>, place);
            unsigned left = __ballot_sync(kAllLanes, (masks[group + lane] & mine) != 0);
            if (!__any_sync(kAllLanes, lets_through(pixel.T))) left = 0;
            for (; left; left &= left - 1) blend(pixel, splats[group + __ffs(left) - 1], x, y);
        }
    }
    if (trail.states) {
        pixel.store(trail.states + tile.state * kState<C>, place);
        if (place == 0) trail.walked[tile.index] = walked - tile.begin;
    }
    if (!inside) return;
    const int64_t at = int64_t(row) * in.width + column;
    for (int c = 0; c < C; ++c)
        image[at * in.channels + first + c] = fma(pixel.T, in.background[first + c], pixel.colour[c]);
    if (first == 0) transmittance[at] = pixel.T;
}

// ------------------------------------------------------------------------------------------------------------ backward
// The pixels that a bucket can change, as one warp holds them: at most those of a tile.
template <int C> struct Stream {
    float T[kPixels], behind[kPixels], gradient[kRoom<C>][kPixels];
    uint8_t places[kPixels];
};

// Where a bucket's warp gets its pixels from.
struct PixelSource {
    const float *states, *before; // of the end, and in front of the bucket (null: nothing is)
    const float *v_image, *v_transmittance;
    uint32_t blocks; // that the bucket's Gaussians may reach
};

// Fills in what a pixel shows to the bucket; false where nothing can come of it.
template <int C>
__device__ bool look(const CompositeInputs& in, int first, const Tile& tile, const PixelSource& source, int place,
                     float& T, float& behind, float* gradient) {
    const int column = pixel_x(tile, place), row = pixel_y(tile, place);
    if (column >= in.width || row >= in.height || !(source.blocks >> (place / kBlocks) & 1)) return false;
    T = source.before ? source.before[place] : 1.0f;
    if (!lets_through(T)) return false;
    const int64_t at = int64_t(row) * in.width + column;
    float v_T = C > 0 && first == 0 ? source.v_transmittance[at] : 0.0f;
    float later = 0; // S, but for what the last transmittance contributes
    for (int c = 0; c < C; ++c) {
        const int plane = (c + 1) * kPixels + place;
        gradient[c] = source.v_image[at * in.channels + first + c];
        later = fma(gradient[c], source.states[plane] - (source.before ? source.before[plane] : 0.0f), later);
        v_T = fma(gradient[c], in.background[first + c], v_T);
    }
    behind = fma(v_T, source.states[place], later);
    return true;
}

// Packs the pixels that count into the stream and returns their number.
template <int C>
__device__ int fill(const CompositeInputs& in, int first, const Tile& tile, const PixelSource& source,
                    Stream<C>& stream) {
    const int lane = threadIdx.x % kWarp;
    int count = 0;
    for (int chunk = 0; chunk < kPixels; chunk += kWarp) {
        float T = 0, behind = 0, gradient[kRoom<C>] = {};
        const bool counts = look<C>(in, first, tile, source, chunk + lane, T, behind, gradient);
        const unsigned counted = __ballot_sync(kAllLanes, counts);
        if (counts) {
            const int at = count + __popc(counted & ((1u << lane) - 1));
            stream.T[at] = T, stream.behind[at] = behind, stream.places[at] = uint8_t(chunk + lane);
            for (int c = 0; c < C; ++c) stream.gradient[c][at] = gradient[c];
        }
        count += __popc(counted);
    }
    __syncwarp();
    return count;
}

// One lane's Gaussian and what it has gathered so far.
template <int C, bool Absolute> struct Gathered {
    Splat<C> splat;
    float a, b, c; // the conic, for the absolute gradient
    float record[kRecord<C, Absolute>];

    // Takes in one pixel and moves its T and what lies behind past the Gaussian.
    __device__ void take(float x, float y, const Stream<C>& stream, int at, float& T, float& behind) {
        const float dx = splat.form.x - x, dy = splat.form.y - y;
        const float alpha = alpha_at(splat.form, dx, dy, T), w = alpha * T;
        if (alpha == 0) return;
        if constexpr (C == 0) record[0] += w;
        else {
            float shade = 0;
            for (int k = 0; k < C; ++k) {
                shade = fma(stream.gradient[k][at], splat.feature[k], shade);
                record[kMoments + k] = fma(w, stream.gradient[k][at], record[kMoments + k]);
            }
            behind = fma(-w, shade, behind);
            // A capped alpha does not move.
            const float e = alpha < float(kAlphaMax) ? alpha * fma(T, shade, -__fdividef(behind, 1.0f - alpha)) : 0.0f;
            const float mx = e * dx, my = e * dy;
            record[0] += e, record[1] += mx, record[2] += my;
            record[3] = fma(mx, dx, record[3]), record[4] = fma(mx, dy, record[4]), record[5] = fma(my, dy, record[5]);
            if constexpr (Absolute) {
                record[kMoments + C] += fabsf(fma(a, mx, b * my));
                record[kMoments + C + 1] += fabsf(fma(c, my, b * mx));
            }
        }
        T = fma(-alpha, T, T);
    }
};

// The tile whose states hold this one.
__device__ int tile_of_state(const int32_t* tile_offsets, int tiles, int64_t state) {
    int low = 0, high = tiles - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (first_state(tile_offsets, middle) <= state) low = middle;
        else high = middle - 1;
    }
    return low;
}

__device__ uint32_t any_of_warp(uint32_t bits) {
    for (int reach = kWarp / 2; reach > 0; reach /= 2) bits |= __shfl_xor_sync(kAllLanes, bits, reach);
    return bits;
}

template <int C, bool Absolute>
__global__ void __launch_bounds__(kBackwardWarps* kWarp)
    composite_backward_kernel(CompositeInputs in, int first, Trail trail, const float* v_image,
                              const float* v_transmittance, int tiles, int64_t states, float* records) {
    __shared__ Stream<C> streams[kBackwardWarps];
    Stream<C>& stream = streams[threadIdx.x / kWarp];
    const int lane = threadIdx.x % kWarp;
    const int64_t state = thread_index() / kWarp; // from here on all that branches, branches for whole warps
    if (state >= states) return;
    const Tile tile = tile_at(in, tile_of_state(in.bins.tile_offsets, tiles, state));
    const int32_t bucket = int32_t(state - tile.state), pair = tile.begin + bucket * kBucket + lane;
    if (pair - lane >= tile.end) return;

    const bool there = pair < tile.end;
    Gathered<C, Absolute> own = {};
    if (there) {
        const int64_t gaussian = in.bins.gaussians[pair];
        own.splat = splat_at<C>(in, first, gaussian);
        if constexpr (Absolute)
            own.a = in.conics[3 * gaussian], own.b = in.conics[3 * gaussian + 1], own.c = in.conics[3 * gaussian + 2];
    }
    int count = 0;
    if (bucket * kBucket < trail.walked[tile.index]) {
        const PixelSource source = {trail.states + tile.state * kState<C>,
                                    bucket ? trail.states + state * kState<C> : nullptr, v_image, v_transmittance,
                                    any_of_warp(there ? in.bins.blocks[pair] : 0u)};
        count = fill<C>(in, first, tile, source, stream);
    }
    // Pixel i reaches lane k at step i + k.
    float T = 0, behind = 0;
    for (int step = 0; step < (count ? count + kWarp - 1 : 0); ++step) {
        T = __shfl_up_sync(kAllLanes, T, 1);
        if (C > 0) behind = __shfl_up_sync(kAllLanes, behind, 1);
        const int at = step - lane;
        if (at < 0 || at >= count) continue;
        if (lane == 0) T = stream.T[at], behind = stream.behind[at];
        const int place = stream.places[at];
        if (there)
            own.take(float(pixel_x(tile, place)) + 0.5f, float(pixel_y(tile, place)) + 0.5f, stream, at, T, behind);
    }
    if (!there) return;
    float* record = records + int64_t(in.bins.slots[pair]) * kRecord<C, Absolute>;
    for (int k = 0; k < kRecord<C, Absolute>; ++k) record[k] = own.record[k];
}

// Sums the records of this lane's Gaussian, `begin` to before `end`. Long runs are summed by the whole warp, so that
// one huge Gaussian does not hold up the rest. All lanes must come.
template <int R> __device__ void sum_records(const float* records, int32_t begin, int32_t end, float (&sums)[R]) {
    constexpr int kAlone = 32;
    const int lane = threadIdx.x % kWarp;
    if (end - begin <= kAlone)
        for (int32_t slot = begin; slot < end; ++slot)
            for (int k = 0; k < R; ++k) sums[k] += records[int64_t(slot) * R + k];
    for (unsigned big = __ballot_sync(kAllLanes, end - begin > kAlone); big; big &= big - 1) {
        const int owner = __ffs(big) - 1;
        const int32_t first = __shfl_sync(kAllLanes, begin, owner), last = __shfl_sync(kAllLanes, end, owner);
        float part[R] = {};
        for (int32_t slot = first + lane; slot < last; slot += kWarp)
            for (int k = 0; k < R; ++k) part[k] += records[int64_t(slot) * R + k];
        for (int k = 0; k < R; ++k) {
            for (int reach = kWarp / 2; reach > 0; reach /= 2) part[k] += __shfl_xor_sync(kAllLanes, part[k], reach);
            if (lane == owner) sums[k] = part[k];
        }
    }
}

// Turns a Gaussian's moments into gradients; passes add up.
template <int C, bool Absolute>
__device__ void add_gradients(const CompositeInputs& in, int first, int64_t i, const float* m,
                              const CompositeGradients& out) {
    const float a = in.conics[3 * i], b = in.conics[3 * i + 1], c = in.conics[3 * i + 2];
    out.means2d[2 * i] -= fma(a, m[1], b * m[2]);
    out.means2d[2 * i + 1] -= fma(b, m[1], c * m[2]);
    out.conics[3 * i] -= 0.5f * m[3];
    out.conics[3 * i + 1] -= m[4];
    out.conics[3 * i + 2] -= 0.5f * m[5];
    out.opacities[i] += m[0] / in.opacities[i];
    for (int k = 0; k < C; ++k) out.features[i * in.channels + first + k] = m[kMoments + k];
    if constexpr (Absolute)
        for (int k = 0; k < 2; ++k) out.absolute[2 * i + k] += m[kMoments + C + k];
}

template <int C, bool Absolute>
__global__ void gather_records(CompositeInputs in, int first, const float* records, CompositeGradients out,
                               float* weights) {
    constexpr int R = kRecord<C, Absolute>;
    const int64_t rank = thread_index();
    const bool there = rank < in.bins.visible;
    float sums[R] = {};
    sum_records<R>(records, there ? in.bins.order_offsets[rank] : 0, there ? in.bins.order_offsets[rank + 1] : 0, sums);
    if (!there) return;
    if constexpr (C == 0) weights[in.bins.order[rank]] = sums[0];
    else add_gradients<C, Absolute>(in, first, in.bins.order[rank], sums, out);
}

// -------------------------------------------------------------------------------------------------------------- passes
int64_t tiles_of(const CompositeInputs& in) { return divide_up(in.width, kTile) * divide_up(in.height, kTile); }

template <int C>
void forward_pass(const CompositeInputs& in, int first, float* image, float* transmittance, float* trail,
                  cudaStream_t stream) {
    const Trail left = trail ? trail_of(trail, in, first) : Trail{nullptr, nullptr};
    launch(composite_kernel<C>, tiles_of(in), kPixels, stream, in, first, image, transmittance, left);
}

template <int C, bool Absolute>
void backward_pass(const CompositeInputs& in, int first, const float* trail, const CompositeGradients& out,
                   float* records, float* weights, cudaStream_t stream) {
    const int64_t states = states_of(in.bins.pairs, tiles_of(in));
    const Trail left = trail_of(const_cast<float*>(trail), in, first);
    launch(composite_backward_kernel<C, Absolute>, divide_up(states, kBackwardWarps), kBackwardWarps * kWarp, stream,
           in, first, left, out.v_image, out.v_transmittance, int(tiles_of(in)), states, records);
    launch_each(gather_records<C, Absolute>, in.bins.visible, stream, in, first, records, out, weights);
}

template <bool Absolute>
void backward_passes(const CompositeInputs& in, const float* trail, const CompositeGradients& out, float* records,
                     cudaStream_t stream) {
    for (int first = 0; first < in.channels; first += kMaxChannels) {
        switch (in.channels - first) {
        case 1: backward_pass<1, Absolute>(in, first, trail, out, records, nullptr, stream); break;
        case 2: backward_pass<2, Absolute>(in, first, trail, out, records, nullptr, stream); break;
        case 3: backward_pass<3, Absolute>(in, first, trail, out, records, nullptr, stream); break;
        default: backward_pass<4, Absolute>(in, first, trail, out, records, nullptr, stream);
        }
    }
}

} // namespace

int64_t trail_size(int64_t pairs, int width, int height, int channels) {
    const int64_t tiles = divide_up(width, kTile) * divide_up(height, kTile);
    const int64_t planes = channels + std::max<int64_t>(1, divide_up(channels, kMaxChannels)); // T in every pass
    return tiles + planes * kPixels * states_of(pairs, tiles);
}

int record_size(int channels, bool absolute) {
    return kMoments + (channels < kMaxChannels ? channels : kMaxChannels) + (absolute ? 2 : 0);
}

void composite(const CompositeInputs& in, float* image, float* transmittance, float* trail, cudaStream_t stream) {
    for (int first = 0; first < in.channels; first += kMaxChannels) {
        switch (in.channels - first) {
        case 1: forward_pass<1>(in, first, image, transmittance, trail, stream); break;
        case 2: forward_pass<2>(in, first, image, transmittance, trail, stream); break;
        case 3: forward_pass<3>(in, first, image, transmittance, trail, stream); break;
        default: forward_pass<4>(in, first, image, transmittance, trail, stream);
        }
    }
}

void composite_backward(const CompositeInputs& in, const float* trail, const CompositeGradients& out, float* records,
                        cudaStream_t stream) {
    if (out.absolute) backward_passes<true>(in, trail, out, records, stream);
    else backward_passes<false>(in, trail, out, records, stream);
}

void contributions(const CompositeInputs& in, float* transmittance, float* trail, float* records, float* weights,
                   cudaStream_t stream) {
    forward_pass<0>(in, 0, nullptr, transmittance, trail, stream);
    backward_pass<0, false>(in, 0, trail, {}, records, weights, stream);
}

} // namespace anchorfield::cuda
