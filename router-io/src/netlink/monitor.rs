//! Link events as they happen, for the control thread's poll loop.

use super::socket::{decode_all, open_socket, receive_into};
use super::{LinkInfo, Netlink, NetlinkError, link};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Rtnl};
use netlink_sys::Socket;
use rustix::net::RecvFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

const RTNLGRP_LINK: u32 = 1;
const RECV_BUFFER: usize = 4 << 20;

/// Something happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link appeared, or something about it changed.
    Changed(LinkInfo),
    /// A link is gone; this is what was known of it last.
    Removed(LinkInfo),
}

/// Watches the links of one network namespace. Poll it for readability, then call [`LinkMonitor::events`].
#[derive(Debug)]
pub struct LinkMonitor {
    socket: Socket,
    client: Netlink,
    known: BTreeMap<u32, LinkInfo>,
    buffer: Vec<u8>,
}

impl LinkMonitor {
    /// Opens a monitor in the calling thread's network namespace and learns the links that are there.
    pub fn open() -> Result<Self, NetlinkError> {
        let on = |op| move |source| NetlinkError::Socket { op, source };
        let socket = open_socket(RECV_BUFFER)?;
        socket.set_non_blocking(true).map_err(on("set non-blocking"))?;
        // Subscribe before asking, so that no change falls between the two.
        socket.add_membership(RTNLGRP_LINK).map_err(on("subscribe to link events"))?;
        let mut client = Netlink::open()?;
        let known = client.links()?.into_iter().map(|l| (l.index, l)).collect();
        Ok(LinkMonitor { socket, client, known, buffer: vec![0; 64 << 10] })
    }

    /// The links as last known.
    pub fn links(&self) -> impl Iterator<Item = &LinkInfo> {
        self.known.values()
    }

    /// Everything that happened since the last call; never waits. Repetitions of what is known are left out. When the
    /// kernel had to drop events (ENOBUFS), the links are asked for again and the differences are the events.
    pub fn events(&mut self) -> Result<Vec<LinkEvent>, NetlinkError> {
        let mut events = Vec::new();
        loop {
            match receive_into(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(len) => {
                    for message in decode_all(&self.buffer[..len]) {
                        self.note(&message, &mut events);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => self.resync(&mut events)?,
                Err(source) => return Err(NetlinkError::Socket { op: "receive link events", source }),
            }
        }
    }

    fn note(&mut self, message: &Rtnl, events: &mut Vec<LinkEvent>) {
        match message {
            // Bridges announce their ports in messages of their own family: not about the link itself.
            Rtnl::NewLink(m) if m.header.interface_family == AddressFamily::Unspec => {
                self.changed(link::decode(m), events);
            }
            Rtnl::DelLink(m) if m.header.interface_family == AddressFamily::Unspec => {
                if let Some(gone) = self.known.remove(&m.header.index) {
                    events.push(LinkEvent::Removed(gone));
                }
            }
            _ => {}
        }
    }

    fn changed(&mut self, now: LinkInfo, events: &mut Vec<LinkEvent>) {
        if self.known.get(&now.index) != Some(&now) {
            self.known.insert(now.index, now.clone());
            events.push(LinkEvent::Changed(now));
        }
    }

    fn resync(&mut self, events: &mut Vec<LinkEvent>) -> Result<(), NetlinkError> {
        let now = self.client.links()?;
        let gone: Vec<u32> = self.known.keys().copied().filter(|i| now.iter().all(|l| l.index != *i)).collect();
        events.extend(gone.into_iter().filter_map(|i| self.known.remove(&i)).map(LinkEvent::Removed));
        for link in now {
            self.changed(link, events);
        }
        Ok(())
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
