//! Conversations of real clients, byte for byte, and of those that keep to nothing.

use super::serve::Desk;
use super::session::{Next, Talk};
use crate::broker::model::ANONYMOUS;
use crate::broker::testing::{Bench, recording, run};
use proptest::prelude::*;
use std::net::SocketAddr;

const PEER: &str = "192.0.2.2:40000";

fn peer() -> SocketAddr {
    PEER.parse().unwrap()
}

async fn say(talk: &mut Talk, b: &Bench, bytes: &[u8]) -> (String, Next) {
    let (out, next) = talk.feed(bytes, &b.web).await;
    (String::from_utf8(out).unwrap(), next)
}

fn document(text: &str) -> Vec<u8> {
    super::wire::with_length(text)
}

const CREATE: &str = "<tunnel action=\"create\" type=\"v6v4\" proxy=\"no\">\r\n <client>\r\n  <address type=\"ipv4\">192.0.2.2</address>\r\n  \
    <keepalive interval=\"5\">\r\n    <address type=\"ipv6\">::</address>\r\n  </keepalive>\r\n </client>\r\n</tunnel>\r\n";

/// Proves rfc5572-4.4.1-version, rfc5572-4.4.2-anonymous, rfc5572-4.4.3-length, rfc5572-4.4.3-create, rfc5572-4.4.3-accept, rfc5572-4.5.1-v6v4,
/// rfc5572-4.6-keepalive, rfc3053-2.3-request, rfc3053-2.4-same.
#[test]
fn anonymous() {
    run(async {
        let b = Bench::new();
        let mut t = Talk::new(peer(), false);
        let (caps, _) = say(&mut t, &b, b"VERSION=2.0.2\r\n").await;
        assert_eq!(caps, "CAPABILITY TUNNEL=V6V4 AUTH=ANONYMOUS AUTH=PLAIN AUTH=DIGEST-MD5\r\n");
        assert_eq!(say(&mut t, &b, b"AUTHENTICATE ANONYMOUS\r\n\0").await.0, "200 Success\r\n");
        let (reply, _) = say(&mut t, &b, &document(CREATE)).await;
        let (head, body) = reply.split_once("\r\n").unwrap();
        assert_eq!(head, format!("Content-length: {}", body.len()));
        let (status, xml) = body.split_once("\r\n").unwrap();
        assert_eq!(status, "200 Success");
        assert_eq!(
            xml,
            "<tunnel action=\"info\" type=\"v6v4\" lifetime=\"604800\"><server><address type=\"ipv4\">192.0.2.1</address>\
             <address type=\"ipv6\">2001:db8:7::1</address></server><client><address type=\"ipv4\">192.0.2.2</address>\
             <address type=\"ipv6\">2001:db8:7::2</address><address type=\"dn\">t10001.lab.example</address><dns_server>\
             <address type=\"ipv6\">2001:db8:7::53</address></dns_server><keepalive interval=\"30\"><address type=\"ipv6\">\
             2001:db8:7::1</address></keepalive></client></tunnel>\r\n"
        );
        let accept = document("<tunnel action=\"accept\"></tunnel>\r\n");
        assert_eq!(say(&mut t, &b, &accept).await, (String::new(), Next::Go));
        assert_eq!(b.tunnels(), [("tb10001".to_owned(), "192.0.2.2".to_owned())]);
        // The same client again: the same tunnel.
        let mut t = Talk::new(peer(), false);
        say(&mut t, &b, b"VERSION=2.0.0\r\nAUTHENTICATE ANONYMOUS\r\n").await;
        assert!(say(&mut t, &b, &document(CREATE)).await.0.contains("2001:db8:7::2"));
        assert_eq!(b.web.service.store.tunnels_of(ANONYMOUS).unwrap().len(), 1);
        // What it does not want is taken back only if it was made just now.
        let gone = document("<tunnel action=\"delete\"></tunnel>\r\n");
        assert!(say(&mut t, &b, &gone).await.0.ends_with("200 Success\r\n"));
        assert!(b.tunnels().is_empty());
    });
}

/// Proves rfc5572-4.4.2-plain, rfc5572-4.7.2-prefix, rfc5572-2.3-mobility, rfc5572-b-codes, rfc3053-2.3-authenticate, rfc3053-2.4-prefix.
#[test]
fn plain_with_a_prefix() {
    run(async {
        let b = Bench::new();
        let mut t = Talk::new(peer(), false);
        say(&mut t, &b, b"VERSION=2.0.2\r\n").await;
        assert_eq!(say(&mut t, &b, b"AUTHENTICATE PLAIN\r\n").await.0, "");
        assert_eq!(say(&mut t, &b, b"\0\0joe\0secret\r\n").await.0, "200 Success\r\n");
        let with =
            CREATE.replace(" </client>", "  <router>\r\n   <prefix length=\"56\"/>\r\n  </router>\r\n </client>");
        let (reply, _) = say(&mut t, &b, &document(&with)).await;
        assert!(reply.contains("<router><prefix length=\"48\">2001:db8:7000::</prefix></router>"), "{reply}");
        let too_much = CREATE.replace(" </client>", "<router><prefix length=\"32\"/></router></client>");
        let (reply, _) = say(&mut t, &b, &document(&too_much)).await;
        assert!(reply.ends_with("507 Requested prefix length cannot be assigned\r\n"), "{reply}");
        let other = CREATE.replace("v6v4", "v9v9");
        assert!(say(&mut t, &b, &document(&other)).await.0.ends_with("303 Unsupported tunnel type\r\n"));
        // From elsewhere: the same tunnel moves.
        let mut t = Talk::new("198.51.100.4:1".parse().unwrap(), false);
        say(&mut t, &b, b"VERSION=2.0.2\r\nAUTHENTICATE PLAIN\r\n\0joe\0secret\r\n").await;
        let (reply, _) = say(&mut t, &b, &document(&with)).await;
        assert!(reply.contains("2001:db8:7000::") && reply.contains("198.51.100.4"), "{reply}");
        assert_eq!(b.web.service.store.tunnels_of("joe").unwrap().len(), 1);
    });
}

/// Proves rfc5572-4.4.1-unsupported, rfc5572-4.4.2-again, rfc5572-8-limits.
#[test]
fn refusals() {
    run(async {
        let b = Bench::with(|p| (p.anonymous, p.digest_md5) = (false, false));
        let mut t = Talk::new(peer(), false);
        assert_eq!(say(&mut t, &b, b"VERSION=1.0\r\n").await, ("302 Unsupported client version\r\n".into(), Next::End));
        let mut t = Talk::new(peer(), false);
        assert_eq!(say(&mut t, &b, b"VERSION=2.0.2\r\n").await.0, "CAPABILITY TUNNEL=V6V4 AUTH=PLAIN\r\n");
        for way in ["ANONYMOUS", "DIGEST-MD5", "PASSDSS-3DES-1"] {
            let (reply, _) = say(&mut t, &b, format!("AUTHENTICATE {way}\r\n").as_bytes()).await;
            assert_eq!(reply, "300 Authentication failed\r\n", "{way}");
        }
        // Three tries, then it is over.
        assert_eq!(say(&mut t, &b, b"AUTHENTICATE PLAIN\r\n\0joe\0secret\r\n").await.0, "");
        let mut t = Talk::new(peer(), false);
        say(&mut t, &b, b"VERSION=2.0.2\r\nAUTHENTICATE PLAIN\r\n").await;
        assert_eq!(say(&mut t, &b, b"\0joe\0wrong\r\n").await.0, "300 Authentication failed\r\n");
        let mut t = Talk::new(peer(), false);
        let (reply, next) = say(&mut t, &b, &[b'x'; 30_000]).await;
        assert!(reply.contains("500 Invalid") && next == Next::End);
        assert!(b.tunnels().is_empty());
    });
}

/// The client's side of a recording, in the pieces that the other side waits for.
fn pieces(name: &str) -> Vec<u8> {
    recording(&format!("tsp/{name}-client.bin"))
}

/// Proves rfc5572-4.4.1-tcp.
#[test]
fn recorded_over_tcp() {
    run(async {
        for name in ["tcp-anonymous-v6v4", "tcp-plain-router"] {
            let bytes = pieces(name);
            // However the network cuts it.
            for size in [1, 7, 100, 10_000] {
                let b = Bench::new();
                let mut t = Talk::new(peer(), false);
                let mut all = String::new();
                for piece in bytes.chunks(size) {
                    all += &say(&mut t, &b, piece).await.0;
                }
                let good = all.matches("200 Success\r\n").count();
                assert_eq!(good, 2, "{name} in pieces of {size}: {all}");
                assert!(all.contains("<tunnel action=\"info\" type=\"v6v4\""), "{all}");
                assert_eq!(b.tunnels().len(), 1);
            }
        }
    });
}

/// Datagrams of a recording: a length of two bytes in front of each.
fn datagrams(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (one, next) = after.split_at(usize::from(u16::from_be_bytes(*len)));
        out.push(one);
        rest = next;
    }
    out
}

/// Proves rfc5572-4.4.1-udp, rfc5572-4.4.1-repeat, rfc5572-2.2-any.
#[test]
fn recorded_over_udp() {
    run(async {
        for name in ["udp-anonymous-v6v4", "udp-anonymous-v6anyv4"] {
            let bytes = pieces(name);
            let b = Bench::new();
            let desk = Desk::new(b.web.clone());
            let mut last = Vec::new();
            let list = datagrams(&bytes);
            assert_eq!(list.len(), 4);
            for (i, d) in list.iter().enumerate() {
                let answer = desk.datagram(peer(), d).await;
                // A lost answer: the client repeats itself, and gets the same again.
                assert_eq!(desk.datagram(peer(), d).await.is_some(), i < 4);
                if let Some(answer) = answer {
                    assert_eq!(answer[..8], d[..8], "the client's own number and time come back");
                    last = answer;
                }
            }
            assert!(
                String::from_utf8_lossy(&last[8..]).contains("200 Success\r\n<tunnel action=\"info\" type=\"v6v4\"")
            );
            assert_eq!(b.tunnels().len(), 1);
        }
    });
}

/// What a real client asks for and accepts, behind a login of our own: its digest answers another challenge.
///
/// Proves rfc5572-4.5.2-v6udpv4.
#[test]
fn recorded_v6udpv4() {
    run(async {
        let bytes = pieces("udp-digest-v6udpv4");
        let list = datagrams(&bytes);
        let b = Bench::with(|p| p.udp_port = Some(3653));
        let desk = Desk::new(b.web.clone());
        let hello = [&list[0][..8], b"VERSION=2.0.2\r\n"].concat();
        assert!(desk.datagram(peer(), &hello).await.is_some());
        let login = [&list[1][..8], b"AUTHENTICATE PLAIN\r\n\0joe\0secret\r\n"].concat();
        assert!(desk.datagram(peer(), &login).await.is_some_and(|a| a.ends_with(b"200 Success\r\n")));
        let create = list.iter().find(|d| String::from_utf8_lossy(d).contains("action=\"create\"")).unwrap();
        let offer = desk.datagram(peer(), create).await.unwrap();
        let offer = String::from_utf8_lossy(&offer[8..]).into_owned();
        assert!(offer.contains("200 Success") && offer.contains("type=\"v6udpv4\""), "{offer}");
        assert!(offer.contains("<prefix length=\"48\">2001:db8:7000::</prefix>"), "{offer}");
        assert_eq!(desk.datagram(peer(), list.last().unwrap()).await, None, "it accepts");
        let t = b.web.service.store.tunnels_of("joe").unwrap();
        assert_eq!(t.iter().map(|t| t.port).collect::<Vec<_>>(), [Some(peer().port())]);
    });
}

/// Each client behind a NAT has its own tunnel, told apart by the port that the NAT gave it; it is found again, and an
/// account's tunnel goes where the account is.
///
/// Proves rfc5572-2.1-nat, rfc5572-4.5.2-v6udpv4, rfc3053-3-nat.
#[test]
fn in_udp_behind_a_nat() {
    run(async {
        let b = Bench::with(|p| p.udp_port = Some(3653));
        let wish = |kind: &str, own: &str| document(&CREATE.replace("v6v4", kind).replace("192.0.2.2", own));
        let ask = async |from: &str, login: &[u8], wish: Vec<u8>| {
            let mut t = Talk::new(from.parse().unwrap(), true);
            let (caps, _) = say(&mut t, &b, b"VERSION=2.0.2\r\n").await;
            assert!(caps.starts_with("CAPABILITY TUNNEL=V6V4 TUNNEL=V6UDPV4 "), "{caps}");
            say(&mut t, &b, login).await;
            say(&mut t, &b, &wish).await.0
        };
        let nobody = b"AUTHENTICATE ANONYMOUS\r\n";
        let one = ask("192.0.2.2:40001", nobody, wish("v6udpv4", "10.0.0.2")).await;
        assert!(one.contains("type=\"v6udpv4\"") && one.contains("2001:db8:7::2<"), "{one}");
        // A NAT is seen by the client's own address: then protocol 41 would not pass.
        let two = ask("192.0.2.2:40002", nobody, wish("v6anyv4", "10.0.0.3")).await;
        assert!(two.contains("type=\"v6udpv4\"") && two.contains("2001:db8:7:1::2<"), "{two}");
        let none = ask("198.51.100.7:40002", nobody, wish("v6anyv4", "198.51.100.7")).await;
        assert!(none.contains("type=\"v6v4\"") && none.contains("2001:db8:7:2::2<"), "{none}");
        assert_eq!(ask("192.0.2.2:40001", nobody, wish("v6udpv4", "10.0.0.2")).await, one);
        let joe = b"AUTHENTICATE PLAIN\r\n\0joe\0secret\r\n";
        let own = ask("192.0.2.2:40003", joe, wish("v6udpv4", "10.0.0.4")).await;
        assert!(own.contains("2001:db8:7:3::2<"), "{own}");
        let line = || match crate::control::Backend::call(
            &*b.router,
            crate::control::Op::TunnelShow(Some("tb10004".into())),
        ) {
            Ok(crate::control::Answer::Tunnels(list)) => list[0].tunnel.clone(),
            _ => panic!(),
        };
        let udp = line().options.udp.unwrap();
        assert_eq!((udp.dport, udp.listens(), udp.sport, udp.learn), (40_003, 3653, 3653, true));
        assert_eq!(line().options.allowed, ["2001:db8:7:3::/64".parse().unwrap()]);
        assert!(line().options.keepalive.is_some_and(|k| k.target.to_string() == "2001:db8:7:3::2"));
        // The NAT has forgotten: another port of the same address, then another address.
        let moved = ask("192.0.2.2:40009", joe, wish("v6udpv4", "10.0.0.4")).await;
        assert!(moved.contains("2001:db8:7:3::2<"), "{moved}");
        assert_eq!(line().options.udp.map(|u| u.dport), Some(40_009));
        ask("192.0.2.77:5000", joe, wish("v6udpv4", "10.0.0.4")).await;
        assert!(b.tunnels().contains(&("tb10004b".to_owned(), "192.0.2.77".to_owned())), "{:?}", b.tunnels());
        // Over TCP the client's port says nothing of its tunnel's.
        let mut t = Talk::new("203.0.113.9:6000".parse().unwrap(), false);
        say(&mut t, &b, b"VERSION=2.0.2\r\nAUTHENTICATE ANONYMOUS\r\n").await;
        let (reply, _) = say(&mut t, &b, &wish("v6udpv4", "10.0.0.2")).await;
        assert!(reply.contains("200 Success"), "{reply}");
        let list = b.web.service.store.tunnels_of(ANONYMOUS).unwrap();
        assert_eq!(list.iter().find(|t| t.endpoint == "203.0.113.9".parse().ok()).and_then(|t| t.port), None);
    });
}

/// Over UDP the proof is acknowledged by an empty message before success is said.
///
/// Proves rfc5572-4.4.2-digest.
#[test]
fn digest_over_udp() {
    run(async {
        let b = Bench::new();
        let mut t = Talk::new(peer(), true);
        say(&mut t, &b, b"VERSION=2.0.2\r\n").await;
        let (challenge, _) = say(&mut t, &b, b"AUTHENTICATE DIGEST-MD5\r\n\0").await;
        let text = String::from_utf8(data_encoding::BASE64.decode(challenge.trim().as_bytes()).unwrap()).unwrap();
        let nonce = text.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
        let md5 = |t: String| crate::broker::secret::md5_hex(t.as_bytes());
        let answer = |password: &str| {
            use md5::{Digest, Md5};
            let ha1 = Md5::digest(format!("joe:lab.example:{password}"));
            let a1 =
                data_encoding::HEXLOWER.encode(&Md5::digest([&ha1[..], format!(":{nonce}:17").as_bytes()].concat()));
            let a2 = md5("AUTHENTICATE:tsp/192.0.2.1".into());
            let response = md5(format!("{a1}:{nonce}:00000001:17:auth:{a2}"));
            let line = format!(
                "username=\"joe\",realm=\"lab.example\",nonce=\"{nonce}\",nc=00000001,cnonce=\"17\",digest-uri=\"tsp/192.0.2.1\",response={response},qop=auth"
            );
            data_encoding::BASE64.encode(line.as_bytes()) + "\r\n"
        };
        let (proof, _) = say(&mut t, &b, answer("secret").as_bytes()).await;
        assert!(proof.starts_with("cnNwYXV0aD") && !proof.contains("200"), "{proof}");
        assert_eq!(say(&mut t, &b, b"").await.0, "200 Success\r\n");
        assert!(say(&mut t, &b, &document(CREATE)).await.0.contains("200 Success"));
        assert_eq!(b.web.service.store.tunnels_of("joe").unwrap().len(), 1);
    });
}

/// What is lost is counted by its cause, and the rest is answered.
#[test]
fn a_flood_is_counted() {
    run(async {
        let b = Bench::new();
        let stats = &b.web.service.stats;
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        tokio::spawn(super::serve_udp(socket, std::sync::Arc::new(Desk::new(b.web.clone()))));
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for n in 0u8..100 {
            client.send_to(&[0xf0, 0, 0, n, 0, 0, 0, 0, b'x'], to).await.unwrap();
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while stats.tsp_rate.get() + stats.tsp_datagrams.get() + stats.tsp_busy.get() < 100 {
            assert!(std::time::Instant::now() < deadline, "{:?}", stats.shown());
            tokio::task::yield_now().await;
        }
        let shown = stats.shown();
        assert!(shown.tsp_rate >= 60 && shown.tsp_datagrams >= 24, "{shown:?}");
        let (queue, mut waiting) = tokio::sync::mpsc::channel(2);
        for n in 0..5 {
            super::enqueue(&queue, n, &stats.tsp_queue_full);
        }
        assert_eq!((stats.tsp_queue_full.get(), waiting.try_recv()), (3, Ok(0)));
    });
}

/// IPv4 inside, over IPv6: a network of its own from its own pool, no prefixes, and a name of its own.
///
/// Proves rfc5572-4.5.3-v4v6.
#[test]
fn ipv4_inside() {
    run(async {
        let b = Bench::with(|p| {
            p.endpoint6 = "2001:db8::1".parse().ok();
            p.links4 = "10.64.0.0/16".parse().ok();
        });
        let wish = "<tunnel action=\"create\" type=\"v4v6\" proxy=\"no\"><client><address type=\"ipv6\">2001:db8:99::2</address>\
            <keepalive interval=\"30\"><address type=\"ipv4\">0.0.0.0</address></keepalive></client></tunnel>\r\n";
        let ask = async |from: &str, wish: &str| {
            let mut t = Talk::new(from.parse().unwrap(), false);
            say(&mut t, &b, b"VERSION=2.0.2\r\nAUTHENTICATE PLAIN\r\n\0joe\0secret\r\n").await;
            say(&mut t, &b, &document(wish)).await.0
        };
        let four = ask("[2001:db8:99::2]:4000", wish).await;
        let want = "<server><address type=\"ipv6\">2001:db8::1</address><address type=\"ipv4\">10.64.0.1</address></server>\
            <client><address type=\"ipv6\">2001:db8:99::2</address><address type=\"ipv4\">10.64.0.2</address>";
        assert!(four.contains("type=\"v4v6\"") && four.contains(want), "{four}");
        assert_eq!(b.allowed("tb10001"), ["10.64.0.0/30"]);
        assert_eq!(b.route("10.64.0.0/30").as_deref(), Some("tb10001"));
        // The account's other tunnel is another one; the same again is the same.
        assert!(ask("192.0.2.2:4000", CREATE).await.contains("2001:db8:7::2<"));
        assert_eq!(ask("[2001:db8:99::2]:4001", wish).await, four);
        assert_eq!(b.web.service.store.tunnels_of("joe").unwrap().len(), 2);
        let more = wish.replace("</client>", "<router><prefix length=\"48\"/></router></client>");
        assert!(ask("[2001:db8:99::2]:4002", &more).await.contains("507"));
        // Somebody else's address is none of theirs.
        let foreign = wish.replace("2001:db8:99::2", "2001:db8:99::3");
        assert!(ask("[2001:db8:99::2]:4003", &foreign).await.contains("501"));
    });
}

/// Who does not come back loses its tunnel, and what it was given.
///
/// Proves rfc3053-2.5-lifetime, rfc5572-4.7.1-lifetime.
#[test]
fn a_lease_ends() {
    run(async {
        let b = Bench::with(|p| p.anonymous_lease = std::time::Duration::from_secs(1));
        let mut t = Talk::new(peer(), false);
        say(&mut t, &b, b"VERSION=2.0.2\r\nAUTHENTICATE ANONYMOUS\r\n").await;
        let (reply, _) = say(&mut t, &b, &document(CREATE)).await;
        assert!(reply.contains("lifetime=\"1\""), "{reply}");
        assert_eq!(b.tunnels().len(), 1);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !b.tunnels().is_empty() {
            assert!(std::time::Instant::now() < deadline);
            b.web.service.tidy(true);
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        assert!(b.web.service.store.tunnels_of(ANONYMOUS).unwrap().is_empty());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6), udp in any::<bool>(), greet in any::<bool>()) {
        run(async {
            let b = bench();
            let mut t = Talk::new(peer(), udp);
            if greet {
                t.feed(b"VERSION=2.0.2\r\nAUTHENTICATE ANONYMOUS\r\n", &b.web).await;
            }
            for p in &pieces {
                if t.feed(p, &b.web).await.1 == Next::End { break }
            }
        });
    }
}

/// One for all cases: making one takes hashes.
fn bench() -> &'static Bench {
    static BENCH: std::sync::OnceLock<Bench> = std::sync::OnceLock::new();
    BENCH.get_or_init(Bench::new)
}
