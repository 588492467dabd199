#pragma once

#include "common/arrays.h"
#include "common/projection.h"

#include <cuda_runtime.h>

namespace anchorfield::cuda {

void project(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings,
             const ProjectedArrays<float>& out, cudaStream_t stream);
void project_backward(const GaussianArrays<float>& in, const ProjectionSettings<float>& settings,
                      const ProjectedArrays<float>& v, const float* extents, const ProjectionGradientArrays<float>& out,
                      cudaStream_t stream);
void spherical_harmonics(const ShArrays<float>& in, float* colours, cudaStream_t stream);

} // namespace anchorfield::cuda
