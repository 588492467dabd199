// The rules of compositing that every kernel and the binning share.
#pragma once

#include <cstdint>

namespace anchorfield {

constexpr int kTile = 16;                     // pixels along a tile's side
constexpr int kBlock = 4;                     // pixels along a block's side: 16 pixels are culled and computed together
constexpr int kBlocks = 16;                   // blocks in a tile
constexpr int kChunk = 32;                    // pairs of a tile between which the forward pass leaves a trail
constexpr double kAlphaMax = 0.99;            // no Gaussian hides what is behind it completely
constexpr double kAlphaMin = 1.0 / 255.0;     // less cannot be seen in 8 bits
constexpr double kTransmittanceMin = 1e-4;    // behind this nothing is added; (1 - kAlphaMax)^2
constexpr double kLog2E = 1.4426950408889634; // exp(x) = exp2(x log2 e)

// Numbers in the trail of `pairs` pairs: at most one for each pixel of a tile between two of its chunks.
inline int64_t trail_size(int64_t pairs) { return pairs / kChunk * kTile * kTile; }

} // namespace anchorfield
