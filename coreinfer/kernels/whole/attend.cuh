#pragma once
// Attention of one token: program (g, s) has a key head's queries and a split of the positions that they look at; then
// each of a key head's programs adds up some of its elements, over all splits.
#include "vectors.cuh"

constexpr int GROUP = HEADS / KV, FEWEST = 64;  // positions of a split
constexpr int LANES = D * SIZE / 16, SPAN = LANES > 16 ? 32 : LANES > 8 ? 16 : LANES > 4 ? 8 : LANES > 2 ? 4 : LANES;
constexpr int ROWS = 32 / SPAN;                   // a warp's positions at a time
constexpr int POSITIONS = SLOT / (2 * D * SIZE);  // of a slot: keys, and from its middle on values
constexpr int PART = GROUP * (D + 2);             // what a split tells: mixtures, tops, sums

// Which positions this program's queries look at: from begin to end, of which the last may be the token's own, in no
// cache yet.
struct Split {
  int at, g, s, used, begin, end;

  __device__ __forceinline__ Split(int at, long long window) : at(at), g(blockIdx.x / SPLITS), s(blockIdx.x % SPLITS) {
    int since = max(0ll, at + 1 - window), all = at + 1 - since, share = max(FEWEST, (all + SPLITS - 1) / SPLITS);
    used = (all + share - 1) / share, begin = since + s * share, end = min(begin + share, at + 1);
  }
  __device__ __forceinline__ bool mixes() const { return g < KV && s < used; }
  __device__ __forceinline__ bool owns() const { return s == used - 1; }
  __device__ __forceinline__ int cached() const { return mixes() ? min(end, at) - begin : 0; }
  __device__ __forceinline__ int slots() const { return (cached() + POSITIONS - 1) / POSITIONS; }
};

__device__ __forceinline__ float none() { return __int_as_float(0xff800000); }  // minus infinity

// What softmax has come to: its largest score, and relative to that the sum of weights and the mixture.
struct Mixed {
  float top = none(), sum = 0, y[VEC] = {};

  __device__ __forceinline__ void add(const Mixed& other) {
    float best = fmaxf(top, other.top);
    if (best == none()) return;
    float mine = __expf(top - best), theirs = __expf(other.top - best);
    top = best, sum = sum * mine + other.sum * theirs;
#pragma unroll
    for (int i = 0; i < VEC; i++) y[i] = y[i] * mine + other.y[i] * theirs;
  }
};

// Shared memory of attention.
struct Desk {
  float heads[(GROUP + 2) * D], queries[GROUP * D];
  union {
    struct {
      float mixtures[MIXERS][GROUP * D], tops[MIXERS][GROUP], sums[MIXERS][GROUP];
    };
    float splits[SPLITS][3][32];
  };
  alignas(16) Lying key[D], value[D];
};

struct Attention {
  Desk& desk;
  const Split split;
  const u64* qkv;                        // told: (HEADS + 2 KV, D)
  const float *q_norm, *k_norm, *table;  // the table's row of this position, in shared memory
  char *keys, *values;                   // of this layer and slot: (C, KV, D)
  u64 *parts, *out;                      // told: (KV, SPLITS, PART); (HEADS, D), as Held
  u32 layer;

  __device__ __forceinline__ void run(u32 n) {
    if (split.mixes()) {
      prepare();
      mix(n);
      together();
      gather();
    }
    if (split.g < KV && split.used > 1) add_up();
  }

  __device__ __forceinline__ void prepare() {
    auto place = [=](int i) {
      int e = mine_at(i), head = e / D;
      return qkv + (head < GROUP ? split.g * GROUP + head : HEADS + (head - GROUP) * KV + split.g) * D + e % D;
    };
    constexpr int ALL = (GROUP + 2) * D;
    hear<(ALL + THREADS - 1) / THREADS>(mine_of(ALL), layer, place,
                                        [&](int i, float y) { desk.heads[mine_at(i)] = y; });
    together();
#pragma unroll 1
    for (int h = threadIdx.x / 32; h < GROUP + 2; h += WARPS)
      if (h < GROUP || split.owns()) turn(h);
    together();
  }

  // A head normed (Qwen3, Gemma 3) and turned by a rope in its first TURNED dimensions, by a warp. Values are neither.
  __device__ __forceinline__ void turn(int h) {
    const float *head = desk.heads + h * D, *norm = h < GROUP ? q_norm : h == GROUP ? k_norm : nullptr;
    char* cache = h == GROUP ? keys : values;
    Lying* own = h == GROUP ? desk.key : desk.value;
    float scale = 1, square = 0;
    if (norm) {
      for (int d = threadIdx.x % 32; d < D; d += 32) square += head[d] * head[d];
      scale = rsqrtf(warp_sum(square) / D + EPS);
    }
    for (int d = threadIdx.x % 32; d < D; d += 32) {
      float y = head[d] * scale * (norm ? norm[d] : 1);
      if (d < TURNED && h <= GROUP) {
        bool first = d < TURNED / 2;
        int other = first ? d + TURNED / 2 : d - TURNED / 2;
        float z = head[other] * scale * (norm ? norm[other] : 1);
        y = y * table[d] + (first ? -z : z) * table[D + d];
      }
      if (h < GROUP)
        desk.queries[h * D + d] = y;
      else
        ((Lying*)cache)[((long long)split.at * KV + split.g) * D + d] = own[d] = lying(y);
    }
  }

  __device__ __forceinline__ void mix(u32 n) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % SPAN, row = threadIdx.x % 32 / SPAN;
    Mixed mixed[GROUP];
#pragma unroll 1
    for (int left = split.cached(); left > 0; left -= POSITIONS, n++) {
      const uint4* k = (const uint4*)ring::lot(n);
      const uint4* v = (const uint4*)((const char*)k + SLOT / 2);
#pragma unroll 1
      for (int first = warp * ROWS; warp < MIXERS && first < min(POSITIONS, left); first += MIXERS * ROWS) {
        int j = first + row;
        look_at(k + j * LANES, v + j * LANES, j < min(POSITIONS, left), mixed);
      }
      ring::release(n);
    }
    if (warp >= MIXERS) return;
    if (split.owns()) look_at((const uint4*)desk.key, (const uint4*)desk.value, warp == MIXERS - 1 && row == 0, mixed);
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
#pragma unroll
      for (int off = SPAN; off < 32; off *= 2) {
        Mixed other;
        other.top = __shfl_xor_sync(~0u, mixed[h].top, off), other.sum = __shfl_xor_sync(~0u, mixed[h].sum, off);
#pragma unroll
        for (int i = 0; i < VEC; i++) other.y[i] = __shfl_xor_sync(~0u, mixed[h].y[i], off);
        mixed[h].add(other);
      }
      if (row == 0 && lane < LANES)
#pragma unroll
        for (int i = 0; i < VEC; i++) desk.mixtures[warp][h * D + lane * VEC + i] = mixed[h].y[i];
      if (threadIdx.x % 32 == 0) desk.tops[warp][h] = mixed[h].top, desk.sums[warp][h] = mixed[h].sum;
    }
  }

  __device__ __forceinline__ void look_at(const uint4* k, const uint4* v, bool there, Mixed* mixed) const {
    int lane = threadIdx.x % SPAN;
    bool reads = there && lane < LANES;
    float key[VEC];
    Mixed one;
    spread(reads ? k[lane] : uint4{0, 0, 0, 0}, key), spread(reads ? v[lane] : uint4{0, 0, 0, 0}, one.y);
    one.sum = 1;
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
      float score = 0;
#pragma unroll
      for (int i = 0; i < VEC; i++) score += key[i] * (lane < LANES ? desk.queries[h * D + lane * VEC + i] : 0);
#pragma unroll
      for (int off = SPAN / 2; off; off /= 2) score += __shfl_xor_sync(~0u, score, off);
      score *= SCALE;
      if constexpr (CAP > 0) score = CAP * tanhf(score / CAP);
      one.top = there ? score : none();
      mixed[h].add(one);
    }
  }

  // The warps' mixtures as one.
  __device__ __forceinline__ void gather() {
    u64* part = parts + (split.g * SPLITS + split.s) * PART;
#pragma unroll 1
    for (int e = threadIdx.x; e < GROUP * D; e += THREADS) {
      int h = e / D;
      float best = none(), y = 0, sum = 0;
#pragma unroll
      for (int w = 0; w < MIXERS; w++) best = fmaxf(best, desk.tops[w][h]);
#pragma unroll
      for (int w = 0; w < MIXERS; w++) {
        float weight = __expf(desk.tops[w][h] - best);
        y += desk.mixtures[w][e] * weight, sum += desk.sums[w][h] * weight;
      }
      if (split.used == 1) {
        tell(out + Held<HEADS * D>::place(split.g * GROUP * D + e), y / sum, layer);
      } else {
        tell(part + e, y, layer);
        if (e % D == 0) tell(part + GROUP * D + h, best, layer), tell(part + GROUP * (D + 1) + h, sum, layer);
      }
    }
  }

  // This program's elements over the splits, of which each warp hears some.
  __device__ __forceinline__ void add_up() {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, end = (split.s + 1) * GROUP * D / SPLITS;
#pragma unroll 1
    for (int first = split.s * GROUP * D / SPLITS; first < end; first += 32) {
      int e = first + lane;
      together();
#pragma unroll 1
      for (int i = warp; i < split.used && e < end; i += WARPS) {
        const u64* part = parts + (split.g * SPLITS + i) * PART;
        auto place = [=](int what) { return part + (what ? GROUP * (D + what - 1) + e / D : e); };
        hear<3>(3, layer, place, [&](int what, float y) { desk.splits[i][what][lane] = y; });
      }
      together();
      if (warp || e >= end) continue;
      float best = none(), y = 0, sum = 0;
      for (int i = 0; i < split.used; i++) best = fmaxf(best, desk.splits[i][1][lane]);
      for (int i = 0; i < split.used; i++) {
        float weight = __expf(desk.splits[i][1][lane] - best);
        y += desk.splits[i][0][lane] * weight, sum += desk.splits[i][2][lane] * weight;
      }
      tell(out + Held<HEADS * D>::place(split.g * GROUP * D + e), y / sum, layer);
    }
  }
};
