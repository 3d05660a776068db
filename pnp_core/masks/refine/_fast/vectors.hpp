// Vectors of float32 as wide as the processor's registers. Operations are element by element, so that results do not
// depend on the width.
#pragma once

#include <cstdint>

namespace crf {

#ifdef __AVX2__
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef float Wide __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t WideInt __attribute__((vector_size(4 * WIDTH), may_alias));

inline Wide wide(float value) { return Wide{} + value; }
inline Wide load(const float* from) { return *reinterpret_cast<const Wide*>(from); }
inline void store(float* to, Wide value) { *reinterpret_cast<Wide*>(to) = value; }
inline void store(int32_t* to, WideInt value) { *reinterpret_cast<WideInt*>(to) = value; }
inline Wide larger(Wide a, Wide b) { return a > b ? a : b; }

constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: a sum with it has no bits left for fractions

// To the nearest whole number, ties to even; |value| < 2^22. Wrong if a compiler may reassociate.
inline Wide nearest_whole(Wide value) { return (value + MAGIC) - MAGIC; }

// The same as whole numbers.
inline WideInt to_whole(Wide whole) { return (WideInt)(whole + MAGIC) - 0x4B400000; }

// e to the power of values <= 0; the relative error is below 2e-7, and below -87 it stays what it is there.
inline Wide exponential(Wide value) {
  value = larger(value, wide(-87.0f));
  const Wide shifted = value * 1.44269504f + MAGIC;
  const Wide whole = shifted - MAGIC;
  const Wide rest = (value - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
  Wide sum = wide(8.3372026e-3f);  // the polynomial of this degree with the smallest relative error, 7.3e-8
  sum = sum * rest + 4.19108588e-2f;
  sum = sum * rest + 1.66667362e-1f;
  sum = sum * rest + 4.99990130e-1f;
  sum = sum * rest + 1.00000013f;
  sum = sum * rest + 1.0f;
  // The low bits of the shifted value are the whole number: moved up they are an exponent.
  const WideInt power = ((WideInt)shifted << 23) + (127 << 23);
  return sum * (Wide)power;
}

}  // namespace crf
