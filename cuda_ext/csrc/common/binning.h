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

// The whole number below v, kept in 0 .. limit.
template <class S> AF_HD uint16_t place_of(S v, int limit) {
    return uint16_t(v <= S(0) ? 0 : v >= S(limit) ? limit : int(v));
}

template <class S>
AF_HD Ellipse<S> ellipse_of(const S* mean, const S* conic, S opacity, const S* extent, int columns, int rows) {
    Ellipse<S> e;
    e.x = mean[0], e.y = mean[1];
    e.a = conic[0], e.b = conic[1], e.c = conic[2];
    // A little larger than the exact level, so that rounding never loses a pixel.
    e.level = S(2) * log(S(255) * opacity) * S(1.0001) + S(1e-3);
    const S rx = extent[0] + S(0.01), ry = extent[1] + S(0.01);
    const int across = columns * kTile / kBlock, down = rows * kTile / kBlock;
    e.left = place_of((e.x - rx) / S(kBlock), across);
    e.right = place_of((e.x + rx) / S(kBlock) + S(1), across);
    e.top = place_of((e.y - ry) / S(kBlock), down);
    e.bottom = place_of((e.y + ry) / S(kBlock) + S(1), down);
    return e;
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
