// Devices, memory, streams, events and graphs on the host twin: one device, whose memory is the machine's.
//
// Work is done at once, with TWIN_STREAMS=late when its stream or an event behind it is waited for. What is queued while a graph
// is recorded becomes part of the graph, with the arguments it has then. Fresh memory holds NaN. TWIN_MEMORY=bytes makes the
// device that small.
#pragma once
#include <memory>
#include <unistd.h>

namespace {
using twin::Stream, twin::Work, twin::fault;
enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    ILLEGAL_STATE = 401,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURED_EVENT = 907,
};

// What was allocated, by its address: of the device, and of the host.
struct Memory {
    std::mutex mutex;
    std::map<void *, size_t> allocated, of_host;
    uint64_t used = 0;

    // Whether an address lies in memory of the host that stays where it is.
    bool stays(const void *data) {
        std::lock_guard lock(mutex);
        auto after = of_host.upper_bound((void *)data);
        if (after == of_host.begin()) return false;
        --after;
        return (const char *)data < (const char *)after->first + after->second;
    }

    static uint64_t total() {
        return twin::setting("TWIN_MEMORY", (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    }
};
Memory &memory() {
    static Memory *const memory = new Memory;
    return *memory;
}

// The stream whose work this thread records. What cannot be part of a graph spoils it.
thread_local Stream *recorder = nullptr;
thread_local bool is_spoilt = false;
int spoil() {
    is_spoilt = true;
    return CAPTURE_UNSUPPORTED;
}

// All streams, because releasing memory waits for all of them.
std::mutex streams_mutex;
std::vector<Stream *> streams;
// Does what is queued; where something fails, what comes after it is not done.
int finish(Stream &stream) {
    std::lock_guard lock(stream.mutex);
    int status = fault;
    for (auto &work : stream.queued)
        if (status == 0) status = work();
    stream.queued.clear();
    return status;
}
void finish_all() {
    std::lock_guard lock(streams_mutex);
    for (Stream *stream : streams) finish(*stream);
}

struct Event {
    Stream *stream = nullptr;
    bool is_recorded = false, is_captured = false;
    std::atomic<bool> has_passed{false};
    std::chrono::steady_clock::time_point time;
};
struct Graph {
    std::shared_ptr<Work> work = std::make_shared<Work>();
};
} // namespace

extern "C" {
const char *TRM_API(error_string)(int status) {
    switch (status) {
    case 0: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case 9: return "invalid configuration argument";
    case 35: return "CUDA driver version is insufficient for CUDA runtime version";
    case 100: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    case ILLEGAL_STATE: return "the operation cannot be performed in the present state";
    case NOT_READY: return "device not ready";
    case 700: return "an illegal memory access was encountered";
    case 719: return "unspecified launch failure";
    case CAPTURE_UNSUPPORTED: return "operation not permitted when stream is capturing";
    case CAPTURE_INVALIDATED: return "operation failed due to a previous error during capture";
    case CAPTURED_EVENT: return "operation not permitted on an event last recorded in a capturing stream";
    }
    return "unknown error";
}

// ---- Devices ---------------------------------------------------------------------------------------------------------------

int TRM_API(driver_version)(int64_t *version) {
    *version = 13000;
    return 0;
}

int TRM_API(device_count)(int64_t *count) {
    *count = fault ? 0 : 1;
    return fault;
}

int TRM_API(device_describe)(int64_t device, trm_device *description) {
    if (fault) return fault;
    if (device != 0) return INVALID_DEVICE;
    *description = {"host twin", Memory::total(), 9, 0, std::max(1u, std::thread::hardware_concurrency()), 13000, 13000};
    return 0;
}

int TRM_API(device_use)(int64_t device) {
    if (fault) return fault;
    return device == 0 ? 0 : INVALID_DEVICE;
}

// ---- Memory ----------------------------------------------------------------------------------------------------------------

int TRM_API(memory_free)(uint64_t *free, uint64_t *total) {
    std::lock_guard lock(memory().mutex);
    *total = Memory::total();
    *free = *total > memory().used ? *total - memory().used : 0;
    return fault;
}

int TRM_API(allocate)(void **data, size_t bytes) {
    *data = nullptr;
    if (fault) return fault;
    if (recorder) return spoil();
    if (bytes == 0) return 0;
    std::lock_guard lock(memory().mutex);
    if (bytes > Memory::total() || memory().used > Memory::total() - bytes) return OUT_OF_MEMORY;
    if (posix_memalign(data, 256, bytes) != 0) {
        *data = nullptr;
        return OUT_OF_MEMORY;
    }
    if (bytes <= (size_t)1 << 30) memset(*data, 0xff, bytes); // NaN in every format
    memory().allocated[*data] = bytes;
    memory().used += bytes;
    return 0;
}

int TRM_API(release)(void *data) {
    if (recorder) return spoil();
    if (!data) return fault;
    finish_all();
    std::lock_guard lock(memory().mutex);
    auto found = memory().allocated.find(data);
    if (found == memory().allocated.end()) return INVALID_VALUE;
    memory().used -= found->second;
    memory().allocated.erase(found);
    free(data);
    return fault;
}

int TRM_API(host_allocate)(void **data, size_t bytes) {
    *data = nullptr;
    if (fault) return fault;
    if (recorder) return spoil();
    if (bytes == 0) return 0;
    *data = malloc(bytes);
    if (!*data) return OUT_OF_MEMORY;
    std::lock_guard lock(memory().mutex);
    memory().of_host[*data] = bytes;
    return 0;
}

int TRM_API(host_release)(void *data) {
    if (recorder) return spoil();
    if (!data) return fault;
    finish_all();
    std::lock_guard lock(memory().mutex);
    if (memory().of_host.erase(data) == 0) return INVALID_VALUE;
    free(data);
    return fault;
}

// As on a device, memory of the host that may move is read before the call returns, and `download` waits until it has written
// there.
int TRM_API(upload)(void *to, const void *from, size_t bytes, trm_stream stream) {
    if (!twin::late_streams() || recorder == stream || memory().stays(from))
        return twin::queue(stream, [=] { return memcpy(to, from, bytes), 0; });
    return twin::queue(stream, [to, copy = std::vector<char>((const char *)from, (const char *)from + bytes)] {
        return memcpy(to, copy.data(), copy.size()), 0;
    });
}

int TRM_API(download)(void *to, const void *from, size_t bytes, trm_stream stream) {
    const int status = twin::queue(stream, [=] { return memcpy(to, from, bytes), 0; });
    if (status != 0 || !stream || !twin::late_streams() || recorder == stream || memory().stays(to)) return status;
    return finish(*(Stream *)stream);
}

int TRM_API(clear)(void *data, int byte, size_t bytes, trm_stream stream) {
    return twin::queue(stream, [=] { return memset(data, byte, bytes), 0; });
}

// ---- Streams and events ----------------------------------------------------------------------------------------------------

int TRM_API(stream_create)(trm_stream *stream) {
    *stream = nullptr;
    if (fault) return fault;
    auto *made = new Stream;
    std::lock_guard lock(streams_mutex);
    streams.push_back(made);
    *stream = made;
    return 0;
}

int TRM_API(stream_wait)(trm_stream stream) {
    if (!stream) return fault;
    return ((Stream *)stream)->recording ? spoil() : finish(*(Stream *)stream);
}

int TRM_API(event_create)(void **event) {
    *event = new Event;
    return fault;
}

int TRM_API(event_destroy)(void *event) {
    finish_all(); // because it may still have to be recorded
    delete (Event *)event;
    return fault;
}

int TRM_API(event_record)(void *event, trm_stream stream) {
    auto *mark = (Event *)event;
    mark->stream = (Stream *)stream;
    mark->is_recorded = true;
    mark->is_captured = stream && mark->stream->recording;
    mark->has_passed = false;
    if (mark->is_captured) return fault;
    return twin::queue(stream, [mark] {
        mark->time = std::chrono::steady_clock::now();
        mark->has_passed = true;
        return 0;
    });
}

int TRM_API(event_wait)(void *event) {
    auto *mark = (Event *)event;
    if (mark->is_captured) return CAPTURED_EVENT;
    return mark->is_recorded && !mark->has_passed ? finish(*mark->stream) : fault.load();
}

int TRM_API(event_elapsed)(void *from, void *to, float *milliseconds) {
    auto *first = (Event *)from, *last = (Event *)to;
    if (fault) return fault;
    if (first->is_captured || last->is_captured || !first->is_recorded || !last->is_recorded) return INVALID_VALUE;
    if (!first->has_passed || !last->has_passed) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(last->time - first->time).count();
    return 0;
}

// ---- Graphs ----------------------------------------------------------------------------------------------------------------

int TRM_API(graph_begin)(trm_stream stream) {
    if (fault) return fault;
    auto *to = (Stream *)stream;
    if (!to || recorder) return to ? ILLEGAL_STATE : CAPTURE_UNSUPPORTED;
    to->recording = new Work;
    recorder = to;
    is_spoilt = false;
    return 0;
}

int TRM_API(graph_end)(trm_stream stream, void **graph) {
    *graph = nullptr;
    auto *to = (Stream *)stream;
    if (!to || recorder != to) return ILLEGAL_STATE;
    std::unique_ptr<Work> recorded(to->recording);
    to->recording = nullptr;
    recorder = nullptr;
    if (fault) return fault;
    if (is_spoilt) return CAPTURE_INVALIDATED;
    *graph = new Graph{std::move(recorded)};
    return 0;
}

int TRM_API(graph_launch)(void *graph, trm_stream stream) {
    return twin::queue(stream, [work = ((Graph *)graph)->work] {
        int status = 0;
        for (auto &each : *work)
            if (status == 0) status = each();
        return status;
    });
}

int TRM_API(graph_destroy)(void *graph) {
    delete (Graph *)graph;
    return fault;
}
}
