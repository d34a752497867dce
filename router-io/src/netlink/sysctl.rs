//! Kernel settings under `/proc/sys/net`, which belong to the network namespace of the thread that opens them.

use super::NetlinkError;
use std::fs;
use std::path::PathBuf;

/// The file of a setting. Dots separate its parts, as in sysctl(8); where a slash occurs (`net/ipv4/conf/lan0.5/mtu`),
/// slashes do and dots belong to names.
fn path(name: &str) -> PathBuf {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    PathBuf::from("/proc/sys").join(relative.trim_start_matches('/'))
}

/// Reads a setting of the calling thread's network namespace.
pub fn read(name: &str) -> Result<String, NetlinkError> {
    fs::read_to_string(path(name))
        .map(|text| text.trim_end().to_owned())
        .map_err(|source| NetlinkError::Sysctl { name: name.to_owned(), source })
}

/// Writes a setting of the calling thread's network namespace.
pub fn write(name: &str, value: &str) -> Result<(), NetlinkError> {
    fs::write(path(name), value).map_err(|source| NetlinkError::Sysctl { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        assert_eq!(path("net.ipv4.ip_forward"), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/conf/lan0.5/rp_filter"), PathBuf::from("/proc/sys/net/ipv4/conf/lan0.5/rp_filter"));
    }
}
