//! Tells the processor which memory is read next, so that it comes while other work is done: what another processor wrote
//! last takes a hundred nanoseconds and more to come, and packets were.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Begins to fetch the cache lines of the `bytes` bytes from `at` on. Changes nothing but time; any address will do.
#[inline]
pub fn fetch(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(LINE) {
        fetch_line(at.wrapping_add(line));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch_line(at: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that the program sees, and cannot fault, whatever the address. The instruction is in every
    // x86-64 processor.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// Processors without such an instruction in stable Rust fetch when they must.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch_line(_: *const u8) {}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_changes() {
        let bytes: Vec<u8> = (0..=255).collect();
        super::fetch(bytes.as_ptr(), bytes.len());
        super::fetch(std::ptr::null(), 1);
        assert!(bytes.iter().enumerate().all(|(i, b)| i == usize::from(*b)));
    }
}
