//! Keeps the kernel from processing the packets that arrive on a device, while AF_PACKET sockets still see them.
//!
//! A port that owns a device must be the only one who answers and forwards what comes in. So the ingress hook of the
//! device (qdisc `clsact`) gets a classic BPF program of one instruction, `ret TC_ACT_SHOT`, in direct-action mode.
//! This needs `cls_bpf` and nothing else, no `matchall`, no `gact`. Packet sockets tap before that hook.
//!
//! The kernel itself remembers whose the filter is and whether the qdisc came with it, in the filter's handle, so that
//! what a killed process left behind is recognised by the next one. What others installed is never touched.

use super::{Netlink, NetlinkError};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_route::RouteNetlinkMessage as Rtnl;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};

/// Handle of our filter on a qdisc that was there before ("d0e7").
const HANDLE_GUEST: u32 = 0xd0e7_0000;
/// Handle of our filter on a qdisc that we made.
const HANDLE_OWNER: u32 = 0xd0e7_0001;
/// First priorities: before all filters that others add without saying a priority (those count down from 49152).
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;
const QDISC_HANDLE: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
const EGRESS: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };

const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// `BPF_RET | BPF_K, TC_ACT_SHOT` as struct sock_filter: u16 code, u8 jt, u8 jf, u32 k.
const DROP_CODE: u16 = 6;
const TC_ACT_SHOT: u32 = 2;

/// Holds the kernel off one device; undone when dropped.
#[derive(Debug)]
pub struct KernelBlock {
    netlink: Netlink,
    index: u32,
    installed: bool,
}

impl KernelBlock {
    /// Installs the block on the device `index` of the calling thread's namespace. What an earlier process of ours left
    /// behind is replaced.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`]: no privilege (CAP_NET_ADMIN), no such device, or a kernel without `sch_ingress` or
    /// `cls_bpf` (the message says which step).
    pub fn install(index: u32) -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        remove_ours(&mut netlink, index)?;
        let owner = match add_qdisc(&mut netlink, index) {
            Ok(()) => true,
            Err(e) if e.is_exists() => false,
            Err(e) => return Err(e),
        };
        let mut block = KernelBlock { netlink, index, installed: true };
        let added = add_filter(&mut block.netlink, index, if owner { HANDLE_OWNER } else { HANDLE_GUEST });
        if let Err(e) = added {
            if owner {
                let _ = del_qdisc(&mut block.netlink, index);
            }
            block.installed = false;
            return Err(e);
        }
        Ok(block)
    }

    /// Removes what a process of ours left on the device; true if there was something.
    pub fn remove_stale(index: u32) -> Result<bool, NetlinkError> {
        remove_ours(&mut Netlink::open()?, index)
    }

    /// Whether our filter is on the device, by this process or another.
    pub fn is_installed(index: u32) -> Result<bool, NetlinkError> {
        Ok(!ours(&mut Netlink::open()?, index)?.is_empty())
    }

    /// Removes the block now and says how that went.
    pub fn remove(mut self) -> Result<(), NetlinkError> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), NetlinkError> {
        if !std::mem::take(&mut self.installed) {
            return Ok(());
        }
        match remove_ours(&mut self.netlink, self.index) {
            // The device may be gone by now, and the block with it.
            Err(e) if !e.is_missing() => Err(e),
            _ => Ok(()),
        }
    }
}

impl Drop for KernelBlock {
    fn drop(&mut self) {
        if let Err(e) = self.undo() {
            tracing::warn!(index = self.index, error = %e, "cannot give the device back to the kernel");
        }
    }
}

fn header(index: u32, handle: TcHandle, parent: TcHandle, info: u32) -> TcHeader {
    TcHeader { index: index as i32, handle, parent, info, ..Default::default() }
}

fn qdisc_message(index: u32) -> TcMessage {
    TcMessage::from_parts(
        header(index, QDISC_HANDLE, TcHandle::CLSACT, 0),
        vec![TcAttribute::Kind("clsact".to_owned())],
    )
}

fn add_qdisc(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    netlink
        .acked(Rtnl::NewQueueDiscipline(qdisc_message(index)), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("add qdisc clsact to link {index}")
        })
        .map_err(|e| explain(e, "kernel without qdisc clsact: CONFIG_NET_SCH_INGRESS"))
}

fn del_qdisc(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    netlink.acked(Rtnl::DelQueueDiscipline(qdisc_message(index)), 0, || format!("delete qdisc clsact of link {index}"))
}

/// Priority in the upper half, EtherType (all, in network order) in the lower.
fn filter_info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

fn add_filter(netlink: &mut Netlink, index: u32, handle: u32) -> Result<(), NetlinkError> {
    let mut ops = Vec::from(DROP_CODE.to_ne_bytes());
    ops.extend([0, 0]);
    ops.extend(TC_ACT_SHOT.to_ne_bytes());
    let options = vec![
        TcOption::Other(DefaultNla::new(TCA_BPF_OPS_LEN, 1u16.to_ne_bytes().to_vec())),
        TcOption::Other(DefaultNla::new(TCA_BPF_OPS, ops)),
        TcOption::Other(DefaultNla::new(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes().to_vec())),
    ];
    let mut last = None;
    for priority in PRIORITIES {
        let m = TcMessage::from_parts(
            header(index, handle.into(), INGRESS, filter_info(priority)),
            vec![TcAttribute::Kind("bpf".to_owned()), TcAttribute::Options(options.clone())],
        );
        let what = || format!("add bpf filter to ingress of link {index}");
        match netlink.acked(Rtnl::NewTrafficFilter(m), NLM_F_CREATE | NLM_F_EXCL, what) {
            Ok(()) => return Ok(()),
            // A filter of another kind or protocol holds this priority.
            Err(e) if e.is_exists() || e.errno() == Some(libc::EINVAL) => last = Some(e),
            Err(e) => return Err(explain(e, "kernel without classifier bpf: CONFIG_NET_CLS_BPF")),
        }
    }
    Err(last.unwrap_or(NetlinkError::Answer { what: "add bpf filter".to_owned(), why: "no free priority".to_owned() }))
}

/// Adds the likely cause to an error that means "no such kind".
fn explain(error: NetlinkError, cause: &str) -> NetlinkError {
    match error {
        NetlinkError::Kernel { what, source, detail }
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) =>
        {
            let detail = Some(detail.map_or_else(|| cause.to_owned(), |d| format!("{d}; {cause}")));
            NetlinkError::Kernel { what, source, detail }
        }
        other => other,
    }
}

fn filters(netlink: &mut Netlink, index: u32, parent: TcHandle) -> Result<Vec<TcMessage>, NetlinkError> {
    let m = TcMessage::from_parts(header(index, TcHandle::UNSPEC, parent, 0), Vec::new());
    let entries = match netlink.dump(Rtnl::GetTrafficFilter(m), || format!("list filters of link {index}")) {
        Ok(entries) => entries,
        Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::ENOENT)) => Vec::new(),
        Err(e) => return Err(e),
    };
    Ok(entries
        .into_iter()
        .filter_map(|e| match e {
            Rtnl::NewTrafficFilter(m) if m.header.index == index as i32 => Some(m),
            _ => None,
        })
        .collect())
}

fn handle_of(m: &TcMessage) -> u32 {
    u32::from(m.header.handle.major) << 16 | u32::from(m.header.handle.minor)
}

fn is_ours(m: &TcMessage) -> bool {
    let mut bpf = false;
    let mut drops = false;
    for attribute in &m.attributes {
        match attribute {
            TcAttribute::Kind(kind) => bpf = kind == "bpf",
            TcAttribute::Options(options) => drops |= options.iter().any(is_drop_program),
            _ => {}
        }
    }
    bpf && drops && matches!(handle_of(m), HANDLE_GUEST | HANDLE_OWNER)
}

fn is_drop_program(option: &TcOption) -> bool {
    if option.kind() != TCA_BPF_OPS || option.value_len() != 8 {
        return false;
    }
    let mut bytes = [0u8; 8];
    option.emit_value(&mut bytes);
    bytes[..2] == DROP_CODE.to_ne_bytes() && bytes[4..] == TC_ACT_SHOT.to_ne_bytes()
}

fn ours(netlink: &mut Netlink, index: u32) -> Result<Vec<TcMessage>, NetlinkError> {
    let mut found = filters(netlink, index, INGRESS)?;
    found.retain(is_ours);
    Ok(found)
}

fn remove_ours(netlink: &mut Netlink, index: u32) -> Result<bool, NetlinkError> {
    let found = ours(netlink, index)?;
    let mut owner = false;
    for filter in &found {
        owner |= handle_of(filter) == HANDLE_OWNER;
        let m = TcMessage::from_parts(
            header(index, filter.header.handle, INGRESS, filter.header.info),
            vec![TcAttribute::Kind("bpf".to_owned())],
        );
        netlink.acked(Rtnl::DelTrafficFilter(m), 0, || format!("delete bpf filter of link {index}"))?;
    }
    // The qdisc goes with the filter that brought it, unless somebody has added filters since. Entries with handle 0
    // describe a priority, not a filter.
    if owner {
        let mut rest = filters(netlink, index, INGRESS)?;
        rest.extend(filters(netlink, index, EGRESS)?);
        if rest.iter().all(|m| handle_of(m) == 0) {
            match del_qdisc(netlink, index) {
                Err(e) if !e.is_missing() => return Err(e),
                _ => {}
            }
        }
    }
    Ok(!found.is_empty())
}

#[cfg(test)]
mod tests;
