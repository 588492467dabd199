// Loss, optimisers, exploration.
#include "bindings/cuda.h"

namespace anchorfield::cuda {
namespace {

Images images_of(const In& image, const In& target) {
    return {image.data(), target.data(), int(image.shape(1)), int(image.shape(0)), int(image.shape(2))};
}

} // namespace

void bind_training(nb::module_& m) {
    m.def("photometric_rows", &photometric_rows);
    m.def(
        "photometric",
        [](In image, In target, Out means, Out maps, Out partial, uintptr_t stream) {
            photometric(images_of(image, target), means.data(), maps.data(), partial.data(), stream_of(stream));
        },
        Release());
    m.def(
        "photometric_backward",
        [](In image, In target, In maps, In v_means, Out v_image, uintptr_t stream) {
            photometric_backward(images_of(image, target), maps.data(), v_means.data(), v_image.data(),
                                 stream_of(stream));
        },
        Release());
    m.def(
        "adam_step",
        [](Out parameter, In gradient, Out moment1, Out moment2, In rates, std::optional<Read<bool>> rows,
           int64_t count, int64_t step, double beta1, double beta2, double epsilon, uintptr_t stream) {
            adam({parameter.data(), moment1.data(), moment2.data(), gradient.data(), rates.data(), or_null(rows), count,
                  int64_t(rates.size())},
                 {step, beta1, beta2, epsilon}, stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), Release());
    m.def(
        "perturb_means",
        [](Out means, In quats, In log_scales, In logit_opacities, double strength, uint64_t seed, uintptr_t stream) {
            perturb_means(means.data(), quats.data(), log_scales.data(), logit_opacities.data(),
                          int64_t(logit_opacities.size()), float(strength), seed, stream_of(stream));
        },
        Release());
    m.def(
        "copy_numbers",
        [](In from, Out to, uintptr_t stream) {
            copy_numbers(from.data(), to.data(), int64_t(from.size()), stream_of(stream));
        },
        Release());
    m.def(
        "multiply_add",
        [](Out sink, int rounds, uintptr_t stream) {
            multiply_add(sink.data(), int64_t(sink.size()), rounds, stream_of(stream));
        },
        Release());
    m.def(
        "adam_step_touched",
        [](Out parameter, In gradient, Out moment1, Out moment2, Write<int16_t> counts, In rates, In scales,
           double beta1, double beta2, double epsilon, uintptr_t stream) {
            adam_touched({parameter.data(), moment1.data(), moment2.data(), gradient.data(), rates.data(), nullptr,
                          int64_t(parameter.size() / rates.size()), int64_t(rates.size()), counts.data()},
                         {scales.data(), int(scales.shape(0))}, {1, beta1, beta2, epsilon}, stream_of(stream));
        },
        Release());
}

} // namespace anchorfield::cuda
