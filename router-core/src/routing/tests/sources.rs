//! Routes for some sources only (RFC 8678).

use super::*;

/// Adds a route for a source.
fn scoped(r: &mut Routing, route: &str, from: &str) {
    let mut s = spec(route);
    s.from = from.parse().ok();
    r.route(RouteOp::Add, &s).unwrap();
    settle(r);
}

/// Where a packet goes.
fn way(r: &Routing, src: &str, dst: &str) -> String {
    let tables = &r.held.back().unwrap().1;
    let id = match tables.objects.get(tables.lookup(TableId::MAIN, &dst.parse().unwrap())) {
        Some(Object::Sources(s)) => s.pick(&src.parse().unwrap()),
        _ => tables.lookup(TableId::MAIN, &dst.parse().unwrap()),
    };
    describe(r, tables, id)
}

#[test]
fn rfc8678_4_forwarding() {
    let mut r = lab();
    for route in ["0.0.0.0/0 via 10.0.0.9", "20.0.0.0/8 via 10.0.0.10", "::/0 via 2001:db8::9"] {
        ip(&mut r, &format!("add {route}")).unwrap();
    }
    scoped(&mut r, "0.0.0.0/0 via 10.0.1.9", "10.1.0.0/16");
    scoped(&mut r, "0.0.0.0/0 via 10.0.1.8", "10.1.1.0/24");
    scoped(&mut r, "20.1.0.0/16 via 10.0.1.10", "10.1.0.0/16");
    scoped(&mut r, "30.0.0.0/8 via 10.0.1.11", "10.3.0.0/16");
    scoped(&mut r, "::/0 via 2001:db8:1::9", "2001:db8:a::/48");
    let rows = [
        ("rfc8678-4-source", "10.1.2.3", "8.8.8.8", "incomplete lan1 10.0.1.9"),
        ("rfc8678-4-source", "10.1.1.3", "8.8.8.8", "incomplete lan1 10.0.1.8"),
        ("rfc8678-4-unscoped", "10.2.0.1", "8.8.8.8", "incomplete lan0 10.0.0.9"),
        // The longer destination without scope comes before the shorter one with it.
        ("rfc8678-4-destination", "10.1.2.3", "20.5.0.1", "incomplete lan0 10.0.0.10"),
        ("rfc8678-4-destination", "10.1.2.3", "20.1.0.1", "incomplete lan1 10.0.1.10"),
        // What has no route for the source does not count.
        ("rfc8678-4-unscoped", "10.2.0.1", "20.1.0.1", "incomplete lan0 10.0.0.10"),
        ("rfc8678-4-unscoped", "10.1.2.3", "30.0.0.1", "incomplete lan1 10.0.1.9"),
        ("rfc8678-4-source", "2001:db8:a::1", "2600::1", "incomplete lan1 2001:db8:1::9"),
        ("rfc8678-4-unscoped", "2001:db8:b::1", "2600::1", "incomplete lan0 2001:db8::9"),
    ];
    for (id, src, dst, want) in rows {
        assert_eq!(way(&r, src, dst), want, "{id}: {src} to {dst}");
    }
    // Without any route for other sources, these have none.
    ip(&mut r, "del 0.0.0.0/0 via 10.0.0.9").unwrap();
    assert_eq!(way(&r, "10.2.0.1", "8.8.8.8"), "no_route", "rfc8678-4-unscoped");
}
