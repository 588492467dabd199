// Chooses, when the module loads, the best instruction set that this processor has.
#include "cpu/dispatch.h"

#include "cpu/kernels.h"

#include <cstdlib>

namespace anchorfield {

namespace portable {
extern const Kernels<float> float_kernels;
extern const Kernels<double> double_kernels;
} // namespace portable
#ifdef AF_X86
namespace x86_64_v3 {
extern const Kernels<float> float_kernels;
}
namespace x86_64_v4 {
extern const Kernels<float> float_kernels;
}
#endif

namespace {

struct Choice {
    std::string name;
    const Kernels<float>* kernels;
};

// Best last.
std::vector<Choice> choices() {
    std::vector<Choice> list = {{"portable", &portable::float_kernels}};
#ifdef AF_X86
    if (__builtin_cpu_supports("x86-64-v3")) list.push_back({"x86-64-v3", &x86_64_v3::float_kernels});
    if (__builtin_cpu_supports("x86-64-v4")) list.push_back({"x86-64-v4", &x86_64_v4::float_kernels});
#endif
    return list;
}

Choice& chosen() {
    static Choice choice = choices().back();
    return choice;
}

} // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Choice& choice : choices()) names.push_back(choice.name);
    return names;
}

std::string instruction_set() { return chosen().name; }

bool set_instruction_set(const std::string& name) {
    for (const Choice& choice : choices())
        if (choice.name == name) {
            chosen() = choice;
            return true;
        }
    return false;
}

template <> const Kernels<float>& kernels<float>() { return *chosen().kernels; }
template <> const Kernels<double>& kernels<double>() { return portable::double_kernels; }

} // namespace anchorfield
