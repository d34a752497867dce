//! The control socket: requests and dumps, bulk loading, and clients that behave badly.

mod common;

use common::TestRouter;
use router_cli::control::{Access, Backend, Client, Limits, Op, RouteSelect, Server, SocketError, TableSelect};
use router_cli::fake::FakeBackend;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limits short enough for tests.
fn short() -> Limits {
    Limits {
        clients: 8,
        line: 100_000,
        request: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        reply: Duration::from_millis(500),
        page: 10,
    }
}

fn all() -> RouteSelect {
    RouteSelect { table: TableSelect::All, ..RouteSelect::default() }
}

/// Everything that the server says until it hangs up.
fn talk(router: &TestRouter, bytes: &[u8]) -> String {
    let mut s = UnixStream::connect(&router.socket).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may hang up in the middle.
    let _ = s.write_all(bytes);
    let mut out = String::new();
    let _ = s.read_to_string(&mut out);
    out
}

fn works(router: &TestRouter) {
    let run = router.run("route show table all");
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn malformed_requests_get_one_clear_error() {
    let router = TestRouter::with_limits(&["lan0"], short());
    for (request, want) in [
        ("rubbish\n", "malformed request"),
        ("{}\n", "malformed request"),
        ("{\"v\":1}\n", "malformed request"),
        ("{\"v\":7,\"id\":3,\"op\":\"future\"}\n", "protocol version 7 is not spoken here"),
        ("{\"v\":1,\"id\":3,\"op\":{\"route.add\":{\"dst\":\"10.0.0.0/33\"}}}\n", "malformed request"),
        ("{\"v\":1,\"id\":3,\"op\":{\"route.dance\":{}}}\n", "malformed request"),
        ("{\"v\":1,\"id\":3,\"op\":\"version\",\"more\":1}\n", "malformed request"),
        ("\u{0}\u{1}\n", "malformed request"),
    ] {
        let reply = talk(&router, request.as_bytes());
        assert_eq!(reply.lines().count(), 1, "{request:?} -> {reply}");
        assert!(reply.contains("\"error\"") && reply.contains(want), "{request:?} -> {reply}");
    }
    let deep = format!("{}\n", "[".repeat(90_000));
    assert!(talk(&router, deep.as_bytes()).contains("malformed request"));
    works(&router);
}

#[test]
fn long_lines_slow_lines_and_silence_end_the_connection() {
    let router = TestRouter::with_limits(&["lan0"], short());
    let huge = vec![b'x'; 1_000_000];
    let reply = talk(&router, &huge);
    assert!(reply.contains("longer than 100000 bytes"), "{reply}");
    let reply = talk(&router, b"{\"v\":1,");
    assert!(reply.contains("not finished in 300ms"), "{reply}");
    let reply = talk(&router, b"");
    assert!(reply.contains("nothing came in 900ms"), "{reply}");
    works(&router);
}

#[test]
fn a_drop_by_drop_writer_is_cut_off() {
    let router = TestRouter::with_limits(&["lan0"], short());
    let mut s = UnixStream::connect(&router.socket).unwrap();
    let began = Instant::now();
    let mut cut = false;
    while began.elapsed() < Duration::from_secs(5) {
        if s.write_all(b" ").is_err() {
            cut = true;
            break;
        }
        std::thread::yield_now();
    }
    assert!(cut);
    works(&router);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let router =
        TestRouter::with_limits(&["lan0"], Limits { reply: Duration::from_millis(200), page: 1000, ..short() });
    for i in 0..3000u32 {
        let op = format!("route add 10.{}.{}.0/24 dev lan0", i / 256, i % 256);
        if i % 1000 == 0 {
            assert_eq!(router.run(&op).code, 0);
        }
    }
    let mut s = UnixStream::connect(&router.socket).unwrap();
    let request = b"{\"v\":1,\"id\":1,\"op\":{\"route.show\":{\"table\":\"all\"}}}\n";
    let began = Instant::now();
    let mut cut = false;
    while began.elapsed() < Duration::from_secs(10) {
        if s.write_all(request).is_err() {
            cut = true;
            break;
        }
    }
    assert!(cut);
    works(&router);
}

#[test]
fn two_hundred_clients_do_not_keep_others_out_for_long() {
    let router = TestRouter::with_limits(&["lan0"], short());
    let many: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(&router.socket).unwrap()).collect();
    // Eight were let in; the others hear why not.
    let mut refused = 0;
    for s in &many {
        s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut line = String::new();
        let _ = BufReader::new(s).read_line(&mut line);
        refused += usize::from(line.contains("8 clients are connected already"));
    }
    assert_eq!(refused, 192);
    drop(many);
    let until = Instant::now() + Duration::from_secs(10);
    while router.run("route").code != 0 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

#[test]
fn a_second_router_is_told_and_a_dead_ones_socket_replaced() {
    let router = TestRouter::start(&["lan0"]);
    let second = Server::start(&router.socket, &Access::default(), Limits::default(), router.backend.clone());
    match second.err().unwrap() {
        e @ SocketError::Busy { .. } => {
            assert!(e.to_string().contains(&format!("another duet is running (pid {})", std::process::id())));
        }
        e => panic!("{e}"),
    }
    let TestRouter { backend, socket, dir, server } = router;
    drop(server);
    assert!(!socket.exists(), "removed when the server ended");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "as after kill -9");
    let _third = Server::start(&socket, &Access::default(), Limits::default(), backend).unwrap();
    assert!(Client::connect(&socket).unwrap().call(Op::Version).is_ok());
    drop(dir);
}

#[test]
fn without_a_router_there_is_one_line_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let socket = dir.path().join("none.sock");
    let mut session = router_cli::command::Session::new(socket, Default::default(), &mut out, false);
    let command = router_cli::grammar::parse_command(&["route"], None).unwrap();
    let failure = session.execute(command).unwrap_err();
    assert_eq!(failure.exit, 2);
    assert!(failure.line.starts_with("Cannot reach the router on "), "{failure:?}");
    assert!(failure.hint.unwrap().starts_with("start it with \"duet run FILE\""));
}

#[test]
fn batches_report_lines_and_stop_unless_forced() {
    let file = |router: &TestRouter, text: &str| {
        let path = router.dir.path().join("batch");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = "route add 10.1.0.0/16 dev lan0\n# comment\nroute add 10.1.0.0/16 dev lan0\nroute add 10.2.0.0/16 \\\n dev lan0\nroute add x dev lan0\nroute show 10.1.0.0/16\nroute add 10.3.0.0/16 dev lan0\n";
    let router = TestRouter::start(&["lan0"]);
    let path = file(&router, text);
    assert_eq!(router.run(&format!("-batch {path}")).code, 1);
    assert_eq!(router.run("route").out, "10.1.0.0/16 dev lan0 scope link \n");
    let router = TestRouter::start(&["lan0"]);
    let path = file(&router, text);
    let run = router.run(&format!("-force -batch {path}"));
    assert_eq!((run.code, run.out.as_str()), (1, "10.1.0.0/16 dev lan0 scope link \n"));
    assert_eq!(router.run("route").out.lines().count(), 3);
    assert_eq!(
        router.run("-batch /nonexistent").err,
        "Cannot open file \"/nonexistent\" for reading: No such file or directory"
    );
}

#[test]
fn a_hundred_thousand_routes_load_stream_and_restore() {
    let router = TestRouter::start(&["lan0"]);
    let path = router.dir.path().join("routes");
    let mut text = String::from("addr add 192.0.2.1/24 dev lan0\n");
    let n = 100_000u32;
    for i in 0..n {
        let a = std::net::Ipv4Addr::from(0x0a00_0000 + (i << 8));
        text.push_str(&format!("route add {a}/24 via 192.0.2.9 proto bgp\n"));
    }
    std::fs::write(&path, &text).unwrap();
    let began = Instant::now();
    assert_eq!(router.run(&format!("-batch {}", path.display())).code, 0);
    eprintln!("{n} routes loaded in {:?}", began.elapsed());
    let began = Instant::now();
    let shown = router.run("route show proto bgp");
    eprintln!("and shown in {:?}", began.elapsed());
    assert_eq!(shown.out.lines().count(), n as usize);
    let saved = router.run("route save");
    assert_eq!(saved.out.lines().count(), n as usize + 1);
    assert!(saved.out.lines().nth(1).unwrap().ends_with("proto bgp via inet 192.0.2.9 dev lan0"));
}

#[test]
fn writes_of_a_batch_only_and_no_batch_in_a_batch() {
    let router = TestRouter::start(&["lan0"]);
    let mut client = Client::connect(&router.socket).unwrap();
    let error = client.call(Op::Batch { ops: vec![Op::Version], force: false, chain: false }).unwrap_err();
    assert!(error.to_string().contains("changing operations only"));
    // A chained batch after a failed one does nothing.
    let bad = Op::RouteDelete(Box::new(router_core::spec::RouteSpec::new("10.0.0.0/8".parse().unwrap())));
    let good = Op::NextHopAdd(router_core::spec::NextHopSpec::new(1, router_core::spec::NextHopKind::Blackhole));
    client.send(Op::Batch { ops: vec![bad], force: false, chain: true }).unwrap();
    client.send(Op::Batch { ops: vec![good], force: false, chain: true }).unwrap();
    let first = format!("{:?}", client.receive().unwrap());
    let second = format!("{:?}", client.receive().unwrap());
    assert!(first.contains("No such process"), "{first}");
    assert!(second.contains("skipped: 1"), "{second}");
    assert!(router.backend.routes(&all(), None, 10).unwrap().0.is_empty());
}

#[test]
fn the_server_ends_while_clients_are_connected() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let server =
        Server::start(&socket, &Access::default(), Limits::default(), Arc::new(FakeBackend::with_ports(&[]))).unwrap();
    let mut idle = UnixStream::connect(&socket).unwrap();
    idle.write_all(b"{\"v\":1,\"id\":9,\"op\":\"version\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(&idle).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"id\":9,\"ok\":{\"version\":{"), "{line}");
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!socket.exists());
}
