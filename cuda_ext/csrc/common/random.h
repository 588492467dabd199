// Random numbers by counting (Salmon et al. 2011): what a counter gives depends on nothing before it, so that every
// Gaussian has its own numbers, on any number of threads.
#pragma once

#include "common/math.h"

#include <cstdint>

namespace anchorfield {

struct RandomWords {
    uint32_t a, b, c, d;
};

// Philox4x32-10.
AF_HD RandomWords philox(RandomWords counter, uint32_t key0, uint32_t key1) {
    RandomWords w = counter;
    for (int round = 0; round < 10; ++round) {
        const uint64_t p = uint64_t(0xD2511F53u) * w.a, q = uint64_t(0xCD9E8D57u) * w.c;
        w = {uint32_t(q >> 32) ^ w.b ^ key0, uint32_t(q), uint32_t(p >> 32) ^ w.d ^ key1, uint32_t(p)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return w;
}

// The words of one Gaussian, or whatever `index` counts.
AF_HD RandomWords random_words(uint64_t index, uint64_t seed) {
    return philox({uint32_t(index), uint32_t(index >> 32), 0, 0}, uint32_t(seed), uint32_t(seed >> 32));
}

// The word's upper 24 bits in [0, 1): exact in every precision.
template <class S> AF_HD S uniform(uint32_t word) { return S(int32_t(word >> 8)) * S(1.0 / (1 << 24)); }

template <class T> struct NormalPair {
    T first, second;
};

// Two independent standard normal numbers from two in [0, 1) (Box and Muller 1958). The angle is taken as twice one
// between -90 and 90 degrees.
template <class T> AF_HD NormalPair<T> normal_pair(T u, T turns) {
    const T radius = sqrt(T(-2) * log(T(1) - u)), half = turns - T(0.5);
    const T s = sin_pi(half), c = cos_pi(half);
    return {radius * (T(1) - T(2) * s * s), radius * (T(2) * s * c)};
}

} // namespace anchorfield
