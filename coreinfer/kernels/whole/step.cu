// A decoding step as one kernel: a program on each multiprocessor goes through all layers and the head, and weights
// come without a pause. Sums are made in an order that does not depend on timing.
#include "asking.cuh"

// A row's sum, as far as each warp has it.
struct Parts {
  float of[WARPS], apart;  // rows lie in other banks than their neighbours

  __device__ __forceinline__ float sum() const {
    float y = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) y += of[w];
    return y;
  }
};

struct Shared {
  ring::Slots slots;
  Desk desk;
  Parts parts[2][PILE];
  float columns[WARPS][32], table[2 * D];
  Layer layers[2];
  float active[LONGEST], sums[2][WARPS];
};

static_assert(sizeof(Shared) <= SHARED);

__device__ __forceinline__ Shared& shared() { return *(Shared*)memory; }

__device__ __forceinline__ float activated(float x) {
  if (ACT == 0) return x / (1 + __expf(-x));
  if (ACT == 1) return fmaxf(x, 0);
  if (ACT == 2) return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
  return x / (1 + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

struct Computing {
  const Whole& whole;
  u32 told;
  int at, slot;
  Held<H> stream, x;
  Sum sum;
  u32 n = 0;
  int pile = 0;

  // The next `count` rows times v, PILE at a time: of a pile, put(first row, how many, its sums' parts) by all threads.
  template <int N, class Put>
  __device__ __forceinline__ void rows(const Held<N>& v, int count, Put put) {
#pragma unroll 1
    for (int first = 0; first < count; first += PILE) {
      Parts* parts = shared().parts[pile ^= 1];
      int here = min(PILE, count - first);
#pragma unroll 1
      for (int r = 0; r < here; r += LOT, n++) some(v, parts + r, min(LOT, here - r));
      together();
      put(first, here, parts);
    }
  }

  template <int N>
  __device__ __forceinline__ void some(const Held<N>& v, Parts* parts, int here) {
    constexpr int APART = 32 / LOT;
    int lane = threadIdx.x % 32;
    float y[LOT];
    const char* lot = ring::lot(n);
#pragma unroll
    for (int k = 0; k < LOT; k++) y[k] = v.dot(lot + k * N * SIZE);  // beyond those that are here: nothing that counts
    ring::release(n);
    float mine = sums(y);
    if (lane % APART == 0 && lane / APART < here) parts[lane / APART].of[threadIdx.x / 32] = mine;
  }

  // This program's rows of a matrix times v: put(row, sum), each by one thread.
  template <int N, class Put>
  __device__ __forceinline__ void matrix(const Held<N>& v, long long height, Put put) {
    Share mine(height);
    rows(v, mine.size(), [&](int first, int here, const Parts* parts) {
      if (threadIdx.x < here) put(mine.begin + first + threadIdx.x, parts[threadIdx.x].sum());
    });
  }

  __device__ __forceinline__ void settle(const u64* places, const Norms& norms) {
    ::settle(stream, x, sum, places, told, norms);
  }

  __device__ __forceinline__ void embed() {
    long long token = *whole.token;
    stream.clear();
    Held<H>::each([&](int c, int k, int e) {
      stream.at[c][k] = widened(((const Lying*)whole.embedding)[token * H + e]) * EMBEDDING_SCALE;
      if (PLACES) stream.at[c][k] += widened(((const Lying*)whole.places)[(long long)at * H + e]);
    });
  }

  // A layer's addresses are there before they are needed.
  __device__ __forceinline__ void fetch(const Layer* layers, int l) {
    constexpr int WORDS = sizeof(Layer) / 8;
    if (threadIdx.x < WORDS && l < whole.layers)
      ((u64*)(shared().layers + l % 2))[threadIdx.x] = ((const u64*)(layers + l))[threadIdx.x];
  }

  __device__ __forceinline__ void attention(const Layer& layer) {
    Norms norms{layer.before_mlp, layer.shift_mlp, layer.after_attention};
    norms.warm();
    if (TURNED)
      for (int d = threadIdx.x; d < 2 * D; d += THREADS) shared().table[d] = layer.table[(long long)at * 2 * D + d];
    matrix(x, QKV, [&](int r, float y) { tell(whole.qkv + r, y + (layer.qkv_bias ? layer.qkv_bias[r] : 0), told); });
    long long cache = slot * whole.context * KV * D * SIZE;
    Attention attention{shared().desk, Split(at, layer.window), whole.qkv, layer.q_norm, layer.k_norm, shared().table,
                        layer.keys + cache, layer.values + cache, whole.parts, whole.attended, told};
    attention.run(n);
    n += attention.split.slots();
    Held<A> attended;
    attended.hear(whole.attended, told);
    matrix(attended, H, [&](int r, float y) {
      tell(whole.out + Held<H>::place(r), y + (layer.out_bias ? layer.out_bias[r] : 0), told);
    });
    settle(whole.out, norms);
  }

  // Leaves the stream normed for what comes next.
  __device__ __forceinline__ void mlp(const Layer& layer, const Norms& next) {
    Share mine(layer.kept);
    next.warm();
    activate(layer, mine);
    together();
    down(mine);
    columns(layer);
    settle(whole.down, next);
  }

  __device__ __forceinline__ void activate(const Layer& layer, Share mine) {
    rows(x, mine.size() * (PARTS - 1), [&](int first, int here, const Parts* parts) {
      int r = threadIdx.x * (PARTS - 1);
      if (r >= here) return;
      int i = (first + r) / (PARTS - 1), id = layer.in_bias ? layer.ids[mine.begin + i] : 0;
      float y = parts[r].sum() + (layer.in_bias ? layer.in_bias[id] : 0);
      if (PARTS == 3) y = activated(y) * (parts[r + 1].sum() + (layer.in_bias ? layer.in_bias[layer.width + id] : 0));
      shared().active[i] = PARTS == 3 ? y : activated(y);
    });
  }

  // This program's neurons' part of the sum, for all columns: some rows together, of which the last may be missing.
  __device__ __forceinline__ void down(Share mine) {
    Held<H> y;
    y.clear();
#pragma unroll 1
    for (int i = 0; i < mine.size(); i += LOT, n++) {
      const char* lot = ring::lot(n);
      int here = min(LOT, mine.size() - i);
      if (here == LOT) {
#pragma unroll
        for (int k = 0; k < LOT; k++) y.add(lot + k * H * SIZE, shared().active[i + k]);
      } else {
        for (int k = 0; k < here; k++) y.add(lot + k * H * SIZE, shared().active[i + k]);
      }
      ring::release(n);
    }
    y.tell(whole.partial + blockIdx.x * H, told);
  }

  // The programs' parts of this program's columns, as `Held::place` orders them; added up in the programs' order.
  __device__ __forceinline__ void columns(const Layer& layer) {
    Share mine(H);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, units = (UNITS - warp + WARPS - 1) / WARPS;
#pragma unroll 1
    for (int first = mine.begin; first < mine.end; first += 32) {
      int column = first + lane;
      float y = 0;
      auto place = [=](int i) { return whole.partial + (warp + i * WARPS) * H + column; };
      hear<(UNITS + WARPS - 1) / WARPS>(column < mine.end ? units : 0, told, place, [&](int i, float part) { y += part; });
      together();
      shared().columns[warp][lane] = y;
      together();
      if (warp || column >= mine.end) continue;
#pragma unroll
      for (int w = 1; w < WARPS; w++) y += shared().columns[w][lane];
      int e = column % (H / VEC) * VEC + column / (H / VEC);
      tell(whole.down + column, y + (layer.down_bias ? layer.down_bias[e] : 0), told);
    }
  }

  __device__ __forceinline__ void head() {
    matrix(x, VOCABULARY, [&](int r, float y) {
      y += whole.head_bias ? whole.head_bias[r] : 0;
      if constexpr (SOFTCAP > 0) y = SOFTCAP * tanhf(y / SOFTCAP);
      whole.logits[r] = y;
    });
  }

  __device__ __forceinline__ void step(const Layer* layers) {
    embed();
    fetch(layers, 0);
    together();
    settle(nullptr, Norms{shared().layers[0].before_attention, shared().layers[0].shift_attention, nullptr});
#pragma unroll 1
    for (int l = 0; l < whole.layers; l++, told++) {
      const Layer &layer = shared().layers[l % 2], &next = shared().layers[(l + 1) % 2];
      fetch(layers, l + 1);
      attention(layer);
      bool last = l + 1 == whole.layers;
      mlp(layer, Norms{last ? whole.final_norm : next.before_attention, last ? whole.final_shift : next.shift_attention,
                       layer.after_mlp});
    }
    head();
    if (blockIdx.x == 0 && threadIdx.x == 0) *whole.told = told - 1;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1) step(const Layer* layers, const Whole* given) {
  Whole whole = *given;
  if (threadIdx.x == 0) ring::init();
  __syncthreads();
  if (threadIdx.x >= THREADS) {
    Asking{}.step(layers, whole);
  } else {
    Computing run{whole, *whole.told + 1, *whole.position, *whole.slot};
    run.sum = {shared().sums, 0};
    run.step(layers);
  }
}
