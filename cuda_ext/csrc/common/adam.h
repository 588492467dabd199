// Adam (Kingma and Ba 2015) for one number.
#pragma once

#include "common/math.h"

#include <cmath>
#include <cstdint>

namespace anchorfield {

template <class S> struct AdamSettings {
    S step_scale;   // 1 / (1 - beta1^t)
    S second_scale; // 1 / (1 - beta2^t)
    S beta1, beta2, epsilon;

    AdamSettings(int64_t step, double beta1, double beta2, double epsilon)
        : step_scale(S(1 / (1 - std::pow(beta1, double(step))))),
          second_scale(S(1 / (1 - std::pow(beta2, double(step))))), beta1(S(beta1)), beta2(S(beta2)),
          epsilon(S(epsilon)) {}
};

template <class T, class S>
AF_HD void adam_update(T& parameter, T gradient, T& moment1, T& moment2, T rate, const AdamSettings<S>& a) {
    moment1 = fma(T(a.beta1), moment1, T(S(1) - a.beta1) * gradient);
    moment2 = fma(T(a.beta2), moment2, T(S(1) - a.beta2) * (gradient * gradient));
    parameter = parameter - rate * (moment1 * T(a.step_scale)) / (sqrt(moment2 * T(a.second_scale)) + T(a.epsilon));
}

} // namespace anchorfield
