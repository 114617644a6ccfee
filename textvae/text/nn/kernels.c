/* The elementwise arithmetic of a training step on a CPU, each function in one pass over memory.

   kernels.py compiles this file for the current machine and calls the four functions at the end;
   cell.py, softmax.py and generate.py say what they compute, and contain the same in torch's
   operations.
   Results of matrix products are bf16 if `narrow` is set, else fp32; everything else is fp32. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP /* declared here because a compiler may lack omp.h */
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

/* Called with constants, so that each use becomes a separate vectorized loop. */
#define INLINE static inline __attribute__((always_inline))

enum { SHARED_FROM = 8192 }; /* entries: below this, waking other threads costs more than it saves */
enum { BLOCK = 512 };        /* words: their scores stay in the fastest cache */
enum { COPIES = 8 };         /* of sums that neighbors add to: an addition takes a few cycles */

INLINE float widened(uint16_t number) {
  uint32_t bits = (uint32_t)number << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

INLINE uint16_t narrowed(float number) { /* to the nearest, ties to even */
  uint32_t bits;
  memcpy(&bits, &number, sizeof bits);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE float get(const void *from, int64_t at, int narrow) {
  return narrow ? widened(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

INLINE void put(void *to, int64_t at, float number, int narrow) {
  if (narrow)
    ((uint16_t *)to)[at] = narrowed(number);
  else
    ((float *)to)[at] = number;
}

/* exp(x) = 2^n exp(r) with n = round(x / log 2), |r| <= log(2) / 2, where the series up to r^7 is
   accurate to fp32. Comparisons are written so that NaN stays NaN. */
INLINE float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  float n = (x * 1.44269504f + 0x1.8p23f) - 0x1.8p23f;   /* a float that large has no fractions */
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* log 2 in two parts, the first exact */
  float sum = 1 + r * (1 / 7.0f);
  sum = 1 + r * (1 / 6.0f) * sum;
  sum = 1 + r * (1 / 5.0f) * sum;
  sum = 1 + r * (1 / 4.0f) * sum;
  sum = 1 + r * (1 / 3.0f) * sum;
  sum = 1 + r * (1 / 2.0f) * sum;
  sum = 1 + r * sum;
  int32_t bits = ((int32_t)n + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return sum * power;
}

INLINE float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

INLINE float tangent(float x) { return 2 * sigmoid(2 * x) - 1; }

INLINE void forward_row(int64_t size, const void *gates, const float *before, float *cell,
                        void *hidden, int narrow) {
#pragma omp simd
  for (int64_t k = 0; k < size; k++) {
    float i = sigmoid(get(gates, k, narrow)), f = sigmoid(get(gates, size + k, narrow));
    float g = tangent(get(gates, 2 * size + k, narrow));
    float o = sigmoid(get(gates, 3 * size + k, narrow));
    float state = f * before[k] + i * g;
    cell[k] = state;
    put(hidden, k, o * tangent(state), narrow);
  }
}

INLINE void backward_row(int64_t size, const void *gates, const float *before, const float *cell,
                         const void *d_hidden, float *d_cell, void *d_gates, float *total,
                         int narrow) {
#pragma omp simd
  for (int64_t k = 0; k < size; k++) {
    float i = sigmoid(get(gates, k, narrow)), f = sigmoid(get(gates, size + k, narrow));
    float g = tangent(get(gates, 2 * size + k, narrow));
    float o = sigmoid(get(gates, 3 * size + k, narrow));
    float squashed = tangent(cell[k]), d_h = get(d_hidden, k, narrow);
    float d_c = d_cell[k] + d_h * o * (1 - squashed * squashed);
    float d_i = d_c * g * i * (1 - i), d_f = d_c * before[k] * f * (1 - f);
    float d_g = d_c * i * (1 - g * g), d_o = d_h * squashed * o * (1 - o);
    d_cell[k] = d_c * f;
    total[k] += d_i;
    total[size + k] += d_f;
    total[2 * size + k] += d_g;
    total[3 * size + k] += d_o;
    put(d_gates, k, d_i, narrow);
    put(d_gates, size + k, d_f, narrow);
    put(d_gates, 2 * size + k, d_g, narrow);
    put(d_gates, 3 * size + k, d_o, narrow);
  }
}

/* -log softmax(scores)[target]; its gradient times `weight` replaces the scores. */
INLINE float nll_row(int64_t words, void *scores, const float *bias, int64_t target, float weight,
                     float *d_bias, float *room, int narrow) {
  float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
  for (int64_t v = 0; v < words; v++) {
    room[v] = get(scores, v, narrow) + (bias ? bias[v] : 0);
    most = room[v] > most ? room[v] : most;
  }
  float nll = most - room[target];
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < words; v++) {
    room[v] = exponential(room[v] - most);
    sum += room[v];
  }
  float scale = weight / sum, at_target = room[target] * scale - weight;
#pragma omp simd
  for (int64_t v = 0; v < words; v++) {
    room[v] *= scale;
    put(scores, v, room[v], narrow);
  }
  room[target] = at_target;
  put(scores, target, at_target, narrow);
  if (d_bias)
    for (int64_t v = 0; v < words; v++) d_bias[v] += room[v];
  return weight != 0 ? nll + logf(sum) : 0;
}

/* The same without the gradient, in one pass: the sum so far is rescaled when a larger score comes. */
INLINE float nll_alone(int64_t words, const void *scores, const float *bias, int64_t target,
                       int narrow) {
  float most = -0x1.fffffep127f, sum = 0, block[BLOCK];
  for (int64_t start = 0; start < words; start += BLOCK) {
    int64_t count = words - start < BLOCK ? words - start : BLOCK;
    float before = most, added = 0;
#pragma omp simd reduction(max : most)
    for (int64_t k = 0; k < count; k++) {
      block[k] = get(scores, start + k, narrow) + (bias ? bias[start + k] : 0);
      most = block[k] > most ? block[k] : most;
    }
#pragma omp simd reduction(+ : added)
    for (int64_t k = 0; k < count; k++) added += exponential(block[k] - most);
    sum = sum * exponential(before - most) + added;
  }
  return most - (get(scores, target, narrow) + (bias ? bias[target] : 0)) + logf(sum);
}

/* Replace by 0 the weights below the first one, in ascending order, at which the sum exceeds this
   share of the total. It is at least 1 / words of that share, which leaves a few words of a trained
   model. Floats >= 0 are ordered like their bits: the mass of each exponent gives the exponent of
   that weight, then likewise eight, eight and seven bits of its fraction, among the words that agree
   so far. Neighbors add to different copies of the masses: no addition waits for the one before. */
static void nucleus_row(int64_t words, float *weights, double share, float *room) {
  static const int shifts[] = {23, 15, 7, 0}, widths[] = {8, 8, 8, 7};
  double mass[256 * COPIES], total = 0, inside = 0;
  uint32_t found = 0, bits;
#pragma omp simd reduction(+ : total)
  for (int64_t v = 0; v < words; v++) total += weights[v];
  float low = (1 - 1e-6) * share * total / words;
  int64_t left = 0;
  for (int64_t v = 0; v < words; v++) { /* without a branch */
    room[left] = weights[v];
    left += weights[v] >= low;
  }
#pragma omp simd reduction(+ : inside)
  for (int64_t v = 0; v < left; v++) inside += room[v];
  double below = total - inside;
  for (int digit = 0; digit < 4; digit++) {
    uint32_t values = 1u << widths[digit], last = 0, value = 0;
    memset(mass, 0, values * COPIES * sizeof *mass);
    for (int64_t v = 0; v < left; v++) {
      memcpy(&bits, room + v, sizeof bits);
      mass[(bits >> shifts[digit] & (values - 1)) * COPIES + (v & (COPIES - 1))] += room[v];
    }
    for (uint32_t k = 0; k < values; k++) {
      double sum = 0;
      for (int copy = 0; copy < COPIES; copy++) sum += mass[k * COPIES + copy];
      mass[k] = sum; /* what it replaces has been read: k <= k * COPIES */
      if (sum > 0) last = k;
    }
    while (value < last && below + mass[value] <= share * total) below += mass[value++];
    found = found << widths[digit] | value;
    int64_t kept = 0;
    for (int64_t v = 0; v < left && digit < 3; v++) {
      float weight = room[v];
      memcpy(&bits, &weight, sizeof bits);
      room[kept] = weight;
      kept += bits >> shifts[digit] == found;
    }
    left = kept;
  }
  float least;
  memcpy(&least, &found, sizeof least);
#pragma omp simd
  for (int64_t v = 0; v < words; v++) weights[v] = weights[v] < least ? 0 : weights[v];
}

static const void *row_of(const void *table, int64_t row, int64_t width, int narrow) {
  return (const char *)table + row * width * (narrow ? 2 : 4);
}

void lstm_forward(int64_t rows, int64_t size, const void *gates, const float *before, float *cell,
                  void *hidden, int narrow, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size >= SHARED_FROM)
  for (int64_t r = 0; r < rows; r++) {
    const void *a = row_of(gates, r, 4 * size, narrow);
    void *h = (void *)row_of(hidden, r, size, narrow);
    if (narrow)
      forward_row(size, a, before + r * size, cell + r * size, h, 1);
    else
      forward_row(size, a, before + r * size, cell + r * size, h, 0);
  }
}

void lstm_backward(int64_t rows, int64_t size, const void *gates, const float *before,
                   const float *cell, const void *d_hidden, float *d_cell, void *d_gates,
                   float *total, int narrow, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * size >= SHARED_FROM)
  for (int64_t r = 0; r < rows; r++) {
    const void *a = row_of(gates, r, 4 * size, narrow), *d_h = row_of(d_hidden, r, size, narrow);
    void *d_a = (void *)row_of(d_gates, r, 4 * size, narrow);
    int64_t at = r * size;
    if (narrow)
      backward_row(size, a, before + at, cell + at, d_h, d_cell + at, d_a, total + 4 * at, 1);
    else
      backward_row(size, a, before + at, cell + at, d_h, d_cell + at, d_a, total + 4 * at, 0);
  }
}

/* `bias`, `weights` and `d_bias` may be null. With `groups`, the rows of a group share a row of
   `bias` and of `d_bias`. Without, all rows share a single row of `bias`, and each thread has a row
   of `d_bias`, as it has of `room`. */
void softmax_nll(int64_t rows, int64_t words, void *logits, const float *bias,
                 const int64_t *groups, const int64_t *targets, const float *weights, float *nll,
                 float *d_bias, float *room, int with_gradient, int narrow, int threads) {
#pragma omp parallel num_threads(threads)
  {
    int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
    float *mine = room + me * words;
    for (int64_t r = 0; r < rows; r++) {
      if ((groups ? groups[r] : r) % all != me) continue; /* one thread per group */
      void *scores = (void *)row_of(logits, r, words, narrow);
      const float *b = bias && groups ? bias + groups[r] * words : bias;
      float *d_b = d_bias ? d_bias + (groups ? groups[r] : me) * words : 0;
      float weight = weights ? weights[r] : 1;
      if (!with_gradient)
        nll[r] = weight == 0 ? 0
                 : narrow    ? nll_alone(words, scores, b, targets[r], 1)
                             : nll_alone(words, scores, b, targets[r], 0);
      else if (narrow)
        nll[r] = nll_row(words, scores, b, targets[r], weight, d_b, mine, 1);
      else
        nll[r] = nll_row(words, scores, b, targets[r], weight, d_b, mine, 0);
    }
  }
}

void nucleus(int64_t rows, int64_t words, float *weights, const float *shares, float *room,
             int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t r = 0; r < rows; r++)
    nucleus_row(words, weights + r * words, shares[r], room + omp_get_thread_num() * words);
}
