//! The operator's requests, which come over the control socket.

use super::model::Mode;
use super::service::{BrokerError, Origin, Service};
use super::store::StoreError;
use crate::control::{AccountInfo, BrokerAnswer, BrokerOp, PoolInfo, WireError};

const OPERATOR: Origin = Origin { from: None, via: "control" };

/// Answers one.
pub fn answer(s: &Service, op: BrokerOp) -> Result<BrokerAnswer, WireError> {
    run(s, op).map_err(|e| match e {
        BrokerError::Router(e) => e,
        BrokerError::Store(e @ StoreError::Exists(_)) => WireError::new("exists", format!("Error: {e}."), ""),
        BrokerError::Store(e @ StoreError::Missing(_)) => WireError::new(
            "not_found",
            format!("Error: {e}."),
            "\"duet broker account show\" and \"tunnel show\" list them",
        ),
        BrokerError::NoTunnel => {
            WireError::new("not_found", "Error: there is no such tunnel.", "\"duet broker tunnel show\" lists them")
        }
        BrokerError::Length(_) => WireError::new(
            "invalid",
            format!("Error: {e}."),
            "pools of /48s are prefixes in [broker], pools of /64s are subnets",
        ),
        BrokerError::Busy => WireError::new("busy", format!("Error: {e}."), ""),
        e => WireError::new("invalid", format!("Error: {e}."), ""),
    })
}

fn run(s: &Service, op: BrokerOp) -> Result<BrokerAnswer, BrokerError> {
    let told = |secret: Option<String>| secret.map_or(BrokerAnswer::Done, BrokerAnswer::Secret);
    Ok(match op {
        BrokerOp::AccountAdd { name, password, max_tunnels } => {
            told(s.add_account(OPERATOR, &name, password, max_tunnels)?)
        }
        BrokerOp::AccountDelete(name) => {
            s.delete_account(OPERATOR, &name)?;
            BrokerAnswer::Done
        }
        BrokerOp::AccountPassword { name, password } => told(s.set_password(OPERATOR, &name, password)?),
        BrokerOp::AccountEnable { name, enabled } => {
            s.enable_account(OPERATOR, &name, enabled)?;
            BrokerAnswer::Done
        }
        BrokerOp::AccountShow(which) => {
            let mut list = s.store.accounts()?;
            if let Some(name) = &which {
                list.retain(|(a, _)| a.name == *name);
                if list.is_empty() {
                    return Err(StoreError::Missing(format!("account \"{name}\"")).into());
                }
            }
            let max = s.plan.max_tunnels_per_account;
            let info = |(a, tunnels): (super::model::Account, u32)| AccountInfo {
                name: a.name,
                enabled: a.enabled,
                tunnels,
                max_tunnels: a.max_tunnels.unwrap_or(max),
                created: a.created,
            };
            BrokerAnswer::Accounts(list.into_iter().map(info).collect())
        }
        BrokerOp::TunnelAdd(wish) => {
            let missing = || StoreError::Missing(format!("account \"{}\"", wish.account));
            let account = s.store.account(&wish.account)?.ok_or_else(missing)?;
            let mode = match &wish.mode {
                Some(name) => Mode::parse(name).ok_or_else(|| BrokerError::Mode(name.clone()))?,
                None => Mode::SixInFour,
            };
            let end = wish.endpoint.map(|a| (a, None));
            let (t, key) = s.create(OPERATOR, Some(&account), &wish.name, mode, end, &wish.prefixes)?;
            BrokerAnswer::Created(Box::new(s.info(&t)), key)
        }
        BrokerOp::TunnelEndpoint { id, endpoint } => {
            s.update(OPERATOR, id, endpoint, None)?;
            BrokerAnswer::Done
        }
        BrokerOp::TunnelKey(id) => BrokerAnswer::Secret(s.new_key(OPERATOR, id)?),
        BrokerOp::TunnelDelete(id) => {
            s.delete(OPERATOR, id)?;
            BrokerAnswer::Done
        }
        BrokerOp::TunnelShow(Some(id)) => {
            let t = s.store.tunnel(id)?.ok_or(BrokerError::NoTunnel)?;
            BrokerAnswer::Tunnels(vec![s.info(&t)])
        }
        BrokerOp::TunnelShow(None) => BrokerAnswer::Tunnels(s.infos(&s.store.tunnels()?)),
        BrokerOp::PoolShow => {
            let pools = s.pools().map(|p| {
                let (prefix, length) = p.shown();
                Ok(PoolInfo { name: p.of.name().into(), prefix, length, size: p.size(), used: s.store.used(p)? })
            });
            BrokerAnswer::Pools(pools.collect::<Result<_, BrokerError>>()?)
        }
        BrokerOp::Audit(last) => BrokerAnswer::Audit(s.store.audits(last.min(10_000) as usize)?),
        BrokerOp::Stats => BrokerAnswer::Stats(s.stats.shown()),
        // Answered by the client of brokers elsewhere.
        BrokerOp::Join(_) | BrokerOp::Leave(_) | BrokerOp::Joined => BrokerAnswer::Done,
    })
}
