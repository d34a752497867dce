//! Network devices: veth pairs across namespaces, state, MTU, address.

use super::{Netlink, NetlinkError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Rtnl;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkFlags, LinkHeader, LinkInfo as InfoAttribute,
    LinkMessage, State,
};
use router_core::addr::MacAddr;
use serde::Serialize;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel says about a network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkInfo {
    /// Its index, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address, if it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub admin_up: bool,
    /// The layer below says it is up (IFF_LOWER_UP: carrier).
    pub lower_up: bool,
    /// Operational (RFC 2863) and usable: IFF_RUNNING.
    pub running: bool,
    /// All IFF_* flags.
    pub flags: u32,
    /// IF_OPER_UP: addresses and routes work on it. Unknown counts as up, as for `lo` and TUN.
    pub oper_up: bool,
    /// The driver's kind as iproute2 names it (`veth`, `tun`, `vlan` ...); empty for physical devices.
    pub kind: String,
    /// The index of the device below or the peer (veth), in the namespace of that one.
    pub peer: Option<u32>,
}

/// One end of a veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// Its name in its namespace.
    pub name: &'a str,
    /// The namespace it is made in; None for that of the [`Netlink`].
    pub netns: Option<BorrowedFd<'a>>,
    /// Its address; None lets the kernel choose.
    pub mac: Option<MacAddr>,
    /// Its MTU; None for 1500.
    pub mtu: Option<u32>,
    /// Its interface index; None lets the kernel choose.
    pub index: Option<u32>,
}

impl<'a> VethEnd<'a> {
    /// An end called `name` in `netns`, everything else left to the kernel.
    pub fn new(name: &'a str, netns: Option<BorrowedFd<'a>>) -> Self {
        VethEnd { name, netns, mac: None, mtu: None, index: None }
    }

    fn message(&self) -> Result<LinkMessage, NetlinkError> {
        check_name(self.name)?;
        let mut m = LinkMessage::default();
        m.header.index = self.index.unwrap_or(0);
        m.attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        m.attributes.extend(self.netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        m.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        m.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        Ok(m)
    }
}

/// Refuses what the kernel's dev_valid_name refuses, with a better text.
fn check_name(name: &str) -> Result<(), NetlinkError> {
    let bad = name.is_empty()
        || name.len() > 15
        || name == "."
        || name == ".."
        || name.bytes().any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace());
    if bad { Err(NetlinkError::BadName(name.to_owned())) } else { Ok(()) }
}

impl Netlink {
    /// Makes a veth pair, each end directly in its namespace.
    pub fn add_veth(&mut self, a: &VethEnd<'_>, b: &VethEnd<'_>) -> Result<(), NetlinkError> {
        let mut m = a.message()?;
        m.attributes.push(LinkAttribute::LinkInfo(vec![
            InfoAttribute::Kind(InfoKind::Veth),
            InfoAttribute::Data(InfoData::Veth(InfoVeth::Peer(b.message()?))),
        ]));
        self.acked(Rtnl::NewLink(m), NLM_F_CREATE | NLM_F_EXCL, || format!("add veth {} peer {}", a.name, b.name))
    }

    /// Makes a `dummy` device, which swallows what is sent to it. Needs a kernel with that driver.
    pub fn add_dummy(&mut self, name: &str) -> Result<(), NetlinkError> {
        check_name(name)?;
        let mut m = LinkMessage::default();
        m.attributes.push(LinkAttribute::IfName(name.to_owned()));
        m.attributes.push(LinkAttribute::LinkInfo(vec![InfoAttribute::Kind(InfoKind::Dummy)]));
        self.acked(Rtnl::NewLink(m), NLM_F_CREATE | NLM_F_EXCL, || format!("add dummy {name}"))
    }

    /// Makes a VLAN device (IEEE 802.1Q) on another. Needs a kernel with that driver.
    pub fn add_vlan(&mut self, index: u32, name: &str, vlan: u16) -> Result<(), NetlinkError> {
        check_name(name)?;
        let mut m = LinkMessage::default();
        m.attributes.push(LinkAttribute::IfName(name.to_owned()));
        m.attributes.push(LinkAttribute::Link(index));
        m.attributes.push(LinkAttribute::LinkInfo(vec![
            InfoAttribute::Kind(InfoKind::Vlan),
            InfoAttribute::Data(InfoData::Vlan(vec![InfoVlan::Id(vlan)])),
        ]));
        self.acked(Rtnl::NewLink(m), NLM_F_CREATE | NLM_F_EXCL, || format!("add vlan {vlan} on link {index}"))
    }

    /// Sets a link administratively up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let mut m = at(index);
        m.header.change_mask = LinkFlags::Up;
        m.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.set(m, || format!("set link {index} {}", if up { "up" } else { "down" }))
    }

    /// Sets the MTU in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.set_attribute(index, LinkAttribute::Mtu(mtu), || format!("set link {index} mtu {mtu}"))
    }

    /// Sets the link-layer address.
    pub fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::Address(mac.0.to_vec());
        self.set_attribute(index, attribute, || format!("set link {index} address {mac}"))
    }

    /// Gives the link another name. Old kernels need it down for that.
    pub fn set_name(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        check_name(name)?;
        self.set_attribute(index, LinkAttribute::IfName(name.to_owned()), || format!("set link {index} name {name}"))
    }

    /// Moves a link to another namespace. It loses its addresses and is down there.
    pub fn move_link(&mut self, index: u32, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::NetNsFd(netns.as_raw_fd());
        self.set_attribute(index, attribute, || format!("move link {index} to another network namespace"))
    }

    /// Deletes a link; deleting one end of a veth pair deletes both.
    pub fn del_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.acked(Rtnl::DelLink(at(index)), 0, || format!("delete link {index}"))
    }

    /// The link called `name`.
    ///
    /// # Errors
    /// [`NetlinkError::NoSuchLink`] if there is none.
    pub fn link(&mut self, name: &str) -> Result<LinkInfo, NetlinkError> {
        check_name(name)?;
        let mut m = LinkMessage::default();
        m.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link_of(m, name)
    }

    /// The link of this index.
    pub fn link_by_index(&mut self, index: u32) -> Result<LinkInfo, NetlinkError> {
        self.link_of(at(index), &format!("if{index}"))
    }

    /// The index of the link called `name`.
    pub fn link_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        self.link(name).map(|l| l.index)
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<LinkInfo>, NetlinkError> {
        let entries = self.dump(Rtnl::GetLink(LinkMessage::default()), || "list links".to_owned())?;
        Ok(entries
            .into_iter()
            .filter_map(|e| match e {
                Rtnl::NewLink(m) => Some(decode(&m)),
                _ => None,
            })
            .collect())
    }

    /// Sets `lo` up: a fresh namespace has it down, and then even pinging an own address fails.
    pub fn lo_up(&mut self) -> Result<(), NetlinkError> {
        let index = self.link_index("lo")?;
        self.set_up(index, true)
    }

    fn link_of(&mut self, m: LinkMessage, name: &str) -> Result<LinkInfo, NetlinkError> {
        match self.get(Rtnl::GetLink(m), || format!("get link {name}")) {
            Ok(Rtnl::NewLink(m)) => Ok(decode(&m)),
            Ok(_) => Err(NetlinkError::Answer { what: format!("get link {name}"), why: "not a link".to_owned() }),
            Err(e) if e.errno() == Some(libc::ENODEV) => Err(NetlinkError::NoSuchLink(name.to_owned())),
            Err(e) => Err(e),
        }
    }

    fn set(&mut self, m: LinkMessage, what: impl FnOnce() -> String) -> Result<(), NetlinkError> {
        self.acked(Rtnl::SetLink(m), 0, what)
    }

    fn set_attribute(
        &mut self,
        index: u32,
        attribute: LinkAttribute,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        let mut m = at(index);
        m.attributes.push(attribute);
        self.set(m, what)
    }
}

fn at(index: u32) -> LinkMessage {
    let mut m = LinkMessage::default();
    m.header = LinkHeader { index, ..Default::default() };
    m
}

/// The facts of a link message.
pub(super) fn decode(m: &LinkMessage) -> LinkInfo {
    let flags = m.header.flags;
    let mut info = LinkInfo {
        index: m.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        admin_up: flags.contains(LinkFlags::Up),
        lower_up: flags.contains(LinkFlags::LowerUp),
        running: flags.contains(LinkFlags::Running),
        flags: flags.bits(),
        oper_up: false,
        kind: String::new(),
        peer: None,
    };
    for attribute in &m.attributes {
        match attribute {
            LinkAttribute::IfName(name) => info.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
            LinkAttribute::Address(bytes) => info.mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddr),
            LinkAttribute::OperState(state) => info.oper_up = matches!(state, State::Up | State::Unknown),
            LinkAttribute::Link(index) => info.peer = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for i in infos {
                    if let InfoAttribute::Kind(kind) = i {
                        info.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["eth0", "a", "lan0.100", "abcdefghijklmno"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "abcdefghijklmnop", "a\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
