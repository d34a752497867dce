//! Lab: interactive TCP sessions that last. Two sessions of our own, one per family, and one of ssh (dropbear, where it is
//! installed), go through one router while the neighbours that they need go stale and are forgotten, their route moves to
//! another next hop over a narrower link and back, links fail and return, the configuration is read again, and bulk flows
//! within. Every byte of both directions is compared; no session ends before it is told to.

use router_io::lab::{Host, Process};
use router_io::sandbox_test;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::routes::Random;
use testbeds::lab::tools::run;
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
/// For whatever timers of RFC 4861 or TCP drive. Only what is broken reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a transfer within a session.
const BULK: usize = 3_000_000;
/// Key strokes between two events.
const STROKES: usize = 120;

/// What the far side says to one byte: that byte in its own way, and now and then a line, as a terminal would scroll.
fn echo(byte: u8, out: &mut Vec<u8>) {
    out.push(byte ^ 0x5a);
    if byte % 16 == 3 {
        out.extend((0..80).map(|i| byte.wrapping_mul(31).wrapping_add(i)));
    }
}

/// A session as its user has it: what is typed, and what must be seen for it.
struct Session {
    name: &'static str,
    input: Box<dyn Write + Send>,
    output: Box<dyn Read + Send>,
    answer: fn(u8, &mut Vec<u8>),
    random: Random,
    bytes: usize,
}

impl Session {
    /// Types as people do: one to three bytes at once, then looks at what comes back.
    fn type_keys(&mut self, strokes: usize) {
        for _ in 0..strokes {
            let n = self.random.number();
            let keys = &n.to_le_bytes()[..1 + (n >> 40) as usize % 3];
            let mut expected = Vec::new();
            keys.iter().for_each(|k| (self.answer)(*k, &mut expected));
            self.input.write_all(keys).unwrap_or_else(|e| panic!("{}: typing: {e}", self.name));
            self.input.flush().unwrap_or_else(|e| panic!("{}: typing: {e}", self.name));
            let mut got = vec![0; expected.len()];
            self.output
                .read_exact(&mut got)
                .unwrap_or_else(|e| panic!("{}: after {} bytes: {e}", self.name, self.bytes));
            assert_eq!(got, expected, "{}: after {} bytes", self.name, self.bytes);
            self.bytes += keys.len() + got.len();
        }
    }

    /// As much as goes through, both ways at once.
    fn bulk(&mut self, len: usize) {
        let bytes: Vec<u8> = (0..len / 8).flat_map(|_| self.random.number().to_le_bytes()).collect();
        let mut expected = Vec::new();
        bytes.iter().for_each(|b| (self.answer)(*b, &mut expected));
        let (name, input, output) = (self.name, &mut self.input, &mut self.output);
        let mut got = vec![0; expected.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                input.write_all(&bytes).unwrap_or_else(|e| panic!("{name}: bulk: {e}"));
                input.flush().unwrap_or_else(|e| panic!("{name}: bulk: {e}"));
            });
            output.read_exact(&mut got).unwrap_or_else(|e| panic!("{name}: bulk: {e}"));
        });
        let wrong = got.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{name}: a byte of the transfer differs");
        self.bytes += bytes.len() + got.len();
    }
}

/// A session of our own over TCP, and the thread that answers on the far side: it ends with the number of bytes it heard.
fn own(name: &'static str, a: &Host, b: &Arc<Host>, at: IpAddr) -> (Session, TcpStream, JoinHandle<io::Result<usize>>) {
    let listener = b.run(|| TcpListener::bind(SocketAddr::new(at, 7))).expect("a listener");
    let far = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let (mut heard, mut bytes) = (0, [0; 16_384]);
        loop {
            let n = stream.read(&mut bytes)?;
            if n == 0 {
                return Ok(heard);
            }
            heard += n;
            let mut answer = Vec::new();
            bytes[..n].iter().for_each(|b| echo(*b, &mut answer));
            stream.write_all(&answer)?;
        }
    });
    let stream = a.run(|| TcpStream::connect_timeout(&SocketAddr::new(at, 7), PATIENCE)).expect("a session");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let clone = || stream.try_clone().expect("a stream");
    let (input, output): (Box<dyn Write + Send>, Box<dyn Read + Send>) = (Box::new(clone()), Box::new(clone()));
    (Session { name, input, output, answer: echo, random: Random::new(7), bytes: 0 }, stream, far)
}

/// A session of ssh to `cat`, server and client as Debian has them.
struct Ssh {
    server: Process,
    client: Process,
}

/// Starts both; None where they are not installed, or the server may not become its user.
fn ssh(bed: &Bed, at: &str) -> Option<(Session, Ssh)> {
    let (a, b) = (bed.host("a"), bed.host("b"));
    let file = |name: &str| bed.dir().join(name).display().to_string();
    let (host_key, user_key) = (file("host.key"), file("user.key"));
    run(b, "dropbearkey", &["-t", "ed25519", "-f", &host_key])?;
    let (_, text) = run(a, "dropbearkey", &["-t", "ed25519", "-f", &user_key])?;
    let public = text.lines().find(|l| l.starts_with("ssh-ed25519")).expect("a public key");
    std::fs::write(file("authorized_keys"), format!("{public}\n")).expect("a file");
    // The server looks for keys in the user's home: it gets one of its own, that nobody else sees.
    let script = format!(
        "home=$(getent passwd 0 | cut -d: -f6) && mount -t tmpfs -o mode=755 duet-home \"$home\" && mkdir -m 700 \"$home/.ssh\" && \
         cp {} \"$home/.ssh/authorized_keys\" && chmod 600 \"$home/.ssh/authorized_keys\" && \
         exec dropbear -F -E -s -r {host_key} -P {} -p '{}'",
        file("authorized_keys"),
        file("dropbear.pid"),
        if at.contains(':') { format!("[{at}]:22") } else { format!("{at}:22") },
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
    let log = std::fs::File::create(file("dropbear.log")).expect("a file");
    let server = b.spawn(command_with_log(command, log)).ok()?;
    let deadline = Instant::now() + PATIENCE;
    let addr = SocketAddr::new(ip(at), 22);
    while a.run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(1))).is_err() {
        assert!(Instant::now() < deadline, "dropbear: {}", read(Path::new(&file("dropbear.log"))));
    }
    let mut command = Command::new("dbclient");
    command.args(["-y", "-y", "-T", "-i", &user_key, &format!("root@{at}"), "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let log = std::fs::File::create(file("dbclient.log")).expect("a file");
    let mut client = a.spawn(command_with_log(command, log)).ok()?;
    let (mut input, mut output): (ChildStdin, ChildStdout) = (client.stdin()?, client.stdout()?);
    let mut back = [0; 6];
    let hello = input.write_all(b"hello\n").and_then(|()| input.flush()).and_then(|()| output.read_exact(&mut back));
    if let Err(e) = hello {
        let logs = format!("{}{}", read(Path::new(&file("dropbear.log"))), read(Path::new(&file("dbclient.log"))));
        // Without real root nobody may change groups; then there is no login.
        assert!(router_io::lab::sandbox::in_user_namespace(), "no ssh session: {e}\n{logs}");
        eprintln!("SKIPPED: ssh session: needs root: {logs}");
        return None;
    }
    assert_eq!(&back, b"hello\n");
    let (input, output): (Box<dyn Write + Send>, Box<dyn Read + Send>) = (Box::new(input), Box::new(output));
    let answer = |b, out: &mut Vec<u8>| out.push(b);
    Some((Session { name: "ssh", input, output, answer, random: Random::new(9), bytes: 0 }, Ssh { server, client }))
}

fn command_with_log(mut command: Command, log: std::fs::File) -> Command {
    command.stderr(Stdio::from(log));
    command
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// a - r = (s1 | s2) = b. The way by s2 is narrower, and its IPv4 next hop is an IPv6 one. What b answers goes straight to r.
fn config() -> RouterConfig {
    RouterConfig::new("r")
        .port("left", &["192.0.2.2/25", "2001:db8:a::2/64"])
        .port("up", &["10.0.1.1/24", "2001:db8:1::1/64"])
        .port("down", &["2001:db8:2::1/64"])
        .port("back", &["2001:db8:5::1/64"])
        .route("192.0.2.129/32 via 10.0.1.2")
        .route("2001:db8:b::1/128 via 2001:db8:1::2")
        .route("192.0.2.129/32 via inet6 2001:db8:2::2 metric 2000")
        .route("2001:db8:b::1/128 via 2001:db8:2::2 metric 2000")
        .extra(
            "[neighbor]\nreachable_time = \"200ms\"\nretrans_timer = \"200ms\"\ndelay_first_probe = \"100ms\"\n\
             stale_lifetime = \"1s\"\nfailed_hold = \"200ms\"\n",
        )
}

fn bed() -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a", "r", "s1", "s2", "b"])?;
    bed.net.link(("a", "eth0"), ("r", "left"))?;
    bed.net.link(("r", "up"), ("s1", "left"))?;
    bed.net.link_mtu(("r", "down"), ("s2", "left"), 1400)?;
    bed.net.link(("s1", "right"), ("b", "eth0"))?;
    bed.net.link(("s2", "right"), ("b", "eth1"))?;
    bed.net.link(("r", "back"), ("b", "eth2"))?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.net.addrs(&[
        ("b", "eth0", "192.0.2.129/32"),
        ("b", "eth0", "2001:db8:b::1/128"),
        ("b", "eth0", "2001:db8:3::2/64"),
        ("b", "eth1", "2001:db8:4::2/64"),
        ("b", "eth2", "2001:db8:5::2/64"),
    ])?;
    bed.net.route("b", "192.0.2.0/25 via inet6 2001:db8:5::1")?;
    bed.net.route("b", "2001:db8:a::/64 via 2001:db8:5::1")?;
    for (host, left, right, via) in [
        ("s1", &["10.0.1.2/24", "2001:db8:1::2/64"][..], "2001:db8:3::1/64", "2001:db8:3::2"),
        ("s2", &["2001:db8:2::2/64"][..], "2001:db8:4::1/64", "2001:db8:4::2"),
    ] {
        let s = RouterConfig::new(host).port("left", left).port("right", &[right]);
        let s = s.route(&format!("192.0.2.129/32 via inet6 {via}")).route(&format!("2001:db8:b::1/128 via {via}"));
        bed.router(Dut::Kernel, &s)?;
    }
    bed.router(Dut::Duet, &config())?;
    Ok(bed)
}

/// Frames that a host's device has received.
fn received(host: &Host, dev: &str) -> u64 {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("counters");
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix(dev)?.strip_prefix(':')).expect("the device");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// Waits until the router says something, or no longer does.
fn wait_for(bed: &Bed, words: &str, test: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = bed.duet("r").duet(words).expect("an answer");
        if test(&text) {
            return;
        }
        assert!(Instant::now() < deadline, "{words}:\n{text}");
        std::thread::yield_now();
    }
}

/// All sessions type at once.
fn type_all(sessions: &mut [Session], strokes: usize) {
    std::thread::scope(|scope| {
        for s in sessions {
            scope.spawn(|| s.type_keys(strokes));
        }
    });
}

/// Types, and says by which of the two routers the frames went.
fn by(bed: &Bed, sessions: &mut [Session]) -> (u64, u64) {
    let counts = || (received(bed.host("s1"), "left"), received(bed.host("s2"), "left"));
    let before = counts();
    type_all(sessions, STROKES);
    let after = counts();
    (after.0 - before.0, after.1 - before.1)
}

fn set_route(bed: &Bed, first: bool) {
    for (dst, s1, s2) in
        [("192.0.2.129/32", "10.0.1.2", "inet6 2001:db8:2::2"), ("2001:db8:b::1/128", "2001:db8:1::2", "2001:db8:2::2")]
    {
        let via = if first { s1 } else { s2 };
        bed.duet("r").duet(&format!("route replace {dst} via {via}")).expect("a route");
    }
}

/// What happens to the sessions.
fn story(bed: &mut Bed, sessions: &mut [Session]) -> Result {
    let keys = STROKES as u64 * sessions.len() as u64;
    let (up, down) = by(bed, sessions);
    assert!(up >= keys && down < keys / 4, "by s1 at first: {up} {down}");

    // Nobody types: the neighbours go stale, and are forgotten. The next key finds all of them anew, and not one packet is
    // lost for it.
    let dynamic = |text: &str| text.lines().any(|l| ["192.0.2.1 ", "2001:db8:a::1 "].iter().any(|a| l.starts_with(a)));
    for _ in 0..2 {
        wait_for(bed, "neigh show dev left", |text| !dynamic(text));
        let lost = |bed: &Bed| {
            let stats = bed.stats("r").expect("counters");
            stats.drops.iter().filter(|(r, _)| r.starts_with("neighbor") || r.contains("no_route")).map(|d| *d.1).sum()
        };
        let before: u64 = lost(bed);
        type_all(sessions, STROKES);
        assert_eq!(lost(bed), before, "{:?}", bed.stats("r")?.drops);
    }

    // The route moves to a next hop of the other family, on a link that is narrower, and back.
    set_route(bed, false);
    let (up, down) = by(bed, sessions);
    assert!(down >= keys && up < keys / 4, "by s2 after the change: {up} {down}");
    sessions.iter_mut().for_each(|s| s.bulk(BULK));
    set_route(bed, true);
    let (up, down) = by(bed, sessions);
    assert!(up >= keys && down < keys / 4, "by s1 again: {up} {down}");

    // The same again and again, while bulk flows, and with the configuration read anew in between.
    let file = bed.duet("r").config().to_owned();
    let shown: &Bed = bed;
    std::thread::scope(|scope| {
        let flowing: Vec<_> = sessions.iter_mut().map(|s| scope.spawn(|| (0..3).for_each(|_| s.bulk(BULK)))).collect();
        let mut n = 0u32;
        while !flowing.iter().all(|f| f.is_finished()) || n < 6 {
            set_route(shown, n % 2 == 1);
            let more = (0..n % 50).fold(config(), |c, i| c.route(&format!("10.{}.0.0/16 via 10.0.1.2", i + 2)));
            std::fs::write(&file, more.to_toml()).expect("a file");
            shown.duet("r").duet("reload").expect("a reload");
            n += 1;
        }
        flowing.into_iter().for_each(|f| f.join().expect("the transfer"));
        println!("{n} changes of the routes and of the configuration during the transfers");
    });
    std::fs::write(&file, config().to_toml())?;
    bed.duet("r").duet("reload")?;
    set_route(bed, true);

    // The first link loses its carrier: the other way is taken, and left again.
    bed.net.set_up("s1", "left", false)?;
    let (_, down) = by(bed, sessions);
    assert!(down >= keys / 2, "by s2 while the link to s1 is dead: {down}");
    bed.net.set_up("s1", "left", true)?;
    // A kernel's router forgets its IPv6 addresses when their device goes down.
    let _ = bed.net.addr("s1", "left", "2001:db8:1::2/64");
    bed.ready()?;
    wait_for(bed, "route get 192.0.2.129", |text| text.contains("dev up"));
    wait_for(bed, "-6 route get 2001:db8:b::1", |text| text.contains("dev up"));
    type_all(sessions, STROKES);

    // The only link to the user goes down, and comes back.
    std::thread::scope(|scope| {
        let typing = scope.spawn(|| type_all(sessions, 5 * STROKES));
        for _ in 0..3 {
            let flap = |up| shown_net(bed).set_up("r", "left", up);
            flap(false).expect("down");
            wait_for(bed, "link show dev left", |text| text.contains("NO-CARRIER") || !text.contains("state UP"));
            flap(true).expect("up");
            wait_for(bed, "link show dev left", |text| text.contains("state UP"));
        }
        typing.join().expect("typing");
    });
    type_all(sessions, STROKES);
    Ok(())
}

fn shown_net(bed: &Bed) -> &router_io::lab::Net {
    &bed.net
}

sandbox_test! {
    fn sessions_survive_everything_that_happens_to_a_router() {
        let mut bed = bed().unwrap();
        let (a, b) = (bed.host("a").clone(), bed.host("b").clone());
        for (x, y) in [("192.0.2.1", "192.0.2.129"), ("2001:db8:a::1", "2001:db8:b::1")] {
            Pair::new(&a, &b, x, y).reachable().unwrap();
        }
        let (four, stream4, far4) = own("IPv4", &a, &b, ip("192.0.2.129"));
        let (six, stream6, far6) = own("IPv6", &a, &b, ip("2001:db8:b::1"));
        let mut sessions = vec![four, six];
        let programs = ssh(&bed, "192.0.2.129").map(|(session, programs)| {
            sessions.push(session);
            programs
        });
        story(&mut bed, &mut sessions).unwrap();
        for s in &sessions {
            println!("NOTE: session {}: {} bytes, all compared", s.name, s.bytes);
        }
        // All end in order.
        drop(sessions);
        for (stream, far) in [(stream4, far4), (stream6, far6)] {
            stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            let mut stream = stream;
            stream.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "{rest:?}");
            assert!(far.join().unwrap().unwrap() > BULK);
        }
        if let Some(mut programs) = programs {
            let status = programs.client.wait(PATIENCE).unwrap().expect("dbclient ends with its input");
            assert!(status.success(), "dbclient: {status}");
            let _ = programs.server.terminate(PATIENCE);
        }
        bed.finish().unwrap();
    }
}
