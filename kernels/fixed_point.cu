// What an iteration towards a fixed point has to know of its states, for each sequence, in f64:
//
//   distance           (‖after − before‖², ‖after‖²)
//   residual_product   Σ (p_after − p_before)(q_after − q_before)
//
// A block makes the sums of one sequence. Each thread adds every THREADS-th element in order, then the block adds its threads'
// sums.
#include "device.cuh"

namespace {
constexpr int THREADS = 512;

template <class T>
__global__ void __launch_bounds__(THREADS) distance(const T *before, const T *after, double *sums, int64_t size) {
    TRM_SHARED(partial);
    const int64_t sequence = blockIdx.x;
    before += sequence * size;
    after += sequence * size;
    double apart = 0, length = 0;
    for (int64_t i = threadIdx.x; i < size; i += THREADS) {
        const double x = dev::get(before + i), y = dev::get(after + i);
        apart += (y - x) * (y - x);
        length += y * y;
    }
    apart = dev::block_sum<THREADS>(apart, (double *)partial);
    length = dev::block_sum<THREADS>(length, (double *)partial);
    if (threadIdx.x != 0) return;
    sums[2 * sequence] = apart;
    sums[2 * sequence + 1] = length;
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    residual_product(const T *p_before, const T *p_after, const T *q_before, const T *q_after, double *sums, int64_t size) {
    TRM_SHARED(partial);
    const int64_t sequence = blockIdx.x, first = sequence * size;
    double sum = 0;
    for (int64_t i = first + threadIdx.x; i < first + size; i += THREADS) {
        const double p = (double)dev::get(p_after + i) - (double)dev::get(p_before + i);
        const double q = (double)dev::get(q_after + i) - (double)dev::get(q_before + i);
        sum += p * q;
    }
    sum = dev::block_sum<THREADS>(sum, (double *)partial);
    if (threadIdx.x == 0) sums[sequence] = sum;
}
constexpr size_t SHARED = THREADS / 32 * sizeof(double);
} // namespace

extern "C" {
int TRM_API(distance)(trm_array before, trm_array after, double *sums, int64_t sequences, int64_t size, trm_stream stream) {
    if (before.format != after.format) return 1;
    if (sequences <= 0) return 0;
    return with_format(before.format, [&](auto format) {
        typedef decltype(format) T;
        return TRM_LAUNCH(distance<T>, (unsigned)sequences, THREADS, SHARED, stream, (const T *)before.data,
                          (const T *)after.data, sums, size);
    });
}

int TRM_API(residual_product)(trm_array p_before, trm_array p_after, trm_array q_before, trm_array q_after, double *sums,
                              int64_t sequences, int64_t size, trm_stream stream) {
    const int64_t format = p_before.format;
    if (p_after.format != format || q_before.format != format || q_after.format != format) return 1;
    if (sequences <= 0) return 0;
    return with_format(format, [&](auto of_states) {
        typedef decltype(of_states) T;
        return TRM_LAUNCH(residual_product<T>, (unsigned)sequences, THREADS, SHARED, stream, (const T *)p_before.data,
                          (const T *)p_after.data, (const T *)q_before.data, (const T *)q_after.data, sums, size);
    });
}
}
