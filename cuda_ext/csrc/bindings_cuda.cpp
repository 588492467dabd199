// The Python face of the CUDA kernels: dense DLPack arrays on a device and a stream's handle in, results written into
// arrays that the caller made. Nothing is allocated and nothing waits. Shapes are checked on the Python side.
#include "cuda/kernels.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
#include <optional>
#include <utility>

namespace nb = nanobind;
using namespace anchorfield;

namespace {

#ifdef CUDA_ON_CPU // the tests' stand-in for a device
using Device = nb::device::cpu;
#else
using Device = nb::device::cuda;
#endif

template <class T> using Read = nb::ndarray<const T, nb::c_contig, Device>;
template <class T> using Write = nb::ndarray<T, nb::c_contig, Device>;
using In = Read<float>;
using Out = Write<float>;
using MaybeOut = std::optional<Out>;
using Release = nb::call_guard<nb::gil_scoped_release>;

cudaStream_t stream_of(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }
float* or_null(MaybeOut& array) { return array ? array->data() : nullptr; }

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
    m.def("sum_rows", &cuda::sum_rows);
    m.def(
        "project",
        [](In means, In quats, In scales, In opacities, In world_to_camera, std::vector<double> numbers,
           bool antialiased, bool raw, Out means2d, Out conics, Out depths, Out effective, Out extents,
           uintptr_t stream) {
            cuda::project(gaussians_of(means, quats, scales, opacities, raw), settings_of(numbers, antialiased),
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
            cuda::project_backward(
                gaussians_of(means, quats, scales, opacities, raw), settings_of(numbers, antialiased),
                world_to_camera.data(),
                {v_means2d.data(), v_conics.data(), v_depths.data(), v_effective.data(), nullptr}, extents.data(),
                {v_means.data(), v_quats.data(), v_scales.data(), v_opacities.data(), or_null(v_pose)}, partial.data(),
                stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
        nb::arg(), Release());
    m.def(
        "spherical_harmonics",
        [](In sh, In means, In centre, Read<bool> visible, int degree, Out colours, uintptr_t stream) {
            cuda::spherical_harmonics(sh_of(sh, means, centre, visible, degree), colours.data(), stream_of(stream));
        },
        Release());
    m.def(
        "spherical_harmonics_backward",
        [](In sh, In means, In centre, Read<bool> visible, int degree, In colours, In v_colours, Out v_sh, Out v_means,
           Out v_centre, Out partial, uintptr_t stream) {
            cuda::spherical_harmonics_backward(sh_of(sh, means, centre, visible, degree), colours.data(),
                                               v_colours.data(), v_sh.data(), v_means.data(), v_centre.data(),
                                               partial.data(), stream_of(stream));
        },
        Release());
}

// The weights of three heads, in the order of cuda_ext/anchors.py; what is empty is not there.
template <class S, class Arrays> HeadArrays<S> heads_of(Arrays& arrays, size_t first = 0) {
    auto data = [&](size_t i) { return arrays.at(first + i).size() ? arrays[first + i].data() : nullptr; };
    return {data(0), data(1), data(2), data(3), {data(4), data(6), data(8)}, {data(5), data(7), data(9)}};
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
        return cuda::anchor_scratch(anchors_of(inputs, rows), backward);
    });
    m.def("anchor_scan_bytes", &cuda::anchor_scan_bytes);
    m.def(
        "decode_logits",
        [](std::vector<In> inputs, Read<int32_t> rows, Out logits, Write<int32_t> ranks, Write<int64_t> totals,
           Write<uint8_t> scan, Out scratch, uintptr_t stream) {
            cuda::decode_logits(anchors_of(inputs, rows), {ranks.data(), totals.data(), scan.data(), scan.size()},
                                logits.data(), scratch.data(), stream_of(stream));
        },
        Release());
    m.def(
        "write_gaussians",
        [](std::vector<In> inputs, Read<int32_t> rows, In logits, Read<int32_t> ranks, Out means, Out quats, Out scales,
           Out opacities, Out colours, Write<int32_t> origin, uintptr_t stream) {
            cuda::write_gaussians(
                anchors_of(inputs, rows), logits.data(), ranks.data(),
                {means.data(), quats.data(), scales.data(), opacities.data(), colours.data(), origin.data()},
                stream_of(stream));
        },
        Release());
    m.def(
        "decode_anchors_backward",
        [](std::vector<In> inputs, Read<int32_t> rows, In scales, In opacities, In colours, Read<int32_t> origin,
           std::vector<In> gradients, std::vector<Out> outputs, Out scratch, uintptr_t stream) {
            cuda::decode_anchors_backward(anchors_of(inputs, rows),
                                          {int64_t(opacities.size()), scales.data(), opacities.data(), colours.data(),
                                           origin.data(), gradients.at(0).data(), gradients.at(1).data(),
                                           gradients.at(2).data(), gradients.at(3).data(), gradients.at(4).data(),
                                           outputs.at(0).data(), outputs.at(1).data(), outputs.at(2).data(),
                                           heads_of<float>(outputs, 3)},
                                          scratch.data(), stream_of(stream));
        },
        Release());
}

cuda::BinSizes sizes_of(int64_t count, const Write<int32_t>& order, int64_t room_pairs, int width, int height) {
    return {count, int64_t(order.size()), room_pairs, width, height};
}

void bind_binning(nb::module_& m) {
    m.def("binning_scratch", [](int64_t count, int64_t room_visible, int64_t room_pairs, int width, int height) {
        return cuda::binning_scratch({count, room_visible, room_pairs, width, height});
    });
    m.def(
        "order_by_depth",
        [](Out means2d, Out conics, Out depths, Out opacities, Out extents, int64_t room_pairs, int width, int height,
           Write<int32_t> order, Write<int32_t> offsets, Write<int64_t> totals, Write<uint8_t> scratch,
           uintptr_t stream) {
            cuda::order_by_depth({means2d.data(), conics.data(), depths.data(), opacities.data(), extents.data()},
                                 sizes_of(int64_t(opacities.size()), order, room_pairs, width, height),
                                 {order.data(), offsets.data(), reinterpret_cast<uint64_t*>(totals.data())},
                                 scratch.data(), stream_of(stream));
        },
        Release());
    m.def(
        "list_pairs",
        [](Out means2d, Out conics, Out depths, Out opacities, Out extents, int width, int height, Write<int32_t> order,
           Write<int32_t> offsets, Write<int64_t> totals, Write<int32_t> gaussians, Write<uint16_t> blocks,
           Write<int32_t> slots, Write<int32_t> tile_offsets, Write<uint8_t> scratch, uintptr_t stream) {
            cuda::list_pairs({means2d.data(), conics.data(), depths.data(), opacities.data(), extents.data()},
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
    cuda::Bins arrays() const {
        return {gaussians.data(),          blocks.data(),        slots.data(),
                tile_offsets.data(),       order.data(),         order_offsets.data(),
                int64_t(gaussians.size()), int64_t(order.size())};
    }
};

cuda::CompositeInputs composite_inputs(const In& means2d, const In& conics, const In& opacities, const In& features,
                                       const In& background, const cuda::Bins& bins, int width, int height) {
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
    m.def("trail_size", &cuda::trail_size);
    m.def("record_size", &cuda::record_size);
    m.def(
        "composite",
        [](In means2d, In conics, In opacities, In features, In background, Read<int32_t> gaussians,
           Read<uint16_t> blocks, Read<int32_t> slots, Read<int32_t> tile_offsets, Read<int32_t> order,
           Read<int32_t> order_offsets, int width, int height, Out image, Out transmittance, MaybeOut trail,
           uintptr_t stream) {
            const BinInputs bins{gaussians, blocks, slots, tile_offsets, order, order_offsets};
            cuda::composite(
                composite_inputs(means2d, conics, opacities, features, background, bins.arrays(), width, height),
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
            cuda::composite_backward(
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
            cuda::contributions({int64_t(opacities.size()), width, height, 0, means2d.data(), conics.data(),
                                 opacities.data(), nullptr, nullptr, bins.arrays()},
                                transmittance.data(), trail.data(), records.data(), weights.data(), stream_of(stream));
        },
        Release());
}

cuda::Images images_of(const In& image, const In& target) {
    return {image.data(), target.data(), int(image.shape(1)), int(image.shape(0)), int(image.shape(2))};
}

void bind_training(nb::module_& m) {
    m.def("photometric_rows", &cuda::photometric_rows);
    m.def(
        "photometric",
        [](In image, In target, Out means, Out maps, Out partial, uintptr_t stream) {
            cuda::photometric(images_of(image, target), means.data(), maps.data(), partial.data(), stream_of(stream));
        },
        Release());
    m.def(
        "photometric_backward",
        [](In image, In target, In maps, In v_means, Out v_image, uintptr_t stream) {
            cuda::photometric_backward(images_of(image, target), maps.data(), v_means.data(), v_image.data(),
                                       stream_of(stream));
        },
        Release());
    m.def(
        "adam_step",
        [](Out parameter, In gradient, Out moment1, Out moment2, In rates, std::optional<Read<bool>> rows,
           int64_t count, int64_t step, double beta1, double beta2, double epsilon, uintptr_t stream) {
            cuda::adam({parameter.data(), moment1.data(), moment2.data(), gradient.data(), rates.data(),
                        rows ? rows->data() : nullptr, count, int64_t(rates.size())},
                       {step, beta1, beta2, epsilon}, stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), Release());
    m.def(
        "perturb_means",
        [](Out means, In quats, In log_scales, In logit_opacities, double strength, uint64_t seed, uintptr_t stream) {
            cuda::perturb_means(means.data(), quats.data(), log_scales.data(), logit_opacities.data(),
                                int64_t(logit_opacities.size()), float(strength), seed, stream_of(stream));
        },
        Release());
    m.def(
        "copy_numbers",
        [](In from, Out to, uintptr_t stream) {
            cuda::copy_numbers(from.data(), to.data(), int64_t(from.size()), stream_of(stream));
        },
        Release());
    m.def(
        "multiply_add",
        [](Out sink, int rounds, uintptr_t stream) {
            cuda::multiply_add(sink.data(), int64_t(sink.size()), rounds, stream_of(stream));
        },
        Release());
}

using Numbers = std::vector<double>;
using Counts = std::vector<int64_t>;
using MaybeChoice = std::optional<Read<uint8_t>>;

const uint8_t* or_null(const MaybeChoice& choice) { return choice ? choice->data() : nullptr; }

void bind_hash_grid(nb::module_& m) {
    m.def(
        "hash_grid",
        [](In positions, std::optional<In> along, In table, MaybeChoice choice, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out out, uintptr_t stream) {
            cuda::hash_grid(hash_grid_of<float>(int(positions.shape(1)), int(table.shape(1)), scales, sides, offsets,
                                                interpolation, probes, log2_entries, or_null(choice)),
                            positions.data(), along ? along->data() : nullptr, table.data(),
                            int64_t(positions.shape(0)), out.data(), stream_of(stream));
        },
        Release());
    m.def(
        "hash_grid_table_backward",
        [](In positions, std::optional<In> along, MaybeChoice choice, In v_out, In largest, Numbers scales,
           Counts sides, Counts offsets, int interpolation, int probes, int log2_entries, Write<int64_t> sums,
           Out v_table, uintptr_t stream) {
            cuda::hash_grid_table_backward(
                hash_grid_of<float>(int(positions.shape(1)), int(v_table.shape(1)), scales, sides, offsets,
                                    interpolation, probes, log2_entries, or_null(choice)),
                positions.data(), along ? along->data() : nullptr, v_out.data(), int64_t(positions.shape(0)),
                largest.data(), int64_t(v_table.size()), sums.data(), v_table.data(), stream_of(stream));
        },
        Release());
    m.def(
        "hash_grid_positions_backward",
        [](In positions, std::optional<In> along, In table, MaybeChoice choice, In v_out, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out v_positions, uintptr_t stream) {
            cuda::hash_grid_positions_backward(
                hash_grid_of<float>(int(positions.shape(1)), int(table.shape(1)), scales, sides, offsets, interpolation,
                                    probes, log2_entries, or_null(choice)),
                positions.data(), along ? along->data() : nullptr, table.data(), v_out.data(),
                int64_t(positions.shape(0)), v_positions.data(), stream_of(stream));
        },
        Release());
    m.def(
        "probed_hash_grid_backward",
        [](In positions, In table, In probabilities, In v_out, In largest, Numbers scales, Counts sides, Counts offsets,
           int interpolation, int probes, int log2_entries, Write<int64_t> sums, Write<int64_t> choice_sums,
           Out v_table, Out v_probabilities, uintptr_t stream) {
            cuda::probed_hash_grid_backward(
                hash_grid_of<float>(int(positions.shape(1)), int(table.shape(1)), scales, sides, offsets, interpolation,
                                    probes, log2_entries, nullptr),
                positions.data(), table.data(), probabilities.data(), v_out.data(), int64_t(positions.shape(0)),
                largest.data(), int64_t(v_table.size()), sums.data(), v_table.data(), int64_t(v_probabilities.size()),
                choice_sums.data(), v_probabilities.data(), stream_of(stream));
        },
        Release());
}

GraphArrays<float> graph_of(const Read<int32_t>& neighbours, const In& weights, const Read<int32_t>& starts,
                            const Read<int32_t>& arrivals, int channels) {
    return {int64_t(neighbours.shape(0)),
            int(neighbours.shape(1)),
            channels,
            neighbours.data(),
            weights.data(),
            starts.data(),
            arrivals.data()};
}

void bind_neighbours(nb::module_& m) {
    m.def(
        "aggregate_neighbours",
        [](In features, Read<int32_t> neighbours, In weights, Read<int32_t> starts, Read<int32_t> arrivals, Out out,
           Write<int32_t> edges, Out messages, uintptr_t stream) {
            cuda::aggregate_neighbours(graph_of(neighbours, weights, starts, arrivals, int(features.shape(1))),
                                       features.data(), out.data(), edges.data(), messages.data(), stream_of(stream));
        },
        Release());
    m.def(
        "aggregate_neighbours_backward",
        [](Read<int32_t> neighbours, In weights, Read<int32_t> starts, Read<int32_t> arrivals, Read<int32_t> edges,
           In v_out, Out v_features, Out v_messages, uintptr_t stream) {
            cuda::aggregate_neighbours_backward(graph_of(neighbours, weights, starts, arrivals, int(v_out.shape(1))),
                                                edges.data(), v_out.data(), v_features.data(), v_messages.data(),
                                                stream_of(stream));
        },
        Release());
}

MarchArrays<float> march_of(const In& origins, const In& directions, const In& near, const In& far, const In& jitter,
                            const Read<uint8_t>& bits, int most) {
    return {int64_t(near.size()), most,       origins.data(), directions.data(),
            near.data(),          far.data(), jitter.data(),  bits.data()};
}

MarchLayout<float> march_layout_of(std::pair<int, int> shape, const std::array<double, 3>& steps) {
    return march_layout<float>(shape.first, shape.second, steps[0], steps[1], steps[2]);
}

PackedRays packed_rays(const Read<int32_t>& starts, int64_t samples) {
    return {int64_t(starts.size()) - 1, samples, starts.data()};
}

void bind_rays(nb::module_& m) {
    m.def(
        "march_count",
        [](In origins, In directions, In near, In far, In jitter, Read<uint8_t> bits, std::pair<int, int> shape,
           std::array<double, 3> steps, int most, Write<int32_t> counts, uintptr_t stream) {
            cuda::march_count(march_layout_of(shape, steps),
                              march_of(origins, directions, near, far, jitter, bits, most), counts.data(),
                              stream_of(stream));
        },
        Release());
    m.def(
        "march_write",
        [](In origins, In directions, In near, In far, In jitter, Read<uint8_t> bits, std::pair<int, int> shape,
           std::array<double, 3> steps, int most, Read<int32_t> starts, Out t0, Out t1, Write<int32_t> ray,
           uintptr_t stream) {
            cuda::march_write(march_layout_of(shape, steps),
                              march_of(origins, directions, near, far, jitter, bits, most),
                              {starts.data(), t0.data(), t1.data(), ray.data()}, stream_of(stream));
        },
        Release());
    m.def(
        "composite_rays",
        [](In optical, In values, Read<int32_t> starts, Out sums, Out transmittance, Out weights, Write<int32_t> ends,
           uintptr_t stream) {
            cuda::composite_rays({packed_rays(starts, int64_t(optical.size())), int(values.shape(1)), values.data()},
                                 optical.data(), {sums.data(), transmittance.data(), weights.data(), ends.data()},
                                 stream_of(stream));
        },
        Release());
    m.def(
        "composite_rays_backward",
        [](In values, Read<int32_t> starts, In transmittance, In weights, Read<int32_t> ends, In v_sums,
           In v_transmittance, In v_weights, Out v_optical, Out v_values, uintptr_t stream) {
            cuda::composite_rays_backward(
                {packed_rays(starts, int64_t(weights.size())), int(values.shape(1)), values.data()},
                {transmittance.data(), weights.data(), ends.data(), v_sums.data(), v_transmittance.data(),
                 v_weights.data(), v_optical.data(), v_values.data()},
                stream_of(stream));
        },
        Release());
    m.def(
        "distortion",
        [](In weights, In t0, In t1, Read<int32_t> starts, Out out, uintptr_t stream) {
            cuda::distortion({packed_rays(starts, int64_t(weights.size())), weights.data(), t0.data(), t1.data()},
                             out.data(), stream_of(stream));
        },
        Release());
    m.def(
        "distortion_backward",
        [](In weights, In t0, In t1, Read<int32_t> starts, In v_out, Out v_weights, uintptr_t stream) {
            cuda::distortion_backward(
                {packed_rays(starts, int64_t(weights.size())), weights.data(), t0.data(), t1.data()}, v_out.data(),
                v_weights.data(), stream_of(stream));
        },
        Release());
}

void bind_fields(nb::module_& m) {
    m.def(
        "adam_step_touched",
        [](Out parameter, In gradient, Out moment1, Out moment2, Write<int16_t> counts, In rates, In scales,
           double beta1, double beta2, double epsilon, uintptr_t stream) {
            cuda::adam_touched({parameter.data(), moment1.data(), moment2.data(), gradient.data(), rates.data(),
                                nullptr, int64_t(parameter.size() / rates.size()), int64_t(rates.size()),
                                counts.data()},
                               {scales.data(), int(scales.shape(0))}, {1, beta1, beta2, epsilon}, stream_of(stream));
        },
        Release());
    m.def(
        "harmonics_basis",
        [](In directions, int degree, Out values, uintptr_t stream) {
            cuda::harmonics_basis(degree, directions.data(), int64_t(directions.shape(0)), values.data(),
                                  stream_of(stream));
        },
        Release());
    m.def(
        "harmonics_basis_backward",
        [](In directions, In v_values, int degree, Out v_directions, uintptr_t stream) {
            cuda::harmonics_basis_backward(degree, directions.data(), v_values.data(), int64_t(directions.shape(0)),
                                           v_directions.data(), stream_of(stream));
        },
        Release());
    m.def("mlp_scratch", [](int inputs, int outputs, int width, int hidden, int64_t count, bool backward) {
        return cuda::mlp_scratch({inputs, outputs, width, hidden}, count, backward);
    });
    m.def(
        "mlp",
        [](In inputs, In weights, int width, int hidden, Out outputs, Out scratch, uintptr_t stream) {
            cuda::mlp({int(inputs.shape(1)), int(outputs.shape(1)), width, hidden}, inputs.data(), weights.data(),
                      int64_t(inputs.shape(0)), outputs.data(), scratch.data(), stream_of(stream));
        },
        Release());
    m.def(
        "mlp_backward",
        [](In inputs, In weights, In v_outputs, int width, int hidden, MaybeOut v_inputs, MaybeOut v_weights,
           Out scratch, uintptr_t stream) {
            cuda::mlp_backward(
                {int(inputs.shape(1)), int(v_outputs.shape(1)), width, hidden}, weights.data(),
                {int64_t(inputs.shape(0)), inputs.data(), v_outputs.data(), or_null(v_inputs), or_null(v_weights)},
                scratch.data(), stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(),
        Release());
}

} // namespace

void bind_cuda(nb::module_& m) {
    bind_projection(m);
    bind_anchors(m);
    bind_binning(m);
    bind_compositing(m);
    bind_training(m);
    bind_hash_grid(m);
    bind_neighbours(m);
    bind_rays(m);
    bind_fields(m);
}
