//! What is wrong around the router: the kernel beside it, its devices, what the process may do.

use super::{Finding, Severity};
use crate::config::Plan;
use crate::topology::Topology;
use router_core::port::PortKind;
use router_io::machine::{ReceiveOffloads, receive_offloads};
use router_io::netlink::{KernelBlock, KernelRouteKind, Netlink};
use router_io::runtime::privileges;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// ARPHRD_SIT of linux/if_arp.h.
const TYPE_SIT: &str = "776";
/// Where ICMPv4 errors of address-less routers come from (RFC 7600 4.8).
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// A port with a device of the host.
struct Device {
    port: String,
    name: String,
    kind: PortKind,
    mtu: u32,
}

pub(super) fn look(t: &Topology, plan: Option<&Plan>) -> Vec<Finding> {
    let mut out = Vec::new();
    if let Some(elsewhere) = other_namespace(t, plan) {
        return vec![elsewhere];
    }
    let devices = devices(t, plan);
    if let Some(plan) = plan {
        privileges_for(plan, &mut out);
    }
    for d in &devices {
        let Some(link) = Netlink::open().ok().and_then(|mut n| n.link(&d.name).ok()) else {
            // A TUN device is made by the router itself.
            if !d.kind.makes_device() {
                out.push(missing(d, plan.is_some()));
            }
            continue;
        };
        if is_ethernet(d.kind) {
            forwarding(d, link.index, plan, &mut out);
            offloads(d, &mut out);
        } else {
            reverse_path(d, &mut out);
        }
        if d.mtu > link.mtu {
            out.push(Finding::new(
                Severity::Error,
                "mtu-device",
                format!(
                    "port \"{}\" has a larger MTU than its device {}: larger packets are lost there",
                    d.port, d.name
                ),
                format!("mtu {} of the port, {} of the device", d.mtu, link.mtu),
                format!("ip link set {} mtu {}, or duet link set {} mtu {}", d.name, d.mtu, d.port, link.mtu),
            ));
        }
        if !link.running && plan.is_none() {
            out.push(Finding::new(
                Severity::Error,
                "device-down",
                format!("the device {} of port \"{}\" is down or has no carrier", d.name, d.port),
                format!(
                    "administratively {}, carrier {}",
                    if link.admin_up { "up" } else { "down" },
                    if link.lower_up { "yes" } else { "no" }
                ),
                format!("ip link set {} up; look at the cable or the other end", d.name),
            ));
        }
    }
    protocol_41(t, &devices, &mut out);
    out
}

fn is_ethernet(kind: PortKind) -> bool {
    !matches!(
        kind,
        PortKind::Tun
            | PortKind::Tap
            | PortKind::RawIp
            | PortKind::Udp
            | PortKind::Wireguard
            | PortKind::Memory
            | PortKind::Pcap
            | PortKind::Tunnel
            | PortKind::Translator
            | PortKind::Loopback
            | PortKind::Vrf
    )
}

/// The running router may live in another network namespace, of which nothing is seen from here.
fn other_namespace(t: &Topology, plan: Option<&Plan>) -> Option<Finding> {
    if plan.is_some() {
        return None;
    }
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let (theirs, mine) = (of(&t.version.pid.to_string())?, of("self")?);
    (theirs != mine).then(|| {
        Finding::new(
            Severity::Note,
            "other-namespace",
            "the router is in another network namespace: its host was not looked at",
            format!("{} of pid {}, {} of this process", theirs.display(), t.version.pid, mine.display()),
            format!("nsenter -t {} -n duet doctor", t.version.pid),
        )
    })
}

fn devices(t: &Topology, plan: Option<&Plan>) -> Vec<Device> {
    match plan {
        Some(plan) => plan
            .ports
            .values()
            .filter(|p| is_ethernet(p.kind) || p.kind.makes_device())
            .map(|p| Device {
                port: p.name.clone(),
                name: p.device.clone().unwrap_or_else(|| p.name.clone()),
                kind: p.kind,
                // Without one of its own the port has the device's.
                mtu: p.mtu.unwrap_or(0),
            })
            .collect(),
        None => t
            .links
            .iter()
            .filter_map(|l| Some(Device { port: l.name.clone(), name: l.device.clone()?, kind: l.kind, mtu: l.mtu }))
            .filter(|d| is_ethernet(d.kind) || d.kind.makes_device())
            .collect(),
    }
}

fn privileges_for(plan: &Plan, out: &mut Vec<Finding>) {
    if let Err(missing) = privileges::check(plan.ports.values().map(|p| p.kind)) {
        let names = missing.0.iter().map(|p| p.to_string().to_lowercase()).collect::<Vec<_>>().join(",");
        out.push(Finding::new(
            Severity::Error,
            "capabilities",
            "this user may not open the ports of this configuration",
            missing.to_string(),
            format!("sudo setcap {names}+ep $(command -v duet), or run it as root"),
        ));
    }
    if let Some(Err(e)) = plan.offload.map(|_| router_io::offload::probe()) {
        out.push(Finding::new(
            Severity::Warning,
            "flow-offload",
            "flows cannot be offloaded to this kernel: the router will forward them all by itself",
            e.to_string(),
            "Linux 6.6 and sudo setcap cap_bpf,cap_net_admin,cap_net_raw+ep $(command -v duet); or flows = false in [offload]",
        ));
    }
    let tun = plan.ports.values().any(|p| p.kind.makes_device());
    if tun && !std::path::Path::new("/dev/net/tun").exists() {
        out.push(Finding::new(
            Severity::Error,
            "no-tun-device",
            "this host has no /dev/net/tun, which ports of kind \"tun\" need",
            "/dev/net/tun: No such file or directory",
            "modprobe tun; in a container: --device /dev/net/tun",
        ));
    }
}

fn missing(d: &Device, planned: bool) -> Finding {
    let list = if planned {
        "write the right one into device = \"...\""
    } else {
        "plug it in again: the router takes it back by itself"
    };
    Finding::new(
        Severity::Error,
        "device-missing",
        format!("port \"{}\" has no device: {} does not exist on this host", d.port, d.name),
        format!("/sys/class/net/{}: No such file or directory", d.name),
        format!("ip link lists the devices; {list}"),
    )
}

fn sysctl(path: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?.trim().parse().ok()
}

/// Both forward the same packets: answered twice, forwarded twice, counted once.
fn forwarding(d: &Device, index: u32, plan: Option<&Plan>, out: &mut Vec<Finding>) {
    // Ports of kind packet keep the kernel off their device unless told to share it.
    let shared = match plan {
        Some(plan) => plan.ports.get(&d.port).is_some_and(|p| p.share_with_kernel || p.kind == PortKind::Datalink),
        None => !KernelBlock::is_installed(index).unwrap_or(false) && !d.kind.makes_device(),
    };
    for (family, file) in [("ipv4", "forwarding"), ("ipv6", "forwarding")] {
        let key = format!("{family}/conf/{}/{file}", d.name);
        if shared && sysctl(&key) == Some(1) {
            out.push(Finding::new(
                Severity::Error,
                "kernel-forwards",
                format!("the kernel forwards {family} packets of {} too: they arrive twice", d.name),
                format!("net.{} = 1, and the kernel is not kept from this device", key.replace('/', ".")),
                format!("sysctl -w net.{}=0", key.replace('/', ".")),
            ));
        }
    }
}

/// Merged frames that a port without offload metadata cannot send on as they came.
fn offloads(d: &Device, out: &mut Vec<Finding>) {
    if let Ok(on) = receive_offloads(&d.name) {
        merging(d, on, out);
    }
}

fn merging(d: &Device, on: ReceiveOffloads, out: &mut Vec<Finding>) {
    if on.lro {
        out.push(Finding::new(
            Severity::Error,
            "offload-lro",
            format!("{} merges received TCP segments in hardware (LRO), which no router can undo", d.name),
            "large-receive-offload: on",
            format!("ethtool -K {} lro off", d.name),
        ));
    }
    if on.gro && d.kind == PortKind::Datalink {
        out.push(Finding::new(
            Severity::Warning,
            "offload-gro",
            format!("{} merges received TCP segments (GRO), which ports of kind \"datalink\" cannot pass on", d.name),
            "generic-receive-offload: on",
            format!("ethtool -K {} gro off, or kind = \"packet\"", d.name),
        ));
    }
}

/// The host's own end of a TUN device: what it thinks of packets from us.
fn reverse_path(d: &Device, out: &mut Vec<Finding>) {
    let of = |name: &str| sysctl(&format!("ipv4/conf/{name}/rp_filter")).unwrap_or(0);
    let (all, own) = (of("all"), of(&d.name));
    let filter = all.max(own);
    if filter == 0 {
        return;
    }
    let seen = format!("net.ipv4.conf.all.rp_filter = {all}, net.ipv4.conf.{}.rp_filter = {own}", d.name);
    if filter == 1 {
        out.push(Finding::new(
            Severity::Warning,
            "rp-filter-strict",
            format!(
                "the host drops packets that come out of {} unless it would answer through it: asymmetric paths break",
                d.name
            ),
            seen.clone(),
            format!("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{}.rp_filter=2", d.name),
        ));
    }
    let route = Netlink::open().ok().and_then(|mut n| n.lookup(IpAddr::V4(DUMMY)).ok());
    let routed = route.as_ref().is_some_and(|r| r.kind == KernelRouteKind::Unicast);
    if !routed {
        out.push(Finding::new(
            Severity::Warning,
            "rp-filter-192.0.0.8",
            format!("the host has no route to {DUMMY}: it drops ICMP errors from routers without an IPv4 address, so traceroute and path MTU discovery break"),
            format!("{seen}; ip route get {DUMMY}: unreachable"),
            format!("ip route add {DUMMY}/32 dev {}, or sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{}.rp_filter=0", d.name, d.name),
        ));
    }
}

/// Tunnels over the host's own stack: who else takes or blocks protocol 41.
fn protocol_41(t: &Topology, devices: &[Device], out: &mut Vec<Finding>) {
    let over_host = t.links.iter().any(|l| l.kind == PortKind::RawIp);
    if t.tunnels.is_empty() || !over_host {
        return;
    }
    let mut sit: BTreeMap<String, bool> = BTreeMap::new();
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("type").trim() == TYPE_SIT {
            sit.insert(
                entry.file_name().to_string_lossy().into_owned(),
                read("flags").trim().ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']),
            );
        }
    }
    let ports: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
    out.extend(kernel_takes_41(&sit, &ports));
    if let Ok(rules) = Command::new("nft").args(["list", "ruleset"]).output() {
        out.extend(firewall_blocks_41(&String::from_utf8_lossy(&rules.stdout)));
    }
}

/// Tunnel devices of the kernel's own, by name and whether they are up, beside those that are ports of ours.
fn kernel_takes_41(sit: &BTreeMap<String, bool>, ports: &[&str]) -> Option<Finding> {
    let (first, _) = sit.first_key_value()?;
    if ports.iter().any(|p| sit.contains_key(*p)) {
        return None;
    }
    let list: Vec<String> = sit.iter().map(|(n, up)| format!("{n} ({})", if *up { "up" } else { "down" })).collect();
    // The first of them comes with the module and cannot be deleted by itself.
    let others: Vec<String> = sit.keys().filter(|n| *n != "sit0").map(|n| format!("ip tunnel del {n}; ")).collect();
    let mend = match first.as_str() {
        "sit0" => format!("{}rmmod sit", others.concat()),
        _ => others.concat().trim_end_matches("; ").to_owned(),
    };
    Some(Finding::new(
        Severity::Warning,
        "protocol-41-kernel",
        "the kernel has sit devices of its own: it decapsulates protocol 41 beside us, or answers that nobody wants it",
        list.join(", "),
        mend,
    ))
}

/// A chain of the host's firewall that lets in only what it names, and does not name protocol 41.
fn firewall_blocks_41(rules: &str) -> Option<Finding> {
    const PASSES: [&str; 7] = [
        "ip protocol ipv6",
        "ip protocol 41",
        "l4proto ipv6",
        "l4proto 41",
        "ip protocol { ipv6",
        "l4proto { ipv6",
        "l4proto { 41",
    ];
    let (mut table, mut chain) = ("", "");
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(['{', ' ']);
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(['{', ' ']);
        }
        let shut = line.contains("hook input") && line.contains("policy drop") && !table.starts_with("ip6 ");
        if shut && !PASSES.iter().any(|w| rules.contains(w)) {
            return Some(Finding::new(
                Severity::Error,
                "protocol-41-blocked",
                "the host's firewall drops incoming packets and no rule lets protocol 41 in: tunnels hear nothing",
                format!("nft list ruleset: table {table} chain {chain}: {line}"),
                format!("nft insert rule {table} {chain} ip protocol 41 accept"),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: PortKind) -> Device {
        Device { port: "lan0".into(), name: "eth7".into(), kind, mtu: 1500 }
    }

    #[test]
    fn merging_devices() {
        let find = |kind, lro, gro| {
            let mut out = Vec::new();
            merging(&device(kind), ReceiveOffloads { lro, gro }, &mut out);
            out.iter().map(|f| (f.check, f.mend.clone())).collect::<Vec<_>>()
        };
        assert_eq!(find(PortKind::Packet, false, true), []);
        assert_eq!(find(PortKind::Packet, true, true), [("offload-lro", "ethtool -K eth7 lro off".to_owned())]);
        assert_eq!(
            find(PortKind::Datalink, false, true),
            [("offload-gro", "ethtool -K eth7 gro off, or kind = \"packet\"".to_owned())]
        );
        assert_eq!(find(PortKind::Datalink, false, false), []);
    }

    #[test]
    fn the_kernels_own_tunnels() {
        let sit = |list: &[(&str, bool)]| list.iter().map(|(n, up)| ((*n).to_owned(), *up)).collect::<BTreeMap<_, _>>();
        assert!(kernel_takes_41(&sit(&[]), &["eth0"]).is_none());
        assert!(kernel_takes_41(&sit(&[("he", true)]), &["he"]).is_none());
        let f = kernel_takes_41(&sit(&[("sit0", false)]), &["eth0"]).unwrap();
        assert_eq!((f.evidence.as_str(), f.mend.as_str()), ("sit0 (down)", "rmmod sit"));
        let f = kernel_takes_41(&sit(&[("sit0", false), ("six", true)]), &[]).unwrap();
        assert_eq!((f.evidence.as_str(), f.mend.as_str()), ("sit0 (down), six (up)", "ip tunnel del six; rmmod sit"));
        let f = kernel_takes_41(&sit(&[("six", true)]), &[]).unwrap();
        assert_eq!(f.mend, "ip tunnel del six");
    }

    #[test]
    fn firewalls() {
        let rules = |family: &str, policy: &str, rule: &str| {
            format!(
                "table {family} fw {{\n\tchain in {{\n\t\ttype filter hook input priority filter; policy {policy};\n\t\tct state established accept\n\t\t{rule}\n\t}}\n}}\n"
            )
        };
        let f = firewall_blocks_41(&rules("inet", "drop", "tcp dport 22 accept")).unwrap();
        assert_eq!(f.mend, "nft insert rule inet fw in ip protocol 41 accept");
        assert!(f.evidence.contains("table inet fw chain in: type filter hook input"), "{}", f.evidence);
        for (family, policy, rule) in [
            ("inet", "accept", "tcp dport 22 accept"),
            ("inet", "drop", "ip protocol ipv6 accept"),
            ("inet", "drop", "meta l4proto { ipv6, icmp } accept"),
            ("ip6", "drop", "tcp dport 22 accept"),
        ] {
            assert!(firewall_blocks_41(&rules(family, policy, rule)).is_none(), "{family} {policy} {rule}");
        }
        // What mends it is known as mended.
        assert!(firewall_blocks_41(&rules("inet", "drop", "ip protocol 41 accept")).is_none());
        assert!(firewall_blocks_41("").is_none());
    }
}
