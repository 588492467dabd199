// Hash grids, neighbours, rays, perceptrons.
#include "bindings/cpu.h"

#include <array>
#include <utility>

namespace anchorfield {
namespace {

using MaybeChoice = std::optional<nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>>;

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

template <class S> void bind(nb::module_& m) {
    m.def(
        "hash_grid",
        [](In<S> positions, std::optional<In<S>> along, In<S> table, MaybeChoice choice, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out<S> out) {
            kernels<S>().hash_grid(hash_grid_of<S>(int(positions.shape(1)), int(table.shape(1)), scales, sides, offsets,
                                                   interpolation, probes, log2_entries, or_null(choice)),
                                   positions.data(), or_null(along), table.data(), int64_t(positions.shape(0)),
                                   out.data());
        },
        Release());
    m.def(
        "hash_grid_table_backward",
        [](In<S> positions, std::optional<In<S>> along, MaybeChoice choice, In<S> v_out, Numbers scales, Counts sides,
           Counts offsets, int interpolation, int probes, int log2_entries, Out<S> v_table) {
            kernels<S>().hash_grid_table_backward(
                hash_grid_of<S>(int(positions.shape(1)), int(v_table.shape(1)), scales, sides, offsets, interpolation,
                                probes, log2_entries, or_null(choice)),
                positions.data(), or_null(along), v_out.data(), int64_t(positions.shape(0)), v_table.data());
        },
        Release());
    m.def(
        "hash_grid_positions_backward",
        [](In<S> positions, std::optional<In<S>> along, In<S> table, MaybeChoice choice, In<S> v_out, Numbers scales,
           Counts sides, Counts offsets, int interpolation, int probes, int log2_entries, Out<S> v_positions) {
            kernels<S>().hash_grid_positions_backward(hash_grid_of<S>(int(positions.shape(1)), int(table.shape(1)),
                                                                      scales, sides, offsets, interpolation, probes,
                                                                      log2_entries, or_null(choice)),
                                                      positions.data(), or_null(along), table.data(), v_out.data(),
                                                      int64_t(positions.shape(0)), v_positions.data());
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

} // namespace

void bind_fields(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

} // namespace anchorfield
