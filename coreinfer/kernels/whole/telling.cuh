#pragma once
// What programs tell one another: a float and, in the same 8 bytes, the number of the layer that it belongs to. Who
// needs it reads until the number is there: no program waits for more than it needs, and none for writes to be seen.
//
// A place is written once a layer at most. That all have read it by the next time follows from what a layer's last sum
// needs: a part from every program.
#include "ring.cuh"

__device__ __forceinline__ void together() { asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory"); }

__device__ __forceinline__ void tell(u64* place, float x, u32 layer) {
  u64 word = (u64)layer << 32 | __float_as_uint(x);
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(place), "l"(word) : "memory");
}

// put(i, told) for i below n, N at most, in order; at(i) are their places.
template <int N, class At, class Put>
__device__ __forceinline__ void hear(int n, u32 layer, At at, Put put) {
  if (n <= 0) return;
  u64 words[N];
  bool all;
  do {
    all = true;
#pragma unroll
    for (int i = 0; i < N; i++)
      asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(words[i]) : "l"(at(min(i, n - 1))) : "memory");
#pragma unroll
    for (int i = 0; i < N; i++) all &= (u32)(words[i] >> 32) == layer;
  } while (!all);
#pragma unroll
  for (int i = 0; i < N; i++)
    if (i < n) put(i, __uint_as_float((u32)words[i]));
}

// Every THREADS-th of n, from this thread's: how many.
__device__ __forceinline__ int mine_of(int n) { return (n - (int)threadIdx.x + THREADS - 1) / THREADS; }
__device__ __forceinline__ int mine_at(int i) { return threadIdx.x + i * THREADS; }

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int off = 16; off; off /= 2) x += __shfl_xor_sync(~0u, x, off);
  return x;
}

// Of all computing threads, the same in each. Two places take turns: who writes one has seen all leave it.
struct Sum {
  float (*places)[WARPS];
  int turn;

  __device__ __forceinline__ float operator()(float x) {
    x = warp_sum(x);
    float* place = places[turn ^= 1];
    if (threadIdx.x % 32 == 0) place[threadIdx.x / 32] = x;
    together();
    x = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) x += place[w];
    return x;
  }
};

// This program's share of n pieces.
struct Share {
  int begin, end;
  __device__ explicit Share(long long n) : begin(blockIdx.x * n / UNITS), end((blockIdx.x + 1) * n / UNITS) {}
  __device__ int size() const { return end - begin; }
};
