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

#include "vectors.hpp"

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

// Vertices by key, numbered in the order of their first use. A slot has the number and half of the hash; keys are apart,
// because vertices of pixels side by side have numbers that are close to each other, and so are mostly in the cache.
class Table {
 public:
  // For so many vertices at most; about as many slots as there are pixels to begin with.
  Table(size_t most, size_t pixels) : keys_(most) {
    while (bits_ < 31 && (size_t{1} << bits_) < pixels) bits_++;
    allocate();
  }

  void prefetch(uint64_t key) const { __builtin_prefetch(&slots_[place(hash(key))]); }

  // The number of the key, -1 if there is none.
  int32_t find(uint64_t key) const {
    const uint64_t hashed = hash(key);
    for (size_t at = place(hashed);; at = (at + 1) & mask_) {
      const uint64_t slot = slots_[at];
      if (slot == EMPTY) return -1;
      if (tag(slot) == tag(hashed) && keys_[number(slot)] == key) return number(slot);
    }
  }

  // The number of the key, the next one if it is new.
  int32_t insert(uint64_t key) {
    const uint64_t hashed = hash(key);
    for (size_t at = place(hashed);; at = (at + 1) & mask_) {
      const uint64_t slot = slots_[at];
      if (slot == EMPTY) {
        keys_[size_] = key;
        slots_[at] = made(hashed, size_);
        return int32_t(size_++);
      }
      if (tag(slot) == tag(hashed) && keys_[number(slot)] == key) return number(slot);
    }
  }

  // Make room for so many more.
  void reserve(size_t more) {
    if (2 * (size_ + more) <= mask_) return;
    bits_++;
    allocate();
    for (size_t i = 0; i < size_; i++) {
      const uint64_t hashed = hash(keys_[i]);
      size_t at = place(hashed);
      while (slots_[at] != EMPTY) at = (at + 1) & mask_;
      slots_[at] = made(hashed, i);
    }
  }

  int32_t size() const { return int32_t(size_); }
  uint64_t key(int32_t number) const { return keys_[size_t(number)]; }

 private:
  static constexpr uint64_t EMPTY = ~uint64_t{0};  // no number is as large

  static uint64_t hash(uint64_t key) { return key * 0x9E3779B97F4A7C15u; }
  static uint32_t tag(uint64_t value) { return uint32_t(value >> 32); }
  static int32_t number(uint64_t slot) { return int32_t(uint32_t(slot)); }
  static uint64_t made(uint64_t hashed, size_t number) { return (hashed >> 32 << 32) | number; }
  size_t place(uint64_t hashed) const { return size_t(hashed >> (64 - bits_)); }

  void allocate() {
    slots_ = Buffer<uint64_t>(size_t{1} << bits_);
    slots_.fill(EMPTY);
    mask_ = slots_.size() - 1;
  }

  Buffer<uint64_t> slots_, keys_;
  size_t mask_ = 0, size_ = 0;
  int bits_ = 10;
};

// Neighbours of one axis as chains: numbers of the vertices one after the other, each chain ended by the number of all
// vertices. Vertices that have no neighbour on the axis are in no chain: the blur leaves them as they are.
constexpr int AHEAD = 8;  // as many ends follow the last chain, for a blur that looks so far ahead
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
  alignas(64) float weight[D + 1][BLOCK];
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

// Onto the plane of points whose D + 1 coordinates sum to 0.
template <int D>
void elevate(const float (&feature)[D][BLOCK], int p, const std::array<float, D>& scales, Wide (&elevated)[D + 1]) {
  Wide total{};
  for (int j = D; j > 0; j--) {
    const Wide scaled = load(feature[j - 1] + p) * scales[j - 1];
    elevated[j] = total - float(j) * scaled;
    total += scaled;
  }
  elevated[0] = total;
}

// The nearest point of remainder 0 as multiples of D + 1, the place of each coordinate among the distances to it
// (largest first, the earlier one first of equals), and the distances over D + 1.
template <int D>
void locate(const Wide (&elevated)[D + 1], WideInt (&multiple)[D + 1], WideInt (&rank)[D + 1], Wide (&rest)[D + 1]) {
  constexpr float SHARE = 1.0f / (D + 1);
  Wide nearest[D + 1], off{};
  for (int i = 0; i <= D; i++) {
    nearest[i] = nearest_whole(SHARE * elevated[i]);
    rest[i] = elevated[i] - nearest[i] * float(D + 1);
    off += nearest[i];
  }
  const WideInt moved = to_whole(off);
  for (int i = 0; i <= D; i++) rank[i] = moved + i;
  for (int i = 0; i < D; i++)
    for (int j = i + 1; j <= D; j++) {
      const WideInt less = rest[i] < rest[j];  // -1 where it is
      rank[i] -= less;
      rank[j] += less;
    }
  // A point that is off the plane is brought back along the coordinates that were rounded furthest.
  for (int i = 0; i <= D; i++) {
    const WideInt back = (rank[i] > D) - (rank[i] < 0);
    rank[i] += back * (D + 1);
    multiple[i] = to_whole(nearest[i]) + back;
    rest[i] = (elevated[i] - (nearest[i] + __builtin_convertvector(back, Wide)) * float(D + 1)) * SHARE;
  }
}

template <int D>
void find_simplices(
    const float (&feature)[D][BLOCK], const std::array<float, D>& scales, const Packing<D>& packing,
    Simplices<D>& found) {
  static_assert(D < 8);
  alignas(64) int32_t multiple[D + 1][BLOCK], rank[D + 1][BLOCK];
  alignas(64) float rest[D + 1][BLOCK], ordered[8][BLOCK];  // rests by rank
  for (int p = 0; p < BLOCK; p += WIDTH) {
    Wide elevated[D + 1], away[D + 1];
    WideInt near[D + 1], place[D + 1];
    elevate<D>(feature, p, scales, elevated);
    locate<D>(elevated, near, place, away);
    for (int i = 0; i <= D; i++) {
      store(multiple[i] + p, near[i]);
      store(rank[i] + p, place[i] & 7);  // so that no rounding whatever leads out of the arrays
      store(rest[i] + p, away[i]);
    }
  }
  for (int p = 0; p < BLOCK; p++) {
    int64_t origin = 0, stride[8] = {};  // by rank
    for (int i = 0; i <= D; i++) {
      ordered[rank[i][p]][p] = rest[i][p];
      stride[rank[i][p]] = packing.strides[i];
      origin += multiple[i][p] * packing.strides[i];
    }
    origin = origin * (D + 1) + packing.bias;
    // The vertex of remainder r adds r to all coordinates, and takes D + 1 from the r that rank last.
    for (int r = 0; r <= D; r++) {
      found.key[r][p] = uint64_t(origin);
      origin += packing.sum - (D + 1) * stride[D - r];
    }
  }
  for (int p = 0; p < BLOCK; p += WIDTH) {
    store(found.weight[0] + p, load(ordered[D] + p) + (1 - load(ordered[0] + p)));
    for (int r = 1; r <= D; r++) store(found.weight[r] + p, load(ordered[D - r] + p) - load(ordered[D - r + 1] + p));
  }
}

// Of each vertex the one after it on an axis, and whether there is one before it.
inline void find_neighbours(const Table& table, uint64_t step, int32_t* after, uint8_t* preceded) {
  constexpr int SOON = 16;
  const int32_t number = table.size();
  std::memset(preceded, 0, size_t(number));
  for (int32_t i = 0; i < std::min(number, SOON); i++) table.prefetch(table.key(i) + step);
  for (int32_t i = 0; i < number; i++) {
    if (i + SOON < number) table.prefetch(table.key(i + SOON) + step);
    after[i] = table.find(table.key(i) + step);
    if (after[i] >= 0) preceded[after[i]] = 1;
  }
}

inline Chains chain(const int32_t* after, const uint8_t* preceded, int32_t number) {
  Chains chains;
  // Chains have two vertices or more, and an end.
  chains.order = Buffer<int32_t>(size_t(number) / 2 * 3 + 1 + AHEAD);
  int32_t* to = chains.order.data();
  for (int32_t first = 0; first < number; first++) {
    if (preceded[first] || after[first] < 0) continue;
    for (int32_t i = first; i >= 0; i = after[i]) *to++ = i;
    *to++ = number;
  }
  std::fill_n(to, AHEAD, number);
  chains.length = size_t(to - chains.order.data());
  return chains;
}

template <int D>
std::array<Chains, D + 1> find_chains(const Table& table, const Packing<D>& packing) {
  std::array<Chains, D + 1> chains;
  Buffer<int32_t> after(size_t(table.size()));
  Buffer<uint8_t> preceded(size_t(table.size()));
  for (int axis = 0; axis <= D; axis++) {
    const uint64_t step = uint64_t((D + 1) * packing.strides[axis] - packing.sum);
    find_neighbours(table, step, after.data(), preceded.data());
    chains[axis] = chain(after.data(), preceded.data(), table.size());
  }
  return chains;
}

// The lattice of pixels whose features `feature_of(block, features)` writes.
template <int D, class FeatureOf>
Lattice<D> build_lattice(size_t pixels, const std::array<float, D>& largest, FeatureOf feature_of) {
  const auto scales = lattice_scales<D>();
  const Packing<D> packing(largest, scales);
  constexpr size_t PER_BLOCK = size_t(D + 1) * BLOCK;
  Lattice<D> lattice;
  lattice.blocks = (pixels + BLOCK - 1) / BLOCK;
  lattice.vertex = Buffer<int32_t>(lattice.blocks * PER_BLOCK);
  lattice.weight = Buffer<float>(lattice.blocks * PER_BLOCK);
  Table table(lattice.blocks * PER_BLOCK, pixels);
  for (size_t b = 0; b < lattice.blocks; b++) {
    alignas(64) float feature[D][BLOCK];
    feature_of(b, feature);
    Simplices<D> simplices;
    find_simplices<D>(feature, scales, packing, simplices);
    for (int r = 0; r <= D; r++)
      for (int p = 0; p < BLOCK; p++) table.prefetch(simplices.key[r][p]);
    table.reserve(PER_BLOCK);
    const int here = int(std::min<size_t>(BLOCK, pixels - b * BLOCK));
    for (int r = 0; r <= D; r++) {
      int32_t* vertex = lattice.vertex.data() + b * PER_BLOCK + r * BLOCK;
      for (int p = 0; p < here; p++) vertex[p] = table.insert(simplices.key[r][p]);
      for (int p = here; p < BLOCK; p++) vertex[p] = 0;
      for (int p = here; p < BLOCK; p++) simplices.weight[r][p] = 0;
    }
    std::memcpy(lattice.weight.data() + b * PER_BLOCK, simplices.weight, sizeof simplices.weight);
  }
  lattice.vertices = table.size();
  lattice.chains = find_chains<D>(table, packing);
  return lattice;
}

}  // namespace crf
