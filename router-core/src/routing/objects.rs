//! Forwarding objects as the writer keeps them: what each one is made from, who shares it, when its number is free again.
//!
//! An object's content is rendered from its definition and the facts of the moment. An index from link and neighbour to
//! objects finds exactly those to render again when one of them changes.

use super::facts::Facts;
use super::resilient::Groups;
use crate::counters::Traffic;
use crate::drop_reason::DropReason;
use crate::forward::Forwarder;
use crate::next_hop::buckets::{Member, buckets};
use crate::object::{Counted, Encap, Forward, Glean, Group, Incomplete, Object, ObjectId, Plugin, Rewrite};
use crate::port::{Medium, PortId, PortKind};
use crate::resolve::{Leaf, Share};
use crate::tables::ObjectTable;
use crate::tunnel::Outer;
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The constant objects; [`ObjectId::NO_ROUTE`] is the first.
pub(crate) const LOCAL: ObjectId = ObjectId(1);
pub(crate) const BROADCAST: ObjectId = ObjectId(2);
pub(crate) const BLACKHOLE: ObjectId = ObjectId(3);
pub(crate) const UNREACHABLE: ObjectId = ObjectId(4);
pub(crate) const PROHIBIT: ObjectId = ObjectId(5);

/// What an object is made from.
#[derive(Clone, Debug)]
pub(crate) enum Def {
    Fixed(Object),
    Leaf(Leaf),
    /// Members by leaf; each gets a shared object of its own.
    Group(Vec<Share>),
    /// The group with this number, and the leaves that each of its next-hop objects has.
    Resilient(u32, Vec<(u32, Share)>),
    Plugin(Arc<dyn Forwarder>, ObjectId),
    /// The same content as another object.
    Copy(ObjectId),
    /// Counted on the way to another object.
    Counted(Arc<Traffic>, ObjectId),
}

impl Def {
    /// The leaves of a group's members.
    fn leaves(&self) -> impl Iterator<Item = Leaf> + '_ {
        let (plain, resilient): (&[Share], &[(u32, Share)]) = match self {
            Def::Group(shares) => (shares, &[]),
            Def::Resilient(_, shares) => (&[], shares),
            _ => (&[], &[]),
        };
        plain.iter().chain(resilient.iter().map(|(_, s)| s)).map(|s| s.leaf)
    }
}

#[derive(Debug)]
struct Slot {
    def: Def,
    /// Objects of a group's members.
    members: Vec<ObjectId>,
    /// Objects that copy this one.
    copies: Vec<ObjectId>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Objects {
    table: ObjectTable,
    slots: Vec<Option<Slot>>,
    /// Shared objects of group members, with the number of groups.
    shared: HashMap<Leaf, (ObjectId, u32), FixedState>,
    by_link: BTreeMap<(PortId, Option<IpAddr>), Vec<ObjectId>>,
    /// The mark of ports without neighbours, which nobody reads.
    unread: Arc<AtomicBool>,
    changed: bool,
    /// Resilient groups by number.
    pub(super) resilient: Groups,
    /// Objects that carry a tunnel; the tunnels whose carrier was rendered since somebody asked.
    carriers: HashMap<ObjectId, BTreeMap<PortId, u32>, FixedState>,
    /// Next hops that are counted, and the objects with what their counting ones stand before.
    hops: BTreeMap<(PortId, Option<IpAddr>), Arc<Traffic>>,
    shadows: BTreeMap<ObjectId, ObjectId>,
    moved: BTreeSet<PortId>,
    free: Vec<ObjectId>,
    /// Freed, but FIB entries not yet written may still point here.
    freed: Vec<ObjectId>,
    /// Freed and pointed to by no FIB entry since that snapshot; still in the table.
    lingering: Vec<ObjectId>,
    quarantine: VecDeque<(u64, Vec<ObjectId>)>,
}

impl Objects {
    pub(crate) fn new(seed: u64) -> Self {
        let mut o = Objects {
            table: ObjectTable::default(),
            slots: Vec::new(),
            shared: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_link: BTreeMap::new(),
            unread: Arc::default(),
            changed: true,
            resilient: Groups::default(),
            carriers: HashMap::with_hasher(FixedState::with_seed(seed ^ 4)),
            hops: BTreeMap::new(),
            shadows: BTreeMap::new(),
            moved: BTreeSet::new(),
            free: Vec::new(),
            freed: Vec::new(),
            lingering: Vec::new(),
            quarantine: VecDeque::new(),
        };
        let constants = [
            (ObjectId::NO_ROUTE, Object::Discard(DropReason::NoRoute)),
            (LOCAL, Object::Local),
            (BROADCAST, Object::Broadcast),
            (BLACKHOLE, Object::Discard(DropReason::Blackhole)),
            (UNREACHABLE, Object::Discard(DropReason::Unreachable)),
            (PROHIBIT, Object::Discard(DropReason::Prohibited)),
        ];
        for (id, object) in constants {
            o.slots.push(Some(Slot { def: Def::Fixed(object.clone()), members: Vec::new(), copies: Vec::new() }));
            o.table.set(id, Some(object));
        }
        o
    }

    fn is_constant(id: ObjectId) -> bool {
        id <= PROHIBIT
    }

    /// The present content, published or not.
    pub(crate) fn get(&self, id: ObjectId) -> Option<&Object> {
        self.table.get(id)
    }

    /// What an object is made from.
    pub(super) fn def(&self, id: ObjectId) -> Option<&Def> {
        self.slots.get(id.0 as usize)?.as_ref().map(|s| &s.def)
    }

    /// Live objects.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// A new object.
    pub(crate) fn make(&mut self, def: Def, facts: &Facts) -> ObjectId {
        let id = self.number();
        self.set(id, def, facts);
        id
    }

    /// A number that nobody uses.
    fn number(&mut self) -> ObjectId {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ObjectId((self.slots.len() - 1) as u32)
        })
    }

    /// Gives an object another definition and renders it, with all that copy it.
    pub(crate) fn set(&mut self, id: ObjectId, def: Def, facts: &Facts) {
        if Self::is_constant(id) {
            return;
        }
        let members = match &def {
            Def::Group(shares) => shares.iter().map(|s| self.share(s.leaf, facts)).collect(),
            Def::Resilient(_, shares) => shares.iter().map(|(_, s)| self.share(s.leaf, facts)).collect(),
            _ => Vec::new(),
        };
        self.index(id, &def, true);
        let copies = self.unset(id).unwrap_or_default();
        if let Some(place) = self.slots.get_mut(id.0 as usize) {
            *place = Some(Slot { def, members, copies });
        }
        self.note_links(id, facts);
        self.render(id, facts);
    }

    /// Takes an object's definition away, with what it holds of others. Says who copied it.
    fn unset(&mut self, id: ObjectId) -> Option<Vec<ObjectId>> {
        let slot = self.slots.get_mut(id.0 as usize)?.take()?;
        self.index(id, &slot.def, false);
        self.drop_shadow(id);
        for leaf in slot.def.leaves() {
            self.unshare(leaf);
        }
        Some(slot.copies)
    }

    /// Frees an object. Its number stays out of use until no reader can meet it any more.
    pub(crate) fn free(&mut self, id: ObjectId) {
        if !Self::is_constant(id) && self.unset(id).is_some() {
            self.carriers.remove(&id);
            self.freed.push(id);
        }
    }

    /// Enters an object where changes of links and of other objects look for it, or takes it out.
    fn index(&mut self, id: ObjectId, def: &Def, enter: bool) {
        let keys: Vec<(PortId, Option<IpAddr>)> = match def {
            Def::Leaf(l) => vec![(l.port, l.gateway)],
            Def::Group(_) => def.leaves().map(|l| (l.port, l.gateway)).collect(),
            Def::Resilient(group, _) => {
                self.resilient.index(*group, id, enter);
                def.leaves().map(|l| (l.port, l.gateway)).collect()
            }
            Def::Copy(of) => {
                if let Some(slot) = self.slots.get_mut(of.0 as usize).and_then(Option::as_mut) {
                    match enter {
                        true => slot.copies.push(id),
                        false => remove_one(&mut slot.copies, id),
                    }
                }
                return;
            }
            Def::Fixed(_) | Def::Plugin(..) | Def::Counted(..) => return,
        };
        for key in keys {
            let users = self.by_link.entry(key).or_default();
            match enter {
                true => users.push(id),
                false => remove_one(users, id),
            }
            if users.is_empty() {
                self.by_link.remove(&key);
            }
        }
    }

    fn share(&mut self, leaf: Leaf, facts: &Facts) -> ObjectId {
        if let Some((id, users)) = self.shared.get_mut(&leaf) {
            *users += 1;
            return *id;
        }
        let id = self.make(Def::Leaf(leaf), facts);
        self.shared.insert(leaf, (id, 1));
        id
    }

    fn unshare(&mut self, leaf: Leaf) {
        let Some((id, users)) = self.shared.get_mut(&leaf) else { return };
        *users -= 1;
        if *users == 0 {
            let id = *id;
            self.shared.remove(&leaf);
            self.free(id);
        }
    }

    /// Renders everything on a link again: its MTU, address or state has changed.
    pub(crate) fn refresh_port(&mut self, port: PortId, facts: &Facts) {
        let users = self.by_link.range((port, None)..).take_while(|((p, _), _)| *p == port);
        let mut ids: Vec<_> = users.flat_map(|(_, v)| v.iter().copied()).collect();
        // Members first: groups only refer to them, copies are rendered with what they copy.
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().for_each(|id| self.render(id, facts));
    }

    /// Whether an object leads to this neighbour as a gateway.
    pub(crate) fn leads_to(&self, port: PortId, addr: IpAddr) -> bool {
        self.by_link.get(&(port, Some(addr))).is_some_and(|ids| !ids.is_empty())
    }

    /// Renders everything that a neighbour's state shows in.
    pub(crate) fn refresh_neighbor(&mut self, port: PortId, addr: IpAddr, facts: &Facts) {
        let ids = self.by_link.get(&(port, Some(addr))).cloned().unwrap_or_default();
        ids.into_iter().for_each(|id| self.render(id, facts));
    }

    /// The object that carries a tunnel: one for all that leave by the same leaf, so that a packet of any of them finds it
    /// in the cache. From now on [`Objects::take_moved`] names the tunnel when what it can carry changes.
    pub(crate) fn carrier(&mut self, def: Def, tunnel: PortId, facts: &Facts) -> (ObjectId, Option<Leaf>) {
        self.moved.insert(tunnel);
        let (id, leaf) = match def {
            Def::Leaf(leaf) => (self.share(leaf, facts), Some(leaf)),
            // Nothing leads there.
            Def::Fixed(_) => return (ObjectId::NO_ROUTE, None),
            def => (self.make(def, facts), None),
        };
        // Twice for a moment, when a tunnel's carrier is exchanged for the same one.
        *self.carriers.entry(id).or_default().entry(tunnel).or_default() += 1;
        (id, leaf)
    }

    /// Gives back what [`Objects::carrier`] gave.
    pub(crate) fn drop_carrier(&mut self, id: ObjectId, leaf: Option<Leaf>, tunnel: PortId) {
        if let Some(tunnels) = self.carriers.get_mut(&id) {
            if let Some(n) = tunnels.get_mut(&tunnel) {
                *n -= 1;
                if *n == 0 {
                    tunnels.remove(&tunnel);
                }
            }
            if tunnels.is_empty() {
                self.carriers.remove(&id);
            }
        }
        match leaf {
            Some(leaf) => self.unshare(leaf),
            None => self.free(id),
        }
    }

    /// Tunnels whose carrier may have another content than at the last call.
    pub(crate) fn take_moved(&mut self) -> BTreeSet<PortId> {
        std::mem::take(&mut self.moved)
    }

    fn render(&mut self, id: ObjectId, facts: &Facts) {
        self.note_answers(id, facts);
        self.render_content(id, facts);
    }

    pub(super) fn render_content(&mut self, id: ObjectId, facts: &Facts) {
        let counted = self.counted(id, facts);
        let Some(Some(slot)) = self.slots.get(id.0 as usize) else { return };
        let object = match &slot.def {
            Def::Counted(traffic, next) => Object::Counted(Counted { traffic: traffic.clone(), next: *next }),
            Def::Fixed(o) => o.clone(),
            Def::Leaf(leaf) => counted.unwrap_or_else(|| self.leaf(leaf, facts)),
            Def::Group(shares) => group(shares, &slot.members, facts),
            Def::Resilient(group, shares) => self.resilient.content(*group, shares, &slot.members),
            Def::Plugin(forwarder, next) => Object::Plugin(Plugin { forwarder: forwarder.clone(), next: *next }),
            Def::Copy(of) => self.table.get(*of).cloned().unwrap_or(Object::Discard(DropReason::NextHopUnusable)),
        };
        let copies = slot.copies.clone();
        if let Some(tunnels) = self.carriers.get(&id)
            && !self.table.get(id).is_some_and(|old| carries_alike(old, &object))
        {
            self.moved.extend(tunnels.keys());
        }
        self.table.set(id, Some(object));
        self.changed = true;
        for copy in copies {
            if copy != id {
                self.render(copy, facts);
            }
        }
    }

    /// What stands for a next hop that is counted and can be used: its proper content gets an object of its own.
    fn counted(&mut self, id: ObjectId, facts: &Facts) -> Option<Object> {
        if self.hops.is_empty() {
            return None;
        }
        let Some(Some(Slot { def: Def::Leaf(leaf), .. })) = self.slots.get(id.0 as usize) else { return None };
        let traffic = self.hops.get(&(leaf.port, leaf.gateway))?.clone();
        let content = self.leaf(leaf, facts);
        if matches!(content, Object::Discard(_)) {
            return None;
        }
        let next = match self.shadows.get(&id) {
            Some(shadow) => *shadow,
            None => {
                let shadow = self.number();
                let def = Def::Fixed(Object::Discard(DropReason::NextHopUnusable));
                if let Some(place) = self.slots.get_mut(shadow.0 as usize) {
                    *place = Some(Slot { def, members: Vec::new(), copies: Vec::new() });
                }
                self.shadows.insert(id, shadow);
                shadow
            }
        };
        self.table.set(next, Some(content));
        Some(Object::Counted(Counted { traffic, next }))
    }

    fn drop_shadow(&mut self, id: ObjectId) {
        if let Some(shadow) = self.shadows.remove(&id) {
            self.free(shadow);
        }
    }

    /// Counts what goes to a next hop from now on, or no more.
    pub(crate) fn count_hop(&mut self, hop: (PortId, Option<IpAddr>), traffic: Option<Arc<Traffic>>, facts: &Facts) {
        let on = traffic.is_some();
        match traffic {
            Some(t) => _ = self.hops.insert(hop, t),
            None => _ = self.hops.remove(&hop),
        }
        for id in self.by_link.get(&hop).cloned().unwrap_or_default() {
            self.render(id, facts);
            if !on {
                self.drop_shadow(id);
            }
        }
    }

    /// Next hops that are counted.
    pub(crate) fn counted_hops(&self) -> &BTreeMap<(PortId, Option<IpAddr>), Arc<Traffic>> {
        &self.hops
    }

    fn leaf(&self, leaf: &Leaf, facts: &Facts) -> Object {
        let unusable = Object::Discard(DropReason::NextHopUnusable);
        let Some(port) = facts.port(leaf.port) else { return unusable };
        let cap = |mtu: u32| if leaf.mtu > 0 { mtu.min(leaf.mtu) } else { mtu };
        match (port.kind, port.medium, leaf.gateway) {
            // What a route sends to the loopback goes nowhere: delivery is what local routes are for.
            (PortKind::Loopback, ..) => Object::Discard(DropReason::Unreachable),
            (PortKind::Tunnel, ..) => match facts.tunnels.get(&leaf.port) {
                Some(t) if t.outcome.usable() => Object::Encap(Encap {
                    tunnel: leaf.port,
                    mtu: cap(t.facts.mtu),
                    mss: leaf.mss,
                    carries: t.facts.mode.shape().carries,
                    carrier: t.carrier,
                    outer: Outer::of(&t.facts),
                    facts: Arc::clone(&t.facts),
                }),
                Some(t) if t.outcome.looped => Object::Discard(DropReason::TunnelNesting),
                _ => unusable,
            },
            (PortKind::Vrf, ..) => Object::Table(port.table),
            (PortKind::Translator, ..) => match facts.translators.get(&leaf.port) {
                Some(t) if port.up => Object::Plugin(Plugin { forwarder: t.clone(), next: ObjectId::NO_ROUTE }),
                _ => unusable,
            },
            (_, Medium::Ip, _) => Object::Forward(Forward {
                port: leaf.port,
                mtu: cap(port.mtu),
                mss: leaf.mss,
                gateway: None,
                rewrite: Rewrite::NONE,
                used: self.unread.clone(),
            }),
            (_, Medium::Ethernet, None) => Object::Glean(Glean { port: leaf.port, mtu: leaf.mtu, mss: leaf.mss }),
            (_, Medium::Ethernet, Some(gateway)) => match adjacency(leaf.port, gateway, facts) {
                Some(known) => {
                    Object::Forward(Forward { mtu: cap(known.mtu), mss: leaf.mss, gateway: Some(gateway), ..known })
                }
                None => Object::Incomplete(Incomplete { port: leaf.port, gateway, mss: leaf.mss }),
            },
        }
    }

    /// The table to publish, if it differs from the last one published.
    pub(crate) fn publish(&mut self) -> Option<ObjectTable> {
        // Nothing has pointed to these since an earlier snapshot, so the next one need not know them.
        for id in self.lingering.drain(..) {
            self.table.set(id, None);
            self.changed = true;
        }
        std::mem::take(&mut self.changed).then(|| self.table.clone())
    }

    /// The table as it is now.
    pub(crate) fn table(&self) -> &ObjectTable {
        &self.table
    }

    /// Whether something is to be published.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// Every FIB entry is written: what was freed may go once no snapshot numbered `seq` or lower is held.
    pub(crate) fn seal(&mut self, seq: u64) {
        if !self.freed.is_empty() {
            let ids = std::mem::take(&mut self.freed);
            self.lingering.extend(&ids);
            self.quarantine.push_back((seq, ids));
        }
    }

    /// Makes numbers sealed below the oldest snapshot still held usable again.
    pub(crate) fn release(&mut self, oldest_live: u64) {
        while self.quarantine.front().is_some_and(|(seq, _)| *seq < oldest_live) {
            if let Some((_, mut ids)) = self.quarantine.pop_front() {
                self.free.append(&mut ids);
            }
        }
    }

    /// Freed numbers that wait for readers.
    pub(crate) fn waiting(&self) -> usize {
        self.freed.len() + self.quarantine.iter().map(|(_, v)| v.len()).sum::<usize>()
    }
}

/// Whether a tunnel over one object carries what it carries over the other. Not sure of all of them.
fn carries_alike(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Forward(a), Object::Forward(b)) => (a.port, a.mtu) == (b.port, b.mtu),
        (Object::Encap(a), Object::Encap(b)) => (a.tunnel, a.mtu) == (b.tunnel, b.mtu),
        _ => false,
    }
}

/// A resolved neighbour on an Ethernet link, as a destination there; None while its address is not known.
pub(crate) fn adjacency(port: PortId, addr: IpAddr, facts: &Facts) -> Option<Forward> {
    let info = facts.port(port).filter(|p| p.medium == Medium::Ethernet)?;
    let (mac, used) = facts.neighbors.get(&(port, addr))?.known.as_ref()?;
    let rewrite = Rewrite::ethernet(*mac, info.mac?, info.vlan);
    Some(Forward { port, mtu: info.mtu, mss: 0, gateway: None, rewrite, used: Arc::clone(used) })
}

/// Whether a gateway did not answer.
pub(super) fn is_failed(l: &Leaf, facts: &Facts) -> bool {
    l.gateway.is_some_and(|g| facts.neighbors.get(&(l.port, g)).is_some_and(|n| n.failed))
}

fn group(shares: &[Share], members: &[ObjectId], facts: &Facts) -> Object {
    let failed = |l: &Leaf| is_failed(l, facts);
    let mut list: Vec<Member> = shares
        .iter()
        .zip(members)
        .map(|(s, id)| Member { object: *id, weight: s.weight, usable: s.usable && facts.carries(s.leaf.port) })
        .collect();
    // A silent neighbour gives way while another member works; if all are silent, all are tried.
    let answering = |(m, s): (&Member, &Share)| m.usable && !failed(&s.leaf);
    if list.iter().zip(shares).any(answering) {
        list.iter_mut().zip(shares).for_each(|(m, s)| m.usable &= !failed(&s.leaf));
    }
    match buckets(&list) {
        b if b.is_empty() => Object::Discard(DropReason::NextHopUnusable),
        b => Object::Group(Group { buckets: b.into(), activity: None }),
    }
}

fn remove_one(list: &mut Vec<ObjectId>, id: ObjectId) {
    if let Some(i) = list.iter().position(|x| *x == id) {
        list.swap_remove(i);
    }
}
