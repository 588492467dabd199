// Hash grids, neighbours, rays, perceptrons.
#include "bindings/cuda.h"

#include <utility>

namespace anchorfield::cuda {
namespace {

using MaybeChoice = std::optional<Read<uint8_t>>;

void bind_hash_grid(nb::module_& m) {
    m.def(
        "hash_grid",
        [](In positions, std::optional<In> along, In table, MaybeChoice choice, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out out, uintptr_t stream) {
            hash_grid(hash_grid_of<float>(int(positions.shape(1)), int(table.shape(1)), scales, sides, offsets,
                                          interpolation, probes, log2_entries, or_null(choice)),
                      positions.data(), or_null(along), table.data(), int64_t(positions.shape(0)), out.data(),
                      stream_of(stream));
        },
        Release());
    m.def(
        "hash_grid_table_backward",
        [](In positions, std::optional<In> along, MaybeChoice choice, In v_out, In largest, Numbers scales,
           Counts sides, Counts offsets, int interpolation, int probes, int log2_entries, Write<int64_t> sums,
           Out v_table, uintptr_t stream) {
            hash_grid_table_backward(hash_grid_of<float>(int(positions.shape(1)), int(v_table.shape(1)), scales, sides,
                                                         offsets, interpolation, probes, log2_entries, or_null(choice)),
                                     positions.data(), or_null(along), v_out.data(), int64_t(positions.shape(0)),
                                     largest.data(), int64_t(v_table.size()), sums.data(), v_table.data(),
                                     stream_of(stream));
        },
        Release());
    m.def(
        "hash_grid_positions_backward",
        [](In positions, std::optional<In> along, In table, MaybeChoice choice, In v_out, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out v_positions, uintptr_t stream) {
            hash_grid_positions_backward(hash_grid_of<float>(int(positions.shape(1)), int(table.shape(1)), scales,
                                                             sides, offsets, interpolation, probes, log2_entries,
                                                             or_null(choice)),
                                         positions.data(), or_null(along), table.data(), v_out.data(),
                                         int64_t(positions.shape(0)), v_positions.data(), stream_of(stream));
        },
        Release());
    m.def(
        "probed_hash_grid_backward",
        [](In positions, In table, In probabilities, In v_out, In largest, Numbers scales, Counts sides, Counts offsets,
           int interpolation, int probes, int log2_entries, Write<int64_t> sums, Write<int64_t> choice_sums,
           Out v_table, Out v_probabilities, uintptr_t stream) {
            probed_hash_grid_backward(hash_grid_of<float>(int(positions.shape(1)), int(table.shape(1)), scales, sides,
                                                          offsets, interpolation, probes, log2_entries, nullptr),
                                      positions.data(), table.data(), probabilities.data(), v_out.data(),
                                      int64_t(positions.shape(0)), largest.data(), int64_t(v_table.size()), sums.data(),
                                      v_table.data(), int64_t(v_probabilities.size()), choice_sums.data(),
                                      v_probabilities.data(), stream_of(stream));
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
            aggregate_neighbours(graph_of(neighbours, weights, starts, arrivals, int(features.shape(1))),
                                 features.data(), out.data(), edges.data(), messages.data(), stream_of(stream));
        },
        Release());
    m.def(
        "aggregate_neighbours_backward",
        [](Read<int32_t> neighbours, In weights, Read<int32_t> starts, Read<int32_t> arrivals, Read<int32_t> edges,
           In v_out, Out v_features, Out v_messages, uintptr_t stream) {
            aggregate_neighbours_backward(graph_of(neighbours, weights, starts, arrivals, int(v_out.shape(1))),
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
            march_count(march_layout_of(shape, steps), march_of(origins, directions, near, far, jitter, bits, most),
                        counts.data(), stream_of(stream));
        },
        Release());
    m.def(
        "march_write",
        [](In origins, In directions, In near, In far, In jitter, Read<uint8_t> bits, std::pair<int, int> shape,
           std::array<double, 3> steps, int most, Read<int32_t> starts, Out t0, Out t1, Write<int32_t> ray,
           uintptr_t stream) {
            march_write(march_layout_of(shape, steps), march_of(origins, directions, near, far, jitter, bits, most),
                        {starts.data(), t0.data(), t1.data(), ray.data()}, stream_of(stream));
        },
        Release());
    m.def(
        "composite_rays",
        [](In optical, In values, Read<int32_t> starts, Out sums, Out transmittance, Out weights, Write<int32_t> ends,
           uintptr_t stream) {
            composite_rays({packed_rays(starts, int64_t(optical.size())), int(values.shape(1)), values.data()},
                           optical.data(), {sums.data(), transmittance.data(), weights.data(), ends.data()},
                           stream_of(stream));
        },
        Release());
    m.def(
        "composite_rays_backward",
        [](In values, Read<int32_t> starts, In transmittance, In weights, Read<int32_t> ends, In v_sums,
           In v_transmittance, In v_weights, Out v_optical, Out v_values, uintptr_t stream) {
            composite_rays_backward({packed_rays(starts, int64_t(weights.size())), int(values.shape(1)), values.data()},
                                    {transmittance.data(), weights.data(), ends.data(), v_sums.data(),
                                     v_transmittance.data(), v_weights.data(), v_optical.data(), v_values.data()},
                                    stream_of(stream));
        },
        Release());
    m.def(
        "distortion",
        [](In weights, In t0, In t1, Read<int32_t> starts, Out out, uintptr_t stream) {
            distortion({packed_rays(starts, int64_t(weights.size())), weights.data(), t0.data(), t1.data()}, out.data(),
                       stream_of(stream));
        },
        Release());
    m.def(
        "distortion_backward",
        [](In weights, In t0, In t1, Read<int32_t> starts, In v_out, Out v_weights, uintptr_t stream) {
            distortion_backward({packed_rays(starts, int64_t(weights.size())), weights.data(), t0.data(), t1.data()},
                                v_out.data(), v_weights.data(), stream_of(stream));
        },
        Release());
}

void bind_perceptrons(nb::module_& m) {
    m.def(
        "harmonics_basis",
        [](In directions, int degree, Out values, uintptr_t stream) {
            harmonics_basis(degree, directions.data(), int64_t(directions.shape(0)), values.data(), stream_of(stream));
        },
        Release());
    m.def(
        "harmonics_basis_backward",
        [](In directions, In v_values, int degree, Out v_directions, uintptr_t stream) {
            harmonics_basis_backward(degree, directions.data(), v_values.data(), int64_t(directions.shape(0)),
                                     v_directions.data(), stream_of(stream));
        },
        Release());
    m.def("mlp_scratch", [](int inputs, int outputs, int width, int hidden, int64_t count, bool backward) {
        return mlp_scratch({inputs, outputs, width, hidden}, count, backward);
    });
    m.def(
        "mlp",
        [](In inputs, In weights, int width, int hidden, Out outputs, Out scratch, uintptr_t stream) {
            mlp({int(inputs.shape(1)), int(outputs.shape(1)), width, hidden}, inputs.data(), weights.data(),
                int64_t(inputs.shape(0)), outputs.data(), scratch.data(), stream_of(stream));
        },
        Release());
    m.def(
        "mlp_backward",
        [](In inputs, In weights, In v_outputs, int width, int hidden, MaybeOut v_inputs, MaybeOut v_weights,
           Out scratch, uintptr_t stream) {
            mlp_backward(
                {int(inputs.shape(1)), int(v_outputs.shape(1)), width, hidden}, weights.data(),
                {int64_t(inputs.shape(0)), inputs.data(), v_outputs.data(), or_null(v_inputs), or_null(v_weights)},
                scratch.data(), stream_of(stream));
        },
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(),
        Release());
}

} // namespace

void bind_fields(nb::module_& m) {
    bind_hash_grid(m);
    bind_neighbours(m);
    bind_rays(m);
    bind_perceptrons(m);
}

} // namespace anchorfield::cuda
