//! The texts behind `help`.

use super::Object;

/// Help of one object, or of all.
pub fn usage(object: Option<Object>) -> &'static str {
    match object {
        None => GENERAL,
        Some(Object::Route) => ROUTE,
        Some(Object::Neigh) => NEIGH,
        Some(Object::Link) => LINK,
        Some(Object::Addr) => ADDR,
        Some(Object::Tunnel) => TUNNEL,
        Some(Object::Translate) => TRANSLATE,
        Some(Object::Filter) => FILTER,
        Some(Object::NextHop) => NEXTHOP,
        Some(Object::Rule) => RULE,
        Some(Object::Vrf) => VRF,
    }
}

const GENERAL: &str = "\
Usage: duet [ OPTIONS ] OBJECT { COMMAND | help }
       duet [ -force ] -batch FILE
       duet { run | shell | check | reload | broker | explain | trace | capture |
              monitor | top | doctor | graph | stats | drops | version } ...   (duet --help)
where  OBJECT := { address | filter | link | neighbor | nexthop | route | rule |
                   translate | tunnel | vrf }
       OPTIONS := { -4 | -6 | -f[amily] { inet | inet6 } | -j[son] | -p[retty] |
                    -s[tatistics] | -d[etails] | -o[neline] | -br[ief] |
                    -b[atch] FILE | -c[olor] | -n NAME | --socket PATH }";

const TRANSLATE: &str = "\
Usage: duet [ -s ] [ -d ] translate [ show ] [ NAME ] [ sessions [ COUNT ] ]
Translators are made in the configuration, in sections called translate.NAME.";

const FILTER: &str = "\
Usage: duet [ -s ] filter [ show ] [ NAME ] [ dev PORT ]
       duet filter add NAME [ at NUMBER ] RULE [ RULE ... ]
       duet filter replace NAME RULE [ RULE ... ]
       duet filter del NAME [ NUMBER | RULE ]
       duet filter set dev PORT [ in FILTER ] [ out FILTER ] [ urpf URPF ] [ mss MSS ]
                  [ limit KIND LIMIT ] ...
RULE := { allow | deny | reject } [ tcp | udp | icmp | icmpv6 | proto PROTO ]
        [ from PREFIX[,PREFIX...] ] [ sport PORT[-PORT][,...] ]
        [ to PREFIX[,PREFIX...] ] [ dport PORT[-PORT][,...] ]
        [ type TYPE[,...] ] [ code NUMBER ] [ established ] [ dscp DSCP ]
        [ fragment ] [ inet | inet6 ]
FILTER := { NAME | none }
URPF := { strict | feasible | loose } [ allow-default ] | none
MSS := { to-pmtu | NUMBER | off | default }
KIND := { neighbor | icmp | other | default }
LIMIT := { RATE[/BURST] | none }    (packets per second)
The first rule that matches decides; what none matches is denied. On lo, in is for
what is delivered to the router itself.";

const ROUTE: &str = "\
Usage: duet route { list | flush } SELECTOR
       duet route save SELECTOR
       duet route restore
       duet route diff SOURCE SOURCE
       duet route get ADDRESS [ from ADDRESS ] [ iif PORT ] [ oif PORT ] [ vrf NAME ]
                      [ mark NUMBER ] [ tos TOS ] [ ipproto PROTOCOL ] [ sport NUMBER ]
                      [ dport NUMBER ] [ fibmatch ]
       duet route { add | del | change | append | prepend | replace } ROUTE
SELECTOR := [ root PREFIX ] [ match PREFIX ] [ exact PREFIX ] [ PREFIX ]
            [ table TABLE ] [ proto PROTO ] [ type TYPE ] [ scope SCOPE ]
            [ dev PORT ] [ via ADDRESS ] [ src ADDRESS ] [ metric NUMBER ] [ vrf NAME ]
ROUTE := [ TYPE ] PREFIX [ from PREFIX ] [ table TABLE | vrf NAME ] [ proto PROTO ] [ metric NUMBER ]
         [ src ADDRESS ] [ mtu NUMBER ] [ advmss NUMBER ] [ forwarder NAME ]
         { NH | nhid ID | nexthop NH [ weight NUMBER ] ... }
NH := [ via [ inet | inet6 ] ADDRESS ] [ dev PORT | nexthop-vrf NAME ] [ onlink ]
TYPE := { unicast | local | broadcast | throw | unreachable | prohibit | blackhole }
TABLE := { local | main | default | all | NUMBER }
PROTO := { kernel | boot | static | bgp | bird | ... | NUMBER }
SOURCE := { running[:NAME] | kernel | CONFIGURATION | SAVED }";

const NEIGH: &str = "\
Usage: duet neigh { add | del | change | replace } ADDRESS [ lladdr MAC ]
                  [ nud STATE ] dev PORT [ router ]
       duet neigh { show | flush } [ to PREFIX ] [ dev PORT ] [ nud STATE ]
       duet neigh get ADDRESS dev PORT
STATE := { delay | failed | incomplete | noarp | permanent | probe | reachable | stale | all }";

const LINK: &str = "\
Usage: duet link show [ PORT ] [ up ] [ type KIND ] [ master VRF ]
       duet link set PORT { up | down | mtu NUMBER | address MAC | master VRF |
                            nomaster | mark NUMBER } ...
       duet link add NAME type vrf table NUMBER
       duet link del NAME
KIND := { tun | packet | datalink | rawip | udp | memory | pcap | tunnel | loopback }";

const ADDR: &str = "\
Usage: duet address { add | change | replace | del } ADDRESS/LENGTH dev PORT
       duet address show [ PORT ] [ to PREFIX ] [ scope SCOPE ] [ up ]
       duet address flush { dev PORT | to PREFIX }
SCOPE := { host | link | global }";

const TUNNEL: &str = "\
Usage: duet tunnel { add | change | del | show } [ NAME ]
       [ mode MODE ] [ remote { ADDRESS | NAME } ] [ local ADDRESS | local-dev DEVICE ]
       [ ttl { 1..255 | inherit } ] [ tos { inherit | 00..fe } ] [ mtu NUMBER ]
       [ [no]pmtudisc ] [ [no]ignore-df ] [ dev PORT ]
       [ encaplimit { 0..255 | none } ] [ flowlabel { auto | inherit | 00000..fffff } ]
       [ [i|o]key NUMBER ] [ [i|o]seq ] [ [i|o]csum ]
       [ encap { fou | gue | auto | none } encap-dport PORT [ encap-sport { PORT | auto } ]
         [ encap-port PORT ] [ encap-rport { any | learn | PORT } ] [ encap-retry SECONDS ] [ encap-dev PORT ]
         [ [no]encap-csum ] ]
       [ 6rd-prefix PREFIX [ 6rd-relay_prefix PREFIX ] [ 6rd-br ADDRESS ] ] [ allow-6to4 ]
       [ allowed PREFIX ] ... [ rate PACKETS-PER-SECOND ]
       [ keepalive { ADDRESS [ probe-mtu ] | gre } [ interval MILLISECONDS ] [ retries N ] [ hold N ] ]
       [ keepalive-answer ]
       duet tunnel add NAME broker URL [ user USER key-file FILE ]
       [ prefix { 48 | 64 | none } ] [ lan PORT ] [ dev PORT ] [ local ADDRESS ] [ nodefault ]
       [ mode { any | 6in4 | 6inudp4 | 4in6 } ] [ auth { digest-md5 | plain | anonymous } ] [ server ADDRESS ]
       duet tunnel check NAME [ ADDRESS ]
       duet link add NAME type { sit | ipip | gre | ip6tnl | ip6gre } ...
URL := { http:// | https:// | tsp://[USER@] | tsp+udp:// | tsp+tcp:// } HOST[:PORT]
MODE := { 6in4 | sit | 4in6 | ipip6 | 6in6 | ip6ip6 | any-in-6 | 4in4 | ipip | any-in-4 | any |
          gre | gre6 | ip6gre | 6rd | 6to4 }";

const NEXTHOP: &str = "\
Usage: duet nexthop { list | flush } [ id ID ] [ dev PORT ] [ groups ] [ proto PROTO ]
       duet nexthop { add | replace } id ID NH [ proto PROTO ]
       duet nexthop { get | del } id ID
       duet nexthop bucket list [ id ID ] [ nhid ID ] [ dev PORT ]
       duet nexthop bucket get id ID index INDEX
NH := { blackhole | [ via ADDRESS ] [ dev PORT ] [ onlink ] | group GROUP [ type TYPE ] }
GROUP := ID[,WEIGHT]/ID[,WEIGHT]/...
TYPE := { mpath | resilient [ buckets NUMBER ] [ idle_timer SECONDS ]
                            [ unbalanced_timer SECONDS ] }";

const RULE: &str = "\
Usage: duet rule { add | del } SELECTOR ACTION
       duet rule { flush | show [ SELECTOR ] [ ACTION ] }
SELECTOR := [ not ] [ from PREFIX ] [ to PREFIX ] [ iif PORT ] [ fwmark MARK[/MASK] ]
            [ dscp DSCP ] [ tos TOS ] [ ipproto PROTOCOL ] [ sport NUMBER[-NUMBER] ]
            [ dport NUMBER[-NUMBER] ] [ priority NUMBER ] [ protocol PROTO ]
ACTION := { lookup TABLE [ suppress_prefixlength LENGTH ] | l3mdev | goto NUMBER | nop |
            blackhole | prohibit | unreachable }
-4 and -6 in front say of which family a rule without an address is.";

const VRF: &str = "\
Usage: duet vrf show [ NAME ]
       duet link add NAME type vrf table NUMBER
       duet link del NAME
       duet link set PORT { master NAME | nomaster }";
