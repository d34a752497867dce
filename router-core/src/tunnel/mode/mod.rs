//! What differs between the modes of tunnels: one file each.

mod any_in_four;
mod any_in_six;
mod four_in_four;
mod four_in_six;
mod gre;
mod gre_six;
mod six_in_four;
mod six_in_six;
mod six_rd;
mod six_to_four;

use super::spec::TunnelMode;
use crate::addr::Family;
use crate::headers::protocol;

/// Which packets go in and come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// IPv4 only.
    Four,
    /// IPv6 only.
    Six,
    /// Either.
    Both,
}

impl Carries {
    /// Whether packets of this family go in and come out.
    #[inline]
    pub fn family(self, family: Family) -> bool {
        match self {
            Carries::Both => true,
            Carries::Four => family == Family::Inet,
            Carries::Six => family == Family::Inet6,
        }
    }
}

/// What stands between the outer header (or UDP) and the packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing: the outer protocol number says what is inside.
    Nothing,
    /// GRE (RFC 2784).
    Gre,
}

/// Who the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// One configured address.
    Configured,
    /// Part of the inner address (RFC 5969 7, RFC 3056 2).
    Derived,
}

/// What a mode is.
#[derive(Debug)]
pub struct Shape {
    /// The mode.
    pub mode: TunnelMode,
    /// Its name in the configuration.
    pub name: &'static str,
    /// Other names that are understood: iproute2's.
    pub words: &'static [&'static str],
    /// As `ip tunnel show` prints it.
    pub shown: &'static str,
    /// As `ip -d link show` calls the kind of device.
    pub link: &'static str,
    /// Family of the outer header.
    pub outer: Family,
    /// What may be inside.
    pub carries: Carries,
    /// What stands between.
    pub between: Between,
    /// Who the peer is.
    pub peer: Peer,
    /// Outer protocols by which its packets are found, without UDP.
    pub hears: &'static [u8],
}

impl Shape {
    /// The outer protocol for a packet of this family inside.
    #[inline]
    pub fn protocol(&self, inner: Family) -> u8 {
        match (self.between, inner) {
            (Between::Gre, _) => protocol::GRE,
            (Between::Nothing, Family::Inet) => protocol::IPV4,
            (Between::Nothing, Family::Inet6) => protocol::IPV6,
        }
    }

    /// Bytes of the bare outer header.
    pub fn header(&self) -> u32 {
        match self.outer {
            Family::Inet => super::IPV4_HEADER,
            Family::Inet6 => super::IPV6_HEADER,
        }
    }

    /// The least inner MTU that the tunnel must offer, by fragmenting outer packets where it has to: 1280 where IPv6 is
    /// inside (RFC 4213 3.2, RFC 2473 7.1).
    pub fn least_mtu(&self) -> u32 {
        if self.carries == Carries::Four { super::IPV4_MIN_MTU } else { super::IPV6_MIN_MTU }
    }
}

/// All modes.
pub const ALL: [&Shape; 10] = [
    &six_in_four::SHAPE,
    &four_in_six::SHAPE,
    &six_in_six::SHAPE,
    &any_in_six::SHAPE,
    &four_in_four::SHAPE,
    &any_in_four::SHAPE,
    &gre::SHAPE,
    &gre_six::SHAPE,
    &six_rd::SHAPE,
    &six_to_four::SHAPE,
];

impl TunnelMode {
    /// What the mode is.
    pub const fn shape(self) -> &'static Shape {
        match self {
            TunnelMode::SixInFour => &six_in_four::SHAPE,
            TunnelMode::FourInSix => &four_in_six::SHAPE,
            TunnelMode::SixInSix => &six_in_six::SHAPE,
            TunnelMode::AnyInSix => &any_in_six::SHAPE,
            TunnelMode::FourInFour => &four_in_four::SHAPE,
            TunnelMode::AnyInFour => &any_in_four::SHAPE,
            TunnelMode::Gre => &gre::SHAPE,
            TunnelMode::GreSix => &gre_six::SHAPE,
            TunnelMode::SixRd => &six_rd::SHAPE,
            TunnelMode::SixToFour => &six_to_four::SHAPE,
        }
    }

    /// The mode with this name: ours or iproute2's.
    pub fn from_word(word: &str) -> Option<TunnelMode> {
        ALL.iter().find(|s| s.name == word || s.words.contains(&word)).map(|s| s.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn modes_and_words_are_told_apart() {
        let mut words = BTreeSet::new();
        for s in ALL {
            assert!(std::ptr::eq(s.mode.shape(), s));
            for w in s.words.iter().chain([&s.name]) {
                assert!(words.insert(*w), "{w} means two modes");
                assert_eq!(TunnelMode::from_word(w), Some(s.mode));
            }
            let json = serde_json::to_value(s.mode).unwrap();
            assert_eq!(json, s.name);
        }
    }

    #[test]
    fn what_is_inside_is_named_by_the_outer_protocol() {
        for s in ALL {
            for family in [Family::Inet, Family::Inet6] {
                if s.carries.family(family) && s.mode != TunnelMode::SixInFour {
                    assert!(s.hears.contains(&s.protocol(family)), "{}", s.name);
                }
            }
        }
    }
}
