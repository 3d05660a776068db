// Calls the compiled CRF with sizes, labels and bad input of all kinds, several threads at once; for sanitizers.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

extern "C" {
int crf_has_avx2();
int crf_smoothness(int64_t height, int64_t width, float deviation, float weight, void** made);
void crf_forget(void* made);
int crf_refine(
    const void* near, int64_t labels, int64_t height, int64_t width, const float* scores, const uint8_t* picture,
    const float* bilateral, int64_t iterations, float* out);
}

namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::exit(1);
}

// Exactly as large as they are said to be, so that whoever reads past an end is caught.
struct Input {
  int64_t labels, height, width;
  std::vector<float> scores;
  std::vector<uint8_t> picture;

  Input(int64_t labels, int64_t height, int64_t width, bool noise)
      : labels(labels), height(height), width(width), scores(size_t(labels * height * width)),
        picture(size_t(height * width * 3)) {
    uint32_t state = uint32_t(labels * 7 + height * 31 + width);
    const auto drawn = [&] { return (state = state * 1664525 + 1013904223) >> 16; };
    for (float& score : scores) score = float(drawn() % 1000) / 1000;
    for (uint8_t& byte : picture) byte = noise ? uint8_t(drawn()) : uint8_t(77);
  }
};

std::vector<float> refine(const Input& input, const void* near, int outcome, float colour = 5) {
  std::vector<float> out(input.scores.size());
  const float bilateral[3] = {50, colour, 10};
  const int found = crf_refine(
      near, input.labels, input.height, input.width, input.scores.data(), input.picture.data(), bilateral, 3, out.data());
  expect(found == outcome, "the outcome");
  return out;
}

void check(const Input& input) {
  void* near = nullptr;
  expect(crf_smoothness(input.height, input.width, 3, 7, &near) == 0, "a kernel of positions");
  const std::vector<float> out = refine(input, near, 0);
  const size_t pixels = size_t(input.height * input.width);
  for (size_t i = 0; i < pixels; i++) {
    double sum = 0;
    for (size_t c = 0; c < size_t(input.labels); c++) sum += out[c * pixels + i];
    expect(std::fabs(sum - 1) < 1e-4, "probabilities sum to one");
  }
  crf_forget(near);
}

void check_threads() {
  const Input input(5, 40, 50, true);
  void* near = nullptr;
  expect(crf_smoothness(40, 50, 3, 7, &near) == 0, "a kernel of positions");
  const std::vector<float> expected = refine(input, near, 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&] {
      const std::vector<float> found = refine(input, near, 0);
      expect(!std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), "the same bytes");
    });
  for (std::thread& thread : threads) thread.join();
  crf_forget(near);
}

void check_bad_input() {
  void* near = nullptr;
  expect(crf_smoothness(0, 5, 3, 7, &near) == 4, "no row");
  expect(crf_smoothness(int64_t{1} << 40, int64_t{1} << 40, 3, 7, &near) == 4, "too large");
  expect(crf_smoothness(100, 100, 1e-30f, 7, &near) == 1, "too fine");
  expect(crf_smoothness(100, 100, 0, 7, &near) == 1, "no width at all");
  expect(crf_smoothness(20, 30, 3, 7, &near) == 0, "a kernel of positions");
  Input input(3, 20, 30, true);
  refine(input, near, 1, 1e-6f);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    input.scores.back() = bad;
    refine(input, near, 2);
  }
  for (float& score : input.scores) score = (&score - input.scores.data()) % 2 ? 3e38f : -3e38f;
  refine(input, near, 0);
  crf_forget(near);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && !std::strcmp(argv[1], "avx2") && !crf_has_avx2()) return 77;
  for (const int64_t labels : {1, 2, 3, 4, 5, 6, 9, 10, 17, 18, 25, 26, 33, 34, 70})
    for (const int64_t height : {1, 3, 33})
      for (const int64_t width : {1, 5, 64})
        for (const bool noise : {false, true}) check(Input(labels, height, width, noise));
  check(Input(2, 300, 400, true));  // the table of vertices grows
  check_threads();
  check_bad_input();
  return 0;
}
