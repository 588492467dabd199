// Marching of rays through a grid of occupied and empty voxels with cascades (Mueller et al. 2022, appendix E).
//
// Space is normalised: cascade k is the cube of side 2^k around (1/2, 1/2, 1/2), cut into resolution^3 voxels. A voxel has
// one bit, in Morton order: bits of its index are z y x z y x ..., those of x lowest.
#pragma once

#include "common/math.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace anchorfield {

// Steps are `smallest` near the origin, then proportional to the distance, and at last `largest`; joined with equal value
// and slope. Counted in steps from the origin (up to a constant), distances are a lattice: one step is always 1.
template <class S> struct Stepping {
    S smallest, largest;
    S per_unit;             // smallest steps along a length of 1
    S growth;               // log(1 + share of the distance that is a step); 0 where steps do not grow
    S from_t, from_count;   // where steps begin to grow
    S until_t, until_count; // and where they cease to

    AF_HD S count(S t) const {
        if (growth == 0) return t * per_unit;
        if (t < from_t) return (t - from_t) / smallest + from_count;
        if (t < until_t) return log(t) / growth;
        return (t - until_t) / largest + until_count;
    }
    AF_HD S distance(S count) const {
        if (growth == 0) return count * smallest;
        if (count < from_count) return (count - from_count) * smallest + from_t;
        if (count < until_count) return exp(count * growth);
        return (count - until_count) * largest + until_t;
    }
};

template <class S> struct MarchLayout {
    int resolution, cascades;
    Stepping<S> steps;
};

template <class S>
MarchLayout<S> march_layout(int resolution, int cascades, double smallest, double largest, double cone) {
    const double growth = std::log1p(cone), from = smallest / growth, until = largest / growth;
    Stepping<S> steps = {S(smallest), S(largest), S(1 / smallest), S(growth), 0, 0, 0, 0};
    if (cone != 0) {
        steps.from_t = S(from), steps.from_count = S(std::log(from) / growth);
        steps.until_t = S(until), steps.until_count = S(std::log(until) / growth);
    }
    return {resolution, cascades, steps};
}

// Moves bit i to bit 3 i, for 10 bits.
AF_HD uint32_t spread_bits(uint32_t a) {
    a = (a | a << 16) & 0x030000ffu;
    a = (a | a << 8) & 0x0300f00fu;
    a = (a | a << 4) & 0x030c30c3u;
    return (a | a << 2) & 0x09249249u;
}
AF_HD uint32_t morton(uint32_t x, uint32_t y, uint32_t z) {
    return spread_bits(x) | spread_bits(y) << 1 | spread_bits(z) << 2;
}

template <class S> struct Ray {
    S origin[3], direction[3], near, far, jitter;
};

// Finite, not behind its end, and along something like a unit vector: with others neither distances nor the number of
// steps make sense.
template <class S> AF_HD bool can_march(const Ray<S>& ray) {
    S sum = ray.near + ray.jitter, square = 0;
    for (int k = 0; k < 3; ++k) {
        sum = sum + ray.origin[k];
        square = square + ray.direction[k] * ray.direction[k];
    }
    return sum - sum == 0 && square > S(0.5) && square < S(2) && ray.near < ray.far;
}

// Cuts begin to end down to where the ray is inside the outermost cube; false where nothing is left. Where the ray is
// parallel to two faces, it is between them or not.
template <class S> AF_HD bool clip_to_cube(const Ray<S>& ray, S half, S& begin, S& end) {
    for (int k = 0; k < 3; ++k) {
        const S low = S(0.5) - half - ray.origin[k], high = S(0.5) + half - ray.origin[k], d = ray.direction[k];
        if (d == 0) {
            if (low > 0 || high < 0) return false;
        } else {
            begin = max(begin, min(low / d, high / d));
            end = min(end, max(low / d, high / d));
        }
    }
    return begin < end;
}

// A ray's way through the cube: the lattice's first point, counted in steps, and the distance where the ray ends.
template <class S> struct March {
    Ray<S> ray;
    S inverse[3]; // of the direction; 0 where the ray is parallel to faces, or as good as that
    S first, end;
};

// False for a ray that has no way to go. The first step begins a share `jitter` of a step behind the first point.
template <class S> AF_HD bool begin_march(const MarchLayout<S>& layout, const Ray<S>& ray, March<S>& march) {
    S begin = max(ray.near, S(0)), end = ray.far;
    if (!can_march(ray) || !clip_to_cube(ray, S(0.5) * S(uint32_t(1) << (layout.cascades - 1)), begin, end))
        return false;
    march = {ray, {}, layout.steps.count(begin) + ray.jitter, end};
    for (int k = 0; k < 3; ++k) {
        const S d = ray.direction[k];
        march.inverse[k] = max(d, S(0) - d) > S(1e-30) ? S(1) / d : S(0);
    }
    return true;
}

// The finest cascade that holds the point, and whose voxels are at least twice as wide as a step.
template <class S> AF_HD int cascade_of(const MarchLayout<S>& layout, const S* point, S step) {
    S reach = step * S(layout.resolution), half = S(0.5);
    for (int k = 0; k < 3; ++k) reach = max(reach, max(point[k] - S(0.5), S(0.5) - point[k]));
    int cascade = 0;
    for (; reach >= half && cascade < layout.cascades - 1; half = half + half) ++cascade;
    return cascade;
}

// Where a point lies: its cascade, and its voxel's number on each axis.
template <class S> struct Voxel {
    int cascade;
    uint32_t index[3];
};

// Voxels of a cascade along a length of 1.
template <class S> AF_HD S voxels_per_unit(const MarchLayout<S>& layout, int cascade) {
    return S(layout.resolution) / S(uint32_t(1) << cascade);
}

template <class S> AF_HD Voxel<S> voxel_of(const MarchLayout<S>& layout, const S* point, S step) {
    const int cascade = cascade_of(layout, point, step);
    const S scale = voxels_per_unit(layout, cascade), half = S(0.5) * S(layout.resolution);
    Voxel<S> voxel = {cascade, {}};
    for (int k = 0; k < 3; ++k) // rounding may place it outside
        voxel.index[k] = uint32_t(min(max(fma(point[k] - S(0.5), scale, half), S(0)), S(layout.resolution - 1)));
    return voxel;
}

// How many voxels wide the block around an empty voxel is that is known to be empty, 4 or 1; 0 for an occupied voxel. A
// block of 4x4x4 is 8 bytes in Morton order.
template <class S> AF_HD uint32_t empty_around(const MarchLayout<S>& layout, const uint8_t* bits, const Voxel<S>& at) {
    const uint32_t i = morton(at.index[0], at.index[1], at.index[2]);
    const int64_t of_cascade = int64_t(layout.resolution) * layout.resolution * layout.resolution / 8;
    const uint8_t* block = bits + at.cascade * of_cascade + (i >> 6 << 3);
    if (block[i >> 3 & 7] >> (i & 7) & 1) return 0;
    uint64_t whole;
    std::memcpy(&whole, block, sizeof(whole));
    return whole ? 1 : 4;
}

// The distance along the ray where it leaves the block of voxels, a power of two wide, that the voxel lies in.
template <class S>
AF_HD S leaves_at(const MarchLayout<S>& layout, const March<S>& march, const Voxel<S>& at, uint32_t width) {
    const S size = S(1) / voxels_per_unit(layout, at.cascade), half = S(0.5) * S(layout.resolution);
    S leaves = march.end;
    for (int k = 0; k < 3; ++k) {
        const uint32_t lower = at.index[k] & ~(width - 1), face = march.inverse[k] > 0 ? lower + width : lower;
        const S way = fma(S(face) - half, size, S(0.5)) - march.ray.origin[k];
        if (march.inverse[k] != 0) leaves = min(leaves, way * march.inverse[k]);
    }
    return leaves;
}

template <class S> struct Step {
    int64_t number; // on the lattice, whatever is left out before
    S t0, t1;
};

// By how much of a step a jump stays short of its aim, so that nothing carries it past a step that counts: to the middle
// is half a step, or up to growth / 8 more where steps grow, and the rest is for rounding.
template <class S> AF_HD S short_of_aim(const Stepping<S>& steps) { return S(0.5 + 1e-3) + steps.growth * S(0.125); }

// The distance up to which no step counts, from the middle of one in an empty voxel. Beyond the voxel only as far as
// points belong to its cascade: no finer one begins inside the block, and steps stay short.
template <class S>
AF_HD S empty_until(const MarchLayout<S>& layout, const March<S>& march, const Voxel<S>& at, uint32_t width) {
    if (width > 1 && (at.cascade == 0 || layout.resolution >= 16)) {
        const S leaves = leaves_at(layout, march, at, width);
        const S step = max(layout.steps.smallest, layout.steps.growth * S(1.5) * leaves);
        if (at.cascade == layout.cascades - 1 || step * voxels_per_unit(layout, at.cascade) < S(0.5)) return leaves;
    }
    return leaves_at(layout, march, at, 1);
}

// Finds the first step from number `from` on whose middle lies in an occupied voxel; false where there is none.
template <class S>
AF_HD bool next_step(const MarchLayout<S>& layout, const uint8_t* bits, const March<S>& march, int64_t from,
                     Step<S>& step) {
    const Stepping<S>& steps = layout.steps;
    for (int64_t k = from;;) {
        const S t0 = steps.distance(march.first + S(k)), t1 = steps.distance(march.first + S(k + 1));
        const S middle = S(0.5) * (t0 + t1);
        // so far away that a step is lost in rounding, or done
        if (!(t1 > t0) || !(middle < march.end)) return false;
        S point[3];
        for (int a = 0; a < 3; ++a) point[a] = fma(middle, march.ray.direction[a], march.ray.origin[a]);
        const Voxel<S> voxel = voxel_of(layout, point, t1 - t0);
        const uint32_t width = empty_around(layout, bits, voxel);
        if (width == 0) {
            step = {k, t0, t1};
            return true;
        }
        const S until = empty_until(layout, march, voxel, width);
        if (!(until < march.end)) return false;
        const S jump = ceil(steps.count(until) - (march.first + S(k)) - short_of_aim(steps));
        k += jump > S(1) ? int64_t(jump) : 1;
    }
}

// Samples of all rays: of ray r, starts[r] to starts[r + 1].
template <class S> struct MarchArrays {
    int64_t rays;
    int32_t most;
    const S *origins, *directions, *near, *far, *jitter; // [R,3] [R,3] [R] [R] [R]
    const uint8_t* bits;                                 // [cascades, resolution^3 / 8]

    AF_HD Ray<S> ray(int64_t r) const {
        const S *o = origins + 3 * r, *d = directions + 3 * r;
        return {{o[0], o[1], o[2]}, {d[0], d[1], d[2]}, near[r], far[r], jitter[r]};
    }
};
template <class S> struct SampleArrays {
    const int32_t* starts; // [R + 1]
    S *t0, *t1;            // [S]
    int32_t* ray;          // [S]

    AF_HD void write(int64_t at, int64_t r, const Step<S>& step) const {
        t0[at] = step.t0, t1[at] = step.t1, ray[at] = int32_t(r);
    }
};

} // namespace anchorfield
