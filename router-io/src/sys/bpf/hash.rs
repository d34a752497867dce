//! Hash maps: keys and values of fixed sizes that a program and its loader share.

use super::{Attr, MAP_CREATE, MAP_UPDATE_ELEM};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const MAP_TYPE_HASH: u32 = 1;

/// A hash map with keys of `K` bytes and values of `V` bytes. All its memory is there from the start.
#[derive(Debug)]
pub struct HashMap<const K: usize, const V: usize> {
    fd: OwnedFd,
}

impl<const K: usize, const V: usize> HashMap<K, V> {
    /// An empty one with room for so many. Needs CAP_BPF.
    pub fn new(entries: u32) -> io::Result<Self> {
        let mut attr = Attr::new().word(0, MAP_TYPE_HASH).word(4, K as u32).word(8, V as u32).word(12, entries);
        // SAFETY: MAP_CREATE reads plain numbers and makes a descriptor.
        Ok(HashMap { fd: unsafe { attr.call_for_fd(MAP_CREATE) }? })
    }

    /// Its descriptor, for instructions.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Sets the value of a key. E2BIG when there is no room for another key.
    pub fn set(&self, key: &[u8; K], value: &[u8; V]) -> io::Result<()> {
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).pointer(8, key.as_ptr()).pointer(16, value.as_ptr());
        // SAFETY: the kernel reads one key and one value, of the sizes that the map was made with.
        unsafe { attr.call(MAP_UPDATE_ELEM) }.map(drop)
    }

    /// The value of a key; None when it is not there.
    pub fn get(&self, key: &[u8; K]) -> Option<[u8; V]> {
        let mut value = [0; V];
        let mut attr =
            Attr::new().fd(0, self.fd.as_fd()).pointer(8, key.as_ptr()).pointer(16, value.as_mut_ptr().cast_const());
        // SAFETY: the kernel reads one key and writes one value, of the sizes that the map was made with.
        unsafe { attr.call(MAP_LOOKUP_ELEM) }.ok().map(|_| value)
    }

    /// Takes a key out; false when it was not there.
    pub fn remove(&self, key: &[u8; K]) -> bool {
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).pointer(8, key.as_ptr());
        // SAFETY: the kernel reads one key.
        unsafe { attr.call(MAP_DELETE_ELEM) }.is_ok()
    }

    /// Takes any one entry out.
    pub fn pop(&self) -> Option<([u8; K], [u8; V])> {
        let mut key = [0; K];
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).pointer(16, key.as_mut_ptr().cast_const());
        // SAFETY: without a key to begin from, the kernel writes the first one, of the size that the map was made with.
        unsafe { attr.call(MAP_GET_NEXT_KEY) }.ok()?;
        let value = self.get(&key);
        self.remove(&key);
        Some((key, value?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_there_until_it_is_taken_out() {
        let map = match HashMap::<8, 12>::new(2) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                return eprintln!("SKIPPED: bpf(2): {e}");
            }
            other => other.unwrap(),
        };
        assert!(map.pop().is_none());
        map.set(&[1; 8], &[2; 12]).unwrap();
        map.set(&[3; 8], &[4; 12]).unwrap();
        assert_eq!(map.set(&[5; 8], &[6; 12]).unwrap_err().raw_os_error(), Some(libc::E2BIG));
        map.set(&[3; 8], &[7; 12]).unwrap();
        assert_eq!((map.get(&[3; 8]), map.get(&[5; 8])), (Some([7; 12]), None));
        assert!(map.remove(&[3; 8]) && !map.remove(&[3; 8]));
        assert_eq!(map.pop(), Some(([1; 8], [2; 12])));
        assert!(map.pop().is_none());
    }
}
