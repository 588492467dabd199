// What the CUDA side offers: the operations of the CPU side on device arrays. Every function queues its work on a
// stream and returns; none allocates, waits, or copies to the host. All arrays are dense, row-major and on one device.
#pragma once

#include "common/adam.h"
#include "common/arrays.h"
#include "common/hash_grid.h"
#include "common/marching.h"
#include "common/mlp.h"
#include "common/neighbours.h"
#include "common/projection.h"
#include "common/rays.h"

#include <cuda_runtime.h>

#include <cstddef>

namespace anchorfield::cuda {

// The pose lies on the device, so the settings' rotation and translation are filled in there.
void project(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings, const float* world_to_camera,
             const ProjectedArrays<float>& out, cudaStream_t stream);

constexpr int kPoseSums = 12;    // numbers a block of Gaussians leaves for the pose's gradient
constexpr int kCentreSums = 3;   // and for the centre's
int64_t sum_rows(int64_t count); // blocks that leave them

// `partial` [sum_rows, 12] is scratch, needed where out.world_to_camera is given.
void project_backward(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings,
                      const float* world_to_camera, const ProjectedArrays<float>& v, const float* extents,
                      const ProjectionGradientArrays<float>& out, float* partial, cudaStream_t stream);

void spherical_harmonics(const ShArrays<float>& in, float* colours, cudaStream_t stream);
// `partial` [sum_rows, 3] is scratch.
void spherical_harmonics_backward(const ShArrays<float>& in, const float* colours, const float* v_colours, float* v_sh,
                                  float* v_means, float* v_centre, float* partial, cudaStream_t stream);

// Decoding has two parts, between which the caller fetches how many Gaussians are kept and makes room for them.
int64_t anchor_scratch(const AnchorArrays<float>& in, bool backward); // numbers that a part needs
size_t anchor_scan_bytes(int64_t count);                              // for V k ranks

struct KeptRanks {
    int32_t* ranks;  // [V, k] kept Gaussians up to and with this one
    int64_t* totals; // [2] kept Gaussians, and zero
    void* scan;      // [scan_bytes] scratch
    size_t scan_bytes;
};
// `logits` [V, 11k] are those of opacities, covariances and colours.
void decode_logits(const AnchorArrays<float>& in, const KeptRanks& out, float* logits, float* scratch,
                   cudaStream_t stream);

struct Decoded {
    float *means, *quats, *scales, *opacities, *colours; // [M,3] [M,4] [M,3] [M] [M,3]
    int32_t* origin;                                     // [M] anchor k + offset
};
void write_gaussians(const AnchorArrays<float>& in, const float* logits, const int32_t* ranks, const Decoded& out,
                     cudaStream_t stream);
// The anchors' gradients are zero before.
void decode_anchors_backward(const AnchorArrays<float>& in, const DecodedGradientArrays<float>& v, float* scratch,
                             cudaStream_t stream);

// Binning has two parts, between which the caller can fetch `totals` while the device goes on. Arrays are as long as
// the caller guesses that they must be, `room_visible` and `room_pairs`; what does not fit is left out, and `totals`
// tells.
struct BinSizes {
    int64_t count, room_visible, room_pairs;
    int width, height;
};

size_t binning_scratch(const BinSizes& sizes); // bytes that either part needs

// The visible Gaussians by depth, and how many pairs each of them has.
struct DepthOrder {
    int32_t* order;   // [room_visible]
    int32_t* offsets; // [room_visible + 1] into the pairs, Gaussian by Gaussian
    uint64_t* totals; // [2] visible Gaussians and pairs, of all
};
void order_by_depth(const ProjectedArrays<float>& in, const BinSizes& sizes, const DepthOrder& out, void* scratch,
                    cudaStream_t stream);

// (tile, Gaussian) pairs by tile and by depth inside a tile.
struct PairLists {
    int32_t* gaussians;    // [room_pairs] index of the Gaussian
    uint16_t* blocks;      // [room_pairs] bit 4 * row + column: the Gaussian may reach that 4x4 block of the tile
    int32_t* slots;        // [room_pairs] the pair's number when counted Gaussian by Gaussian
    int32_t* tile_offsets; // [tiles + 1] into the pairs
};
void list_pairs(const ProjectedArrays<float>& in, const BinSizes& sizes, const DepthOrder& order, const PairLists& out,
                void* scratch, cudaStream_t stream);

struct Bins {
    const int32_t* gaussians;
    const uint16_t* blocks;
    const int32_t *slots, *tile_offsets, *order, *order_offsets;
    int64_t pairs, visible;
};

struct CompositeInputs {
    int64_t count;
    int width, height, channels;
    const float *means2d, *conics, *opacities, *features; // [N,2] [N,3] [N] [N,C]
    const float* background;                              // [C]
    Bins bins;
};

// What forward leaves for backward: `trail` [trail_size] numbers, or null.
int64_t trail_size(int64_t pairs, int width, int height, int channels);
void composite(const CompositeInputs& in, float* image, float* transmittance, float* trail, cudaStream_t stream);

struct CompositeGradients {
    const float *v_image, *v_transmittance;         // gradients to forward's results [H,W,C] [H,W]
    float *means2d, *conics, *opacities, *features; // out, zero before
    float* absolute;                                // [N,2] sum over pixels of |gradient to means2d|, or null
};
int record_size(int channels, bool absolute); // numbers of scratch for each pair
void composite_backward(const CompositeInputs& in, const float* trail, const CompositeGradients& out, float* records,
                        cudaStream_t stream);

// Each Gaussian's blend weight summed over the pixels; `weights` [N] is zero before, `records` [pairs] and `trail`
// [trail_size for no channels] are scratch, `transmittance` [H,W] falls off.
void contributions(const CompositeInputs& in, float* transmittance, float* trail, float* records, float* weights,
                   cudaStream_t stream);

struct Images {
    const float *image, *target; // [H,W,C]
    int width, height, channels;
};
int64_t photometric_rows(int width, int height);
// means: mean SSIM and mean |image - target|. `maps` [3,H,W,C] is left for backward; `partial` [photometric_rows, 2] is
// scratch.
void photometric(const Images& in, float* means, float* maps, float* partial, cudaStream_t stream);
// `v_means` [2] are the gradients to the two means.
void photometric_backward(const Images& in, const float* maps, const float* v_means, float* v_image,
                          cudaStream_t stream);

struct AdamArrays {
    float *parameter, *moment1, *moment2; // [count, columns] changed
    const float *gradient, *rates;        // [count, columns] [columns]
    const bool* rows;                     // [count] the rows to change, or null for all
    int64_t count, columns;
    int16_t* counts = nullptr; // [count, columns] steps that each number has taken, where they differ; changed
};
void adam(const AdamArrays& arrays, const AdamSettings<float>& settings, cudaStream_t stream);
// Steps of numbers whose gradient is not zero; of the settings, scales are not used.
void adam_touched(const AdamArrays& arrays, const AdamScales<float>& scales, const AdamSettings<float>& settings,
                  cudaStream_t stream);

void perturb_means(float* means, const float* quats, const float* log_scales, const float* logit_opacities,
                   int64_t count, float strength, uint64_t seed, cudaStream_t stream);

// What the card reaches, for benchmarks: copies `count` numbers; runs 32 * rounds multiply-adds in each of `threads`.
void copy_numbers(const float* from, float* to, int64_t count, cudaStream_t stream);
void multiply_add(float* sink, int64_t threads, int rounds, cudaStream_t stream);

// With `along` [N,D], the derivative of each result as the positions move that way; null for the result itself.
void hash_grid(const HashGrid<float>& grid, const float* positions, const float* along, const float* table,
               int64_t count, float* out, cudaStream_t stream);
// Additions are atomic, but of whole numbers, so that the result does not depend on their order: v_table is exact to
// count 2^-62 times `largest` [1], the most that a sample adds to a number. `sums` [numbers] is scratch.
void hash_grid_table_backward(const HashGrid<float>& grid, const float* positions, const float* along,
                              const float* v_out, int64_t count, const float* largest, int64_t numbers, int64_t* sums,
                              float* v_table, cudaStream_t stream);
void hash_grid_positions_backward(const HashGrid<float>& grid, const float* positions, const float* along,
                                  const float* table, const float* v_out, int64_t count, float* v_positions,
                                  cudaStream_t stream);
// As the gradient to the table, with `largest` [2] of a number of the table and of a probability, and scratch for both.
void probed_hash_grid_backward(const HashGrid<float>& grid, const float* positions, const float* table,
                               const float* probabilities, const float* v_out, int64_t count, const float* largest,
                               int64_t numbers, int64_t* sums, float* v_table, int64_t choices, int64_t* choice_sums,
                               float* v_probabilities, cudaStream_t stream);

// `edges` [N,D] is left for backward; `messages` and `v_messages` [N,D] are scratch.
void aggregate_neighbours(const GraphArrays<float>& in, const float* features, float* out, int32_t* edges,
                          float* messages, cudaStream_t stream);
void aggregate_neighbours_backward(const GraphArrays<float>& in, const int32_t* edges, const float* v_out,
                                   float* v_features, float* v_messages, cudaStream_t stream);

void march_count(const MarchLayout<float>& layout, const MarchArrays<float>& in, int32_t* counts, cudaStream_t stream);
void march_write(const MarchLayout<float>& layout, const MarchArrays<float>& in, const SampleArrays<float>& out,
                 cudaStream_t stream);
void composite_rays(const RayArrays<float>& in, const float* optical, const RaySums<float>& out, cudaStream_t stream);
void composite_rays_backward(const RayArrays<float>& in, const RayGradients<float>& out, cudaStream_t stream);
void distortion(const DistortionArrays<float>& in, float* out, cudaStream_t stream);
void distortion_backward(const DistortionArrays<float>& in, const float* v_out, float* v_weights, cudaStream_t stream);
void harmonics_basis(int degree, const float* directions, int64_t count, float* values, cudaStream_t stream);
void harmonics_basis_backward(int degree, const float* directions, const float* v_values, int64_t count,
                              float* v_directions, cudaStream_t stream);

// `scratch` [mlp_scratch] holds what lies between the layers.
int64_t mlp_scratch(const MlpShape& shape, int64_t count, bool backward);
void mlp(const MlpShape& shape, const float* inputs, const float* weights, int64_t count, float* outputs,
         float* scratch, cudaStream_t stream);
void mlp_backward(const MlpShape& shape, const float* weights, const MlpGradientArrays<float>& gradients,
                  float* scratch, cudaStream_t stream);

} // namespace anchorfield::cuda
