// Which Gaussians reach which 4x4 blocks of which tiles, front to back: one sort of the visible Gaussians by depth,
// pairs emitted in that order, one stable sort of the pairs by tile. Keys of 16 bits halve the second sort's traffic
// wherever there are fewer than 65,536 tiles.
//
// How many are visible and how many pairs they have is known on the device only. Sorts run over the room that the
// caller guessed, with keys of all ones behind the real ones, so that the host need not know either.
#include "common/binning.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <limits>

namespace anchorfield::cuda {
namespace {

constexpr int kAlone = 8; // a Gaussian with more tiles in its box is tested by its whole warp

int64_t tiles_of(const BinSizes& sizes) { return divide_up(sizes.width, kTile) * divide_up(sizes.height, kTile); }

// ------------------------------------------------------------------------------------------------- CUB, and its memory
template <class Key>
size_t sort_pairs(void* memory, size_t bytes, const Key* keys, Key* keys_out, const int32_t* values,
                  int32_t* values_out, int64_t count, int bits, cudaStream_t stream) {
    check(cub::DeviceRadixSort::SortPairs(memory, bytes, keys, keys_out, values, values_out, int(count), 0, bits,
                                          stream));
    return bytes;
}

size_t running_sum(void* memory, size_t bytes, int32_t* numbers, int64_t count, cudaStream_t stream) {
    check(cub::DeviceScan::InclusiveSum(memory, bytes, numbers, numbers, int(count), stream));
    return bytes;
}

// Hands out parts of one allocation. Without one it only adds up.
class Memory {
  public:
    explicit Memory(void* begin) : begin_(static_cast<char*>(begin)) {}

    template <class T> T* take(int64_t count) { return static_cast<T*>(take_bytes(size_t(count) * sizeof(T))); }

    void* take_bytes(size_t bytes) {
        const size_t at = used_;
        used_ += (bytes + 255) / 256 * 256;
        return begin_ ? begin_ + at : nullptr;
    }

    size_t used() const { return used_; }

  private:
    char* begin_;
    size_t used_ = 0;
};

// ---------------------------------------------------------------------------------------------- first part: the depths
struct DepthMemory {
    int32_t* ranks; // [N] visible Gaussians up to and with this one
    uint32_t *keys, *keys_out;
    int32_t* values; // [room_visible]
    void* cub;
    size_t cub_bytes;

    DepthMemory(const BinSizes& sizes, Memory& memory)
        : ranks(memory.take<int32_t>(sizes.count)), keys(memory.take<uint32_t>(sizes.room_visible)),
          keys_out(memory.take<uint32_t>(sizes.room_visible)), values(memory.take<int32_t>(sizes.room_visible)) {
        const uint32_t* none = nullptr;
        cub_bytes = std::max(
            {running_sum(nullptr, 0, nullptr, sizes.count, nullptr),
             running_sum(nullptr, 0, nullptr, sizes.room_visible, nullptr),
             sort_pairs<uint32_t>(nullptr, 0, none, nullptr, nullptr, nullptr, sizes.room_visible, 32, nullptr)});
        cub = memory.take_bytes(cub_bytes);
    }
};

__global__ void mark_visible(const float* extents, int64_t count, int32_t* flags) {
    const int64_t i = thread_index();
    if (i < count) flags[i] = extents[2 * i] > 0;
}

// The bits of a positive float order like the float.
__global__ void gather_depths(const float* depths, const int32_t* ranks, BinSizes sizes, uint32_t* keys,
                              int32_t* values, uint64_t* totals) {
    const int64_t i = thread_index();
    if (i >= sizes.count) return;
    const int32_t rank = ranks[i], before = i ? ranks[i - 1] : 0;
    if (i == sizes.count - 1) totals[0] = uint64_t(rank);
    if (rank == before || before >= sizes.room_visible) return;
    keys[before] = __float_as_uint(depths[i]);
    values[before] = int32_t(i);
}

__device__ Ellipse<float> ellipse_at(const ProjectedArrays<float>& in, int32_t i, const BinSizes& sizes) {
    const int columns = (sizes.width + kTile - 1) / kTile, rows = (sizes.height + kTile - 1) / kTile;
    return ellipse_of(in.means2d + 2 * int64_t(i), in.conics + 3 * int64_t(i), in.opacities[i],
                      in.extents + 2 * int64_t(i), columns, rows);
}

__device__ int tiles_in_box(const Ellipse<float>& e) { return (e.x1() - e.x0()) * (e.y1() - e.y0()); }

// Calls visit(number of the pair within its Gaussian, tile, blocks) for every tile that this lane's Gaussian meets, and
// returns how many there are. visit may run on other lanes, with `owner` their lane and the Gaussian's number of pairs
// so far unchanged. All lanes of a warp must come, those without a Gaussian with an empty box.
template <class Visit>
__device__ int for_tiles(const ProjectedArrays<float>& in, int32_t gaussian, bool there, const BinSizes& sizes,
                         Visit visit) {
    const int lane = threadIdx.x % kWarp, columns = (sizes.width + kTile - 1) / kTile;
    Ellipse<float> e = {};
    if (there) e = ellipse_at(in, gaussian, sizes);
    int found = 0;
    if (tiles_in_box(e) <= kAlone)
        for (int y = e.y0(); y < e.y1(); ++y)
            for (int x = e.x0(); x < e.x1(); ++x)
                if (const uint32_t blocks = blocks_met(e, x, y)) visit(lane, found++, y * columns + x, blocks);
    for (unsigned big = __ballot_sync(kAllLanes, tiles_in_box(e) > kAlone); big; big &= big - 1) {
        const int owner = __ffs(big) - 1;
        const Ellipse<float> shared = ellipse_at(in, __shfl_sync(kAllLanes, gaussian, owner), sizes);
        int before = 0;
        for (int first = 0; first < tiles_in_box(shared); first += kWarp) {
            const int t = first + lane, x = shared.x0() + t % (shared.x1() - shared.x0()),
                      y = shared.y0() + t / (shared.x1() - shared.x0());
            const uint32_t blocks = t < tiles_in_box(shared) ? blocks_met(shared, x, y) : 0;
            const unsigned met = __ballot_sync(kAllLanes, blocks != 0);
            if (blocks) visit(owner, before + __popc(met & ((1u << lane) - 1)), y * columns + x, blocks);
            before += __popc(met);
        }
        if (lane == owner) found = before;
    }
    return found;
}

// counts[0] = 0 and counts[rank + 1] = the pairs of that Gaussian; zero beyond the visible ones.
__global__ void count_pairs(ProjectedArrays<float> in, BinSizes sizes, const int32_t* order, uint64_t* totals,
                            int32_t* counts) {
    const int64_t rank = thread_index();
    const bool there = rank < sizes.room_visible && uint64_t(rank) < totals[0];
    const int found = for_tiles(in, there ? order[rank] : 0, there, sizes, [](int, int, int, uint32_t) {});
    if (rank < sizes.room_visible) counts[rank + 1] = found;
    if (rank == 0) counts[0] = 0;
    if (found) atomicAdd(reinterpret_cast<unsigned long long*>(totals + 1), static_cast<unsigned long long>(found));
}

// ---------------------------------------------------------------------------------------------- second part: the pairs
template <class Key> struct PairMemory {
    Key *keys, *keys_out;       // [room_pairs] tiles
    int32_t *slots, *gaussians; // [room_pairs] in the order of emission
    uint16_t* blocks;
    void* cub;
    size_t cub_bytes;

    PairMemory(const BinSizes& sizes, Memory& memory)
        : keys(memory.take<Key>(sizes.room_pairs)), keys_out(memory.take<Key>(sizes.room_pairs)),
          slots(memory.take<int32_t>(sizes.room_pairs)), gaussians(memory.take<int32_t>(sizes.room_pairs)),
          blocks(memory.take<uint16_t>(sizes.room_pairs)) {
        const Key* none = nullptr;
        cub_bytes =
            sort_pairs<Key>(nullptr, 0, none, nullptr, nullptr, nullptr, sizes.room_pairs, 8 * sizeof(Key), nullptr);
        cub = memory.take_bytes(cub_bytes);
    }
};

template <class Key>
__global__ void emit_pairs(ProjectedArrays<float> in, BinSizes sizes, DepthOrder order, PairMemory<Key> out) {
    const int64_t rank = thread_index();
    const bool there = rank < sizes.room_visible && uint64_t(rank) < order.totals[0];
    const int32_t gaussian = there ? order.order[rank] : 0;
    const int64_t first_rank = rank - threadIdx.x % kWarp;
    for_tiles(in, gaussian, there, sizes, [&](int owner, int number, int tile, uint32_t blocks) {
        const int64_t slot = int64_t(order.offsets[first_rank + owner]) + number;
        if (slot >= sizes.room_pairs || slot < 0) return; // too many pairs: the caller learns it from the totals
        out.keys[slot] = Key(tile);
        out.slots[slot] = int32_t(slot);
        out.gaussians[slot] = order.order[first_rank + owner];
        out.blocks[slot] = uint16_t(blocks);
    });
}

__device__ int64_t pairs_held(const uint64_t* totals, const BinSizes& sizes) {
    return totals[1] < uint64_t(sizes.room_pairs) ? int64_t(totals[1]) : sizes.room_pairs;
}

// A pair's place after the sort holds the slot that it had before.
template <class Key>
__global__ void place_pairs(PairMemory<Key> sorted, BinSizes sizes, const uint64_t* totals, PairLists out) {
    const int64_t place = thread_index();
    if (place >= pairs_held(totals, sizes)) return;
    const int32_t slot = out.slots[place];
    out.gaussians[place] = sorted.gaussians[slot];
    out.blocks[place] = sorted.blocks[slot];
}

// A tile's list begins at the first pair whose tile is not below it.
template <class Key>
__global__ void find_tiles(const Key* keys, BinSizes sizes, const uint64_t* totals, int64_t tiles, int32_t* offsets) {
    const int64_t tile = thread_index();
    if (tile > tiles) return;
    int64_t low = 0, high = pairs_held(totals, sizes);
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (int64_t(keys[middle]) < tile) low = middle + 1;
        else high = middle;
    }
    offsets[tile] = int32_t(low);
}

int bits_of(int64_t tiles) {
    int bits = 1;
    while ((int64_t(1) << bits) <= tiles) ++bits; // so that all ones is no tile
    return bits;
}

template <class Key>
void list_pairs_by(const ProjectedArrays<float>& in, const BinSizes& sizes, const DepthOrder& order,
                   const PairLists& out, void* scratch, cudaStream_t stream) {
    Memory memory(scratch);
    const PairMemory<Key> pairs(sizes, memory);
    const int64_t tiles = tiles_of(sizes);
    check(cudaMemsetAsync(pairs.keys, 0xff, size_t(sizes.room_pairs) * sizeof(Key), stream));
    launch_each(emit_pairs<Key>, sizes.room_visible, stream, in, sizes, order, pairs);
    sort_pairs(pairs.cub, pairs.cub_bytes, pairs.keys, pairs.keys_out, pairs.slots, out.slots, sizes.room_pairs,
               bits_of(tiles), stream);
    launch_each(place_pairs<Key>, sizes.room_pairs, stream, pairs, sizes, order.totals, out);
    launch_each(find_tiles<Key>, tiles + 1, stream, pairs.keys_out, sizes, order.totals, tiles, out.tile_offsets);
}

bool fits_16_bits(const BinSizes& sizes) { return tiles_of(sizes) <= std::numeric_limits<uint16_t>::max(); }

} // namespace

size_t binning_scratch(const BinSizes& sizes) {
    Memory depths(nullptr), pairs(nullptr);
    DepthMemory{sizes, depths};
    if (fits_16_bits(sizes)) PairMemory<uint16_t>{sizes, pairs};
    else PairMemory<uint32_t>{sizes, pairs};
    return std::max(depths.used(), pairs.used());
}

void order_by_depth(const ProjectedArrays<float>& in, const BinSizes& sizes, const DepthOrder& out, void* scratch,
                    cudaStream_t stream) {
    Memory memory(scratch);
    const DepthMemory depths(sizes, memory);
    check(cudaMemsetAsync(out.totals, 0, 2 * sizeof(uint64_t), stream));
    check(cudaMemsetAsync(depths.keys, 0xff, size_t(sizes.room_visible) * sizeof(uint32_t), stream));
    launch_each(mark_visible, sizes.count, stream, in.extents, sizes.count, depths.ranks);
    running_sum(depths.cub, depths.cub_bytes, depths.ranks, sizes.count, stream);
    launch_each(gather_depths, sizes.count, stream, in.depths, depths.ranks, sizes, depths.keys, depths.values,
                out.totals);
    sort_pairs(depths.cub, depths.cub_bytes, depths.keys, depths.keys_out, depths.values, out.order, sizes.room_visible,
               32, stream);
    launch_each(count_pairs, sizes.room_visible, stream, in, sizes, out.order, out.totals, out.offsets);
    running_sum(depths.cub, depths.cub_bytes, out.offsets + 1, sizes.room_visible, stream);
}

void list_pairs(const ProjectedArrays<float>& in, const BinSizes& sizes, const DepthOrder& order, const PairLists& out,
                void* scratch, cudaStream_t stream) {
    if (fits_16_bits(sizes)) list_pairs_by<uint16_t>(in, sizes, order, out, scratch, stream);
    else list_pairs_by<uint32_t>(in, sizes, order, out, scratch, stream);
}

} // namespace anchorfield::cuda
