// Losses and metrics, one element a sequence. Labels below 0 are not counted; c = max(1, labelled positions).
//
//   stablemax      nll = −ln(s(a[label]) / Σs),  s(a) = a + 1 for a ≥ 0, 1/(1 − a + 1e-30) below
//                  ∂nll/∂a_j = s'(a_j) (1/Σs − [j = label]/s(a_j)),  s' = 1 for a ≥ 0, s² below
//   softmax        nll = lse − Σ t·a,  t = (1 − ε)·onehot + ε/V;  ∂nll/∂a = p − t
//   cross-entropy  loss[b] = Σ positions nll / c
//   BCE            loss = max(q, 0) − q·t + ln(1 + e^(−|q|)),  ∂loss/∂q = σ(q) − t
//
// The gradient for a loss of 1 (`unit_grad`) is made where the logits are at hand; backward, it is only multiplied. What is not
// a logit has the format in which sums over logits are made. Everything between reading and writing is f64: these are few
// numbers.
#include "device.cuh"
#include <initializer_list>

namespace {
constexpr int THREADS = 128;

__device__ __forceinline__ double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// ---- Cross-entropy ---------------------------------------------------------------------------------------------------------

// Negative log-likelihood of one row; `grad` receives its gradient times `weight`.
template <class T> __device__ double stablemax_row(const T *logits, int64_t vocab, int64_t label, double weight, sum_t<T> *grad) {
    auto s = [](double a) { return a < 0 ? 1.0 / (1.0 - a + 1e-30) : a + 1.0; };
    double total = 0;
    for (int64_t j = 0; j < vocab; j++) total += s(dev::get(logits + j));
    for (int64_t j = 0; j < vocab; j++) {
        const double a = dev::get(logits + j), value = s(a);
        const double slope = a < 0 ? value * value : 1.0;
        const double hit = j == label ? 1.0 / value : 0.0;
        grad[j] = (sum_t<T>)(weight * slope * (1.0 / total - hit));
    }
    return -log(s(dev::get(logits + label)) / total);
}

template <class T>
__device__ double softmax_row(const T *logits, int64_t vocab, int64_t label, double smoothing, double weight, sum_t<T> *grad) {
    double largest = dev::get(logits), total = 0;
    for (int64_t j = 1; j < vocab; j++) largest = fmax(largest, (double)dev::get(logits + j));
    for (int64_t j = 0; j < vocab; j++) total += exp(dev::get(logits + j) - largest);
    double nll = largest + log(total);
    for (int64_t j = 0; j < vocab; j++) {
        const double a = dev::get(logits + j);
        const double target = smoothing / vocab + (j == label ? 1.0 - smoothing : 0.0);
        nll -= target * a;
        grad[j] = (sum_t<T>)(weight * (exp(a - largest) / total - target));
    }
    return nll;
}

// A block has a sequence, a thread every 128th of its rows.
template <bool SOFTMAX, class T>
__global__ void __launch_bounds__(THREADS)
    cross_entropy_sequences(const int32_t *labels, const T *logits, sum_t<T> *loss, sum_t<T> *unit_grad, int64_t seq_len,
                            int64_t vocab, double smoothing) {
    __shared__ int counts[THREADS / 32];
    __shared__ double sums[THREADS / 32];
    labels += blockIdx.x * seq_len;
    logits += blockIdx.x * seq_len * vocab;
    unit_grad += blockIdx.x * seq_len * vocab;
    int labelled = 0;
    for (int64_t l = threadIdx.x; l < seq_len; l += THREADS) labelled += labels[l] >= 0;
    labelled = dev::block_sum<THREADS>(labelled, counts);
    const double weight = 1.0 / (labelled > 1 ? labelled : 1);
    double sum = 0;
    for (int64_t l = threadIdx.x; l < seq_len; l += THREADS) {
        const T *row = logits + l * vocab;
        sum_t<T> *grad = unit_grad + l * vocab;
        const int64_t label = labels[l];
        if (label < 0)
            for (int64_t j = 0; j < vocab; j++) grad[j] = 0;
        else
            sum += SOFTMAX ? softmax_row(row, vocab, label, smoothing, weight, grad)
                           : stablemax_row(row, vocab, label, weight, grad);
    }
    sum = dev::block_sum<THREADS>(sum, sums);
    if (threadIdx.x == 0) loss[blockIdx.x] = (sum_t<T>)(sum * weight);
}

// ---- Binary cross-entropy --------------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(THREADS) bce_elements(const T *x, int64_t column, int64_t columns, const sum_t<T> *target,
                                                        sum_t<T> *loss, sum_t<T> *unit_grad, int64_t sequences) {
    const int64_t b = dev::thread_index();
    if (b >= sequences) return;
    const double q = dev::get(x + b * columns + column), t = target[b];
    loss[b] = (sum_t<T>)(fmax(q, 0.0) - q * t + log1p(exp(-fabs(q))));
    unit_grad[b] = (sum_t<T>)(sigmoid(q) - t);
}

// ---- Backward: d_x[b, column + i] += d_loss[b] · unit_grad[b, i], i < size -------------------------------------------------

template <class U, class X>
__global__ void __launch_bounds__(THREADS) loss_backward_elements(const sum_t<U> *d_loss, const U *unit_grad, int64_t size,
                                                                  X *d_x, int64_t column, int64_t columns, int64_t n) {
    const int64_t at = dev::thread_index();
    if (at >= n) return;
    const int64_t b = at / size;
    X *to = d_x + b * columns + column + at % size;
    dev::set(to, (sum_t<X>)(dev::get(to) + d_loss[b] * dev::get(unit_grad + at)));
}

int launch_backward(trm_array d_loss, trm_array unit_grad, int64_t size, trm_array d_x, int64_t column, int64_t columns,
                    int64_t sequences, trm_stream stream) {
    const int64_t n = sequences * size;
    if (n <= 0) return 0;
    return with_formats(unit_grad.format, d_x.format, [&](auto of_unit, auto of_x) {
        typedef decltype(of_unit) U;
        typedef decltype(of_x) X;
        typedef sum_t<U> S;
        if (d_loss.format != (int64_t)sizeof(S)) return 1;
        return TRM_LAUNCH((loss_backward_elements<U, X>), blocks_for(n, THREADS), THREADS, 0, stream, (const S *)d_loss.data,
                          (const U *)unit_grad.data, size, (X *)d_x.data, column, columns, n);
    });
}

// ---- Metrics ---------------------------------------------------------------------------------------------------------------

// The first of the largest.
template <class T> __device__ __forceinline__ int64_t argmax(const T *row, int64_t vocab) {
    int64_t best = 0;
    for (int64_t j = 1; j < vocab; j++)
        if (dev::get(row + j) > dev::get(row + best)) best = j;
    return best;
}

// A block has a sequence, a thread every 128th of its rows.
template <class T>
__global__ void __launch_bounds__(THREADS) score_sequences(const int32_t *labels, const T *logits, sum_t<T> *correct,
                                                           sum_t<T> *labelled, sum_t<T> *exact, int64_t seq_len, int64_t vocab) {
    __shared__ int counts[THREADS / 32];
    labels += blockIdx.x * seq_len;
    logits += blockIdx.x * seq_len * vocab;
    int right = 0, all = 0;
    for (int64_t l = threadIdx.x; l < seq_len; l += THREADS) {
        if (labels[l] < 0) continue;
        all++;
        right += argmax(logits + l * vocab, vocab) == labels[l];
    }
    right = dev::block_sum<THREADS>(right, counts);
    all = dev::block_sum<THREADS>(all, counts);
    if (threadIdx.x != 0) return;
    correct[blockIdx.x] = (sum_t<T>)right;
    labelled[blockIdx.x] = (sum_t<T>)all;
    exact[blockIdx.x] = right == all;
}

template <class T>
__global__ void __launch_bounds__(THREADS) predict_rows(const T *logits, uint8_t *tokens, int64_t rows, int64_t vocab) {
    const int64_t row = dev::thread_index();
    if (row < rows) tokens[row] = (uint8_t)argmax(logits + row * vocab, vocab);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    continue_elements(const int32_t *is_last, const T *q, sum_t<T> *target, int64_t sequences) {
    const int64_t b = dev::thread_index();
    if (b >= sequences) return;
    const double halt = dev::get(q + 2 * b), go_on = dev::get(q + 2 * b + 1);
    target[b] = (sum_t<T>)sigmoid(is_last[b] ? halt : fmax(halt, go_on));
}

// `f` with the type of logits, if all others have the format of sums over them.
template <class F> int with_logits(trm_array logits, std::initializer_list<trm_array> others, F f) {
    for (trm_array x : others)
        if (x.format != (logits.format == TRM_F64 ? TRM_F64 : TRM_F32)) return 1;
    return with_format(logits.format, f);
}
} // namespace

extern "C" {
int TRM_API(cross_entropy)(int64_t softmax, double label_smoothing, const int32_t *labels, trm_array logits, trm_array loss,
                           trm_array unit_grad, int64_t sequences, int64_t seq_len, int64_t vocab, trm_stream stream) {
    if (sequences <= 0) return 0;
    return with_logits(logits, {loss, unit_grad}, [&](auto of_logits) {
        typedef decltype(of_logits) T;
        typedef sum_t<T> S;
        const auto kernel = softmax ? cross_entropy_sequences<true, T> : cross_entropy_sequences<false, T>;
        return TRM_LAUNCH(kernel, (unsigned)sequences, THREADS, 0, stream, labels, (const T *)logits.data, (S *)loss.data,
                          (S *)unit_grad.data, seq_len, vocab, label_smoothing);
    });
}

int TRM_API(bce_with_logits)(trm_array x, int64_t column, int64_t columns, trm_array target, trm_array loss, trm_array unit_grad,
                             int64_t sequences, trm_stream stream) {
    if (sequences <= 0) return 0;
    return with_logits(x, {target, loss, unit_grad}, [&](auto of_x) {
        typedef decltype(of_x) T;
        typedef sum_t<T> S;
        return TRM_LAUNCH((bce_elements<T>), blocks_for(sequences, THREADS), THREADS, 0, stream, (const T *)x.data, column,
                          columns, (const S *)target.data, (S *)loss.data, (S *)unit_grad.data, sequences);
    });
}

int TRM_API(bce_backward)(trm_array d_loss, trm_array unit_grad, int64_t column, int64_t columns, trm_array d_x,
                          int64_t sequences, trm_stream stream) {
    return launch_backward(d_loss, unit_grad, 1, d_x, column, columns, sequences, stream);
}

int TRM_API(loss_backward)(trm_array d_loss, trm_array unit_grad, trm_array d_x, int64_t sequences, int64_t size,
                           trm_stream stream) {
    return launch_backward(d_loss, unit_grad, size, d_x, 0, size, sequences, stream);
}

int TRM_API(score)(const int32_t *labels, trm_array logits, trm_array correct, trm_array labelled, trm_array exact,
                   int64_t sequences, int64_t seq_len, int64_t vocab, trm_stream stream) {
    if (sequences <= 0) return 0;
    return with_logits(logits, {correct, labelled, exact}, [&](auto of_logits) {
        typedef decltype(of_logits) T;
        typedef sum_t<T> S;
        return TRM_LAUNCH((score_sequences<T>), (unsigned)sequences, THREADS, 0, stream, labels, (const T *)logits.data,
                          (S *)correct.data, (S *)labelled.data, (S *)exact.data, seq_len, vocab);
    });
}

int TRM_API(predict)(trm_array logits, uint8_t *tokens, int64_t rows, int64_t vocab, trm_stream stream) {
    if (rows <= 0) return 0;
    return with_format(logits.format, [&](auto of_logits) {
        typedef decltype(of_logits) T;
        return TRM_LAUNCH((predict_rows<T>), blocks_for(rows, THREADS), THREADS, 0, stream, (const T *)logits.data, tokens, rows,
                          vocab);
    });
}

int TRM_API(continue_target)(const int32_t *is_last, trm_array q, trm_array target, int64_t sequences, trm_stream stream) {
    if (sequences <= 0) return 0;
    return with_logits(q, {target}, [&](auto of_q) {
        typedef decltype(of_q) T;
        typedef sum_t<T> S;
        return TRM_LAUNCH((continue_elements<T>), blocks_for(sequences, THREADS), THREADS, 0, stream, is_last, (const T *)q.data,
                          (S *)target.data, sequences);
    });
}
}
