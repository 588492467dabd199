// What each instruction set offers: one table of functions per number type.
#pragma once

#include "common/adam.h"
#include "common/arrays.h"
#include "common/hash_grid.h"
#include "common/marching.h"
#include "common/mlp.h"
#include "common/neighbours.h"
#include "common/projection.h"
#include "common/rays.h"

#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace anchorfield {

// Memory that is written before it is read need not be filled with zeros first.
template <class T> struct Unfilled : std::allocator<T> {
    template <class U> struct rebind {
        using other = Unfilled<U>;
    };
    template <class U> void construct(U* place) noexcept { ::new (static_cast<void*>(place)) U; }
    template <class U, class... Values> void construct(U* place, Values&&... values) {
        ::new (static_cast<void*>(place)) U(std::forward<Values>(values)...);
    }
};
template <class T> using Array = std::vector<T, Unfilled<T>>;

// (tile, Gaussian) pairs. Lists are by tile and front to back inside a tile; `slots` numbers the pairs Gaussian by
// Gaussian, so that everything a Gaussian has in different tiles lies side by side.
struct Bins {
    Array<int32_t> gaussians;     // [P] index of the Gaussian
    Array<uint16_t> blocks;       // [P] bit 4 * row + column: the Gaussian may reach that 4x4 block of the tile
    Array<int32_t> slots;         // [P]
    Array<int32_t> tile_offsets;  // [tiles + 1] into the pairs
    Array<int32_t> order;         // [V] visible Gaussians front to back
    Array<int32_t> order_offsets; // [V + 1] into the slots
};

struct BinArrays {
    const int32_t* gaussians;
    const uint16_t* blocks;
    const int32_t *slots, *tile_offsets, *order, *order_offsets;
    int64_t pairs, visible;
};

template <class S> struct CompositeArrays {
    int64_t count;
    int width, height, channels;
    const S *means2d, *conics, *opacities, *features; // [N,2] [N,3] [N] [N,C]
    const S* background;                              // [C]
    BinArrays bins;
};

template <class S> struct CompositeGradientArrays {
    const S *v_image, *v_transmittance;         // gradients to forward's results [H,W,C] [H,W]
    S *means2d, *conics, *opacities, *features; // out
    S* absolute;                                // [N,2] sum over pixels of |gradient to means2d|, or null
};

// Kept Gaussians, by row and offset.
template <class S> struct DecodedArrays {
    int64_t count;
    std::unique_ptr<S[]> means, quats, scales, opacities, colours; // [M,3] [M,4] [M,3] [M] [M,3]
    std::unique_ptr<int32_t[]> origin;                             // [M] anchor k + offset
};

template <class S> struct AdamArrays {
    int64_t count, columns;
    S* parameter;
    const S* gradient;
    S *moment1, *moment2;
    const S* rates;            // [columns]
    int16_t* counts = nullptr; // [count, columns] steps that each number has taken, where they differ
};

template <class S> struct Kernels {
    void (*project)(const GaussianArrays<S>&, const ProjectionSettings<S>&, const ProjectedArrays<S>&);
    void (*project_backward)(const GaussianArrays<S>&, const ProjectionSettings<S>&, const ProjectedArrays<S>& v,
                             const S* extents, const ProjectionGradientArrays<S>&);
    void (*spherical_harmonics)(const ShArrays<S>&, S* colours);
    void (*spherical_harmonics_backward)(const ShArrays<S>&, const S* colours, const S* v_colours, S* v_sh, S* v_means,
                                         S* v_centre);
    DecodedArrays<S> (*decode_anchors)(const AnchorArrays<S>&);
    void (*decode_anchors_backward)(const AnchorArrays<S>&, const DecodedGradientArrays<S>&);
    Bins (*bin_tiles)(const ProjectedArrays<S>&, int64_t count, int width, int height);
    // `trail` [trail_size] is what forward leaves for backward.
    void (*composite)(const CompositeArrays<S>&, S* image, S* transmittance, S* trail);
    void (*composite_backward)(const CompositeArrays<S>&, const S* trail, const CompositeGradientArrays<S>&);
    void (*contributions)(const CompositeArrays<S>&, S* weights);
    void (*photometric)(ImagePair<S>, S* l1, S* ssim, S* maps);
    void (*photometric_backward)(const ImagePair<S>&, const S* maps, const S* v_l1, const S* v_ssim, S* v_image);
    void (*adam)(const std::vector<AdamArrays<S>>&, const bool* rows, const AdamSettings<S>&);
    void (*perturb_means)(S* means, const S* quats, const S* log_scales, const S* logit_opacities, int64_t count,
                          S strength, uint64_t seed);
    void (*mean_activations)(const S* log_scales, const S* logits, int64_t count, S* mean_scale, S* mean_opacity);
    void (*mean_activations_backward)(const S* log_scales, const S* logits, int64_t count, const S* v_mean_scale,
                                      const S* v_mean_opacity, S* v_log_scales, S* v_logits);
    void (*colours_of_pixels)(const uint8_t* pixels, int width, int height, int channels, int factor,
                              const S* background, S* colours);
    double (*fma_rate)(int64_t rounds);
    // With `along` [N,D], the derivative of each result as the positions move that way; null for the result itself.
    void (*hash_grid)(const HashGrid<S>&, const S* positions, const S* along, const S* table, int64_t count, S* out);
    void (*hash_grid_table_backward)(const HashGrid<S>&, const S* positions, const S* along, const S* v_out,
                                     int64_t count, S* v_table);
    void (*hash_grid_positions_backward)(const HashGrid<S>&, const S* positions, const S* along, const S* table,
                                         const S* v_out, int64_t count, S* v_positions);
    void (*probed_hash_grid_backward)(const HashGrid<S>&, const S* positions, const S* table, const S* probabilities,
                                      const S* v_out, int64_t count, S* v_table, S* v_probabilities);
    // `edges` [N,D] is what forward leaves for backward: the edge whose difference each message is.
    void (*aggregate_neighbours)(const GraphArrays<S>&, const S* features, S* out, int32_t* edges);
    void (*aggregate_neighbours_backward)(const GraphArrays<S>&, const int32_t* edges, const S* v_out, S* v_features);
    // Steps of each ray in occupied voxels, and the steps themselves.
    void (*march_count)(const MarchLayout<S>&, const MarchArrays<S>&, int32_t* counts);
    void (*march_write)(const MarchLayout<S>&, const MarchArrays<S>&, const SampleArrays<S>&);
    void (*composite_rays)(const RayArrays<S>&, const S* optical, const RaySums<S>&);
    void (*composite_rays_backward)(const RayArrays<S>&, const RayGradients<S>&);
    void (*distortion)(const DistortionArrays<S>&, S* out);
    void (*distortion_backward)(const DistortionArrays<S>&, const S* v_out, S* v_weights);
    // Steps of numbers whose gradient is not zero; of the settings, scales are not used.
    void (*adam_touched)(const std::vector<AdamArrays<S>>&, const AdamScales<S>&, const AdamSettings<S>&);
    // `axes` (directions) are [N,3], `values` [N,(degree + 1)^2].
    void (*harmonics_basis)(int degree, const S* axes, int64_t count, S* values);
    void (*harmonics_basis_backward)(int degree, const S* axes, const S* v_values, int64_t count, S* v_axes);
    void (*mlp)(const MlpShape&, const S* inputs, const S* weights, int64_t count, S* outputs);
    void (*mlp_backward)(const MlpShape&, const S* weights, const MlpGradientArrays<S>&);
};

template <class S> const Kernels<S>& kernels(); // of the instruction set in use

} // namespace anchorfield
