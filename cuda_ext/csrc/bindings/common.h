// What both faces of the kernels share, that of the processor and that of CUDA devices.
#pragma once

#include "common/arrays.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

namespace nb = nanobind;

namespace anchorfield {

using Release = nb::call_guard<nb::gil_scoped_release>;
using Numbers = std::vector<double>;
using Counts = std::vector<int64_t>;

// An array's numbers, where there is one.
template <class Array> auto or_null(const std::optional<Array>& array) { return array ? array->data() : nullptr; }

// The weights of three heads, in the order of cuda_ext/anchors.py; what is empty is not there.
template <class S, class Arrays> HeadArrays<S> heads_of(Arrays& arrays, size_t first = 0) {
    auto data = [&](size_t i) { return arrays.at(first + i).size() ? arrays[first + i].data() : nullptr; };
    return {data(0), data(1), data(2), data(3), {data(4), data(6), data(8)}, {data(5), data(7), data(9)}};
}

} // namespace anchorfield
