//! Facts about a network device and the few settings that ports change, by ioctl on its name.

use router_core::addr::MacAddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// ETHTOOL_GRXCSUM, ETHTOOL_SGRO and so on come in pairs (get, set) with one word of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    get: u32,
    set: u32,
}

impl Feature {
    /// Generic receive offload: the kernel merges received TCP segments.
    pub const GRO: Feature = Feature { get: 0x2b, set: 0x2c };
    /// TCP segmentation offload, all kinds: the device takes super-segments for sending.
    pub const TSO: Feature = Feature { get: 0x1e, set: 0x1f };
    /// Checksums that the device computes when it sends; with it goes the cutting of super-frames.
    pub const TX_CHECKSUM: Feature = Feature { get: 0x16, set: 0x17 };
    /// The flag word that holds, among others, LRO.
    pub const FLAGS: Feature = Feature { get: 0x25, set: 0x26 };
}

/// ETH_FLAG_LRO of `linux/ethtool.h`: the device merges received TCP segments.
pub const FLAG_LRO: u32 = 1 << 15;

/// A handle for asking about the device called `name` in the network namespace of the calling thread at opening.
#[derive(Debug)]
pub struct Device {
    ctl: OwnedFd,
    name: [u8; libc::IFNAMSIZ],
}

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// struct ethtool_channels.
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// struct ethtool_drvinfo.
#[repr(C)]
struct EthtoolDriver {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

impl Device {
    /// Does not yet look whether the device exists.
    pub fn new(name: &str) -> io::Result<Self> {
        let mut buf = [0u8; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= buf.len() || name.contains(['/', '\0']) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        buf[..name.len()].copy_from_slice(name.as_bytes());
        let ctl = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Device { ctl, name: buf })
    }

    /// Its name.
    pub fn name(&self) -> String {
        let len = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..len]).into_owned()
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: ifreq is a C struct of integers, arrays and raw pointers: all zero is a valid value.
        let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in req.ifr_name.iter_mut().zip(self.name) {
            *to = from as libc::c_char;
        }
        req
    }

    fn ioctl(&self, op: libc::Ioctl, req: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every operation used here reads or writes one ifreq (and what its data pointer names, which the
        // callers keep alive).
        let r = unsafe { libc::ioctl(self.ctl.as_raw_fd(), op, std::ptr::from_mut(req)) };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The interface index. ENODEV when there is no such device.
    pub fn index(&self) -> io::Result<u32> {
        let mut req = self.request();
        self.ioctl(libc::SIOCGIFINDEX as _, &mut req)?;
        // SAFETY: SIOCGIFINDEX fills this member of the union.
        Ok(unsafe { req.ifr_ifru.ifru_ifindex } as u32)
    }

    /// The largest network-layer packet in bytes.
    pub fn mtu(&self) -> io::Result<u32> {
        let mut req = self.request();
        self.ioctl(libc::SIOCGIFMTU as _, &mut req)?;
        // SAFETY: SIOCGIFMTU fills this member of the union.
        Ok(unsafe { req.ifr_ifru.ifru_mtu } as u32)
    }

    /// Sets the MTU.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let mut req = self.request();
        req.ifr_ifru.ifru_mtu = mtu as libc::c_int;
        self.ioctl(libc::SIOCSIFMTU as _, &mut req)
    }

    /// The link-layer address, None when the device has no 48-bit Ethernet address.
    pub fn mac(&self) -> io::Result<Option<MacAddr>> {
        let mut req = self.request();
        self.ioctl(libc::SIOCGIFHWADDR as _, &mut req)?;
        // SAFETY: SIOCGIFHWADDR fills this member of the union.
        let sa = unsafe { req.ifr_ifru.ifru_hwaddr };
        let mac = std::array::from_fn(|i| sa.sa_data[i] as u8);
        Ok((sa.sa_family == libc::ARPHRD_ETHER).then_some(MacAddr(mac)))
    }

    fn flags(&self) -> io::Result<i32> {
        let mut req = self.request();
        self.ioctl(libc::SIOCGIFFLAGS as _, &mut req)?;
        // SAFETY: SIOCGIFFLAGS fills this member of the union.
        Ok(i32::from(unsafe { req.ifr_ifru.ifru_flags }))
    }

    /// Whether it is administratively up, and whether it has carrier too.
    pub fn link(&self) -> io::Result<(bool, bool)> {
        let flags = self.flags()?;
        let up = flags & libc::IFF_UP != 0;
        Ok((up, up && flags & libc::IFF_RUNNING != 0))
    }

    /// Sets it administratively up.
    pub fn set_up(&self) -> io::Result<()> {
        let mut req = self.request();
        req.ifr_ifru.ifru_flags = (self.flags()? | libc::IFF_UP) as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS as _, &mut req)
    }

    fn ethtool(&self, cmd: u32, data: u32) -> io::Result<u32> {
        let mut value = EthtoolValue { cmd, data };
        let mut req = self.request();
        req.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
        self.ioctl(libc::SIOCETHTOOL as _, &mut req)?;
        Ok(value.data)
    }

    /// Receive queues in use; 1 where the driver does not say.
    pub fn rx_queues(&self) -> u32 {
        let mut channels = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
        let mut req = self.request();
        req.ifr_ifru.ifru_data = std::ptr::from_mut(&mut channels).cast();
        match self.ioctl(libc::SIOCETHTOOL as _, &mut req) {
            Ok(()) => (channels.rx + channels.combined).max(1),
            Err(_) => 1,
        }
    }

    /// Sets the number of receive and of transmit queues.
    #[cfg(test)]
    pub fn set_queues(&self, count: u32) -> io::Result<()> {
        const ETHTOOL_SCHANNELS: u32 = 0x3d;
        let mut channels =
            EthtoolChannels { cmd: ETHTOOL_SCHANNELS, rx: count, tx: count, ..EthtoolChannels::default() };
        let mut req = self.request();
        req.ifr_ifru.ifru_data = std::ptr::from_mut(&mut channels).cast();
        self.ioctl(libc::SIOCETHTOOL as _, &mut req)
    }

    /// Whether frames come from a wire: then none has an unfinished checksum. False for devices between this machine's own
    /// stacks or guests (veth, TAP, virtio and the like), and where the driver does not say.
    pub fn is_hardware(&self) -> bool {
        const OF_GUESTS: [&[u8]; 5] = [b"virtio_net", b"vmxnet3", b"hv_netvsc", b"vif", b"ena"];
        // SAFETY: a C struct of integers and arrays: all zero is a valid value.
        let mut info: EthtoolDriver = unsafe { std::mem::zeroed() };
        info.cmd = ETHTOOL_GDRVINFO;
        let mut req = self.request();
        req.ifr_ifru.ifru_data = std::ptr::from_mut(&mut info).cast();
        if self.ioctl(libc::SIOCETHTOOL as _, &mut req).is_err() {
            return false;
        }
        let text = |field: &[u8; 32]| field.iter().position(|b| *b == 0).unwrap_or(32);
        let driver = &info.driver[..text(&info.driver)];
        // A PCI address: 0000:00:03.0.
        info.bus.contains(&b':') && !OF_GUESTS.contains(&driver)
    }

    /// The present word of an offload setting.
    pub fn feature(&self, feature: Feature) -> io::Result<u32> {
        self.ethtool(feature.get, 0)
    }

    /// Sets the word of an offload setting.
    pub fn set_feature(&self, feature: Feature, word: u32) -> io::Result<()> {
        self.ethtool(feature.set, word).map(drop)
    }
}
