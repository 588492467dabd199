// Adam (Kingma and Ba 2015) for one number.
#pragma once

#include "common/math.h"

namespace anchorfield {

template <class S> struct AdamSettings {
    S step_scale;   // 1 / (1 - beta1^t)
    S second_scale; // 1 / (1 - beta2^t)
    S beta1, beta2, epsilon;
};

template <class T, class S>
AF_HD void adam_update(T& parameter, T gradient, T& moment1, T& moment2, T rate, const AdamSettings<S>& a) {
    moment1 = fma(T(a.beta1), moment1, T(S(1) - a.beta1) * gradient);
    moment2 = fma(T(a.beta2), moment2, T(S(1) - a.beta2) * (gradient * gradient));
    parameter = parameter - rate * (moment1 * T(a.step_scale)) / (sqrt(moment2 * T(a.second_scale)) + T(a.epsilon));
}

} // namespace anchorfield
