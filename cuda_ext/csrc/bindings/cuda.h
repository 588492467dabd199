// The Python face of the CUDA kernels: dense DLPack arrays on a device and a stream's handle in, results written into
// arrays that the caller made. Nothing is allocated and nothing waits. Shapes are checked on the Python side.
#pragma once

#include "bindings/common.h"
#include "cuda/kernels.h"

namespace anchorfield::cuda {

#ifdef CUDA_ON_CPU // the tests' stand-in for a device
using Device = nb::device::cpu;
#else
using Device = nb::device::cuda;
#endif

template <class T> using Read = nb::ndarray<const T, nb::c_contig, Device>;
template <class T> using Write = nb::ndarray<T, nb::c_contig, Device>;
using In = Read<float>;
using Out = Write<float>;
using MaybeOut = std::optional<Out>;

inline cudaStream_t stream_of(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

void bind_splats(nb::module_& m);
void bind_training(nb::module_& m);
void bind_fields(nb::module_& m);

} // namespace anchorfield::cuda
