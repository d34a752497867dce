//! What every lab checks between two hosts.

use super::{Result, tools};
use router_core::addr::Family;
use router_io::lab::Host;
use router_io::lab::probe::{Ping, PingSweep, PmtuDisc, TcpTransfer, Traceroute, UdpExchange};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Largest payload of the pings of every size: beyond the MTU of every link.
const LARGEST: u16 = 1600;
/// Bytes of a TCP transfer in each direction.
const TCP_BYTES: u64 = 3_000_001;

/// An address that is written in a test.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Two hosts and an address of each.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// Who begins.
    pub a: &'a Host,
    /// Who answers.
    pub b: &'a Host,
    /// The address of `a`.
    pub addr_a: IpAddr,
    /// The address of `b`.
    pub addr_b: IpAddr,
}

impl<'a> Pair<'a> {
    /// From written addresses.
    pub fn new(a: &'a Host, b: &'a Host, addr_a: &str, addr_b: &str) -> Self {
        Pair { a, b, addr_a: ip(addr_a), addr_b: ip(addr_b) }
    }

    /// The other way round.
    pub fn swapped(self) -> Self {
        Pair { a: self.b, b: self.a, addr_a: self.addr_b, addr_b: self.addr_a }
    }

    /// Everything: ping of every size, UDP both ways, TCP both ways, traceroute with exactly these hops, the
    /// destination last. `mtu` is the smallest on the way; where it is below the hosts' own, they learn it first.
    pub fn all(self, mtu: u32, hops: &[&str]) -> Result {
        self.reachable()?;
        self.traceroute(hops)?;
        self.every_size_after_learning(mtu)?;
        self.udp()?;
        self.tcp()
    }

    /// The first packet of all is answered: packets wait for the neighbour's resolution and none is lost.
    pub fn reachable(self) -> Result {
        let r = self.a.ping(&Ping::new(self.addr_b).from(self.addr_a).timeout(Duration::from_secs(5)))?;
        assert!(r.all_answered(), "first ping: {r:?}");
        Ok(())
    }

    /// Waits until a ping is answered.
    pub fn wait_reachable(self, limit: Duration) -> Result {
        let deadline = Instant::now() + limit;
        loop {
            let ping = Ping::new(self.addr_b).timeout(Duration::from_millis(200));
            let r = self.a.ping(&ping)?;
            if r.received == 1 {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "not reachable after {limit:?}: {r:?}");
            if r.sent == 0 || !r.errors.is_empty() {
                // Refused at once: do not spin.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Ping of every size from 0 to beyond the MTU, each answered with its own bytes.
    pub fn every_size(self) -> Result {
        let start = Instant::now();
        let r = self.a.ping_sweep(&PingSweep::new(self.addr_b, 0..=LARGEST))?;
        assert!(r.all_answered(), "ping of every size: {r:?}");
        println!("{} pings of every size to {} in {:?}", r.received, self.addr_b, start.elapsed());
        // And one that takes many fragments.
        let r = self.a.ping(&Ping::new(self.addr_b).size(20_000).count(2))?;
        assert!(r.all_answered(), "ping in fragments: {r:?}");
        Ok(())
    }

    /// Routers fragment IPv4 packets without DF where a link is too narrow for them, fragments too (RFC 791 3.2). Only
    /// before the ends have learned the path MTU: they would fragment themselves.
    pub fn fragmented_on_the_way(self) -> Result {
        for size in [1372, 1373, 1472, 1473, 4000, 20_000] {
            let r = self.a.ping(&Ping::new(self.addr_b).size(size).count(2).pmtu_disc(PmtuDisc::Dont))?;
            assert!(r.all_answered(), "ping -M dont -s {size}: {r:?}");
        }
        Ok(())
    }

    /// [`Pair::every_size`] after both ends have learned the path MTU.
    pub fn every_size_after_learning(self, mtu: u32) -> Result {
        self.learns_mtu(mtu)?;
        self.swapped().learns_mtu(mtu)?;
        self.every_size()
    }

    /// UDP both ways, small, as large as fits, and in fragments.
    pub fn udp(self) -> Result {
        for pair in [self, self.swapped()] {
            for size in [5, 100, 1200, 1472, 4000] {
                let x = UdpExchange { timeout: Duration::from_secs(3), ..UdpExchange::new(pair.addr_b, size, 100) };
                let r = pair.a.udp_exchange(pair.b, &x)?;
                assert!(r.all_right(&x), "udp of {size} bytes to {}: {r:?}", pair.addr_b);
            }
        }
        Ok(())
    }

    /// TCP both ways, bytes compared.
    pub fn tcp(self) -> Result {
        let t = TcpTransfer { limit: Duration::from_secs(60), ..TcpTransfer::new(self.addr_b, TCP_BYTES) };
        let r = self.a.tcp_transfer(self.b, &t)?;
        assert!(r.all_right(), "tcp to {}: {r:?}", self.addr_b);
        println!("tcp to {}: {:.0} Mbit/s up, {:.0} down", self.addr_b, r.up.mbit_per_s(), r.down.mbit_per_s());
        Ok(())
    }

    /// Traceroute, ours and Debian's, shows exactly these addresses.
    pub fn traceroute(self, hops: &[&str]) -> Result {
        let r = self.a.traceroute(&Traceroute::new(self.addr_b).timeout(Duration::from_secs(3)))?;
        let path: Vec<_> = r.path().into_iter().map(|h| h.map_or("*".to_owned(), |h| h.to_string())).collect();
        assert!(r.reached && path == hops, "traceroute to {}: {path:?}, wanted {hops:?}: {r:?}", self.addr_b);
        let target = self.addr_b.to_string();
        if let Some((ok, text)) = tools::run(self.a, "traceroute", &["-n", "-q", "1", "-w", "3", &target]) {
            assert!(ok && tools::hops(&text) == hops, "traceroute(8): {text}");
        }
        Ok(())
    }

    /// `ping -M do` with packets of the device's MTU makes `a`'s kernel learn the smallest MTU on the way.
    pub fn learns_mtu(self, mtu: u32) -> Result {
        let before = self.a.path_mtu(self.addr_b)?;
        let ping = Ping::new(self.addr_b).pmtu_disc(PmtuDisc::Do).timeout(Duration::from_secs(3));
        let overhead = match Family::of(&self.addr_b) {
            Family::Inet => 28,
            Family::Inet6 => 48,
        };
        let size = |mtu: u32| mtu.saturating_sub(overhead) as usize;
        if before > mtu {
            let r = self.a.ping(&ping.clone().size(size(before)))?;
            let told = r.errors.first().and_then(|e| e.mtu);
            assert_eq!((r.received, told), (0, Some(mtu)), "ping -M do -s {}: {r:?}", size(before));
            let cached = self.a.netlink().lookup(self.addr_b)?.mtu;
            assert_eq!(cached, Some(mtu), "the route cache of {}", self.a.name());
        }
        assert_eq!(self.a.path_mtu(self.addr_b)?, mtu, "path MTU of {}", self.a.name());
        assert_eq!(self.a.ping(&ping.clone().size(size(mtu + 1)))?.too_long, 1);
        let r = self.a.ping(&ping.size(size(mtu)))?;
        assert!(r.all_answered(), "ping -M do -s {}: {r:?}", size(mtu));
        if before > mtu && Family::of(&self.addr_b) == Family::Inet {
            self.ping_of_iputils(mtu)?;
        }
        Ok(())
    }

    /// As [`Pair::learns_mtu`], where errors come from inside a tunnel's underlay: up to `lost` packets may vanish
    /// without an error to their sender before the tunnel knows (RFC 4213 3.2.2), and more than one link may be narrow.
    pub fn discovers_mtu(self, mtu: u32, lost: u32) -> Result {
        let overhead = match Family::of(&self.addr_b) {
            Family::Inet => 28,
            Family::Inet6 => 48,
        };
        let mut silent = 0;
        for _ in 0..6 {
            let now = self.a.path_mtu(self.addr_b)?;
            if now <= mtu {
                break;
            }
            let ping = Ping::new(self.addr_b).pmtu_disc(PmtuDisc::Do).timeout(Duration::from_secs(1));
            let r = self.a.ping(&ping.size((now - overhead) as usize))?;
            assert_eq!(r.received, 0, "a packet of {now} bytes passed: {r:?}");
            silent += u32::from(r.errors.is_empty());
        }
        assert!(silent <= lost, "{silent} packets vanished without an error");
        let cached = self.a.netlink().lookup(self.addr_b)?.mtu;
        assert_eq!(cached, Some(mtu), "the route cache of {}", self.a.name());
        self.learns_mtu(mtu)
    }

    /// iputils' ping agrees about what fits.
    fn ping_of_iputils(self, mtu: u32) -> Result {
        let target = self.addr_b.to_string();
        let size = (mtu - 28).to_string();
        let args = ["-n", "-c", "1", "-W", "3", "-M", "do", "-s", &size, &target];
        if let Some((ok, text)) = tools::run(self.a, "ping", &args) {
            assert!(ok, "ping(8) -M do -s {size}: {text}");
        }
        Ok(())
    }
}
