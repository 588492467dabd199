// The compiled module.
#include "bindings/cpu.h"
#include "common/compositing.h"
#include "cpu/parallel.h"

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>
#endif

using namespace anchorfield;

// Images and gradients of megabytes come and go in every step. glibc would give each back to the system and pay for its
// pages again, which costs more than the kernels that fill them; now they come from the heap, of which 1 GiB may lie free.
static void keep_freed_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

#ifdef AF_CUDA
void bind_cuda(nb::module_& m); // cuda_module.cpp
#endif

NB_MODULE(_kernels, m) {
    m.doc() = "Compiled kernels; use the typed functions of anchorfield.cuda_ext instead.";
    bind_splats(m);
    bind_training(m);
    bind_fields(m);
    m.def(
        "colours_of_pixels",
        [](In<uint8_t> pixels, In<float> background, int reduction, Out<float> colours) {
            kernels<float>().colours_of_pixels(pixels.data(), int(pixels.shape(1)), int(pixels.shape(0)),
                                               int(pixels.shape(2)), reduction, background.data(), colours.data());
        },
        Release());
    m.def("fma_rate", [](int64_t rounds) { return kernels<float>().fma_rate(rounds); }, Release());
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
