//! Payloads that both ends can make for themselves: pseudo-random bytes from a seed and a position.

/// Fills `out` with the bytes at `offset` of the sequence that belongs to `seed`.
pub(super) fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let mut at = offset;
    let mut out = out;
    while !out.is_empty() {
        let word = splitmix64(seed ^ (at / 8).wrapping_mul(0x2545_f491_4f6c_dd1d)).to_le_bytes();
        let skip = (at % 8) as usize;
        let n = (8 - skip).min(out.len());
        out[..n].copy_from_slice(&word[skip..skip + n]);
        at += n as u64;
        out = &mut out[n..];
    }
}

/// The first position in `bytes`, which begin at `offset`, that is not what [`fill`] makes. Positions are those of the
/// sequence.
pub(super) fn mismatch(seed: u64, offset: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = vec![0; bytes.len()];
    fill(seed, offset, &mut expected);
    if expected == bytes {
        return None;
    }
    expected.iter().zip(bytes).position(|(a, b)| a != b).map(|i| offset + i as u64)
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let mut whole = [0; 100];
        fill(7, 0, &mut whole);
        for start in 0..40 {
            for len in 0..40 {
                let mut part = vec![0; len];
                fill(7, start as u64, &mut part);
                assert_eq!(part, whole[start..start + len]);
            }
        }
        assert_eq!(mismatch(7, 0, &whole), None);
        whole[33] ^= 1;
        assert_eq!(mismatch(7, 0, &whole), Some(33));
    }
}
