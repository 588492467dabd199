// Many packs as one.
#pragma once

#include "cpu/functions.h"

namespace anchorfield::AF_ISA {

// W numbers in W / Pack<S>::width packs. Where a pack is narrow, its operations run side by side: that hides latency, and
// a constant is loaded once for all. Named halves instead of an array, because compilers keep arrays in memory.
template <class S, int W, bool Leaf = (W == Pack<S>::width)> struct Wide {
    Wide<S, W / 2> lo, hi;
    Wide() = default;
    AF_HD Wide(S s) : lo(s), hi(s) {}
    AF_HD Wide(Wide<S, W / 2> l, Wide<S, W / 2> h) : lo(l), hi(h) {}
    static AF_HD Wide load(const S* p) { return {Wide<S, W / 2>::load(p), Wide<S, W / 2>::load(p + W / 2)}; }
    AF_HD void store(S* p) const {
        lo.store(p);
        hi.store(p + W / 2);
    }
};
template <class S, int W> struct Wide<S, W, true> {
    Pack<S> v;
    Wide() = default;
    AF_HD Wide(S s) : v(s) {}
    AF_HD explicit Wide(Pack<S> p) : v(p) {}
    static AF_HD Wide load(const S* p) { return Wide(Pack<S>::load(p)); }
    AF_HD void store(S* p) const { v.store(p); }
};
template <class S, int W, bool Leaf = (W == Pack<S>::width)> struct WideMask {
    WideMask<S, W / 2> lo, hi;
};
template <class S, int W> struct WideMask<S, W, true> {
    Mask<S> v;
};

// Whether any lane is true.
template <class S, int W> AF_HD bool any(WideMask<S, W> m) {
    if constexpr (W == Pack<S>::width) return bits(m.v) != 0;
    else return any(m.lo) || any(m.hi);
}

#define AF_WIDE_1(name)                                                                                                \
    template <class S, int W> AF_HD Wide<S, W> name(Wide<S, W> a) {                                                    \
        if constexpr (W == Pack<S>::width) return Wide<S, W>(name(a.v));                                               \
        else return Wide<S, W>(name(a.lo), name(a.hi));                                                                \
    }
#define AF_WIDE_2(name, Result)                                                                                        \
    template <class S, int W> AF_HD Result<S, W> name(Wide<S, W> a, Wide<S, W> b) {                                    \
        if constexpr (W == Pack<S>::width) return Result<S, W>{name(a.v, b.v)};                                        \
        else return Result<S, W>{name(a.lo, b.lo), name(a.hi, b.hi)};                                                  \
    }
#define AF_WIDE_3(name)                                                                                                \
    template <class S, int W> AF_HD Wide<S, W> name(Wide<S, W> a, Wide<S, W> b, Wide<S, W> c) {                        \
        if constexpr (W == Pack<S>::width) return Wide<S, W>(name(a.v, b.v, c.v));                                     \
        else return Wide<S, W>(name(a.lo, b.lo, c.lo), name(a.hi, b.hi, c.hi));                                        \
    }
AF_WIDE_1(exp2)
AF_WIDE_1(abs)
AF_WIDE_2(operator+, Wide)
AF_WIDE_2(operator-, Wide)
AF_WIDE_2(operator*, Wide)
AF_WIDE_2(min, Wide)
AF_WIDE_2(operator<, WideMask)
AF_WIDE_2(operator<=, WideMask)
AF_WIDE_3(fma)
AF_WIDE_3(fnma)
#undef AF_WIDE_1
#undef AF_WIDE_2
#undef AF_WIDE_3
template <class S, int W> AF_HD WideMask<S, W> operator&(WideMask<S, W> a, WideMask<S, W> b) {
    if constexpr (W == Pack<S>::width) return {a.v & b.v};
    else return {a.lo & b.lo, a.hi & b.hi};
}
template <class S, int W> AF_HD Wide<S, W> keep(WideMask<S, W> m, Wide<S, W> a) {
    if constexpr (W == Pack<S>::width) return Wide<S, W>(keep(m.v, a.v));
    else return Wide<S, W>(keep(m.lo, a.lo), keep(m.hi, a.hi));
}
// total + a, and total + a b, folded to one pack.
template <class S, int W> AF_HD Pack<S> add_to(Pack<S> total, Wide<S, W> a) {
    if constexpr (W == Pack<S>::width) return total + a.v;
    else return add_to(add_to(total, a.lo), a.hi);
}
template <class S, int W> AF_HD Pack<S> add_to(Pack<S> total, Wide<S, W> a, Wide<S, W> b) {
    if constexpr (W == Pack<S>::width) return fma(a.v, b.v, total);
    else return add_to(add_to(total, a.lo, b.lo), a.hi, b.hi);
}

} // namespace anchorfield::AF_ISA
