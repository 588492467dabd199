// Compiled once per instruction set, each time into the namespace AF_ISA.
#include "cpu/kernels.h"

#include "common/anchors.h"
#include "common/binning.h"
#include "common/compositing.h"
#include "common/langevin.h"
#include "common/random.h"
#include "common/spherical_harmonics.h"
#include "common/window.h"
#include "cpu/parallel.h"
#include "cpu/functions.h"
#include "cpu/matrix.h"
#include "cpu/integers.h"
#include "cpu/rows.h"
#include "cpu/simd.h"
#include "cpu/wide.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>

#include "cpu/projection.inc"
#include "cpu/activations.inc"
#include "cpu/spherical_harmonics.inc"
#include "cpu/anchors.inc"
#include "cpu/anchors_backward.inc"
#include "cpu/binning.inc"
#include "cpu/compositing.inc"
#include "cpu/ssim.inc"
#include "cpu/adam.inc"
#include "cpu/langevin.inc"
#include "cpu/pixels.inc"
#include "cpu/ceiling.inc"
#include "cpu/hash_grid.inc"
#include "cpu/neighbours.inc"
#include "cpu/marching.inc"
#include "cpu/rays.inc"
#include "cpu/mlp.inc"

namespace anchorfield::AF_ISA {

template <class S> constexpr Kernels<S> table() {
    return {&project_all<S>,
            &project_all_backward<S>,
            &spherical_harmonics<S>,
            &spherical_harmonics_backward<S>,
            &decode_anchors<S>,
            &decode_anchors_backward<S>,
            &bin_tiles<S>,
            &composite<S>,
            &composite_backward<S>,
            &contributions<S>,
            &photometric<S>,
            &photometric_backward<S>,
            &adam<S>,
            &perturb_means<S>,
            &mean_activations<S>,
            &mean_activations_backward<S>,
            &colours_of_pixels<S>,
            &fma_rate<S>,
            &hash_grid<S>,
            &hash_grid_table_backward<S>,
            &hash_grid_positions_backward<S>,
            &probed_hash_grid_backward<S>,
            &aggregate_neighbours<S>,
            &aggregate_neighbours_backward<S>,
            &march_count<S>,
            &march_write<S>,
            &composite_rays<S>,
            &composite_rays_backward<S>,
            &distortion<S>,
            &distortion_backward<S>,
            &adam_touched<S>,
            &harmonics_basis<S>,
            &harmonics_basis_backward<S>,
            &mlp<S>,
            &mlp_backward<S>};
}

extern const Kernels<float> float_kernels;
constexpr Kernels<float> float_kernels = table<float>();
#ifdef AF_BASELINE
extern const Kernels<double> double_kernels;
constexpr Kernels<double> double_kernels = table<double>();
#endif

} // namespace anchorfield::AF_ISA
