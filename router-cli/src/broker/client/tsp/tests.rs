//! The client with our own server, with what others' servers said on the wire, and with servers that want nothing good.

use super::document::{Told, Wish};
use super::line::{Line, Tcp, Udp};
use super::talk::{Caller, Login, Outcome, Talk, TalkError};
use super::*;
use crate::broker::testing::{Bench, recording};
use crate::broker::tsp::session;
use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;

fn caller<'a>(user: &'a str, key: &'a str) -> Caller<'a> {
    Caller { user, key, login: None, host: "192.0.2.1", private: false, cnonce: "17".into() }
}

fn wish(kind: &'static str, prefix: Option<u8>) -> Wish {
    Wish { kind, own: "192.0.2.2".parse().unwrap(), prefix, keepalive: 10 }
}

/// Our own server, in the same process.
struct Ours<'b> {
    bench: &'b Bench,
    runtime: Runtime,
    talk: session::Talk,
    said: Vec<u8>,
    udp: bool,
}

impl<'b> Ours<'b> {
    fn new(bench: &'b Bench, peer: &str, udp: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Ours { bench, runtime, talk: session::Talk::new(peer.parse().unwrap(), udp), said: Vec::new(), udp }
    }
}

impl Line for Ours<'_> {
    fn say(&mut self, message: &[u8]) -> io::Result<()> {
        let (said, _) = self.runtime.block_on(self.talk.feed(message, &self.bench.web));
        if self.udp {
            self.said = said;
        } else {
            self.said.extend(said);
        }
        Ok(())
    }

    fn tell(&mut self, message: &[u8]) -> io::Result<()> {
        self.say(message)
    }

    fn hear(&mut self) -> io::Result<Vec<u8>> {
        match std::mem::take(&mut self.said) {
            said if said.is_empty() => Err(io::ErrorKind::TimedOut.into()),
            said => Ok(said),
        }
    }

    fn datagrams(&self) -> bool {
        self.udp
    }
}

fn offer(outcome: Result<Outcome, TalkError>) -> (Told, Login) {
    match outcome {
        Ok(Outcome::Offer(told, login)) => (*told, login),
        other => panic!("{other:?}"),
    }
}

/// Proves rfc5572-4.4.2-client.
#[test]
fn with_our_own_server() {
    let b = Bench::with(|p| p.udp_port = Some(3653));
    for (udp, kind, gets) in [(false, "v6anyv4", "v6v4"), (true, "v6udpv4", "v6udpv4"), (true, "v6v4", "v6v4")] {
        let mut line = Ours::new(&b, "192.0.2.2:40000", udp);
        let mut talk = Talk::new(&mut line);
        let (told, login) = offer(talk.create(&caller("joe", "secret"), &wish(kind, Some(56))));
        assert_eq!((login, told.kind.as_str()), (Login::DigestMd5, gets));
        assert_eq!(told.prefix, "2001:db8:7000::/48".parse().ok());
        talk.conclude(true).unwrap();
        // However its packets travel: one tunnel, with the prefix that it had.
        let held = b.web.service.store.tunnels_of("joe").unwrap();
        let prefixes: Vec<_> = held.iter().map(|t| t.prefixes[0].to_string()).collect();
        assert_eq!(prefixes, ["2001:db8:7000::/48"], "{kind}");
    }
    // It goes when it is not wanted any more, and an offer that is refused goes at once.
    let mut line = Ours::new(&b, "192.0.2.2:40000", false);
    assert_eq!(Talk::new(&mut line).delete(&caller("joe", "secret"), "v6v4").unwrap(), Outcome::Gone);
    assert!(b.tunnels().is_empty());
    let mut line = Ours::new(&b, "192.0.2.2:40000", false);
    let mut talk = Talk::new(&mut line);
    let (told, login) = offer(talk.create(&caller("", ""), &wish("v6anyv4", None)));
    assert_eq!((login, told.prefix, told.keepalive), (Login::Anonymous, None, Some(30)));
    assert_eq!(b.tunnels().len(), 1);
    talk.conclude(false).unwrap();
    assert!(b.tunnels().is_empty());
}

#[test]
fn what_our_server_refuses() {
    let b = Bench::with(|p| p.anonymous = false);
    let ask = |who: &Caller<'_>, w: &Wish| {
        let mut line = Ours::new(&b, "192.0.2.2:40000", false);
        Talk::new(&mut line).create(who, w).unwrap_err().to_string()
    };
    for (who, kind, prefix, why) in [
        (caller("joe", "wrong"), "v6v4", None, "it refuses: 300 Authentication failed"),
        (caller("", ""), "v6v4", None, "it gives tunnels to accounts only"),
        (caller("joe", "secret"), "v6udpv4", None, "it has no tunnels of kind v6udpv4"),
        (caller("joe", "secret"), "v6v4", Some(50), ""),
        (
            Caller { login: Some(Login::Anonymous), ..caller("joe", "secret") },
            "v6v4",
            None,
            "it does not offer ANONYMOUS",
        ),
    ] {
        if why.is_empty() {
            continue;
        }
        let said = ask(&who, &wish(kind, prefix));
        assert!(said.contains(why), "{said}");
    }
    // The password goes in the clear by explicit word only, or where nobody else hears it.
    let b = Bench::with(|p| p.digest_md5 = false);
    let said = {
        let mut line = Ours::new(&b, "192.0.2.2:40000", false);
        Talk::new(&mut line).create(&caller("joe", "secret"), &wish("v6v4", None)).unwrap_err().to_string()
    };
    assert!(said.contains("say \"auth plain\""), "{said}");
    for who in [
        Caller { login: Some(Login::Plain), ..caller("joe", "secret") },
        Caller { private: true, ..caller("joe", "secret") },
    ] {
        for udp in [false, true] {
            let mut line = Ours::new(&b, "192.0.2.2:40000", udp);
            assert_eq!(offer(Talk::new(&mut line).create(&who, &wish("v6v4", None))).1, Login::Plain);
        }
    }
}

/// What a server said once, again.
struct Again {
    pieces: std::collections::VecDeque<Vec<u8>>,
    heard: Vec<Vec<u8>>,
    udp: bool,
}

impl Line for Again {
    fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.heard.push(message.to_vec());
        Ok(())
    }

    fn tell(&mut self, message: &[u8]) -> io::Result<()> {
        self.say(message)
    }

    fn hear(&mut self) -> io::Result<Vec<u8>> {
        self.pieces.pop_front().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn datagrams(&self) -> bool {
        self.udp
    }
}

/// A stream in pieces of this size; datagrams without their header.
fn again(name: &str, size: usize) -> Again {
    let bytes = recording(&format!("tsp/{name}-server.bin"));
    let udp = name.starts_with("udp");
    let mut pieces = std::collections::VecDeque::new();
    if udp {
        let mut rest = &bytes[..];
        while let Some((len, after)) = rest.split_first_chunk::<2>() {
            let (one, next) = after.split_at(usize::from(u16::from_be_bytes(*len)));
            pieces.push_back(one[8..].to_vec());
            rest = next;
        }
    } else {
        pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
    }
    Again { pieces, heard: Vec::new(), udp }
}

/// Servers that others wrote, byte for byte, over TCP however it is cut, and over UDP.
#[test]
fn recorded_servers() {
    for (name, cnonce, login, kind, prefix) in [
        ("tcp-anonymous-v6v4", "", Login::Anonymous, "v6v4", None),
        ("tcp-plain-router", "", Login::Plain, "v6v4", Some("2001:db8:7100::/56")),
        ("tcp-digest-v6anyv4", "1795321184", Login::DigestMd5, "v6v4", None),
        ("udp-anonymous-v6v4", "", Login::Anonymous, "v6v4", None),
        ("udp-anonymous-v6anyv4", "", Login::Anonymous, "v6v4", None),
        ("udp-digest-v6udpv4", "1795321172", Login::DigestMd5, "v6udpv4", Some("2001:db8:7100::/56")),
    ] {
        for size in [1, 13, 4096] {
            let mut line = again(name, size.max(if name.contains("digest") { 16 } else { 8 }));
            let user = if login == Login::Anonymous { "" } else { "joe" };
            let only = (login == Login::Plain).then_some(login);
            let who = Caller { login: only, cnonce: cnonce.into(), ..caller(user, "secret") };
            let mut talk = Talk::new(&mut line);
            let (told, used) = offer(talk.create(&who, &wish(kind, prefix.map(|_| 56))));
            talk.conclude(true).unwrap();
            assert_eq!((used, told.kind.as_str()), (login, kind), "{name}");
            let measure = Measure {
                kind: "v6anyv4",
                peer: "192.0.2.1:3653".parse().unwrap(),
                own: "192.0.2.2".parse().unwrap(),
                server: None,
                prefix: prefix.map(|_| 56),
                taken: &[],
                names: ("up", user),
            };
            let lease = judge(&told, &measure).unwrap();
            assert_eq!(
                lease.prefixes,
                prefix.map(|p| p.parse().unwrap()).into_iter().collect::<Vec<IpNet>>(),
                "{name}"
            );
            assert_eq!(lease.client_inner.to_string(), "2001:db8:7::2/64", "{name}");
        }
    }
    // One who does not know the password, and only repeats what a server said once.
    let mut line = again("tcp-digest-v6anyv4", 4096);
    let said = Talk::new(&mut line).create(&caller("joe", "secret"), &wish("v6anyv4", None));
    assert!(matches!(said, Err(TalkError::Proof)), "{said:?}");
}

const CAPS: &str = "CAPABILITY TUNNEL=V6V4 AUTH=ANONYMOUS AUTH=PLAIN AUTH=DIGEST-MD5\r\n";

fn hostile(pieces: &[&[u8]], user: &str) -> String {
    let mut line = Again { pieces: pieces.iter().map(|p| p.to_vec()).collect(), heard: Vec::new(), udp: false };
    let said = Talk::new(&mut line).create(&caller(user, "secret"), &wish("v6v4", None)).unwrap_err().to_string();
    // Whatever came of it: the password was never said.
    assert!(line.heard.iter().all(|m| !m.windows(6).any(|w| w == b"secret")), "{said}");
    said
}

/// Answers that are huge, cut, of another protocol, or of no sense.
#[test]
fn hostile_servers() {
    let caps = CAPS.as_bytes();
    let good = b"200 Success\r\n";
    let endless = vec![b'x'; 64 << 10];
    let zeros = vec![0; 64 << 10];
    let offer = |xml: &str| format!("Content-length: {}\r\n200 Success\r\n{xml}", xml.len() + 13).into_bytes();
    for (pieces, user, why) in [
        (vec![], "", "it ended the conversation in the middle"),
        (vec![&b"SSH-2.0-OpenSSH\r\n"[..]], "", "it said \"SSH-2.0-OpenSSH\" where its list of capabilities was due"),
        (vec![b"302 Unsupported client version\r\n"], "", "it refuses: 302 Unsupported client version"),
        (vec![b"\x1b[2J\x07 evil\r\n"], "", "it said \" [2J  evil\" where"),
        (vec![&endless], "", "document too long"),
        (vec![&endless[..2000]], "", "line too long"),
        (vec![&zeros], "", "document too long"),
        (vec![caps, &endless[..1200]], "", "line too long"),
        (vec![caps, good, b"Content-length: 99999999\r\n"], "", "document too long"),
        (vec![caps, good, b"Content-length: 5\r\n\xff\xfe\xff\xfe\xff"], "", "not UTF-8"),
        (
            vec![caps, good, b"Content-length: 100\r\n200 Success\r\n<tunnel"],
            "",
            "it ended the conversation in the middle",
        ),
        (vec![caps, good, b"HTTP/1.1 200 OK\r\n\r\n"], "", "not of this protocol"),
        (vec![caps, good, &offer("<html></html>")], "", "not understood: no <tunnel> element"),
        (vec![caps, good, &offer("<tunnel><!DOCTYPE x>")], "", "malformed XML"),
        (
            vec![caps, good, b"Content-length: 13\r\nwelcome here\n"],
            "",
            "it said \"welcome here\" where a status was due",
        ),
        (vec![caps, b"300 Authentication failed\r\n"], "joe", "it refuses: 300 Authentication failed"),
        (vec![caps, b"welcome\r\n"], "joe", "where a DIGEST-MD5 challenge was due"),
        (
            vec![caps, b"cmVhbG09ImEiLG5vbmNlPSJ4IixhbGdvcml0aG09bWQ1LXNlc3M=\r\n", b"cnNwYXV0aD0x\r\n", good],
            "joe",
            "cannot prove",
        ),
        // It leaves all logins out but those that would tell it the password, or give somebody else's tunnel.
        (vec![b"CAPABILITY TUNNEL=V6V4 AUTH=PLAIN\r\n", good], "joe", "in the clear only"),
        (vec![b"CAPABILITY TUNNEL=V6V4 AUTH=ANONYMOUS\r\n", good], "joe", "it offers no login for the account \"joe\""),
        (vec![b"CAPABILITY AUTH=ANONYMOUS\r\n"], "", "it has no tunnels of kind v6v4"),
    ] {
        let said = hostile(&pieces, user);
        assert!(said.contains(why), "{why}: {said}");
    }
    // One byte at a time, for ever.
    let drip: Vec<&[u8]> = std::iter::repeat_n(&b"x"[..], 3000).collect();
    assert!(hostile(&drip, "").contains("too long"));
}

/// However slowly somebody speaks, the conversation ends.
#[test]
fn tcp_is_bounded_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        while s.write_all(b"\0").is_ok() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let (mut line, own) = Tcp::open(to, None, Duration::from_millis(100)).unwrap();
    assert_eq!(own.to_string(), "127.0.0.1");
    let said = Talk::new(&mut line).create(&caller("", ""), &wish("v6v4", None)).unwrap_err().to_string();
    assert!(said.contains("no answer") || said.contains("too long"), "{said}");
    drop(line);
    server.join().unwrap();
    // From the address that the operator said.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_line, own) = Tcp::open(listener.local_addr().unwrap(), "127.0.0.9".parse().ok(), MOST).unwrap();
    assert_eq!(
        (own.to_string().as_str(), listener.accept().unwrap().1.ip().to_string().as_str()),
        ("127.0.0.9", "127.0.0.9")
    );
}

/// Over UDP a message is repeated as it was until its own answer comes.
///
/// Proves rfc5572-4.4.1-client-udp.
#[test]
fn udp_repeats_and_takes_its_own_answer_only() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let to = server.local_addr().unwrap();
    let work = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        let (n, from) = server.recv_from(&mut buffer).unwrap();
        let first = buffer[..n].to_vec();
        // Lost; then the answer to another message, one that is no message, and the right one.
        let (n, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..n], first, "the same again");
        assert_eq!((first[0] >> 4, &first[8..]), (0xf, &b"hello"[..]));
        let mut other = first[..8].to_vec();
        other[3] ^= 1;
        server.send_to(&[&other[..], b"wrong"].concat(), from).unwrap();
        server.send_to(b"\x60", from).unwrap();
        server.send_to(&[&first[..8], b"right"].concat(), from).unwrap();
        server.send_to(&[&first[..8], b"right"].concat(), from).unwrap();
        let (n, _) = server.recv_from(&mut buffer).unwrap();
        assert_ne!(buffer[..4], first[..4], "another number");
        server.send_to(&[&buffer[..8], b"next"].concat(), from).unwrap();
        n
    });
    let (mut line, own) = Udp::open(to, None, None).unwrap();
    assert_eq!(own.ip().to_string(), "127.0.0.1");
    line.say(b"hello").unwrap();
    assert_eq!(line.hear().unwrap(), b"right");
    assert_eq!(line.hear().unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "one datagram is all");
    line.say(b"and").unwrap();
    assert_eq!(line.hear().unwrap(), b"next");
    assert_eq!(work.join().unwrap(), 11);
}

fn spec(url: &str) -> JoinSpec {
    JoinSpec { name: "up".into(), url: url.into(), ..JoinSpec::default() }
}

/// Redirections are followed, not in circles, not for ever, and not with a password in the clear.
///
/// Proves rfc5572-4.7.4-client.
#[test]
fn redirections() {
    let (spec, here) = (spec("tsp://192.0.2.1"), Here { bare: true, ..Here::default() });
    let ask = Ask { spec: &spec, here: &here, kind: "v6v4" };
    let run = |next: &dyn Fn(usize) -> Step<usize>| {
        let mut asked = Vec::new();
        let result = follow(&TspUrl::parse("tsp://192.0.2.1").unwrap(), &ask, &mut |_, to| {
            asked.push(to.to_string());
            Ok(next(asked.len()))
        });
        (result.map_err(|e| e.to_string()), asked)
    };
    let to = |list: &[&str], login| Step::Elsewhere(list.iter().map(|t| (*t).to_owned()).collect(), login);
    let (result, asked) =
        run(&|n| if n == 1 { to(&["192.0.2.1", "192.0.2.2"], Login::DigestMd5) } else { Step::Done(7) });
    assert_eq!((result, asked), (Ok(7), vec!["192.0.2.1:3653".to_owned(), "192.0.2.2:3653".to_owned()]));
    let (result, asked) = run(&|n| to(&[["192.0.2.2", "192.0.2.1"][(n + 1) % 2]], Login::Anonymous));
    assert_eq!(
        (result, asked.len()),
        (Err("192.0.2.2:3653 sends us to 192.0.2.1, which has been asked already".into()), 2)
    );
    let (result, asked) = run(&|n| to(&[&format!("192.0.2.{}", n + 1)], Login::Anonymous));
    assert!(result.clone().unwrap_err().contains("sent from one broker to the next 4 times"), "{result:?}");
    assert_eq!(asked.len(), HOPS);
    let (result, asked) = run(&|_| to(&["192.0.2.2"], Login::Plain));
    assert!(result.unwrap_err().contains("the password would go there in the clear"));
    assert_eq!(asked.len(), 1);
    let (result, _) = run(&|_| to(&[], Login::Anonymous));
    assert!(result.unwrap_err().contains("nobody"));
    // By a document, and by a bare list in place of the login's answer.
    let list = "<tunnel action=\"list\" type=\"broker\"><broker><address type=\"ipv4\">192.0.2.7</address></broker></tunnel>\r\n";
    let document = format!("Content-length: {}\r\n1200 Redirection\r\n{list}", list.len() + 18);
    for pieces in [
        vec![CAPS.to_owned(), "200 Success\r\n".into(), document],
        vec![CAPS.to_owned(), format!("1200 Redirection\r\n{list}")],
    ] {
        let pieces = pieces.into_iter().map(String::into_bytes).collect();
        let mut line = Again { pieces, heard: Vec::new(), udp: false };
        let said = Talk::new(&mut line).create(&caller("", ""), &wish("v6v4", None)).unwrap();
        assert_eq!(said, Outcome::Elsewhere(vec!["192.0.2.7".into()], Login::Anonymous));
    }
}

/// What is asked for is what this router can carry.
#[test]
fn kinds() {
    let door = Door { name: "out".into(), number: 3653, local: None };
    for (mode, bare, door, want) in [
        (None, true, None, Ok("v6v4")),
        (None, true, Some(&door), Ok("v6anyv4")),
        (None, false, Some(&door), Ok("v6udpv4")),
        (None, false, None, Err("no port of this router could carry")),
        (Some("6inudp4"), true, None, Err("no udp port")),
        (Some("6inudp4"), true, Some(&door), Ok("v6udpv4")),
        (Some("6in4"), true, Some(&door), Ok("v6v4")),
        (Some("6in4"), false, Some(&door), Err("carries 6in4")),
        (Some("4in6"), true, None, Ok("v4v6")),
    ] {
        let spec = JoinSpec { mode: mode.map(str::to_owned), ..spec("tsp://192.0.2.1") };
        let here = Here { door: door.cloned(), bare, ..Here::default() };
        match (kind(&spec, &here), want) {
            (Ok(kind), Ok(want)) => assert_eq!(kind, want),
            (Err(e), Err(want)) => assert!(e.to_string().contains(want), "{e}"),
            (got, want) => panic!("{mode:?} {bare}: {got:?}, {want:?}"),
        }
    }
}
