// Where a projected Gaussian reaches: the ellipse a dx^2 + 2 b dx dy + c dy^2 <= level in which its alpha is at least
// 1/255, its box in tiles, and the exact test of a 4x4 block.
#pragma once

#include "common/compositing.h"
#include "common/math.h"

#include <cstdint>

namespace anchorfield {

template <class S> struct Ellipse {
    S x, y, a, b, c, level;
    uint16_t left, right, top, bottom; // blocks from left to before right, from top to before bottom

    // Tiles likewise.
    AF_HD int x0() const { return left / kSide; }
    AF_HD int x1() const { return (right + kSide - 1) / kSide; }
    AF_HD int y0() const { return top / kSide; }
    AF_HD int y1() const { return (bottom + kSide - 1) / kSide; }
    static constexpr int kSide = kTile / kBlock;
};

// What decides where an ellipse is looked for: its level, and the blocks of its box, whole numbers below these.
template <class T> struct Reach {
    T level, left, right, top, bottom;
};

template <class T> AF_HD T within(T v, T limit) { return min(max(v, T(0)), limit); }

// `across` and `down` are the blocks of the image's tiles.
template <class T> AF_HD Reach<T> reach_of(T x, T y, T opacity, T extent_x, T extent_y, T across, T down) {
    const T rx = extent_x + T(0.01), ry = extent_y + T(0.01), block(1.0 / kBlock);
    // A little larger than the exact level, so that rounding never loses a pixel.
    return {T(2) * log(T(255) * opacity) * T(1.0001) + T(1e-3), within((x - rx) * block, across),
            within((x + rx) * block + T(1), across), within((y - ry) * block, down),
            within((y + ry) * block + T(1), down)};
}

template <class S> AF_HD Ellipse<S> ellipse_of(const S* mean, const S* conic, const Reach<S>& reach) {
    return {mean[0],
            mean[1],
            conic[0],
            conic[1],
            conic[2],
            reach.level,
            uint16_t(reach.left),
            uint16_t(reach.right),
            uint16_t(reach.top),
            uint16_t(reach.bottom)};
}

template <class S>
AF_HD Ellipse<S> ellipse_of(const S* mean, const S* conic, S opacity, const S* extent, int columns, int rows) {
    constexpr int kSide = Ellipse<S>::kSide;
    return ellipse_of(mean, conic,
                      reach_of(mean[0], mean[1], opacity, extent[0], extent[1], S(columns * kSide), S(rows * kSide)));
}

// The quadratic form's least value over a block's pixel centres, the first of which lies at (x0, y0) from the mean. The
// form is convex, so its least value over a rectangle lies on the sides facing the centre. ba = -b / a, bc = -b / c.
template <class T> AF_HD T least_in_block(T x0, T y0, T a, T b, T c, T ba, T bc) {
    const T zero(0), side(kBlock - 1), two(2);
    const T x1 = x0 + side, y1 = y0 + side;
    const T ex = min(max(zero, x0), x1), ey = min(max(zero, y0), y1);       // the sides facing the centre
    const T sy = min(max(bc * ex, y0), y1), sx = min(max(ba * ey, x0), x1); // least on those sides
    const T on_x = fma(a * ex, ex, fma(two * b * ex, sy, c * sy * sy));
    const T on_y = fma(a * sx, sx, fma(two * b * sx, ey, c * ey * ey));
    return min(on_x, on_y);
}

// Bit 4 * row + column is set where the ellipse meets that block of the tile.
template <class S> AF_HD uint32_t blocks_met(const Ellipse<S>& e, int tile_x, int tile_y) {
    const S ba = -e.b / e.a, bc = -e.b / e.c;
    const S x0 = S(tile_x * kTile) + S(0.5) - e.x, y0 = S(tile_y * kTile) + S(0.5) - e.y;
    uint32_t met = 0;
    for (int block = 0; block < kBlocks; ++block) {
        const S x = x0 + S(block % 4 * kBlock), y = y0 + S(block / 4 * kBlock);
        met |= uint32_t(least_in_block(x, y, e.a, e.b, e.c, ba, bc) <= e.level) << block;
    }
    return met;
}

} // namespace anchorfield
