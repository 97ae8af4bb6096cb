// Devices, memory, streams, events and graphs: the CUDA runtime behind the one C interface. The host twin has its own.
#include "device.cuh"

#ifdef TRM_TWIN
#include "host/twin_runtime.h"
#else
#include <stdio.h>

namespace {
// An error that was reported here is forgotten by the runtime; else the next launch would report it again.
int status_of(cudaError_t error) {
    if (error != cudaSuccess) cudaGetLastError();
    return (int)error;
}
} // namespace

extern "C" {
const char *TRM_API(error_string)(int status) { return cudaGetErrorString((cudaError_t)status); }

// ---- Devices ---------------------------------------------------------------------------------------------------------------

int TRM_API(driver_version)(int64_t *version) {
    int number = 0;
    const int status = status_of(cudaDriverGetVersion(&number));
    *version = number;
    return status;
}

// Without a driver, the runtime would say that the driver is too old. That there is no device is nearer to the truth.
int TRM_API(device_count)(int64_t *count) {
    *count = 0;
    int driver = 0, number = 0;
    int status = status_of(cudaDriverGetVersion(&driver));
    if (status == 0) status = driver == 0 ? (int)cudaErrorNoDevice : status_of(cudaGetDeviceCount(&number));
    if (status == 0) *count = number;
    return status;
}

int TRM_API(device_describe)(int64_t device, trm_device *description) {
    cudaDeviceProp properties;
    int driver = 0, runtime = 0;
    int status = status_of(cudaGetDeviceProperties(&properties, (int)device));
    if (status == 0) status = status_of(cudaDriverGetVersion(&driver));
    if (status == 0) status = status_of(cudaRuntimeGetVersion(&runtime));
    if (status != 0) return status;
    snprintf(description->name, sizeof description->name, "%s", properties.name);
    description->memory = properties.totalGlobalMem;
    description->major = properties.major;
    description->minor = properties.minor;
    description->processors = properties.multiProcessorCount;
    description->driver = driver;
    description->runtime = runtime;
    return 0;
}

int TRM_API(device_use)(int64_t device) { return status_of(cudaSetDevice((int)device)); }

// ---- Memory ----------------------------------------------------------------------------------------------------------------

int TRM_API(memory_free)(uint64_t *free, uint64_t *total) {
    size_t free_bytes = 0, all_bytes = 0;
    const int status = status_of(cudaMemGetInfo(&free_bytes, &all_bytes));
    *free = free_bytes;
    *total = all_bytes;
    return status;
}

int TRM_API(allocate)(void **data, size_t bytes) {
    *data = nullptr;
    return status_of(cudaMalloc(data, bytes));
}

int TRM_API(release)(void *data) { return status_of(cudaFree(data)); }

int TRM_API(host_allocate)(void **data, size_t bytes) {
    *data = nullptr;
    return status_of(cudaMallocHost(data, bytes));
}

int TRM_API(host_release)(void *data) { return status_of(cudaFreeHost(data)); }

int TRM_API(upload)(void *to, const void *from, size_t bytes, trm_stream stream) {
    return status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, (cudaStream_t)stream));
}

int TRM_API(download)(void *to, const void *from, size_t bytes, trm_stream stream) {
    return status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, (cudaStream_t)stream));
}

int TRM_API(clear)(void *data, int byte, size_t bytes, trm_stream stream) {
    return status_of(cudaMemsetAsync(data, byte, bytes, (cudaStream_t)stream));
}

// ---- Streams and events ----------------------------------------------------------------------------------------------------

int TRM_API(stream_create)(trm_stream *stream) {
    return status_of(cudaStreamCreateWithFlags((cudaStream_t *)stream, cudaStreamNonBlocking));
}

int TRM_API(stream_wait)(trm_stream stream) { return status_of(cudaStreamSynchronize((cudaStream_t)stream)); }

int TRM_API(event_create)(void **event) { return status_of(cudaEventCreate((cudaEvent_t *)event)); }

int TRM_API(event_destroy)(void *event) { return status_of(cudaEventDestroy((cudaEvent_t)event)); }

int TRM_API(event_record)(void *event, trm_stream stream) {
    return status_of(cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream));
}

int TRM_API(event_wait)(void *event) { return status_of(cudaEventSynchronize((cudaEvent_t)event)); }

int TRM_API(event_elapsed)(void *from, void *to, float *milliseconds) {
    return status_of(cudaEventElapsedTime(milliseconds, (cudaEvent_t)from, (cudaEvent_t)to));
}

// ---- Graphs ----------------------------------------------------------------------------------------------------------------

// While a thread captures, whatever of its calls cannot be part of a graph (allocation, waiting) fails and spoils the capture;
// other threads go on undisturbed.
int TRM_API(graph_begin)(trm_stream stream) {
    return status_of(cudaStreamBeginCapture((cudaStream_t)stream, cudaStreamCaptureModeThreadLocal));
}

int TRM_API(graph_end)(trm_stream stream, void **graph) {
    *graph = nullptr;
    cudaGraph_t captured = nullptr;
    int status = status_of(cudaStreamEndCapture((cudaStream_t)stream, &captured));
    if (status == 0) status = status_of(cudaGraphInstantiate((cudaGraphExec_t *)graph, captured, 0));
    if (captured) cudaGraphDestroy(captured);
    return status;
}

int TRM_API(graph_launch)(void *graph, trm_stream stream) {
    return status_of(cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)stream));
}

int TRM_API(graph_destroy)(void *graph) { return status_of(cudaGraphExecDestroy((cudaGraphExec_t)graph)); }
}
#endif
