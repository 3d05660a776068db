// Mean field of a fully connected CRF (Kraehenbuehl and Koltun 2011): unaries from the softmax of scores, Gaussian and
// bilateral edges with symmetric normalisation, Potts compatibility.
//
// What makes it fast, beside what the lattice does:
// - only differences between the labels of a pixel count, so the differences of the others' probabilities to the last
//   one's are filtered, and its own message is 0: a label less, and sums of smaller numbers;
// - the normalisation, the scale of the lattice and the weight of the kernel are in the pixels' weights;
// - reading the vertices, the softmax, and giving to the next iteration's vertices are one pass over blocks of pixels;
// - vertices hold up to 32 labels side by side; of more, the others follow as further arrays.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>

#include "lattice.hpp"
#include "vectors.hpp"

namespace crf {
namespace {

// ---------------------------------------------------------------- vectors

template <int N>
struct Vector;
template <>
struct Vector<1> {
  typedef float type;
};
template <>
struct Vector<4> {
  typedef float type __attribute__((vector_size(16), may_alias));
};
#ifdef __AVX2__
template <>
struct Vector<8> {
  typedef float type __attribute__((vector_size(32), may_alias));
};
#endif

// The labels of a vertex that lie side by side.
template <int L>
struct Row {
  static constexpr int STEP = L < 4 ? 1 : (L < WIDTH ? L : WIDTH);
  static constexpr int PARTS = L / STEP;
  typedef typename Vector<STEP>::type Part;
  Part part[PARTS];

  static Row load(const float* from) {
    Row row;
    for (int i = 0; i < PARTS; i++) row.part[i] = *reinterpret_cast<const Part*>(from + i * STEP);
    return row;
  }
  static Row zero() {
    Row row;
    for (int i = 0; i < PARTS; i++) row.part[i] = Part{};
    return row;
  }
  void store(float* to) const {
    for (int i = 0; i < PARTS; i++) *reinterpret_cast<Part*>(to + i * STEP) = part[i];
  }
  void add(float weight, const Row& other) {
    for (int i = 0; i < PARTS; i++) part[i] += weight * other.part[i];
  }
  // This + (before + after) / 2.
  Row mixed(const Row& before, const Row& after) const {
    Row row;
    for (int i = 0; i < PARTS; i++) row.part[i] = part[i] + 0.5f * (before.part[i] + after.part[i]);
    return row;
  }
};

// ---------------------------------------------------------------- the lattice's three steps, L labels side by side

template <int L, int D>
void splat(const Lattice<D>& lattice, size_t block, const float* rows, float* values) {
  const int32_t* vertex = lattice.vertex.data() + block * (D + 1) * BLOCK;
  const float* weight = lattice.weight.data() + block * (D + 1) * BLOCK;
  for (int p = 0; p < BLOCK; p++) {
    const auto row = Row<L>::load(rows + p * L);
    for (int k = 0; k <= D; k++) {
      float* to = values + size_t(vertex[k * BLOCK + p]) * L;
      auto sum = Row<L>::load(to);
      sum.add(weight[k * BLOCK + p], row);
      sum.store(to);
    }
  }
}

// Added to the rows.
template <int L, int D>
void slice(const Lattice<D>& lattice, size_t block, const float* values, float* rows) {
  const int32_t* vertex = lattice.vertex.data() + block * (D + 1) * BLOCK;
  const float* weight = lattice.weight.data() + block * (D + 1) * BLOCK;
  for (int p = 0; p < BLOCK; p++) {
    auto row = Row<L>::load(rows + p * L);
    for (int k = 0; k <= D; k++)
      row.add(weight[k * BLOCK + p], Row<L>::load(values + size_t(vertex[k * BLOCK + p]) * L));
    row.store(rows + p * L);
  }
}

template <int L>
void prefetch(const float* row) {
  for (int line = 0; line < L; line += BLOCK) __builtin_prefetch(row + line, 1);
}

// In place: along a chain only the values before are needed, and they are at hand. Two rows follow those of the
// vertices: one of zeros, which ends chains, and one to write to in its place.
template <int L, int D>
void blur(const Lattice<D>& lattice, float* values) {
  for (const Chains& chains : lattice.chains) {
    const int32_t* order = chains.order.data();
    auto before = Row<L>::zero();
    auto here = Row<L>::load(values + size_t(order[0]) * L);
    for (size_t i = 0; i < chains.length; i++) {
      prefetch<L>(values + size_t(order[i + AHEAD]) * L);
      const auto after = Row<L>::load(values + size_t(order[i + 1]) * L);
      const size_t to = size_t(order[i]) + (order[i] == lattice.vertices);
      here.mixed(before, after).store(values + to * L);
      before = here;
      here = after;
    }
  }
}

template <int L, int D>
size_t value_count(const Lattice<D>& lattice) {
  return (size_t(lattice.vertices) + 2) * L;
}

// ---------------------------------------------------------------- kernels

// The lattice with symmetric normalisation and a weight: each pixel's weights times n sqrt(weight), n = 1 / sqrt(K 1).
template <int D>
Lattice<D> normalised(Lattice<D>&& lattice, float weight) {
  Buffer<float> values(value_count<1>(lattice));
  values.fill(0);
  alignas(64) float row[BLOCK];
  std::fill(row, row + BLOCK, 1.0f);
  for (size_t b = 0; b < lattice.blocks; b++) splat<1>(lattice, b, row, values.data());
  blur<1>(lattice, values.data());
  const float alpha = 1.0f / (1 + std::ldexp(1.0f, -D));  // the blur's weights do not sum to one
  for (size_t b = 0; b < lattice.blocks; b++) {
    std::fill(row, row + BLOCK, 0.0f);
    slice<1>(lattice, b, values.data(), row);
    float* weights = lattice.weight.data() + b * (D + 1) * BLOCK;
    for (int p = 0; p < BLOCK; p++) row[p] = std::sqrt(alpha * weight) / std::sqrt(row[p] * alpha + 1e-20f);
    for (int k = 0; k <= D; k++)
      for (int p = 0; p < BLOCK; p++) weights[k * BLOCK + p] *= row[p];
  }
  return std::move(lattice);
}

struct Size {
  int64_t labels, height, width;
  size_t pixels() const { return size_t(height) * size_t(width); }
};

// 0, 1 ... in standard deviations.
Buffer<float> spread_out(int64_t number, float deviation) {
  Buffer<float> found{size_t(number)};
  for (int64_t i = 0; i < number; i++) found[size_t(i)] = float(i) / deviation;
  return found;
}

// Columns and rows of the pixels of a picture, block by block.
struct Positions {
  Buffer<float> columns, rows;
  size_t width;
  size_t column = 0, row = 0;

  Positions(int64_t height, int64_t width, float deviation)
      : columns(spread_out(width, deviation)), rows(spread_out(height, deviation)), width(size_t(width)) {}

  // Of the next pixel, and on from there; past the last one whatever is at hand.
  void next(float& x, float& y) {
    x = columns[column];
    y = rows[std::min(row, rows.size() - 1)];
    if (++column == width) {
      column = 0;
      row++;
    }
  }
  float last_column() const { return columns[columns.size() - 1]; }
  float last_row() const { return rows[rows.size() - 1]; }
};

Lattice<2> smoothness(int64_t height, int64_t width, float deviation, float weight) {
  Positions positions(height, width, deviation);
  const auto features = [&](size_t, float (&feature)[2][BLOCK]) {
    for (int p = 0; p < BLOCK; p++) positions.next(feature[0][p], feature[1][p]);
  };
  const std::array<float, 2> largest{positions.last_column(), positions.last_row()};
  return normalised(build_lattice<2>(size_t(height) * size_t(width), largest, features), weight);
}

Lattice<5> appearance(const Size& size, const uint8_t* picture, float position, float colour, float weight) {
  Positions positions(size.height, size.width, position);
  const Buffer<float> shades = spread_out(256, colour);
  const size_t last = size.pixels() - 1;
  const auto features = [&](size_t block, float (&feature)[5][BLOCK]) {
    for (int p = 0; p < BLOCK; p++) {
      positions.next(feature[0][p], feature[1][p]);
      const uint8_t* pixel = picture + 3 * std::min(block * BLOCK + size_t(p), last);
      for (int c = 0; c < 3; c++) feature[2 + c][p] = shades[pixel[c]];
    }
  };
  const std::array<float, 5> largest{
      positions.last_column(), positions.last_row(), shades[255], shades[255], shades[255]};
  return normalised(build_lattice<5>(size.pixels(), largest, features), weight);
}

// ---------------------------------------------------------------- the mean field

struct NotFinite {};

// Scores (labels, pixels) as (blocks, labels, BLOCK), 0 past the last pixel.
Buffer<float> in_blocks(const float* scores, size_t labels, size_t pixels) {
  const size_t blocks = (pixels + BLOCK - 1) / BLOCK;
  Buffer<float> found(blocks * labels * BLOCK);
  Wide check{};  // NaN once there is anything that is no number
  for (size_t b = 0; b < blocks; b++)
    for (size_t c = 0; c < labels; c++) {
      float* to = found.data() + (b * labels + c) * BLOCK;
      const size_t here = std::min<size_t>(BLOCK, pixels - b * BLOCK);
      std::fill(to, to + BLOCK, 0.0f);
      std::memcpy(to, scores + c * pixels + b * BLOCK, here * sizeof(float));
      for (int p = 0; p < BLOCK; p += WIDTH) check += 0.0f * load(to + p);
    }
  for (int p = 0; p < WIDTH; p++)
    if (!(check[p] == 0)) throw NotFinite();
  return found;
}

// L labels side by side in a row of a vertex, in as many groups as it takes for all labels but the last.
template <int L>
class MeanField {
 public:
  MeanField(const Lattice<2>& near, const Lattice<5>& alike, const Buffer<float>& scores, size_t labels)
      : near_(near), alike_(alike), scores_(scores), labels_(labels), groups_((labels - 2) / L + 1),
        rows_(groups_ * BLOCK * L), message_(groups_ * BLOCK * L + BLOCK) {
    for (int i = 0; i < 2; i++) {
      near_values_[i] = Buffer<float>(groups_ * value_count<L>(near));
      alike_values_[i] = Buffer<float>(groups_ * value_count<L>(alike));
    }
  }

  void run(int64_t iterations, size_t pixels, float* out) {
    pass(false, true, pixels, nullptr);
    for (int64_t i = 1; i < iterations; i++) pass(true, true, pixels, nullptr);
    pass(true, false, pixels, out);
  }

 private:
  // One pass over all pixels: messages from the vertices, softmax, on to the next vertices or out.
  void pass(bool from, bool on, size_t pixels, float* out) {
    std::swap(near_values_[0], near_values_[1]);
    std::swap(alike_values_[0], alike_values_[1]);
    if (on) {
      near_values_[1].fill(0);
      alike_values_[1].fill(0);
    }
    for (size_t b = 0; b < near_.blocks; b++) {
      if (from)
        receive(b);
      else
        message_.fill(0);
      softmax(b);
      if (on)
        give(b);
      else
        write(b, pixels, out);
    }
    if (!on) return;
    for (size_t g = 0; g < groups_; g++) {
      blur<L>(near_, near_values_[1].data() + g * value_count<L>(near_));
      blur<L>(alike_, alike_values_[1].data() + g * value_count<L>(alike_));
    }
  }

  // The messages (labels, BLOCK) to a block's pixels.
  void receive(size_t block) {
    rows_.fill(0);
    for (size_t g = 0; g < groups_; g++) {
      float* rows = rows_.data() + g * BLOCK * L;
      slice<L>(near_, block, near_values_[0].data() + g * value_count<L>(near_), rows);
      slice<L>(alike_, block, alike_values_[0].data() + g * value_count<L>(alike_), rows);
      for (int l = 0; l < L; l++)
        for (int p = 0; p < BLOCK; p++) message_[(g * L + l) * BLOCK + p] = rows[p * L + l];
    }
    std::fill_n(message_.data() + (labels_ - 1) * BLOCK, BLOCK, 0.0f);
  }

  // In place of the messages the probabilities.
  void softmax(size_t block) {
    const float* scores = scores_.data() + block * labels_ * BLOCK;
    float* values = message_.data();
    for (int p = 0; p < BLOCK; p += WIDTH) {
      Wide most = wide(-std::numeric_limits<float>::infinity());
      for (size_t c = 0; c < labels_; c++) {
        const Wide value = load(scores + c * BLOCK + p) + load(values + c * BLOCK + p);
        store(values + c * BLOCK + p, value);
        most = larger(value, most);
      }
      Wide total{};
      for (size_t c = 0; c < labels_; c++) {
        const Wide raised = exponential(load(values + c * BLOCK + p) - most);
        store(values + c * BLOCK + p, raised);
        total += raised;
      }
      const Wide share = 1.0f / total;
      for (size_t c = 0; c < labels_; c++) store(values + c * BLOCK + p, load(values + c * BLOCK + p) * share);
    }
  }

  void give(size_t block) {
    const float* last = message_.data() + (labels_ - 1) * BLOCK;
    for (size_t g = 0; g < groups_; g++) {
      float* rows = rows_.data() + g * BLOCK * L;
      for (int l = 0; l < L; l++) {
        const bool more = g * L + l + 1 < labels_;
        const float* values = more ? message_.data() + (g * L + l) * BLOCK : last;
        for (int p = 0; p < BLOCK; p++) rows[p * L + l] = values[p] - last[p];
      }
      splat<L>(near_, block, rows, near_values_[1].data() + g * value_count<L>(near_));
      splat<L>(alike_, block, rows, alike_values_[1].data() + g * value_count<L>(alike_));
    }
  }

  void write(size_t block, size_t pixels, float* out) const {
    const size_t here = std::min<size_t>(BLOCK, pixels - block * BLOCK);
    for (size_t c = 0; c < labels_; c++)
      std::memcpy(out + c * pixels + block * BLOCK, message_.data() + c * BLOCK, here * sizeof(float));
  }

  const Lattice<2>& near_;
  const Lattice<5>& alike_;
  const Buffer<float>& scores_;
  size_t labels_, groups_;
  Buffer<float> rows_;     // (groups, BLOCK, L): pixels of a block, as vertices have them
  Buffer<float> message_;  // (labels, BLOCK), the same as the softmax has them; a little longer
  std::array<Buffer<float>, 2> near_values_, alike_values_;  // (groups, vertices + 2, L): to read, and to add to
};

void refine(
    const Lattice<2>& near, const Size& size, const float* scores, const uint8_t* picture, const float* bilateral,
    int64_t iterations, float* out) {
  const size_t labels = size_t(size.labels), pixels = size.pixels();
  const Buffer<float> blocks = in_blocks(scores, labels, pixels);
  if (labels == 1) {
    std::fill(out, out + pixels, 1.0f);
    return;
  }
  const Lattice<5> alike = appearance(size, picture, bilateral[0], bilateral[1], bilateral[2]);
  const auto run = [&](auto lanes) {
    MeanField<lanes>(near, alike, blocks, labels).run(iterations, pixels, out);
  };
  // As many labels side by side as there are, if there is room: all of a vertex are then found at once.
  const size_t filtered = labels - 1;
  if (filtered == 1) return run(std::integral_constant<int, 1>());
  if (filtered == 2) return run(std::integral_constant<int, 2>());
  if (filtered <= 4) return run(std::integral_constant<int, 4>());
  if (filtered <= 8) return run(std::integral_constant<int, 8>());
  if (filtered <= 16) return run(std::integral_constant<int, 16>());
  if (filtered <= 24) return run(std::integral_constant<int, 24>());
  return run(std::integral_constant<int, 32>());
}

// ---------------------------------------------------------------- no exception leaves the library

enum Outcome { DONE = 0, TOO_FINE = 1, NO_NUMBERS = 2, NO_MEMORY = 3, TOO_LARGE = 4, FAILED = 5 };

template <class Work>
int guarded(Work work) {
  try {
    work();
    return DONE;
  } catch (const TooFine&) {
    return TOO_FINE;
  } catch (const NotFinite&) {
    return NO_NUMBERS;
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  } catch (...) {
    return FAILED;
  }
}

// Whether the numbers of all vertices fit 31 bits, and those of all values the address space.
bool fits(int64_t labels, int64_t height, int64_t width) {
  constexpr int64_t MOST = (int64_t{1} << 31) / 6 - 2 * BLOCK;
  return height >= 1 && width >= 1 && labels >= 1 && height <= MOST / width && labels <= (int64_t{1} << 40) / (height * width);
}

}  // namespace
}  // namespace crf

#define EXPORT extern "C" __attribute__((visibility("default")))

// Digest of the sources, so that no caller takes an older build for its own.
EXPORT const char* crf_sources() { return CRF_SOURCES; }

// Whether the processor has what the build of that name needs.
EXPORT int crf_has_avx2() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2");
#else
  return 0;
#endif
}

// The kernel of positions, which is the same for all pictures of a size; to be given back to `crf_forget`.
EXPORT int crf_smoothness(int64_t height, int64_t width, float deviation, float weight, void** made) {
  if (!crf::fits(1, height, width)) return crf::TOO_LARGE;
  return crf::guarded(
      [&] { *made = new crf::Lattice<2>(crf::smoothness(height, width, deviation, weight)); });
}

EXPORT void crf_forget(void* made) { delete static_cast<crf::Lattice<2>*>(made); }

// Probabilities (labels, height, width) from scores of that shape and a picture (height, width, 3). `bilateral` are
// the standard deviations of positions and colours, and the weight.
EXPORT int crf_refine(
    const void* near, int64_t labels, int64_t height, int64_t width, const float* scores, const uint8_t* picture,
    const float* bilateral, int64_t iterations, float* out) {
  if (!crf::fits(labels, height, width)) return crf::TOO_LARGE;
  return crf::guarded([&] {
    crf::refine(
        *static_cast<const crf::Lattice<2>*>(near), {labels, height, width}, scores, picture, bilateral, iterations, out);
  });
}
