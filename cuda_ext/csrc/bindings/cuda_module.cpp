// The kernels for CUDA devices, or for the stand-in of the tests.
#include "bindings/cuda.h"

void bind_cuda(nb::module_& m) {
    anchorfield::cuda::bind_splats(m);
    anchorfield::cuda::bind_training(m);
    anchorfield::cuda::bind_fields(m);
}
