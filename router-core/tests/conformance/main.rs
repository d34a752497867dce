//! Requirements of the RFCs, packet by packet, on a whole router: what goes in, what must come out. The ids are those of
//! the pages in `docs/rfc`.

mod acd;
mod details;
mod errors;
mod extensions;
mod ipv4_checks;
mod ipv4_routers;
mod neighbors;
mod options;
mod paths;
mod ping;
mod plain;
mod redirects;
mod rig;
mod router_discovery;
mod source_routes;
mod tunnel_df;
mod tunnel_loops;
mod tunnel_modes;
mod tunnel_paths;
mod tunnel_udp;
mod tunnels;
