// Fibers of the host twin: the threads of a block, or of the blocks of a cluster, which take turns on one OS thread. Each goes on
// until it has to wait for others.
#pragma once

namespace twin {

// ---- Settings --------------------------------------------------------------------------------------------------------------

inline uint64_t setting(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}
inline bool setting_is(const char *name, const char *word) {
    const char *value = getenv(name);
    return value && !strcmp(value, word);
}
inline uint64_t seed() {
    static const uint64_t value = setting("TWIN_SEED", 0);
    return value;
}
inline bool early_copies() {
    static const bool value = setting_is("TWIN_COPIES", "early");
    return value;
}
inline bool late_streams() {
    static const bool value = setting_is("TWIN_STREAMS", "late");
    return value;
}
// Bytes of dynamic shared memory that a block may have: no more than there is room for.
constexpr size_t MOST_SHARED = 227 << 10;
inline size_t most_shared() {
    static const size_t value = std::min<size_t>(setting("TWIN_SHARED", MOST_SHARED), MOST_SHARED);
    return value;
}
// The next one of a sequence of random numbers.
inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

// ---- Blocks and their lanes ------------------------------------------------------------------------------------------------

// Lanes that meet: a warp, or the whole block.
struct Group {
    unsigned size = 0, arrived = 0, generation = 0;
    const char *what = nullptr; // the instruction in which they meet
};
struct Warp : Group {
    void *argument[32]; // what each lane brings to that instruction
};
// What the 64 bits of an mbarrier hold here.
struct Barrier {
    uint16_t count, pending; // arrivals of a phase, and those that are still to come
    int32_t bytes : 31;      // that were announced and have not come
    uint32_t phase : 1;
    static Barrier at(const uint64_t *p) {
        Barrier b;
        memcpy(&b, p, 8);
        return b;
    }
};
// A product of a warpgroup that was begun (dev::Wgmma).
struct Product {
    float *d[128];
    uint32_t a_registers[128][4];
    int n, keep;
    bool a_in_registers, a_along_k, b_along_k;
    uint64_t a, b;
};
struct Warpgroup : Group {
    void *argument[128];
    std::vector<Product> products; // that are not done yet
    std::vector<size_t> ends;      // where each committed group of them ends
};
// A thread of the block. One cache line: whoever looks for the next one reads these.
struct alignas(64) Lane {
    dim3 thread;
    bool done = false, has_copies = false;
    char *stack = nullptr;         // null before the lane has begun
    void *stack_pointer = nullptr; // while it waits
    Group *waits = nullptr;        // for this group's generation to pass,
    const uint64_t *barrier = nullptr; // or for the end of this mbarrier's phase
    unsigned generation = 0;
    int phase = 0;
    bool runnable() const {
        return !done && (!waits || waits->generation != generation) && (!barrier || (int)Barrier::at(barrier).phase != phase);
    }
    const char *waits_in() const { return waits ? waits->what : barrier ? "mbarrier.wait" : ""; }
};
// Asynchronous copies of a lane that are not done yet.
struct Copies {
    struct Copy {
        void *to;
        const void *from;
        int bytes, size; // zeros are written from `bytes` up to `size`
        void run() const {
            memcpy(to, from, bytes);
            memset((char *)to + bytes, 0, size - bytes);
        }
    };
    std::vector<Copy> begun;
    std::vector<size_t> groups; // where each committed group of them ends
    void clear() {
        begun.clear();
        groups.clear();
    }
};
constexpr size_t MOST_LANES = 1024, MOST_CLUSTER = 4, MOST_FIBERS = 2048, SHARED_WITHOUT_ASKING = 48 << 10;
// Not a power of two, so that the stacks of a block's lanes do not compete for the same cache lines.
constexpr size_t STACK = (256 << 10) + 17 * 64;

// A block that runs.
struct Block {
    dim3 index, size, grid;
    unsigned char *shared = nullptr;
    Group all;
    std::array<Group, 16> named; // that meet at barriers by number
    Warp warps[32];
    Warpgroup warpgroups[8];
    std::vector<std::function<void()>> bulk_copies; // that are on their way
    std::vector<Lane> lanes;
    std::vector<Copies> copies; // of each lane
    std::vector<unsigned> order; // of the warps
    unsigned lane = 0;           // who runs
    unsigned place = 0;          // of its warp in the order
    const std::function<void()> *kernel = nullptr;

    Block() : lanes(MOST_LANES), copies(MOST_LANES) {}
};
// Where an OS thread runs blocks: the blocks of a cluster at a time, or a single one.
struct Stage {
    std::vector<std::unique_ptr<Block>> blocks;
    unsigned cluster = 1;         // blocks that run
    Group all;                    // lanes of all of them
    std::vector<char *> stacks;   // that no lane uses
    void *scheduler = nullptr;    // stack pointer of whoever runs the blocks
    const void *bottom = nullptr; // the scheduler's stack, for AddressSanitizer
    size_t bottom_size = 0;
    char *memory = nullptr;

    Stage() {
        const int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        memory = (char *)mmap(nullptr, bytes(), access, kind, -1, 0);
        if (memory == MAP_FAILED) {
            perror("twin: no memory for stacks");
            abort();
        }
        for (size_t i = MOST_FIBERS; i-- > 0;) stacks.push_back(memory + MOST_CLUSTER * MOST_SHARED + i * STACK);
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(memory, bytes());
        pthread_attr_t attributes;
        void *at;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &at, &bottom_size);
        pthread_attr_destroy(&attributes);
        bottom = at;
#endif
    }
    ~Stage() {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(memory, bytes());
#endif
        munmap(memory, bytes());
    }
    Block &of_cluster(unsigned rank) {
        while (blocks.size() <= rank) {
            blocks.push_back(std::make_unique<Block>());
            blocks.back()->shared = (unsigned char *)memory + (blocks.size() - 1) * MOST_SHARED;
        }
        return *blocks[rank];
    }
    static constexpr size_t bytes() { return MOST_CLUSTER * MOST_SHARED + MOST_FIBERS * STACK; }
};
inline thread_local Stage *stage = nullptr;
inline thread_local Block *block = nullptr; // of the lane that runs
inline thread_local Lane *self = nullptr;

[[noreturn]] inline void fail(const char *what, const char *detail = "") {
    fprintf(stderr, "twin: block (%u,%u,%u) thread (%u,%u,%u): %s %s\n", block->index.x, block->index.y, block->index.z,
            self->thread.x, self->thread.y, self->thread.z, what, detail);
    abort();
}

// ---- Fibers ----------------------------------------------------------------------------------------------------------------

// Saves the registers that a function must keep and the stack pointer, then goes on where `to` was saved.
extern "C" void twin_switch(void **save, void *to);
#if defined(__x86_64__)
asm(R"(
    .text
    .globl twin_switch
    .weak twin_switch
twin_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp,(%rdi)
    mov %rsi,%rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
// A stack that twin_switch leaves for `start`: six registers, where to return, and where that would return to.
inline void *fresh_stack(char *stack, void (*start)()) {
    void **top = (void **)(stack + STACK - 64);
    *--top = nullptr;
    *--top = (void *)start;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    return top;
}
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl twin_switch
    .weak twin_switch
twin_switch:
    sub sp,sp,#176
    stp x19,x20,[sp]
    stp x21,x22,[sp,#16]
    stp x23,x24,[sp,#32]
    stp x25,x26,[sp,#48]
    stp x27,x28,[sp,#64]
    stp x29,x30,[sp,#80]
    stp d8,d9,[sp,#96]
    stp d10,d11,[sp,#112]
    stp d12,d13,[sp,#128]
    stp d14,d15,[sp,#144]
    mov x9,sp
    str x9,[x0]
    mov sp,x1
    ldp x19,x20,[sp]
    ldp x21,x22,[sp,#16]
    ldp x23,x24,[sp,#32]
    ldp x25,x26,[sp,#48]
    ldp x27,x28,[sp,#64]
    ldp x29,x30,[sp,#80]
    ldp d8,d9,[sp,#96]
    ldp d10,d11,[sp,#112]
    ldp d12,d13,[sp,#128]
    ldp d14,d15,[sp,#144]
    add sp,sp,#176
    ret
)");
// A stack that twin_switch leaves for `start`: the link register is the twelfth.
inline void *fresh_stack(char *stack, void (*start)()) {
    void **top = (void **)(stack + STACK - 64) - 22;
    memset(top, 0, 176);
    top[11] = (void *)start;
    return top;
}
#endif

extern "C" void twin_fiber();

// From the one who runs, whose stack pointer is saved, to a lane, or to the scheduler if there is none. `for_good`: nobody will
// come back, and the stack will be used again; so AddressSanitizer must not leave marks of this function's variables on it.
__attribute__((noinline, no_sanitize("address"))) inline void go(void **save, Lane *to, bool for_good) {
    if (to && !to->stack) {
        to->stack = stage->stacks.back();
        stage->stacks.pop_back();
        to->stack_pointer = fresh_stack(to->stack, twin_fiber);
    }
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    const void *bottom = to ? to->stack : stage->bottom;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, bottom, to ? STACK : stage->bottom_size);
#else
    (void)for_good;
#endif
    self = to;
    twin_switch(save, to ? to->stack_pointer : stage->scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// The next lane of a block that can go on: of the same warp if possible, then of the warps after it; with an odd seed, of the first
// ones in the order, so that the last ones come late wherever nobody waits for them. It becomes the one who runs.
inline Lane *lane_that_can_go_on(Block &b) {
    const unsigned n = b.all.size, warps = (unsigned)b.order.size(), here = b.place;
    const auto turn_of = [&](unsigned number, unsigned place) {
        Lane &lane = b.lanes[number];
        lane.waits = nullptr;
        lane.barrier = nullptr;
        b.lane = number;
        b.place = place;
        block = &b;
        return &lane;
    };
    // Nearly always it is the one beside it.
    const unsigned beside = b.lane + 1;
    if (beside % 32 != 0 && beside < n && b.lanes[beside].runnable()) return turn_of(beside, here);
    const bool is_fair = seed() % 2 == 0;
    for (unsigned w = 0; w <= warps; w++) {
        const unsigned place = w == 0 ? here : is_fair ? (here + w) % warps : w - 1;
        const unsigned first = b.order[place] * 32, width = std::min(32u, n - first);
        unsigned at = w == 0 ? b.lane - first : width - 1;
        for (unsigned i = 0; i < width; i++) {
            if (++at == width) at = 0;
            if (b.lanes[first + at].runnable()) return turn_of(first + at, place);
        }
    }
    return nullptr;
}

// The same, then of another block of the cluster. If nobody can, bulk copies arrive, one after the other, until somebody can.
inline Lane *next_lane() {
    const Block *const first = block;
    for (;;) {
        if (Lane *lane = lane_that_can_go_on(*block)) return lane;
        for (unsigned rank = 0; rank < stage->cluster; rank++)
            if (Block &other = stage->of_cluster(rank); &other != first)
                if (Lane *lane = lane_that_can_go_on(other)) return lane;
        unsigned rank = 0;
        while (rank < stage->cluster && stage->of_cluster(rank).bulk_copies.empty()) rank++;
        if (rank == stage->cluster) return nullptr;
        auto &copies = stage->of_cluster(rank).bulk_copies;
        const size_t which = seed() ? mix(seed() + copies.size()) % copies.size() : 0;
        const std::function<void()> copy = std::move(copies[which]);
        copies.erase(copies.begin() + which);
        copy();
    }
}

// Lets others go on until what the lane waits for has come.
inline void wait() {
    Lane *me = self;
    Lane *next = next_lane();
    if (!next) fail("nobody can go on; waits in", me->waits_in());
    go(&me->stack_pointer, next, false);
}
// Waits until the group's generation has passed.
inline void wait_for(Group &group) {
    self->waits = &group;
    self->generation = group.generation;
    wait();
}
// Waits until a phase of an mbarrier is over.
inline void wait_for(const uint64_t *barrier, int phase) {
    self->barrier = barrier;
    self->phase = phase;
    wait();
}

// All lanes of a group come here; the last one does the work, then all go on.
template <class Work> inline void meet(Group &group, const char *what, Work work) {
    if (group.arrived && group.what != what && strcmp(group.what, what)) fail("lanes meet in different instructions:", what);
    group.what = what;
    if (++group.arrived < group.size) return wait_for(group);
    work();
    group.arrived = 0;
    group.generation++;
}
// The same for a warp, each of whose lanes brings an argument; `work` receives a function from a lane's number to its argument.
template <class Argument, class Work> inline void meet_warp(const char *what, Argument &mine, Work work) {
    Warp &warp = block->warps[block->lane / 32];
    if (warp.size != 32) fail("a warp that is not full cannot take part in", what);
    warp.argument[block->lane % 32] = &mine;
    meet(warp, what, [&] { work([&](int lane) -> Argument & { return *(Argument *)warp.argument[lane]; }); });
}
// For a warpgroup: `work` is done by the last one. With an argument as for a warp, without one it receives the group.
inline Warpgroup &warpgroup() { return block->warpgroups[block->lane / 128]; }
template <class Work> inline void meet_warpgroup(const char *what, Work work) {
    Warpgroup &group = warpgroup();
    if (group.size != 128) fail("a warpgroup that is not full cannot take part in", what);
    meet(group, what, [&] { work(group); });
}
inline void meet_warpgroup(const char *what) {
    meet_warpgroup(what, [](Warpgroup &) {});
}
template <class Argument, class Work> inline void meet_warpgroup(const char *what, Argument &mine, Work work) {
    warpgroup().argument[block->lane % 128] = &mine;
    meet_warpgroup(what, [&](Warpgroup &group) {
        work([&](int lane) -> Argument & { return *(Argument *)group.argument[lane]; });
    });
}

// Where a fiber begins: it runs one lane, then lanes that have not begun yet as long as it is their turn.
extern "C" __attribute__((noinline, no_sanitize("address"))) inline void twin_fiber() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        (*block->kernel)();
        Lane *me = self;
        me->done = true;
        if (me->has_copies) block->copies[block->lane].clear();
        me->has_copies = false;
        Lane *next = next_lane();
        if (next && !next->stack) {
            next->stack = me->stack;
            self = next;
            continue;
        }
        for (unsigned rank = 0; !next && rank < stage->cluster; rank++) {
            const Block &b = stage->of_cluster(rank);
            for (unsigned i = 0; i < b.all.size; i++)
                if (!b.lanes[i].done) fail("nobody can go on; waits in", b.lanes[i].waits_in());
        }
        stage->stacks.push_back(me->stack); // nobody takes it before this fiber has left it
        go(&me->stack_pointer, next, true);
    }
}
} // namespace twin
