#pragma once
// Rows of weights on their way. One warp of a program asks for them in the order in which the step reads them, and as
// far ahead as a ring of slots in shared memory holds; so memory stays busy while programs wait for one another.
//
// A slot holds LOT rows: barriers cost more than sums. It is full when they have come (bulk asynchronous copy, PTX ISA
// 9.7.9.25) and empty when all WARPS have read them (mbarrier, PTX ISA 9.7.13).
#include "shape.cuh"

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int THREADS = 32 * WARPS;  // that compute; one more warp asks
constexpr int VEC = 16 / SIZE;       // elements of 16 bytes

__device__ __forceinline__ u32 shared_at(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Whether a barrier's phase of this parity is over, after some time at most.
__device__ __forceinline__ bool done(u64* barrier, u32 parity) {
  u32 yes;
  asm volatile(
      "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(yes) : "r"(shared_at(barrier)), "r"(parity) : "memory");
  return yes;
}

__device__ __forceinline__ void await(u64* barrier, u32 parity) {
  while (!done(barrier, parity)) continue;
}

// Where a program's shared memory begins.
extern __shared__ __align__(128) char memory[];

namespace ring {

struct Slots {
  char rows[SLOTS][SLOT];
  u64 full[SLOTS], empty[SLOTS];
};

__device__ __forceinline__ Slots& slots() { return *(Slots*)memory; }

__device__ __forceinline__ void init() {
  for (int i = 0; i < SLOTS; i++) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_at(slots().full + i)) : "memory");
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_at(slots().empty + i)), "n"(WARPS) : "memory");
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// What is in slot number n of the step, once it is there. Every warp waits for every slot and releases it, so none is a
// round ahead of another: a barrier tells a round from the one before by parity alone.
__device__ __forceinline__ const char* lot(u32 n) {
  await(slots().full + n % SLOTS, n / SLOTS & 1);
  return slots().rows[n % SLOTS];
}

// A warp has read it.
__device__ __forceinline__ void release(u32 n) {
  __syncwarp();
  if (threadIdx.x % 32 == 0)
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_at(slots().empty + n % SLOTS)) : "memory");
}

// One thread waits until slot n is empty, for so many bytes; no more than WINDOW slots are on their way, since a longer
// queue would only delay all other reads. Then any may copy parts of them.
__device__ __forceinline__ void expect(u32 n, u32 bytes) {
  u32 before = n - WINDOW;
  if (n >= WINDOW) await(slots().full + before % SLOTS, before / SLOTS & 1);
  await(slots().empty + n % SLOTS, (n / SLOTS & 1) ^ 1);
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_at(slots().full + n % SLOTS)),
               "r"(bytes) : "memory");
}

// Rows are read once: the second-level cache keeps what programs tell one another instead.
__device__ __forceinline__ u64 once() {
  u64 policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void copy(u32 n, u32 offset, const char* source, u32 bytes, u64 policy) {
  u32 to = shared_at(slots().rows[n % SLOTS] + offset), barrier = shared_at(slots().full + n % SLOTS);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
      ::"r"(to), "l"(source), "r"(bytes), "r"(barrier), "l"(policy) : "memory");
}

}  // namespace ring
