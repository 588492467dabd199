// Gaussians and anchors to the image.
#include "bindings/cpu.h"

#include <memory>
#include <utility>

namespace anchorfield {
namespace {

template <class S>
ProjectionSettings<S> settings_of(const In<S>& world_to_camera, const std::vector<double>& numbers, bool antialiased) {
    ProjectionSettings<S> s;
    const S* m = world_to_camera.data();
    for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) s.rotation[3 * r + c] = m[4 * r + c];
        s.translation[r] = m[4 * r + 3];
    }
    S* fields[] = {&s.fx, &s.fy, &s.cx, &s.cy, &s.width, &s.height, &s.near, &s.far, &s.dilation};
    for (int i = 0; i < 9; ++i) *fields[i] = S(numbers.at(i));
    s.antialiased = antialiased;
    return s;
}

template <class S>
GaussianArrays<S> gaussians_of(const In<S>& means, const In<S>& quats, const In<S>& scales, const In<S>& opacities,
                               bool raw) {
    return {int64_t(opacities.size()), means.data(), quats.data(), scales.data(), opacities.data(), raw};
}

// Moves a vector into an array that frees it.
template <class T> nb::object give(Array<T>&& values) {
    auto* owner = new Array<T>(std::move(values));
    nb::capsule capsule(owner, [](void* p) noexcept { delete static_cast<Array<T>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(owner->data(), {owner->size()}, capsule));
}

// Moves `rows` rows of `columns` numbers into an array that frees them; of one axis where columns is 0.
template <class T> nb::object give(std::unique_ptr<T[]> values, int64_t rows, int64_t columns = 0) {
    T* data = values.release();
    nb::capsule capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    const size_t shape[2] = {size_t(rows), size_t(columns)};
    return nb::cast(nb::ndarray<nb::numpy, T>(data, columns ? 2 : 1, shape, capsule));
}

template <class S> struct AnchorInputs {
    In<S> anchors, features, offsets, log_scales;
    std::vector<In<S>> heads;
    In<S> centre;
    In<int32_t> rows;
    std::optional<In<S>> fade;

    AnchorArrays<S> arrays() const {
        return {int64_t(anchors.shape(0)),
                int64_t(rows.size()),
                int(features.shape(1)),
                int(offsets.shape(1)),
                int(heads.at(4).shape(1)),
                heads.at(1).ndim() == 2,
                anchors.data(),
                features.data(),
                offsets.data(),
                log_scales.data(),
                heads_of<const S>(heads),
                centre.data(),
                rows.data(),
                or_null(fade)};
    }
};

void check_rows(const In<int32_t>& rows, int64_t count) {
    int64_t before = -1;
    for (size_t i = 0; i < rows.size(); before = rows.data()[i++])
        if (rows.data()[i] <= before || rows.data()[i] >= count)
            throw nb::value_error(("rows: expected ascending numbers below " + std::to_string(count) + ", got " +
                                   std::to_string(rows.data()[i]) + " after " + std::to_string(before))
                                      .c_str());
}

struct BinInputs {
    In<int32_t> gaussians;
    In<uint16_t> blocks;
    In<int32_t> slots, tile_offsets, order, order_offsets;
    BinArrays arrays() const {
        return {gaussians.data(),          blocks.data(),        slots.data(),
                tile_offsets.data(),       order.data(),         order_offsets.data(),
                int64_t(gaussians.size()), int64_t(order.size())};
    }
};

template <class S>
CompositeArrays<S> composite_inputs(const In<S>& means2d, const In<S>& conics, const In<S>& opacities,
                                    const In<S>& features, const In<S>& background, const BinArrays& bins, int width,
                                    int height) {
    return {int64_t(opacities.size()),
            width,
            height,
            int(background.size()),
            means2d.data(),
            conics.data(),
            opacities.data(),
            features.data(),
            background.data(),
            bins};
}

template <class S> void bind(nb::module_& m) {
    m.def(
        "project",
        [](In<S> means, In<S> quats, In<S> scales, In<S> opacities, In<S> world_to_camera, std::vector<double> numbers,
           bool antialiased, bool raw, Out<S> means2d, Out<S> conics, Out<S> depths, Out<S> effective, Out<S> extents) {
            kernels<S>().project(gaussians_of(means, quats, scales, opacities, raw),
                                 settings_of(world_to_camera, numbers, antialiased),
                                 {means2d.data(), conics.data(), depths.data(), effective.data(), extents.data()});
        },
        Release());
    m.def(
        "project_backward",
        [](In<S> means, In<S> quats, In<S> scales, In<S> opacities, In<S> world_to_camera, std::vector<double> numbers,
           bool antialiased, bool raw, Out<S> v_means2d, Out<S> v_conics, Out<S> v_depths, Out<S> v_effective,
           In<S> extents, Out<S> v_means, Out<S> v_quats, Out<S> v_scales, Out<S> v_opacities, MaybeOut<S> v_pose) {
            kernels<S>().project_backward(
                gaussians_of(means, quats, scales, opacities, raw), settings_of(world_to_camera, numbers, antialiased),
                {v_means2d.data(), v_conics.data(), v_depths.data(), v_effective.data(), nullptr}, extents.data(),
                {v_means.data(), v_quats.data(), v_scales.data(), v_opacities.data(), or_null(v_pose)});
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), Release());
    m.def(
        "spherical_harmonics",
        [](In<S> sh, In<S> means, In<S> centre, Rows visible, int degree, Out<S> colours) {
            kernels<S>().spherical_harmonics({int64_t(visible.size()), int(sh.shape(1)), degree, sh.data(),
                                              means.data(), centre.data(), visible.data()},
                                             colours.data());
        },
        Release());
    m.def(
        "spherical_harmonics_backward",
        [](In<S> sh, In<S> means, In<S> centre, Rows visible, int degree, In<S> colours, In<S> v_colours, Out<S> v_sh,
           Out<S> v_means, Out<S> v_centre) {
            kernels<S>().spherical_harmonics_backward({int64_t(visible.size()), int(sh.shape(1)), degree, sh.data(),
                                                       means.data(), centre.data(), visible.data()},
                                                      colours.data(), v_colours.data(), v_sh.data(), v_means.data(),
                                                      v_centre.data());
        },
        Release());
    m.def(
        "decode_anchors",
        [](In<S> anchors, In<S> features, In<S> offsets, In<S> log_scales, std::vector<In<S>> heads, In<S> centre,
           In<int32_t> rows, std::optional<In<S>> fade) {
            check_rows(rows, int64_t(anchors.shape(0)));
            const AnchorInputs<S> in = {anchors, features, offsets, log_scales, heads, centre, rows, fade};
            DecodedArrays<S> out;
            {
                nb::gil_scoped_release release;
                out = kernels<S>().decode_anchors(in.arrays());
            }
            return nb::make_tuple(give(std::move(out.means), out.count, 3), give(std::move(out.quats), out.count, 4),
                                  give(std::move(out.scales), out.count, 3), give(std::move(out.opacities), out.count),
                                  give(std::move(out.colours), out.count, 3), give(std::move(out.origin), out.count));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    m.def(
        "decode_anchors_backward",
        [](In<S> anchors, In<S> features, In<S> offsets, In<S> log_scales, std::vector<In<S>> heads, In<S> centre,
           In<int32_t> rows, std::optional<In<S>> fade, In<S> scales, In<S> opacities, In<S> colours,
           In<int32_t> origin, std::vector<In<S>> gradients, std::vector<Out<S>> outputs) {
            const AnchorInputs<S> in = {anchors, features, offsets, log_scales, heads, centre, rows, fade};
            kernels<S>().decode_anchors_backward(
                in.arrays(), {int64_t(opacities.size()), scales.data(), opacities.data(), colours.data(), origin.data(),
                              gradients.at(0).data(), gradients.at(1).data(), gradients.at(2).data(),
                              gradients.at(3).data(), gradients.at(4).data(), outputs.at(0).data(),
                              outputs.at(1).data(), outputs.at(2).data(), heads_of<S>(outputs, 3)});
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), Release());
    m.def("bin_tiles", [](Out<S> means2d, Out<S> conics, Out<S> depths, Out<S> opacities, Out<S> extents, int width,
                          int height) {
        Bins bins;
        {
            nb::gil_scoped_release release;
            bins =
                kernels<S>().bin_tiles({means2d.data(), conics.data(), depths.data(), opacities.data(), extents.data()},
                                       int64_t(opacities.size()), width, height);
        }
        return nb::make_tuple(give(std::move(bins.gaussians)), give(std::move(bins.blocks)),
                              give(std::move(bins.slots)), give(std::move(bins.tile_offsets)),
                              give(std::move(bins.order)), give(std::move(bins.order_offsets)));
    });
    m.def(
        "composite",
        [](In<S> means2d, In<S> conics, In<S> opacities, In<S> features, In<S> background, In<int32_t> gaussians,
           In<uint16_t> blocks, In<int32_t> slots, In<int32_t> tile_offsets, In<int32_t> order,
           In<int32_t> order_offsets, int width, int height, Out<S> image, Out<S> transmittance, Out<S> trail) {
            BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            kernels<S>().composite(
                composite_inputs(means2d, conics, opacities, features, background, bins.arrays(), width, height),
                image.data(), transmittance.data(), trail.data());
        },
        Release());
    m.def(
        "composite_backward",
        [](In<S> means2d, In<S> conics, In<S> opacities, In<S> features, In<S> background, In<int32_t> gaussians,
           In<uint16_t> blocks, In<int32_t> slots, In<int32_t> tile_offsets, In<int32_t> order,
           In<int32_t> order_offsets, int width, int height, In<S> trail, In<S> v_image, In<S> v_transmittance,
           Out<S> v_means2d, Out<S> v_conics, Out<S> v_opacities, Out<S> v_features, MaybeOut<S> absolute) {
            BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            kernels<S>().composite_backward(
                composite_inputs(means2d, conics, opacities, features, background, bins.arrays(), width, height),
                trail.data(),
                {v_image.data(), v_transmittance.data(), v_means2d.data(), v_conics.data(), v_opacities.data(),
                 v_features.data(), or_null(absolute)});
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), Release());
    m.def(
        "contributions",
        [](In<S> means2d, In<S> conics, In<S> opacities, In<int32_t> gaussians, In<uint16_t> blocks, In<int32_t> slots,
           In<int32_t> tile_offsets, In<int32_t> order, In<int32_t> order_offsets, int width, int height,
           Out<S> weights) {
            BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            kernels<S>().contributions({int64_t(opacities.size()), width, height, 0, means2d.data(), conics.data(),
                                        opacities.data(), nullptr, nullptr, bins.arrays()},
                                       weights.data());
        },
        Release());
}

} // namespace

void bind_splats(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

} // namespace anchorfield
