//! One description of a router, written out as a configuration file or as settings of the kernel.

use std::fmt::Write;

/// A router of a lab.
#[derive(Clone, Debug, Default)]
pub struct RouterConfig {
    pub(super) name: String,
    pub(super) ports: Vec<Port>,
    pub(super) routes: Vec<String>,
    /// TOML that only our own router understands.
    pub(super) extra: String,
    pub(super) top: String,
}

#[derive(Clone, Debug)]
pub(super) struct Port {
    pub name: String,
    pub addrs: Vec<String>,
    pub kind: &'static str,
    pub more: String,
}

impl RouterConfig {
    /// A router in the host of this name.
    pub fn new(name: &str) -> Self {
        RouterConfig { name: name.to_owned(), ..Default::default() }
    }

    /// With a `packet` port, called as its device, with these addresses.
    pub fn port(self, device: &str, addrs: &[&str]) -> Self {
        self.port_with(device, addrs, "")
    }

    /// As [`RouterConfig::port`], with further lines for the port's section of the configuration.
    pub fn port_with(self, device: &str, addrs: &[&str], more: &str) -> Self {
        self.port_of("packet", device, addrs, more)
    }

    /// A port of any kind, called as its device.
    pub fn port_of(mut self, kind: &'static str, device: &str, addrs: &[&str], more: &str) -> Self {
        let addrs = addrs.iter().map(|a| (*a).to_owned()).collect();
        self.ports.push(Port { name: device.to_owned(), addrs, kind, more: more.to_owned() });
        self
    }

    /// With a route, in iproute2's grammar.
    pub fn route(mut self, route: &str) -> Self {
        self.routes.push(route.to_owned());
        self
    }

    /// With further sections of the configuration, such as tunnels.
    pub fn extra(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    /// With further lines of the section `router`.
    pub fn router(mut self, toml: &str) -> Self {
        self.top.push_str(toml);
        self.top.push('\n');
        self
    }

    /// The configuration file.
    pub fn to_toml(&self) -> String {
        // Many labs run side by side: a worker for each processor helps none of them.
        let workers = if self.top.contains("workers") { "" } else { "workers = 1\n" };
        let mut t = format!("[router]\nname = \"{}\"\n{workers}{}\n", self.name, self.top);
        for p in &self.ports {
            let _ = writeln!(t, "[port.{}]\nkind = \"{}\"", p.name, p.kind);
            if p.kind == "packet" && !p.more.contains("device") {
                let _ = writeln!(t, "device = \"{}\"", p.name);
            }
            if !p.addrs.is_empty() {
                let _ = writeln!(t, "address = {}", list(&p.addrs));
            }
            let _ = writeln!(t, "{}", p.more);
        }
        t.push_str(&self.extra);
        if !self.routes.is_empty() {
            let _ = writeln!(t, "[routes]\nmain = {}", list(&self.routes));
        }
        t
    }
}

fn list(items: &[String]) -> String {
    // Strings of JSON are strings of TOML.
    serde_json::Value::from(items).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_file() {
        let c = RouterConfig::new("r").port("lan", &["192.0.2.1/24", "2001:db8::1/64"]).port_with("x", &[], "vlan = 7");
        let c =
            c.extra("[neighbor]\nmax_entries = 5\n").route("default via 192.0.2.2").router("router_id = \"192.0.2.9\"");
        assert_eq!(
            c.to_toml(),
            "[router]\nname = \"r\"\nworkers = 1\nrouter_id = \"192.0.2.9\"\n\n[port.lan]\nkind = \"packet\"\ndevice = \"lan\"\n\
             address = [\"192.0.2.1/24\",\"2001:db8::1/64\"]\n\n[port.x]\nkind = \"packet\"\ndevice = \"x\"\nvlan = 7\n\
             [neighbor]\nmax_entries = 5\n\n[routes]\nmain = [\"default via 192.0.2.2\"]\n"
        );
    }
}
