// Numbers that carry their derivative along one direction, so that a formula also yields its derivative.
#pragma once

#include "common/math.h"

namespace anchorfield {

template <class T> struct Dual {
    T value, slope;
    Dual() = default;
    AF_HD Dual(T constant) : value(constant), slope(T(0)) {}
    AF_HD Dual(T v, T s) : value(v), slope(s) {}
};

template <class T> AF_HD Dual<T> operator+(Dual<T> a, Dual<T> b) { return {a.value + b.value, a.slope + b.slope}; }
template <class T> AF_HD Dual<T> operator-(Dual<T> a, Dual<T> b) { return {a.value - b.value, a.slope - b.slope}; }
template <class T> AF_HD Dual<T> operator*(Dual<T> a, Dual<T> b) {
    return {a.value * b.value, fma(a.value, b.slope, a.slope * b.value)};
}
template <class T> AF_HD Dual<T> fma(Dual<T> a, Dual<T> b, Dual<T> c) {
    return {fma(a.value, b.value, c.value), fma(a.value, b.slope, fma(a.slope, b.value, c.slope))};
}

// What is asked for of a number: itself, or the derivative of a dual one.
template <class T> AF_HD T asked(T a) { return a; }
template <class T> AF_HD T asked(Dual<T> a) { return a.slope; }

} // namespace anchorfield
