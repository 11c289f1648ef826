#pragma once
#include "telling.cuh"

// Weights as they lie, 16 bytes at a time, and the vectors that they are multiplied by.

template <int I>
__device__ __forceinline__ float element(uint4 w) {
  constexpr int word = I * SIZE / 4;
  u32 bits = word == 0 ? w.x : word == 1 ? w.y : word == 2 ? w.z : w.w;
  if (SIZE == 2) bits = I % 2 ? bits & 0xffff0000u : bits << 16;  // a bfloat16 is the upper half of a float32
  return __uint_as_float(bits);
}

template <int I = 0>
__device__ __forceinline__ void spread(uint4 w, float* out) {
  out[I] = element<I>(w);
  if constexpr (I + 1 < VEC) spread<I + 1>(w, out);
}

// float32 -> as it lies, to the nearest, ties to even.
template <int BYTES>
struct Kind {
  typedef unsigned short type;
};
template <>
struct Kind<4> {
  typedef float type;
};
typedef Kind<SIZE>::type Lying;

__device__ __forceinline__ Lying lying(float x) {
  u32 bits = __float_as_uint(x);
  if constexpr (SIZE == 4) return x;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
__device__ __forceinline__ float widened(Lying x) {
  if constexpr (SIZE == 4) return x;
  return __uint_as_float((u32)x << 16);
}

// A vector of N over a program's threads: of every THREADS-th piece of 16 bytes (as it would lie), VEC elements. So a
// thread meets the same elements of each row, and needs no others.
template <int N>
struct Held {
  static constexpr int PIECES = N / VEC, MOST = (PIECES + THREADS - 1) / THREADS;
  float at[MOST][VEC];

  __device__ static int piece(int c) { return threadIdx.x + c * THREADS; }
  // Of a row: whoever has no piece c reads another, which counts for nothing, since branches would keep reads from going
  // together.
  __device__ static int some_piece(int c) { return PIECES % THREADS ? min(piece(c), PIECES - 1) : piece(c); }
  __device__ static int count() { return mine_of(PIECES); }

  // Where element e is told: neighbours among threads are neighbours there.
  __device__ static int place(int e) { return e % VEC * PIECES + e / VEC; }

  // f(c, k, element) of what this thread holds.
  template <class Visit>
  __device__ __forceinline__ static void each(Visit f) {
#pragma unroll
    for (int c = 0; c < MOST; c++)
#pragma unroll
      for (int k = 0; k < VEC; k++)
        if (piece(c) < PIECES) f(c, k, piece(c) * VEC + k);
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int c = 0; c < MOST; c++)
#pragma unroll
      for (int k = 0; k < VEC; k++) at[c][k] = 0;
  }

  // As it lies in memory, on its way from here on: the compiler may not move that.
  __device__ __forceinline__ void load(const float* from) {
    clear();
    each([&](int c, int k, int e) { asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(at[c][k]) : "l"(from + e)); });
  }

  __device__ __forceinline__ void hear(const u64* told, u32 layer) {
    clear();
    ::hear<MOST * VEC>(count() * VEC, layer, [=](int i) { return told + i % VEC * PIECES + piece(i / VEC); },
                       [&](int i, float y) { at[i / VEC][i % VEC] = y; });
  }

  __device__ __forceinline__ void tell(u64* places, u32 layer) const {
    each([&](int c, int k, int) { ::tell(places + k * PIECES + piece(c), at[c][k], layer); });
  }

  __device__ __forceinline__ float squares(float mean) const {
    float sum = 0;
    each([&](int c, int k, int) { sum += (at[c][k] - mean) * (at[c][k] - mean); });
    return sum;
  }

  // Its elements times those of a row.
  __device__ __forceinline__ float dot(const char* row) const {
    float sum = 0;
#pragma unroll
    for (int c = 0; c < MOST; c++) {
      float w[VEC];
      spread(((const uint4*)row)[some_piece(c)], w);
#pragma unroll
      for (int k = 0; k < VEC; k++) sum += w[k] * at[c][k];
    }
    return sum;
  }

  // This + a row times x.
  __device__ __forceinline__ void add(const char* row, float x) {
#pragma unroll
    for (int c = 0; c < MOST; c++) {
      float w[VEC];
      spread(((const uint4*)row)[some_piece(c)], w);
#pragma unroll
      for (int k = 0; k < VEC; k++) at[c][k] += w[k] * x;
    }
  }
};

// LOT sums over a warp at once: lane i * 32 / LOT has that of y[i], and so have those up to the next.
template <int N = LOT, int STRIDE = 16>
__device__ __forceinline__ float sums(const float (&y)[N]) {
  if constexpr (N == 1) {
    float x = y[0];
#pragma unroll
    for (int off = STRIDE; off; off /= 2) x += __shfl_xor_sync(~0u, x, off);
    return x;
  } else {
    bool high = threadIdx.x & STRIDE;
    float half[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++)
      half[i] = (high ? y[i + N / 2] : y[i]) + __shfl_xor_sync(~0u, high ? y[i] : y[i + N / 2], STRIDE);
    return sums<N / 2, STRIDE / 2>(half);
  }
}

// A norm's weight and bias, and the weight of the norm of what is added before it (Gemma), or none.
struct Norms {
  const float *weight, *shift, *after;

  // Into the second-level cache, a part by each program.
  __device__ __forceinline__ void warm() const {
    for (int e = blockIdx.x * 32; threadIdx.x == 0 && e < H; e += UNITS * 32)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(weight + e));
  }
};

// The residual stream, of which each program holds all: add what the programs tell of a layer, if anything; x becomes
// the stream normed.
__device__ __forceinline__ void settle(Held<H>& stream, Held<H>& x, Sum& sum, const u64* told, u32 layer, Norms norms) {
  Held<H> weight, more;
  weight.load(norms.weight);
  if (told) {
    more.hear(told, layer);
    float scale = AFTER && norms.after ? rsqrtf(sum(more.squares(0)) / H + EPS) : 1;
    Held<H>::each([&](int c, int k, int e) {
      stream.at[c][k] += more.at[c][k] * (AFTER && norms.after ? scale * norms.after[e] : 1);
    });
  }
  float mean = 0;
  if (CENTER) {
    Held<H>::each([&](int c, int k, int) { mean += stream.at[c][k]; });
    mean = sum(mean) / H;
  }
  float scale = rsqrtf(sum(stream.squares(mean)) / H + EPS);
  x.clear();
  Held<H>::each([&](int c, int k, int e) {
    x.at[c][k] = (stream.at[c][k] - mean) * scale * weight.at[c][k] + (CENTER ? norms.shift[e] : 0);
  });
}
