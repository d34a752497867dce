//! How a port tells the hosts of its link about the router: a line for each family.

use super::out::{Out, Paint};
use router_core::advert::AdvertStatus;
use router_core::irdp::NEVER;
use std::io;

/// One line for each family, below what was printed before.
pub(super) fn advertisements(out: &mut Out<'_>, list: &[AdvertStatus]) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    out.array("advertise")?;
    for a in list {
        out.object(None)?;
        advertisement(out, a)?;
        out.end_object()?;
    }
    out.end_array()
}

fn advertisement(out: &mut Out<'_>, a: &AdvertStatus) -> io::Result<()> {
    out.newline()?;
    out.str("family", "    advertise ", a.family, " ", Paint::Plain)?;
    out.str("to", "to ", a.to, " ", Paint::addr(&a.to))?;
    out.num("lifetime", "lifetime ", a.lifetime, "s ")?;
    out.num("sent", "sent ", a.sent, " ")?;
    out.num("solicited", "solicited ", a.solicited, " ")?;
    match a.last {
        Some(ago) => out.seconds("last", "last ", ago / 10, "s ago ")?,
        None => out.null("last", "last never ")?,
    }
    out.seconds("next", "next in ", a.next / 10, "s")?;
    if a.told.is_empty() {
        return Ok(());
    }
    out.array("addresses")?;
    for (addr, preference) in &a.told {
        out.object(None)?;
        out.newline()?;
        out.str("address", "      ", addr, " ", Paint::addr(&(*addr).into()))?;
        // JSON has the number in any case.
        if *preference == NEVER && !out.is_json() {
            out.text("preference never")?;
        } else {
            out.signed("preference", "preference ", *preference)?;
        }
        out.end_object()?;
    }
    out.end_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::Options;
    use router_core::addr::Family;

    #[test]
    fn text_and_json() {
        let v6 = AdvertStatus {
            family: Family::Inet6,
            to: "ff02::1".parse().unwrap(),
            lifetime: 1800,
            sent: 0,
            solicited: 0,
            last: None,
            next: 250,
            told: Vec::new(),
        };
        let v4 = AdvertStatus {
            family: Family::Inet,
            to: "224.0.0.1".parse().unwrap(),
            sent: 3,
            solicited: 1,
            last: Some(2_500),
            next: 14_000,
            told: vec![([192, 0, 2, 1].into(), -3), ([192, 0, 2, 9].into(), NEVER)],
            ..v6.clone()
        };
        let print = |json| {
            let mut text = Vec::new();
            let mut out = Out::new(&mut text, &Options { json, ..Options::default() }, false);
            out.object_alone().unwrap();
            advertisements(&mut out, &[v6.clone(), v4.clone()]).unwrap();
            out.end_object().unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(
            print(false),
            "\n    advertise inet6 to ff02::1 lifetime 1800s sent 0 solicited 0 last never next in 0.25s\
             \n    advertise inet to 224.0.0.1 lifetime 1800s sent 3 solicited 1 last 2.5s ago next in 14s\
             \n      192.0.2.1 preference -3\
             \n      192.0.2.9 preference never"
        );
        let json: serde_json::Value = serde_json::from_str(&print(true)).unwrap();
        assert_eq!(
            json["advertise"],
            serde_json::json!([
                { "family": "inet6", "to": "ff02::1", "lifetime": 1800, "sent": 0, "solicited": 0, "last": null, "next": 0.25 },
                { "family": "inet", "to": "224.0.0.1", "lifetime": 1800, "sent": 3, "solicited": 1, "last": 2.5, "next": 14,
                  "addresses": [{ "address": "192.0.2.1", "preference": -3 }, { "address": "192.0.2.9", "preference": NEVER }] },
            ])
        );
    }
}
