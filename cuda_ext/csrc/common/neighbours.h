// Messages between the points of a nearest-neighbour graph (Ververas et al. 2024).
#pragma once

#include "common/math.h"

#include <cstdint>

namespace anchorfield {

// Edge centre * width + column leads from a point to the neighbour in that column. The edges that lead to point j, in
// order, are arrivals[starts[j]] to arrivals[starts[j + 1] - 1].
template <class S> struct GraphArrays {
    int64_t count;
    int width, channels;
    const int32_t* neighbours; // [N, K]
    const S* weights;          // [N, K]
    const int32_t* starts;     // [N + 1]
    const int32_t* arrivals;   // [N * K]
};

// Share of a neighbour's weighted message in a point's feature: half of the mean over the edges.
template <class S> AF_HD S message_share(int width) { return S(0.5) / S(width); }

} // namespace anchorfield
