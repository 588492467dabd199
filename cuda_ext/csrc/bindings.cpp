// The Python face of the kernels: dense DLPack arrays in, results written into arrays that the caller made. Shapes are
// checked on the Python side, where a message can name the argument; here types, density and the processor are checked.
#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "common/compositing.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace nb = nanobind;
using namespace anchorfield;

template <class S> using In = nb::ndarray<const S, nb::c_contig, nb::device::cpu>;
template <class S> using Out = nb::ndarray<S, nb::c_contig, nb::device::cpu>;
template <class S> using MaybeOut = std::optional<Out<S>>;
using Rows = nb::ndarray<const bool, nb::c_contig, nb::device::cpu>;

using MaybeChoice = std::optional<nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>>;
using Numbers = std::vector<double>;
using Counts = std::vector<int64_t>;

const uint8_t* or_null(const MaybeChoice& choice) { return choice ? choice->data() : nullptr; }
template <class S> S* or_null(MaybeOut<S>& array) { return array ? array->data() : nullptr; }

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

template <class S> ImagePair<S> images_of(const In<S>& image, const In<S>& target, const std::optional<Rows>& mask) {
    return {int(image.shape(1)), int(image.shape(0)), int(image.shape(2)),
            image.data(),        target.data(),       mask ? mask->data() : nullptr};
}

template <class S>
GraphArrays<S> graph_of(const In<int32_t>& neighbours, const In<S>& weights, const In<int32_t>& starts,
                        const In<int32_t>& arrivals, int channels) {
    return {int64_t(neighbours.shape(0)),
            int(neighbours.shape(1)),
            channels,
            neighbours.data(),
            weights.data(),
            starts.data(),
            arrivals.data()};
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

// The weights of three heads, in the order of cuda_ext/anchors.py; what is empty is not there.
template <class S, class Arrays> HeadArrays<S> heads_of(Arrays& arrays, size_t first = 0) {
    auto data = [&](size_t i) { return arrays.at(first + i).size() ? arrays[first + i].data() : nullptr; };
    return {data(0), data(1), data(2), data(3), {data(4), data(6), data(8)}, {data(5), data(7), data(9)}};
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
                fade ? fade->data() : nullptr};
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

// Packed rays need starts that ascend from 0 to the number of samples.
PackedRays packed_rays(const In<int32_t>& starts, int64_t samples) {
    const int64_t rays = int64_t(starts.size()) - 1;
    const int32_t* s = starts.data();
    for (int64_t r = 0; r <= rays; ++r)
        if (s[r] < (r ? s[r - 1] : 0) || s[r] > samples)
            throw nb::value_error(("starts: expected ascending numbers up to " + std::to_string(samples) + ", got " +
                                   std::to_string(s[r]) + " for ray " + std::to_string(r))
                                      .c_str());
    if (s[0] != 0 || s[rays] != samples)
        throw nb::value_error(("starts: expected 0 to " + std::to_string(samples) + ", the number of samples, got " +
                               std::to_string(s[0]) + " to " + std::to_string(s[rays]))
                                  .c_str());
    return {rays, samples, s};
}

template <class S>
MarchArrays<S> march_of(const In<S>& origins, const In<S>& directions, const In<S>& near, const In<S>& far,
                        const In<S>& jitter, const In<uint8_t>& bits, int most) {
    return {int64_t(near.size()), most,       origins.data(), directions.data(),
            near.data(),          far.data(), jitter.data(),  bits.data()};
}

template <class S> MarchLayout<S> march_layout_of(std::pair<int, int> shape, const std::array<double, 3>& steps) {
    return march_layout<S>(shape.first, shape.second, steps[0], steps[1], steps[2]);
}

template <class S> void bind(nb::module_& m) {
    using Release = nb::call_guard<nb::gil_scoped_release>;
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
            kernels<S>().adam(arrays, rows ? rows->data() : nullptr, {step, beta1, beta2, epsilon});
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), Release());
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
    m.def(
        "hash_grid",
        [](In<S> positions, std::optional<In<S>> along, In<S> table, MaybeChoice choice, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out<S> out) {
            kernels<S>().hash_grid(hash_grid_of<S>(int(positions.shape(1)), int(table.shape(1)), scales, sides, offsets,
                                                   interpolation, probes, log2_entries, or_null(choice)),
                                   positions.data(), along ? along->data() : nullptr, table.data(),
                                   int64_t(positions.shape(0)), out.data());
        },
        Release());
    m.def(
        "hash_grid_table_backward",
        [](In<S> positions, std::optional<In<S>> along, MaybeChoice choice, In<S> v_out, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out<S> v_table) {
            kernels<S>().hash_grid_table_backward(hash_grid_of<S>(int(positions.shape(1)), int(v_table.shape(1)),
                                                                  scales, sides, offsets, interpolation, probes,
                                                                  log2_entries, or_null(choice)),
                                                  positions.data(), along ? along->data() : nullptr, v_out.data(),
                                                  int64_t(positions.shape(0)), v_table.data());
        },
        Release());
    m.def(
        "hash_grid_positions_backward",
        [](In<S> positions, std::optional<In<S>> along, In<S> table, MaybeChoice choice, In<S> v_out, Numbers scales,
           Counts sides, Counts offsets, int interpolation, int probes, int log2_entries, Out<S> v_positions) {
            kernels<S>().hash_grid_positions_backward(hash_grid_of<S>(int(positions.shape(1)), int(table.shape(1)),
                                                                      scales, sides, offsets, interpolation, probes,
                                                                      log2_entries, or_null(choice)),
                                                      positions.data(), along ? along->data() : nullptr, table.data(),
                                                      v_out.data(), int64_t(positions.shape(0)), v_positions.data());
        },
        Release());
    m.def(
        "probed_hash_grid_backward",
        [](In<S> positions, In<S> table, In<S> probabilities, In<S> v_out, Numbers scales, Counts sides, Counts offsets,
           int interpolation, int probes, int log2_entries, Out<S> v_table, Out<S> v_probabilities) {
            kernels<S>().probed_hash_grid_backward(hash_grid_of<S>(int(positions.shape(1)), int(table.shape(1)), scales,
                                                                   sides, offsets, interpolation, probes, log2_entries,
                                                                   nullptr),
                                                   positions.data(), table.data(), probabilities.data(), v_out.data(),
                                                   int64_t(positions.shape(0)), v_table.data(), v_probabilities.data());
        },
        Release());
    m.def(
        "aggregate_neighbours",
        [](In<S> features, In<int32_t> neighbours, In<S> weights, In<int32_t> starts, In<int32_t> arrivals, Out<S> out,
           Out<int32_t> edges) {
            kernels<S>().aggregate_neighbours(graph_of(neighbours, weights, starts, arrivals, int(features.shape(1))),
                                              features.data(), out.data(), edges.data());
        },
        Release());
    m.def(
        "aggregate_neighbours_backward",
        [](In<int32_t> neighbours, In<S> weights, In<int32_t> starts, In<int32_t> arrivals, In<int32_t> edges,
           In<S> v_out, Out<S> v_features) {
            kernels<S>().aggregate_neighbours_backward(
                graph_of(neighbours, weights, starts, arrivals, int(v_out.shape(1))), edges.data(), v_out.data(),
                v_features.data());
        },
        Release());
    m.def(
        "march_count",
        [](In<S> origins, In<S> directions, In<S> near, In<S> far, In<S> jitter, In<uint8_t> bits,
           std::pair<int, int> shape, std::array<double, 3> steps, int most, Out<int32_t> counts) {
            kernels<S>().march_count(march_layout_of<S>(shape, steps),
                                     march_of(origins, directions, near, far, jitter, bits, most), counts.data());
        },
        Release());
    m.def(
        "march_write",
        [](In<S> origins, In<S> directions, In<S> near, In<S> far, In<S> jitter, In<uint8_t> bits,
           std::pair<int, int> shape, std::array<double, 3> steps, int most, In<int32_t> starts, Out<S> t0, Out<S> t1,
           Out<int32_t> ray) {
            kernels<S>().march_write(march_layout_of<S>(shape, steps),
                                     march_of(origins, directions, near, far, jitter, bits, most),
                                     {starts.data(), t0.data(), t1.data(), ray.data()});
        },
        Release());
    m.def("composite_rays", [](In<S> optical, In<S> values, In<int32_t> starts, Out<S> sums, Out<S> transmittance,
                               Out<S> weights, Out<int32_t> ends) {
        const RayArrays<S> in = {packed_rays(starts, int64_t(optical.size())), int(values.shape(1)), values.data()};
        nb::gil_scoped_release release;
        kernels<S>().composite_rays(in, optical.data(),
                                    {sums.data(), transmittance.data(), weights.data(), ends.data()});
    });
    m.def("composite_rays_backward", [](In<S> values, In<int32_t> starts, In<S> transmittance, In<S> weights,
                                        In<int32_t> ends, In<S> v_sums, In<S> v_transmittance, In<S> v_weights,
                                        Out<S> v_optical, Out<S> v_values) {
        const RayArrays<S> in = {packed_rays(starts, int64_t(weights.size())), int(values.shape(1)), values.data()};
        nb::gil_scoped_release release;
        kernels<S>().composite_rays_backward(in, {transmittance.data(), weights.data(), ends.data(), v_sums.data(),
                                                  v_transmittance.data(), v_weights.data(), v_optical.data(),
                                                  v_values.data()});
    });
    m.def("distortion", [](In<S> weights, In<S> t0, In<S> t1, In<int32_t> starts, Out<S> out) {
        const DistortionArrays<S> in = {packed_rays(starts, int64_t(weights.size())), weights.data(), t0.data(),
                                        t1.data()};
        nb::gil_scoped_release release;
        kernels<S>().distortion(in, out.data());
    });
    m.def("distortion_backward",
          [](In<S> weights, In<S> t0, In<S> t1, In<int32_t> starts, In<S> v_out, Out<S> v_weights) {
              const DistortionArrays<S> in = {packed_rays(starts, int64_t(weights.size())), weights.data(), t0.data(),
                                              t1.data()};
              nb::gil_scoped_release release;
              kernels<S>().distortion_backward(in, v_out.data(), v_weights.data());
          });
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
        "harmonics_basis",
        [](In<S> directions, int degree, Out<S> values) {
            kernels<S>().harmonics_basis(degree, directions.data(), int64_t(directions.shape(0)), values.data());
        },
        Release());
    m.def(
        "harmonics_basis_backward",
        [](In<S> directions, In<S> v_values, int degree, Out<S> v_directions) {
            kernels<S>().harmonics_basis_backward(degree, directions.data(), v_values.data(),
                                                  int64_t(directions.shape(0)), v_directions.data());
        },
        Release());
    m.def(
        "mlp",
        [](In<S> inputs, In<S> weights, int width, int hidden, Out<S> outputs) {
            kernels<S>().mlp({int(inputs.shape(1)), int(outputs.shape(1)), width, hidden}, inputs.data(),
                             weights.data(), int64_t(inputs.shape(0)), outputs.data());
        },
        Release());
    m.def(
        "mlp_backward",
        [](In<S> inputs, In<S> weights, In<S> v_outputs, int width, int hidden, MaybeOut<S> v_inputs,
           MaybeOut<S> v_weights) {
            kernels<S>().mlp_backward(
                {int(inputs.shape(1)), int(v_outputs.shape(1)), width, hidden}, weights.data(),
                {int64_t(inputs.shape(0)), inputs.data(), v_outputs.data(), or_null(v_inputs), or_null(v_weights)});
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), Release());
}

// Images and gradients of megabytes come and go in every step. glibc would give each back to the system and pay for its
// pages again, which costs more than the kernels that fill them; now they come from the heap, of which 1 GiB may lie free.
static void keep_freed_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

#ifdef AF_CUDA
void bind_cuda(nb::module_& m); // bindings_cuda.cpp
#endif

NB_MODULE(_kernels, m) {
    m.doc() = "Compiled kernels; use the typed functions of anchorfield.cuda_ext instead.";
    bind<float>(m);
    bind<double>(m);
    m.def(
        "colours_of_pixels",
        [](In<uint8_t> pixels, In<float> background, int reduction, Out<float> colours) {
            kernels<float>().colours_of_pixels(pixels.data(), int(pixels.shape(1)), int(pixels.shape(0)),
                                               int(pixels.shape(2)), reduction, background.data(), colours.data());
        },
        nb::call_guard<nb::gil_scoped_release>());
    m.def(
        "fma_rate", [](int64_t rounds) { return kernels<float>().fma_rate(rounds); },
        nb::call_guard<nb::gil_scoped_release>());
    m.def("step_count", [](double t, std::pair<int, int> shape, std::array<double, 3> steps) {
        return march_layout_of<double>(shape, steps).steps.count(t);
    });
    m.def("step_distance", [](double count, std::pair<int, int> shape, std::array<double, 3> steps) {
        return march_layout_of<double>(shape, steps).steps.distance(count);
    });
    m.def("trail_size", &trail_size);
    m.def("keep_freed_memory", &keep_freed_memory);
    m.def("threads", &threads);
    m.def("set_threads", &set_threads);
    m.def("instruction_set", &instruction_set);
    m.def("instruction_sets", &instruction_sets);
    m.def("set_instruction_set", &set_instruction_set);
#ifdef AF_CUDA
    auto cuda = m.def_submodule("cuda", "The kernels for CUDA devices.");
    bind_cuda(cuda);
#endif
}
