//! The processor's time stamp counter, for benches that give their figures in clocks.

/// The counter's present value; None where the processor has none that programs may read.
#[cfg(target_arch = "x86_64")]
pub fn now() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, it touches no memory, and Linux leaves it to user programs
    // (a process that forbids it to itself by prctl(PR_SET_TSC) is none of ours).
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

/// The counter's present value; None where the processor has none that programs may read.
#[cfg(not(target_arch = "x86_64"))]
pub fn now() -> Option<u64> {
    None
}
