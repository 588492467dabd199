// Loss, optimisers, exploration.
#include "bindings/cpu.h"

#include <vector>

namespace anchorfield {
namespace {

template <class S> ImagePair<S> images_of(const In<S>& image, const In<S>& target, const std::optional<Rows>& mask) {
    return {int(image.shape(1)), int(image.shape(0)), int(image.shape(2)), image.data(), target.data(), or_null(mask)};
}

template <class S> void bind(nb::module_& m) {
    m.def(
        "photometric",
        [](In<S> image, In<S> target, std::optional<Rows> mask, Out<S> l1, Out<S> ssim, MaybeOut<S> maps) {
            kernels<S>().photometric(images_of(image, target, mask), l1.data(), ssim.data(), or_null(maps));
        },
        nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(), Release());
    m.def(
        "photometric_backward",
        [](In<S> image, In<S> target, std::optional<Rows> mask, In<S> maps, In<S> v_l1, In<S> v_ssim, Out<S> v_image) {
            kernels<S>().photometric_backward(images_of(image, target, mask), maps.data(), v_l1.data(), v_ssim.data(),
                                              v_image.data());
        },
        nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), Release());
    m.def(
        "adam_step",
        [](std::vector<Out<S>> parameters, std::vector<In<S>> gradients, std::vector<Out<S>> moments1,
           std::vector<Out<S>> moments2, std::vector<In<S>> rates, std::optional<Rows> rows, int64_t step, double beta1,
           double beta2, double epsilon) {
            std::vector<AdamArrays<S>> arrays;
            for (size_t i = 0; i < parameters.size(); ++i)
                arrays.push_back({int64_t(parameters[i].size() / rates.at(i).size()), int64_t(rates.at(i).size()),
                                  parameters[i].data(), gradients.at(i).data(), moments1.at(i).data(),
                                  moments2.at(i).data(), rates.at(i).data()});
            kernels<S>().adam(arrays, or_null(rows), {step, beta1, beta2, epsilon});
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), Release());
    m.def(
        "adam_step_touched",
        [](std::vector<Out<S>> parameters, std::vector<In<S>> gradients, std::vector<Out<S>> moments1,
           std::vector<Out<S>> moments2, std::vector<Out<int16_t>> counts, std::vector<In<S>> rates, In<S> scales,
           double beta1, double beta2, double epsilon) {
            std::vector<AdamArrays<S>> arrays;
            for (size_t i = 0; i < parameters.size(); ++i)
                arrays.push_back({int64_t(parameters[i].size() / rates.at(i).size()), int64_t(rates.at(i).size()),
                                  parameters[i].data(), gradients.at(i).data(), moments1.at(i).data(),
                                  moments2.at(i).data(), rates.at(i).data(), counts.at(i).data()});
            kernels<S>().adam_touched(arrays, {scales.data(), int(scales.shape(0))}, {1, beta1, beta2, epsilon});
        },
        Release());
    m.def(
        "perturb_means",
        [](Out<S> means, In<S> quats, In<S> log_scales, In<S> logit_opacities, double strength, int64_t seed) {
            kernels<S>().perturb_means(means.data(), quats.data(), log_scales.data(), logit_opacities.data(),
                                       int64_t(logit_opacities.size()), S(strength), uint64_t(seed));
        },
        Release());
    m.def(
        "mean_activations",
        [](In<S> log_scales, In<S> logits, Out<S> mean_scale, Out<S> mean_opacity) {
            kernels<S>().mean_activations(log_scales.data(), logits.data(), int64_t(logits.size()), mean_scale.data(),
                                          mean_opacity.data());
        },
        Release());
    m.def(
        "mean_activations_backward",
        [](In<S> log_scales, In<S> logits, In<S> v_mean_scale, In<S> v_mean_opacity, Out<S> v_log_scales,
           Out<S> v_logits) {
            kernels<S>().mean_activations_backward(log_scales.data(), logits.data(), int64_t(logits.size()),
                                                   v_mean_scale.data(), v_mean_opacity.data(), v_log_scales.data(),
                                                   v_logits.data());
        },
        Release());
}

} // namespace

void bind_training(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

} // namespace anchorfield
