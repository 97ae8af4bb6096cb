//! AMX, Intel's tile registers: its instructions, by name, and whether they may be used.
//!
//! The compiler knows nothing of tile registers, so what one of these instructions leaves in them is there for the next one.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::cell::Cell;
use std::sync::OnceLock;

use crate::registers::TileRegisters;
use crate::self_test::self_test;
use crate::twin::TwinRegisters;

/// The processor's tile registers, configured.
pub struct AmxRegisters(());

/// What LDTILECFG reads: palette 1 has eight registers.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

thread_local! {
    /// The rows that this thread's registers are configured for, if they are.
    static CONFIGURED: Cell<Option<[u8; 8]>> = const { Cell::new(None) };
}

impl TileRegisters for AmxRegisters {
    #[inline(always)]
    unsafe fn configured(rows: [u8; 8]) -> Self {
        if CONFIGURED.get() != Some(rows) {
            // SAFETY: the caller's contract.
            unsafe { configure(rows) };
        }
        Self(())
    }

    #[inline(always)]
    fn zero<const TO: usize>(&mut self) {
        // SAFETY: the registers are configured.
        unsafe { asm!("tilezero tmm{to}", to = const TO, options(nostack, preserves_flags, nomem)) }
    }

    #[inline(always)]
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the registers are configured; the caller's contract.
        unsafe {
            asm!("tileloadd tmm{to}, [{from} + {stride}*1]", to = const TO, from = in(reg) from, stride = in(reg) 4 * stride,
                 options(nostack, preserves_flags, readonly));
        }
    }

    #[inline(always)]
    unsafe fn load_passing<const TO: usize>(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the registers are configured; the caller's contract.
        unsafe {
            asm!("tileloaddt1 tmm{to}, [{from} + {stride}*1]", to = const TO, from = in(reg) from, stride = in(reg) 4 * stride,
                 options(nostack, preserves_flags, readonly));
        }
    }

    #[inline(always)]
    fn dot<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the registers are configured.
        unsafe {
            asm!("tdpbf16ps tmm{sum}, tmm{a}, tmm{b}", sum = const SUM, a = const A, b = const B,
                 options(nostack, preserves_flags, nomem));
        }
    }

    #[inline(always)]
    fn dot_quads<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the registers are configured.
        unsafe {
            asm!("tdpbusd tmm{sum}, tmm{a}, tmm{b}", sum = const SUM, a = const A, b = const B,
                 options(nostack, preserves_flags, nomem));
        }
    }

    #[inline(always)]
    unsafe fn store<const FROM: usize>(&self, to: *mut f32, stride: usize) {
        // SAFETY: the registers are configured; the caller's contract.
        unsafe {
            asm!("tilestored [{to} + {stride}*1], tmm{from}", from = const FROM, to = in(reg) to, stride = in(reg) 4 * stride,
                 options(nostack, preserves_flags));
        }
    }
}

/// # Safety
/// As [`TileRegisters::configured`].
#[cold]
unsafe fn configure(rows: [u8; 8]) {
    let mut to = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    for (register, &rows) in rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
        (to.row_bytes[register], to.rows[register]) = (64, rows);
    }
    // SAFETY: the caller's contract; the configuration is one that palette 1 has.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const to, options(nostack, preserves_flags, readonly)) };
    CONFIGURED.set(Some(rows));
}

/// Gives this thread's registers back after a kernel: what they hold need not be saved when threads take turns.
pub fn release() {
    if CONFIGURED.take().is_some() {
        // SAFETY: registers that are configured exist.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Whether the tile registers can be used; if not, why. Asked once: the process asks the system for permission, and the
/// registers are compared with their twin.
pub fn availability() -> &'static Result<(), &'static str> {
    static AVAILABILITY: OnceLock<Result<(), &'static str>> = OnceLock::new();
    AVAILABILITY.get_or_init(|| {
        if !has_tiles() {
            return Err("this processor has no AMX with bf16 and int8");
        }
        if !system_saves_tiles() {
            return Err("the system does not save AMX's registers");
        }
        if !permission() {
            return Err("the system does not let this process use AMX");
        }
        // SAFETY: found out just now.
        let same = unsafe { self_test::<AmxRegisters, TwinRegisters>() };
        release();
        if same { Ok(()) } else { Err("AMX failed its self-test: it does not compute what Intel's manual says") }
    })
}

/// AMX-TILE, AMX-BF16 and AMX-INT8.
fn has_tiles() -> bool {
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has CPUID.
    let edx = unsafe { if __cpuid(0).eax < 7 { 0 } else { __cpuid_count(7, 0).edx } };
    [22, 24, 25].iter().all(|bit| edx >> bit & 1 == 1)
}

/// XCR0 has tile configuration (bit 17) and tile data (bit 18).
fn system_saves_tiles() -> bool {
    const TILES: u64 = 0b11 << 17;
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has CPUID; OSXSAVE says that XGETBV may be used.
    unsafe {
        __cpuid(1).ecx >> 27 & 1 == 1 && _xgetbv(0) & TILES == TILES
    }
}

/// Asks Linux, which gives the 8 KiB of tile data to those processes only that want them.
fn permission() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: this call changes what the process may use and nothing else.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}
