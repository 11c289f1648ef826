#pragma once
// What a step is given, and the warp that asks for its rows.
#include "attend.cuh"

struct Layer {
  const char *qkv, *out, *neurons;  // (QKV, H); (H, A); (F, PARTS, H)
  char *keys, *values;              // (S, C, KV, D) each
  const int* ids;                   // (F,), of which the first `kept` count
  const float *qkv_bias, *out_bias, *in_bias, *down_bias;
  const float *before_attention, *shift_attention, *before_mlp, *shift_mlp, *after_attention, *after_mlp;
  const float *q_norm, *k_norm, *table;
  long long kept, window, width;  // width: of in_bias
};

struct Whole {
  const char *embedding, *places, *head;
  const float *head_bias, *final_norm, *final_shift;
  const int *token, *position, *slot;
  float* logits;
  u64 *qkv, *parts, *attended, *out, *partial, *down;  // told; partial: (UNITS, H)
  u32* told;                                           // layers, since the first step
  long long layers, context;
};

constexpr int A = HEADS * D, QKV = A + 2 * KV * D;
constexpr int LONGEST = (F + UNITS - 1) / UNITS + 1, PILE = 32;  // rows whose sums are finished together

// The asking warp: this program's rows of the whole step, in order.
struct Asking {
  u64 policy = ring::once();
  u32 n = 0;

  // Rows that lie together.
  __device__ void rows(const char* matrix, long long count, u32 bytes) {
    Share mine(count);
    for (int r = mine.begin; r < mine.end; r += LOT, n++) {
      u32 all = min(LOT, mine.end - r) * bytes;
      if (threadIdx.x % 32) continue;
      ring::expect(n, all);
      ring::copy(n, 0, matrix + (long long)r * bytes, all, policy);
    }
  }

  // Keys and values of positions that earlier steps have left.
  __device__ void cache(const Layer& layer, int at, long long first_position) {
    Split split(at, layer.window);
    long long bytes = D * SIZE, from = ((first_position + split.begin) * KV + split.g) * bytes;
    for (int first = 0; first < split.cached(); first += POSITIONS, n++) {
      int here = min(POSITIONS, split.cached() - first);
      if (threadIdx.x % 32 == 0) ring::expect(n, 2 * here * bytes);
      __syncwarp();
      for (int j = threadIdx.x % 32; j < here; j += 32) {
        long long place = from + (long long)(first + j) * KV * bytes;
        ring::copy(n, j * bytes, layer.keys + place, bytes, policy);
        ring::copy(n, SLOT / 2 + j * bytes, layer.values + place, bytes, policy);
      }
    }
  }

  // PARTS_ parts of each kept neuron, from `part` on, which lie together; ids are looked up 32 at a time.
  template <int PARTS_>
  __device__ void neurons(const Layer& layer, int part) {
    constexpr int BYTES = PARTS_ * H * SIZE, EACH = LOT / PARTS_;
    Share mine(layer.kept);
    int lane = threadIdx.x % 32;
    for (int i = mine.begin; i < mine.end; i += 32) {
      int id = i + lane < mine.end ? layer.ids[i + lane] : 0, some = min(32, mine.end - i);
      for (int k = 0; k < some; k += EACH, n++) {
        int here = min(EACH, some - k);
        long long neuron = __shfl_sync(~0u, id, k + lane % EACH);
        if (lane == 0) ring::expect(n, here * BYTES);
        __syncwarp();
        if (lane < here) ring::copy(n, lane * BYTES, layer.neurons + (neuron * PARTS + part) * H * SIZE, BYTES, policy);
      }
    }
  }

  __device__ void step(const Layer* layers, const Whole& whole) {
    int at = *whole.position;
    long long slot = *whole.slot;
#pragma unroll 1
    for (int l = 0; l < whole.layers; l++) {
      Layer layer = layers[l];
      rows(layer.qkv, QKV, H * SIZE);
      cache(layer, at, slot * whole.context);
      rows(layer.out, H, A * SIZE);
      neurons<PARTS - 1>(layer, 0);
      neurons<1>(layer, PARTS - 1);
    }
    rows(whole.head, VOCABULARY, H * SIZE);
  }
};
