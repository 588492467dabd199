// Projection of a 3D Gaussian to the image plane (EWA splatting) and its derivatives.
//
// T is a scalar or a SIMD pack. Camera axes: x right, y down, z forward; a view maps p = R mu + t, the covariance is
// Sigma = M M^T with M = R_q diag(s), and the image covariance C = B B^T with B = J R M, J the Jacobian of the pinhole
// projection at the mean. Zwicker et al. 2001; Kerbl et al. 2023; opacity compensation after Yu et al. 2024 (Mip-Splatting).
#pragma once

#include "common/math.h"

namespace anchorfield {

template <class T> struct Vec3 {
    T x, y, z;
};

template <class T> struct Mat3 {
    T m00, m01, m02, m10, m11, m12, m20, m21, m22;
};

template <class T> AF_HD T dot(Vec3<T> a, Vec3<T> b) { return fma(a.x, b.x, fma(a.y, b.y, a.z * b.z)); }
template <class T> AF_HD Vec3<T> row0(const Mat3<T>& m) { return {m.m00, m.m01, m.m02}; }
template <class T> AF_HD Vec3<T> row1(const Mat3<T>& m) { return {m.m10, m.m11, m.m12}; }
template <class T> AF_HD Vec3<T> row2(const Mat3<T>& m) { return {m.m20, m.m21, m.m22}; }
template <class T> AF_HD Vec3<T> column0(const Mat3<T>& m) { return {m.m00, m.m10, m.m20}; }
template <class T> AF_HD Vec3<T> column1(const Mat3<T>& m) { return {m.m01, m.m11, m.m21}; }
template <class T> AF_HD Vec3<T> column2(const Mat3<T>& m) { return {m.m02, m.m12, m.m22}; }
template <class T> AF_HD Mat3<T> rows(Vec3<T> a, Vec3<T> b, Vec3<T> c) {
    return {a.x, a.y, a.z, b.x, b.y, b.z, c.x, c.y, c.z};
}
template <class T> AF_HD Vec3<T> mix(T a, Vec3<T> u, T b, Vec3<T> v) {
    return {fma(a, u.x, b * v.x), fma(a, u.y, b * v.y), fma(a, u.z, b * v.z)};
}
// m^T v as a combination of m's rows, and v^T n as one of n's.
template <class T> AF_HD Vec3<T> combine(Vec3<T> v, const Mat3<T>& m) {
    return {fma(v.x, m.m00, fma(v.y, m.m10, v.z * m.m20)), fma(v.x, m.m01, fma(v.y, m.m11, v.z * m.m21)),
            fma(v.x, m.m02, fma(v.y, m.m12, v.z * m.m22))};
}
template <class T> AF_HD Vec3<T> multiply(const Mat3<T>& m, Vec3<T> v) {
    return {dot(row0(m), v), dot(row1(m), v), dot(row2(m), v)};
}
template <class T> AF_HD Mat3<T> multiply(const Mat3<T>& a, const Mat3<T>& b) {
    return rows(combine(row0(a), b), combine(row1(a), b), combine(row2(a), b));
}
template <class T> AF_HD Mat3<T> transpose(const Mat3<T>& m) { return rows(column0(m), column1(m), column2(m)); }

template <class T> struct Quat {
    T w, x, y, z;
};

template <class T> AF_HD Mat3<T> rotation(Quat<T> q) {
    T one(1), two(2);
    return {
        one - two * (q.y * q.y + q.z * q.z), two * (q.x * q.y - q.w * q.z),       two * (q.x * q.z + q.w * q.y),
        two * (q.x * q.y + q.w * q.z),       one - two * (q.x * q.x + q.z * q.z), two * (q.y * q.z - q.w * q.x),
        two * (q.x * q.z - q.w * q.y),       two * (q.y * q.z + q.w * q.x),       one - two * (q.x * q.x + q.y * q.y)};
}

// Gradient to a unit quaternion's components from the gradient E to its rotation matrix.
template <class T> AF_HD Quat<T> rotation_backward(Quat<T> q, const Mat3<T>& E) {
    T two(2);
    T e01 = E.m10 + E.m01, e02 = E.m20 + E.m02, e12 = E.m21 + E.m12;
    T a01 = E.m10 - E.m01, a02 = E.m02 - E.m20, a12 = E.m21 - E.m12;
    return {two * (q.x * a12 + q.y * a02 + q.z * a01),
            two * (q.y * e01 + q.z * e02 + q.w * a12 - two * q.x * (E.m11 + E.m22)),
            two * (q.x * e01 + q.z * e12 + q.w * a02 - two * q.y * (E.m00 + E.m22)),
            two * (q.x * e02 + q.y * e12 + q.w * a01 - two * q.z * (E.m00 + E.m11))};
}

template <class S> struct ProjectionSettings {
    S rotation[9], translation[3];
    S fx, fy, cx, cy, width, height, near, far, dilation;
    bool antialiased;
};

// The camera spread over the lanes of T.
template <class T, class S> struct View {
    Mat3<T> R;
    Vec3<T> t;
    T fx, fy, cx, cy, width, height, near, far, dilation;
    T x_low, x_high, y_low, y_high; // J is evaluated no further out than this: beyond, its linearisation explodes
    bool antialiased;

    AF_HD explicit View(const ProjectionSettings<S>& s)
        : R{T(s.rotation[0]), T(s.rotation[1]), T(s.rotation[2]), T(s.rotation[3]), T(s.rotation[4]),
            T(s.rotation[5]), T(s.rotation[6]), T(s.rotation[7]), T(s.rotation[8])},
          t{T(s.translation[0]), T(s.translation[1]), T(s.translation[2])}, fx(s.fx), fy(s.fy), cx(s.cx), cy(s.cy),
          width(s.width), height(s.height), near(s.near), far(s.far), dilation(s.dilation),
          x_low(-(s.cx / s.fx + S(0.15) * s.width / s.fx)), x_high((s.width - s.cx) / s.fx + S(0.15) * s.width / s.fx),
          y_low(-(s.cy / s.fy + S(0.15) * s.height / s.fy)),
          y_high((s.height - s.cy) / s.fy + S(0.15) * s.height / s.fy), antialiased(s.antialiased) {}
};

// R mean + t. Near the camera's plane it cancels, and every gradient is divided by its z.
template <class T, class S> AF_HD Vec3<T> in_camera(const View<T, S>& view, Vec3<T> mean) {
    auto along = [&](Vec3<T> axis, T start) {
        return fused(axis.x, mean.x, fused(axis.y, mean.y, fused(axis.z, mean.z, start)));
    };
    return {along(row0(view.R), view.t.x), along(row1(view.R), view.t.y), along(row2(view.R), view.t.z)};
}

// Everything between a Gaussian and its image that forward and backward share.
template <class T> struct Footprint {
    Quat<T> q;           // unit
    T q_inverse;         // 1 / |raw quaternion|
    Mat3<T> Rq, A;       // A = R R_q diag(s)
    Vec3<T> p;           // mean in the camera
    T z_inverse, tx, ty; // tx, ty: clamped x/z, y/z
    T j00, j02, j11, j12;
    Vec3<T> B0, B1;
    T c00, c01, c11;           // dilated
    T det, det_inverse, ratio; // ratio = det C / det C' before the floor
};

constexpr double kCompensationFloor = 2.5e-5; // (0.005)^2: the least squared compensation, keeps its root smooth
constexpr double kSmallestQuat = 1e-8;        // squared norm below which a quaternion has no direction
constexpr double kSmallestAlpha = 1.0 / 255.0;

template <class T, class S>
AF_HD Footprint<T> footprint(const View<T, S>& view, Vec3<T> mean, Quat<T> raw, Vec3<T> scale) {
    Footprint<T> f;
    T norm2 = max(fma(raw.w, raw.w, fma(raw.x, raw.x, fma(raw.y, raw.y, raw.z * raw.z))), T(S(1e-30)));
    f.q_inverse = T(S(1)) / sqrt(norm2);
    f.q = {raw.w * f.q_inverse, raw.x * f.q_inverse, raw.y * f.q_inverse, raw.z * f.q_inverse};
    f.Rq = rotation(f.q);
    Mat3<T> M = {f.Rq.m00 * scale.x, f.Rq.m01 * scale.y, f.Rq.m02 * scale.z, f.Rq.m10 * scale.x, f.Rq.m11 * scale.y,
                 f.Rq.m12 * scale.z, f.Rq.m20 * scale.x, f.Rq.m21 * scale.y, f.Rq.m22 * scale.z};
    f.A = multiply(view.R, M);
    f.p = in_camera(view, mean);
    f.z_inverse = T(S(1)) / select(f.p.z < view.near, T(S(1)), f.p.z); // behind the camera nothing is used
    f.tx = min(max(f.p.x * f.z_inverse, view.x_low), view.x_high);
    f.ty = min(max(f.p.y * f.z_inverse, view.y_low), view.y_high);
    f.j00 = view.fx * f.z_inverse;
    f.j11 = view.fy * f.z_inverse;
    f.j02 = T(S(0)) - f.j00 * f.tx;
    f.j12 = T(S(0)) - f.j11 * f.ty;
    f.B0 = mix(f.j00, row0(f.A), f.j02, row2(f.A));
    f.B1 = mix(f.j11, row1(f.A), f.j12, row2(f.A));
    T b00 = dot(f.B0, f.B0), b01 = dot(f.B0, f.B1), b11 = dot(f.B1, f.B1);
    f.c00 = b00 + view.dilation;
    f.c01 = b01;
    f.c11 = b11 + view.dilation;
    // |B0 x B1|^2 instead of b00 b11 - b01^2: no cancellation for needles.
    Vec3<T> n = {f.B0.y * f.B1.z - f.B0.z * f.B1.y, f.B0.z * f.B1.x - f.B0.x * f.B1.z,
                 f.B0.x * f.B1.y - f.B0.y * f.B1.x};
    T undilated = dot(n, n);
    f.det = fma(view.dilation, b00 + b11 + view.dilation, undilated);
    f.det_inverse = T(S(1)) / max(f.det, T(S(1e-30)));
    f.ratio = undilated * f.det_inverse;
    return f;
}

template <class T> struct Projected {
    T x, y, a, b, c, depth, opacity, extent_x, extent_y;
};

// What raw parameters stand for, and the gradients to them from those to what they stand for.
template <class T> AF_HD void activate(Vec3<T>& scale, T& opacity) {
    scale = {exp(scale.x), exp(scale.y), exp(scale.z)};
    opacity = sigmoid(opacity);
}
template <class T> AF_HD void activate_backward(Vec3<T> scale, T opacity, Vec3<T>& v_scale, T& v_opacity) {
    v_scale = {v_scale.x * scale.x, v_scale.y * scale.y, v_scale.z * scale.z};
    v_opacity = v_opacity * opacity * (T(1) - opacity);
}

// The image of one Gaussian; all zero where it cannot be seen.
template <class T, class S>
AF_HD Projected<T> project(const View<T, S>& view, Vec3<T> mean, Quat<T> quat, Vec3<T> scale, T opacity) {
    Footprint<T> f = footprint<T, S>(view, mean, quat, scale);
    T norm2 = fma(quat.w, quat.w, fma(quat.x, quat.x, fma(quat.y, quat.y, quat.z * quat.z)));
    if (view.antialiased) opacity = opacity * sqrt(max(f.ratio, T(S(kCompensationFloor))));
    T level = T(S(2)) * log(max(opacity * T(S(255)), T(S(1))));
    Projected<T> r;
    r.extent_x = sqrt(level * f.c00);
    r.extent_y = sqrt(level * f.c11);
    r.x = fma(view.fx, f.p.x * f.z_inverse, view.cx);
    r.y = fma(view.fy, f.p.y * f.z_inverse, view.cy);
    auto seen = (view.near <= f.p.z) & (f.p.z <= view.far) & (T(S(0)) < f.det) & (T(S(kSmallestAlpha)) <= opacity) &
                (T(S(kSmallestQuat)) <= norm2) & (T(S(0)) < r.x + r.extent_x) & (r.x - r.extent_x < view.width) &
                (T(S(0)) < r.y + r.extent_y) & (r.y - r.extent_y < view.height);
    T zero(S(0));
    r.x = select(seen, r.x, zero);
    r.y = select(seen, r.y, zero);
    r.a = select(seen, f.c11 * f.det_inverse, zero);
    r.b = select(seen, zero - f.c01 * f.det_inverse, zero);
    r.c = select(seen, f.c00 * f.det_inverse, zero);
    r.depth = select(seen, f.p.z, zero);
    r.opacity = select(seen, opacity, zero);
    r.extent_x = select(seen, r.extent_x, zero);
    r.extent_y = select(seen, r.extent_y, zero);
    return r;
}

template <class T> struct ProjectionGradient {
    Vec3<T> mean;
    Quat<T> quat;
    Vec3<T> scale;
    T opacity;
    Mat3<T> R; // to the view's rotation
    Vec3<T> t; // to the view's translation
};

// Gradients from v, the gradient to `project`'s outputs (extents carry none). Only meaningful for Gaussians seen.
template <class T, class S>
AF_HD ProjectionGradient<T> project_backward(const View<T, S>& view, Vec3<T> mean, Quat<T> quat, Vec3<T> scale,
                                             T opacity, const Projected<T>& v) {
    Footprint<T> f = footprint<T, S>(view, mean, quat, scale);
    T half(S(0.5)), two(S(2)), zero(S(0));
    T a = f.c11 * f.det_inverse, b = zero - f.c01 * f.det_inverse, c = f.c00 * f.det_inverse;

    // dC' = -K V K for the inverse K = C'^-1; d01 counts both off-diagonal entries.
    T vb = half * v.b;
    T p00 = fma(a, v.a, b * vb), p01 = fma(a, vb, b * v.c), p10 = fma(b, v.a, c * vb), p11 = fma(b, vb, c * v.c);
    T d00 = zero - fma(p00, a, p01 * b);
    T d01 = zero - two * fma(p00, b, p01 * c);
    T d11 = zero - fma(p10, b, p11 * c);

    ProjectionGradient<T> g;
    g.opacity = v.opacity;
    if (view.antialiased) {
        T compensation = sqrt(max(f.ratio, T(S(kCompensationFloor))));
        g.opacity = v.opacity * compensation;
        // The compensation falls with the ratio det C / det C', down to the floor.
        T q = select(T(S(kCompensationFloor)) < f.ratio, v.opacity * opacity * half / compensation, zero);
        T keep = T(S(1)) - f.ratio, lost = view.dilation * f.det_inverse;
        d00 = fma(q, fma(keep, a, zero - lost), d00);
        d01 = fma(q, two * keep * b, d01);
        d11 = fma(q, fma(keep, c, zero - lost), d11);
    }

    Vec3<T> vB0 = mix(two * d00, f.B0, d01, f.B1), vB1 = mix(two * d11, f.B1, d01, f.B0);
    Mat3<T> vA = rows(Vec3<T>{f.j00 * vB0.x, f.j00 * vB0.y, f.j00 * vB0.z},
                      Vec3<T>{f.j11 * vB1.x, f.j11 * vB1.y, f.j11 * vB1.z}, mix(f.j02, vB0, f.j12, vB1));
    T v_j00 = dot(vB0, row0(f.A)), v_j02 = dot(vB0, row2(f.A));
    T v_j11 = dot(vB1, row1(f.A)), v_j12 = dot(vB1, row2(f.A));

    // To the mean in the camera: through its image, through its depth, and through J, whose clamped form follows z only.
    T ux = f.p.x * f.z_inverse, uy = f.p.y * f.z_inverse;
    auto inside_x = (view.x_low <= ux) & (ux <= view.x_high);
    auto inside_y = (view.y_low <= uy) & (uy <= view.y_high);
    T px = f.j00 * v.x, py = f.j11 * v.y;
    T pz = v.depth - fma(ux, px, uy * py);
    T k02 = f.j00 * f.z_inverse * v_j02, k12 = f.j11 * f.z_inverse * v_j12;
    px = px - select(inside_x, k02, zero);
    py = py - select(inside_y, k12, zero);
    pz = pz - f.z_inverse * fma(f.j00, v_j00, f.j11 * v_j11);
    pz = pz + select(inside_x, two * f.tx * k02, f.tx * k02) + select(inside_y, two * f.ty * k12, f.ty * k12);

    g.t = {px, py, pz};
    g.mean = combine(g.t, view.R);
    Mat3<T> M = {f.Rq.m00 * scale.x, f.Rq.m01 * scale.y, f.Rq.m02 * scale.z, f.Rq.m10 * scale.x, f.Rq.m11 * scale.y,
                 f.Rq.m12 * scale.z, f.Rq.m20 * scale.x, f.Rq.m21 * scale.y, f.Rq.m22 * scale.z};
    g.R = multiply(vA, transpose(M));
    g.R = {fma(px, mean.x, g.R.m00), fma(px, mean.y, g.R.m01), fma(px, mean.z, g.R.m02),
           fma(py, mean.x, g.R.m10), fma(py, mean.y, g.R.m11), fma(py, mean.z, g.R.m12),
           fma(pz, mean.x, g.R.m20), fma(pz, mean.y, g.R.m21), fma(pz, mean.z, g.R.m22)};

    Mat3<T> vM = multiply(transpose(view.R), vA);
    g.scale = {dot(column0(f.Rq), column0(vM)), dot(column1(f.Rq), column1(vM)), dot(column2(f.Rq), column2(vM))};
    Mat3<T> vRq = {vM.m00 * scale.x, vM.m01 * scale.y, vM.m02 * scale.z, vM.m10 * scale.x, vM.m11 * scale.y,
                   vM.m12 * scale.z, vM.m20 * scale.x, vM.m21 * scale.y, vM.m22 * scale.z};
    Quat<T> u = rotation_backward(f.q, vRq);
    T along = fma(u.w, f.q.w, fma(u.x, f.q.x, fma(u.y, f.q.y, u.z * f.q.z)));
    g.quat = {(u.w - along * f.q.w) * f.q_inverse, (u.x - along * f.q.x) * f.q_inverse,
              (u.y - along * f.q.y) * f.q_inverse, (u.z - along * f.q.z) * f.q_inverse};
    return g;
}

} // namespace anchorfield
