// Real spherical harmonics to degree 3 in the basis of 3D Gaussian Splatting (l = 0..3, m = -l..l) and colours from them.
#pragma once

#include "common/projection.h"

namespace anchorfield {

constexpr int kMaxBasis = 16;

// Y[k] for the unit direction d; (degree + 1)^2 values are written.
template <class T> AF_HD void sh_basis(int degree, Vec3<T> d, T* Y) {
    T x = d.x, y = d.y, z = d.z;
    Y[0] = T(0.28209479177387814);
    if (degree < 1) return;
    Y[1] = T(-0.4886025119029199) * y;
    Y[2] = T(0.4886025119029199) * z;
    Y[3] = T(-0.4886025119029199) * x;
    if (degree < 2) return;
    T xx = x * x, yy = y * y, zz = z * z;
    Y[4] = T(1.0925484305920792) * x * y;
    Y[5] = T(-1.0925484305920792) * y * z;
    Y[6] = T(0.31539156525252005) * (T(2) * zz - xx - yy);
    Y[7] = T(-1.0925484305920792) * x * z;
    Y[8] = T(0.5462742152960396) * (xx - yy);
    if (degree < 3) return;
    Y[9] = T(-0.5900435899266435) * y * (T(3) * xx - yy);
    Y[10] = T(2.890611442640554) * x * y * z;
    Y[11] = T(-0.4570457994644658) * y * (T(4) * zz - xx - yy);
    Y[12] = T(0.3731763325901154) * z * (T(2) * zz - T(3) * xx - T(3) * yy);
    Y[13] = T(-0.4570457994644658) * x * (T(4) * zz - xx - yy);
    Y[14] = T(1.445305721320277) * z * (xx - yy);
    Y[15] = T(-0.5900435899266435) * x * (xx - T(3) * yy);
}

// Gradient to d, taken as a free vector, from v, the gradient to Y.
template <class T> AF_HD Vec3<T> sh_basis_backward(int degree, Vec3<T> d, const T* v) {
    T x = d.x, y = d.y, z = d.z;
    Vec3<T> g = {T(0), T(0), T(0)};
    if (degree < 1) return g;
    g = {T(-0.4886025119029199) * v[3], T(-0.4886025119029199) * v[1], T(0.4886025119029199) * v[2]};
    if (degree < 2) return g;
    T c1 = T(1.0925484305920792), c2 = T(0.31539156525252005), c3 = T(1.0925484305920792);
    g.x += c1 * (y * v[4] - z * v[7]) - T(2) * c2 * x * v[6] + c3 * x * v[8];
    g.y += c1 * (x * v[4] - z * v[5]) - T(2) * c2 * y * v[6] - c3 * y * v[8];
    g.z += c1 * (T(0) - y * v[5] - x * v[7]) + T(4) * c2 * z * v[6];
    if (degree < 3) return g;
    T xx = x * x, yy = y * y, zz = z * z;
    T a = T(0.5900435899266435), b = T(2.890611442640554), c = T(0.4570457994644658), e = T(0.3731763325901154),
      f = T(1.445305721320277);
    g.x += T(-6) * a * x * y * v[9] + b * y * z * v[10] + T(2) * c * x * y * v[11] - T(6) * e * x * z * v[12] -
           c * (T(4) * zz - T(3) * xx - yy) * v[13] + T(2) * f * x * z * v[14] - T(3) * a * (xx - yy) * v[15];
    g.y += T(-3) * a * (xx - yy) * v[9] + b * x * z * v[10] - c * (T(4) * zz - xx - T(3) * yy) * v[11] -
           T(6) * e * y * z * v[12] + T(2) * c * x * y * v[13] - T(2) * f * y * z * v[14] + T(6) * a * x * y * v[15];
    g.z += b * x * y * v[10] - T(8) * c * y * z * v[11] + e * (T(6) * zz - T(3) * xx - T(3) * yy) * v[12] -
           T(8) * c * x * z * v[13] + f * (xx - yy) * v[14];
    return g;
}

template <class T> struct SightLine {
    Vec3<T> unit;
    T inverse_length;
};

// From the camera's centre to a mean.
template <class T> AF_HD SightLine<T> sight_line(Vec3<T> centre, Vec3<T> mean) {
    const Vec3<T> d = {mean.x - centre.x, mean.y - centre.y, mean.z - centre.z};
    const T inverse = T(1) / sqrt(max(dot(d, d), T(1e-30)));
    return {{d.x * inverse, d.y * inverse, d.z * inverse}, inverse};
}

// Gradient to the mean from v, the gradient to the line's unit vector taken as a free vector.
template <class T> AF_HD Vec3<T> sight_line_backward(const SightLine<T>& line, Vec3<T> v) {
    const T along = dot(v, line.unit);
    return {(v.x - along * line.unit.x) * line.inverse_length, (v.y - along * line.unit.y) * line.inverse_length,
            (v.z - along * line.unit.z) * line.inverse_length};
}

} // namespace anchorfield
