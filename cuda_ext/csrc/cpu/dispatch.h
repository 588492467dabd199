#pragma once

#include <string>
#include <vector>

namespace anchorfield {

std::vector<std::string> instruction_sets(); // that this processor runs, best last
std::string instruction_set();               // in use
bool set_instruction_set(const std::string& name);

} // namespace anchorfield
