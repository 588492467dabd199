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

// `step_scale` and `second_scale` undo that the moments begin at zero.
template <class T, class S>
AF_HD void adam_update(T& parameter, T gradient, T& moment1, T& moment2, T rate, T step_scale, T second_scale,
                       const AdamSettings<S>& a) {
    moment1 = fma(T(a.beta1), moment1, T(S(1) - a.beta1) * gradient);
    moment2 = fma(T(a.beta2), moment2, T(S(1) - a.beta2) * (gradient * gradient));
    parameter = parameter - rate * (moment1 * step_scale) / (sqrt(moment2 * second_scale) + T(a.epsilon));
}

template <class T, class S>
AF_HD void adam_update(T& parameter, T gradient, T& moment1, T& moment2, T rate, const AdamSettings<S>& a) {
    adam_update(parameter, gradient, moment1, moment2, rate, T(a.step_scale), T(a.second_scale), a);
}

// Scales of numbers that each have taken another number of steps: pairs (step_scale, second_scale) for 1, 2, ... `most`
// steps, after which they are 1 and counts stop.
template <class S> struct AdamScales {
    const S* pairs;
    int most;

    AF_HD int16_t next(int16_t count) const { return int16_t(count < most ? count + 1 : most); }
    AF_HD S step_scale(int16_t count) const { return pairs[2 * (count - 1)]; }
    AF_HD S second_scale(int16_t count) const { return pairs[2 * (count - 1) + 1]; }
};

} // namespace anchorfield
