// Gaussian filtering on the permutohedral lattice (Adams, Baek, Davis 2010), for pixels of D features.
//
// Each pixel gives its values to the D + 1 vertices of the simplex that it lies in (splat), the vertices mix with their
// neighbours along D + 1 axes (blur), and each pixel reads its own vertices again (slice). Geometry and order of
// roundings are those of Kraehenbuehl and Koltun's code. Nothing here may be contracted to fused multiplications or
// reassociated: then every build, whatever its vectors, gives the same bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace crf {

constexpr int BLOCK = 16;  // pixels handled together: a cache line of float32

// Features that are too many standard deviations for the lattice.
struct TooFine {};

// An array that is not initialised, aligned to cache lines; large ones ask for large pages, because rows of vertices
// are read in no order and small pages would also have to be fetched one by one.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size) : size_(size) {
    if (size > std::numeric_limits<size_t>::max() / (2 * sizeof(T))) throw std::bad_alloc();
    const size_t bytes = size * sizeof(T);
    const size_t alignment = bytes < LARGE ? 64 : LARGE;
    const size_t rounded = (bytes / 64 + 1) * 64;
    data_ = static_cast<T*>(::operator new(rounded, std::align_val_t(alignment)));
    alignment_ = alignment;
#ifdef __linux__
    if (alignment == LARGE) madvise(data_, rounded / LARGE * LARGE, MADV_HUGEPAGE);  // a wish only
#endif
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_) ::operator delete(static_cast<void*>(data_), std::align_val_t(alignment_));
  }
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(alignment_, other.alignment_);
  }
  void fill(T value) { std::fill(data_, data_ + size_, value); }
  size_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr size_t LARGE = size_t{1} << 21;
  T* data_ = nullptr;
  size_t size_ = 0;
  size_t alignment_ = 0;
};

// One whole number for each vertex: the sum of its coordinates times strides, so that each neighbour is at a fixed
// distance. Coordinate 0 is left out: all of them sum to 0.
template <int D>
struct Packing {
  std::array<int64_t, D + 1> strides{};
  int64_t bias = 0;
  int64_t sum = 0;

  // For features from 0 to the largest ones, in the lattice's own scale.
  explicit Packing(const std::array<float, D>& largest, const std::array<float, D>& scales) {
    constexpr double EXACT = 1 << 22;      // float32 tells whole numbers up to here and their roundings apart
    constexpr double MARGIN = 4 * (D + 1);  // vertices lie within 2.5 (D + 1) of their pixels, neighbours D + 1 further
    double scaled[D], total = 0, room = 1;
    for (int i = 0; i < D; i++) total += scaled[i] = double(largest[i]) * scales[i];
    if (!(total < EXACT)) throw TooFine();
    double above = total;
    for (int j = 1; j <= D; j++) {
      above -= scaled[j - 1];
      const int64_t low = int64_t(j * scaled[j - 1] + MARGIN);
      const int64_t span = low + int64_t(above + MARGIN) + 2;
      strides[j] = int64_t(room);
      room *= double(span);
      if (room > double(int64_t{1} << 60)) throw TooFine();
      bias += low * strides[j];
      sum += strides[j];
    }
  }
};

// Vertices by key, numbered in the order of their first use.
class Table {
 public:
  explicit Table(int bits) { allocate(bits); }

  void prefetch(uint64_t key) const { __builtin_prefetch(&slots_[place(key)]); }

  int32_t find(uint64_t key) const {
    for (size_t at = place(key);; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return slots_[at].number;
      if (slots_[at].key == EMPTY) return -1;
    }
  }

  // The number of the key; `next` if it is new.
  int32_t insert(uint64_t key, int32_t next) {
    for (size_t at = place(key);; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return slots_[at].number;
      if (slots_[at].key == EMPTY) {
        slots_[at] = {key, next};
        return next;
      }
    }
  }

  bool full(size_t number) const { return 2 * number > mask_; }

  // Twice as large, with the keys there are.
  void grow(const uint64_t* keys, size_t number) {
    allocate(bits_ + 1);
    for (size_t i = 0; i < number; i++) insert(keys[i], int32_t(i));
  }

 private:
  static constexpr uint64_t EMPTY = ~uint64_t{0};
  struct Slot {
    uint64_t key;
    int32_t number;
  };

  void allocate(int bits) {
    slots_ = Buffer<Slot>(size_t{1} << bits);
    slots_.fill({EMPTY, 0});
    mask_ = slots_.size() - 1;
    bits_ = bits;
  }
  size_t place(uint64_t key) const { return size_t((key * 0x9E3779B97F4A7C15u) >> (64 - bits_)); }

  Buffer<Slot> slots_;
  size_t mask_ = 0;
  int bits_ = 0;
};

// Neighbours of one axis as chains: numbers of the vertices one after the other, each chain ended by the number of all
// vertices. Vertices that have no neighbour on the axis are in no chain: the blur leaves them as they are.
struct Chains {
  Buffer<int32_t> order;
  size_t length = 0;
};

template <int D>
struct Lattice {
  static constexpr int CORNERS = D + 1;

  size_t blocks = 0;
  int32_t vertices = 0;
  Buffer<int32_t> vertex;  // (blocks, D + 1, BLOCK): of each pixel its vertices
  Buffer<float> weight;    // the same shape: what it gives to each and takes of each; 0 for pixels past the last
  std::array<Chains, CORNERS> chains;
};

// The simplices around the pixels of a block: keys of their vertices, those of remainder 0 first, and weights.
template <int D>
struct Simplices {
  float weight[D + 1][BLOCK];
  uint64_t key[D + 1][BLOCK];
};

template <int D>
std::array<float, D> lattice_scales() {
  // Expected standard deviation of the blur (page 6 of the paper), times the diagonal part of the elevation (page 5).
  const float deviation = float(std::sqrt(2.0 / 3.0) * (D + 1));
  std::array<float, D> scales;
  for (int i = 0; i < D; i++) scales[i] = float(1.0 / std::sqrt(double((i + 2) * (i + 1))) * deviation);
  return scales;
}

// To the nearest whole number, ties to even; |value| < 2^22. Wrong if a compiler may reassociate.
inline float nearest_whole(float value) {
  constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: the sum has no bits left for fractions
  return (value + MAGIC) - MAGIC;
}

// Onto the plane of points whose D + 1 coordinates sum to 0.
template <int D>
void elevate(const float (&feature)[D][BLOCK], const std::array<float, D>& scales, float (&elevated)[D + 1][BLOCK]) {
  float total[BLOCK] = {};
  for (int j = D; j > 0; j--)
    for (int p = 0; p < BLOCK; p++) {
      const float scaled = feature[j - 1][p] * scales[j - 1];
      elevated[j][p] = total[p] - float(j) * scaled;
      total[p] += scaled;
    }
  for (int p = 0; p < BLOCK; p++) elevated[0][p] = total[p];
}

// The nearest point of remainder 0 as multiples of D + 1, the place of each coordinate among the distances to it
// (largest first, the earlier one first of equals), and the distances over D + 1.
template <int D>
void locate(
    const float (&elevated)[D + 1][BLOCK], float (&multiple)[D + 1][BLOCK], int32_t (&rank)[D + 1][BLOCK],
    float (&rest)[D + 1][BLOCK]) {
  constexpr float SHARE = 1.0f / (D + 1);
  float off[BLOCK] = {};
  for (int i = 0; i <= D; i++)
    for (int p = 0; p < BLOCK; p++) {
      multiple[i][p] = nearest_whole(SHARE * elevated[i][p]);
      rest[i][p] = elevated[i][p] - multiple[i][p] * float(D + 1);
      off[p] += multiple[i][p];
      rank[i][p] = 0;
    }
  for (int i = 0; i < D; i++)
    for (int j = i + 1; j <= D; j++)
      for (int p = 0; p < BLOCK; p++) {
        const int32_t less = rest[i][p] < rest[j][p];
        rank[i][p] += less;
        rank[j][p] += 1 - less;
      }
  // A point that is off the plane is brought back along the coordinates that were rounded furthest.
  for (int i = 0; i <= D; i++)
    for (int p = 0; p < BLOCK; p++) {
      const int32_t moved = rank[i][p] + int32_t(off[p]);
      const int32_t back = int32_t(moved < 0) - int32_t(moved > D);
      rank[i][p] = moved + back * (D + 1);
      multiple[i][p] += float(back);
      rest[i][p] = (elevated[i][p] - multiple[i][p] * float(D + 1)) * SHARE;
    }
}

template <int D>
void find_simplices(
    const float (&feature)[D][BLOCK], const std::array<float, D>& scales, const Packing<D>& packing,
    Simplices<D>& found) {
  float elevated[D + 1][BLOCK], multiple[D + 1][BLOCK], rest[D + 1][BLOCK];
  int32_t rank[D + 1][BLOCK];
  elevate<D>(feature, scales, elevated);
  locate<D>(elevated, multiple, rank, rest);
  float ordered[8][BLOCK] = {};    // rests by rank
  int64_t stride[8][BLOCK] = {};  // strides by rank; 8, so that no rounding whatever leads out of the array
  static_assert(D < 8);
  for (int p = 0; p < BLOCK; p++) {
    int64_t origin = packing.bias;
    for (int i = 0; i <= D; i++) {
      const int place = rank[i][p] & 7;
      ordered[place][p] = rest[i][p];
      stride[place][p] = packing.strides[i];
      origin += int64_t(int32_t(multiple[i][p])) * (D + 1) * packing.strides[i];
    }
    // The vertex of remainder r adds r to all coordinates, and takes D + 1 from the r that rank last.
    for (int r = 0; r <= D; r++) {
      found.key[r][p] = uint64_t(origin);
      origin += packing.sum - (D + 1) * stride[D - r][p];
    }
  }
  for (int p = 0; p < BLOCK; p++) found.weight[0][p] = ordered[D][p] + (1 - ordered[0][p]);
  for (int r = 1; r <= D; r++)
    for (int p = 0; p < BLOCK; p++) found.weight[r][p] = ordered[D - r][p] - ordered[D - r + 1][p];
}

// Numbers for the vertices of a block's pixels.
template <int D>
void number_vertices(
    const Simplices<D>& simplices, int pixels, Table& table, Buffer<uint64_t>& keys, int32_t& number,
    int32_t* vertex) {
  for (int r = 0; r <= D; r++)
    for (int p = 0; p < pixels; p++) table.prefetch(simplices.key[r][p]);
  for (int r = 0; r <= D; r++) {
    int32_t* row = vertex + r * BLOCK;
    for (int p = 0; p < pixels; p++) {
      const uint64_t key = simplices.key[r][p];
      if (p && key == simplices.key[r][p - 1]) {
        row[p] = row[p - 1];
        continue;
      }
      row[p] = table.insert(key, number);
      if (row[p] == number) keys[number++] = key;
    }
  }
}

// Of each vertex the one after it on an axis, and whether there is one before it.
inline void find_neighbours(
    const Table& table, const Buffer<uint64_t>& keys, int32_t number, uint64_t step, int32_t* after, uint8_t* preceded) {
  constexpr int AHEAD = 16;
  std::memset(preceded, 0, size_t(number));
  for (int32_t i = 0; i < std::min(number, AHEAD); i++) table.prefetch(keys[i] + step);
  for (int32_t i = 0; i < number; i++) {
    if (i + AHEAD < number) table.prefetch(keys[i + AHEAD] + step);
    after[i] = table.find(keys[i] + step);
    if (after[i] >= 0) preceded[after[i]] = 1;
  }
}

inline Chains chain(const int32_t* after, const uint8_t* preceded, int32_t number) {
  Chains chains;
  chains.order = Buffer<int32_t>(size_t(number) / 2 * 3 + 2);  // chains have two vertices or more, and an end
  size_t length = 0;
  for (int32_t first = 0; first < number; first++) {
    if (preceded[first] || after[first] < 0) continue;
    for (int32_t i = first; i >= 0; i = after[i]) chains.order[length++] = i;
    chains.order[length++] = number;
  }
  chains.order[length] = number;
  chains.length = length;
  return chains;
}

// The lattice of pixels whose features `feature_of(block, features)` writes.
template <int D, class FeatureOf>
Lattice<D> build_lattice(size_t pixels, const std::array<float, D>& largest, FeatureOf feature_of) {
  const auto scales = lattice_scales<D>();
  const Packing<D> packing(largest, scales);
  Lattice<D> lattice;
  lattice.blocks = (pixels + BLOCK - 1) / BLOCK;
  const size_t per_block = size_t(D + 1) * BLOCK;
  lattice.vertex = Buffer<int32_t>(lattice.blocks * per_block);
  lattice.weight = Buffer<float>(lattice.blocks * per_block);
  Table table(16);
  Buffer<uint64_t> keys(lattice.blocks * per_block + 1);
  for (size_t b = 0; b < lattice.blocks; b++) {
    float feature[D][BLOCK];
    feature_of(b, feature);
    Simplices<D> simplices;
    find_simplices<D>(feature, scales, packing, simplices);
    const int here = int(std::min<size_t>(BLOCK, pixels - b * BLOCK));
    int32_t* vertex = lattice.vertex.data() + b * per_block;
    number_vertices<D>(simplices, here, table, keys, lattice.vertices, vertex);
    for (int r = 0; r <= D; r++)
      for (int p = here; p < BLOCK; p++) {
        vertex[r * BLOCK + p] = 0;
        simplices.weight[r][p] = 0;
      }
    std::memcpy(lattice.weight.data() + b * per_block, simplices.weight, sizeof simplices.weight);
    if (table.full(size_t(lattice.vertices) + per_block)) table.grow(keys.data(), size_t(lattice.vertices));
  }
  Buffer<int32_t> after(size_t(lattice.vertices));
  Buffer<uint8_t> preceded(size_t(lattice.vertices));
  for (int axis = 0; axis <= D; axis++) {
    const uint64_t step = uint64_t((D + 1) * packing.strides[axis] - packing.sum);
    find_neighbours(table, keys, lattice.vertices, step, after.data(), preceded.data());
    lattice.chains[axis] = chain(after.data(), preceded.data(), lattice.vertices);
  }
  return lattice;
}

}  // namespace crf
