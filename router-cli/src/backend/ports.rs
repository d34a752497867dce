//! Changes that only a configuration can ask for: ports, tunnels as a whole, settings.

use super::errors;
use super::execute::{execute, port_id};
use crate::config::{Change, LinkLocal, PortPlan};
use crate::control::WireError;
use ipnet::{IpNet, Ipv6Net};
use router_core::port::{PortId, PortKind};
use router_io::port::open::PortConfig;
use router_io::runtime::Control;
use std::net::IpAddr;

/// Carries out a change.
pub(crate) fn change(c: &mut Control, wanted: Change) -> Result<(), WireError> {
    match wanted {
        Change::Op(op) => execute(c, op).map(|_| ()),
        Change::Settings(settings) => {
            c.router_mut().set_settings(*settings);
            Ok(())
        }
        Change::FilterSet(name, spec) => c.router_mut().set_filter(&name, spec).map_err(super::filter::error),
        Change::FilterRemove(name) => c.router_mut().del_filter(&name).map_err(super::filter::error),
        Change::GuardSet(port, guard) => c.router_mut().set_guard(&port, guard).map_err(super::filter::error),
        Change::TunnelSet(spec) => {
            let now = c.now();
            c.router_mut().change_tunnel(now, *spec).map_err(errors::tunnel)
        }
        Change::TranslatorAdd(spec) => {
            let now = c.now();
            c.router_mut().add_translator(now, *spec).map(|_| ()).map_err(errors::translator)
        }
        Change::TranslatorRemove(name) => {
            let (router, now, out) = c.router_parts();
            router.del_translator(now, &name, out).map_err(errors::translator)
        }
        Change::PortAdd(plan) if plan.kind == PortKind::Loopback => loopback(c, &plan),
        Change::PortAdd(plan) => add_port(c, &plan),
        Change::PortRemove(name) if name == "lo" => {
            let id = port_id(c, "lo")?;
            let addrs = c.router().ports().get(id).map(|p| p.addrs.clone()).unwrap_or_default();
            addrs.iter().try_for_each(|a| c.router_mut().del_addr(id, *a)).map_err(errors::port)
        }
        Change::WireguardPeers(name, config) => {
            let id = port_id(c, &name)?;
            c.set_wireguard_peers(id, *config).map_err(|e| errors::control(e.into()))
        }
        Change::PortRemove(name) => {
            let id = port_id(c, &name)?;
            c.remove_port(id).map_err(errors::control)
        }
    }
}

/// The loopback is always there: only its addresses come and go.
fn loopback(c: &mut Control, plan: &PortPlan) -> Result<(), WireError> {
    let id = port_id(c, "lo")?;
    for addr in &plan.address {
        c.router_mut().add_addr(id, *addr).map_err(errors::port)?;
    }
    Ok(())
}

fn add_port(c: &mut Control, plan: &PortPlan) -> Result<(), WireError> {
    let id = c.add_port(port_config(plan)).map_err(errors::control)?;
    if plan.link_local == LinkLocal::Off {
        drop_link_local(c, id, &plan.address);
    }
    Ok(())
}

/// The router gives every Ethernet port a link-local address; here none is wanted but those that were written.
pub(super) fn drop_link_local(c: &mut Control, id: PortId, written: &[IpNet]) {
    let made: Vec<IpNet> = c
        .router()
        .ports()
        .get(id)
        .map(|p| p.addrs.iter().filter(|a| is_link_local(a) && !written.contains(a)).copied().collect())
        .unwrap_or_default();
    for addr in made {
        // It was there a moment ago.
        let _ = c.router_mut().del_addr(id, addr);
    }
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local())
}

pub(super) fn port_config(plan: &PortPlan) -> PortConfig {
    let PortPlan {
        name,
        kind,
        device,
        address,
        mac,
        mtu,
        vlan,
        table,
        vrf: _,
        mark: _,
        link_local,
        promisc,
        up,
        share_with_kernel,
        qdisc_bypass,
        xdp,
        host_address,
        local,
        listen,
        input,
        output,
        mut wireguard,
    } = plan.clone();
    wireguard.local = local;
    let mut addrs = address;
    if let LinkLocal::Address(a) = link_local {
        let net = IpNet::V6(Ipv6Net::new_assert(a, 64));
        if !addrs.iter().any(|n| n.addr() == net.addr()) {
            addrs.push(net);
        }
    }
    PortConfig {
        device,
        mac,
        mtu,
        addrs,
        vlan,
        table,
        promiscuous: promisc,
        admin_up: up,
        share_with_kernel,
        qdisc_bypass,
        xdp,
        host_addrs: host_address,
        local,
        listen,
        input,
        output,
        wireguard,
        ..PortConfig::new(name, kind)
    }
}
