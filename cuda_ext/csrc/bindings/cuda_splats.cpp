// Gaussians and anchors to the image.
#include "bindings/cuda.h"

namespace anchorfield::cuda {
namespace {

ProjectionSettings<float> settings_of(const std::vector<double>& numbers, bool antialiased) {
    ProjectionSettings<float> s = {};
    float* fields[] = {&s.fx, &s.fy, &s.cx, &s.cy, &s.width, &s.height, &s.near, &s.far, &s.dilation};
    for (int i = 0; i < 9; ++i) *fields[i] = float(numbers.at(i));
    s.antialiased = antialiased;
    return s;
}

GaussianArrays<float> gaussians_of(const In& means, const In& quats, const In& scales, const In& opacities, bool raw) {
    return {int64_t(opacities.size()), means.data(), quats.data(), scales.data(), opacities.data(), raw};
}

ShArrays<float> sh_of(const In& sh, const In& means, const In& centre, const Read<bool>& visible, int degree) {
    return {int64_t(visible.size()), int(sh.shape(1)), degree, sh.data(), means.data(), centre.data(), visible.data()};
}

void bind_projection(nb::module_& m) {
    m.def("sum_rows", &sum_rows);
    m.def(
        "project",
        [](In means, In quats, In scales, In opacities, In world_to_camera, std::vector<double> numbers,
           bool antialiased, bool raw, Out means2d, Out conics, Out depths, Out effective, Out extents,
           uintptr_t stream) {
            project(gaussians_of(means, quats, scales, opacities, raw), settings_of(numbers, antialiased),
                    world_to_camera.data(),
                    {means2d.data(), conics.data(), depths.data(), effective.data(), extents.data()},
                    stream_of(stream));
        },
        Release());
    m.def(
        "project_backward",
        [](In means, In quats, In scales, In opacities, In world_to_camera, std::vector<double> numbers,
           bool antialiased, bool raw, Out v_means2d, Out v_conics, Out v_depths, Out v_effective, In extents,
           Out v_means, Out v_quats, Out v_scales, Out v_opacities, MaybeOut v_pose, Out partial, uintptr_t stream) {
            project_backward(gaussians_of(means, quats, scales, opacities, raw), settings_of(numbers, antialiased),
                             world_to_camera.data(),
                             {v_means2d.data(), v_conics.data(), v_depths.data(), v_effective.data(), nullptr},
                             extents.data(),
                             {v_means.data(), v_quats.data(), v_scales.data(), v_opacities.data(), or_null(v_pose)},
                             partial.data(), stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), Release());
    m.def(
        "spherical_harmonics",
        [](In sh, In means, In centre, Read<bool> visible, int degree, Out colours, uintptr_t stream) {
            spherical_harmonics(sh_of(sh, means, centre, visible, degree), colours.data(), stream_of(stream));
        },
        Release());
    m.def(
        "spherical_harmonics_backward",
        [](In sh, In means, In centre, Read<bool> visible, int degree, In colours, In v_colours, Out v_sh, Out v_means,
           Out v_centre, Out partial, uintptr_t stream) {
            spherical_harmonics_backward(sh_of(sh, means, centre, visible, degree), colours.data(), v_colours.data(),
                                         v_sh.data(), v_means.data(), v_centre.data(), partial.data(),
                                         stream_of(stream));
        },
        Release());
}

// `inputs`: anchors, features, offsets, log_scales, centre, fade (empty where there is none), and the heads.
AnchorArrays<float> anchors_of(const std::vector<In>& inputs, const Read<int32_t>& rows) {
    constexpr size_t kHeads = 6;
    const In& fade = inputs.at(5);
    return {int64_t(inputs[0].shape(0)),
            int64_t(rows.size()),
            int(inputs[1].shape(1)),
            int(inputs[2].shape(1)),
            int(inputs.at(kHeads + 4).shape(1)),
            inputs[kHeads + 1].ndim() == 2,
            inputs[0].data(),
            inputs[1].data(),
            inputs[2].data(),
            inputs[3].data(),
            heads_of<const float>(inputs, kHeads),
            inputs[4].data(),
            rows.data(),
            fade.size() ? fade.data() : nullptr};
}

void bind_anchors(nb::module_& m) {
    m.def("anchor_scratch", [](std::vector<In> inputs, Read<int32_t> rows, bool backward) {
        return anchor_scratch(anchors_of(inputs, rows), backward);
    });
    m.def("anchor_scan_bytes", &anchor_scan_bytes);
    m.def(
        "decode_logits",
        [](std::vector<In> inputs, Read<int32_t> rows, Out logits, Write<int32_t> ranks, Write<int64_t> totals,
           Write<uint8_t> scan, Out scratch, uintptr_t stream) {
            decode_logits(anchors_of(inputs, rows), {ranks.data(), totals.data(), scan.data(), scan.size()},
                          logits.data(), scratch.data(), stream_of(stream));
        },
        Release());
    m.def(
        "write_gaussians",
        [](std::vector<In> inputs, Read<int32_t> rows, In logits, Read<int32_t> ranks, Out means, Out quats, Out scales,
           Out opacities, Out colours, Write<int32_t> origin, uintptr_t stream) {
            write_gaussians(
                anchors_of(inputs, rows), logits.data(), ranks.data(),
                {means.data(), quats.data(), scales.data(), opacities.data(), colours.data(), origin.data()},
                stream_of(stream));
        },
        Release());
    m.def(
        "decode_anchors_backward",
        [](std::vector<In> inputs, Read<int32_t> rows, In scales, In opacities, In colours, Read<int32_t> origin,
           std::vector<In> gradients, std::vector<Out> outputs, Out scratch, uintptr_t stream) {
            decode_anchors_backward(anchors_of(inputs, rows),
                                    {int64_t(opacities.size()), scales.data(), opacities.data(), colours.data(),
                                     origin.data(), gradients.at(0).data(), gradients.at(1).data(),
                                     gradients.at(2).data(), gradients.at(3).data(), gradients.at(4).data(),
                                     outputs.at(0).data(), outputs.at(1).data(), outputs.at(2).data(),
                                     heads_of<float>(outputs, 3)},
                                    scratch.data(), stream_of(stream));
        },
        Release());
}

BinSizes sizes_of(int64_t count, const Write<int32_t>& order, int64_t room_pairs, int width, int height) {
    return {count, int64_t(order.size()), room_pairs, width, height};
}

void bind_binning(nb::module_& m) {
    m.def("binning_scratch", [](int64_t count, int64_t room_visible, int64_t room_pairs, int width, int height) {
        return binning_scratch({count, room_visible, room_pairs, width, height});
    });
    m.def(
        "order_by_depth",
        [](Out means2d, Out conics, Out depths, Out opacities, Out extents, int64_t room_pairs, int width, int height,
           Write<int32_t> order, Write<int32_t> offsets, Write<int64_t> totals, Write<uint8_t> scratch,
           uintptr_t stream) {
            order_by_depth({means2d.data(), conics.data(), depths.data(), opacities.data(), extents.data()},
                           sizes_of(int64_t(opacities.size()), order, room_pairs, width, height),
                           {order.data(), offsets.data(), reinterpret_cast<uint64_t*>(totals.data())}, scratch.data(),
                           stream_of(stream));
        },
        Release());
    m.def(
        "list_pairs",
        [](Out means2d, Out conics, Out depths, Out opacities, Out extents, int width, int height, Write<int32_t> order,
           Write<int32_t> offsets, Write<int64_t> totals, Write<int32_t> gaussians, Write<uint16_t> blocks,
           Write<int32_t> slots, Write<int32_t> tile_offsets, Write<uint8_t> scratch, uintptr_t stream) {
            list_pairs({means2d.data(), conics.data(), depths.data(), opacities.data(), extents.data()},
                       sizes_of(int64_t(opacities.size()), order, int64_t(slots.size()), width, height),
                       {order.data(), offsets.data(), reinterpret_cast<uint64_t*>(totals.data())},
                       {gaussians.data(), blocks.data(), slots.data(), tile_offsets.data()}, scratch.data(),
                       stream_of(stream));
        },
        Release());
}

struct BinInputs {
    Read<int32_t> gaussians;
    Read<uint16_t> blocks;
    Read<int32_t> slots, tile_offsets, order, order_offsets;
    Bins arrays() const {
        return {gaussians.data(),          blocks.data(),        slots.data(),
                tile_offsets.data(),       order.data(),         order_offsets.data(),
                int64_t(gaussians.size()), int64_t(order.size())};
    }
};

CompositeInputs composite_inputs(const In& means2d, const In& conics, const In& opacities, const In& features,
                                 const In& background, const Bins& bins, int width, int height) {
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

void bind_compositing(nb::module_& m) {
    m.def("trail_size", &trail_size);
    m.def("record_size", &record_size);
    m.def(
        "composite",
        [](In means2d, In conics, In opacities, In features, In background, Read<int32_t> gaussians,
           Read<uint16_t> blocks, Read<int32_t> slots, Read<int32_t> tile_offsets, Read<int32_t> order,
           Read<int32_t> order_offsets, int width, int height, Out image, Out transmittance, MaybeOut trail,
           uintptr_t stream) {
            const BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            composite(composite_inputs(means2d, conics, opacities, features, background, bins.arrays(), width, height),
                      image.data(), transmittance.data(), or_null(trail), stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), Release());
    m.def(
        "composite_backward",
        [](In means2d, In conics, In opacities, In features, In background, Read<int32_t> gaussians,
           Read<uint16_t> blocks, Read<int32_t> slots, Read<int32_t> tile_offsets, Read<int32_t> order,
           Read<int32_t> order_offsets, int width, int height, In trail, In v_image, In v_transmittance, Out v_means2d,
           Out v_conics, Out v_opacities, Out v_features, MaybeOut absolute, Out records, uintptr_t stream) {
            const BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            composite_backward(
                composite_inputs(means2d, conics, opacities, features, background, bins.arrays(), width, height),
                trail.data(),
                {v_image.data(), v_transmittance.data(), v_means2d.data(), v_conics.data(), v_opacities.data(),
                 v_features.data(), or_null(absolute)},
                records.data(), stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg(), nb::arg(), Release());
    m.def(
        "contributions",
        [](In means2d, In conics, In opacities, Read<int32_t> gaussians, Read<uint16_t> blocks, Read<int32_t> slots,
           Read<int32_t> tile_offsets, Read<int32_t> order, Read<int32_t> order_offsets, int width, int height,
           Out transmittance, Out trail, Out records, Out weights, uintptr_t stream) {
            const BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            contributions({int64_t(opacities.size()), width, height, 0, means2d.data(), conics.data(), opacities.data(),
                           nullptr, nullptr, bins.arrays()},
                          transmittance.data(), trail.data(), records.data(), weights.data(), stream_of(stream));
        },
        Release());
}

} // namespace

void bind_splats(nb::module_& m) {
    bind_projection(m);
    bind_anchors(m);
    bind_binning(m);
    bind_compositing(m);
}

} // namespace anchorfield::cuda
