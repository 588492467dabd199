// Scalar counterparts of the SIMD operations, so that one template of a formula serves float, double, SIMD packs and
// CUDA threads.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define AF_HD __host__ __device__ __forceinline__
#else
#define AF_HD inline __attribute__((always_inline))
#endif

namespace anchorfield {

// On a device always fused, so that two kernels with one formula round alike; on a host left to the compiler.
#ifdef __CUDA_ARCH__
AF_HD float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
#else
AF_HD float fma(float a, float b, float c) { return a * b + c; }
#endif
AF_HD double fma(double a, double b, double c) { return a * b + c; }
// Fused in every build, for sums that cancel; `fma` rounds twice where the machine cannot do better at once.
#ifdef __CUDA_ARCH__
AF_HD float fused(float a, float b, float c) { return ::fmaf(a, b, c); }
#else
AF_HD float fused(float a, float b, float c) { return float(double(a) * double(b) + double(c)); }
#endif
AF_HD double fused(double a, double b, double c) { return a * b + c; }
AF_HD float min(float a, float b) { return a < b ? a : b; }
AF_HD double min(double a, double b) { return a < b ? a : b; }
AF_HD float max(float a, float b) { return a > b ? a : b; }
AF_HD double max(double a, double b) { return a > b ? a : b; }
AF_HD float select(bool m, float a, float b) { return m ? a : b; }
AF_HD double select(bool m, double a, double b) { return m ? a : b; }
AF_HD float floor(float a) { return ::floorf(a); }
AF_HD double floor(double a) { return ::floor(a); }
AF_HD float ceil(float a) { return ::ceilf(a); }
AF_HD double ceil(double a) { return ::ceil(a); }
AF_HD float sqrt(float a) { return ::sqrtf(a); }
AF_HD double sqrt(double a) { return ::sqrt(a); }
AF_HD float log(float a) { return ::logf(a); }
AF_HD double log(double a) { return ::log(a); }
AF_HD float exp(float a) { return ::expf(a); }
AF_HD double exp(double a) { return ::exp(a); }
AF_HD float tanh(float a) { return ::tanhf(a); }
AF_HD double tanh(double a) { return ::tanh(a); }
AF_HD float log2(float a) { return ::log2f(a); }
AF_HD double log2(double a) { return ::log2(a); }
AF_HD float exp2(float a) { return ::exp2f(a); }
AF_HD double exp2(double a) { return ::exp2(a); }

constexpr double kPi = 3.14159265358979323846;
// Of half turns a in [-1/2, 1/2].
AF_HD float sin_pi(float a) { return ::sinf(float(kPi) * a); }
AF_HD double sin_pi(double a) { return ::sin(kPi * a); }
AF_HD float cos_pi(float a) { return ::cosf(float(kPi) * a); }
AF_HD double cos_pi(double a) { return ::cos(kPi * a); }

template <class T> AF_HD T sigmoid(T a) { return T(1) / (T(1) + exp(T(0) - a)); }

} // namespace anchorfield
