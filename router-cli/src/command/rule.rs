//! `rule` and `vrf`.

use super::{Session, unexpected};
use crate::control::{Answer, LinkSelect, Op, RouteSelect, RuleDelete, TableSelect};
use crate::grammar::{Failure, RuleCommand, exit};
use crate::output;
use router_core::addr::Family;
use router_core::policy::RuleSpec;
use router_core::port::PortKind;

impl Session<'_> {
    pub(super) fn rule(&mut self, command: RuleCommand) -> Result<(), Failure> {
        match command {
            RuleCommand::Add(rule) => self.done(Op::RuleAdd(rule)),
            RuleCommand::Delete(rule, any_action) => {
                self.done(Op::RuleDelete(Box::new(RuleDelete { rule: *rule, any_action })))
            }
            RuleCommand::Flush => {
                let family = self.options.family.unwrap_or(Family::Inet);
                let removed = self.call(Op::RuleFlush(family))?;
                self.flushed(&removed)
            }
            RuleCommand::Show(filter) => {
                let Answer::Rules(list) = self.call(Op::RuleShow)? else { return Err(unexpected()) };
                let family = filter.as_ref().map(|(f, _)| f.family).or(self.options.family).unwrap_or(Family::Inet);
                let list: Vec<RuleSpec> = list
                    .into_iter()
                    .filter(|r| r.family == family && filter.as_ref().is_none_or(|(f, said)| shown(f, *said, r)))
                    .collect();
                self.print(|out, o| output::rules(out, &list, o))
            }
        }
    }

    pub(super) fn vrfs(&mut self, name: Option<&str>) -> Result<(), Failure> {
        let select = LinkSelect { kind: Some("vrf".into()), ..LinkSelect::default() };
        let mut list = self.links(select)?;
        if let Some(name) = name {
            list.retain(|l| l.name == name);
            if list.is_empty() {
                return Err(Failure::with_hint(
                    exit::REFUSED,
                    "Cannot find device \"NAME\"".replace("NAME", name),
                    "\"duet vrf show\" lists the VRFs",
                ));
            }
        }
        self.print(|out, _| output::vrfs(out, &list))
    }

    /// A selector with the table of the VRF that it names.
    pub(super) fn in_vrf(&mut self, select: RouteSelect) -> Result<RouteSelect, Failure> {
        let Some(name) = &select.vrf else { return Ok(select) };
        let list = self.links(LinkSelect { dev: Some(name.clone()), ..LinkSelect::default() })?;
        match list.first().filter(|l| l.kind == PortKind::Vrf) {
            Some(vrf) => Ok(RouteSelect { table: TableSelect::One(vrf.table), vrf: None, ..select }),
            None => Err(Failure::with_hint(
                exit::SYNTAX,
                format!("Error: argument \"{name}\" is wrong: Invalid VRF"),
                "\"duet vrf show\" lists the VRFs",
            )),
        }
    }
}

/// Whether a rule is one that `rule show` was narrowed to; `said`: what it does counts, too.
fn shown(filter: &RuleSpec, said: bool, r: &RuleSpec) -> bool {
    (filter.priority.is_none() || filter.priority == r.priority)
        && (filter.from.is_none() || filter.from == r.from)
        && (filter.to.is_none() || filter.to == r.to)
        && (filter.iif.is_none() || filter.iif == r.iif)
        && (filter.fwmark.is_none() || filter.fwmark == r.fwmark)
        && (filter.dscp.is_none() || filter.dscp == r.dscp)
        && (filter.ipproto.is_none() || filter.ipproto == r.ipproto)
        && (filter.sport.is_none() || filter.sport == r.sport)
        && (filter.dport.is_none() || filter.dport == r.dport)
        && (!said || filter.action == r.action)
}
