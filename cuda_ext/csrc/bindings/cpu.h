// The Python face of the kernels: dense DLPack arrays in, results written into arrays that the caller made. Shapes are
// checked on the Python side, where a message can name the argument; here types, density and the processor are checked.
#pragma once

#include "bindings/common.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace anchorfield {

template <class S> using In = nb::ndarray<const S, nb::c_contig, nb::device::cpu>;
template <class S> using Out = nb::ndarray<S, nb::c_contig, nb::device::cpu>;
template <class S> using MaybeOut = std::optional<Out<S>>;
using Rows = nb::ndarray<const bool, nb::c_contig, nb::device::cpu>;

void bind_splats(nb::module_& m);
void bind_training(nb::module_& m);
void bind_fields(nb::module_& m);

template <class S> MarchLayout<S> march_layout_of(std::pair<int, int> shape, const std::array<double, 3>& steps) {
    return march_layout<S>(shape.first, shape.second, steps[0], steps[1], steps[2]);
}

} // namespace anchorfield
